"""The objectives against every start of a short horizon, tried one by one, at every size and length."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_search import CAPACITIES, NOW, an_ask, exactly, for_one_node, for_several_nodes, held, pool, slots_of

from execbroker.model.prices import Prices
from execbroker.model.waist import Capacity, Node, Slot
from execbroker.scheduling.amounts import Amounts
from execbroker.scheduling.asks import Ask, Candidate, Part, Range
from execbroker.scheduling.objectives import SERIES, find, first_of, least_cost
from execbroker.scheduling.quotes import cost
from execbroker.scheduling.timeline import Booking, Place, Timeline
from oracle import Fit, Oracle, Trial, trials

MINUTE = 60
EDGES = ["00:01", "00:02", "00:03", "00:05", "00:20"]
"""Tariffs change here: whole minutes that the horizon of the tests reaches when each of their seconds is twenty."""
STRETCH = 20

rates = st.fixed_dictionaries(
    {},
    optional={
        "core_hour": st.integers(0, 8),
        "node_hour": st.integers(0, 8),
        "gb_day": st.integers(0, 50),
        "gb_staged": st.integers(0, 3),
    },
)
tariffs = st.builds(
    lambda begin, factor: {"from": begin, "until": EDGES[EDGES.index(begin) + 1], "factor": factor},
    st.sampled_from(EDGES[:-1]),
    st.sampled_from([0, 0.25, 0.5, 3]),
)
lists = st.builds(lambda rates, tariffs: {**rates, "tariffs": tariffs}, rates, st.lists(tariffs, max_size=3))
prices = st.none() | st.fixed_dictionaries({}, optional={"money": lists, "carbon": lists}).map(Prices.model_validate)


@st.composite
def wishes(draw: st.DrawFn, asks: st.SearchStrategy[Ask] = for_one_node) -> Ask:
    ask = draw(asks)
    candidates = tuple(replace(one, prices=draw(prices), staged=draw(st.sampled_from([0, 10**9]))) for one in ask.candidates)
    longest = draw(st.integers(0, 30))
    return replace(ask, candidates=candidates, longest=longest, latest=min(ask.latest, ask.earliest + 30), limit=3)


def stretched(bookings: list[Booking], ask: Ask) -> tuple[list[Booking], Ask]:
    """With all times so much longer."""
    later = [booking._replace(start=STRETCH * booking.start, end=STRETCH * booking.end) for booking in bookings]
    storages = tuple(replace(one, lifetime=STRETCH * one.lifetime) for one in ask.storages)
    candidates = tuple(replace(one, prepare=STRETCH * one.prepare, release=STRETCH * one.release) for one in ask.candidates)
    times = {name: STRETCH * getattr(ask, name) for name in ("duration", "earliest", "latest", "longest")}
    return later, replace(ask, storages=storages, candidates=candidates, **times)


@dataclass(frozen=True)
class Choice:
    """One possibility; the one whose `order` is least is the best."""

    order: tuple[float, ...]
    platform: str
    start: int
    end: int
    size: tuple[int, int]

    def overlaps(self, other: Slot) -> bool:
        return self.start < other.end and other.start < self.end


def sized(ask: Ask, candidate: Candidate) -> Iterator[Candidate]:
    """With every size that is acceptable as the least: where sizes are fixed, that is what there is to choose from."""
    (part,) = ask.parts
    if not CAPACITIES[candidate.platform].flavours:
        yield candidate
        return
    for cores in range(part.cores.min, part.cores.max + 1):
        for memory in range(part.memory.min, part.memory.max + 1):
            more = replace(part, cores=replace(part.cores, min=cores), memory=replace(part.memory, min=memory))
            yield replace(candidate, parts=(more,))


def largest(oracle: Oracle, ask: Ask) -> Iterator[Choice]:
    for index, candidate in enumerate(ask.candidates):
        for one in sized(ask, candidate):
            trial = Trial(oracle, ask, one)
            for fit in trial.all_fits(ask.earliest, STRETCH * NOW):
                cores, memory = trial.largest_on(fit)
                yield choice(trial, fit, (-cores, -memory, fit.start, index), (cores, memory))


def longest(oracle: Oracle, ask: Ask) -> Iterator[Choice]:
    for duration in {ask.duration, *range(ask.duration, ask.longest + 1, STRETCH)}:
        wish = replace(ask, duration=duration)
        for index, trial in enumerate(trials(oracle, wish)):
            for fit in trial.all_fits(ask.earliest, STRETCH * NOW):
                cores, memory = trial.largest_on(fit)
                yield choice(trial, fit, (-duration, fit.start, -cores, -memory, index), (cores, memory))


def costing_least(currency: Any) -> Callable[[Oracle, Ask], Iterator[Choice]]:
    def choices(oracle: Oracle, ask: Ask) -> Iterator[Choice]:
        for index, trial in enumerate(trials(oracle, ask)):
            for fit in trial.all_fits(ask.earliest, STRETCH * NOW):
                use = trial.use(fit.start)
                due = cost(trial.candidate.prices, currency, use) if trial.candidate.prices else 0
                yield choice(trial, fit, (round(due, 9), fit.start, -use.cores, -use.memory, index), (use.cores, use.memory))

    return choices


def choice(trial: Trial, fit: Fit, order: tuple[float, ...], size: tuple[int, int]) -> Choice:
    return Choice(order, trial.candidate.platform, fit.start, fit.start + trial.ask.duration, size)


def size(slot: Slot) -> tuple[int, int]:
    return sum(share.cores for share in slot.shares), sum(share.memory for share in slot.shares)


CHOICES = {
    "largest": largest,
    "longest": longest,
    "cheapest": costing_least("money"),
    "greenest": costing_least("carbon"),
}


@pytest.mark.parametrize("objective", CHOICES)
@settings(max_examples=100)
@given(held, wishes())
def test_each_is_the_best_of_all_that_overlap_none_before(objective: str, bookings: list[Booking], wish: Ask) -> None:
    bookings, ask = stretched(bookings, replace(wish, objectives=(objective,)))
    timeline, oracle = pool(bookings, STRETCH)
    possible = list(CHOICES[objective](oracle, ask))
    found = slots_of(find(timeline, ask, STRETCH * NOW))
    for index, slot in enumerate(found):
        left = [one for one in possible if not any(one.overlaps(before) for before in found[:index])]
        best = min(left, key=lambda one: one.order)
        assert (slot.platform, slot.start, slot.end, size(slot)) == (best.platform, best.start, best.end, best.size)
    if len(found) < ask.limit:
        assert all(any(one.overlaps(before) for before in found) for one in possible)


@settings(max_examples=60)
@given(held, wishes(for_several_nodes), st.sampled_from(["money", "carbon"]))
def test_on_several_nodes_too_it_is_where_it_costs_least(bookings: list[Booking], wish: Ask, currency: Any) -> None:
    bookings, ask = stretched(bookings, replace(wish, objectives=("cheapest" if currency == "money" else "greenest",)))
    timeline, oracle = pool(bookings, STRETCH)
    best = min((one.order[:2] for one in costing_least(currency)(oracle, ask)), default=None)
    found = slots_of(find(timeline, ask, STRETCH * NOW))
    assert [(found[0].start) if found else None] == [best[1] if best else None]
    due = least_cost(timeline, ask, STRETCH * NOW, currency)
    assert due == (None if best is None else pytest.approx(best[0]))


mixtures = st.lists(st.sampled_from(sorted(SERIES)), min_size=1, max_size=4, unique=True).map(tuple)


@settings(max_examples=100)
@given(held, wishes(for_one_node | for_several_nodes), mixtures, st.integers(1, 7))
def test_a_mixture_takes_the_next_of_each_in_turn(
    bookings: list[Booking], wish: Ask, mixture: tuple[str, ...], limit: int
) -> None:
    bookings, ask = stretched(bookings, replace(wish, objectives=mixture, limit=limit))
    timeline, _ = pool(bookings, STRETCH)
    found = find(timeline, ask, STRETCH * NOW)
    alone = {one: slots_of(find(timeline, replace(ask, objectives=(one,), limit=2 * limit), STRETCH * NOW)) for one in mixture}
    soonest = next(iter(alone.get("earliest", [])), None)
    assert len(found) <= limit
    assert len({choice.slot for choice in found}) == len(found)
    expected = list[tuple[Slot, str]]()
    while any(alone.values()) and len(expected) < limit:
        for objective in mixture:
            slots = [slot for slot in alone[objective] if slot not in [known for known, _ in expected]]
            if slots and len(expected) < limit:
                expected.append((slots[0], objective))
            alone[objective] = slots[1:]
    assert [tuple(choice) for choice in found] == expected
    for objective in mixture:
        mine = sorted((choice.slot.start, choice.slot.end) for choice in found if choice.objective == objective)
        assert all(one[1] <= other[0] for one, other in pairwise(mine))
    if "earliest" in mixture:
        assert first_of(timeline, ask, STRETCH * NOW) == soonest


def test_it_costs_least_where_unequal_parts_have_each_a_node() -> None:
    """In the cheapest minute both find room only on the same node; the next cheapest is the answer, not the first."""
    timeline = Timeline()
    timeline.set_capacity("east", Capacity((Node("a", 2, 2, 0, (("l4", 1),)), Node("b", 2, 2))))
    timeline.take([Booking(Place("east", "b"), 60, 120, Amounts(2, 2))])
    tariffs = [{"from": "00:01", "until": "00:02", "factor": 0.1}, {"from": "00:03", "until": "00:05", "factor": 0.5}]
    prices = Prices.model_validate({"money": {"core_hour": 1, "tariffs": tariffs}})
    parts = (Part(exactly(1), exactly(1), (("l4", exactly(1)),)), Part(exactly(2), exactly(1)))
    ask = replace(an_ask(exactly(1), exactly(1), latest=300, objectives=("cheapest",)), parts=parts)
    ask = replace(ask, candidates=(Candidate("east", 0, 0, prices=prices),))
    (found,) = slots_of(find(timeline, ask, NOW))
    assert (found.start, [share.node for share in found.shares]) == (180, ["a", "b"])


def test_of_equals_the_platform_named_first_is_taken() -> None:
    timeline, _ = pool([])
    for objective in SERIES:
        for names in (("east", "west"), ("west", "east")):
            candidates = tuple(Candidate(name, 0, 0) for name in names)
            ask = replace(an_ask(exactly(1), exactly(1), objectives=(objective,), longest=10), candidates=candidates)
            assert find(timeline, ask, NOW)[0].slot.platform == names[0]


def test_the_largest_of_all_sizes_and_times() -> None:
    """Six cores on b are free only late; on a there are four at once."""
    timeline, _ = pool([Booking(Place("east", "b"), 0, 30, Amounts(1))])
    ask = an_ask(Range(3, 6), Range(1, 3), objectives=("largest", "earliest"), limit=2, latest=40)
    late, soon = find(timeline, ask, NOW)
    assert (late.objective, late.slot.node, late.slot.start, late.slot.shares[0].cores) == ("largest", "b", 30, 6)
    assert (soon.objective, soon.slot.start, soon.slot.shares[0].cores) == ("earliest", NOW, 5)
