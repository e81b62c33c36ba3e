import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import BaseModel

from execbroker.errors import Unreadable

NODES = 200_000
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


def plain(value: BaseModel | Any) -> Any:
    """As maps, lists, strings and numbers, without what is not set."""
    return value.model_dump(mode="json", exclude_none=True) if isinstance(value, BaseModel) else value


def _decode_json(body: bytes) -> Any:
    try:
        return json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"The body is not JSON: {_short(error)}") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _encode_json(value: BaseModel | Any) -> bytes:
    if isinstance(value, BaseModel):
        return value.model_dump_json(exclude_none=True).encode()
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


class _CoreLoader(_Loader):  # type: ignore[misc]
    """YAML with the 1.2 core schema: `YES`, `on` and dates are strings. Tags beyond the core's are refused."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}


def _resolvers() -> None:
    import re

    for tag, pattern, first in (
        ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
        ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
        ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
        ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ):
        _CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), first)


def _whole(loader: Any, node: Any) -> int:
    """The core schema writes octal 0o17 and knows no 017."""
    text: str = loader.construct_scalar(node)
    return int(text, 0) if text.lstrip("+-")[:2] in ("0o", "0x") else int(text)


_resolvers()
_CoreLoader.add_constructor("tag:yaml.org,2002:int", _whole)


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
    total = 1
    for child in children:
        total += sum(_measure(part, sizes) for part in child) if isinstance(child, tuple) else _measure(child, sizes)
        if total > NODES:
            raise Unreadable(f"The YAML has more than {NODES} nodes once its aliases are written out")
    sizes[id(node)] = total
    return total


def _encode_yaml(value: BaseModel | Any) -> bytes:
    text: str = yaml.dump(plain(value), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return text.encode()


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


CODECS = (
    Codec("application/json", _decode_json, _encode_json, ("text/json",)),
    Codec("application/yaml", _decode_yaml, _encode_yaml, ("text/yaml", "application/x-yaml", "text/x-yaml")),
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
