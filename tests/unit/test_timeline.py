"""What is held, second by second: sets by their envelopes, nodes that come and go, and pools of a real size."""

import os
import sys
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_search import HORIZON, NOW, TICKS, asks, exactly, follows_the_oracle, held, places, pool, slots_of

from execbroker.model.waist import Capacity, Node, Share, Slot
from execbroker.scheduling.amounts import NOTHING, Amounts, counts_of
from execbroker.scheduling.asks import Ask, Candidate, Part, StorageAsk
from execbroker.scheduling.objectives import find
from execbroker.scheduling.timeline import SHARED, Booking, Place, Timeline, bookings_of, combine, envelope
from oracle import Oracle

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import packed


@settings(max_examples=80)
@given(held, st.lists(asks, max_size=4), st.randoms(use_true_random=False), st.booleans())
def test_sets_held_by_their_envelopes_never_exceed_anything(
    bookings: list[Booking], requests: list[Ask], random: Random, mixed: bool
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


@settings(max_examples=50)
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
sizes = st.builds(
    Node,
    st.sampled_from(names),
    st.integers(1, 6),
    st.integers(1, 6),
    st.integers(0, 4),
    st.sampled_from([(), (("a100", 2),), (("h100", 1),)]),
)
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


@settings(max_examples=100)
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


def a_slot(platform: str, shares: Iterable[Share], times: list[int], kept: list[tuple[int, int]], **more: Any) -> Slot:
    prepare, start, end, done = sorted(times)
    storages = tuple((size, done + lifetime) for size, lifetime in kept)
    return Slot(platform, tuple(shares), prepare, start, end, done, storages, **more)


slots = st.lists(
    st.builds(
        a_slot,
        st.sampled_from(["east", "west"]),
        st.lists(
            st.builds(
                Share,
                st.sampled_from("abc"),
                st.integers(1, 4),
                st.integers(1, 4),
                st.sampled_from([(), (("a100", 2),), (("a100", 1), ("l4", 1))]),
            ),
            min_size=1,
            max_size=3,
            unique_by=lambda share: share.node,
        ),
        st.lists(st.integers(0, 40), min_size=4, max_size=4),
        st.lists(st.tuples(st.integers(1, 4), st.integers(0, 20)), max_size=3),
        pooled=st.booleans(),
        licences=st.sampled_from([(), (("idl", 2),)]),
        staging=st.integers(0, 5),
        batch=st.booleans(),
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


@pytest.mark.parametrize("name", ["packed-1-10000", "packed-100-10000", "packed-100-100000"])
def test_the_shared_workloads_have_their_exact_answers(name: str) -> None:
    path = Path(__file__).parents[3] / "shared" / "bench" / f"{name}.npz"
    if not path.exists():
        what = f"{path} is missing: the pools come with the project's benchmarks, and `benchmarks/packed.py` makes such pools"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(what)
    workload = packed.load(path)
    timeline = Timeline()
    timeline.set_capacity("pool", Capacity(tuple(node_of(index, size) for index, size in enumerate(workload.capacity.tolist()))))
    columns = (workload.node, workload.start, workload.duration, workload.demand)
    timeline.rebuild(booking_of(*row) for row in zip(*(column.tolist() for column in columns), strict=True))
    asks = zip(workload.ask_demand.tolist(), workload.ask_duration.tolist(), workload.ask_from.tolist(), strict=True)
    for (demand, duration, since), expected in zip(asks, workload.answer_start.tolist(), strict=True):
        slots = slots_of(find(timeline, ask_of(demand, duration, since), since))
        assert [slot.start for slot in slots] + [-1] * (4 - len(slots)) == expected
        pieces = envelope(slots)
        timeline.take(pieces)
        assert all(min(timeline.least(piece.place, piece.start, piece.end)[:3]) >= 0 for piece in pieces)
        timeline.give(pieces)


def node_of(index: int, size: list[int]) -> Node:
    cores, memory, accelerators, scratch = size
    return Node(str(index), cores, memory, scratch, (("gpu", accelerators),))


def booking_of(node: int, start: int, duration: int, demand: list[int]) -> Booking:
    cores, memory, accelerators, scratch = demand
    amounts = Amounts(cores, memory, scratch, counts_of([("gpu", accelerators)]))
    return Booking(Place("pool", str(node)), start, start + duration, amounts)


def ask_of(demand: list[int], duration: int, since: int) -> Ask:
    cores, memory, accelerators, scratch = demand
    part = Part(exactly(cores), exactly(memory), (("gpu", exactly(accelerators)),) if accelerators else ())
    storages = (StorageAsk(exactly(scratch), 0),) if scratch else ()
    return Ask((part,), storages, duration, since, 1 << 35, (Candidate("pool", 0, 0),), 4)
