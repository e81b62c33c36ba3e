import asyncio
import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from fastapi import Request, Response
from pydantic import BaseModel, TypeAdapter, ValidationError

from execbroker.codecs import CODECS, Codec, depth_of
from execbroker.config import Config
from execbroker.errors import Fault, Invalid, NotAcceptable, Unreadable, UnsupportedMedia
from execbroker.model.registry import TAG
from execbroker.web.bodies import LARGE, Crowd, body_of
from execbroker.web.charsets import charset_of, in_utf8
from execbroker.xml.forms import lowered

T = TypeVar("T")

_BY_NAME = {name: codec for codec in CODECS for name in (codec.media_type, *codec.aliases)}
_OF_PROBLEMS = {codec.problem_type: codec.media_type for codec in CODECS if codec.problem_type}
_NAMES = ", ".join(codec.media_type for codec in CODECS)
_QUALITY = re.compile(r"0(\.\d*)?|1(\.0*)?")


async def reply_codec(request: Request) -> Codec:
    """What the client wants to read (RFC 9110, 12.5.1): the highest `q`, then the more specific, then the first named.

    Raises NotAcceptable.
    """
    return choose(request, CODECS)


def choose(request: Request, codecs: Sequence[Codec]) -> Codec:
    """The same of these. Raises NotAcceptable."""
    default = _BY_NAME[f"application/{request.app.state.config.media_type}"]
    header = ",".join(request.headers.getlist("accept")).strip()
    if not header or header == "*/*":
        return default
    ranges = list(accepted(header))
    liked = [(*_liking(codec, ranges), codec is default, codec) for codec in codecs]
    quality, *_, chosen = max(liked, key=lambda one: one[:-1])
    if quality <= 0:
        raise NotAcceptable(f"Nothing in {header!r} is spoken here; what is: {', '.join(codec.media_type for codec in codecs)}")
    return chosen


def _liking(codec: Codec, ranges: list[tuple[str, float]]) -> tuple[float, int, int]:
    """The quality of the most specific range that a codec is in, how specific that is, and how early it was named."""
    found = [
        (specific, -position, quality)
        for position, (media_range, quality) in enumerate(ranges)
        if (specific := _specific(codec, media_range)) is not None
    ]
    specific, position, quality = max(found, default=(0, 0, 0.0))
    return quality, specific, position


def accepted(header: str) -> Iterator[tuple[str, float]]:
    """What a header names, with the quality of each: 1 where it says none, 0 where that is no number from 0 to 1."""
    for part in header.split(","):
        media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = next((value[2:] for value in parameters if value.startswith("q=")), "1")
        yield media_range, float(quality) if _QUALITY.fullmatch(quality) else 0.0


def _specific(codec: Codec, media_range: str) -> int | None:
    """How closely a media range describes a codec; None where it does not."""
    media_range = _OF_PROBLEMS.get(media_range, media_range)
    if media_range in (codec.media_type, *codec.aliases):
        return 2
    return {f"{codec.media_type.partition('/')[0]}/*": 1, "*/*": 0}.get(media_range)


async def read_body(request: Request) -> Any:
    """The body as plain data, in the codec of its `Content-Type`; read once.

    Raises UnsupportedMedia, TooLarge, TooSlow, Busy, Unreadable.
    """
    if not hasattr(request.state, "document"):
        request.state.document = await _read(request, request.app.state.crowd)
    return request.state.document


async def _read(request: Request, crowd: Crowd) -> Any:
    config: Config = request.app.state.config
    content_type = request.headers.get("content-type", "")
    name = content_type.partition(";")[0].strip().lower()
    codec = _BY_NAME.get(name or f"application/{config.media_type}")
    if codec is None:
        raise UnsupportedMedia(f"{name!r} is not read here; what is: {_NAMES}")
    charset = charset_of(content_type)
    async with body_of(request, crowd) as content:
        if len(content) < LARGE:
            document = codec.decode(in_utf8(content, charset))
        else:
            async with crowd.turn:
                document = await asyncio.to_thread(lambda: codec.decode(in_utf8(content, charset)))
    if depth_of(document) > config.limits.depth:
        raise Unreadable(f"The document is nested deeper than {config.limits.depth} levels")
    return document


def read_as(adapter: TypeAdapter[T], document: Any) -> T:
    """The document as a model. Raises Invalid, with every fault."""
    document = lowered(adapter._type, document)  # noqa: SLF001 -- which pydantic does not say otherwise
    if not isinstance(document, dict):
        raise Invalid(faults=(Fault("", "not-an-object", "an object is needed here", _brief(document)),))
    try:
        return adapter.validate_python(document)
    except ValidationError as error:
        faults = tuple(_fault(fault) for fault in error.errors(include_url=False, include_context=False))
        raise Invalid(f"{len(faults)} fault{'s' * (len(faults) > 1)} in the document", faults) from None


def _fault(fault: Any) -> Fault:
    path = ""
    for part in fault["loc"]:
        if not str(part).startswith(TAG):
            path += f"[{part}]" if isinstance(part, int) else f".{part}"
    if fault["type"] == "union_tag_not_found":
        found = fault["input"].get("kind") if isinstance(fault["input"], dict) else fault["input"]
        if not isinstance(fault["input"], dict):
            return Fault(path.lstrip("."), "object_type", "an object with a kind is needed here", _brief(found))
        text = "a kind, the URI of its type, is needed here" if found is None else "a string is needed here"
        return Fault(f"{path}.kind".lstrip("."), "missing" if found is None else "string_type", text, _brief(found))
    return Fault(path.lstrip("."), fault["type"], fault["msg"].removeprefix("Value error, "), _brief(fault["input"]))


def _brief(value: Any) -> Any:
    """What was found, unless it is long."""
    return value if isinstance(value, int | float | bool | None) else str(value)[:100]


def reply(codec: Codec, value: BaseModel | Any, status: int = 200, **headers: str) -> Response:
    """A model or plain data in the client's media type."""
    if status >= 400 and not isinstance(value, BaseModel):
        content = (codec.encode_problem or codec.encode)(value)
        return Response(content, status, {"Vary": "Accept", **headers}, codec.problem_type or codec.media_type)
    return Response(codec.encode(value), status, {"Vary": "Accept", **headers}, codec.media_type)
