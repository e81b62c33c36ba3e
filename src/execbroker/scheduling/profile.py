from bisect import bisect_left, bisect_right
from typing import NamedTuple


class Amounts(NamedTuple):
    """Whole cores, memory and storage in GiB."""

    cores: int = 0
    memory: int = 0
    storage: int = 0

    def plus(self, other: "Amounts") -> "Amounts":
        return Amounts(self.cores + other.cores, self.memory + other.memory, self.storage + other.storage)

    def minus(self, other: "Amounts") -> "Amounts":
        return Amounts(self.cores - other.cores, self.memory - other.memory, self.storage - other.storage)

    def within(self, other: "Amounts") -> bool:
        return self.cores <= other.cores and self.memory <= other.memory and self.storage <= other.storage

    def smallest(self, other: "Amounts") -> "Amounts":
        return Amounts(min(self.cores, other.cores), min(self.memory, other.memory), min(self.storage, other.storage))

    def largest(self, other: "Amounts") -> "Amounts":
        return Amounts(max(self.cores, other.cores), max(self.memory, other.memory), max(self.storage, other.storage))


NOTHING = Amounts()


class Profile:
    """What is free on one node over time: a step function, exact to the second.

    `free[i]` holds from `times[i]` until `times[i + 1]`, the last for ever, the first also before.
    """

    def __init__(self, capacity: Amounts) -> None:
        self.capacity = capacity
        self.times = [0]
        self.free = [capacity]

    def take(self, start: int, end: int, amounts: Amounts) -> None:
        """Hold `amounts` during [start, end)."""
        self._change(start, end, NOTHING.minus(amounts))

    def give(self, start: int, end: int, amounts: Amounts) -> None:
        """Give back what `take` with the same arguments held."""
        self._change(start, end, amounts)

    def least(self, start: int, end: int) -> Amounts:
        """What is free throughout [start, end)."""
        index = self._at(start)
        found = self.free[index]
        while (index := index + 1) < len(self.times) and self.times[index] < end:
            found = found.smallest(self.free[index])
        return found

    def blocked_until(self, start: int, end: int, amounts: Amounts) -> int | None:
        """When the last shortage inside [start, end) is over; None where `amounts` fit throughout."""
        first = self._at(start)
        for index in range(bisect_left(self.times, end, first + 1) - 1, first - 1, -1):
            if not amounts.within(self.free[index]):
                return self.times[index + 1] if index + 1 < len(self.times) else _NEVER
        return None

    def forget(self, before: int) -> None:
        """Drop the steps that ended before `before`; what is taken or given there from now on counts no more."""
        if index := self._at(before):
            del self.times[:index], self.free[:index]

    def _change(self, start: int, end: int, amounts: Amounts) -> None:
        start = max(start, self.times[0])
        if start < end:
            first = self._cut(start)
            for index in range(first, self._cut(end)):
                self.free[index] = self.free[index].plus(amounts)
            self._join(start, end)

    def _at(self, time: int) -> int:
        """The index of the step that `time` is in; before all is in the first."""
        return max(bisect_right(self.times, time) - 1, 0)

    def _cut(self, time: int) -> int:
        """The index of the step that begins at `time`, made where there is none."""
        index = bisect_left(self.times, time)
        if index == len(self.times) or self.times[index] != time:
            self.times.insert(index, time)
            self.free.insert(index, self.free[index - 1])
        return index

    def _join(self, start: int, end: int) -> None:
        """Merge equal neighbours around what has changed, so that the profile is as short as it can be."""
        for time in (end, start):
            index = bisect_left(self.times, time)
            if 0 < index < len(self.times) and self.free[index] == self.free[index - 1]:
                del self.times[index], self.free[index]


_NEVER = 1 << 62
