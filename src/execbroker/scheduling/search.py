from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np

from execbroker.model.waist import Share, Slot
from execbroker.scheduling.accounts import Accounts
from execbroker.scheduling.allowance import ANY, Allowance, Spare
from execbroker.scheduling.amounts import NOTHING, Amounts, counts_of
from execbroker.scheduling.asks import Ask, Candidate, Range
from execbroker.scheduling.fitting import Piece, fit, groups, matching, windows
from execbroker.scheduling.flavours import flavour_amounts, smallest_flavour
from execbroker.scheduling.grid import Sieve
from execbroker.scheduling.intervals import common, covered, inside
from execbroker.scheduling.profile import Profile
from execbroker.scheduling.quotes import Use, affordable, cost, fits
from execbroker.scheduling.timeline import BATCH, Site, Timeline, open_to_batch


def rank(slot: Slot) -> tuple[int, int, int]:
    return slot.start, -sum(share.cores for share in slot.shares), -sum(share.memory for share in slot.shares)


class Search:
    """The search for one wish on one platform; it keeps what it has learnt for the next start of the same wish."""

    def __init__(self, timeline: Timeline, ask: Ask, candidate: Candidate, *, enlarge: bool = True) -> None:
        self._site: Site = timeline.site(candidate.platform)
        self.ask, self.candidate, self._enlarge = ask, candidate, enlarge
        self._wanted = candidate.parts or ask.parts
        self.flavours = [smallest_flavour(self._site.flavours, part) for part in self._wanted] if self._site.flavours else []
        self._done = ask.duration + candidate.release
        self._pooled = bool(ask.storages) and "storage" in self._site.pools
        self._parts = [self._pieces_of_part(index) for index in range(len(self._wanted))]
        self._shared = self._pieces_of_pools()
        self._groups = groups([(self._least(index), self._storages_at(index)) for index in range(len(self._wanted))])
        alike = {index: first for first, group in self._groups for index in group}
        self._first_alike = [alike[index] for index in range(len(self._wanted))]
        known = None not in self.flavours and self._shared is not None and None not in self._parts
        self._allowance = self._allow(timeline.accounts)
        self.over = tuple(self._allowance.over) if self._allowance else ()
        """Of what more is asked for than one session may have: how much, and how much it may."""
        self.possible = known and not self.over
        self._pools = self._all_pools()
        self._sieves: dict[int, Sieve] = {}

    def first(self, start: int, last: int) -> Slot | None:
        """The first slot that starts within [start, last] and when the candidate may."""
        if not self.possible:
            return None
        if self._guarded:
            last = min(last, self._site.kept_until - self._done)
        for opens, closes in self.affordable(start, last):
            if slot := self._first(opens, closes):
                return slot
        return None

    def affordable(self, start: int, last: int) -> list[tuple[int, int]]:
        """The starts within [start, last] at which the smallest acceptable session costs no more than it may, and uses no more
        of a month than is left."""
        found = [(start, last)]
        if self._allowance:
            prepare = self.candidate.prepare
            begins = self._allowance.starts(start - prepare, last - prepare, prepare + self._done)
            found = [(first + prepare, final + prepare) for first, final in begins]
        prices, limits = self.candidate.prices, self.ask.limits
        if prices and limits and start <= last:
            use = self.use
            for currency, limit in limits:
                found = common(found, list(affordable(prices, currency, use, limit, start, last)))
        return found

    @property
    def use(self) -> Use:
        """What the smallest acceptable session uses."""
        return use_of(self._least_slot(self.ask.earliest), self.candidate.staged)

    def _least_slot(self, start: int) -> Slot:
        """The smallest acceptable session, wherever it is."""
        done = start + self._done
        shares = tuple(
            Share("", least.cores, least.memory, plain(least).counts)
            for least in (self._least(index) for index in range(len(self._wanted)))
        )
        kept = tuple((storage.size.min, done + storage.lifetime) for storage in self.ask.storages)
        end = start + self.ask.duration
        return Slot(self.candidate.platform, shares, start - self.candidate.prepare, start, end, done, kept)

    def _too_dear(self, slot: Slot) -> bool:
        prices, limits = self.candidate.prices, self.ask.limits
        if not (prices and limits):
            return False
        use = use_of(slot, self.candidate.staged)
        return not all(fits(cost(prices, currency, use), limit) for currency, limit in limits)

    def _first(self, start: int, last: int) -> Slot | None:
        one = self._on_one_node if len(self._wanted) == 1 else self._on_several
        while (opened := self._pools_from(start, last)) is not None:
            slot = one(opened, last)
            if slot is None or not self._pools or self._pools_from(slot.start, slot.start) is not None:
                return slot
            start = slot.start + 1
        return None

    def _pools_from(self, start: int, last: int) -> int | None:
        """The first second within [start, last] at which there is room in all of them."""
        while True:
            found = start
            for profile, pieces in self._pools:
                later = fit(profile, pieces, found, last)
                if later is None:
                    return None
                found = later
            if found == start or len(self._pools) == 1:
                return found
            start = found

    def _on_one_node(self, start: int, last: int) -> Slot | None:
        best: Slot | None = None
        for at, node in self._nodes(0, start, last):
            if at > last:
                break
            found = fit(self._site.profiles[node], self._pieces(0), at, last)
            if found is None:
                continue
            slot = self._slot(found, [node])
            if best is None or rank(slot) < rank(best):
                best = slot
            last = found - 1 if self._largest_possible(best) else found
        return best

    def _on_several(self, start: int, last: int) -> Slot | None:
        """The first time at which as many different nodes fit as there are parts."""
        while start <= last:
            fits = {first: self._fits(first, start, last) for first, _ in self._groups}
            if any(len(fits[first]) < len(group) for first, group in self._groups):
                return None
            # Before the bound there are fewer nodes for some parts than there are of these.
            bound = max(sorted(fits[first].values())[len(group) - 1] for first, group in self._groups)
            if bound == start:
                nodes = {first: [node for node, at in fits[first].items() if at == start] for first, _ in self._groups}
                chosen = matching([nodes[first] for first in self._first_alike])
                if chosen is not None:
                    return self._slot(start, chosen)
                bound = min((at for one in fits.values() for at in one.values() if at > start), default=last + 1)
            start = bound
        return None

    def _fits(self, part: int, start: int, last: int) -> dict[int, int]:
        """From when on each node has room for a part."""
        pieces, profiles = self._pieces(part), self._site.profiles
        found = ((node, fit(profiles[node], pieces, at, last)) for at, node in self._nodes(part, start, last))
        return {node: at for node, at in found if at is not None}

    def windows(self, start: int, last: int) -> list[tuple[int, int]]:
        """All stretches of starts within [start, last] at which there is room for every part and in the pools."""
        if self._guarded:
            last = min(last, self._site.kept_until - self._done)
        found = [(start, last)]
        for profile, pieces in self._pools:
            found = common(found, windows(profile, pieces, start, last))
        by_part: dict[int, dict[int, list[tuple[int, int]]]] = {}
        for first, group in self._groups:
            pieces, profiles = self._pieces(first), self._site.profiles
            each = {node: windows(profiles[node], pieces, start, last) for _, node in self._nodes(first, start, last)}
            found = common(found, covered([stretch for stretches in each.values() for stretch in stretches], len(group)))
            by_part[first] = each
        return found if len(by_part) == 1 else list(self._matched(found, by_part))

    def _matched(
        self, found: list[tuple[int, int]], by_part: dict[int, dict[int, list[tuple[int, int]]]]
    ) -> Iterator[tuple[int, int]]:
        """Where unequal parts do not only each find room, but each on a node of its own."""
        stretches = [stretch for each in by_part.values() for some in each.values() for stretch in some]
        edges = sorted({first for first, _ in stretches} | {last + 1 for _, last in stretches})
        for start, last in found:
            between = edges[bisect_right(edges, start) : bisect_right(edges, last)]
            for begin, end in pairwise([start, *between, last + 1]):
                nodes = {part: [node for node, some in each.items() if inside(some, begin)] for part, each in by_part.items()}
                if matching([nodes[first] for first in self._first_alike]) is not None:
                    yield begin, end - 1

    def _nodes(self, part: int, start: int, last: int) -> Iterator[tuple[int, int]]:
        """Nodes that may have room for a part, and from when on, by that time."""
        begin, end, row = self._pieces(part)[0]
        if part not in self._sieves:
            able = np.all(self._site.capacity >= row[:, None], axis=0)
            self._sieves[part] = Sieve(self._site.grid, row, able, end - begin)
        return ((at - begin, node) for at, node in self._sieves[part].candidates(start + begin, last + begin))

    def _pieces(self, part: int) -> list[Piece]:
        found = self._parts[part]
        assert found is not None
        return found

    def _pieces_of_part(self, index: int) -> list[Piece] | None:
        """What the smallest acceptable part holds of its node; None where no node can have it."""
        if self.flavours and self.flavours[index] is None:
            return None
        return self._rows(-self.candidate.prepare, self._least(index), self._storages_at(index))

    def _least(self, index: int) -> Amounts:
        flavour = self.flavours[index] if self.flavours else None
        least = flavour_amounts(flavour) if flavour else self._wanted[index].least
        return least.plus(open_to_batch(least)) if self._guarded else least

    @property
    def _guarded(self) -> bool:
        return self.ask.batch and self._site.guarded

    def _storages_at(self, part: int | None) -> list[tuple[int, int]]:
        """The storages, as size and lifetime, that are on the node of a part; those in the pool are on none's."""
        here = part is None if self._pooled else part == 0
        return [(storage.size.min, storage.lifetime) for storage in self.ask.storages] if here else []

    def _rows(self, begin: int, amounts: Amounts, kept: list[tuple[int, int]]) -> list[Piece] | None:
        """Pieces: `amounts` until all is released, each of `kept` (GiB, lifetime) for so long after that."""
        pieces: list[Piece] = []
        edges = [begin, *sorted({self._done} | {self._done + lifetime for _, lifetime in kept})]
        for start, end in pairwise(edges):
            size = sum(size for size, lifetime in kept if self._done + lifetime >= end)
            row = self._site.row(Amounts(*amounts[:2], size, amounts.counts) if end <= self._done else Amounts(storage=size))
            if row is None:
                return None
            pieces.append((start, end, row))
        return pieces

    def _pieces_of_pools(self) -> list[Piece] | None:
        prepare, pools = self.candidate.prepare, self._site.pools
        if not {kind for kind, _ in self.ask.licences} <= pools:
            return None
        pieces: list[Piece] = []
        if self._pooled or self.ask.licences:
            pieces += self._rows(-prepare, Amounts(counts=self.ask.licences), self._storages_at(None)) or []
        if self._staging and prepare and (row := self._site.row(Amounts(counts=(("staging", self._staging),)))) is not None:
            pieces.append((-prepare, 0, row))
        return pieces

    def _all_pools(self) -> list[tuple[Profile, list[Piece]]]:
        """What all nodes share, and what owner and groups have quotas on."""
        pools = [(self._site.shared, self._shared)] if self._shared else []
        if self._allowance:
            pools += [(profile, [(-self.candidate.prepare, self._done, row)]) for profile, row in self._allowance.pools()]
        return pools

    def _allow(self, accounts: Accounts) -> Allowance | None:
        """None where there are neither limits nor quotas."""
        if not (self.candidate.most or self.candidate.quotas):
            return None
        size = NOTHING
        for index in range(len(self._wanted)):
            size = size.plus(plain(self._least(index)))
        return Allowance(accounts, self.ask, self.candidate, size, len(self._wanted))

    @property
    def _staging(self) -> int:
        """MB/s of the platform's bandwidth, all of it at most."""
        if "staging" not in self._site.pools:
            return 0
        return min(self.candidate.staging, int(self._site.shared.capacity[self._site.kinds["staging"]]))

    def _largest_possible(self, slot: Slot) -> bool:
        """Whether no other slot at the same time can be larger."""
        if self.flavours or not self._enlarge:
            return True
        part, share = self._wanted[0], slot.shares[0]
        return share.cores == part.cores.max and share.memory == part.memory.max

    def _slot(self, start: int, nodes: list[int]) -> Slot:
        """The slot at `start` with as much as was asked for at most and is free: cores, memory, accelerators, storage; with
        as little as is acceptable where more would cost too much. Equal parts are equally large."""
        slot = self._sized(start, nodes, enlarge=self._enlarge)
        return self._sized(start, nodes, enlarge=False) if self._enlarge and self._too_dear(slot) else slot

    def _sized(self, start: int, nodes: list[int], *, enlarge: bool) -> Slot:
        ask, prepare, end = self.ask, start - self.candidate.prepare, start + self.ask.duration
        done = start + self._done
        spare = self._allowance.spare(prepare, done) if self._allowance and enlarge else ANY
        shares = tuple(self._share(index, node, prepare, done, spare, enlarge=enlarge) for index, node in enumerate(nodes))
        home = self._site.shared if self._pooled else self._site.profiles[nodes[0]]
        return Slot(
            platform=self.candidate.platform,
            shares=shares if len(shares) == 1 else self._evened(shares),
            prepare=prepare,
            start=start,
            end=end,
            done=done,
            storages=self._storages(home, prepare, done, spare, enlarge=enlarge),
            pooled=self._pooled,
            licences=ask.licences,
            staging=self._staging if prepare < start else 0,
            batch=self._guarded,
        )

    def _evened(self, shares: tuple[Share, ...]) -> tuple[Share, ...]:
        """Those of equal parts made as large as the smallest of them."""
        found = list(shares)
        for first, group in groups(self._wanted):
            least = Amounts(shares[first].cores, shares[first].memory, 0, shares[first].accelerators)
            for index in group:
                share = shares[index]
                least = least.smallest(Amounts(share.cores, share.memory, 0, share.accelerators))
            for index in group:
                found[index] = replace(shares[index], cores=least.cores, memory=least.memory, accelerators=least.counts)
        return tuple(found)

    def _share(self, index: int, node: int, prepare: int, done: int, spare: Spare, *, enlarge: bool) -> Share:
        name, part, flavour = self._site.names[node], self._wanted[index], self.flavours[index] if self.flavours else None
        if flavour:
            return Share(name, flavour.cores, flavour.memory, flavour.accelerators, flavour.name)
        if part.fixed or not enlarge:
            least = part.least
            return Share(name, least.cores, least.memory, least.counts)
        free = self._site.amounts(self._site.profiles[node].least(prepare, done))
        if self._guarded:
            free = free.smallest(of_batch(free))
        return Share(
            name,
            _most(part.cores, min(free.cores, part.cores.min + spare.cores)),
            _most(part.memory, min(free.memory, part.memory.min + spare.memory)),
            counts_of((kind, _most(n, min(free.of(kind), n.min + spare.accelerators))) for kind, n in part.accelerators),
        )

    def _storages(self, home: Profile, prepare: int, done: int, spare: Spare, *, enlarge: bool) -> tuple[tuple[int, int], ...]:
        storages: list[tuple[int, int]] = []
        for index, storage in enumerate(self.ask.storages):
            kept, size = done + storage.lifetime, storage.size.min
            if enlarge and storage.size.max > size:
                # A larger storage must fit beside the others for as long as it is kept; the others count with their minimum
                # until they have been enlarged themselves.
                others = sum(other.size.min for other in self.ask.storages[index + 1 :]) + sum(size for size, _ in storages)
                size = _most(storage.size, min(int(home.least(prepare, kept)[2]), spare.storage) - others)
            storages.append((size, kept))
        return tuple(storages)


def use_of(slot: Slot, staged: int) -> Use:
    """What is paid for: the shares while the session is available, and storage for as long as it is kept."""
    held = NOTHING
    for share in slot.shares:
        held = held.plus(Amounts(share.cores, share.memory, 0, share.accelerators))
    nodes = len(slot.shares)
    return Use(nodes, held.cores, held.memory, held.counts, slot.prepare, slot.start, slot.end, staged, slot.storages)


def plain(amounts: Amounts) -> Amounts:
    """Without what is counted for batch work besides."""
    return amounts._replace(counts=tuple((kind, count) for kind, count in amounts.counts if not kind.startswith(BATCH)))


def of_batch(free: Amounts) -> Amounts:
    """What of a node is open to batch work, as plain amounts."""
    counts = dict(free.counts)
    accelerators = ((kind.removeprefix(BATCH), count) for kind, count in free.counts if kind.startswith(BATCH))
    return Amounts(
        counts.get(f"{BATCH}cores", 0), counts.get(f"{BATCH}memory", 0), free.storage,
        counts_of((kind, count) for kind, count in accelerators if kind not in ("cores", "memory")),
    )  # fmt: skip


def _most(asked: Range, free: int) -> int:
    return max(asked.min, min(asked.max, free))
