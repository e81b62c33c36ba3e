import re
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from execbroker.codecs import plain
from execbroker.kinds.amounts import Gibibytes
from execbroker.model.components import AbstractComponent
from execbroker.model.sessions import ExecutionRequest

COUNTER_OFFER = "urn:execbroker:message:counter-offer"
_PART = re.compile(r"([A-Za-z_]+)(?:\[(\d{1,6})\])?")
_NUMBERS = {"min", "max", "count", "replicas"}


@dataclass(frozen=True, slots=True)
class Change:
    """The field of a request at `path` is to become `value`; `units` are those of a size, GiB."""

    path: str
    value: str
    units: str = ""


def counter_offers(answer: AbstractComponent) -> list[list[Change]]:
    """The ways in which a NO would be a YES, each of them the changes that it takes together; [] where there are none."""
    sets: dict[str, list[Change]] = {}
    for item in (answer.meta and answer.meta.messages) or []:
        values = item.values or {}
        if item.kind == COUNTER_OFFER and {"path", "value"} <= values.keys():
            change = Change(values["path"], values["value"], values.get("units", ""))
            sets.setdefault(values.get("set", ""), []).append(change)
    return list(sets.values())


def changed(request: ExecutionRequest | dict[str, Any], changes: Iterable[Change]) -> dict[str, Any]:
    """A request with these changes made; levels that are missing on the way are added. The argument stays as it is.

    Raises ValueError where a change does not fit the request.
    """
    document: dict[str, Any] = deepcopy(plain(request))
    for change in changes:
        _make(document, change)
    return document


def _make(document: dict[str, Any], change: Change) -> None:
    *way, (name, index) = _parts(change.path)
    if index is not None:
        raise ValueError(f"{change.path} names an item of a list, which cannot become {change.value}")
    level = document
    for step, position in way:
        level = _compute(document, position) if step == "compute" else _level(level, step, position)
    if change.units and level.get("units"):
        _turn_into_gib(level)
    level[name] = _value(name, change.value)


def _parts(path: str) -> list[tuple[str, int | None]]:
    found = [match for part in path.split(".") if (match := _PART.fullmatch(part))]
    if len(found) <= path.count("."):
        raise ValueError(f"{path!r} is not the path of a field, such as compute.cores.min")
    return [(match[1], int(match[2]) if match[2] else None) for match in found]


def _value(name: str, text: str) -> Any:
    if name in _NUMBERS:
        return int(text) if re.fullmatch(r"-?\d+", text) else float(text)
    return [text] if name == "platforms" else text


def _level(above: dict[str, Any], name: str, index: int | None) -> dict[str, Any]:
    """The map at `name` of the one above it, made where there is none."""
    if index is not None:
        return _item(_list(above, name), name, index)
    found = above.get(name)
    if found is None:
        found = above[name] = {}
    return _map(found, name)


def _item(items: list[Any], name: str, index: int) -> dict[str, Any]:
    if index > len(items):
        raise ValueError(f"There is no {name}[{index}] in the request")
    if index == len(items):
        items.append({})
    return _map(items[index], f"{name}[{index}]")


def _list(above: dict[str, Any], name: str) -> list[Any]:
    if above.get(name) is None:
        above[name] = []
    if not isinstance(above[name], list):
        raise ValueError(f"{name} is not a list in the request")
    return above[name]  # type: ignore[no-any-return]


def _map(found: Any, name: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise ValueError(f"{name} is not a map in the request")
    return found


def _compute(document: dict[str, Any], index: int | None) -> dict[str, Any]:
    """One of the compute resources: of a list, or the one, or those that are beside it."""
    if isinstance(document.get("compute"), list):
        return _item(document["compute"], "compute", index or 0)
    return _level(document, "further_compute", index - 1) if index else _level(document, "compute", None)


def _turn_into_gib(size: dict[str, Any]) -> None:
    converted = Gibibytes.model_validate(size).model_dump(exclude_none=True)
    size.clear()
    size.update(converted)
