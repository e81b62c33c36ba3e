"""What is done with whole replies before they leave: a tag, 304 for who has them already, gzip for who takes it."""

import asyncio
import gzip
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from execbroker.web.bodies import LARGE
from execbroker.web.conditional import is_among, packed, tag_of
from execbroker.web.negotiate import accepted

SMALL = 1024  # bytes; what is smaller gets hardly smaller
LEVEL = 6
_TEXTS = ("application/json", "application/yaml", "application/xml", "application/problem+", "application/xhtml+xml", "text/")
_NOT_NAMED_BY_304 = ("content-length", "content-type")


class Tagged:
    """Looks at replies that come in one piece; streams, files and what has ranges go by as they are."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        await self._app(scope, receive, _Reply(scope, send).send)


class _Reply:
    def __init__(self, scope: Scope, send: Send) -> None:
        self._asked, self._reads, self._send = Headers(scope=scope), scope["method"] == "GET", send
        self._start: Message | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and _is_text(Headers(raw=message["headers"])):
            self._start = message
            return
        start, self._start = self._start, None
        if start is not None:
            if not message.get("more_body"):
                message = {**message, "body": await self._finish(start, message.get("body", b""))}
            await self._send(start)
        await self._send(message)

    async def _finish(self, start: Message, body: bytes) -> bytes:
        """Complete the headers, and give what is to be sent."""
        headers = MutableHeaders(scope=start)
        headers.add_vary_header("Accept-Encoding")
        packs = len(body) >= SMALL and wants_gzip(self._asked.getlist("accept-encoding"))
        if self._reads and start["status"] == 200:
            tag = tag_of(headers["content-type"].partition(";")[0], body)
            headers["ETag"] = packed(tag) if packs else tag
            if is_among(self._asked.getlist("if-none-match"), [tag]):
                start["status"] = 304
                for name in _NOT_NAMED_BY_304:
                    del headers[name]
                return b""
        if packs:
            body = await _pack(body)
            headers["Content-Encoding"], headers["Content-Length"] = "gzip", str(len(body))
        return body


def _is_text(headers: Headers) -> bool:
    as_it_is = {"content-encoding", "content-range", "accept-ranges"} & set(headers)
    kind = headers.get("content-type", "")
    return not as_it_is and kind.startswith(_TEXTS) and not kind.startswith("text/event-stream")


async def _pack(body: bytes) -> bytes:
    if len(body) < LARGE:
        return gzip.compress(body, LEVEL, mtime=0)
    return await asyncio.to_thread(gzip.compress, body, LEVEL, mtime=0)


def wants_gzip(values: Iterable[str]) -> bool:
    """Whether an `Accept-Encoding` likes gzip, and no less than what is not packed (RFC 9110, 12.5.3)."""
    liked = dict(accepted(",".join(values)))
    quality = max((liked[name] for name in ("gzip", "x-gzip") if name in liked), default=liked.get("*", 0.0))
    return quality > 0 and quality >= liked.get("identity", 0.0)
