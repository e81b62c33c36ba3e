import hmac
import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from execbroker.errors import BrokerError, Forbidden, Unauthorized
from execbroker.web.problems import problem

OWNER = "owner"
OPEN = {"/healthz"}
_LOOPBACK = {"127.0.0.1", "localhost", "::1", "[::1]"}


def read_token(folder: Path) -> str:
    """The token of a data folder, made at first start and readable by its owner alone."""
    path = folder / "token"
    if path.exists() and not path.read_text().strip():
        path.unlink()
    if not path.exists():
        new = path.with_suffix(f".{secrets.token_hex(4)}")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(32))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another broker that starts at the same time was first
            path.hardlink_to(new)
        new.unlink()
    return path.read_text().strip()


class Door:
    """Lets in who carries the token, under a name that is ours: a page elsewhere must not reach a broker on loopback by
    pointing its own name here (DNS rebinding) or by sending forms to it."""

    def __init__(self, app: ASGIApp, token: str | None, hosts: set[str] | None) -> None:
        self._app, self._token = app, None if token is None else token.encode()
        self._hosts = None if hosts is None else hosts | _LOOPBACK

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (error := self._against(scope["path"], Headers(scope=scope))):
            body = json.dumps(problem(error)).encode()
            response = Response(body, error.status, error.headers, "application/problem+json")
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _against(self, path: str, headers: Headers) -> BrokerError | None:
        host = _host(f"//{headers.get('host', '')}")
        if self._hosts is not None and host not in self._hosts:
            return Forbidden(f"This broker is not known as {host!r}; where it should be, set public_url")
        origin = headers.get("origin")
        if origin and _host(origin) != host and (self._hosts is None or _host(origin) not in self._hosts):
            return Forbidden(f"Pages of {origin} may not use this broker")
        if self._token is None or path in OPEN:
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._token):
            return None
        return Unauthorized("This needs the header `Authorization: Bearer <token>`; the token is in the broker's data folder")


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
