"""A site's broker on a port of loopback, as streams need it, what a stream says, and a receiver of callbacks."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import httpx
import uvicorn
from standardwebhooks import Webhook

import judge
from brokersite import Site


@asynccontextmanager
async def served(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the broker, over a real connection."""
    config = uvicorn.Config(site.app, port=0, lifespan="off", log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    listener = config.bind_socket()
    serving = asyncio.create_task(server._serve([listener]))
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=10, event_hooks=judge.HOOKS
        ) as client:
            yield client
    finally:
        site.ledger.changes.close()
        server.should_exit = True
        await serving


@dataclass
class Block:
    """What stands between two empty lines of a stream."""

    fields: dict[str, str]

    @property
    def event(self) -> str:
        return self.fields.get("event", "")

    @property
    def number(self) -> int:
        return int(self.fields["id"])

    @property
    def data(self) -> Any:
        return json.loads(self.fields["data"])


async def blocks(client: httpx.AsyncClient, path: str, **how: Any) -> AsyncIterator[Block]:
    async with client.stream("GET", path, **how) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        async for line in answer.aiter_lines():
            name, _, value = line.partition(": ")
            if line:
                fields[name] = value
            else:
                yield Block(fields)
                fields = {}


async def whole(client: httpx.AsyncClient, path: str, **how: Any) -> list[Block]:
    """All that a stream says until it is over."""
    async with asyncio.timeout(10):
        return [block async for block in blocks(client, path, **how)]


@dataclass
class Receiver:
    """A server that is told of events; `answers` are its statuses for the next requests, 0 for none at all until the end, and
    204 after them."""

    port: int = 0
    answers: list[int] = field(default_factory=list)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    """Headers and bodies of what was answered with success."""
    asked: int = 0
    let_go: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """Whoever was kept waiting hangs up."""

        self.server = Server(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go.set()
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/told"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers["Content-Length"])
        body = handler.rfile.read(length)
        if len(body) < length:  # who spoke has died over it
            return
        self.asked += 1
        status = self.answers.pop(0) if self.answers else 204
        if status == 0:
            self.let_go.wait(30)
        else:
            handler.send_response(status)
            handler.send_header("Location", f"{self.url}/elsewhere")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
        if 200 <= status < 300:
            self.got.append((dict(handler.headers), body))

    def told(self, secret: str) -> list[dict[str, Any]]:
        """What it was told, each verified."""
        return [Webhook(secret).verify(body, headers) for headers, body in self.got]
