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
    from execbroker.web.tls import Tls

DRAIN = 3
log = structlog.get_logger()
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 -- where such a broker is reached from here


def serve_until_stopped(config: "Config") -> None:
    """Run a broker until SIGINT or SIGTERM. Raises StartupError with what to do where it cannot start."""
    os.umask(0o077)  # what is written here is the owner's alone
    set_up_logs(sys.stderr)
    factory = uvicorn.Config("execbroker", log_config=None).get_loop_factory()
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_serve(config))


async def _serve(config: "Config") -> None:
    stop, renew = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def end(number: int) -> None:
        if stop.is_set():  # the second time; whatever is under way, the next start finds it as it is
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end, number)
    loop.add_signal_handler(signal.SIGHUP, renew.set)
    _warn_of_clear_text(config)
    async with listening(config, renew) as url:
        typer.echo(f"execbroker is listening on {url}")
        ways_in = {"token": f"Its token is in {config.folder / TOKEN}", "accounts": "Everybody has an account of their own"}
        typer.echo(ways_in.get(config.auth.mode, "No token is asked for"))
        await stop.wait()


def _warn_of_clear_text(config: "Config") -> None:
    from execbroker.places import is_loopback

    secure = config.tls.certificate or (config.public_url or "").startswith("https:")
    if not is_loopback(config.host) and not secure:
        text = (
            "Whoever listens on the network can read the credentials: set tls, or public_url to the address of a proxy with https"
        )
        log.warning("door.clear_text", host=config.host, hint=text)


@asynccontextmanager
async def listening(config: "Config", renew: asyncio.Event | None = None) -> AsyncIterator[str]:
    """A broker that answers at the address given, until the end of the block; what is under way is finished, briefly. When
    `renew` is set it reads its certificate again.

    Raises StartupError where the port or the data folder cannot be had.
    """
    from execbroker.app import create_app
    from execbroker.web.connections import Server
    from execbroker.web.tls import tls_of

    tls = tls_of(config)
    try:
        app = create_app(config)
    except OSError as error:
        raise StartupError(f"The data folder {config.folder} cannot be used: {error.strerror}") from None
    with _bound(config.host, config.port) as listener:
        url = _url(listener, "https" if tls else "http")
        async with app.router.lifespan_context(app):
            server = Server(app, config, listener, DRAIN, tls)
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            renewing = asyncio.create_task(_renewing(renew or asyncio.Event(), tls, config.folder, url))
            try:
                with _announced(config.folder, url, tls):
                    yield url
            finally:
                renewing.cancel()
                app.state.parts.ledger.changes.close()
                server.should_exit = True
                await serving


async def _renewing(renew: asyncio.Event, tls: "Tls | None", folder: Path, url: str) -> None:
    while True:
        await renew.wait()
        renew.clear()
        if tls is None:
            continue
        try:
            await asyncio.to_thread(tls.renew)
        except StartupError as error:
            log.error("tls.not_renewed", error=str(error))
        else:
            await asyncio.to_thread(_write_address, folder, url, tls)
            log.info("tls.renewed")


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


def _url(listener: socket.socket, scheme: str) -> str:
    host, port = listener.getsockname()[:2]
    host = _ANYWHERE.get(host, host)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


@contextmanager
def _announced(folder: Path, url: str, tls: "Tls | None") -> Iterator[None]:
    """The file by which clients of this machine find the broker, there as long as it is."""
    path = _write_address(folder, url, tls)
    try:
        yield
    finally:
        with suppress(OSError, ValueError):  # another broker of the same folder may have come after this one
            if json.loads(path.read_text())["pid"] == os.getpid():
                path.unlink()


def _write_address(folder: Path, url: str, tls: "Tls | None") -> Path:
    """With the certificate, by which clients of this machine know the broker, whatever name is in it."""
    path = folder / ADDRESS
    new = path.with_suffix(f".{secrets.token_hex(4)}")  # brokers in several containers have the same pid
    with new.open("w") as file:
        file.write(json.dumps({"url": url, "pid": os.getpid()} | ({"certificate": tls.own} if tls else {})) + "\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    return path


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
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # that somebody does not speak HTTP is no news
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=lambda *_: logging.getLogger("execbroker"),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
