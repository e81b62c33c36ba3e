"""The audit log: who did what. A line of JSON for everything that changes something, and for every login that failed."""

import fcntl
import json
import os
import queue
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from execbroker.config import AuditSettings
from execbroker.errors import StartupError
from execbroker.model.identities import ANYONE

MOST_WAITING = 10_000  # lines
_READING = {"GET", "HEAD", "OPTIONS"}
_END = None
log = structlog.get_logger()


def tell(request: Request, **what: Any) -> None:
    """What the audit log should say of this request: `uuid` of what it is about, `action`."""
    request.scope.setdefault("audit", {}).update(what)


class Trail:
    """Files of lines, written by a thread of their own as soon as there is one. The newest is `path`, the one before it has .1
    after its name. Several brokers may write to the same ones."""

    def __init__(self, path: Path, size: int, files: int) -> None:
        """Raises OSError where it cannot be written."""
        self._path, self._size, self._files = path, size, files
        self._lines: queue.Queue[str | None] = queue.Queue(MOST_WAITING)
        self._failed = False
        self._descriptor = self._opened()
        self._thread = threading.Thread(target=self._work, name="audit-log", daemon=True)
        self._thread.start()

    def add(self, line: dict[str, Any]) -> None:
        try:
            self._lines.put_nowait(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")
        except queue.Full:
            self._lost("it is written too slowly")

    def close(self) -> None:
        """When all of it is written."""
        self._lines.put(_END)
        self._thread.join()
        os.close(self._descriptor)

    def _work(self) -> None:
        while (line := self._lines.get()) is not _END:
            try:
                self._write(line.encode(errors="backslashreplace"))
                self._failed = False
            except OSError as error:
                self._lost(str(error))

    def _lost(self, why: str) -> None:
        """Said once, until it can be written again."""
        if not self._failed:
            log.error("audit.lines_lost", file=str(self._path), error=why)
        self._failed = True

    def _opened(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _write(self, line: bytes) -> None:
        """In one piece, so that those of several brokers do not mix."""
        if os.fstat(self._descriptor).st_size + len(line) > self._size or not self._is_newest():
            self._begin_next(len(line))
        os.write(self._descriptor, line)

    def _is_newest(self) -> bool:
        """Unless another broker has begun the next one, or somebody has moved it away."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        except FileNotFoundError:
            return False

    def _begin_next(self, length: int) -> None:
        """Whoever has the lock renames; others find the new one."""
        with self._path.with_name(f"{self._path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self._is_newest() and os.fstat(self._descriptor).st_size + length > self._size:
                self._shift()
            newest = self._opened()
            os.close(self._descriptor)
            self._descriptor = newest

    def _shift(self) -> None:
        names = [self._path, *(self._path.with_name(f"{self._path.name}.{number}") for number in range(1, self._files))]
        names[-1].unlink(missing_ok=True)
        for older, newer in zip(reversed(names[1:]), reversed(names[:-1]), strict=True):
            if newer.exists():
                newer.replace(older)


def trail_of(settings: AuditSettings, folder: Path) -> Trail | None:
    """Raises StartupError where it cannot be written."""
    if settings.log == "off":
        return None
    path = settings.log or folder / "audit.jsonl"
    try:
        return Trail(path, settings.size, settings.files)
    except OSError as error:
        raise StartupError(f"audit.log: {path} cannot be written: {error.strerror}") from None


class Audited:
    """Adds a line for each request that may have changed something, and for each login that failed, once its status is known."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        trail: Trail | None = scope["app"].state.trail if scope["type"] == "http" else None
        if trail is None:
            await self._app(scope, receive, send)
            return
        status = 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            if scope["method"] not in _READING or (status == 401 and "login" in scope.get("audit", {})):
                trail.add(_line(scope, status))


def _line(scope: Scope, status: int) -> dict[str, Any]:
    state, said = scope.get("state", {}), scope.get("audit", {})
    who = state.get("identity", ANYONE)
    route = scope.get("route")
    line = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "owner": who.owner or None,
        "name": who.name or None,
        "login": said.get("login"),
        "address": scope["client"][0] if scope["client"] else None,
        "method": scope["method"][:16],
        "route": getattr(route, "path_format", None),
        "action": said.get("action"),
        "uuid": _uuid(said.get("uuid") or scope.get("path_params", {}).get("uuid")),
        "status": status,
        "request": state.get("request_id"),
    }
    return {name: value for name, value in line.items() if value is not None}


def _uuid(found: Any) -> str | None:
    try:
        return str(UUID(str(found)))
    except ValueError:
        return None
