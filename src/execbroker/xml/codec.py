from typing import Any
from xml.etree.ElementTree import Element, ParseError, tostring

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import XMLParser
from pydantic import BaseModel

from execbroker.errors import Unreadable
from execbroker.xml.forms import Bare, record_of
from execbroker.xml.generic import ENTRY, ITEM, TYPES, fill, number_of

NAMESPACE = "urn:ietf:rfc:7807"
"""The namespace of problem documents (RFC 9457, appendix B)."""
STRAY = "#text"
"""Under which text beside elements is reported as an unknown field."""
_OF_XML = "http://www.w3.org/2001/XMLSchema-instance}"
_NIL = f"{{{_OF_XML}nil"
_RESERVED = (f"{{{_OF_XML}", "{http://www.w3.org/XML/1998/namespace}")
_MEMBERS = ("type", "title", "status", "detail", "instance")

Members = list[tuple[str | None, Any]]
"""The name and the content of each; None for an item of a list."""


def decode_xml(body: bytes, most: int, deepest: int) -> Any:
    """The root element's content: maps, lists and `Bare` texts, and what the attribute `type` says of each.

    Raises Unreadable: for what is not well-formed, has a document type, more than `most` elements and attributes, or elements
    nested deeper than `deepest`.
    """
    parser = XMLParser(target=_Reader(most, deepest), forbid_dtd=True)
    try:
        parser.feed(body)
        return parser.close()
    except ParseError as error:
        raise Unreadable(f"The body is not XML: {error}") from None
    except DefusedXmlException:
        raise Unreadable("The XML has a document type or entities, which are not read here") from None
    except (ValueError, LookupError) as error:
        raise Unreadable(f"The body is not XML that is read here: {str(error)[:300]}") from None


class _Reader:
    """Makes plain data of what the parser meets, and stops it where that is too much."""

    def __init__(self, most: int, deepest: int) -> None:
        self._most, self._deepest = most, deepest
        self._nodes = 0
        self._open: list[tuple[str, dict[str, str], Members, list[str]]] = []
        self._root: Any = None

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self._nodes += 1 + len(attributes)
        if self._nodes > self._most:
            raise Unreadable(f"The XML has more than {self._most} elements and attributes")
        if len(self._open) >= self._deepest:
            raise Unreadable(f"The XML is nested deeper than {self._deepest} levels")
        self._open.append((_local(tag), dict(attributes), [], []))

    def data(self, text: str) -> None:
        self._open[-1][3].append(text)

    def end(self, tag: str) -> None:
        local, attributes, children, texts = self._open.pop()
        name = attributes.pop("name") if local == ENTRY and "name" in attributes else None if local == ITEM else local
        value = _content(attributes, children, "".join(texts))
        if self._open:
            self._open[-1][2].append((name, value))
        else:
            self._root = {} if isinstance(value, Bare) and not value.strip() else value

    def close(self) -> Any:
        return self._root


def _content(attributes: dict[str, str], children: Members, text: str) -> Any:
    nil = attributes.pop(_NIL, "").strip() in {"true", "1"}
    kind = attributes.pop("type") if attributes.get("type") in TYPES else None
    members: Members = [(_local(name), Bare(value)) for name, value in attributes.items() if not name.startswith(_RESERVED)]
    members += children
    if not members:
        return None if nil else _typed(kind, text)
    if text.strip():
        members.append((STRAY, Bare(text)))
    if kind == "array" or (kind != "object" and all(name is None for name, _ in members)):
        return [value for _, value in members]
    return _gathered(members)


def _typed(kind: str | None, text: str) -> Any:
    match kind:
        case "number":
            if isinstance(number := number_of(text), str):
                raise ValueError(f"{text.strip()[:50]!r} is not a number")
            return number
        case "boolean":
            if text.strip() not in {"true", "false"}:
                raise ValueError(f"{text.strip()[:50]!r} is neither true nor false")
            return text.strip() == "true"
        case "null" | "array" | "object":
            return {"null": None, "array": [], "object": {}}[kind]
        case "string":
            return text
    return Bare(text)


def _gathered(members: Members) -> dict[str, Any]:
    """By name; what is there several times is a list."""
    found: dict[str, list[Any]] = {}
    for name, value in members:
        found.setdefault(ITEM if name is None else name, []).append(value)
    return {name: values if len(values) > 1 else values[0] for name, values in found.items()}


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def encode_xml(value: BaseModel | Any) -> bytes:
    """A model in the element of its name, anything else in the generic form in a `document`."""
    if not isinstance(value, BaseModel):
        root = Element("document", {"type": "string"} if isinstance(value, str) else {})
        fill(root, value)
        return _written(root)
    root = Element(getattr(value, "ELEMENT", type(value).__name__))
    record_of(type(value)).write(root, value.model_dump(mode="json", exclude_none=True))
    return _written(root)


def encode_problem(document: dict[str, Any]) -> bytes:
    """A problem document: its own members as RFC 9457 has them, all others in the generic form."""
    root = Element("problem", xmlns=NAMESPACE)
    fill(root, document)
    for element in root:
        if element.tag in _MEMBERS:
            element.attrib.clear()
    return _written(root)


def _written(root: Element) -> bytes:
    text = tostring(root, encoding="unicode").replace("\r", "&#13;")  # which a reader would take for the end of a line
    return f"<?xml version='1.0' encoding='utf-8'?>\n{text}\n".encode()
