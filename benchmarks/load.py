"""A load generator that costs little itself: HTTP/1.1 over raw asyncio streams, one connection per client."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any, Self


class Connection:
    """One client with a connection that is kept open."""

    def __init__(self, host: str, port: int, credentials: str) -> None:
        self._host, self._port = host, port
        self._head = f"Host: {host}:{port}\r\nAuthorization: {credentials}\r\nContent-Type: application/json\r\n"

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def send(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """The status and the body of the answer."""
        head = f"{method} {path} HTTP/1.1\r\n{self._head}Content-Length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)
        lines = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(lines.partition(b"content-length:")[2].partition(b"\r\n")[0])
        return int(lines[9:12]), await self._reader.readexactly(length)

    async def call(self, method: str, path: str, document: Any = None) -> Any:
        status, body = await self.send(method, path, json.dumps(document).encode() if document is not None else b"")
        if status != 200:
            raise RuntimeError(f"{method} {path}: {status} {body[:300]!r}")
        return json.loads(body)


async def hammer(
    connect: Callable[[], Connection], clients: int, requests: int, path: str, body: bytes
) -> tuple[float, list[float], list[bytes]]:
    """`requests` equal POSTs by `clients` at once: seconds in all, seconds of each, and the answers."""
    times: list[float] = []
    answers: list[bytes] = []
    left = iter(range(requests))

    async def client() -> None:
        async with connect() as connection:
            for _ in left:
                began = time.perf_counter()
                status, answer = await connection.send("POST", path, body)
                times.append(time.perf_counter() - began)
                if status != 200:
                    raise RuntimeError(f"POST {path}: {status} {answer[:300]!r}")
                answers.append(answer)

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return time.perf_counter() - began, times, answers
