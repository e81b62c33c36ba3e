"""Entity tags, and requests that depend on them (RFC 9110, 8.8.3 and 13)."""

import hashlib
import re
from collections.abc import Callable, Iterable
from typing import Any

from fastapi import Request

from execbroker.codecs import CODECS, Codec

Show = Callable[[Any], Any]
"""What is made of a model before it is written."""
_GZIP = "-gzip"
_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')


def _as_it_is(found: Any) -> Any:
    return found


def tag_of(media_type: str, content: bytes) -> str:
    """A strong one: another for other bytes, or the same as something else."""
    digest = hashlib.blake2b(content, digest_size=12, key=media_type.encode()[:64]).hexdigest()
    return f'"{digest}"'


def packed(tag: str) -> str:
    """That of the same content in gzip."""
    return f'{tag[:-1]}{_GZIP}"'


def is_among(values: Iterable[str], tags: Iterable[str], *, strong: bool = False) -> bool:
    """Whether one of the tags, or its packed sister, is named in these headers; `*` names all."""
    text = ",".join(values)
    wanted = {one for tag in tags for one in (tag, packed(tag))}
    return text.strip() == "*" or any(f'"{opaque}"' in wanted and not (strong and weak) for weak, opaque in _TAG.findall(text))


def known(request: Request, codec: Codec, show: Show = _as_it_is) -> Callable[[Any], bool] | None:
    """Tells whether the client has a document already, as `show` makes it; None where it does not say what it has."""
    values = request.headers.getlist("if-none-match")
    if not values:
        return None
    return lambda found: is_among(values, [tag_of(codec.media_type, codec.encode(show(found)))])


def expected(request: Request, show: Show = _as_it_is) -> Callable[[Any], bool] | None:
    """Tells whether a document, as `show` makes it, is what `If-Match` and `If-None-Match` allow to be changed, in whichever of
    its representations; None where the request depends on nothing."""
    match, none_match = request.headers.getlist("if-match"), request.headers.getlist("if-none-match")
    if not (match or none_match):
        return None

    def allowed(found: Any) -> bool:
        shown = show(found)
        tags = [tag_of(codec.media_type, codec.encode(shown)) for codec in CODECS]
        return (not match or is_among(match, tags, strong=True)) and not is_among(none_match, tags)

    return allowed
