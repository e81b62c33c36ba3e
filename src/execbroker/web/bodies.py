import asyncio
import random
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from fastapi import Request
from starlette.requests import ClientDisconnect

from execbroker.config import Config
from execbroker.errors import Busy, TooLarge, TooSlow, Unreadable, UnsupportedMedia

LARGE = 1 << 16  # bytes; a YAML document of a megabyte takes a second or two to read, in which others must be answered
PIECE = 1 << 15  # bytes that are unpacked before others have their turn
PENALTY = 0.5  # seconds, or half or half as much again, so that those who come at once do not come at once again; who sends
# too much all the time then costs little
ENCODINGS = ("gzip", "x-gzip", "deflate", "identity")
_RAW = -zlib.MAX_WBITS
_GZIP = 16 + zlib.MAX_WBITS


class Crowd:
    """How many large bodies are held at a time, by all and by each identity: their memory is bounded, and small ones need not
    wait for them. One of them is decoded at a time, so that the event loop has no more than one thread beside it."""

    def __init__(self, most: int = 64, each: int = 16) -> None:
        self._most, self._each = most, each
        self._held: Counter[str] = Counter()
        self.turn = asyncio.Semaphore(1)

    def enter(self, owner: str) -> None:
        """Raises Busy."""
        if self._held.total() >= self._most or self._held[owner] >= self._each:
            raise Busy("Too many large documents are being read already")
        self._held[owner] += 1

    def leave(self, owner: str) -> None:
        self._held[owner] -= 1
        if not self._held[owner]:
            del self._held[owner]


@asynccontextmanager
async def body_of(request: Request, crowd: Crowd) -> AsyncIterator[bytes]:
    """The body of a request, unpacked, of a limited size; it counts among the `crowd` until the end of the block.

    Raises UnsupportedMedia, TooLarge, TooSlow, Busy, and Unreadable where it is not what its encoding says.
    """
    config: Config = request.app.state.config
    owner: str = request.state.identity.owner
    body, entered = bytearray(), False
    try:
        async for piece in _unpacked(request, config):
            body += piece
            if len(body) > config.limits.body:
                body.clear()
                await asyncio.sleep(random.uniform(0.5, 1.5) * PENALTY)  # noqa: S311 -- nothing secret about it
                raise TooLarge(f"The body is larger than {config.limits.body} bytes")
            if len(body) > LARGE and not entered:
                crowd.enter(owner)
                entered = True
        yield bytes(body)
    finally:
        if entered:
            crowd.leave(owner)


async def _unpacked(request: Request, config: Config) -> AsyncIterator[bytes]:
    encoding = _encoding(request)
    received = _received(request, config)
    if encoding == "identity":
        async for chunk in received:
            yield chunk
        return
    packed = Packed(gzip=encoding != "deflate")
    try:
        async for chunk in received:
            for piece in packed.unpack(chunk):
                yield piece
                await asyncio.sleep(0)
    except zlib.error as error:
        raise Unreadable(f"The body is not {encoding}: {error}") from None
    if not packed.complete:
        raise Unreadable(f"The body ends before its {encoding} does")


def _encoding(request: Request) -> str:
    """Raises UnsupportedMedia."""
    named = ",".join(request.headers.getlist("content-encoding")).lower().split(",")
    found = [name for name in map(str.strip, named) if name] or ["identity"]
    if len(found) == 1 and found[0] in ENCODINGS:
        return found[0]
    error = UnsupportedMedia(f"A body in {', '.join(found)} is not read here; one of {', '.join(ENCODINGS)} is")
    error.headers = {"Accept-Encoding": ", ".join(ENCODINGS)}  # RFC 9110, 15.5.16
    raise error


async def _received(request: Request, config: Config) -> AsyncIterator[bytes]:
    """What arrives: not more than twice what it may unpack to, for nothing gets that much larger by being packed."""
    most, limits = 2 * config.limits.body, config.limits.connections
    if (length := request.headers.get("content-length", "")).isdecimal() and len(length) < 20 and int(length) > most:
        raise TooLarge(f"The body is larger than {config.limits.body} bytes")
    received, stream = 0, aiter(request.stream())
    until = time.monotonic() + limits.body.total_seconds()
    while True:
        try:
            async with asyncio.timeout(min(limits.pause.total_seconds(), until - time.monotonic())):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise TooSlow(f"{received} bytes of the body have come, and then no more in time") from None
        except ClientDisconnect:
            raise Unreadable("The body is not complete: the client has gone") from None
        if chunk is None:
            return
        if (received := received + len(chunk)) > most:
            raise TooLarge(f"The body is larger than {config.limits.body} bytes")
        yield chunk


class Packed:
    """Unpacks gzip, or what is called deflate: that of zlib (RFC 1950), or, as some send it, without its head (RFC 1951)."""

    def __init__(self, *, gzip: bool) -> None:
        self._gzip = gzip
        self._head = b""
        self._unpacker = zlib.decompressobj(_GZIP) if gzip else None
        self._begun = False

    @property
    def complete(self) -> bool:
        return not self._head and (self._unpacker.eof if self._unpacker and self._begun else True)

    def unpack(self, chunk: bytes) -> Iterator[bytes]:
        """Piece by piece, so that whoever has had enough stops. Raises zlib.error."""
        if self._unpacker is None:
            self._head += chunk
            if len(self._head) < 2:
                return
            chunk, self._head = self._head, b""
            headed = chunk[0] & 0x0F == zlib.DEFLATED and int.from_bytes(chunk[:2]) % 31 == 0
            self._unpacker = zlib.decompressobj(zlib.MAX_WBITS if headed else _RAW)
        piece = b""
        while chunk or len(piece) == PIECE:  # what it has taken in may give more than one piece
            if self._unpacker.eof:
                self._next_member(chunk)
            self._begun = True
            piece = self._unpacker.decompress(chunk, PIECE)
            yield piece
            chunk = self._unpacker.unconsumed_tail or self._unpacker.unused_data

    def _next_member(self, chunk: bytes) -> None:
        """A gzip may have several, one after the other."""
        if chunk and not self._gzip:
            raise zlib.error("something comes after its end")
        if chunk:
            self._unpacker = zlib.decompressobj(_GZIP)
