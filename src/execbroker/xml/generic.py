"""XML for data that no schema describes, with nothing lost: as RFC 9457, appendix B, has it, and the type where it does not show.

An element with elements in it is a map of their names, or, where they are all called `i`, a list; any other is a string. The
attribute `type` says so where it is something else: `number`, `boolean`, `null`, or an empty `array` or `object`.
"""

import math
import re
from typing import Any
from xml.etree.ElementTree import Element, SubElement

ITEM, ENTRY = "i", "entry"
TYPES = {"string", "number", "boolean", "null", "array", "object"}
_NAME = re.compile(r"(?!xml|(?:i|entry)\Z)[a-z_][\w.-]*", re.IGNORECASE | re.ASCII)
_NO_CHARACTER = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_WHOLE = re.compile(r"[+-]?[0-9]{1,400}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def text_of(value: Any) -> str:
    """A scalar as XML writes it; a character that XML 1.0 cannot have, such as U+0000, is U+FFFD."""
    if isinstance(value, str):
        return _NO_CHARACTER.sub("\N{REPLACEMENT CHARACTER}", value)
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)


def number_of(text: str) -> Any:
    """The finite number that a text is; a text that is none stays a text."""
    text = str(text)
    if _WHOLE.fullmatch(text.strip()):
        return int(text)
    found = float(text) if _NUMBER.fullmatch(text.strip()) else math.inf
    return found if math.isfinite(found) else text


def fill(element: Element, value: Any) -> None:
    """Write a value of any shape into an element."""
    if kind := _type(value):
        element.set("type", kind)
    if isinstance(value, dict):
        for key, part in value.items():
            add(element, key, part)
    elif isinstance(value, list | tuple):
        for part in value:
            fill(SubElement(element, ITEM), part)
    else:
        element.text = text_of(value)


def add(parent: Element, key: Any, value: Any) -> None:
    """Write a member of a map: an element of that name, or an `entry` where no element may be called so."""
    name = text_of(key)
    fill(SubElement(parent, name) if _NAME.fullmatch(name) else SubElement(parent, ENTRY, name=name), value)


def _type(value: Any) -> str | None:
    """What does not show by itself."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else "boolean"
    if isinstance(value, dict | list | tuple):
        return None if value else "object" if isinstance(value, dict) else "array"
    return "number" if isinstance(value, int | float) else None
