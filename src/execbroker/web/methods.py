"""HEAD, OPTIONS, and which methods an address takes."""

from collections.abc import Iterator

from fastapi import FastAPI
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send


def methods_at(app: FastAPI, path: str) -> list[str]:
    """What may be done there, with what is done for every address; nothing where there is none."""
    found = {method for route in _routes(app) if route.path_regex.match(path) for method in route.methods or ()}
    return sorted(found | {"OPTIONS"} | ({"HEAD"} if "GET" in found else set())) if found else []


def _routes(app: FastAPI) -> Iterator[Route]:
    for found in app.routes:
        for route in getattr(getattr(found, "original_router", None), "routes", [found]):
            if isinstance(route, Route):
                yield route


class Head:
    """Answers HEAD as GET, without what GET would show, and so for whom GET is. A range is none of a HEAD (RFC 9110, 14.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        state = {**scope.get("state", {}), "head": True}
        headers = [(name, value) for name, value in scope["headers"] if name != b"range"]

        async def sending(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        await self._app({**scope, "method": "GET", "headers": headers, "state": state}, receive, sending)


class Options:
    """Answers OPTIONS with what an address takes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "OPTIONS" and (found := methods_at(scope["app"], scope["path"])):
            await Response(status_code=204, headers={"Allow": ", ".join(found)})(scope, receive, send)
            return
        await self._app(scope, receive, send)
