from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from execbroker.model.prices import Currency
from execbroker.model.waist import Slot
from execbroker.scheduling.asks import FOREVER, Ask, Candidate, Part, Range
from execbroker.scheduling.intervals import common
from execbroker.scheduling.quotes import cheapest, cost
from execbroker.scheduling.search import Search, rank, use_of
from execbroker.scheduling.timeline import Timeline


class Choice(NamedTuple):
    """A slot, and the objective it was found for."""

    slot: Slot
    objective: str


class Window(NamedTuple):
    """Starts within [first, last] that are over before `end`."""

    first: int
    last: int
    end: int


def find(timeline: Timeline, ask: Ask, now: int) -> list[Choice]:
    """Up to `limit` slots: one for each objective in turn, in their order, then the next best of each, and so on; none twice.

    They are alternatives, each checked against the timeline alone. Those of one objective do not overlap one another: under
    `earliest` each starts when the one before it ends, or as soon after as there is room.
    """
    found: list[Choice] = []
    known: set[Slot] = set()
    series = [(objective, SERIES[objective](timeline, ask, now)) for objective in ask.objectives]
    while series and len(found) < ask.limit:
        for objective, slots in list(series):
            if len(found) == ask.limit:
                break
            slot = next((slot for slot in slots if slot not in known), None)
            if slot is None:
                series.remove((objective, slots))
            else:
                found.append(Choice(slot, objective))
                known.add(slot)
    return found


def first_of(timeline: Timeline, ask: Ask, now: int) -> Slot | None:
    """The earliest slot there is."""
    return next(earliest(timeline, ask, now), None)


def least_cost(timeline: Timeline, ask: Ask, now: int, currency: Currency) -> float | None:
    """What it costs where and when it costs least; None where there is no room at all."""
    slot = next(_one_by_one(_least(currency), _price(currency))(timeline, ask, now), None)
    if slot is None:
        return None
    return min(_price(currency)(slot, candidate)[0] for candidate in ask.candidates if candidate.platform == slot.platform)


def earliest(timeline: Timeline, ask: Ask, now: int) -> Iterator[Slot]:
    """The first there is, then the first after its end, and so on. At the same start the larger is preferred: more cores,
    then more memory; then the platform named first."""
    searches = [Search(timeline, ask, candidate) for candidate in ask.candidates]
    start = ask.earliest
    while True:
        best: Slot | None = None
        for search in searches:
            last = min(ask.latest, best.start) if best else ask.latest
            slot = search.first(max(start, now + search.candidate.prepare), last)
            if slot and (best is None or rank(slot) < rank(best)):
                best = slot
        if best is None:
            return
        yield best
        start = best.end


def _one_by_one(best: "Best", order: "Order") -> "Series":
    """The best of all candidates and times, then the best of what does not overlap it, and so on."""

    def series(timeline: Timeline, ask: Ask, now: int) -> Iterator[Slot]:
        windows = [Window(ask.earliest, ask.latest, FOREVER)]
        while True:
            slots = [
                (order(slot, candidate), index, slot)
                for index, candidate in enumerate(ask.candidates)
                for window in windows
                if (slot := best(timeline, ask, candidate, window._replace(first=max(window.first, now + candidate.prepare))))
            ]
            if not slots:
                return
            chosen = min(slots, key=lambda entry: entry[:2])[2]
            yield chosen
            windows = [part for window in windows for part in _around(window, chosen)]

    return series


def _around(window: Window, slot: Slot) -> list[Window]:
    before = Window(window.first, min(window.last, slot.start - 1), min(window.end, slot.start))
    after = Window(max(window.first, slot.end), window.last, window.end)
    return [part for part in (before, after) if part.first <= part.last]


def _first(timeline: Timeline, ask: Ask, candidate: Candidate, window: Window) -> Slot | None:
    last = min(window.last, window.end - ask.duration)
    return Search(timeline, ask, candidate).first(window.first, last) if window.first <= last else None


def _largest(timeline: Timeline, ask: Ask, candidate: Candidate, window: Window) -> Slot | None:
    """The most cores there are at any time in the window; with so many, the most memory; with so much, the soonest."""
    best = _first(timeline, ask, candidate, window)
    candidate = replace(candidate, parts=candidate.parts or ask.parts)
    for more in (_more_cores, _more_memory):
        if best is None:
            return None
        smaller = candidate
        room = max(_grown(part, FOREVER, more) - _grown(part, 0, more) for part in smaller.parts)
        step, best = _furthest(lambda step: _first(timeline, ask, _with(smaller, more, step), window), room, best)  # noqa: B023
        candidate = _with(smaller, more, step)
    return best


def _with(candidate: Candidate, more: "Grow", step: int) -> Candidate:
    return replace(candidate, parts=tuple(more(part, step) for part in candidate.parts))


def _grown(part: Part, step: int, more: "Grow") -> int:
    return sum(more(part, step).least[:2])


def _longest(timeline: Timeline, ask: Ask, candidate: Candidate, window: Window) -> Slot | None:
    """The longest session of at least the duration and at most `ask.longest` seconds; the soonest of equals."""
    best = _first(timeline, ask, candidate, window)
    if best is None:
        return None

    def at(more: int) -> Slot | None:
        return _first(timeline, replace(ask, duration=ask.duration + more), candidate, window)

    return _furthest(at, max(ask.longest - ask.duration, 0), best)[1]


def _least(currency: Currency) -> "Best":
    """The start at which it costs least, the soonest of equals; it is not enlarged. What has no price is free."""

    def best(timeline: Timeline, ask: Ask, candidate: Candidate, window: Window) -> Slot | None:
        first, last = window.first, min(window.last, window.end - ask.duration)
        search = Search(timeline, ask, candidate, enlarge=False)
        if first > last or not search.possible:
            return None
        if candidate.prices is None:
            return search.first(first, last)
        starts = common(search.windows(first, last), search.affordable(first, last))
        start = cheapest(candidate.prices, currency, search.use, starts)
        return (search.first(start, start) or search.first(first, last)) if start is not None else None

    return best


def _price(currency: Currency) -> "Order":
    def order(slot: Slot, candidate: Candidate) -> tuple[float, ...]:
        due = cost(candidate.prices, currency, use_of(slot, candidate.staged)) if candidate.prices else 0
        return float(f"{due:.9g}"), *rank(slot)

    return order


def _furthest(at: Callable[[int], Slot | None], most: int, best: Slot) -> tuple[int, Slot]:
    """The largest step up to `most` at which there is a slot, which there is at every smaller one; `best` is that at 0."""
    step, beyond = 0, most + 1
    trial = most
    while beyond - step > 1:
        slot = at(trial)
        if slot:
            step, best = trial, slot
        else:
            beyond = trial
        trial = (step + beyond) // 2
    return step, best


def _more_cores(part: Part, step: int) -> Part:
    return replace(part, cores=_raised(part.cores, step))


def _more_memory(part: Part, step: int) -> Part:
    return replace(part, memory=_raised(part.memory, step))


def _raised(asked: Range, step: int) -> Range:
    return replace(asked, min=min(asked.min + step, asked.max))


def _size(slot: Slot, _: Candidate) -> tuple[float, ...]:
    return -sum(share.cores for share in slot.shares), -sum(share.memory for share in slot.shares), slot.start


def _length(slot: Slot, _: Candidate) -> tuple[float, ...]:
    return slot.start - slot.end, *rank(slot)


Grow = Callable[[Part, int], Part]
Series = Callable[[Timeline, Ask, int], Iterator[Slot]]
Best = Callable[[Timeline, Ask, Candidate, Window], Slot | None]
Order = Callable[[Slot, Candidate], tuple[float, ...]]
SERIES: dict[str, Series] = {
    "earliest": earliest,
    "largest": _one_by_one(_largest, _size),
    "longest": _one_by_one(_longest, _length),
    "cheapest": _one_by_one(_least("money"), _price("money")),
    "greenest": _one_by_one(_least("carbon"), _price("carbon")),
}
