import asyncio
import json
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import structlog
import typer
import uvicorn

from execbroker.client.discovery import ADDRESS, TOKEN
from execbroker.errors import StartupError

if TYPE_CHECKING:
    from execbroker.config import Config

DRAIN = 3
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 -- where such a broker is reached from here


def serve_until_stopped(config: "Config") -> None:
    """Run a broker until SIGINT or SIGTERM. Raises StartupError with what to do where it cannot start."""
    os.umask(0o077)  # what is written here is the owner's alone
    set_up_logs(sys.stderr)
    factory = uvicorn.Config("execbroker", log_config=None).get_loop_factory()
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_serve(config))


async def _serve(config: "Config") -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with listening(config) as url:
        typer.echo(f"execbroker is listening on {url}")
        ways_in = {"token": f"Its token is in {config.folder / TOKEN}", "accounts": "Everybody has an account of their own"}
        typer.echo(ways_in.get(config.auth.mode, "No token is asked for"))
        await stop.wait()


class _Server(uvicorn.Server):
    """Without signal handlers of its own: whoever runs it says when to stop, and what has to be closed after it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def listening(config: "Config") -> AsyncIterator[str]:
    """A broker that answers at the address given, until the end of the block; what is under way is finished, briefly.

    Raises StartupError where the port or the data folder cannot be had.
    """
    from execbroker.app import create_app

    try:
        app = create_app(config)
    except OSError as error:
        raise StartupError(f"The data folder {config.folder} cannot be used: {error.strerror}") from None
    with _bound(config.host, config.port) as listener:
        url = _url(listener)
        async with app.router.lifespan_context(app):
            server = _Server(
                uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=DRAIN)
            )
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            try:
                with _announced(config.folder, url):
                    yield url
            finally:
                app.state.parts.ledger.changes.close()
                server.should_exit = True
                await serving


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio turns Nagle's algorithm off; without, each reply would wait 40 ms for its second packet.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        hint = "; choose another one with --port, or 0 for any that is free"
        raise StartupError(f"Cannot listen on {host}, port {port}: {error.strerror}{hint}") from None
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    host = _ANYWHERE.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def _announced(folder: Path, url: str) -> Iterator[None]:
    """The file by which clients of this machine find the broker, there as long as it is."""
    path = folder / ADDRESS
    new = path.with_suffix(f".{secrets.token_hex(4)}")  # brokers in several containers have the same pid
    with new.open("w") as file:
        file.write(json.dumps({"url": url, "pid": os.getpid()}) + "\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    try:
        yield
    finally:
        with suppress(OSError, ValueError):  # another broker of the same folder may have come after this one
            if json.loads(path.read_text())["pid"] == os.getpid():
                path.unlink()


def set_up_logs(stream: IO[str]) -> None:
    """Logs for a person in a terminal, in JSON lines elsewhere; of the libraries only what is worth a warning."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper("iso"),
    ]
    human = stream.isatty()
    last: list[Any] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]  # no locals: they have secrets
        if human
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last]
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("execbroker").setLevel(logging.INFO)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=lambda *_: logging.getLogger("execbroker"),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
