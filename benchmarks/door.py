"""What others notice of somebody who means no good. By itself, `door.py KIND HOST PORT TOKEN`, it is that somebody."""

import asyncio
import base64
import gzip
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import cycle
from typing import Any

from load import Connection

ASK = {"executable": {"kind": "docker-container", "image": {"locations": ["ghcr.io/example/image:1"]}}}
AUTH = {"mode": "accounts", "admin": {"username": "admin", "password": "of the benchmark"}}


def head(host: str, credentials: str, length: int, more: str = "") -> bytes:
    lines = [f"POST /requests HTTP/1.1\r\nHost: {host}\r\nAuthorization: {credentials}\r\nContent-Type: application/json"]
    return f"{lines[0]}\r\nContent-Length: {length}\r\n{more}\r\n".encode()


async def slow(host: str, port: int, credentials: str, number: int = 1000) -> None:
    """Connections that send nothing, half a head, or half a body, a byte of it now and then, and that come again."""
    parts = cycle([b"", b"POST /requests HTTP/1.1\r\nHost: ", head(host, credentials, 1 << 20) + b"{" + b" " * 50_000])

    async def one(part: bytes) -> None:
        while True:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection(host, port)
                writer.write(part)
                while not reader.at_eof():
                    with suppress(TimeoutError):
                        async with asyncio.timeout(2):
                            await reader.read(4096)
                    if part:
                        writer.write(b" ")
                writer.close()

    async with asyncio.TaskGroup() as group:
        for _, part in zip(range(number), parts, strict=False):
            group.create_task(one(part))


async def flood(host: str, port: int, credentials: str, number: int = 64) -> None:
    """Asks, one after the other, from many connections."""
    await _post(host, port, head(host, credentials, len(body := json.dumps(ASK).encode())) + body, number)


async def bombs(host: str, port: int, credentials: str, number: int = 16) -> None:
    """Bodies that unpack to a gigabyte."""
    body = gzip.compress(bytes(64 << 20), 9) * 16
    await _post(host, port, head(host, credentials, len(body), "Content-Encoding: gzip\r\n") + body, number)


async def _post(host: str, port: int, request: bytes, number: int) -> None:
    async def one() -> None:
        while True:
            with suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection(host, port)
                while True:
                    writer.write(request)
                    lines = (await reader.readuntil(b"\r\n\r\n")).lower()
                    await reader.readexactly(int(lines.partition(b"content-length:")[2].partition(b"\r\n")[0]))

    async with asyncio.TaskGroup() as group:
        for _ in range(number):
            group.create_task(one())


KINDS = {"slow": slow, "flood": flood, "bombs": bombs}


def basic(username: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"


async def account(where: dict[str, Any], username: str) -> str:
    """The credentials of somebody new."""
    host, port = where["url"].removeprefix("http://").split(":")
    new = {"username": username, "password": f"of {username} alone"}
    async with Connection(host, int(port), basic(**AUTH["admin"])) as admin:
        status, answer = await admin.send("POST", "/admin/identities", json.dumps(new).encode())
    if status != 201:
        raise SystemExit(f"no account: {status} {answer[:200]!r}")
    return basic(**new)


@contextmanager
def attacked(kind: str | None, where: dict[str, Any]) -> Iterator[None]:
    """By a process of its own, of somebody with an account."""
    if kind is None:
        yield
        return
    host, port = where["url"].removeprefix("http://").split(":")
    attacker = subprocess.Popen([sys.executable, __file__, kind, host, port, asyncio.run(account(where, "attacker"))])
    try:
        yield
    finally:
        attacker.kill()
        attacker.wait()


async def others(where: dict[str, Any], seconds: float = 10, warm: float = 3) -> list[float]:
    """Seconds that each request of somebody else took, who asks twenty times a second."""
    host, port = where["url"].removeprefix("http://").split(":")
    times, body = list[float](), json.dumps(ASK).encode()
    credentials = await account(where, "other")
    until = time.perf_counter() + warm + seconds
    async with Connection(host, int(port), credentials) as connection:
        while (began := time.perf_counter()) < until:
            status, answer = await connection.send("POST", "/requests", body)
            took = time.perf_counter() - began
            if status != 200:
                raise SystemExit(f"another client was told {status}: {answer[:200]!r}")
            if began > until - seconds:
                times.append(took)
            await asyncio.sleep(max(0.05 - took, 0))
    return times


if __name__ == "__main__":
    _, kind, host, port, credentials = sys.argv
    asyncio.run(KINDS[kind](host, int(port), credentials))
