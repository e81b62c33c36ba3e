"""The profile of a node against the plainest thing that can be right: a column of numbers for every second."""

from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from execbroker.scheduling.profile import NEVER, Profile

SECONDS = 60
CAPACITY = np.array([8, 16, 4], np.int32)

instants = st.integers(0, SECONDS)
spans = st.tuples(instants, instants).map(lambda pair: (min(pair), max(pair)))
rows = st.lists(st.integers(0, 4), min_size=3, max_size=3).map(lambda amounts: np.array(amounts, np.int32))
holds = st.lists(st.tuples(spans, rows), max_size=12)
many_holds = st.lists(st.tuples(spans, rows), min_size=13, max_size=40)
Held = list[tuple[tuple[int, int], Any]]


def both(taken: Held) -> tuple[Profile, NDArray[np.int64]]:
    """A profile, and what is free in each second, of which the last goes on for ever."""
    profile, free = Profile(CAPACITY), np.repeat(CAPACITY[:, None].astype(np.int64), SECONDS + 1, axis=1)
    for (start, end), row in taken:
        profile.change(start, end, -row)
        free[:, start:end] -= row[:, None]
    return profile, free


def steps(profile: Profile) -> list[tuple[int, tuple[int, ...]]]:
    return [(int(time), tuple(free)) for time, free in zip(profile.times, profile.free.T.tolist(), strict=True)]


def seconds(profile: Profile) -> NDArray[np.int32]:
    return np.stack([profile.least(second, second + 1) for second in range(SECONDS + 1)], axis=1)


def columns(taken: Held) -> tuple[Any, Any, Any]:
    starts, ends = np.array([span for span, _ in taken], np.int64).reshape(-1, 2).T
    return starts, ends, np.array([row for _, row in taken], np.int32).reshape(-1, 3).T


def starts_at_which_it_fits(free: NDArray[np.int64], start: int, last: int, length: int, row: Any) -> list[int]:
    enough = (free >= row[:, None])[row > 0].all(axis=0)
    enough = np.append(enough, np.full(last + length, enough[-1]))
    return [second for second in range(start, last + 1) if enough[second : second + length].all()]


@given(holds | many_holds, st.data())
def test_take_and_give(taken: Held, data: st.DataObject) -> None:
    profile, free = both(taken)
    for (start, end), row in data.draw(st.lists(st.sampled_from(taken), unique_by=id)) if taken else []:
        profile.change(start, end, row)
        free[:, start:end] += row[:, None]
    assert np.array_equal(seconds(profile), free)
    assert profile.times.tolist() == sorted({*profile.times.tolist()})
    assert (profile.free[:, 1:] != profile.free[:, :-1]).any(axis=0).all(), "neighbours that are equal are one step"


@given(holds | many_holds, st.randoms(use_true_random=False))
def test_all_given_back_is_as_new(taken: Held, random: Any) -> None:
    profile, _ = both(taken)
    random.shuffle(taken)
    for (start, end), row in taken:
        profile.change(start, end, row)
    assert steps(profile) == [(0, tuple(CAPACITY.tolist()))]


@given(holds, st.integers(-5, SECONDS + 5), st.integers(0, 70))
def test_the_least_of_a_span(taken: Held, start: int, length: int) -> None:
    profile, free = both(taken)
    whole = np.concatenate([np.repeat(free[:, :1], 5, axis=1), free, np.repeat(free[:, -1:], 80, axis=1)], axis=1)
    expected = whole[:, start + 5 : start + 5 + max(length, 1)].min(axis=1)
    assert profile.least(start, start + length).tolist() == expected.tolist()


@settings(max_examples=400)
@given(holds | many_holds, instants, instants, st.integers(1, 30), rows)
def test_the_first_fit_and_all_fits(taken: Held, start: int, last: int, length: int, row: Any) -> None:
    profile, free = both(taken)
    expected = starts_at_which_it_fits(free, start, last, length, row)
    assert profile.earliest(start, last, length, row) == next(iter(expected), None)
    found = profile.windows(start, last, length, row)
    assert [second for first, final in found for second in range(first, final + 1)] == expected
    assert all(one[1] + 1 < other[0] for one, other in pairwise(found)), "each stretch is whole"


def test_what_is_before_the_first_step_is_as_that_step() -> None:
    profile = Profile(CAPACITY)
    profile.change(0, 50, -CAPACITY)
    profile.forget(20)
    assert profile.earliest(-30, -20, 5, CAPACITY) is None
    assert profile.windows(-30, -20, 5, CAPACITY) == []
    assert profile.earliest(-30, 60, 5, CAPACITY) == 50


def test_of_thousands_of_steps_the_last_is_found() -> None:
    """More than are looked at at once, several times over."""
    profile = Profile(CAPACITY)
    starts = np.arange(0, 100_000, 4)
    profile.load(starts, starts + 3, np.repeat(CAPACITY[:, None], len(starts), axis=1))
    assert profile.steps == 2 * len(starts)
    for first in (0, 1, 40_000, 99_990):
        assert profile.earliest(first, 200_000, 1, CAPACITY) == first + (3 - first) % 4
        assert profile.earliest(first, 200_000, 2, CAPACITY) == 99_999
    assert profile.earliest(0, 99_998, 2, CAPACITY) is None
    profile.change(99_999, 1 << 40, -CAPACITY)
    assert profile.earliest(0, 1 << 41, 2, CAPACITY) == 1 << 40
    profile.change(1 << 40, NEVER, -CAPACITY)
    assert profile.earliest(0, 1 << 41, 2, CAPACITY) is None


@given(holds, instants, st.data())
def test_forgetting_the_past_changes_nothing_to_come(taken: Held, now: int, data: st.DataObject) -> None:
    profile, free = both(taken)
    profile.forget(now)
    assert (profile.times < now).sum() <= 1
    for (start, end), row in data.draw(st.lists(st.sampled_from(taken), unique_by=id)) if taken else []:
        profile.change(start, end, row)
        free[:, start:end] += row[:, None]
    for (start, end), row in data.draw(holds):
        profile.change(start, end, -row)
        free[:, start:end] -= row[:, None]
    assert np.array_equal(seconds(profile)[:, now:], free[:, now:])


@given(holds, instants, rows, st.integers(0, 2), holds)
def test_another_capacity_leaves_what_is_held(taken: Held, now: int, row: Any, kinds: int, later: Held) -> None:
    profile, free = both(taken)
    profile.forget(now)
    profile.resize(np.append(CAPACITY - row, np.full(kinds, 3)).astype(np.int32))
    assert np.array_equal(seconds(profile)[:3, now:], (free - row[:, None])[:, now:])
    assert (profile.free[3:] == 3).all()
    for (start, end), more in later:
        profile.change(start, end, np.append(more, np.full(kinds, -1)).astype(np.int32))
        profile.change(start, end, np.append(-more, np.full(kinds, 1)).astype(np.int32))
    assert np.array_equal(seconds(profile)[:3, now:], (free - row[:, None])[:, now:])
    profile.resize(np.append(CAPACITY, np.zeros(kinds)).astype(np.int32))
    assert np.array_equal(seconds(profile)[:3, now:], free[:, now:])


@given(holds, st.none() | instants, holds, holds)
def test_loaded_is_as_if_changed_one_by_one(before: Held, forgotten: int | None, held: Held, later: Held) -> None:
    profile, _ = both(before)
    one_by_one, _ = both([])
    if forgotten is not None:
        profile.forget(forgotten)
    floor = int(profile.times[0])
    profile.load(*columns(held))
    for (start, end), row in held:
        one_by_one.change(max(start, floor), max(end, floor), -row)
    for (start, end), row in later:
        profile.change(start, end, -row)
        one_by_one.change(max(start, floor), max(end, floor), -row)
    assert (profile.times[0], steps(profile)[1:]) == (floor, [step for step in steps(one_by_one) if step[0] > floor])
    assert np.array_equal(seconds(profile)[:, floor:], seconds(one_by_one)[:, floor:])


@given(holds, st.integers(-10, 70), st.integers(1, 20), st.integers(1, 5))
def test_the_least_of_blocks(taken: Held, origin: int, block: int, blocks: int) -> None:
    profile, _ = both(taken)
    edges = np.repeat(origin + block * np.arange(blocks + 1), 2)[1:-1]
    expected = [profile.least(int(begin), int(begin) + block).tolist() for begin in edges[::2]]
    assert profile.block_minima(edges.copy()).T.tolist() == expected
    scattered = np.concatenate([edges[::-1].reshape(-1, 2)[:, ::-1].ravel(), edges])
    assert profile.block_minima(scattered).T.tolist() == expected[::-1] + expected
