import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal

COMMIT = b"COMMIT\0"
BEGINNING = 1000  # bytes
Cut = Literal["before", "on", "after"]


class Proxy:
    """Stands between a broker and its database, on a port of loopback, and cuts the line at a commit when it is told to:
    `before` the server gets it, as soon as it is passed `on`, or `after` the server has answered, which nobody then hears.

    The next so many `cuts` are made, one at a time.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._lines: set[_Line] = set()
        self.port = 0
        self.cuts: list[Cut] = []
        self.made = 0

    def cut_off(self) -> None:
        """All that is connected."""
        for writer in list(self._writers):
            writer.transport.abort()

    def mute(self, word: bytes) -> int:
        """From now on nothing comes through any line that this word was said on, and nobody is told; how many they are."""
        lines = [line for line in self._lines if word in line.said]
        for line in lines:
            line.mute = True
        return len(lines)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with suppress(OSError):
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._to)
            self._writers.add(to_server)
            line = _Line(self, (writer, to_server))
            self._lines.add(line)
            await asyncio.gather(line.ask(reader), line.answer(from_server), return_exceptions=True)
            self._lines.discard(line)
            self._writers.discard(to_server)
            to_server.transport.abort()
        self._writers.discard(writer)
        writer.transport.abort()


class _Line:
    def __init__(self, proxy: Proxy, ends: tuple[asyncio.StreamWriter, asyncio.StreamWriter]) -> None:
        self._proxy, (self._client, self._server) = proxy, ends
        self._asked = self.mute = False
        self.said = b""
        """How it began."""

    async def ask(self, reader: asyncio.StreamReader) -> None:
        tail = b""
        while some := await reader.read(1 << 16):
            if self.mute:
                continue
            self.said = (self.said + some)[:BEGINNING]
            now = self._proxy.cuts[0] if COMMIT in tail + some and self._proxy.cuts else None
            tail = some[-len(COMMIT) + 1 :]
            self._asked |= now == "after"
            if now == "before":
                self._cut()
            self._server.write(some)
            await self._server.drain()
            if now == "on":
                self._cut(gently=True)
        self._client.transport.abort()
        self._server.transport.abort()

    async def answer(self, reader: asyncio.StreamReader) -> None:
        tail = b""
        while some := await reader.read(1 << 16):
            if self.mute:
                continue
            if self._asked and COMMIT in tail + some:
                self._cut()
            tail = some[-len(COMMIT) + 1 :]
            self._client.write(some)
            await self._client.drain()
        self._client.transport.abort()
        self._server.transport.abort()

    def _cut(self, *, gently: bool = False) -> None:
        """Raises ConnectionAbortedError. The server still gets what was passed on, where that is done `gently`."""
        self._proxy.cuts.pop(0)
        self._proxy.made += 1
        self._client.transport.abort()
        self._server.close() if gently else self._server.transport.abort()
        raise ConnectionAbortedError


@asynccontextmanager
async def proxy(port: int) -> AsyncIterator[Proxy]:
    """In front of the server on this port."""
    made = Proxy(port)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        made.cut_off()
        await server.wait_closed()
