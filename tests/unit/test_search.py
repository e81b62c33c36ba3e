"""The search against every start of a short horizon, tried one by one; what slots hold, second by second."""

import math
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC
from itertools import pairwise, product
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from execbroker.model.prices import Calendar, Prices, Tariff
from execbroker.model.waist import Capacity, Flavour, Node, Share, Slot
from execbroker.scheduling.amounts import NOTHING, Amounts
from execbroker.scheduling.asks import Ask, Candidate, Part, Range, StorageAsk
from execbroker.scheduling.objectives import Choice, find
from execbroker.scheduling.quotes import Use, cost
from execbroker.scheduling.search import covered, matching
from execbroker.scheduling.timeline import SHARED, Booking, Kept, Place, Timeline, bookings_of, combine, envelope
from oracle import Oracle, first_start, size_of, sizes_of, trials

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
licences = st.sampled_from([(), (), (), (), (), (), (("idl", 1),), (("casa", 2), ("idl", 1)), (("idl", 2),), (("idl", 3),), (("none", 1),)])
candidates = st.builds(
    Candidate, st.sampled_from([*sorted(CAPACITIES), "halves"]), st.integers(0, 8), st.integers(0, 4), staging=st.sampled_from([0, 4, 7, 100])
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


def pool(bookings: Iterable[Booking]) -> tuple[Timeline, Oracle]:
    """A timeline on which as many of these are held as fit, and what is free on it."""
    timeline, oracle = Timeline(), Oracle(CAPACITIES, TICKS, guarded=["halves"])
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


@settings(max_examples=300)
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


@settings(max_examples=200)
@given(held, for_several_nodes)
def test_on_several_nodes_each_slot_is_the_first_there_is(bookings: list[Booking], ask: Ask) -> None:
    timeline, oracle = pool(bookings)
    follows_the_oracle(oracle, ask, slots_of(find(timeline, ask, NOW)))


@settings(max_examples=300)
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


@settings(max_examples=150)
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
    if more in ("cores", "memory"):
        return replace(share, **{more: has.of(more) + 1})
    return replace(share, accelerators=tuple((kind, count + (kind == more)) for kind, count in share.accelerators))


@settings(max_examples=150)
@given(held, st.lists(asks, max_size=4), st.randoms(use_true_random=False), st.booleans())
def test_sets_held_by_their_envelopes_never_exceed_anything(
    bookings: list[Booking],
    requests: list[Ask],
    random: "st.random.Random",
    mixed: bool,  # type: ignore[name-defined]
) -> None:
    timeline, oracle = pool(bookings)
    envelopes = []
    for ask in requests:
        wish = replace(ask, limit=6, longest=3 * ask.duration, objectives=MIXTURE) if mixed else ask
        envelopes.append(envelope(slots_of(find(timeline, wish, NOW))))
        timeline.take(envelopes[-1])
        oracle.take(envelopes[-1])
        assert not oracle.exceeded
    random.shuffle(envelopes)
    for pieces in envelopes:
        timeline.give(pieces)
    assert state(timeline) == state(pool(bookings)[0])


MIXTURE = ("longest", "earliest", "largest", "cheapest")


def state(timeline: Timeline) -> dict[Place, tuple[list[int], list[list[int]]]]:
    """The steps of every place."""
    return {
        Place(name, node): (site.profile(node).times.tolist(), site.profile(node).free.tolist())
        for name, site in timeline.sites.items()
        for node in (SHARED, *site.nodes)
    }


@given(held, asks)
def test_begun_again_with_the_same_bookings_is_the_same(bookings: list[Booking], ask: Ask) -> None:
    timeline, oracle = pool([])
    kept = [booking for booking in bookings if oracle.has_room(booking)]
    timeline.take(kept[::-1])
    again, _ = pool(bookings)
    again.rebuild(kept)
    assert state(again) == state(timeline)
    assert find(again, ask, NOW) == find(timeline, ask, NOW)
    timeline.give(kept)
    again.give(kept)
    assert state(again) == state(timeline) == state(pool([])[0])


names = ("a", "b", "c", "z")
sizes = st.builds(Node, st.sampled_from(names), st.integers(1, 6), st.integers(1, 6), st.integers(0, 4), st.sampled_from([(), (("a100", 2),), (("h100", 1),)]))
capacities = st.builds(
    Capacity,
    st.lists(sizes, max_size=4, unique_by=lambda node: node.name).map(tuple),
    pools=st.sampled_from([(), (("idl", 2),), (("idl", 0), ("staging", 0)), (("storage", 5),), (("casa", 1), ("staging", 9))]),
)
anywhere = st.builds(
    lambda node, start, length, amounts: Booking(Place("east", node), start, start + length, amounts),
    st.sampled_from([*names, SHARED]),
    st.integers(0, HORIZON),
    st.integers(1, 30),
    st.tuples(*[st.integers(0, 3)] * 3, st.sampled_from([(), (("a100", 1),), (("idl", 1),), (("h100", 1), ("l4", 1))])).map(
        lambda amounts: Amounts(*amounts)
    ),
)
one_platform = asks.map(lambda ask: replace(ask, candidates=(replace(ask.candidates[0], platform="east"),)))


@settings(max_examples=200)
@given(st.lists(st.tuples(capacities, st.lists(anywhere, max_size=4)), min_size=1, max_size=4), one_platform)
def test_nodes_that_come_grow_shrink_and_go(story: list[tuple[Capacity, list[Booking]]], ask: Ask) -> None:
    """What is booked on a node stays booked, even where it was never known or is gone; what is left is what is offered."""
    timeline, taken = Timeline(), list[Booking]()
    for capacity, more in story:
        timeline.set_capacity("east", capacity)
        timeline.take(more)
        taken += more
        oracle = Oracle({"east": capacity}, TICKS)
        oracle.take(taken)
        slots = slots_of(find(timeline, ask, NOW))
        follows_the_oracle(oracle, ask, slots)
        for slot in slots:
            before = {place: {kind: free.copy() for kind, free in kinds.items()} for place, kinds in oracle.free.items()}
            oracle.take(bookings_of(slot))
            for place, kinds in oracle.free.items():
                for kind, free in kinds.items():
                    was = before.get(place, {}).get(kind, free)
                    assert ((free >= 0) | (free == was)).all()
            oracle.give(bookings_of(slot))
    again = Timeline()
    again.set_capacity("east", story[-1][0])
    again.rebuild(taken)
    follows_the_oracle(oracle, ask, slots_of(find(again, ask, NOW)))
    assert oracle.agrees_with(again)
    assert oracle.agrees_with(timeline)


slots = st.lists(
    st.builds(
        lambda platform, names, times, sizes, storages, more: Slot(
            platform,
            tuple(Share(name, *size) for name, size in zip(names, sizes, strict=False)),
            *sorted(times),
            tuple((size, max(times) + lifetime) for size, lifetime in storages),
            *more,
        ),
        st.sampled_from(["east", "west"]),
        st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True),
        st.tuples(*[st.integers(0, 40)] * 4),
        st.lists(
            st.tuples(st.integers(1, 4), st.integers(1, 4), st.sampled_from([(), (("a100", 2),), (("a100", 1), ("l4", 1))])),
            min_size=3,
            max_size=3,
        ),
        st.lists(st.tuples(st.integers(1, 4), st.integers(0, 20)), max_size=3),
        st.tuples(st.booleans(), st.sampled_from([(), (("idl", 2),)]), st.integers(0, 5), st.booleans()),
    ),
    max_size=4,
)


def held_by(slot: Slot, node: str, second: int) -> Amounts:
    """Straight from what a slot says of itself."""
    found = NOTHING
    begun = slot.prepare <= second
    if begun and second < slot.done:
        for share in slot.shares:
            counts = dict(share.accelerators)
            if slot.batch:
                counts |= {"batch cores": share.cores, "batch memory": share.memory}
                counts |= {f"batch {kind}": count for kind, count in share.accelerators}
            if share.node == node:
                found = found.plus(Amounts(share.cores, share.memory, 0, tuple(sorted(counts.items()))))
        found = found.plus(Amounts(counts=slot.licences)) if node == SHARED else found
    if begun and second < slot.start and node == SHARED:
        found = found.plus(Amounts(counts=(("staging", slot.staging),)))
    if node == (SHARED if slot.pooled else slot.node):
        found = found.plus(Amounts(storage=sum(size for size, until in slot.storages if begun and second < until)))
    return found


def at(pieces: Iterable[Booking], place: Place, second: int) -> Amounts:
    found = NOTHING
    for piece in pieces:
        if piece.place == place and piece.start <= second < piece.end:
            found = found.plus(piece.amounts)
    return found


def disjoint(pieces: list[Booking]) -> bool:
    ordered = sorted(pieces)
    return all(one.place != other.place or one.end <= other.start for one, other in pairwise(ordered))


@given(slots)
def test_bookings_and_envelope_are_what_they_say_in_every_second(slots: list[Slot]) -> None:
    together = envelope(slots)
    assert disjoint(together)
    everywhere = [Place(platform, node) for platform in ("east", "west") for node in ("a", "b", "c", SHARED)]
    for slot in slots:
        pieces = bookings_of(slot)
        assert disjoint(pieces)
        for place in everywhere:
            mine = slot.platform == place.platform
            for second in range(65):
                assert at(pieces, place, second) == (held_by(slot, place.node, second) if mine else NOTHING)
    for place in everywhere:
        for second in range(65):
            most = NOTHING
            for slot in slots:
                most = most.largest(held_by(slot, place.node, second)) if slot.platform == place.platform else most
            assert at(together, place, second) == most


@given(held)
def test_combine_adds_up(bookings: list[Booking]) -> None:
    combined = combine(bookings, Amounts.plus)
    assert disjoint(combined)
    assert all(piece.start < piece.end and piece.amounts != NOTHING for piece in combined)
    for place in places:
        assert all(at(combined, place, second) == at(bookings, place, second) for second in range(HORIZON + 31))


@given(st.lists(st.lists(st.integers(0, 4), unique=True, max_size=4), max_size=4))
def test_a_matching_is_found_where_there_is_one(choices: list[list[int]]) -> None:
    found = matching(choices)
    possible = [nodes for nodes in product(*choices) if len(set(nodes)) == len(nodes)]
    assert (found is None) == (not possible)
    assert found is None or tuple(found) in possible


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 8)).map(lambda pair: (pair[0], pair[0] + pair[1]))), st.integers(1, 3))
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


DAY, HOUR, QUARTER = 86400, 3600, 900
MONDAY = 20_003 * DAY
TICK = 300
OFFICE = Kept(0.6, Calendar(UTC, (Tariff.model_validate({"from": "08:00", "until": "18:00", "days": ["mon", "tue", "fri"], "factor": 0}),)))
LONG = {"east": Capacity((Node("a", 8, 8, 20), Node("b", 5, 10, 20), Node("c", 8, 6))), "west": Capacity((Node("d", 8, 8, 40), Node("e", 5, 5)))}
far = st.sampled_from([0, DAY, 31 * DAY, 32 * DAY, 33 * DAY])
steps = st.integers(-100, 300).map(lambda step: step * TICK)
moments = st.builds(lambda base, step: max(base + step, 0), far, steps)
stays = st.sampled_from([TICK, 2 * TICK, 3 * TICK, QUARTER, HOUR, 4 * HOUR - TICK, 4 * HOUR, 5 * HOUR, DAY, 30 * DAY]) | st.integers(1, 100).map(
    lambda step: step * TICK
)
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
            (part,), storage, duration, start, start + span, tuple(Candidate(name, prepare, TICK) for name in platforms), 3, batch=batch
        ),
        moments,
        st.sampled_from([0, HOUR, 5 * HOUR, DAY]),
        st.sampled_from([TICK, 2 * TICK, 3 * TICK, 4 * TICK, QUARTER, HOUR, 4 * HOUR, 20 * HOUR, 3 * DAY]),
        st.builds(lambda cores, memory: Part(Range(cores, 2 * cores), Range(memory, 2 * memory)), st.integers(1, 8), st.integers(1, 8)),
        st.sampled_from([(), (), (StorageAsk(Range(5, 10), 10 * HOUR),)]),
        st.sampled_from([0, TICK, 2 * HOUR]),
        st.booleans(),
        st.sampled_from([("east",), ("west",), ("east", "west")]),
    ),
)
def test_over_weeks_each_slot_is_the_first_there_is(booked: list[tuple[Place, int, int, Amounts]], origin: int, wish: Ask) -> None:
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
TARIFFS = [{"from": "19:00", "until": "19:10", "factor": 0.5}, {"from": "20:00", "until": "06:00", "factor": 0.25}, {"from": "18:30", "until": "18:40", "factor": 3}]
PRICES = Prices.model_validate({"zone": "UTC", "money": {"core_hour": 1, "node_hour": 0.25, "gb_day": 3, "gb_staged": 0.5, "tariffs": TARIFFS}})
evenings = st.lists(
    st.builds(
        lambda node, start, length, cores: Booking(Place("east", node), EVENING + start, EVENING + start + length, Amounts(cores)),
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
        due = cost(PRICES, "money", Use(len(slot.shares), sum(share.cores for share in slot.shares), len(slot.shares), (), slot.prepare, slot.start, slot.end, 10**9, slot.storages))
        assert due <= part * dearest * (1 + 1e-9)
        earliest = slot.end
    if len(found) < 2:
        assert first_start(trials(oracle, ask), earliest, EVENING) is None


def test_what_is_affordable_when_small_is_enlarged_only_within_the_limit() -> None:
    ask = replace(an_ask(Range(2, 4), exactly(1)), candidates=(Candidate("east", 0, 0, prices=PRICES),), duration=HOUR, earliest=MONDAY, latest=MONDAY + DAY)
    timeline, _ = pool([])
    assert only(timeline, replace(ask, limits=(("money", 4.25),))).shares[0].cores == 4
    assert only(timeline, replace(ask, limits=(("money", 4.2),))).shares[0].cores == 2
    cheaper = only(timeline, replace(ask, limits=(("money", 0.6),)))
    assert cheaper.start == MONDAY + 20 * HOUR - 60 if False else cheaper.start > MONDAY + 18 * HOUR
