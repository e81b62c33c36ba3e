import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from execbroker import __version__
from execbroker.model.messages import MessageItem, reason
from execbroker.staging.base import DataSettings, Fetcher, Forbidden, Found, Interrupted, Missing, Stream
from execbroker.staging.guard import Guard, read_url, shown
from execbroker.staging.pinned import Pinned, text_of

if TYPE_CHECKING:
    from httpx import Response

REDIRECTS = (301, 302, 303, 307, 308)
MOST_REDIRECTS = 5
CREDENTIALS = (401, 403, 407)
PASSING = (202, 408, 425, 429)
# Bytes are wanted as they are: sizes, ranges and checksums speak of them.
HEADERS = {"User-Agent": f"execbroker/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"}


class HttpFetcher(Fetcher):
    """http and https, through the guard: every hop is resolved, checked, and made to the address that was checked."""

    schemes = ("http", "https")

    def __init__(self, settings: DataSettings) -> None:
        super().__init__(settings)
        self._guard = Guard(settings.allow_private)
        self._pinned = Pinned(self._guard)

    def reasons_against(self, url: str, path: str) -> list[MessageItem]:
        try:
            self._guard.check(read_url(url))
        except Forbidden as error:
            return [reason("forbidden-url", path, "{url} at {path} cannot be fetched: {why}", url=shown(url), why=error)]
        return []

    async def probe(self, url: str) -> Found:
        try:
            async with self._reply("HEAD", url) as reply:
                return Found(_length(reply))
        except (Forbidden, Missing):
            pass  # some servers, and most signed URLs, know GET alone: only what they say to that is proof
        async with self._reply("GET", url, {"Range": "bytes=0-0"}) as reply:
            return Found(_range(reply)[1] if reply.status_code in (206, 416) else _length(reply))

    @asynccontextmanager
    async def open(self, url: str, offset: int = 0, version: str | None = None) -> AsyncIterator[Stream]:
        resume = {"Range": f"bytes={offset}-", "If-Range": version} if offset and version else {}
        async with self._reply("GET", url, resume) as reply:
            if stream := _stream(reply, offset, version):
                yield stream
                return
        async with self._reply("GET", url) as reply:
            stream = _stream(reply)
            if not stream:
                raise Interrupted("the server answered with a part of the file where the whole was asked for")
            yield stream

    async def close(self) -> None:
        await self._pinned.close()

    @asynccontextmanager
    async def _reply(self, method: str, url: str, headers: Mapping[str, str] | None = None) -> AsyncIterator["Response"]:
        """The answer after all redirects, its status one of success, or 416 where a range was asked for."""
        reply = await self._follow(method, url, {**HEADERS, **(headers or {})})
        try:
            if not (reply.status_code == 416 and headers):
                _check_status(reply)
            yield reply
        finally:
            await reply.aclose()

    async def _follow(self, method: str, url: str, headers: Mapping[str, str]) -> "Response":
        reply = await self._pinned.send(method, read_url(url), headers)
        for _ in range(MOST_REDIRECTS):
            if reply.status_code not in REDIRECTS:
                return reply
            await reply.aclose()
            try:
                url = urljoin(url, reply.headers.get("Location", ""))
                reply = await self._pinned.send(method, read_url(url), headers)
            except ValueError as error:
                raise Missing(f"it redirects to what is not a URL ({error})") from error
            except Forbidden as error:
                raise Forbidden(f"it redirects to {shown(url)}, and {error}") from error
        if reply.status_code in REDIRECTS:
            await reply.aclose()
            raise Missing(f"it redirects more than {MOST_REDIRECTS} times")
        return reply


def _check_status(reply: "Response") -> None:
    status = reply.status_code
    if status in (200, 203, 206):
        return
    answer = f"the server answered {status} {reply.reason_phrase}".rstrip()
    if status in PASSING or (status >= 500 and status != 501):
        raise Interrupted(answer, _retry_after(reply))
    if status in CREDENTIALS:
        raise Forbidden(f"{answer}: it wants credentials, and none can be given")
    raise Missing(answer)


def _stream(reply: "Response", offset: int = 0, version: str | None = None) -> Stream | None:
    """The bytes of an answer, all of them or from `offset` on; None where they are other ones."""
    if reply.status_code in (200, 203):
        return Stream(0, _length(reply), _version(reply), _bytes(reply))
    start, total = _range(reply)
    if start == offset and _version(reply) in (None, version):
        return Stream(offset, total, version, _bytes(reply))
    return None


def _length(reply: "Response") -> int | None:
    length: str = reply.headers.get("Content-Length", "")
    return int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None


def _range(reply: "Response") -> tuple[int | None, int | None]:
    """Where the bytes of a partial answer start, and how many there are in all."""
    match = re.fullmatch(r"bytes (?:([0-9]{1,18})-[0-9]+|\*)/(?:([0-9]{1,18})|\*)", reply.headers.get("Content-Range", ""))
    start, total = match.groups() if match else (None, None)
    return (int(start) if start else None), (int(total) if total else None)


def _version(reply: "Response") -> str | None:
    """A validator that is strong, as `If-Range` needs it (RFC 9110, 8.8): two different files never share it."""
    tag: str = reply.headers.get("ETag", "")
    if tag.startswith('"'):
        return tag
    modified: str = reply.headers.get("Last-Modified", "")
    at, now = _date(modified), _date(reply.headers.get("Date", ""))
    return modified if at and now and now - at > timedelta(seconds=1) else None


def _retry_after(reply: "Response") -> float | None:
    """Seconds; a date is read against the server's own, so that clocks need not agree."""
    text = reply.headers.get("Retry-After", "")
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    at, now = _date(text), _date(reply.headers.get("Date", ""))
    return max(0.0, (at - now).total_seconds()) if at and now else None


def _date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else None


async def _bytes(reply: "Response") -> AsyncGenerator[bytes, None]:
    import httpx

    try:
        async for chunk in reply.aiter_raw():
            yield chunk
    except httpx.TransportError as error:
        raise Interrupted(f"the connection broke ({text_of(error)})") from error
