"""The search against brute force over every second of a short horizon; what slots hold, pointwise."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from execbroker.model.waist import Node, Slot
from execbroker.scheduling.profile import Amounts
from execbroker.scheduling.refusal import why_not
from execbroker.scheduling.search import Ask, Candidate, Range, StorageAsk, find
from execbroker.scheduling.timeline import Booking, Place, Timeline, bookings_of, combine, envelope

HORIZON = 80
NODES = {"fast": (Node("a", 4, 4, 6), Node("b", 6, 3, 9)), "slow": (Node("c", 5, 8, 4),)}
PLACES = {
    Place(name, node.name): Amounts(node.cores, node.memory, node.storage) for name, nodes in NODES.items() for node in nodes
}


def amount_range(most: int) -> st.SearchStrategy[Range]:
    """As the desk makes it: at most twice the least, or a requested maximum below that."""
    return st.integers(1, most).flatmap(lambda low: st.integers(low, 2 * low).map(lambda high: Range(low, high)))


asks = st.builds(
    Ask,
    cores=amount_range(5),
    memory=amount_range(5),
    storages=st.lists(st.builds(StorageAsk, amount_range(4), st.integers(0, 20)), max_size=3).map(tuple),
    duration=st.integers(1, 15),
    earliest=st.integers(5, 30),
    latest=st.integers(20, HORIZON),
    candidates=st.lists(
        st.builds(Candidate, st.sampled_from(sorted(NODES)), st.integers(0, 8), st.integers(0, 4)),
        max_size=2,
        unique_by=lambda candidate: candidate.platform,
    ).map(tuple),
    limit=st.integers(1, 4),
)
held = st.lists(
    st.builds(
        lambda place, start, length, amounts: Booking(place, start, start + length, amounts),
        st.sampled_from(sorted(PLACES)),
        st.integers(0, HORIZON),
        st.integers(1, 30),
        st.builds(Amounts, st.integers(0, 3), st.integers(0, 3), st.integers(0, 4)),
    ),
    max_size=12,
)
NOW = 5


def timeline_of(bookings: Iterable[Booking]) -> Timeline:
    """A timeline on which as many of these are held as fit."""
    timeline = Timeline()
    for name, nodes in NODES.items():
        timeline.set_capacity(name, nodes)
    for booking in bookings:
        if booking.amounts.within(timeline.profiles[booking.place].least(booking.start, booking.end)):
            timeline.take([booking])
    return timeline


def free_at(timeline: Timeline, place: Place, second: int) -> Amounts:
    return timeline.profiles[place].least(second, second + 1)


def at(pieces: Iterable[Booking], place: Place, second: int) -> Amounts:
    """What these hold together of a node in one second."""
    found = Amounts()
    for piece in pieces:
        if piece.place == place and piece.start <= second < piece.end:
            found = found.plus(piece.amounts)
    return found


def wanted_at(ask: Ask, candidate: Candidate, start: int, second: int) -> Amounts:
    """What a session of the least size that starts at `start` has in one second: straight from what was asked."""
    done = start + ask.duration + candidate.release
    begun = second >= start - candidate.prepare
    storage = sum(one.size.min for one in ask.storages if begun and second < done + one.lifetime)
    running = begun and second < done
    return Amounts(ask.cores.min if running else 0, ask.memory.min if running else 0, storage)


def fits(timeline: Timeline, ask: Ask, candidate: Candidate, place: Place, start: int) -> bool:
    last = start + ask.duration + candidate.release + max((one.lifetime for one in ask.storages), default=0)
    return all(
        wanted_at(ask, candidate, start, second).within(free_at(timeline, place, second))
        for second in range(start - candidate.prepare, last)
    )


def first_start(timeline: Timeline, ask: Ask, earliest: int) -> int | None:
    """The first second within the range at which any candidate could start, tried one by one."""
    return next(
        (
            start
            for start in range(earliest, ask.latest + 1)
            for candidate in ask.candidates
            if start >= NOW + candidate.prepare
            for place in PLACES
            if place.platform == candidate.platform and fits(timeline, ask, candidate, place, start)
        ),
        None,
    )


@settings(max_examples=150)
@given(held, asks)
def test_each_slot_is_the_first_there_is(bookings: list[Booking], ask: Ask) -> None:
    timeline = timeline_of(bookings)
    slots = find(timeline, ask, NOW)
    earliest = ask.earliest
    for slot in slots:
        assert slot.start == first_start(timeline, ask, earliest)
        earliest = slot.end
    assert len(slots) <= ask.limit
    if len(slots) < ask.limit:
        assert first_start(timeline, ask, earliest) is None
    if not slots and ask.candidates:
        assert all(
            message.level == "ERROR" and message.values and message.values["path"] for message in why_not(timeline, ask, NODES)
        )
        assert why_not(timeline, ask, NODES)


@settings(max_examples=150)
@given(held, asks)
def test_every_slot_meets_the_request_and_really_fits(bookings: list[Booking], ask: Ask) -> None:
    timeline = timeline_of(bookings)
    slots = find(timeline, ask, NOW)
    for slot in slots:
        candidate = next(one for one in ask.candidates if one.platform == slot.platform)
        assert ask.earliest <= slot.start <= ask.latest
        assert NOW <= slot.prepare == slot.start - candidate.prepare
        assert (slot.end - slot.start, slot.done - slot.end) == (ask.duration, candidate.release)
        assert ask.cores.min <= slot.cores <= ask.cores.max
        assert ask.memory.min <= slot.memory <= ask.memory.max
        for (size, until), asked in zip(slot.storages, ask.storages, strict=True):
            assert asked.size.min <= size <= asked.size.max
            assert until == slot.done + asked.lifetime
        alone = timeline_of(bookings)
        alone.take(bookings_of(slot))
        assert all(Amounts().within(free) for profile in alone.profiles.values() for free in profile.free)


@settings(max_examples=150)
@given(held, st.lists(asks, max_size=4))
def test_sets_held_by_their_envelopes_never_exceed_a_node(bookings: list[Booking], requests: list[Ask]) -> None:
    timeline = timeline_of(bookings)
    envelopes = []
    for ask in requests:
        envelopes.append(envelope(find(timeline, ask, NOW)))
        timeline.take(envelopes[-1])
        assert all(Amounts().within(free) for profile in timeline.profiles.values() for free in profile.free)
    for pieces in envelopes:
        timeline.give(pieces)
    assert [profile.free for profile in timeline.profiles.values()] == [
        profile.free for profile in timeline_of(bookings).profiles.values()
    ]


@settings(max_examples=150)
@given(held, asks)
def test_what_is_free_is_offered_up_to_the_maximum(bookings: list[Booking], ask: Ask) -> None:
    """None of cores, memory or the storage kept longest could be one larger, unless it is what was asked for at most."""
    timeline = timeline_of(bookings)
    for slot in find(timeline, ask, NOW):
        larger = [replace(slot, cores=slot.cores + 1)] if slot.cores < ask.cores.max else []
        larger += [replace(slot, memory=slot.memory + 1)] if slot.memory < ask.memory.max else []
        for index, (size, until) in enumerate(slot.storages):
            if size < ask.storages[index].size.max and len(slot.storages) == 1:
                larger.append(replace(slot, storages=((size + 1, until),)))
        for one in larger:
            timeline.take(bookings_of(one))
            assert not all(Amounts().within(free) for profile in timeline.profiles.values() for free in profile.free)
            timeline.give(bookings_of(one))


slots_of = st.lists(
    st.builds(
        lambda place, times, cores, memory, storages: Slot(
            *place, *sorted(times), cores, memory, tuple((size, max(times) + lifetime) for size, lifetime in storages)
        ),
        st.sampled_from(sorted(PLACES)),
        st.tuples(*[st.integers(0, 40)] * 4),
        st.integers(1, 4),
        st.integers(1, 4),
        st.lists(st.tuples(st.integers(1, 4), st.integers(0, 20)), max_size=3),
    ),
    max_size=4,
)


def held_by(slot: Slot, second: int) -> Amounts:
    running = slot.prepare <= second < slot.done
    storage = sum(size for size, until in slot.storages if slot.prepare <= second < until)
    return Amounts(slot.cores if running else 0, slot.memory if running else 0, storage)


def disjoint(pieces: list[Booking]) -> bool:
    ordered = sorted(pieces)
    return all(a.place != b.place or a.end <= b.start for a, b in pairwise(ordered))


@given(slots_of)
def test_bookings_and_envelope_are_what_they_say_in_every_second(slots: list[Slot]) -> None:
    together = envelope(slots)
    assert disjoint(together)
    for slot in slots:
        pieces = bookings_of(slot)
        assert disjoint(pieces)
        place = Place(slot.platform, slot.node)
        assert all(at(pieces, place, second) == held_by(slot, second) for second in range(70))
    for place in PLACES:
        here = [slot for slot in slots if (slot.platform, slot.node) == place]
        for second in range(70):
            most = Amounts()
            for slot in here:
                most = most.largest(held_by(slot, second))
            assert at(together, place, second) == most


@given(held)
def test_combine_adds_up(bookings: list[Booking]) -> None:
    combined = combine(bookings, Amounts.plus)
    assert disjoint(combined)
    assert all(piece.start < piece.end and piece.amounts != Amounts() for piece in combined)
    for place in PLACES:
        assert all(at(combined, place, second) == at(bookings, place, second) for second in range(HORIZON + 31))


def test_at_the_same_start_the_larger_is_offered_then_the_platform_named_first() -> None:
    ask = Ask(Range(2, 4), Range(2, 4), (), 10, NOW, 100, (Candidate("fast", 0, 0), Candidate("slow", 0, 0)), 1)
    (slot,) = find(timeline_of([]), ask, NOW)
    assert (slot.platform, slot.node, slot.cores, slot.memory) == ("fast", "a", 4, 4)
    (slot,) = find(timeline_of([Booking(Place("fast", "a"), 0, 50, Amounts(1))]), ask, NOW)
    assert (slot.platform, slot.node, slot.cores, slot.memory) == ("slow", "c", 4, 4)


def test_a_node_that_is_lost_keeps_what_is_booked_and_gives_no_more() -> None:
    ask = Ask(Range(1, 2), Range(1, 2), (), 10, NOW, 100, (Candidate("slow", 0, 0),), 1)
    timeline = timeline_of([])
    (slot,) = find(timeline, ask, NOW)
    timeline.take(bookings_of(slot))
    timeline.set_capacity("slow", [])
    assert find(timeline, ask, NOW) == []
    timeline.set_capacity("slow", NODES["slow"])
    assert timeline.profiles[Place("slow", "c")].least(slot.start, slot.end) == Amounts(5 - slot.cores, 8 - slot.memory, 4)


def test_storage_is_enlarged_only_as_far_as_it_can_be_kept() -> None:
    """Five of the six GiB are another's just after the end: until then two would fit, for as long as they are kept but one."""
    ask = Ask(Range(1, 1), Range(1, 1), (StorageAsk(Range(1, 2), 20),), 10, NOW, 100, (Candidate("fast", 0, 0),), 1)
    later = [Booking(Place("fast", "a"), 20, 30, Amounts(storage=5)), Booking(Place("fast", "b"), 0, 50, Amounts(cores=6))]
    (slot,) = find(timeline_of(later), ask, NOW)
    assert (slot.node, slot.start, slot.storages) == ("a", NOW, ((1, NOW + 30),))
    briefly = replace(ask, storages=(StorageAsk(Range(1, 2), 5),))
    assert find(timeline_of(later), briefly, NOW)[0].storages == ((2, NOW + 15),)


def test_of_several_storages_each_counts_for_as_long_as_it_is_kept() -> None:
    storages = (StorageAsk(Range(2, 4), 0), StorageAsk(Range(2, 4), 20))
    ask = Ask(Range(1, 1), Range(1, 1), storages, 10, NOW, 100, (Candidate("fast", 0, 0),), 1)
    full = Booking(Place("fast", "b"), 0, 50, Amounts(cores=6))
    (slot,) = find(timeline_of([full]), ask, NOW)
    assert slot.storages == ((4, NOW + 10), (2, NOW + 30))
