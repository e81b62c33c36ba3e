import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import yaml
from pydantic import BaseModel

from execbroker.errors import Unreadable
from execbroker.xml.codec import decode_xml, encode_problem, encode_xml

NODES = 200_000
SCALAR = 64  # characters that count as one more node
DEPTH = 200
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@dataclass(frozen=True, slots=True)
class Codec:
    """One media type: how bytes become plain data (raising Unreadable), and how a model or plain data becomes bytes."""

    media_type: str
    decode: Callable[[bytes], Any]
    encode: Callable[[BaseModel | Any], bytes]
    aliases: tuple[str, ...] = ()
    problem_type: str | None = None
    """That of problem documents, where it has one."""
    encode_problem: Callable[[dict[str, Any]], bytes] | None = None
    """Where they are written in a way of their own."""


def plain(value: BaseModel | Any) -> Any:
    """As maps, lists, strings and numbers, without what is not set."""
    return value.model_dump(mode="json", exclude_none=True) if isinstance(value, BaseModel) else value


def _decode_json(body: bytes) -> Any:
    try:
        document = json.loads(body.decode("utf-8-sig"), parse_constant=_no_constant, parse_float=_finite)
        if b"\\ud" in body.lower():
            json.dumps(document, ensure_ascii=False).encode()  # half a surrogate pair is no character, and could not be answered
        return document
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"The body is not JSON: {_short(error)}") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large a number")
    return number


def _encode_json(value: BaseModel | Any) -> bytes:
    if isinstance(value, BaseModel):
        return value.model_dump_json(exclude_none=True).encode()
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


class _CoreLoader(_Loader):  # type: ignore[misc]
    """YAML with the 1.2 core schema: `YES`, `on` and dates are strings. Tags beyond the core's are refused."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}
    yaml_constructors: dict[str | None, Any] = {}


class _CoreDumper(_Dumper):  # type: ignore[misc]
    """Quotes what either YAML 1.1 or the 1.2 core schema would read as something else than a string."""


_CORE = {
    "null": (re.compile(r"(?:~|null|Null|NULL|)\Z"), ["~", "n", "N", ""]),
    "bool": (re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"), list("tTfF")),
    "int": (re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z"), list("-+0123456789")),
    "float": (re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z"), list("-+.0123456789")),
}


def _whole(text: str) -> int:
    """The core schema writes octal 0o17 and knows no 017."""
    return int(text, 0) if text.lstrip("+-")[:2] in ("0o", "0x") else int(text)


def _scalar(read: Callable[[str], Any], tag: str) -> Callable[[Any, Any], Any]:
    pattern, _ = _CORE[tag]

    def construct(loader: Any, node: Any) -> Any:
        text = loader.construct_scalar(node)
        if not pattern.match(text):
            raise ValueError(f"{text[:50]!r} is not of the type {tag}")
        return read(text)

    return construct


def _build_core() -> None:
    prefix = "tag:yaml.org,2002:"
    for tag, (pattern, first) in _CORE.items():
        _CoreLoader.add_implicit_resolver(prefix + tag, pattern, first)
        _CoreDumper.add_implicit_resolver(prefix + tag, pattern, first)
    readers = {"null": lambda _: None, "bool": lambda text: text.lower() == "true", "int": _whole, "float": _finite}
    for tag, read in readers.items():
        _CoreLoader.add_constructor(prefix + tag, _scalar(read, tag))
    for tag in ("str", "seq", "map"):
        _CoreLoader.add_constructor(prefix + tag, getattr(_Loader, f"construct_yaml_{tag}"))
    _CoreLoader.add_constructor(None, _Loader.construct_undefined)


_build_core()


def _decode_yaml(body: bytes) -> Any:
    try:
        _check_depth(body)
        loader = _CoreLoader(body)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _measure(node, {})
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise Unreadable(f"The body is not YAML: {_short(error)}") from None
    except (RecursionError, ValueError) as error:
        raise Unreadable(f"The body is not YAML that is read here: {_short(error)}") from None


def _check_depth(body: bytes) -> None:
    """Before anything recurses: a deep document would overflow the stack of the C loader, and end the process."""
    depth = 0
    for event in yaml.parse(body, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH:
            raise Unreadable(f"The YAML is nested deeper than {DEPTH} levels")


def _measure(node: Any, sizes: dict[int, int]) -> int:
    """How many nodes a document is once its aliases are written out. Raises Unreadable for one that never ends or explodes."""
    known = sizes.get(id(node))
    if known == 0:
        raise Unreadable("The YAML refers to itself")
    if known is not None:
        return known
    sizes[id(node)] = 0
    children = node.value if isinstance(node.value, list) else []
    total = 1 if children else 1 + len(node.value) // SCALAR
    _check_keys(node)
    for child in children:
        total += sum(_measure(part, sizes) for part in child) if isinstance(child, tuple) else _measure(child, sizes)
        if total > NODES:
            raise Unreadable(f"The YAML has more than {NODES} nodes once its aliases are written out")
    sizes[id(node)] = total
    return total


def _check_keys(node: Any) -> None:
    """Raises Unreadable where a map has a key twice: which of them would be meant?"""
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[tuple[str, str]] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if (key.tag, key.value) in seen:
                raise Unreadable(f"The YAML has the key {key.value[:50]!r} twice, again in line {key.start_mark.line + 1}")
            seen.add((key.tag, key.value))


def _encode_yaml(value: BaseModel | Any) -> bytes:
    text: str = yaml.dump(plain(value), Dumper=_CoreDumper, sort_keys=False, allow_unicode=True, width=120)
    return text.encode()


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


CODECS = (
    Codec("application/json", _decode_json, _encode_json, ("text/json",), "application/problem+json"),
    Codec("application/yaml", _decode_yaml, _encode_yaml, ("text/yaml", "application/x-yaml", "text/x-yaml")),
    Codec(
        "application/xml",
        partial(decode_xml, most=NODES, deepest=DEPTH),
        encode_xml,
        ("text/xml",),
        "application/problem+xml",
        encode_problem,
    ),
)
"""Every media type that is spoken, the default first."""


def depth_of(value: Any) -> int:
    """How deep a document is nested, without recursion."""
    deepest, level = 0, [value]
    while level:
        deepest += 1
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
    return deepest
