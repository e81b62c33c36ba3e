"""A broker process, and raw connections to it that do what no well-meant client does."""

import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from brokersite import NOTEBOOK
from processsite import DEADLINE, SITE, Site

ASK = json.dumps({"executable": NOTEBOOK}).encode()
SERVERS = ["h11 and asyncio", "httptools and uvloop"]
NEEDED = "httptools and uvloop are not here: pip install 'execbroker[fast]'"


def use(server: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Brokers that are started from now on speak HTTP by these."""
    if server == "h11 and asyncio":
        for name in ("httptools", "uvloop"):
            (folder / f"{name}.py").write_text("raise ImportError\n")
        monkeypatch.setenv("PYTHONPATH", str(folder))
    else:
        pytest.importorskip("httptools", reason=NEEDED)
        pytest.importorskip("uvloop", reason=NEEDED)


def door(folder: Path, **settings: Any) -> Site:
    """A broker with a fake platform, not yet started."""
    return Site(folder / "door", {"platforms": [SITE], **settings})


class Raw:
    """One connection, byte by byte; closed when nobody holds it any more."""

    def __init__(self, site: Site, host: str | None = None, *, buffer: int | None = None) -> None:
        parts = urlsplit(site.url)
        self.site, self.socket = site, socket.socket()
        if buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.settimeout(DEADLINE)
        self.socket.connect((host or parts.hostname, parts.port))

    def secure(self, context: ssl.SSLContext, name: str | None = None) -> "Raw":
        self.socket = context.wrap_socket(self.socket, server_hostname=name)
        return self

    def send(self, content: bytes) -> None:
        self.socket.sendall(content)

    def head(self, method: str, path: str, length: int | None = None, **headers: str) -> None:
        """The head of a request with the token."""
        token = (self.site.data / "token").read_text()
        lines = [
            f"{method} {path} HTTP/1.1",
            "Host: localhost",
            f"Authorization: Bearer {token}",
            "Content-Type: application/json",
        ]
        lines += [f"Content-Length: {length}"] * (length is not None) + [f"{name}: {value}" for name, value in headers.items()]
        self.send("\r\n".join([*lines, "", ""]).encode())

    def rest(self) -> bytes:
        """All that comes until the broker closes; fails where it does not."""
        found = b""
        try:
            while more := self.socket.recv(1 << 16):
                found += more
        except ConnectionError:
            pass
        return found

    def reply(self) -> tuple[int, dict[str, str], bytes]:
        """The next reply: its status, headers and body."""
        with self.socket.makefile("rb") as file:
            status = int(file.readline().split()[1])
            headers = dict(line.decode().lower().rstrip().split(": ", 1) for line in iter(file.readline, b"\r\n"))
            return status, headers, file.read(int(headers["content-length"]))

    def close(self) -> None:
        self.socket.close()

    __del__ = close


@contextmanager
def connections(site: Site, number: int) -> Iterator[list[Raw]]:
    opened = [Raw(site) for _ in range(number)]
    try:
        yield opened
    finally:
        for one in opened:
            one.close()


def status_of(pid: int, name: str) -> int:
    """A line of what the system knows of a process; VmHWM is the most memory it ever had, in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


def connected(site: Site) -> int:
    """How many connections to its door the broker has open; those to a database are not among them."""
    port, listening = urlsplit(site.url).port, "0A"
    tables = [Path(f"/proc/{site.process.pid}/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables for line in table]
    inodes = {row[9] for row in rows if row[1].endswith(f":{port:04X}") and row[3] != listening}
    return len(inodes - {"0"})  # the kernel's own, closed already
