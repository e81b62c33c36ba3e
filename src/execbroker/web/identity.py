import asyncio
import hmac
import json
import os
import secrets
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from execbroker.errors import BrokerError, Busy, Forbidden, TooMany, Unauthorized
from execbroker.model.identities import ANYONE, HOLDER, Identity
from execbroker.web.problems import problem
from execbroker.web.throttle import Throttle, caller_at, name_in

_LOOPBACK = {"127.0.0.1", "localhost", "::1", "[::1]"}
_PENALTY = 0.2  # seconds; who is told to wait and does not costs little


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


class Guard(Protocol):
    """Knows who somebody is by the credentials that they bring."""

    @property
    def challenges(self) -> Collection[str]:
        """What it asks of who brings none, or the wrong ones (RFC 9110, 11.6.1)."""

    async def recognise(self, scheme: str, credentials: str) -> Identity:
        """Who brings this in `Authorization`; `scheme` in small letters. Raises Unauthorized, Busy."""


class Nobody:
    """Asks nobody."""

    challenges = ()

    async def recognise(self, scheme: str, credentials: str) -> Identity:
        return HOLDER


class TokenGuard:
    """Lets in who has the token."""

    challenges = ('Bearer realm="execbroker"',)

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    async def recognise(self, scheme: str, credentials: str) -> Identity:
        if scheme == "bearer" and hmac.compare_digest(credentials.encode(), self._token):
            return HOLDER
        raise Unauthorized("This needs the header `Authorization: Bearer <token>`; the token is in the broker's data folder")


class Door:
    """Finds out who comes, under a name that is ours: a page elsewhere must not reach a broker on loopback by pointing its own
    name here (DNS rebinding) or by sending forms to it. Who does not say who they are is let to the routes of `open` alone.
    Nobody may come too often, or guess: see `Throttle`."""

    def __init__(
        self,
        app: ASGIApp,
        guard: Callable[[], Guard],
        hosts: set[str] | None,
        throttle: Throttle,
        open: Collection[BaseRoute] = (),
    ) -> None:
        self._app, self._guard, self._open, self._throttle = app, guard, open, throttle
        self._hosts = None if hosts is None else hosts | _LOOPBACK

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self._check_names(headers)
            who = await self._recognise(scope, headers)
            self._throttle.admit(who, _address(scope), scope["method"], scope["path"])
        except BrokerError as error:
            if isinstance(error, TooMany):
                await asyncio.sleep(_PENALTY)
            response = Response(json.dumps(problem(error)), error.status, error.headers, "application/problem+json")
            if isinstance(error, Unauthorized):
                for challenge in self._guard().challenges:
                    response.headers.append("WWW-Authenticate", challenge)
            await response(scope, receive, send)
        else:
            scope.setdefault("state", {})["identity"] = who
            await self._app(scope, receive, _telling(who, send))

    def _check_names(self, headers: Headers) -> None:
        host = _host(f"//{headers.get('host', '')}")
        if self._hosts is not None and host not in self._hosts:
            raise Forbidden(f"This broker is not known as {host!r}; where it should be, set public_url")
        origin = headers.get("origin")
        if origin and _host(origin) != host and (self._hosts is None or _host(origin) not in self._hosts):
            raise Forbidden(f"Pages of {origin} may not use this broker")

    async def _recognise(self, scope: Scope, headers: Headers) -> Identity:
        scheme, credentials = _credentials(headers)
        if not scheme and self._is_open(scope):
            return ANYONE
        return await self._log_in(scope, scheme, credentials)

    def _is_open(self, scope: Scope) -> bool:
        wanted = Match.PARTIAL if scope["method"] == "OPTIONS" else Match.FULL
        return any(route.matches(scope)[0] is wanted for route in self._open)

    async def _log_in(self, scope: Scope, scheme: str, credentials: str) -> Identity:
        """Raises Unauthorized, TooMany, Busy."""
        address = _address(scope)
        if not scheme:
            self._throttle.anonymous(address)
            return await self._guard().recognise(scheme, credentials)
        name = name_in(scheme, credentials)
        try:
            async with self._throttle.login(address, name):
                return await self._guard().recognise(scheme, credentials)
        except Unauthorized:
            scope.setdefault("audit", {})["login"] = name if scheme == "basic" else scheme[:16]
            raise


async def is_known_still(request: Request) -> bool:
    """Whether whoever was let in with this request would be again."""
    guard: Guard = request.app.state.guard
    before: Identity = request.state.identity
    try:
        who = await guard.recognise(*_credentials(request.headers))
    except Busy:
        return True
    except (Unauthorized, Forbidden):
        return False
    return who.owner == before.owner


def _credentials(headers: Headers) -> tuple[str, str]:
    """The scheme, in small letters, and what comes with it."""
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    return scheme.lower(), credentials.strip()


def _telling(who: Identity, send: Send) -> Send:
    """Tell who was recognised in the reply (IVOA SSO: `X-VO-Authenticated`)."""
    if who in (ANYONE, HOLDER):
        return send
    name = quote(who.name, safe="@:/ ")

    async def telling(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["X-VO-Authenticated"] = name
        await send(message)

    return telling


def _address(scope: Scope) -> str:
    return caller_at(scope["client"][0]) if scope["client"] else ""


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
