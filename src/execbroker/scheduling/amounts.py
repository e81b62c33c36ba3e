from collections.abc import Callable, Iterable
from typing import NamedTuple

from execbroker.model.waist import Counts


class Amounts(NamedTuple):
    """Whole cores, memory and storage in GiB, and `counts` of whatever else there is, by kind: accelerators, licences."""

    cores: int = 0
    memory: int = 0
    storage: int = 0
    counts: Counts = ()

    def plus(self, other: "Amounts") -> "Amounts":
        return self._with(other, lambda one, two: one + two)

    def minus(self, other: "Amounts") -> "Amounts":
        return self._with(other, lambda one, two: one - two)

    def smallest(self, other: "Amounts") -> "Amounts":
        return self._with(other, min)

    def largest(self, other: "Amounts") -> "Amounts":
        return self._with(other, max)

    def within(self, other: "Amounts") -> bool:
        """Whether `other` has as much of all that is wanted here."""
        return all(wanted <= other.of(kind) for kind, wanted in self.items() if wanted > 0)

    def of(self, kind: str) -> int:
        """How much of `cores`, `memory`, `storage`, or any other kind."""
        return int(getattr(self, kind)) if kind in BASIC else dict(self.counts).get(kind, 0)

    def items(self) -> Iterable[tuple[str, int]]:
        yield from zip(BASIC, self[:3], strict=True)
        yield from self.counts

    def _with(self, other: "Amounts", how: Callable[[int, int], int]) -> "Amounts":
        basic = (how(self[0], other[0]), how(self[1], other[1]), how(self[2], other[2]))
        if not (self.counts or other.counts):
            return Amounts(*basic)
        mine, theirs = dict(self.counts), dict(other.counts)
        both = {kind: how(mine.get(kind, 0), theirs.get(kind, 0)) for kind in sorted(mine.keys() | theirs.keys())}
        return Amounts(*basic, counts_of(both.items()))


BASIC = ("cores", "memory", "storage")
NOTHING = Amounts()


def counts_of(pairs: Iterable[tuple[str, int]]) -> Counts:
    """In the one order in which equal counts are equal: by kind, without those that are none."""
    return tuple(sorted((kind, count) for kind, count in pairs if count))
