"""Connections, of which no number and no slowness may keep others waiting."""

import asyncio
import errno
import json
import resource
import socket
import ssl
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from typing import Any

import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from execbroker.config import Config, ConnectionSettings
from execbroker.errors import Busy, Unreadable
from execbroker.web.outside import SAFE, Network, is_one_of
from execbroker.web.problems import problem
from execbroker.web.throttle import caller_at
from execbroker.web.tls import Tls
from execbroker.web.upgrades import Http

SPARE = 256  # files that the broker has open besides
PAUSE = 0.1  # seconds
_OUT_OF_FILES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
log = structlog.get_logger()


def raise_file_limit(wanted: int) -> int:
    """Let this process have so many files open, or as many as it may; how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = (sys.maxsize if limit == resource.RLIM_INFINITY else limit for limit in (soft, hard))
    if soft < wanted:
        soft = min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard if hard < sys.maxsize else resource.RLIM_INFINITY))
    return soft


class Patient(Http):
    """What uvicorn leaves to others: an end to its patience with a client that sends half a request, or does not read."""

    def __init__(self, config: uvicorn.Config, state: ServerState, app_state: dict[str, Any], limits: ConnectionSettings) -> None:
        super().__init__(config, state, app_state)
        self._limits = limits
        self._began: float | None = self.loop.time()
        self._full: float | None = None
        self.on_lost: Callable[[], None] = lambda: None

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.on_lost()

    def data_received(self, data: bytes) -> None:
        cycle = self.cycle
        if self._began is None and self._between:
            self._began = self.loop.time()
        super().data_received(data)
        if cycle is not None and cycle is self.cycle and cycle.response_complete and cycle.more_body:
            self._go_slow()

    def _go_slow(self) -> None:
        """What comes is the rest of a body that was answered without it."""
        if not self.transport.is_closing():
            self.transport.pause_reading()
            self.loop.call_later(PAUSE, self._read_on)

    def _read_on(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._full = None

    @property
    def _between(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or bool(self.cycle.response_complete)

    def look(self, now: float) -> None:
        """Close it where it has taken too long, and end it where it cannot even be closed."""
        if not self._between or self.timeout_keep_alive_task is not None:
            self._began = None
        elif self._began is not None and now - self._began > self._limits.head.total_seconds():
            self.transport.close()
        if not self.transport.get_write_buffer_size() and not self.transport.is_closing():
            self._full = None
        elif self._full is None:
            self._full = now
        elif now - self._full > self._limits.reply.total_seconds():
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        self.transport.write(_whole_reply(problem(Unreadable(msg))))
        self.transport.close()


def _whole_reply(document: dict[str, Any], **more: str) -> bytes:
    """A problem, and the end of the connection, for those who have not got as far as the application."""
    body = json.dumps(document).encode()
    headers = {"Content-Type": "application/problem+json", "Content-Length": str(len(body)), "Connection": "close"}
    lines = [
        f"HTTP/1.1 {document['status']} {document['title']}",
        *(f"{key}: {value}" for key, value in (headers | SAFE | more).items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


_FULL = _whole_reply(problem(Busy("There are too many connections already")), **Busy.headers)


class Listener:
    """Accepts connections, as many as there may be, in all and from one address; others get 503 at once.

    It does itself what asyncio's server would do: that one tells of a connection only after its TLS handshake, and until then
    nobody counts it.
    """

    def __init__(
        self,
        listening: socket.socket,
        limits: ConnectionSettings,
        most: int,
        proxies: Sequence[Network],
        protocol: Callable[[], Patient],
        tls: Callable[[], ssl.SSLContext | None],
    ) -> None:
        self._socket, self._limits, self._most, self._proxies = listening, limits, most, proxies
        self._protocol, self._tls = protocol, tls
        self._from: Counter[str] = Counter()
        self._connecting: set[asyncio.Task[None]] = set()
        listening.setblocking(False)
        self._accepting = asyncio.create_task(self._accept(), name="accept")

    def close(self) -> None:
        """Accept no more; what is connected stays so."""
        self._accepting.cancel()

    async def wait_closed(self) -> None:
        await asyncio.gather(self._accepting, return_exceptions=True)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(self._socket)
            except OSError as error:
                if error.errno in _OUT_OF_FILES:
                    log.error("door.cannot_accept", error=str(error))
                    await asyncio.sleep(PAUSE)
                continue
            self._take(connection, caller_at(address[0]))
            await asyncio.sleep(0)  # others have their turn, however many want to come in

    def _take(self, connection: socket.socket, caller: str) -> None:
        if self._is_too_many(caller):
            _turn_away(connection, speaks=self._tls() is None)
            return
        self._from[caller] += 1
        task = asyncio.create_task(self._connect(connection, caller))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    def _is_too_many(self, caller: str) -> bool:
        if self._from.total() >= self._most:
            return True
        trusted = ip_address(caller).is_loopback or is_one_of(caller, self._proxies)
        return not trusted and self._from[caller] >= self._limits.address

    async def _connect(self, connection: socket.socket, caller: str) -> None:
        protocol, tls = self._protocol(), self._tls()
        protocol.on_lost = lambda: self._leave(caller)
        patience = {"ssl_handshake_timeout": self._limits.head.total_seconds()} if tls else {}
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, connection, ssl=tls, **patience)
        except OSError:  # no handshake, or none in time
            connection.close()
            self._leave(caller)

    def _leave(self, caller: str) -> None:
        self._from[caller] -= 1
        if not self._from[caller]:
            del self._from[caller]


def _turn_away(connection: socket.socket, *, speaks: bool) -> None:
    with connection, suppress(OSError):
        if speaks:
            connection.send(_FULL)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1 << 16)  # what has come and is not read would take the reply back


class Server(uvicorn.Server):
    """uvicorn's, with a `Listener` of ours, and without signal handlers: whoever runs it says when to stop."""

    def __init__(self, app: ASGIApp, config: Config, listening: socket.socket, drain: int, tls: Tls | None) -> None:
        settings = uvicorn.Config(
            app,
            http=Patient,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=drain,
        )
        super().__init__(settings)
        settings.load()
        self._limits, self._proxies, self._listening, self._tls = config.limits.connections, config.proxies, listening, tls

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        most = max(min(self._limits.all, raise_file_limit(self._limits.all + SPARE) - SPARE), 1)
        tls = self._tls
        self.servers = [
            Listener(self._listening, self._limits, most, self._proxies, self._speak, lambda: tls.context if tls else None)  # type: ignore[list-item]
        ]
        self.started = True

    def _speak(self) -> Patient:
        return Patient(self.config, self.server_state, {}, self._limits)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        now = asyncio.get_running_loop().time()
        for connection in list(self.server_state.connections):
            if hash(connection) % 10 == counter % 10:  # each once a second, not all at the same time
                connection.look(now)  # type: ignore[union-attr]
        return await super().on_tick(counter)
