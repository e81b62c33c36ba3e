"""The nearest changes of a request that would make a NO a YES: each is tried on the timeline before it is suggested."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, Context, Decimal
from typing import NamedTuple

from execbroker.kinds.compute import SimpleComputeResource
from execbroker.model.messages import MessageItem, message
from execbroker.model.prices import Currency
from execbroker.model.times import Interval, format_duration
from execbroker.offers.wanting import Wanted
from execbroker.scheduling.asks import Ask, Part, Range
from execbroker.scheduling.objectives import first_of, least_cost
from execbroker.scheduling.quotes import fits
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
        able = tuple(one for one in trial.candidates if len(timeline.site(one.platform).nodes) >= len(trial.parts))
        return bool(able) and first_of(timeline, replace(trial, candidates=able), now) is not None

    dimensions = list(_dimensions(wanted, ask))
    sets = [[found] for dimension in dimensions if (found := _nearest(dimension, ask, possible))]
    sets += [[found] for found in (_later(timeline, ask, now), _elsewhere(wanted, ask, possible)) if found]
    sets += _dearer(timeline, wanted, ask, now)
    if not sets and (joint := _together(timeline, dimensions, ask, now, possible)):
        sets.append(joint)
    sets = [_complete(wanted, changes) for changes in sets]
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
    step = _least_step(dimension.most, lambda step: possible(dimension.at(ask, step)))
    return dimension.change(step) if step else None


def _least_step(most: int, possible: Callable[[int], bool]) -> int | None:
    """The first step at which it is possible, as it then is at all further ones; None where it never is."""
    if most < 1 or not possible(most):
        return None
    impossible, step = -1, most
    while step - impossible > 1:
        middle = (step + impossible) // 2
        if possible(middle):
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

    def at(base: Ask, steps: list[int]) -> Ask:
        for dimension, step in zip(dimensions, steps, strict=True):
            base = dimension.at(base, step)
        return base

    if not possible(at(whenever, steps)):
        return []
    later = not possible(at(ask, steps))
    base = whenever if later else ask
    for index, dimension in enumerate(dimensions):
        before, after = steps[:index], steps[index + 1 :]
        found = _least_step(dimension.most, lambda step: possible(at(base, [*before, step, *after])))  # noqa: B023
        steps[index] = found or 0
    changes = [dimension.change(step) for dimension, step in zip(dimensions, steps, strict=True) if step]
    if later and (change := _later(timeline, at(ask, steps), now)):
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


def _dearer(timeline: Timeline, wanted: Wanted, ask: Ask, now: int) -> list[list[Change]]:
    """What it costs where it costs least: in one currency, where the limits in the others can be kept, or else in all."""
    currencies = list(dict.fromkeys(limit.currency for limit in wanted.plan.limits))
    sets = [_raised(timeline, wanted, ask, now, [currency]) for currency in currencies]
    return [found for found in sets if found] or [found for found in [_raised(timeline, wanted, ask, now, currencies)] if found]


def _raised(timeline: Timeline, wanted: Wanted, ask: Ask, now: int, currencies: list[Currency]) -> list[Change]:
    """The limits in these currencies, one after the other, as low as they can be."""
    changes: list[Change] = []
    for currency in currencies:
        ask = without_limit(ask, currency)
    for currency in currencies:
        due = least_cost(timeline, ask, now, currency)
        if due is None:
            return []
        value = _rounded_up(due)
        ask = replace(ask, limits=(*ask.limits, (currency, float(value))))
        low = [limit for limit in wanted.plan.limits if limit.currency == currency and not fits(due, limit.most)]
        changes += [Change(limit.path, value) for limit in low]
    return changes


def without_limit(ask: Ask, currency: Currency) -> Ask:
    return replace(ask, limits=tuple(limit for limit in ask.limits if limit[0] != currency))


def _rounded_up(due: float) -> str:
    """Six digits, never less than is due."""
    return f"{Context(prec=6, rounding=ROUND_CEILING).create_decimal(Decimal(due)).normalize():f}"


def _complete(wanted: Wanted, changes: list[Change]) -> list[Change]:
    """With the kind of the compute resource, where the request has none that could be changed."""
    path = next((path for path, _ in wanted.plan.request.computes if path in wanted.plan.unsaid), None)
    new = path is not None and any(change.path.startswith(f"{path}.") for change in changes)
    return [Change(f"{path}.kind", SimpleComputeResource.KIND), *changes] if new else changes


def _dimensions(wanted: Wanted, ask: Ask) -> Iterator[Dimension]:
    plan = wanted.plan
    paths = [node.path for node in plan.nodes]
    parts = {path: range(paths.index(path), paths.index(path) + paths.count(path)) for path in dict.fromkeys(paths)}
    for path, alike in parts.items():
        node = plan.nodes[alike.start]
        if not plan.metrics:
            yield _size(node.cores, alike, f"{path}.cores.min", "", _less_cores)
        yield _size(node.memory, alike, f"{path}.memory.min", "GiB", _less_memory)
        for index, wish in enumerate(node.accelerators):
            exact = wish.count.min == wish.count.cap
            at = f"{path}.accelerators[{index}].count{'' if exact else '.min'}"
            yield _size(wish.count, alike, at, "", _less_accelerators(index, exact=exact))
    for index, storage in enumerate(plan.storages):
        if f"storage[{index}]" not in plan.unsaid:
            yield _smaller(index, storage.size)
    yield from _fewer_licences(wanted)
    # The last ones first: those before them keep their places among the parts.
    yield from (_fewer(alike, f"{path}.replicas") for path, alike in reversed(parts.items()) if len(alike) > 1)
    yield Dimension(
        max(ask.duration - 1, 0),
        lambda ask, step: replace(ask, duration=ask.duration - step),
        lambda step: Change("schedule.requested.duration", format_duration(timedelta(seconds=ask.duration - step))),
    )


def _size(size: Range, alike: range, path: str, units: str, less: Callable[[Part, int], Part]) -> Dimension:
    def at(ask: Ask, step: int) -> Ask:
        def change(parts: tuple[Part, ...]) -> Iterable[Part]:
            return *parts[: alike.start], *[less(parts[alike.start], step)] * len(alike), *parts[alike.stop :]

        return _with_parts(ask, change)

    return Dimension(size.min - 1, at, lambda step: Change(path, str(size.min - step), units))


def _fewer(alike: range, path: str) -> Dimension:
    def at(ask: Ask, step: int) -> Ask:
        return _with_parts(ask, lambda parts: (*parts[: alike.stop - step], *parts[alike.stop :]))

    return Dimension(len(alike) - 1, at, lambda step: Change(path, str(len(alike) - step)))


def _smaller(index: int, size: Range) -> Dimension:
    def at(ask: Ask, step: int) -> Ask:
        storages = list(ask.storages)
        storages[index] = replace(storages[index], size=_lowered(size, step))
        return replace(ask, storages=tuple(storages))

    return Dimension(size.min - 1, at, lambda step: Change(f"storage[{index}].size.min", str(size.min - step), "GiB"))


def _fewer_licences(wanted: Wanted) -> Iterator[Dimension]:
    for path, compute in wanted.plan.request.computes:
        for index, licences in enumerate(compute.licences or [] if isinstance(compute, SimpleComputeResource) else []):
            yield _fewer_of(licences.name, licences.count, f"{path}.licences[{index}].count")


def _fewer_of(licence: str, count: int, path: str) -> Dimension:
    def at(ask: Ask, step: int) -> Ask:
        return replace(ask, licences=tuple((name, n - step if name == licence else n) for name, n in ask.licences))

    return Dimension(count - 1, at, lambda step: Change(path, str(count - step)))


def _with_parts(ask: Ask, change: Callable[[tuple[Part, ...]], Iterable[Part]]) -> Ask:
    candidates = (replace(candidate, parts=tuple(change(candidate.parts))) for candidate in ask.candidates)
    return replace(ask, parts=tuple(change(ask.parts)), candidates=tuple(candidates))


def _less_cores(part: Part, step: int) -> Part:
    return replace(part, cores=_lowered(part.cores, step))


def _less_memory(part: Part, step: int) -> Part:
    return replace(part, memory=_lowered(part.memory, step))


def _less_accelerators(index: int, *, exact: bool) -> Callable[[Part, int], Part]:
    def less(part: Part, step: int) -> Part:
        wishes = list(part.accelerators)
        if index < len(wishes):  # the ask's own parts name none, only those of its candidates
            kind, wanted = wishes[index]
            fewer = _lowered(wanted, step)
            wishes[index] = kind, Range(fewer.min, fewer.min, fewer.min) if exact else fewer
        return replace(part, accelerators=tuple(wishes))

    return less


def _lowered(size: Range, step: int) -> Range:
    return replace(size, min=max(size.min - step, 1))
