"""What every request and every reply has, whatever becomes of it: on whose behalf it comes, a name, and headers that keep
browsers from doing anything with a reply but show it."""

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import quote, urlsplit
from uuid import uuid4

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from execbroker.config import Config
from execbroker.errors import StartupError
from execbroker.web.methods import Head

Network = IPv4Network | IPv6Network
REQUEST_ID = "X-Request-ID"
_SANE = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_HSTS = {"Strict-Transport-Security": "max-age=31536000"}


class Application(FastAPI):
    """With what is outside of everything, so that replies to what nobody expected are as all others are."""

    def build_middleware_stack(self) -> ASGIApp:
        return Outside(Head(super().build_middleware_stack()), self.state.config)


def check_prefix(config: Config, routes: Iterable[BaseRoute]) -> None:
    """Raises StartupError where `public_url` has a path that begins as one of the routes does."""
    first = urlsplit(config.public_url or "").path.split("/")[1:2]
    if first and first[0] in {str(getattr(route, "path", "/")).split("/")[1] for route in routes} - {""}:
        raise StartupError(f"public_url: the broker has addresses of its own that begin with /{first[0]}; choose another path")


class Outside:
    def __init__(self, app: ASGIApp, config: Config) -> None:
        self._app, self._proxies = app, config.proxies
        public = urlsplit(config.public_url or "")
        self._prefix = public.path.rstrip("/")
        secure = public.scheme == "https" or config.tls.certificate is not None
        self._headers = SAFE | (_HSTS if secure else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        name = headers.get(REQUEST_ID, "")
        name = name if _SANE.fullmatch(name) else uuid4().hex
        self._strip(scope)
        if self._proxies and scope["client"]:
            scope["client"] = (behind(scope["client"][0], headers, self._proxies), 0)
        scope.setdefault("state", {})["request_id"] = name

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                reply = MutableHeaders(scope=message)
                for key, value in self._headers.items():
                    reply.setdefault(key, value)
                reply[REQUEST_ID] = name
            await send(message)

        with bound_contextvars(request=name):
            await self._app(scope, receive, sending)

    def _strip(self, scope: Scope) -> None:
        """A proxy may pass the path of `public_url` on, or not."""
        if self._prefix and (scope["path"] + "/").startswith(self._prefix + "/"):
            scope["path"] = scope["path"].removeprefix(self._prefix) or "/"
            raw, prefix = scope.get("raw_path") or b"", quote(self._prefix).encode()
            scope["raw_path"] = raw.removeprefix(prefix) if raw.startswith(prefix) else quote(scope["path"]).encode()


def behind(peer: str, headers: Headers, proxies: Sequence[Network]) -> str:
    """The address of who comes: of the last in the line of `X-Forwarded-For`, or `Forwarded` (RFC 7239), that is no proxy of
    ours. Where these say different things one of them was not written by our proxy, and neither is believed."""
    if not is_one_of(peer, proxies):
        return peer
    lines = [_forwarded_for(headers), _forwarded(headers)]
    found = {next((one for one in reversed(line) if not is_one_of(one, proxies)), line[0]) for line in lines if line}
    found.discard("")
    return found.pop() if len(found) == 1 else peer


def _forwarded_for(headers: Headers) -> list[str]:
    return [_address(part) for part in ",".join(headers.getlist("x-forwarded-for")).split(",") if part.strip()]


def _forwarded(headers: Headers) -> list[str]:
    parts = ",".join(headers.getlist("forwarded")).split(",")
    found = [re.search(r"(?:^|;)\s*for=(\"[^\"]*\"|[^;\s]+)", part, re.IGNORECASE) for part in parts if part.strip()]
    return [_address(match[1].strip('"')) if match else "" for match in found]


def _address(text: str) -> str:
    """Without its port; "" for what is none."""
    text = text.strip()
    if match := re.fullmatch(r"\[([^\]]+)\](?::\d+)?|([\d.]+):\d+", text):
        text = match[1] or match[2]
    try:
        return str(_plain(text))
    except ValueError:
        return ""


def is_one_of(address: str, networks: Sequence[Network]) -> bool:
    try:
        found = _plain(address)
    except ValueError:
        return False
    return any(found in network for network in networks)


def _plain(text: str) -> IPv4Address | IPv6Address:
    found = ip_address(text)
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found
