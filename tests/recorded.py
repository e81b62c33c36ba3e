"""`execbroker`, whose broker writes down what it is asked and what it answers, so that the tests can judge it afterwards."""

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import execbroker.app
import judge
from execbroker.config import Config

create_app = execbroker.app.create_app


def records_of(folder: Path) -> Path:
    """Where a broker with this data folder writes."""
    return folder.with_name(f"{folder.name}.replies")


def recorded(config: Config, *arguments: Any, **named: Any) -> Any:
    """What `create_app` makes, with a recorder around it."""
    app = create_app(config, *arguments, **named)
    build, file = app.build_middleware_stack, os.open(records_of(config.folder), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    app.build_middleware_stack = lambda: Recorder(build(), file)  # type: ignore[method-assign] # around all that it has
    return app


class Recorder:
    """A line for each reply, written before its last piece is sent; of bodies those in JSON."""

    def __init__(self, app: ASGIApp, file: int) -> None:
        self._app, self._file = app, file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/"):  # it may be *
            await self._app(scope, receive, send)
            return
        start: Message = {}
        pieces: list[bytes] = []

        async def sending(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
            elif message["type"] == "http.response.body":
                if b"json" in dict(start["headers"]).get(b"content-type", b""):
                    pieces.append(message.get("body", b""))
                if not message.get("more_body"):
                    self._write(scope, start, b"".join(pieces))
            await send(message)

        await self._app(scope, receive, sending)

    def _write(self, scope: Scope, start: Message, body: bytes) -> None:
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"]]
        record = [scope["method"], scope["path"], start["status"], headers, base64.b64encode(body).decode()]
        os.write(self._file, f"{json.dumps(record)}\n".encode())


def replies(file: Path, offset: int) -> Iterator[tuple[httpx.Response, int]]:
    """Those written from `offset` on, each with where the next begins. A last one that was cut off was never sent."""
    with file.open("rb") as lines:
        lines.seek(offset)
        for line in lines:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            method, path, status, headers, body = json.loads(line)
            content, request = base64.b64decode(body), httpx.Request(method, f"http://broker{quote(path)}")
            yield httpx.Response(status, headers=headers, content=content, request=request), offset


_read: dict[Path, int] = {}


def watch(folder: Path) -> None:
    """What a broker with this data folder answers is to be judged."""
    _read.setdefault(records_of(folder), 0)


def judge_all() -> None:
    """Judge what was answered since the last time. Raises AssertionError."""
    for file in filter(Path.exists, _read):
        for reply, end in replies(file, _read[file]):
            _read[file] = end
            judge.judge(reply)


if __name__ == "__main__":
    execbroker.app.create_app = recorded
    from execbroker.cli import main

    main()
