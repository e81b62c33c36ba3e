"""A real HTTP server on loopback that misbehaves as it is told, and what the tests of staging share."""

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import UUID, uuid4

from execbroker.model.times import Clock
from execbroker.model.waist import Job, Launch, Mount, Progress, Share, Source
from execbroker.staging.base import DataSettings
from execbroker.staging.file import FileFetcher
from execbroker.staging.http import HttpFetcher
from execbroker.staging.rates import Rates
from execbroker.staging.stager import Stager
from execbroker.staging.transfer import Patience

HASTY = Patience(first_wait=0.01, longest_wait=0.2, stall=10)
DATA = bytes(range(256)) * 12_000


@dataclass
class Page:
    """What is served at a path. Of the lists, each GET takes the first entry while there is one."""

    body: bytes = DATA
    headers: dict[str, str] = field(default_factory=lambda: {"ETag": '"one"'})
    ranges: bool = True
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    drops: list[int] = field(default_factory=list)
    methods: tuple[str, ...] = ("GET", "HEAD")
    length: int | None = None
    then: "Page | None" = None
    """The page that is here from the second GET on."""
    if_range: bool = True
    chunked: bool = False
    pause_at: int | None = None
    pace: float = 0
    """Seconds before each 256 KiB."""
    together: threading.Barrier | None = None
    go_on: threading.Event = field(default_factory=threading.Event)


class Site(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__((address, port), Handler)
        self.pages: dict[str, Page] = {}
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.url = f"http://{address}:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is part of the play."""

    def gets(self, path: str) -> list[dict[str, str]]:
        return [headers for method, at, headers in self.asked if (method, at) == ("GET", path)]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Site

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        self.close_connection = True
        self.server.asked.append((self.command, self.path, dict(self.headers)))
        page = self.server.pages.get(self.path)
        if page is None:
            return self.reply(404, {"Content-Length": "0"})
        if page.together:
            page.together.wait(30)
        if self.command not in page.methods:
            return self.reply(405, {"Content-Length": "0"})
        if page.answers and self.command == "GET":
            status, headers = page.answers.pop(0)
            return self.reply(status, {"Content-Length": "0", **headers})
        if page.then and self.command == "GET":
            self.server.pages[self.path] = page.then
        return self.serve(page)

    def serve(self, page: Page) -> None:
        start = self.start_of(page)
        body = page.body[start:]
        size = {"Transfer-Encoding": "chunked"} if page.chunked else {"Content-Length": str(page.length or len(body))}
        if start >= len(page.body) > 0:
            return self.reply(416, {"Content-Range": f"bytes */{len(page.body)}", "Content-Length": "0"})
        part = {"Content-Range": f"bytes {start}-{len(page.body) - 1}/{len(page.body)}"} if self.ranged(page) else {}
        self.reply(206 if part else 200, {**size, **part, **page.headers})
        if self.command == "GET":
            self.send(page, body, start)
        return None

    def ranged(self, page: Page) -> bool:
        match = not page.if_range or self.headers["If-Range"] in (
            None,
            page.headers.get("ETag"),
            page.headers.get("Last-Modified"),
        )
        return page.ranges and match and "Range" in self.headers

    def start_of(self, page: Page) -> int:
        return int(re.fullmatch(r"bytes=(\d+)-\d*", self.headers["Range"])[1]) if self.ranged(page) else 0

    def send(self, page: Page, body: bytes, start: int) -> None:
        end = page.drops.pop(0) if page.drops else len(body)
        if page.pause_at is not None and start <= page.pause_at < start + end:
            self.write(page, body[: page.pause_at - start])
            page.go_on.wait(30)
            body, end = body[page.pause_at - start :], end - page.pause_at + start
        for at in range(0, end, 1 << 18):
            page.go_on.wait(page.pace)
            self.write(page, body[at : min(at + (1 << 18), end)])
        if page.chunked and end == len(body):
            self.wfile.write(b"0\r\n\r\n")

    def write(self, page: Page, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data) if page.chunked and data else data)

    def reply(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


@contextmanager
def running(site: Site) -> Iterator[Site]:
    thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        for page in site.pages.values():
            page.go_on.set()
        site.shutdown()
        thread.join()
        site.server_close()


@asynccontextmanager
async def stager(patience: Patience = HASTY, rates: Rates | None = None, **settings: object) -> AsyncIterator[Stager]:
    """A stager with the fetchers of http, https and file; 127.0.0.1 may be reached, and nothing else that is private."""
    data = DataSettings.model_validate({"allow_private": ["127.0.0.1"], **settings})
    http, file = HttpFetcher(data), FileFetcher(data)
    made = Stager({"http": http, "https": http, "file": file}, data, rates or Rates(), Clock(), patience)
    try:
        yield made
    finally:
        await made.close()


def job(
    folder: Path,
    *sources: Source,
    program: tuple[Source, ...] = (),
    files: dict[str, str] | None = None,
    mounts: tuple[Mount, ...] = (),
    uuid: UUID | None = None,
) -> Job:
    now = datetime.now(UTC)
    launch = Launch("process", sources=program, files=files or {})
    return Job(uuid or uuid4(), launch, sources, mounts, (Share("node", 1, 1),), now, now, folder / "job", "secret")


async def bring(stager: Stager, job: Job, seconds: float = 20) -> Progress:
    async with asyncio.timeout(seconds):
        while not (progress := await stager.stage(job)).done:
            pass
    return progress


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for what another process does."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - it cannot tell us
            await asyncio.sleep(0.01)
