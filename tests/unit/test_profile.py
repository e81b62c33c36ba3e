"""The profile of a node against the plainest thing that can be right: a list with one entry for every second."""

from hypothesis import given
from hypothesis import strategies as st

from execbroker.scheduling.profile import Amounts, Profile

SECONDS = 60
CAPACITY = Amounts(8, 16, 32)

instants = st.integers(0, SECONDS)
spans = st.tuples(instants, instants).map(lambda pair: (min(pair), max(pair)))
amounts = st.builds(Amounts, st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))
holds = st.lists(st.tuples(spans, amounts), max_size=12)


class Seconds:
    """What is free in each second."""

    def __init__(self) -> None:
        self.free = [CAPACITY] * (SECONDS + 1)

    def change(self, start: int, end: int, by: Amounts) -> None:
        self.free[start:end] = [free.plus(by) for free in self.free[start:end]]

    def least(self, start: int, end: int) -> Amounts:
        here = self.free[start:end] or [self.free[start]]
        return Amounts(*(min(column) for column in zip(*here, strict=True)))


def both(taken: list[tuple[tuple[int, int], Amounts]]) -> tuple[Profile, Seconds]:
    profile, oracle = Profile(CAPACITY), Seconds()
    for (start, end), held in taken:
        profile.take(start, end, held)
        oracle.change(start, end, Amounts().minus(held))
    return profile, oracle


@given(holds, st.data())
def test_take_and_give(taken: list[tuple[tuple[int, int], Amounts]], data: st.DataObject) -> None:
    profile, oracle = both(taken)
    for (start, end), held in data.draw(st.lists(st.sampled_from(taken), unique_by=id) if taken else st.just([])):
        profile.give(start, end, held)
        oracle.change(start, end, held)
    assert [profile.least(second, second + 1) for second in range(SECONDS + 1)] == oracle.free
    assert profile.times == sorted({*profile.times})
    assert all(one != other for one, other in zip(profile.free, profile.free[1:], strict=False))


@given(holds)
def test_all_given_back_is_as_new(taken: list[tuple[tuple[int, int], Amounts]]) -> None:
    profile, _ = both(taken)
    for (start, end), held in reversed(taken):
        profile.give(start, end, held)
    assert (profile.times, profile.free) == ([0], [CAPACITY])


@given(holds, spans, amounts)
def test_least_and_blocked_until(taken: list[tuple[tuple[int, int], Amounts]], span: tuple[int, int], wanted: Amounts) -> None:
    profile, oracle = both(taken)
    start, end = span
    end = max(end, start + 1)
    assert profile.least(start, end) == oracle.least(start, end)
    blocked = profile.blocked_until(start, end, wanted)
    short = [second for second in range(start, min(end, SECONDS + 1)) if not wanted.within(oracle.free[second])]
    if not short:
        assert blocked is None
    else:
        assert blocked is not None
        assert blocked > short[-1]
        assert all(not wanted.within(oracle.free[s]) for s in range(short[-1], min(blocked, SECONDS + 1)))


@given(holds, instants, st.data())
def test_forgetting_the_past_changes_nothing_to_come(
    taken: list[tuple[tuple[int, int], Amounts]], now: int, data: st.DataObject
) -> None:
    profile, oracle = both(taken)
    profile.forget(now)
    assert len([time for time in profile.times if time < now]) <= 1
    given_back = data.draw(st.lists(st.sampled_from(taken), unique_by=id)) if taken else []
    for (start, end), held in given_back:
        profile.give(start, end, held)
        oracle.change(start, end, held)
    for (start, end), held in data.draw(holds):
        profile.take(start, end, held)
        oracle.change(start, end, Amounts().minus(held))
    assert [profile.least(second, second + 1) for second in range(now, SECONDS + 1)] == oracle.free[now:]
