"""The search against every start of a short horizon, tried one by one; what slots hold, second by second."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC
from itertools import permutations, product
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from execbroker.model.prices import Calendar, Tariff
from execbroker.model.waist import Capacity, Flavour, Node, Share, Slot
from execbroker.scheduling.amounts import NOTHING, Amounts
from execbroker.scheduling.asks import Ask, Candidate, Part, Range, StorageAsk
from execbroker.scheduling.fitting import matching
from execbroker.scheduling.intervals import covered
from execbroker.scheduling.objectives import Choice, find
from execbroker.scheduling.timeline import SHARED, Booking, Kept, Place, Timeline, bookings_of
from oracle import Oracle, first_start, sizes_of, trials

HORIZON = 60
TICKS = 200
NOW = 5
CAPACITIES = {
    "east": Capacity(
        (Node("a", 4, 4, 6, (("a100", 2),)), Node("b", 6, 3, 9), Node("c", 3, 5, 2, (("a100", 1), ("l4", 2)))),
        pools=(("idl", 2), ("staging", 10)),
    ),
    "west": Capacity((Node("d", 5, 8), Node("e", 5, 8, 0, (("l4", 1),))), pools=(("casa", 3), ("idl", 1), ("storage", 9))),
    "sizes": Capacity(
        (Node("f", 8, 8, 5, (("l4", 1),)), Node("g", 4, 8, 5)),
        flavours=(Flavour("s", 1, 2), Flavour("m", 2, 4), Flavour("x", 2, 4, (("l4", 1),)), Flavour("l", 4, 8)),
    ),
    "halves": Capacity((Node("h", 6, 6, 4, (("l4", 2),)), Node("i", 4, 4, 4))),
}
ALWAYS = Kept(0.5, Calendar(UTC, (Tariff.model_validate({"from": "00:00", "until": "24:00", "factor": 2}),)))
KINDS = ("a100", "l4", "h100")


def amount_range(most: int) -> st.SearchStrategy[Range]:
    """As it is made of a request: at most twice the least, or a requested maximum below that."""

    def up_to(low: int) -> st.SearchStrategy[Range]:
        capped = st.integers(low, 2 * low).map(lambda high: Range(low, high, high))
        return st.just(Range(low, 2 * low)) | capped

    return st.integers(1, most).flatmap(up_to)


accelerators = st.dictionaries(st.sampled_from(KINDS), amount_range(2), max_size=1).map(
    lambda found: tuple(sorted(found.items()))
)
parts = st.builds(Part, amount_range(3), amount_range(3), accelerators | st.just(()))
licences = st.sampled_from(
    [(), (), (), (), (), (), (("idl", 1),), (("casa", 2), ("idl", 1)), (("idl", 2),), (("idl", 3),), (("none", 1),)]
)
candidates = st.builds(
    Candidate,
    st.sampled_from([*sorted(CAPACITIES), "halves"]),
    st.integers(0, 8),
    st.integers(0, 4),
    staging=st.sampled_from([0, 4, 7, 100]),
)


def some_asks(parts: st.SearchStrategy[tuple[Part, ...]]) -> st.SearchStrategy[Ask]:
    return st.builds(
        Ask,
        parts=parts,
        storages=st.lists(st.builds(StorageAsk, amount_range(3), st.integers(0, 20)), max_size=2).map(tuple),
        duration=st.integers(1, 15),
        earliest=st.integers(NOW, 30),
        latest=st.integers(20, HORIZON),
        candidates=st.lists(candidates, min_size=2, max_size=3, unique_by=lambda one: one.platform).map(tuple),
        limit=st.sampled_from([1, 2, 4, 4]),
        licences=licences,
        batch=st.booleans(),
    )


for_one_node = some_asks(st.tuples(parts))
replicas = st.builds(lambda part, times: (part,) * times, parts, st.integers(2, 3))
for_several_nodes = some_asks(replicas | st.lists(parts, min_size=2, max_size=3).map(tuple))
asks = for_one_node | for_several_nodes

places = [Place(platform, name) for platform, capacity in CAPACITIES.items() for name in sizes_of(capacity)]


def held_at(place: Place) -> st.SearchStrategy[Booking]:
    sizes = sizes_of(CAPACITIES[place.platform])[place.node]
    counts = {kind: st.integers(0, most) for kind, most in sizes.items() if kind not in ("cores", "memory", "storage")}
    amounts = st.builds(
        lambda cores, memory, storage, counts: Amounts(
            cores, memory, storage, tuple(sorted(pair for pair in counts.items() if pair[1]))
        ),
        *(st.integers(0, sizes.get(kind, 0)) for kind in ("cores", "memory", "storage")),
        st.fixed_dictionaries(counts),
    )
    return st.builds(
        lambda start, length, amounts: Booking(place, start, start + length, amounts),
        st.integers(0, HORIZON),
        st.integers(1, 30),
        amounts,
    )


bookings = st.sampled_from(places).flatmap(held_at)
held = st.lists(bookings, max_size=10) | st.lists(bookings, min_size=10, max_size=30)


def pool(bookings: Iterable[Booking], tick: int = 1) -> tuple[Timeline, Oracle]:
    """A timeline on which as many of these are held as fit, and what is free on it."""
    timeline, oracle = Timeline(), Oracle(CAPACITIES, TICKS, tick, guarded=["halves"])
    for name, capacity in CAPACITIES.items():
        timeline.set_capacity(name, capacity, [ALWAYS] if name == "halves" else [])
    for node in CAPACITIES["halves"].nodes:
        for kind in ("cores", "memory", "l4"):
            free = oracle.free[Place("halves", node.name)]
            free[f"batch {kind}"] += free[kind] // 2
    for booking in bookings:
        if booking.amounts != NOTHING and oracle.has_room(booking):
            timeline.take([booking])
            oracle.take([booking])
    return timeline, oracle


def slots_of(choices: Iterable[Choice]) -> list[Slot]:
    return [choice.slot for choice in choices]


def chosen(ask: Ask, slot: Slot) -> Candidate:
    return next(one for one in ask.candidates if one.platform == slot.platform)


def follows_the_oracle(oracle: Oracle, ask: Ask, slots: list[Slot]) -> None:
    """Each slot is at the first start there is after the one before it, and there is none after the last."""
    tried, earliest = trials(oracle, ask), ask.earliest
    for slot in slots:
        assert slot.start == first_start(tried, earliest, NOW)
        earliest = slot.end
    assert len(slots) <= ask.limit
    if len(slots) < ask.limit:
        assert first_start(tried, earliest, NOW) is None


@settings(max_examples=150)
@given(held, for_one_node)
def test_on_one_node_each_slot_is_the_first_there_is(bookings: list[Booking], ask: Ask) -> None:
    timeline, oracle = pool(bookings)
    slots = slots_of(find(timeline, ask, NOW))
    follows_the_oracle(oracle, ask, slots)
    for slot in slots:
        fits = [
            (trial, fit)
            for trial in trials(oracle, ask)
            for fit in trial.fits(slot.start)
            if slot.start - NOW >= trial.candidate.prepare
        ]
        assert (slot.shares[0].cores, slot.shares[0].memory) == max(trial.largest_on(fit) for trial, fit in fits)


@settings(max_examples=100)
@given(held, for_several_nodes)
def test_on_several_nodes_each_slot_is_the_first_there_is(bookings: list[Booking], ask: Ask) -> None:
    timeline, oracle = pool(bookings)
    follows_the_oracle(oracle, ask, slots_of(find(timeline, ask, NOW)))


@settings(max_examples=150)
@given(held, asks)
def test_every_slot_meets_the_request_and_really_fits(bookings: list[Booking], ask: Ask) -> None:
    timeline, oracle = pool(bookings)
    for slot in slots_of(find(timeline, ask, NOW)):
        candidate = chosen(ask, slot)
        assert ask.earliest <= slot.start <= ask.latest
        assert NOW <= slot.prepare == slot.start - candidate.prepare
        assert (slot.end - slot.start, slot.done - slot.end) == (ask.duration, candidate.release)
        assert len({share.node for share in slot.shares}) == len(slot.shares) == len(ask.parts)
        for share, part in zip(slot.shares, ask.parts, strict=True):
            meets(share, part, slot.platform)
        for one, other in zip(range(len(ask.parts)), range(1, len(ask.parts)), strict=False):
            if ask.parts[one] == ask.parts[other]:
                assert replace(slot.shares[one], node="") == replace(slot.shares[other], node="")
        for (size, until), asked in zip(slot.storages, ask.storages, strict=True):
            assert asked.size.min <= size <= asked.size.max
            assert until == slot.done + asked.lifetime
        assert slot.licences == ask.licences
        assert slot.batch == (ask.batch and slot.platform == "halves")
        oracle.take(bookings_of(slot))
        assert not oracle.exceeded
        oracle.give(bookings_of(slot))


def meets(share: Share, part: Part, platform: str) -> None:
    accelerators, wanted = dict(share.accelerators), dict(part.accelerators)
    amounts = [(share.cores, part.cores), (share.memory, part.memory)]
    amounts += [(accelerators.get(kind, 0), count) for kind, count in wanted.items()]
    assert all(asked.min <= amount <= asked.cap for amount, asked in amounts)
    if platform == "sizes":
        assert Flavour(share.flavour or "", share.cores, share.memory, share.accelerators) in CAPACITIES["sizes"].flavours
    else:
        assert all(amount <= asked.max for amount, asked in amounts)
        assert accelerators.keys() == wanted.keys()


@settings(max_examples=100)
@given(held, asks)
def test_nothing_that_is_free_is_left_out_below_the_maximum(bookings: list[Booking], ask: Ask) -> None:
    """Nothing of a slot could be one larger, or of all equal parts at once, unless it is what was asked for at most."""
    timeline, oracle = pool(bookings)
    for slot in slots_of(find(timeline, ask, NOW)):
        for larger in enlarged(ask, slot):
            oracle.take(bookings_of(larger))
            assert oracle.exceeded, larger
            oracle.give(bookings_of(larger))


def enlarged(ask: Ask, slot: Slot) -> Iterable[Slot]:
    if slot.platform != "sizes":
        for part in set(ask.parts):
            for more in ("cores", "memory", *(kind for kind, _ in part.accelerators)):
                shares = [
                    grown(share, one, more) if one == part else share for share, one in zip(slot.shares, ask.parts, strict=True)
                ]
                if shares != list(slot.shares):
                    yield replace(slot, shares=tuple(shares))
    if len(slot.storages) == 1 and slot.storages[0][0] < ask.storages[0].size.max:
        ((size, until),) = slot.storages
        yield replace(slot, storages=((size + 1, until),))


def grown(share: Share, part: Part, more: str) -> Share:
    has, most = (
        Amounts(share.cores, share.memory, 0, share.accelerators),
        {"cores": part.cores, "memory": part.memory, **dict(part.accelerators)},
    )
    if has.of(more) == most[more].max:
        return share
    if more == "cores":
        return replace(share, cores=share.cores + 1)
    if more == "memory":
        return replace(share, memory=share.memory + 1)
    return replace(share, accelerators=tuple((kind, count + (kind == more)) for kind, count in share.accelerators))


@given(st.lists(st.lists(st.integers(0, 4), unique=True, max_size=4), max_size=4))
def test_a_matching_is_found_where_there_is_one(choices: list[list[int]]) -> None:
    found = matching(choices)
    possible = [nodes for nodes in product(*choices) if len(set(nodes)) == len(nodes)]
    assert (found is None) == (not possible)
    assert found is None or tuple(found) in possible


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 8)).map(lambda pair: (pair[0], pair[0] + pair[1]))), st.integers(1, 3)
)
def test_where_so_many_stretches_overlap(stretches: list[tuple[int, int]], times: int) -> None:
    found = covered(stretches, times)
    seconds = [second for first, last in found for second in range(first, last + 1)]
    assert seconds == [second for second in range(40) if sum(first <= second <= last for first, last in stretches) >= times]


def exactly(amount: int) -> Range:
    return Range(amount, amount, amount)


def an_ask(cores: Range, memory: Range, platform: str = "east", prepare: int = 0, **more: Any) -> Ask:
    values = {"storages": (), "duration": 10, "earliest": NOW, "latest": 100, "limit": 1, **more}
    return Ask(parts=(Part(cores, memory),), candidates=(Candidate(platform, prepare, 0),), **values)


def only(timeline: Timeline, ask: Ask) -> Slot:
    (choice,) = find(timeline, ask, NOW)
    return choice.slot


def test_at_the_same_start_the_larger_is_offered_then_the_platform_named_first() -> None:
    ask = replace(an_ask(Range(2, 4), Range(2, 4)), candidates=(Candidate("east", 0, 0), Candidate("west", 0, 0)))
    slot = only(pool([])[0], ask)
    assert (slot.node, slot.shares[0].cores, slot.shares[0].memory) == ("a", 4, 4)
    slot = only(pool([Booking(Place("east", "a"), 0, 50, Amounts(1))])[0], ask)
    assert (slot.platform, slot.shares[0].cores, slot.shares[0].memory) == ("west", 4, 4)


def test_storage_is_enlarged_only_as_far_as_it_can_be_kept() -> None:
    """Five of the six GiB are another's just after the end: until then two would fit, for as long as they are kept but one."""
    ask = an_ask(exactly(1), exactly(1), storages=(StorageAsk(Range(1, 2), 20),))
    later = [Booking(Place("east", "a"), 20, 30, Amounts(storage=5))]
    later += [Booking(Place("east", node), 0, 50, Amounts(cores=cores)) for node, cores in (("b", 6), ("c", 3))]
    slot = only(pool(later)[0], ask)
    assert (slot.node, slot.start, slot.storages) == ("a", NOW, ((1, NOW + 30),))
    briefly = replace(ask, storages=(StorageAsk(Range(1, 2), 5),))
    assert only(pool(later)[0], briefly).storages == ((2, NOW + 15),)


def test_of_several_storages_each_counts_for_as_long_as_it_is_kept() -> None:
    storages = (StorageAsk(Range(2, 4), 0), StorageAsk(Range(2, 4), 20))
    full = [Booking(Place("east", node), 0, 50, Amounts(cores=cores)) for node, cores in (("b", 6), ("c", 3))]
    assert only(pool(full)[0], an_ask(exactly(1), exactly(1), storages=storages)).storages == ((4, NOW + 10), (2, NOW + 30))


def test_data_is_staged_at_the_rate_that_is_left() -> None:
    ask = replace(an_ask(exactly(1), exactly(1)), candidates=(Candidate("east", 8, 0, staging=7),))
    busy = [Booking(Place("east", SHARED), 0, 20, Amounts(counts=(("staging", 4),)))]
    assert only(pool([])[0], ask).start == NOW + 8
    assert only(pool(busy)[0], ask).start == 28
    everything = replace(ask, candidates=(Candidate("east", 8, 0, staging=10_000),))
    slot = only(pool(busy)[0], everything)
    assert (slot.start, slot.staging) == (28, 10)


def test_a_flavour_is_never_above_what_was_expressly_asked_for_at_most() -> None:
    timeline, _ = pool([])
    assert only(timeline, an_ask(Range(3, 6), Range(3, 6), "sizes")).shares[0].flavour == "l"
    assert not find(timeline, an_ask(Range(3, 3, 3), Range(3, 6), "sizes"), NOW)
    assert only(timeline, an_ask(Range(1, 2, 2), Range(2, 2, 2), "sizes")).shares[0].flavour == "s"


def test_unequal_parts_have_each_its_own_node() -> None:
    """Whatever their order: the accelerator is on the node of the one that wants it."""
    plain, fast = Part(exactly(1), exactly(1)), Part(exactly(1), exactly(1), (("l4", exactly(1)),))
    for parts in permutations([plain, plain, fast]):
        slot = only(pool([])[0], replace(an_ask(exactly(1), exactly(1)), parts=parts))
        assert [share.node == "c" for share in slot.shares] == [part == fast for part in parts]


def test_a_pool_of_none_is_no_pool() -> None:
    timeline = Timeline()
    timeline.set_capacity("east", Capacity((Node("a", 1, 1),), pools=(("idl", 0), ("staging", 0))))
    ask = replace(an_ask(exactly(1), exactly(1)), candidates=(Candidate("east", 8, 0, staging=7),))
    assert (only(timeline, ask).start, only(timeline, ask).staging) == (NOW + 8, 0)
    assert not find(timeline, replace(ask, licences=(("idl", 1),)), NOW)


def test_unequal_parts_wait_until_there_are_nodes_enough() -> None:
    """At first only `c` has room for either of them; until 30 `a` is another's, and `b` for longer."""
    ask = replace(an_ask(exactly(1), exactly(1)), parts=(Part(exactly(2), exactly(1)), Part(exactly(1), exactly(4))))
    busy = [Booking(Place("east", "a"), 0, 30, Amounts(4)), Booking(Place("east", "b"), 0, 50, Amounts(6))]
    slot = only(pool(busy)[0], ask)
    assert (slot.start, {share.node for share in slot.shares}) == (30, {"a", "c"})


def test_storage_that_is_kept_for_less_long_is_in_the_way_for_less_long() -> None:
    storages = (StorageAsk(exactly(3), 0), StorageAsk(exactly(3), 20))
    full = [Booking(Place("east", node), 0, 50, Amounts(cores=cores)) for node, cores in (("b", 6), ("c", 3))]
    ask = an_ask(exactly(1), exactly(1), storages=storages)
    assert only(pool([*full, Booking(Place("east", "a"), 15, 30, Amounts(storage=3))])[0], ask).start == NOW
    assert only(pool([*full, Booking(Place("east", "a"), 14, 30, Amounts(storage=3))])[0], ask).start == 30
