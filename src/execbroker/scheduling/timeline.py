from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from execbroker.model.prices import Calendar
from execbroker.model.waist import Capacity, Flavour, Share, Slot
from execbroker.scheduling.accounts import Accounts
from execbroker.scheduling.amounts import BASIC, NOTHING, Amounts, counts_of
from execbroker.scheduling.asks import FOREVER
from execbroker.scheduling.grid import Grid
from execbroker.scheduling.profile import NEVER, Profile, Row

SHARED = ""
"""The node of a platform's shared pools: what none of its nodes has for itself."""
BATCH = "batch "
MOST = (1 << 31) - 1
HOUR = 3600
_TRIM = 600  # seconds
_SHIFT = 86400
KEPT = 60 * 86400  # seconds for which it is worked out ahead what is kept for interactive work


class Place(NamedTuple):
    platform: str
    node: str


class Booking(NamedTuple):
    """`amounts` of one node, or of a platform's shared pools, during [start, end)."""

    place: Place
    start: int
    end: int
    amounts: Amounts


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """A `share` of every node that is kept for interactive work in the hours of a calendar with that one tariff."""

    share: float
    hours: Calendar

    def spans(self, begin: int, end: int) -> Iterator[tuple[int, int]]:
        """The hours within [begin, end)."""
        steps = self.hours.steps(begin, end)
        for state, (first, last) in zip(steps.states, pairwise([*steps.edges, end]), strict=True):
            if state == 0 and max(first, begin) < min(last, end):
                yield max(first, begin), min(last, end)


class Site:
    """The nodes and the shared pools of one platform, each with its profile; the grid is a filter in front of the nodes'."""

    def __init__(self, origin: int) -> None:
        self.kinds = {kind: row for row, kind in enumerate(BASIC)}
        self.names: list[str] = []
        self.nodes: dict[str, int] = {}
        self.profiles: list[Profile] = []
        self.shared = Profile(np.zeros(len(BASIC), np.int32))
        self.pools: frozenset[str] = frozenset()
        self.kept: tuple[Kept, ...] = ()
        self.kept_until = FOREVER
        """Until when it is worked out what is kept for interactive work."""
        self._keeping: list[tuple[str, int, int, Row]] = []
        self.flavours: tuple[Flavour, ...] = ()
        self.capacity = np.zeros((len(BASIC), 0), np.int32)
        """Resources × nodes."""
        self.grid = Grid(len(BASIC), 0, origin)

    def profile(self, node: str) -> Profile:
        return self.shared if node == SHARED else self.profiles[self.nodes[node]]

    def row(self, amounts: Amounts) -> Row | None:
        """As a row of the profiles; None where there is a kind among them that nothing here has."""
        row = np.zeros(len(self.kinds), np.int32)
        row[:3] = amounts[:3] if max(amounts[:3]) <= MOST else [min(amount, MOST) for amount in amounts[:3]]
        for kind, count in amounts.counts:
            if kind not in self.kinds:
                return None
            row[self.kinds[kind]] = min(count, MOST)
        return row

    def amounts(self, row: Row) -> Amounts:
        cores, memory, storage, *others = row.tolist()
        return Amounts(
            cores, memory, storage, counts_of((kind, others[index - 3]) for kind, index in self.kinds.items() if index > 2)
        )

    def set_capacity(self, capacity: Capacity, kept: tuple[Kept, ...] = ()) -> None:
        """What there is from now on; what is held stays held, even on a node that is gone."""
        sizes = {
            node.name: Amounts(node.cores, node.memory, node.storage, counts_of(node.accelerators)) for node in capacity.nodes
        }
        if kept:
            sizes = {node: size.plus(open_to_batch(size)) for node, size in sizes.items()}
        pools = dict(capacity.pools)
        sizes[SHARED] = Amounts(storage=pools.pop("storage", 0), counts=counts_of(pools.items()))
        self.pools = frozenset(kind for kind, count in capacity.pools if count or kind == "storage")
        self.flavours = capacity.flavours
        self.know(sizes, sizes.values())
        changed = [
            node for node in [SHARED, *self.nodes] if self.amounts(self.profile(node).capacity) != sizes.get(node, NOTHING)
        ]
        if changed or kept != self.kept:
            self._keep_no_more()
            for node in changed:
                self._resize(node, sizes.get(node, NOTHING))
            self.kept = kept
            self._keep()

    @property
    def guarded(self) -> bool:
        """Whether a part of it is kept for interactive work."""
        return bool(self.kept)

    def _keep(self) -> None:
        """Hold what is kept, of what is open to batch work."""
        begin, self.kept_until = self.grid.origin, FOREVER if not self.kept else self.grid.origin + KEPT
        spans = [(one.share, first, last) for one in self.kept for first, last in one.spans(begin, self.kept_until)]
        for node, index in self.nodes.items():
            batch = Amounts(
                counts=tuple(pair for pair in self.amounts(self.profiles[index].capacity).counts if pair[0].startswith(BATCH))
            )
            for share, first, last in spans:
                row = self.row(Amounts(counts=tuple((kind, ceil(count * share)) for kind, count in batch.counts)))
                assert row is not None
                self.change(node, first, last, -row)
                self._keeping.append((node, first, last, row))

    def _keep_no_more(self) -> None:
        for node, first, last, row in self._keeping:
            self.change(node, first, last, np.append(row, np.zeros(len(self.kinds) - len(row), np.int32)))
        self._keeping = []

    def know(self, nodes: Iterable[str], amounts: Iterable[Amounts] = ()) -> None:
        """Make room for nodes and kinds that were not known, without any capacity as yet."""
        kinds = {kind for one in amounts for kind, _ in one.counts} - self.kinds.keys()
        fresh = [node for node in nodes if node != SHARED and node not in self.nodes]
        if not (kinds or fresh):
            return
        self.kinds |= {kind: len(self.kinds) + index for index, kind in enumerate(sorted(kinds))}
        for node in fresh:
            self.nodes[node] = len(self.names)
            self.names.append(node)
            self.profiles.append(Profile(np.zeros(len(self.kinds), np.int32)))
        for profile in (self.shared, *self.profiles):
            profile.resize(np.append(profile.capacity, np.zeros(len(self.kinds) - len(profile.capacity), np.int32)))
        self.survey()

    def survey(self) -> None:
        """Make the grid anew."""
        self.capacity = np.array([profile.capacity for profile in self.profiles], np.int32).reshape(-1, len(self.kinds)).T.copy()
        self.grid = Grid(len(self.kinds), len(self.profiles), self.grid.origin)
        for index, profile in enumerate(self.profiles):
            self.grid.fill(index, profile)

    def begin(self, origin: int) -> None:
        """After `load` of every node: the grid from `origin` on, and what is kept."""
        self.grid.origin = origin
        self.survey()
        self._keeping = []
        self._keep()

    def change(self, node: str, start: int, end: int, row: Row) -> None:
        """Add to what is free during [start, end)."""
        if node == SHARED:
            self.shared.change(start, end, row)
        else:
            index = self.nodes[node]
            self.profiles[index].change(start, end, row)
            self.grid.change(index, self.profiles[index], start, end, row)

    def load(self, node: str, starts: NDArray[np.int64], ends: NDArray[np.int64], rows: NDArray[np.int32]) -> None:
        """Hold these on `node` and nothing else; `survey` is to follow."""
        profile = self.profile(node)
        profile.clear()
        profile.load(starts, ends, rows)

    def forget(self, before: int) -> None:
        for profile in (self.shared, *self.profiles):
            profile.forget(before)
        if before - self.grid.origin >= _SHIFT:
            self._keep_no_more()
            self.grid.shift(before - before % HOUR, self.profiles)
            self._keep()

    def _resize(self, node: str, size: Amounts) -> None:
        profile, row = self.profile(node), self.row(size)
        assert row is not None
        if (change := row - profile.capacity).any():
            profile.resize(row)
            if node != SHARED:
                self.capacity[:, self.nodes[node]] = row
                self.grid.resize(self.nodes[node], change)


class Timeline:
    """What every node and every shared pool of every platform holds, when."""

    def __init__(self) -> None:
        self.sites: dict[str, Site] = {}
        self.accounts = Accounts()
        self._forgotten = 0

    def site(self, platform: str) -> Site:
        if platform not in self.sites:
            self.sites[platform] = Site(self._forgotten - self._forgotten % HOUR)
        return self.sites[platform]

    def set_capacity(self, platform: str, capacity: Capacity, kept: Iterable[Kept] = ()) -> None:
        """What a platform can give from now on; what is booked stays booked, even on a node that is gone."""
        self.site(platform).set_capacity(capacity, tuple(kept))

    def has(self, place: Place) -> bool:
        site = self.sites.get(place.platform)
        return site is not None and (place.node == SHARED or place.node in site.nodes)

    def capacity(self, place: Place) -> Amounts:
        site = self.sites[place.platform]
        return site.amounts(site.profile(place.node).capacity)

    def least(self, place: Place, start: int, end: int) -> Amounts:
        """What is free throughout [start, end); less than nothing where a node has become smaller than what it holds."""
        site = self.sites[place.platform]
        return site.amounts(site.profile(place.node).least(start, end))

    def short(self, place: Place, since: int, until: int = NEVER) -> bool:
        """Whether at any time from `since` until `until` more is held than there is."""
        site = self.sites[place.platform]
        return bool(site.profile(place.node).least(since, until).min() < 0)

    def take(self, bookings: Iterable[Booking]) -> None:
        for place, start, end, amounts in bookings:
            site, row = self._row(place, amounts)
            site.change(place.node, start, end, -row)

    def give(self, bookings: Iterable[Booking]) -> None:
        """Give back what `take` with the same bookings held."""
        for place, start, end, amounts in bookings:
            site, row = self._row(place, amounts)
            site.change(place.node, start, end, row)

    def _row(self, place: Place, amounts: Amounts) -> tuple[Site, Row]:
        site = self.sites.get(place.platform) or self.site(place.platform)
        if place.node != SHARED and place.node not in site.nodes:
            site.know([place.node])
        row = site.row(amounts)
        if row is None:
            site.know([], [amounts])
            row = site.row(amounts)
        assert row is not None
        return site, row

    def rebuild(self, bookings: Iterable[Booking], since: int = 0) -> None:
        """Begin again with these bookings and no others; what is before `since` counts no more."""
        self._forgotten = since
        held: dict[str, dict[str, list[Booking]]] = {name: {} for name in self.sites}
        for booking in bookings:
            held.setdefault(booking.place.platform, {}).setdefault(booking.place.node, []).append(booking)
        for name, nodes in held.items():
            site = self.site(name)
            site.know(nodes, {piece.amounts for pieces in nodes.values() for piece in pieces})
            for node in [SHARED, *site.nodes]:
                pieces = nodes.get(node, [])
                times = np.array([(piece.start, piece.end) for piece in pieces], np.int64).reshape(-1, 2)
                rows = np.array([site.row(piece.amounts) for piece in pieces], np.int32).reshape(-1, len(site.kinds))
                site.load(node, times[:, 0], times[:, 1], rows.T)
            site.begin(since - since % HOUR)
        self.accounts.rebuild(since)

    def forget(self, before: int) -> None:
        """Drop what ended before `before`, a few minutes late: what is taken or given there may count no more."""
        if before < self._forgotten + _TRIM:
            return
        self._forgotten = before
        for site in self.sites.values():
            site.forget(before)
        self.accounts.forget(before)


def bookings_of(slot: Slot) -> list[Booking]:
    """What a session in this slot holds, as disjoint pieces: its nodes until it is released, storage until it expires,
    licences while it runs, bandwidth while its data is staged."""
    first, shared = Place(slot.platform, slot.node), Place(slot.platform, SHARED)
    pieces = [
        Booking(Place(slot.platform, share.node), slot.prepare, slot.done, share_of(share, slot.batch)) for share in slot.shares
    ]
    home = shared if slot.pooled else first
    pieces += [Booking(home, slot.prepare, until, Amounts(storage=size)) for size, until in slot.storages if size]
    pieces += [Booking(shared, slot.prepare, slot.done, Amounts(counts=slot.licences))] if slot.licences else []
    pieces += [Booking(shared, slot.prepare, slot.start, Amounts(counts=(("staging", slot.staging),)))] if slot.staging else []
    return combine(pieces, Amounts.plus)


def share_of(share: Share, batch: bool) -> Amounts:
    """What is held of a node; `batch` work counts against what is open to it as well, where a part is kept for others."""
    held = Amounts(share.cores, share.memory, 0, share.accelerators)
    return held.plus(open_to_batch(held)) if batch else held


def open_to_batch(amounts: Amounts) -> Amounts:
    """The same amounts as kinds of their own: what batch work may have of a node that keeps a part for other work."""
    return Amounts(counts=counts_of((f"{BATCH}{kind}", count) for kind, count in amounts.items() if kind != "storage"))


def envelope(slots: Iterable[Slot]) -> list[Booking]:
    """What alternatives hold together, only one of which will be: the pointwise maximum, as disjoint pieces."""
    members = [bookings_of(slot) for slot in slots]
    return combine([piece for pieces in members for piece in pieces], Amounts.largest)


def core_seconds(pieces: Iterable[Booking]) -> int:
    return sum(piece.amounts.cores * (piece.end - piece.start) for piece in pieces)


def combine(pieces: list[Booking], how: Callable[[Amounts, Amounts], Amounts]) -> list[Booking]:
    """Disjoint pieces, each the combination by `how` of those it was covered by."""
    combined: list[Booking] = []
    for place in dict.fromkeys(piece.place for piece in pieces):
        here = [piece for piece in pieces if piece.place == place and piece.start < piece.end]
        edges = sorted({edge for piece in here for edge in (piece.start, piece.end)})
        for start, end in pairwise(edges):
            covering = [piece.amounts for piece in here if piece.start <= start and end <= piece.end]
            amounts = reduce(how, covering) if covering else NOTHING
            if amounts == NOTHING:
                continue
            if combined and combined[-1].place == place and combined[-1].end == start and combined[-1].amounts == amounts:
                combined[-1] = combined[-1]._replace(end=end)
            else:
                combined.append(Booking(place, start, end, amounts))
    return combined
