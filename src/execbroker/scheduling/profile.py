"""Who holds what, when, and where something more fits. Pure: no I/O, no clock; times are whole seconds since 1970."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Row: TypeAlias = NDArray[np.int32]
"""One number for each resource."""
Times: TypeAlias = NDArray[np.int64]

NEVER = 1 << 62
_FIRST_LOOK = 1024


class Profile:
    """What is free of each of R resources over time: a step function, exact to the second.

    `free[:, i]` holds from `times[i]` until `times[i + 1]`, the last for ever, the first also before. Equal neighbours are
    one step. The arrays have room to spare, so that a step is put in by moving those after it.
    """

    def __init__(self, capacity: Row) -> None:
        self.capacity = capacity
        self.steps = 1
        self._times: Times = np.zeros(16, np.int64)
        self._free = np.repeat(capacity[:, None], 16, axis=1)

    @property
    def times(self) -> Times:
        return self._times[: self.steps]

    @property
    def free(self) -> NDArray[np.int32]:
        return self._free[:, : self.steps]

    def change(self, start: int, end: int, row: Row) -> None:
        """Add `row` to what is free during [start, end): less than nothing to hold it, more to give it back."""
        start = max(start, int(self._times[0]))
        if start < end:
            first = self._cut(start)
            last = self._cut(end)
            self._free[:, first:last] += row[:, None]
            self._join(last)
            self._join(first)

    def least(self, start: int, end: int) -> Row:
        """What is free throughout [start, end)."""
        first, last = self._at(start), int(self.times.searchsorted(end))
        found: Row = np.minimum.reduce(self._free[:, first : max(last, first + 1)], axis=1)
        return found

    def earliest(self, start: int, last: int, length: int, row: Row) -> int | None:
        """The first second in [start, last] from which `row` is free for `length` seconds."""
        first, size = self._at(start), _FIRST_LOOK
        beyond = max(int(self.times.searchsorted(last + length)), first + 1)
        while True:
            stop = min(first + size, beyond)
            begins, ends = self._gaps(start, first, stop, row)
            fits = ends - begins >= length
            index = int(fits.argmax())
            whole = stop == beyond
            if fits[index] and (whole or index < len(fits) - 1):
                found = int(begins[index])
                return found if found <= last else None
            if whole:
                return None
            size *= 8

    def windows(self, start: int, last: int, length: int, row: Row) -> list[tuple[int, int]]:
        """Every stretch of starts within [start, last] from which `row` is free for `length` seconds, both ends included."""
        first = self._at(start)
        beyond = max(int(self.times.searchsorted(last + length)), first + 1)
        begins, ends = self._gaps(start, first, beyond, row)
        latest = np.minimum(ends - length, last)
        fits = begins <= latest
        return list(zip(begins[fits].tolist(), latest[fits].tolist(), strict=True))

    def _gaps(self, start: int, first: int, stop: int, row: Row) -> tuple[Times, Times]:
        """From when to when `row` is free, from `start` on, as the steps from `first` to before `stop` tell; the last gap
        may go on beyond them."""
        short = np.zeros(stop - first, np.bool_)
        for resource, wanted in enumerate(row.tolist()):
            if wanted > 0:
                short |= self._free[resource, first:stop] < wanted
        (blocked,) = short.nonzero()
        blocked += first
        begins = np.empty(len(blocked) + 1, np.int64)
        ends = np.empty(len(blocked) + 1, np.int64)
        begins[0], ends[-1] = start, NEVER
        ends[:-1] = self._times[blocked]
        begins[1:] = self._times[blocked + 1]
        if len(blocked) and blocked[-1] == self.steps - 1:
            begins[-1] = NEVER
        if len(blocked) and blocked[0] == 0:
            ends[0] = start
        return begins, ends

    def forget(self, before: int) -> None:
        """Drop the steps that ended before `before`; what changes there from now on counts no more."""
        if index := self._at(before):
            kept = self.steps - index
            self._times[:kept] = self._times[index : self.steps]
            self._free[:, :kept] = self._free[:, index : self.steps]
            self.steps = kept

    def resize(self, capacity: Row) -> None:
        """Another capacity from now on, of more resources perhaps; what is held stays held."""
        more = len(capacity) - len(self.capacity)
        if more:
            self._free = np.concatenate([self._free, np.zeros((more, self._free.shape[1]), np.int32)])
            self.capacity = np.concatenate([self.capacity, np.zeros(more, np.int32)])
        self._free += (capacity - self.capacity)[:, None]
        self.capacity = capacity

    def clear(self) -> None:
        """Hold nothing, and know all times again."""
        self.steps = 1
        self._times[0], self._free[:, 0] = 0, self.capacity

    def load(self, starts: Times, ends: Times, rows: NDArray[np.int32]) -> None:
        """Begin again with these held and nothing else: of `rows`, an R × n array, each column during [start, end)."""
        floor = int(self._times[0])
        kept = ends > np.maximum(starts, floor)
        edges = np.concatenate([np.maximum(starts[kept], floor), ends[kept], [floor]])
        changes = np.concatenate([-rows[:, kept], rows[:, kept], np.zeros((len(rows), 1), np.int32)], axis=1)
        order = edges.argsort(kind="stable")
        edges, changes = edges[order], changes[:, order]
        free = self.capacity[:, None] + changes.cumsum(axis=1, dtype=np.int32)
        last_of_equals = np.append(edges[1:] != edges[:-1], True)
        edges, free = edges[last_of_equals], free[:, last_of_equals]
        differs = np.concatenate([[True], (free[:, 1:] != free[:, :-1]).any(axis=0)])
        self.steps = int(differs.sum())
        room = self.steps + self.steps // 4 + 16
        self._times, self._free = np.zeros(room, np.int64), np.zeros((len(rows), room), np.int32)
        self._times[: self.steps], self._free[:, : self.steps] = edges[differs], free[:, differs]

    def block_minima(self, edges: Times) -> NDArray[np.int32]:
        """What is free throughout each [edges[2i], edges[2i + 1]): a column for each."""
        edges[1::2] -= 1  # the last second of each
        index = self.times.searchsorted(edges, side="right")
        index[::2] -= 1
        np.maximum(index, 0, out=index)
        minima: NDArray[np.int32] = np.minimum.reduceat(self._free[:, : self.steps + 1], index, axis=1)[:, ::2]
        return minima

    def _at(self, time: int) -> int:
        """The index of the step that `time` is in; before all is in the first."""
        return max(int(self.times.searchsorted(time, side="right")) - 1, 0)

    def _cut(self, time: int) -> int:
        """The index of the step that begins at `time`, made where there is none."""
        index, steps = int(self.times.searchsorted(time)), self.steps
        if index == steps or self._times[index] != time:
            if steps + 2 > len(self._times):
                self._grow()
            self._times[index + 1 : steps + 1] = self._times[index:steps]
            self._free[:, index + 1 : steps + 1] = self._free[:, index:steps]
            self._times[index] = time
            self._free[:, index] = self._free[:, index - 1]
            self.steps = steps + 1
        return index

    def _join(self, index: int) -> None:
        """Make the step at `index` one with the step before it, where they are equal."""
        steps = self.steps
        if 0 < index < steps and self._free[:, index].tolist() == self._free[:, index - 1].tolist():
            self._times[index : steps - 1] = self._times[index + 1 : steps]
            self._free[:, index : steps - 1] = self._free[:, index + 1 : steps]
            self.steps = steps - 1

    def _grow(self) -> None:
        room = 2 * len(self._times)
        self._times = np.resize(self._times, room)
        free = np.zeros((len(self._free), room), np.int32)
        free[:, : self.steps] = self.free
        self._free = free
