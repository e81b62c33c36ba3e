"""What the dialects do with plain documents; nothing here raises, and nothing changes its argument."""

from collections.abc import Callable
from typing import Any

Block = dict[str, Any]


def renamed(block: Block, names: dict[str, str]) -> Block:
    return {names.get(name, name): value for name, value in block.items()}


def present(block: Block) -> Block:
    return {name: value for name, value in block.items() if value is not None}


def without(block: Block, *names: str) -> Block:
    return {name: value for name, value in block.items() if name not in names}


def each(convert: Callable[[Any], Any], part: Any) -> Any:
    """`part` converted, or each of its members where it is a list; blank members are absent."""
    return [convert(member) for member in part if member is not None] if isinstance(part, list) else convert(part)


def folded(block: Any, *names: str) -> Any:
    """`block` without what is blank in it, and with the fields of the blocks inside it called `names` beside its own."""
    for name in names if isinstance(block, dict) else ():
        if isinstance(inner := block.get(name), dict):
            block = without(block, name) | inner
    return present(block) if isinstance(block, dict) else block


def lifted(component: Block) -> Block:
    """The fields inside `spec` or `content` beside the others, but those that would take the place of one, or of the kind."""
    for name in ("spec", "content"):
        if isinstance(inner := component.get(name), dict):
            kept = {field: value for field, value in inner.items() if field in component or field in ("kind", "type")}
            component = without(component, name) | without(inner, *kept) | {name: kept or None}
    return present(component)
