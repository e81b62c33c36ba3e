from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from execbroker.scheduling.profile import Profile, Row

DAYS = 32
BLOCKS = (3600, 900, 300)  # seconds
_FEW, _MANY = 48, 384  # blocks
_WORTH = 4  # of so many blocks at least two in a row are whole: fewer rule too little out

Flags = NDArray[np.bool_]


class Grid:
    """For each node of a platform, the least that is free of each resource within every aligned block of time.

    A filter in front of the profiles: a window of `length` seconds holds at least `length // block - 1` whole blocks, one
    after the other, and where less is free in one of them than is wanted, no profile has to be looked at. Beyond `DAYS` from
    `origin` nothing is known, and anything possible.
    """

    def __init__(self, resources: int, nodes: int, origin: int) -> None:
        self.origin = origin
        self.levels = {
            block: np.zeros((resources, DAYS * 86400 // block, nodes), np.int32)  # by time first: a search reads in order
            for block in BLOCKS
        }

    def fill(self, node: int, profile: Profile, since: int = 0) -> None:
        """Read a node's profile anew, from `since` on."""
        for block, level in self.levels.items():
            skipped = max((since - self.origin) // block, 0)
            edges = np.repeat(self.origin + block * np.arange(skipped, level.shape[1] + 1), 2)[1:-1]
            if len(edges):
                level[:, skipped:, node] = profile.block_minima(edges)

    def change(self, node: int, profile: Profile, start: int, end: int, row: Row) -> None:
        """Follow a change of a profile that has taken place: blocks within it change alike, those at its edges are read."""
        start, end = max(start - self.origin, 0), end - self.origin
        if start >= end:
            return
        edges: list[int] = []
        added, ends = row[:, None], end - 1
        for block, level in self.levels.items():
            first, last = start // block, ends // block
            if last - first > 1:
                level[:, first + 1 : last, node] += added
            for edge in (first, last):
                begin = self.origin + edge * block
                edges += (begin, begin + block)
        minima = profile.block_minima(np.array(edges))
        column = 0
        for block, level in self.levels.items():
            for edge in (start // block, ends // block):
                if edge < level.shape[1]:
                    level[:, edge, node] = minima[:, column]
                column += 1

    def resize(self, node: int, change: Row) -> None:
        """Follow a change of a node's capacity."""
        for level in self.levels.values():
            level[:, :, node] += change[:, None]

    def shift(self, origin: int, profiles: list[Profile]) -> None:
        """Begin later: at `origin`, whole hours after the present one."""
        by = origin - self.origin
        for block, level in self.levels.items():
            blocks = min(by // block, level.shape[1])
            level[:, : level.shape[1] - blocks] = level[:, blocks:].copy()
        self.origin = origin
        for node, profile in enumerate(profiles):
            self.fill(node, profile, origin + DAYS * 86400 - by)


class Sieve:
    """What the grid says of one wish: that `row` be free for `length` seconds. It keeps what it has worked out, for a later
    start of the same wish."""

    def __init__(self, grid: Grid, row: Row, nodes: Flags, length: int) -> None:
        self._grid, self._nodes = grid, nodes
        self._wanted = [(resource, amount) for resource, amount in enumerate(row.tolist()) if amount > 0]
        self._block = next((block for block in BLOCKS if length >= _WORTH * block), BLOCKS[-1] if length >= 2 * BLOCKS[-1] else 0)
        self._run = length // self._block - 1 if self._block else 0
        self._chunks: list[tuple[int, Flags]] = []

    def candidates(self, start: int, last: int) -> Iterator[tuple[int, int]]:
        """Nodes on which it may be free from a time in [start, last]: each once, with the first such time, in that order."""
        grid, block = self._grid, self._block
        if not self._nodes.any():
            return
        if not block or start < grid.origin or not self._wanted:
            yield from ((start, int(node)) for node in self._nodes.nonzero()[0])
            return
        known = grid.levels[block].shape[1] - self._run + 1  # runs that begin here or later are not
        first = min(-((grid.origin - start) // block), known)
        final = min((last - grid.origin) // block + 1, known - 1)
        left, index = self._nodes.copy(), 0
        if self._chunks and first < self._chunks[0][0]:
            self._chunks.clear()
        while first <= final:
            begin, flags = self._chunk(index, first, known)
            index += 1
            if first >= begin + len(flags):
                continue
            flags = flags[first - begin :] & left
            flat, position = flags.reshape(-1), 0
            while flat[position := position + int(flat[position:].argmax())]:
                at, node = divmod(position, len(left))
                yield max(start, grid.origin + (first + at - 1) * block + 1), node
                flags[:, node] = left[node] = False
            first += len(flags)
        if final == known - 1:
            at = max(start, grid.origin + (known - 1) * block + 1)
            yield from ((at, int(node)) for node in left.nonzero()[0])

    def _chunk(self, index: int, first: int, known: int) -> tuple[int, Flags]:
        """A block, and which of the blocks from there on begin a run of blocks that all have enough: blocks × nodes. The first
        chunk begins at `first`, each other where the one before it ends; they grow, as most wishes are fulfilled soon."""
        if index == len(self._chunks):
            begin = first if not index else self._chunks[-1][0] + len(self._chunks[-1][1])
            blocks = slice(begin, min(begin + min(_FEW << index, _MANY), known) + self._run - 1)
            level, flags = self._grid.levels[self._block], None
            for resource, amount in self._wanted:
                enough = level[resource, blocks] >= amount
                flags = enough if flags is None else np.logical_and(flags, enough, out=flags)
            assert flags is not None
            length = 1
            while length < self._run:
                step = min(length, self._run - length)
                flags = flags[:-step] & flags[step:]
                length += step
            self._chunks.append((begin, flags))
        return self._chunks[index]
