"""The nearest changes of a request that would make a NO a YES: each is tried on the timeline before it is suggested."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from execbroker.model.messages import MessageItem, message
from execbroker.model.times import Interval, format_duration
from execbroker.offers.limiting import CURRENCIES
from execbroker.offers.wanting import Wanted
from execbroker.scheduling.asks import Ask, Part, Range
from execbroker.scheduling.objectives import first_of, least_cost
from execbroker.scheduling.timeline import Timeline

ROOM = 3600  # seconds that a later start is given to be asked for in
_FAR = 5 * 366 * 86400


class Change(NamedTuple):
    """The field of the request at `path` is to become `value`."""

    path: str
    value: str
    units: str = ""


@dataclass(frozen=True, slots=True)
class Dimension:
    """Something that can be asked less of: `at(ask, step)` for each step up to `most`, which all contain the one before;
    `change` says a step in terms of the request."""

    most: int
    at: Callable[[Ask, int], Ask]
    change: Callable[[int], Change]


def counter_offers(timeline: Timeline, wanted: Wanted, now: int) -> list[MessageItem]:
    """Every single change that would do, as near as can be; where none does, the nearest that do together.

    Each message's values are `path`, `value` and `units` of one change; those of one `set` belong together.
    """
    ask = replace(wanted.ask, earliest=max(wanted.ask.earliest, now))

    def possible(trial: Ask) -> bool:
        return first_of(timeline, trial, now) is not None

    dimensions = list(_dimensions(wanted, ask))
    sets = [[found] for dimension in dimensions if (found := _nearest(dimension, ask, possible))]
    sets += [[found] for found in (_later(timeline, ask, now), _elsewhere(wanted, ask, possible)) if found]
    sets += [found for found in [_dearer(timeline, wanted, ask, now)] if found]
    if not sets and (joint := _together(timeline, dimensions, ask, now, possible)):
        sets.append(joint)
    return [
        message("INFO", "counter-offer", "It would be YES with {value}{unit} in {path}{also}",
                unit=f" {change.units}" if change.units else "", also=_also(changes, change),
                path=change.path, value=change.value, units=change.units, set=number)
        for number, changes in enumerate(sets, 1)
        for change in changes
    ]  # fmt: skip


def _also(changes: list[Change], change: Change) -> str:
    others = [other.path for other in changes if other != change]
    return f", together with the change of {' and '.join(others)}" if others else ""


def _nearest(dimension: Dimension, ask: Ask, possible: Callable[[Ask], bool]) -> Change | None:
    step = _least_step(dimension, ask, possible)
    return dimension.change(step) if step else None


def _least_step(dimension: Dimension, ask: Ask, possible: Callable[[Ask], bool]) -> int | None:
    """The first step at which it is possible, as it then is at all further ones; None where it never is."""
    if dimension.most < 1 or not possible(dimension.at(ask, dimension.most)):
        return None
    impossible, step = -1, dimension.most
    while step - impossible > 1:
        middle = (step + impossible) // 2
        if possible(dimension.at(ask, middle)):
            step = middle
        else:
            impossible = middle
    return step


def _together(
    timeline: Timeline, dimensions: list[Dimension], ask: Ask, now: int, possible: Callable[[Ask], bool]
) -> list[Change]:
    """Everything given up first, then taken back one after the other as far as can be."""
    steps = [dimension.most for dimension in dimensions]
    whenever = replace(ask, latest=max(ask.latest, now + _FAR))

    def at(base: Ask) -> Ask:
        for dimension, step in zip(dimensions, steps, strict=True):
            base = dimension.at(base, step)
        return base

    if not possible(at(whenever)):
        return []
    later = not possible(at(ask))
    base = whenever if later else ask
    for index, dimension in enumerate(dimensions):
        steps[index] = 0
        if dimension.most:
            steps[index] = _least_step(dimension, at(base), possible) or 0 if not possible(at(base)) else 0
    changes = [dimension.change(step) for dimension, step in zip(dimensions, steps, strict=True) if step]
    if later and (change := _later(timeline, at(ask), now)):
        changes.append(change)
    return changes


def _later(timeline: Timeline, ask: Ask, now: int) -> Change | None:
    slot = first_of(timeline, replace(ask, latest=max(ask.latest, now + _FAR)), now)
    if slot is None or slot.start <= ask.latest:
        return None
    begin = datetime.fromtimestamp(slot.start, UTC)
    length = timedelta(seconds=max(ask.latest - ask.earliest, ROOM))
    return Change("schedule.requested.start", str(Interval(begin, begin + length)))


def _elsewhere(wanted: Wanted, ask: Ask, possible: Callable[[Ask], bool]) -> Change | None:
    """Another platform, where the request names those that it is to run on."""
    for candidate in wanted.elsewhere:
        if possible(replace(ask, candidates=(candidate,))):
            return Change("platforms", candidate.platform)
    return None


def _dearer(timeline: Timeline, wanted: Wanted, ask: Ask, now: int) -> list[Change]:
    """What it costs where it costs least."""
    changes = []
    for currency, limit in ask.limits:
        others = tuple(pair for pair in ask.limits if pair != (currency, limit))
        due = least_cost(timeline, replace(ask, limits=others), now, currency)
        if due is None:
            return []
        if due > limit:
            changes.append(Change(_path_of(wanted, currency), f"{due * (1 + 1e-9):.6g}" if due else "0"))
    return changes


def _path_of(wanted: Wanted, currency: str) -> str:
    """Where the request limits a currency."""
    uris = (CURRENCIES[currency], CURRENCIES[currency].rpartition(":")[2])  # type: ignore[index]
    index = next(index for index, cost in enumerate(wanted.plan.request.costs or []) if cost.type in uris)
    return f"costs[{index}].max"


def _dimensions(wanted: Wanted, ask: Ask) -> Iterator[Dimension]:
    nodes = wanted.plan.nodes
    for path in dict.fromkeys(node.path for node in nodes):
        indices = [index for index, node in enumerate(nodes) if node.path == path]
        node = nodes[indices[0]]
        if not wanted.plan.metrics:
            yield _size(node.cores, indices, f"{path}.cores.min", "", _less_cores)
        yield _size(node.memory, indices, f"{path}.memory.min", "GiB", _less_memory)
        for index, wish in enumerate(node.accelerators):
            yield _size(wish.count, indices, f"{path}.accelerators[{index}].count.min", "", _less_accelerators(index))
        if len(indices) > 1:
            yield _fewer(indices, f"{path}.replicas")
    for index, storage in enumerate(wanted.plan.storages):
        yield _smaller(index, storage.size)
    yield Dimension(
        max(ask.duration - 1, 0),
        lambda ask, step: replace(ask, duration=ask.duration - step),
        lambda step: Change("schedule.requested.duration", format_duration(timedelta(seconds=ask.duration - step))),
    )


def _size(size: Range, indices: list[int], path: str, units: str, less: Callable[[Part, int], Part]) -> Dimension:
    def at(ask: Ask, step: int) -> Ask:
        return _with_parts(ask, lambda parts: (less(part, step) if i in indices else part for i, part in enumerate(parts)))

    return Dimension(size.min - 1, at, lambda step: Change(path, str(size.min - step), units))


def _fewer(indices: list[int], path: str) -> Dimension:
    def at(ask: Ask, step: int) -> Ask:
        dropped = indices[len(indices) - step :] if step else []
        return _with_parts(ask, lambda parts: (part for i, part in enumerate(parts) if i not in dropped))

    return Dimension(len(indices) - 1, at, lambda step: Change(path, str(len(indices) - step)))


def _smaller(index: int, size: Range) -> Dimension:
    def at(ask: Ask, step: int) -> Ask:
        storages = list(ask.storages)
        storages[index] = replace(storages[index], size=_lowered(size, step))
        return replace(ask, storages=tuple(storages))

    return Dimension(size.min - 1, at, lambda step: Change(f"storage[{index}].size.min", str(size.min - step), "GiB"))


def _with_parts(ask: Ask, change: Callable[[tuple[Part, ...]], Iterable[Part]]) -> Ask:
    candidates = (replace(candidate, parts=tuple(change(candidate.parts))) for candidate in ask.candidates)
    return replace(ask, parts=tuple(change(ask.parts)), candidates=tuple(candidates))


def _less_cores(part: Part, step: int) -> Part:
    return replace(part, cores=_lowered(part.cores, step))


def _less_memory(part: Part, step: int) -> Part:
    return replace(part, memory=_lowered(part.memory, step))


def _less_accelerators(index: int) -> Callable[[Part, int], Part]:
    def less(part: Part, step: int) -> Part:
        wishes = list(part.accelerators)
        if index < len(wishes):  # the ask's own parts name none, only those of its candidates
            wishes[index] = wishes[index][0], _lowered(wishes[index][1], step)
        return replace(part, accelerators=tuple(wishes))

    return less


def _lowered(size: Range, step: int) -> Range:
    return replace(size, min=max(size.min - step, 1))
