"""The grid against the profiles that it stands in front of, and against a column of numbers for every minute."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from execbroker.model.waist import Capacity, Node
from execbroker.scheduling.amounts import Amounts
from execbroker.scheduling.grid import BLOCKS, DAYS, Grid, Sieve
from execbroker.scheduling.profile import Profile
from execbroker.scheduling.timeline import Booking, Place, Timeline

MINUTE, HOUR, DAY = 60, 3600, 86400
ORIGIN = 20_000 * DAY
END = ORIGIN + DAYS * DAY
CAPACITY = np.array([[8, 6, 4], [4, 8, 6]], np.int32)
"""Resources × nodes."""
LONG = DAYS + 5  # days that the minutes are followed for

near = st.sampled_from([ORIGIN, ORIGIN + DAY, END - DAY, END, END + DAY])
aligned = st.builds(lambda base, block, steps: base + block * steps, near, st.sampled_from(BLOCKS), st.integers(-60, 60))
instants = st.builds(
    lambda time, off: time + off,
    aligned | st.integers(ORIGIN - DAY, END + 2 * DAY),
    st.sampled_from([-1, 0, 0, 1, 60, 7 * MINUTE]),
)
minutes = instants.map(lambda time: time - time % MINUTE)
lengths = st.sampled_from([1, 299, 300, 600, 900, 1800, HOUR - 1, HOUR, 4 * HOUR, 14500, DAY, 3 * DAY, 40 * DAY]) | st.integers(
    1, 2 * DAY
)
rows = st.tuples(st.integers(0, 3), st.integers(0, 3)).map(lambda amounts: np.array(amounts, np.int32))
nodes = st.integers(0, CAPACITY.shape[1] - 1)
changes = st.tuples(st.just("change"), nodes, instants, lengths, rows.flatmap(lambda row: st.sampled_from([row, -row])))
sizes = st.tuples(st.just("resize"), nodes, rows)
shifts = st.tuples(st.just("shift"), st.sampled_from([1, 24, 25, 24 * 31, 24 * DAYS, 24 * DAYS + 1, 24 * 100]))
actions = st.lists(changes | changes | changes | sizes | shifts, max_size=12)


def profiles_and_grid() -> tuple[list[Profile], Grid]:
    profiles = [Profile(column.copy()) for column in CAPACITY.T]
    return profiles, fresh(profiles, ORIGIN)


def fresh(profiles: list[Profile], origin: int) -> Grid:
    grid = Grid(len(CAPACITY), len(profiles), origin)
    for node, profile in enumerate(profiles):
        grid.fill(node, profile)
    return grid


def same(one: Grid, other: Grid) -> bool:
    return one.origin == other.origin and all(np.array_equal(one.levels[block], other.levels[block]) for block in BLOCKS)


def change(profile: Profile, grid: Grid, node: int, start: int, end: int, row: Any) -> None:
    profile.change(start, end, row)
    grid.change(node, profile, start, end, row)


@given(actions)
def test_after_any_changes_it_is_as_filled_anew(done: list[tuple[Any, ...]]) -> None:
    profiles, grid = profiles_and_grid()
    for action, *given_to in done:
        if action == "change":
            node, start, length, row = given_to
            change(profiles[node], grid, node, start, start + length, row)
        elif action == "resize":
            node, row = given_to
            profiles[node].resize(profiles[node].capacity + row)
            grid.resize(node, row)
        else:
            grid.shift(grid.origin + given_to[0] * HOUR, profiles)
    assert same(grid, fresh(profiles, grid.origin))


class Minutes:
    """What is free on each node in each minute since a day before the origin."""

    def __init__(self) -> None:
        self.free = np.repeat(CAPACITY.T[:, :, None].astype(np.int64), (LONG + 1) * 1440, axis=2)

    def index(self, time: int) -> int:
        return max((time - ORIGIN + DAY) // MINUTE, 0)

    def change(self, node: int, start: int, end: int, row: Any) -> None:
        self.free[node, :, self.index(start) : self.index(end)] += row[:, None]

    def minima(self, block: int) -> NDArray[np.int64]:
        known = self.free[:, :, 1440 : (DAYS + 1) * 1440]
        minima: NDArray[np.int64] = known.reshape(*known.shape[:2], -1, block // MINUTE).min(axis=3)
        return minima.transpose(1, 2, 0)

    def first(self, node: int, start: int, last: int, length: int, row: Any) -> int | None:
        """The first time from `start` to `last` at which there is room: what is free changes on whole minutes only."""
        enough = np.asarray((self.free[node] >= row[:, None]).all(axis=0))
        for begin in [start, *range(start - start % MINUTE + MINUTE, last + 1, MINUTE)]:
            if enough[self.index(begin) : self.index(begin + length - 1) + 1].all():
                return int(begin)
        return None


held = st.lists(st.tuples(nodes, minutes, lengths.map(lambda length: -(-length // MINUTE) * MINUTE), rows), max_size=15)


def pool(taken: list[tuple[int, int, int, Any]]) -> tuple[list[Profile], Grid, Minutes]:
    (profiles, grid), free = profiles_and_grid(), Minutes()
    for node, start, length, row in taken:
        change(profiles[node], grid, node, start, start + length, -row)
        free.change(node, start, min(start + length, ORIGIN + LONG * DAY), -row)
    return profiles, grid, free


@given(held)
def test_each_block_is_the_least_of_its_minutes(taken: list[tuple[int, int, int, Any]]) -> None:
    _, grid, free = pool(taken)
    assert all(np.array_equal(grid.levels[block], free.minima(block)) for block in BLOCKS)


wanted = st.lists(st.integers(0, 8), min_size=2, max_size=2).map(lambda amounts: np.array(amounts, np.int32))
spans = st.sampled_from([0, 1, 299, 300, HOUR, 5 * HOUR, DAY, 2 * DAY])


@settings(max_examples=300)
@given(
    held, wanted, instants, spans, lengths.filter(lambda length: length <= DAY), st.lists(st.booleans(), min_size=3, max_size=3)
)
def test_no_node_with_room_is_left_out_or_comes_late(
    taken: list[tuple[int, int, int, Any]], row: Any, start: int, span: int, length: int, able: list[bool]
) -> None:
    _, grid, free = pool(taken)
    last = start + span
    sieve = Sieve(grid, row, np.array(able), length)
    found = list(sieve.candidates(start, last))
    times = [time for time, _ in found]
    assert times == sorted(times)
    assert all(time >= start for time in times)
    by_node = {node: time for time, node in found}
    assert len(by_node) == len(found)
    assert all(able[node] for node in by_node)
    for node in range(3):
        first = free.first(node, start, last, length, row) if able[node] else None
        if first is not None:
            assert by_node.get(node, last + 1) <= first
    assert list(sieve.candidates(start, last)) == found, "what was worked out stays as it was"


@given(held, wanted, instants, st.integers(0, 3 * DAY), lengths)
def test_a_later_start_is_as_one_asked_anew(
    taken: list[tuple[int, int, int, Any]], row: Any, start: int, later: int, length: int
) -> None:
    _, grid, _ = pool(taken)
    able = np.ones(3, np.bool_)
    used = Sieve(grid, row, able, length)
    assert len(list(used.candidates(start, start + DAY))) <= 3
    again = list(used.candidates(start + later, start + later + DAY))
    assert again == list(Sieve(grid, row, able, length).candidates(start + later, start + later + DAY))


@settings(max_examples=200)
@given(instants.filter(lambda time: time > ORIGIN), lengths, st.integers(0, 2 * HOUR), st.integers(0, 2 * HOUR))
def test_a_gap_that_is_just_long_enough_is_found(gap: int, length: int, before: int, after: int) -> None:
    """All else is booked, on every node; and on one no more is wanted than there is."""
    profiles, grid = profiles_and_grid()
    for node in range(3):
        change(profiles[node], grid, node, ORIGIN - DAY, gap, -CAPACITY[:, node])
        change(profiles[node], grid, node, gap + length, END + 99 * DAY, -CAPACITY[:, node])
    sieve = Sieve(grid, CAPACITY[:, 0], np.array([True, False, False]), length)
    ((time, node),) = sieve.candidates(gap - before, gap + after)
    assert node == 0
    assert time <= gap


def test_it_rules_out_what_has_no_room() -> None:
    """A filter that lets all pass would be right as well, but no use."""
    profiles, grid = profiles_and_grid()
    for node, until in enumerate([ORIGIN + 20 * DAY, ORIGIN + 10 * DAY, END + DAY]):
        change(profiles[node], grid, node, ORIGIN, until, -CAPACITY[:, node])
    able = np.ones(3, np.bool_)
    found = list(Sieve(grid, np.array([1, 1], np.int32), able, 2 * HOUR).candidates(ORIGIN, END - DAY))
    assert [node for _, node in found] == [1, 0]
    assert all(0 <= end - time < HOUR for (time, _), end in zip(found, (ORIGIN + 10 * DAY, ORIGIN + 20 * DAY), strict=True))
    beyond = list(Sieve(grid, np.array([1, 1], np.int32), able, 2 * HOUR).candidates(ORIGIN, END + 2 * DAY))
    assert [node for _, node in beyond] == [1, 0, 2]
    assert beyond[-1][0] <= END + DAY


bookings = st.builds(
    lambda node, start, length, amounts: Booking(Place("site", node), start, start + length, amounts),
    st.sampled_from(["a", "b"]),
    instants,
    lengths,
    st.tuples(st.integers(1, 2), st.integers(0, 2)).map(lambda pair: Amounts(*pair)),
)


@given(st.lists(st.tuples(st.lists(bookings, max_size=4), st.integers(1, 3 * DAY)), max_size=6), st.data())
def test_as_time_goes_by_what_is_to_come_is_as_filled_anew(days: list[tuple[list[Booking], int]], data: st.DataObject) -> None:
    """Of the past, what is before the last forgetting, nothing is asked any more."""
    timeline, now, taken = Timeline(), ORIGIN, list[Booking]()
    timeline.set_capacity("site", Capacity((Node("a", 50, 50), Node("b", 60, 60))))
    for more, gone in days:
        timeline.take(more)
        taken += more
        now += gone
        timeline.forget(now)
        for booking in data.draw(st.lists(st.sampled_from(taken), unique_by=id, max_size=2)) if taken else []:
            timeline.give([booking])
            taken = [one for one in taken if one is not booking]
        site = timeline.site("site")
        expected = Grid(len(site.kinds), 2, site.grid.origin)
        for node, profile in enumerate(site.profiles):
            expected.fill(node, profile)
        for block in BLOCKS:
            first = -((site.grid.origin - now) // block)
            assert np.array_equal(site.grid.levels[block][:, first:], expected.levels[block][:, first:])
    timeline.give(taken)
    assert [timeline.least(Place("site", name), now, END + 99 * DAY).cores for name in ("a", "b")] == [50, 60]
