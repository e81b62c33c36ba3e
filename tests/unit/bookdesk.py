"""Books on a ledger of their own, and what they should hold by the test's own slow and obvious account."""

import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import select

import stores
from brokersite import ManualClock
from execbroker.books.books import Books
from execbroker.books.caps import Caps
from execbroker.ledger.audit import audit
from execbroker.ledger.ledger import Ledger
from execbroker.ledger.rows import SessionRow, read_session
from execbroker.ledger.tables import sessions
from execbroker.model.prices import Prices
from execbroker.model.sessions import ExecutionRequest
from execbroker.model.waist import Capacity, Node, Slot
from execbroker.offers.asking import Plan
from execbroker.offers.offering import Answer
from execbroker.offers.sizing import NodeAsk
from execbroker.offers.wanting import Wanted
from execbroker.scheduling.amounts import Amounts, counts_of
from execbroker.scheduling.asks import Ask, Candidate, Part, Range, StorageAsk
from execbroker.scheduling.timeline import SHARED, Booking, Place, bookings_of, core_seconds, envelope
from oracle import Oracle, Trial, sizes_of

T = TypeVar("T")
NODES = (Node("one", 4, 8, 20), Node("two", 3, 4, 10))
POOLS = (("idl", 2), ("staging", 10))
LASTS = 60


def wanted(cores: int = 1, memory: int = 1, duration: int = 10, storages: Iterable[tuple[int, int]] = (), **more: Any) -> Wanted:
    """A request for so much (or twice that, unless `exactly`) of each of `nodes` nodes; each storage is its size in GiB and
    its lifetime in seconds."""
    times = 1 if more.get("exactly") else 2
    ask = NodeAsk("compute", Range(cores, times * cores), Range(memory, times * memory))
    plan = Plan(
        ExecutionRequest(),
        nodes=[ask] * more.get("nodes", 1),
        storages=[StorageAsk(Range(size, 2 * size), lifetime) for size, lifetime in storages],
        duration=duration,
        start=(more.get("earliest", 0), more.get("latest", 1 << 40)),
        licences={"idl": more["licences"]} if more.get("licences") else {},
        flexible=more.get("flexible", False),
    )
    candidate = Candidate(
        "site",
        more.get("prepare", 0),
        more.get("release", 0),
        staging=more.get("staging", 0),
        staged=more.get("staged", 0),
        prices=more.get("prices"),
        parts=tuple(Part(node.cores, node.memory) for node in plan.nodes),
        priority=more.get("priority", 0),
    )
    owner, expires, limit = more.get("owner", "me"), more.get("expires", LASTS), more.get("limit", 3)
    return Wanted(owner, "{}", plan, (candidate,), ("site",), (), (), expires, limit, 0)


def total(pieces: Iterable[Booking]) -> Counter[tuple[Place, int, str]]:
    """The changes of what is held, by place, time and resource: equal for equal holds, however they are cut."""
    changes: Counter[tuple[Place, int, str]] = Counter()
    for place, start, end, amounts in pieces:
        for name, amount in amounts.items():
            changes[place, start, name] += amount
            changes[place, end, name] -= amount
    return Counter({key: value for key, value in changes.items() if value})


def future(pieces: Iterable[Booking], now: int) -> list[Booking]:
    return [piece._replace(start=max(piece.start, now)) for piece in pieces if piece.end > now]


def held_at(pieces: Iterable[Booking], place: Place, instant: int) -> Amounts:
    held = Amounts()
    for piece in pieces:
        if piece.place == place and piece.start <= instant < piece.end:
            held = held.plus(piece.amounts)
    return held


def is_free(pieces: Iterable[Booking], others: list[Booking], sizes: dict[Place, Amounts]) -> bool:
    """Whether there is room for these pieces beside what others hold."""
    for piece in pieces:
        size = sizes.get(piece.place, Amounts())
        edges = {piece.start, *(other.start for other in others if other.place == piece.place)}
        for instant in edges:
            if piece.start <= instant < piece.end and not piece.amounts.within(size.minus(held_at(others, piece.place, instant))):
                return False
    return True


def longer(slot: Slot, seconds: int) -> Slot:
    storages = tuple((size, until + seconds) for size, until in slot.storages)
    return replace(slot, end=slot.end + seconds, done=slot.done + seconds, storages=storages)


def shifted(slot: Slot, by: int) -> Slot:
    return replace(longer(slot, by), prepare=slot.prepare + by, start=slot.start + by)


@dataclass
class Offer:
    """What the test itself knows of an offer."""

    uuid: UUID
    offerset: UUID
    owner: str
    slot: Slot
    expires: int
    created: int
    phase: str = "OFFERED"
    pulls: int = 0


class Desk:
    """Books on a ledger of their own, opened again at will, and what they should hold by the test's own account."""

    def __init__(self, caps: Caps | None = None, prices: Prices | None = None) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="execbroker-test-")
        self.path = Path(self.folder.name)
        stores.prepared(self.path)
        self.clock, self.caps = ManualClock(), caps or Caps()
        self.prices = {"site": prices} if prices else None
        self.nodes: tuple[Node, ...] = NODES
        self.places = {Place("site", SHARED)}
        self.offers: dict[UUID, Offer] = {}
        self.kept: dict[UUID, list[Booking]] = {}
        self.held_before: list[Booking] = []
        self.warned: set[UUID] = set()
        self.unsure = False

    async def open(self) -> None:
        self.ledger = Ledger(stores.database(self.path))
        self.books = Books(self.ledger, self.clock, self.prices, self.caps)
        await self.books.open()
        await self.books.learn("site", self.capacity)

    async def close(self) -> None:
        await self.books.close()
        await self.ledger.close()

    @property
    def capacity(self) -> Capacity:
        return Capacity(self.nodes, pools=POOLS)

    @property
    def sizes(self) -> dict[Place, Amounts]:
        """What there is of each place, nothing of a node that is gone."""
        sizes = {Place("site", node): self._size(needs) for node, needs in sizes_of(self.capacity).items()}
        self.places |= sizes.keys()
        return dict.fromkeys(self.places, Amounts()) | sizes

    def _size(self, needs: dict[str, int]) -> Amounts:
        basic = (needs.get(name, 0) for name in ("cores", "memory", "storage"))
        return Amounts(*basic, counts_of((kind, count) for kind, count in needs.items() if kind in dict(POOLS)))

    async def act(self, work: Awaitable[T], then: Callable[[T], bool]) -> T:
        """Do this in one transaction, and check what it does to the flexible sessions that wait. `then` enters the result
        in the test's own account, and says whether anything came free."""
        expired = self.expire()
        result = await work
        await self._follow(freed=then(result) or expired)
        return result

    def enter(self, answer: Answer, phase: str = "OFFERED") -> list[UUID]:
        rows = [row for row in answer.offers if row.slot]
        for row in rows:
            assert row.slot
            self.offers[row.uuid] = Offer(row.uuid, row.offerset, row.owner, row.slot, row.expires, row.created, phase)
        return [row.uuid for row in rows]

    def expire(self) -> bool:
        """By the test's own account: offers whose time is over are gone. Every operation of the books begins with it."""
        over = [one for one in self.offers.values() if one.phase == "OFFERED" and one.expires <= self.clock.seconds]
        for offer in over:
            offer.phase = "EXPIRED"
        return bool(over)

    def take(self, uuid: UUID) -> None:
        """By the test's own account: this offer is accepted, and its siblings are rejected."""
        for sibling in self.offers.values():
            if sibling.offerset == self.offers[uuid].offerset and sibling.phase == "OFFERED":
                sibling.phase = "REJECTED"
        self.offers[uuid].phase = "HELD"

    def expected(self, without: UUID | None = None, siblings_of: UUID | None = None) -> list[Booking]:
        """What is held, but for a session, or for the open offers of an offerset."""
        others = [slots for offerset, slots in self._open().items() if offerset != siblings_of]
        pieces = [piece for slots in others for piece in envelope(slots)]
        for offer in self.offers.values():
            if offer.phase in ("HELD", "RELEASING") and offer.uuid != without:
                pieces += bookings_of(offer.slot)
        return pieces + [piece for kept in self.kept.values() for piece in kept]

    def _open(self) -> dict[UUID, list[Slot]]:
        live: dict[UUID, list[Slot]] = {}
        for offer in self.offers.values():
            if offer.phase == "OFFERED":
                live.setdefault(offer.offerset, []).append(offer.slot)
        return live

    def offered(self) -> dict[str, int]:
        """Core-seconds in open offers, by owner."""
        owners = {offer.offerset: offer.owner for offer in self.offers.values()}
        found: Counter[str] = Counter()
        for offerset, slots in self._open().items():
            found[owners[offerset]] += core_seconds(envelope(slots))
        return dict(found)

    async def learn(self, nodes: tuple[Node, ...]) -> None:
        """The platform has these nodes now. Who can be brought away from what is lost is, before all others are pulled; of
        both only the end is seen, so it is checked less closely than a pull alone."""
        expired = self.expire()
        changed, self.nodes = nodes != self.nodes, nodes
        if changed:
            self.held_before = self.expected()
        first = next((offer for offer in self.waiting() if self.lacks(offer)), None)
        can_be_saved = first is not None and self.earliest(first, first.slot.start) is not None
        lacking = any(self.lacks(offer) for offer in self.offers.values())
        await self.books.learn("site", self.capacity)
        self.unsure = True  # what is short, and since when, may be news though the nodes are the same
        if not lacking:
            await self._follow(freed=changed or expired)
            return
        moved = await self._rescued()
        if changed:
            assert not can_be_saved or first in moved
            self.warned |= {offer.uuid for offer in self.offers.values() if self.lacks(offer)}

    async def _rescued(self) -> list[Offer]:
        known = {row.uuid: row.slot for row in await self.rows()}
        moved = [offer for offer in self.waiting() if known[offer.uuid] != offer.slot]
        for offer in moved:
            self._adopt(offer, known[offer.uuid])
        for offer in moved:
            assert not self.lacks(offer)
        return moved

    async def _follow(self, *, freed: bool) -> None:
        """Those that wait are pulled to the earliest start there is, one after the other, each with all else as it is."""
        known = {row.uuid: row.slot for row in await self.rows()}
        if freed or (self.unsure and any(known[offer.uuid] != offer.slot for offer in self.waiting())):
            for offer in self.waiting():
                start, slot = self.earliest(offer, offer.slot.start - 1), known[offer.uuid]
                assert slot is not None
                assert slot.start == (offer.slot.start if start is None else start)
                if start is not None:
                    self._adopt(offer, slot)
                    assert is_free(bookings_of(slot), self.expected(offer.uuid), self.sizes)
        self.unsure = False

    def _adopt(self, offer: Offer, slot: Slot | None) -> None:
        """The same session at another time or place: never later than promised, nor before its floor, nor in the past."""
        assert slot is not None
        assert offer.slot.floor is not None
        assert offer.slot.floor <= slot.start <= offer.slot.start
        assert slot.prepare >= self.clock.seconds
        shares = tuple(replace(old, node=new.node) for old, new in zip(offer.slot.shares, slot.shares, strict=True))
        assert slot == replace(shifted(offer.slot, slot.start - offer.slot.start), shares=shares)
        offer.pulls += slot.start < offer.slot.start
        offer.slot = slot

    def waiting(self) -> list[Offer]:
        """The flexible sessions that have not begun, in the order in which they are pulled."""
        found = [
            one
            for one in self.offers.values()
            if one.phase == "HELD" and one.slot.floor is not None and one.slot.prepare > self.clock.seconds
        ]
        return sorted(found, key=lambda one: (-one.slot.priority, one.slot.start, one.created, one.uuid))

    def lacks(self, offer: Offer) -> bool:
        """Whether the platform has become too small for what a session holds beside all others, while it does."""
        now = self.clock.seconds
        pieces = future(bookings_of(offer.slot), now) if offer.phase in ("HELD", "RELEASING") else []
        return not is_free(pieces, future(self.expected(offer.uuid), now), self.sizes)

    def earliest(self, offer: Offer, last: int) -> int | None:
        """The first start by `last` at which there is room for it, with all else as it is: every second is tried."""
        slot, now = offer.slot, self.clock.seconds
        assert slot.floor is not None
        candidate = Candidate(slot.platform, slot.start - slot.prepare, slot.done - slot.end, slot.staging)
        begin = max(slot.floor, now + candidate.prepare)
        if begin > last:
            return None
        ask = Ask(
            parts=tuple(Part(Range(one.cores, one.cores), Range(one.memory, one.memory)) for one in slot.shares),
            storages=tuple(StorageAsk(Range(size, size), until - slot.done) for size, until in slot.storages),
            duration=slot.end - slot.start,
            earliest=begin,
            latest=last,
            candidates=(candidate,),
            limit=1,
            licences=slot.licences,
        )
        origin = begin - candidate.prepare
        beyond = last - slot.start + max([slot.done, *(until for _, until in slot.storages)])
        oracle = Oracle({"site": self.capacity}, beyond - origin + 1, origin=origin)
        oracle.take(self.expected(offer.uuid))
        found = next(Trial(oracle, ask, candidate).all_fits(begin, now), None)
        return found and found.start

    def fits_longer(self, slot: Slot, seconds: int) -> bool:
        """Whether what it would hold besides, if it were so much longer, is free."""
        own, grown, held = bookings_of(slot), bookings_of(longer(slot, seconds)), self.expected()
        for place, instant in {(piece.place, edge) for piece in (*own, *grown) for edge in (piece.start, piece.end)} | {
            (piece.place, piece.start) for piece in held if piece.start > slot.start
        }:
            more = held_at(grown, place, instant).minus(held_at(own, place, instant))
            if not more.within(self.sizes[place].minus(held_at(held, place, instant))):
                return False
        return True

    def in_memory(self) -> list[Booking]:
        return [piece for pieces in self.books.holdings._held.values() for piece in pieces]

    async def on_disk(self) -> list[Booking]:
        return [piece for _, piece in await self.ledger.bookings()]

    async def rows(self) -> list[SessionRow]:
        async with self.ledger.read() as connection:
            return [read_session(row) for row in (await connection.execute(select(sessions))).all()]

    async def said(self, uuid: UUID) -> list[str]:
        """The short names of the messages of a session."""
        return [json.loads(text)["kind"].rpartition(":")[2] for text in await self.ledger.messages(uuid)]

    async def check(self) -> None:
        """Memory, disk and audit against the test's own account, and that against what there is."""
        now = self.clock.seconds
        to_come = future(self.expected(), now)
        assert total(future(self.in_memory(), now)) == total(to_come)
        assert total(future(await self.on_disk(), now)) == total(to_come)
        assert (await audit(self.ledger, now)).errors == ()
        assert {owner: held for owner, held in self.books.holdings.offered.items() if held} == self.offered()
        assert self.caps.all is None or sum(self.offered().values()) <= self.caps.all * 3600
        await self._check_sessions()
        for place, size in self.sizes.items():
            if not self.books.timeline.has(place):
                assert size == Amounts()
                continue
            held = [piece for piece in to_come if piece.place == place]
            for instant in {now, *(edge for piece in held for edge in (piece.start, piece.end) if edge > now)}:
                here = held_at(held, place, instant)
                assert here.within(size.largest(held_at(self.held_before, place, instant)))
                assert self.books.timeline.least(place, instant, instant + 1) == size.minus(here)

    async def _check_sessions(self) -> None:
        phases = {"HELD": ("ACCEPTED", "WAITING"), "OVER": ("CANCELLED",)}
        rows = {row.uuid: row for row in await self.rows()}
        for offer in self.offers.values():
            row = rows[offer.uuid]
            assert row.phase in phases.get(offer.phase, (offer.phase,))
            assert row.slot == offer.slot or offer.phase == "OVER"
            if offer.phase == "HELD" and row.phase == "WAITING":
                assert row.due == offer.slot.prepare
            if offer.phase in ("HELD", "RELEASING"):
                said = await self.said(offer.uuid)
                assert offer.pulls <= said.count("pulled-forward") <= 2 * offer.pulls  # both at once, where nodes are lost
                assert offer.uuid not in self.warned or "node-shrunk" in said


def opened(work: Callable[[Desk], Awaitable[None]], prices: Prices | None = None) -> None:
    """Run this with a desk that is open."""

    async def run() -> None:
        desk = Desk(prices=prices)
        await desk.open()
        try:
            await work(desk)
        finally:
            await desk.close()
            desk.folder.cleanup()

    asyncio.run(run())
