"""The search over weeks, in kept hours and within limits of cost: still every start, tried one by one."""

import math
from dataclasses import replace
from datetime import UTC

from hypothesis import given, settings
from hypothesis import strategies as st
from test_search import CAPACITIES, an_ask, exactly, only, slots_of

from execbroker.model.prices import Calendar, Prices, Tariff
from execbroker.model.waist import Capacity, Node
from execbroker.scheduling.amounts import Amounts
from execbroker.scheduling.asks import Ask, Candidate, Part, Range, StorageAsk
from execbroker.scheduling.objectives import find
from execbroker.scheduling.quotes import Use, cost
from execbroker.scheduling.timeline import Booking, Kept, Place, Timeline, bookings_of
from oracle import Oracle, first_start, size_of, trials

DAY, HOUR, QUARTER = 86400, 3600, 900
MONDAY = 20_003 * DAY
TICK = 300
OFFICE = Kept(
    0.6, Calendar(UTC, (Tariff.model_validate({"from": "08:00", "until": "18:00", "days": ["mon", "tue", "fri"], "factor": 0}),))
)
LONG = {
    "east": Capacity((Node("a", 8, 8, 20), Node("b", 5, 10, 20), Node("c", 8, 6))),
    "west": Capacity((Node("d", 8, 8, 40), Node("e", 5, 5))),
}
far = st.sampled_from([0, DAY, 31 * DAY, 32 * DAY, 33 * DAY])
steps = st.integers(-100, 300).map(lambda step: step * TICK)
moments = st.builds(lambda base, step: max(base + step, 0), far, steps)
stays = st.sampled_from(
    [TICK, 2 * TICK, 3 * TICK, QUARTER, HOUR, 4 * HOUR - TICK, 4 * HOUR, 5 * HOUR, DAY, 30 * DAY]
) | st.integers(1, 100).map(lambda step: step * TICK)
long_held = st.lists(
    st.tuples(
        st.sampled_from([Place(name, node.name) for name, capacity in LONG.items() for node in capacity.nodes]),
        moments,
        stays,
        st.tuples(st.integers(1, 8), st.integers(0, 8), st.integers(0, 10)).map(lambda amounts: Amounts(*amounts)),
    ),
    min_size=5,
    max_size=40,
)


def long_pool(booked: list[tuple[Place, int, int, Amounts]], origin: int) -> tuple[Timeline, Oracle]:
    """The same over weeks; on the platform `west` batch work has less in office hours."""
    timeline, oracle = Timeline(), Oracle(LONG, 70 * DAY // TICK, TICK, origin, guarded=["west"])
    timeline.rebuild([], origin)
    for name, capacity in LONG.items():
        timeline.set_capacity(name, capacity, [OFFICE] if name == "west" else [])
    for node in LONG["west"].nodes:
        keep_by_the_clock(oracle, node)
    for place, start, length, amounts in booked:
        booking = Booking(place, origin + start, origin + start + length, amounts)
        if oracle.has_room(booking):
            timeline.take([booking])
            oracle.take([booking])
    return timeline, oracle


def keep_by_the_clock(oracle: Oracle, node: Node) -> None:
    free = oracle.free[Place("west", node.name)]
    for index in range(oracle.ticks):
        days, seconds = divmod(oracle.origin + index * TICK - MONDAY, DAY)
        kept = days % 7 in (0, 1, 4) and 8 * HOUR <= seconds < 18 * HOUR
        for kind in ("cores", "memory"):
            has = size_of(node)[kind]
            free[f"batch {kind}"][index] = has - math.ceil(has * 0.6) if kept else has


@settings(max_examples=80)
@given(
    long_held,
    st.sampled_from([MONDAY, MONDAY + TICK, MONDAY + 7 * HOUR + 2 * TICK]),
    st.builds(
        lambda start, span, duration, part, storage, prepare, batch, platforms: Ask(
            (part,),
            storage,
            duration,
            start,
            start + span,
            tuple(Candidate(name, prepare, TICK) for name in platforms),
            3,
            batch=batch,
        ),
        moments,
        st.sampled_from([0, HOUR, 5 * HOUR, DAY]),
        st.sampled_from([TICK, 2 * TICK, 3 * TICK, 4 * TICK, QUARTER, HOUR, 4 * HOUR, 20 * HOUR, 3 * DAY]),
        st.builds(
            lambda cores, memory: Part(Range(cores, 2 * cores), Range(memory, 2 * memory)), st.integers(1, 8), st.integers(1, 8)
        ),
        st.sampled_from([(), (), (StorageAsk(Range(5, 10), 10 * HOUR),)]),
        st.sampled_from([0, TICK, 2 * HOUR]),
        st.booleans(),
        st.sampled_from([("east",), ("west",), ("east", "west")]),
    ),
)
def test_over_weeks_each_slot_is_the_first_there_is(
    booked: list[tuple[Place, int, int, Amounts]], origin: int, wish: Ask
) -> None:
    timeline, oracle = long_pool(booked, origin)
    ask = replace(wish, earliest=origin + wish.earliest, latest=origin + wish.latest)
    tried, earliest = trials(oracle, ask), ask.earliest
    found = slots_of(find(timeline, ask, origin))
    for slot in found:
        assert slot.start == first_start(tried, earliest, origin)
        oracle.take(bookings_of(slot))
        assert not oracle.exceeded
        oracle.give(bookings_of(slot))
        earliest = slot.end
    if len(found) < ask.limit:
        assert first_start(tried, earliest, origin) is None


EVENING = MONDAY + 18 * HOUR
TARIFFS = [
    {"from": "19:00", "until": "19:10", "factor": 0.5},
    {"from": "20:00", "until": "06:00", "factor": 0.25},
    {"from": "18:30", "until": "18:40", "factor": 3},
]
PRICES = Prices.model_validate(
    {"zone": "UTC", "money": {"core_hour": 1, "node_hour": 0.25, "gb_day": 3, "gb_staged": 0.5, "tariffs": TARIFFS}}
)
evenings = st.lists(
    st.builds(
        lambda node, start, length, cores: Booking(
            Place("east", node), EVENING + start, EVENING + start + length, Amounts(cores)
        ),
        st.sampled_from("abc"),
        st.integers(0, 7000),
        st.integers(60, 3000),
        st.integers(1, 6),
    ),
    max_size=8,
)


@settings(max_examples=60)
@given(
    evenings,
    st.builds(
        lambda cores, more, times, start, duration, prepare, storage: Ask(
            (Part(Range(cores, cores + more), exactly(1)),) * times, storage, duration, EVENING + start, EVENING + start + 900,
            (Candidate("east", prepare, 30, staged=10**9, prices=PRICES),), 2,
        ),
        st.integers(1, 3), st.integers(0, 3), st.sampled_from([1, 1, 2]), st.integers(600, 6500), st.integers(300, 2400),
        st.integers(0, 600), st.sampled_from([(), (StorageAsk(Range(1, 2), 600),)]),
    ),
    st.floats(0.3, 1.1),
)  # fmt: skip
def test_within_a_limit_each_slot_is_the_first_that_is_affordable(bookings: list[Booking], ask: Ask, part: float) -> None:
    """To the second, where the costs change with the tariff; and what is offered does not cost more either."""
    timeline, oracle = Timeline(), Oracle({"east": CAPACITIES["east"]}, 14_000, origin=EVENING - 1000)
    timeline.set_capacity("east", CAPACITIES["east"])
    for booking in bookings:
        if oracle.has_room(booking):
            timeline.take([booking])
            oracle.take([booking])
    dearest = cost(PRICES, "money", trials(oracle, ask)[0].use(MONDAY + 12 * HOUR))
    ask = replace(ask, limits=(("money", part * dearest),))
    found = slots_of(find(timeline, ask, EVENING))
    earliest = ask.earliest
    for slot in found:
        assert slot.start == first_start(trials(oracle, ask), earliest, EVENING)
        due = cost(
            PRICES,
            "money",
            Use(
                len(slot.shares),
                sum(share.cores for share in slot.shares),
                len(slot.shares),
                (),
                slot.prepare,
                slot.start,
                slot.end,
                10**9,
                slot.storages,
            ),
        )
        assert due <= part * dearest * (1 + 1e-9)
        earliest = slot.end
    if len(found) < 2:
        assert first_start(trials(oracle, ask), earliest, EVENING) is None


def test_what_is_affordable_when_small_is_enlarged_only_within_the_limit() -> None:
    """Two cores for an hour cost 2.25 by day and 0.5625 by night, four 4.25."""
    morning = MONDAY + 7 * HOUR
    ask = an_ask(Range(2, 4), exactly(1), duration=HOUR, earliest=morning, latest=morning + DAY)
    ask = replace(ask, candidates=(Candidate("east", 0, 0, prices=PRICES),))
    timeline = Timeline()
    timeline.set_capacity("east", Capacity((Node("a", 4, 4),)))
    slots = [only(timeline, replace(ask, limits=(("money", limit),))) for limit in (4.25, 4.2, 0.6)]
    assert [slot.shares[0].cores for slot in slots] == [4, 2, 2]
    assert [slot.start for slot in slots] == [morning, morning, MONDAY + 20 * HOUR - 80]
