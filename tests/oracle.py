"""The scheduling core in the slow, obvious way: what is free of everything in every tick of time, and every start tried."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from execbroker.model.waist import Capacity, Flavour, Node
from execbroker.scheduling.asks import Ask, Candidate, Part
from execbroker.scheduling.quotes import TOLERANCE, Use, cost
from execbroker.scheduling.timeline import SHARED, Booking, Place, Timeline

Ticks = NDArray[np.int64]
Needs = dict[str, int]


class Oracle:
    """What is free at each place in each of so many ticks of `tick` seconds since `origin`.

    All times that it is told are whole ticks. The `guarded` platforms keep a part for interactive work.
    """

    def __init__(
        self, capacities: Mapping[str, Capacity], ticks: int, tick: int = 1, origin: int = 0, guarded: Iterable[str] = ()
    ) -> None:
        self.capacities, self.guarded = dict(capacities), frozenset(guarded)
        self.ticks, self.tick, self.origin = ticks, tick, origin
        self.free: dict[Place, defaultdict[str, Ticks]] = defaultdict(lambda: defaultdict(lambda: np.zeros(ticks, np.int64)))
        for platform, capacity in capacities.items():
            for name, has in sizes_of(capacity).items():
                for kind, amount in has.items():
                    self.free[Place(platform, name)][kind] += amount

    def take(self, bookings: Iterable[Booking], sign: int = -1) -> None:
        for booking in bookings:
            for kind, amount in booking.amounts.items():
                self.free[booking.place][kind][self.index(booking.start) : self.index(booking.end)] += sign * amount

    def give(self, bookings: Iterable[Booking]) -> None:
        self.take(bookings, 1)

    def index(self, time: int) -> int:
        ticks, odd = divmod(time - self.origin, self.tick)
        assert not odd, "not a whole tick"
        return max(ticks, 0)

    def has_room(self, booking: Booking) -> bool:
        here, (first, last) = self.free[booking.place], (self.index(booking.start), self.index(booking.end))
        return all((here[kind][first:last] >= amount).all() for kind, amount in booking.amounts.items())

    @property
    def exceeded(self) -> bool:
        """Whether more is held than there is, anywhere, of anything, at any time."""
        return any((free < 0).any() for kinds in self.free.values() for free in kinds.values())

    def agrees_with(self, timeline: Timeline) -> bool:
        """Whether a timeline says the same of every tick of every place."""
        return all(
            timeline.least(place, time, time + self.tick).of(kind) == free[index]
            for place, kinds in self.free.items()
            for kind, free in kinds.items()
            for index, time in enumerate(range(self.origin, self.origin + self.ticks * self.tick, self.tick))
        )


def sizes_of(capacity: Capacity) -> dict[str, Needs]:
    sizes = {node.name: size_of(node) for node in capacity.nodes}
    return {**sizes, SHARED: dict(capacity.pools)}


def size_of(node: Node | Flavour) -> Needs:
    storage = node.storage if isinstance(node, Node) else 0
    return {"cores": node.cores, "memory": node.memory, "storage": storage, **dict(node.accelerators)}


@dataclass(frozen=True)
class Fit:
    """A start that is possible, on these nodes."""

    start: int
    nodes: tuple[str, ...]


class Trial:
    """One ask tried on one platform, start by start; each part is as small as is acceptable."""

    def __init__(self, oracle: Oracle, ask: Ask, candidate: Candidate) -> None:
        self.oracle, self.ask, self.candidate = oracle, ask, candidate
        self.capacity = oracle.capacities[candidate.platform]
        self.parts = candidate.parts or ask.parts
        self.pools = dict(self.capacity.pools)
        self.least = [self._least(part) for part in self.parts]
        self.done = ask.duration + candidate.release
        self.over = self.done + max((one.lifetime for one in ask.storages), default=0)
        self.shapes = [] if None in self.least else [self._shape(part) for part in range(len(self.parts))]
        self.pooled = self._shape(None) if self.shapes else {}

    def fits(self, start: int) -> Iterator[Fit]:
        """Every choice of nodes at a start."""
        if self.shapes and self._has_room(SHARED, self.pooled, start) and self.affordable(self.use(start)):
            names = [node.name for node in self.capacity.nodes]
            able = [[name for name in names if self._has_room(name, shape, start)] for shape in self.shapes]
            for chosen in permutations(names, len(self.shapes)):
                if all(name in each for name, each in zip(chosen, able, strict=True)):
                    yield Fit(start, chosen)

    def all_fits(self, earliest: int, now: int) -> Iterator[Fit]:
        """Every choice of nodes at every start that the ask allows, from `earliest` on."""
        for start in range(max(earliest, now + self.candidate.prepare), self.ask.latest + 1, self.oracle.tick):
            yield from self.fits(start)

    def largest_on(self, fit: Fit) -> tuple[int, int]:
        """The most cores and memory that one part can have there."""
        (part,), (name,) = self.parts, fit.nodes
        if self.capacity.flavours:
            return self.least[0]["cores"], self.least[0]["memory"]  # type: ignore[index]
        begin, end = (self.oracle.index(fit.start + by) for by in (-self.candidate.prepare, self.done))
        free = self.oracle.free[Place(self.candidate.platform, name)]
        batch = self.ask.batch and self.candidate.platform in self.oracle.guarded

        def most(kind: str, most: int) -> int:
            kinds = [kind, f"batch {kind}"] if batch else [kind]
            return min(most, *(int(free[one][begin:end].min()) for one in kinds))

        cores, memory = most("cores", part.cores.max), most("memory", part.memory.max)
        return cores, memory

    def use(self, start: int) -> Use:
        least = [one or {} for one in self.least]
        kinds = sorted({kind for one in least for kind in one} - {"cores", "memory", "storage"})
        return Use(
            nodes=len(least),
            cores=sum(one["cores"] for one in least),
            memory=sum(one["memory"] for one in least),
            accelerators=tuple((kind, sum(one.get(kind, 0) for one in least)) for kind in kinds),
            prepare=start - self.candidate.prepare,
            start=start,
            end=start + self.ask.duration,
            staged=self.candidate.staged,
            storages=tuple((one.size.min, start + self.done + one.lifetime) for one in self.ask.storages),
        )

    def affordable(self, use: Use) -> bool:
        prices = self.candidate.prices
        return prices is None or all(
            cost(prices, currency, use) <= limit * (1 + TOLERANCE) for currency, limit in self.ask.limits
        )

    def _least(self, part: Part) -> Needs | None:
        """What is had of one node at least; None where there is no size for it."""
        accelerators = {kind: count.min for kind, count in part.accelerators}
        least = {"cores": part.cores.min, "memory": part.memory.min, **accelerators}
        if not self.capacity.flavours:
            return least
        caps = {"cores": part.cores.cap, "memory": part.memory.cap, **{kind: count.cap for kind, count in part.accelerators}}
        for flavour in sorted(self.capacity.flavours, key=lambda one: (one.cores, one.memory, one.accelerators)):
            size = size_of(flavour)
            if all(amount <= size.get(kind, 0) <= caps[kind] for kind, amount in least.items()):
                return size
        return None

    def _held(self, part: int | None, after: int) -> Needs:
        """What is held `after` seconds from the start: of the node of a part, or of the pools."""
        needs: Needs = defaultdict(int)
        if part is not None and after < self.done:
            for kind, amount in (self.least[part] or {}).items():
                needs[kind] += amount
                if self.ask.batch and self.candidate.platform in self.oracle.guarded:
                    needs[f"batch {kind}"] += amount
        if part is None and after < self.done:
            for kind, count in self.ask.licences:
                needs[kind] += count
        if part is None and after < 0:
            needs["staging"] += min(self.candidate.staging, self.pools.get("staging", 0))
        if part == (None if "storage" in self.pools else 0):
            needs["storage"] += sum(one.size.min for one in self.ask.storages if after < self.done + one.lifetime)
        return needs

    def _shape(self, part: int | None) -> dict[str, Ticks]:
        """What is held of each kind in each tick from the start of preparing on."""
        held = [self._held(part, after) for after in range(-self.candidate.prepare, self.over, self.oracle.tick)]
        kinds = {kind for needs in held for kind, amount in needs.items() if amount}
        return {kind: np.array([needs.get(kind, 0) for needs in held]) for kind in kinds}

    def _has_room(self, node: str, shape: dict[str, Ticks], start: int) -> bool:
        """A tick in which nothing is wanted fits whatever is free."""
        first = self.oracle.index(start - self.candidate.prepare)
        free = self.oracle.free[Place(self.candidate.platform, node)]
        return all(((wanted == 0) | (free[kind][first : first + len(wanted)] >= wanted)).all() for kind, wanted in shape.items())


def trials(oracle: Oracle, ask: Ask) -> list[Trial]:
    return [Trial(oracle, ask, candidate) for candidate in ask.candidates]


def first_start(tried: Iterable[Trial], earliest: int, now: int) -> int | None:
    """The first start that the ask allows, from `earliest` on, at which there is room on any platform."""
    firsts = [next(trial.all_fits(earliest, now), None) for trial in tried]
    return min((fit.start for fit in firsts if fit), default=None)
