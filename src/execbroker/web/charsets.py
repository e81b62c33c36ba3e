"""Which characters a body comes in: by its byte order mark, or the `charset` of its `Content-Type`; else it is UTF-8."""

import codecs
import re

from execbroker.errors import Unreadable, UnsupportedMedia

READ = {
    "utf-8": "utf-8",
    "utf-16": "utf-16",
    "utf-16-le": "utf-16le",
    "utf-16-be": "utf-16be",
    "ascii": "us-ascii",
    "iso8859-1": "iso-8859-1",
}
"""What is read, as Python calls it and as it is registered."""
_PARAMETER = re.compile(r';\s*charset\s*=\s*("[^"]*"|[^;\s]*)', re.IGNORECASE)
_DECLARED = re.compile(r"""\A(\s*<\?xml\b[^>]*?)\s+encoding\s*=\s*("[^"]*"|'[^']*')""")
_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def charset_of(content_type: str) -> str | None:
    """What a `Content-Type` says, as Python calls it; None where it says nothing. Raises UnsupportedMedia."""
    match = _PARAMETER.search(content_type)
    if match is None:
        return None
    name = match[1].strip('"')
    try:
        found = codecs.lookup(name).name
    except (LookupError, ValueError):
        found = ""
    if found not in READ:
        raise UnsupportedMedia(f"A body in the charset {name[:50]!r} is not read here; one of {', '.join(READ.values())} is")
    return found


def in_utf8(content: bytes, charset: str | None) -> bytes:
    """The same text in UTF-8, and no XML declaration that says otherwise. Raises Unreadable."""
    marked = content.startswith(_MARKS)
    if charset is None and not marked:
        return content  # UTF-8, or what an XML declaration says
    if charset == "utf-16" and not marked:
        charset = "utf-16-be"  # RFC 2781, 4.3
    try:
        text = content.decode(charset or "utf-16").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise Unreadable(f"The body is not {READ[charset or 'utf-16']}: {error.reason} at byte {error.start}") from None
    try:
        return _DECLARED.sub(r"\1", text).encode()
    except UnicodeEncodeError:
        raise Unreadable("The body has half a surrogate pair, which is no character") from None
