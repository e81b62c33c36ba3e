"""The books on a real ledger: memory, ledger and what was promised always agree, and no node gives more than it has."""

import asyncio
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from brokersite import ManualClock
from execbroker.books.books import QUEUE, Books
from execbroker.errors import BrokerError, Busy, IllegalMove, NotFound
from execbroker.ledger import schema
from execbroker.ledger.audit import audit
from execbroker.ledger.ledger import Ledger
from execbroker.ledger.rows import SessionRow, State
from execbroker.model.sessions import ExecutionRequest
from execbroker.model.waist import Capacity, Node, Slot
from execbroker.offers.asking import Plan
from execbroker.offers.offering import Answer
from execbroker.offers.sizing import NodeAsk
from execbroker.offers.wanting import Wanted
from execbroker.scheduling.amounts import Amounts
from execbroker.scheduling.asks import Candidate, Part, Range, StorageAsk
from execbroker.scheduling.timeline import Booking, Place, bookings_of, envelope

T = TypeVar("T")
NODES = (Node("one", 4, 8, 20), Node("two", 3, 4, 10))
LASTS = 60


@cache
def empty_database() -> Path:
    path = Path(tempfile.mkdtemp(prefix="execbroker-test-")) / "empty.sqlite"
    schema.prepare(path)
    return path


def wanted(cores: int = 1, memory: int = 1, duration: int = 10, storages: Iterable[tuple[int, int]] = (), **more: Any) -> Wanted:
    """A request for so much; each storage is its size in GiB and its lifetime in seconds."""
    plan = Plan(
        ExecutionRequest(),
        nodes=[NodeAsk("compute", Range(cores, 2 * cores), Range(memory, 2 * memory))],
        storages=[StorageAsk(Range(size, 2 * size), lifetime) for size, lifetime in storages],
        duration=duration,
        start=(more.get("earliest", 0), more.get("latest", 1 << 40)),
        flexible=more.get("flexible", False),
    )
    candidate = Candidate(
        "site", more.get("prepare", 0), more.get("release", 0), parts=(Part(plan.nodes[0].cores, plan.nodes[0].memory),)
    )
    return Wanted("me", "{}", plan, (candidate,), ("site",), (), (), more.get("expires", LASTS), more.get("limit", 3), 0)


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


def most_held(pieces: Iterable[Booking]) -> dict[Place, Amounts]:
    """The most of each resource that is held of each node at any instant."""
    held: dict[Place, Amounts] = {}
    pieces = list(pieces)
    for place, instant in {(piece.place, piece.start) for piece in pieces}:
        now = Amounts()
        for piece in pieces:
            if piece.place == place and piece.start <= instant < piece.end:
                now = now.plus(piece.amounts)
        held[place] = held.get(place, now).largest(now)
    return held


@dataclass
class Offer:
    """What the test itself knows of an offer."""

    uuid: UUID
    offerset: UUID
    slot: Slot
    expires: int
    phase: str = "OFFERED"


class Desk:
    """Books on a ledger of their own, opened again at will, and what they should hold by the test's own account."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="execbroker-test-")
        self.path = Path(self.folder.name) / "ledger.sqlite"
        shutil.copy(empty_database(), self.path)
        self.clock = ManualClock()
        self.offers: dict[UUID, Offer] = {}
        self.kept: dict[UUID, list[Booking]] = {}

    async def open(self) -> None:
        self.ledger = Ledger(self.path)
        self.books = Books(self.ledger, self.clock)
        await self.books.open()
        await self.books.learn("site", Capacity(NODES))

    async def close(self) -> None:
        await self.books.close()
        await self.ledger.close()

    def enter(self, answer: Answer, phase: str = "OFFERED") -> list[UUID]:
        for row in answer.offers:
            if row.slot:
                self.offers[row.uuid] = Offer(row.uuid, row.offerset, row.slot, row.expires, phase)
        return [row.uuid for row in answer.offers if row.slot]

    def expire(self) -> None:
        """By the test's own account: offers whose time is over are gone. Every operation of the books begins with it."""
        for offer in self.offers.values():
            if offer.phase == "OFFERED" and offer.expires <= self.clock.seconds:
                offer.phase = "EXPIRED"

    def expected(self) -> list[Booking]:
        live: dict[UUID, list[Slot]] = {}
        for offer in self.offers.values():
            if offer.phase == "OFFERED":
                live.setdefault(offer.offerset, []).append(offer.slot)
        pieces = [piece for slots in live.values() for piece in envelope(slots)]
        pieces += [piece for offer in self.offers.values() if offer.phase == "HELD" for piece in bookings_of(offer.slot)]
        return pieces + [piece for kept in self.kept.values() for piece in kept]

    def in_memory(self) -> list[Booking]:
        return [piece for pieces in self.books.holdings._held.values() for piece in pieces]

    async def on_disk(self) -> list[Booking]:
        return [piece for _, piece in await self.ledger.bookings()]

    async def check(self) -> None:
        now = self.clock.seconds
        to_come = future(self.expected(), now)
        assert total(future(self.in_memory(), now)) == total(to_come)
        assert total(future(await self.on_disk(), now)) == total(to_come)
        assert (await audit(self.ledger, now)).errors == ()
        sizes = {Place("site", node.name): Amounts(node.cores, node.memory, node.storage) for node in NODES}
        for place, held in most_held(to_come).items():
            assert held.within(sizes[place])
        for place, size in sizes.items():
            held = [piece for piece in to_come if piece.place == place]
            for instant in {now, *(edge for piece in held for edge in (piece.start, piece.end) if edge > now)}:
                here = Amounts()
                for piece in held:
                    if piece.start <= instant < piece.end:
                        here = here.plus(piece.amounts)
                assert self.books.timeline.least(place, instant, instant + 1) == size.minus(here)


requests = st.builds(
    wanted,
    cores=st.integers(1, 4),
    memory=st.integers(1, 5),
    duration=st.integers(1, 40),
    storages=st.lists(st.tuples(st.integers(1, 6), st.integers(0, 50)), max_size=2),
    prepare=st.integers(0, 10),
    release=st.integers(0, 5),
    limit=st.integers(1, 4),
    expires=st.sampled_from((5, 20, LASTS)),
)


class BooksMachine(RuleBasedStateMachine):
    offers = Bundle("offers")
    running = Bundle("running")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.desk = Desk()
        self.runner.run(self.desk.open())

    def run(self, work: Awaitable[T]) -> T:
        async def run() -> T:
            return await work

        return self.runner.run(run())

    def teardown(self) -> None:
        self.run(self.desk.close())
        self.runner.close()
        self.desk.folder.cleanup()

    @rule(target=offers, request=requests)
    def ask(self, request: Wanted) -> Any:
        return multiple(*self.desk.enter(self.run(self._now(self.desk.books.offer(request)))))

    @rule(target=offers, several=st.lists(requests, min_size=2, max_size=4))
    def ask_at_once(self, several: list[Wanted]) -> Any:
        async def all_of_them() -> list[Answer]:
            return await asyncio.gather(*(self.desk.books.offer(request) for request in several))

        return multiple(*(uuid for answer in self.run(self._now(all_of_them())) for uuid in self.desk.enter(answer)))

    @rule(target=running, request=requests)
    def direct(self, request: Wanted) -> Any:
        answer = self.run(self._now(self.desk.books.direct(request)))
        return multiple(*self.desk.enter(answer, "HELD"))

    @rule(target=running, uuid=offers)
    def accept(self, uuid: UUID) -> Any:
        if not self._chosen(uuid, self.desk.books.accept):
            return multiple()
        self._take(uuid)
        return uuid

    @rule(target=running, one=offers, other=offers)
    def accept_two_at_once(self, one: UUID, other: UUID) -> Any:
        async def both() -> list[Any]:
            return await asyncio.gather(*(self.desk.books.accept(uuid) for uuid in (one, other)), return_exceptions=True)

        accepted = []
        for uuid, answer in zip((one, other), self.run(self._now(both())), strict=True):
            if self.desk.offers[uuid].phase == "OFFERED":
                assert isinstance(answer, SessionRow)
                self._take(uuid)
                accepted.append(uuid)
            else:
                assert isinstance(answer, IllegalMove)
        return multiple(*accepted)

    @rule(uuid=offers)
    def reject(self, uuid: UUID) -> None:
        if self._chosen(uuid, self.desk.books.reject):
            self.desk.offers[uuid].phase = "REJECTED"

    @rule(uuid=consumes(running), used=st.booleans())
    def cancel_and_settle(self, uuid: UUID, used: bool) -> None:
        self.run(self._now(self.desk.books.cancel(uuid)))
        row = self.run(self.desk.ledger.session(uuid))
        assert isinstance(row, SessionRow)
        now = self.desk.clock.seconds
        offer = self.desk.offers[uuid]
        used = used and now >= offer.slot.prepare
        row = replace(row, state=State(started=now if used else None))
        assert self.run(self._now(self.desk.books.settle(row, now, ())))
        offer.phase = "OVER"
        place = Place(offer.slot.platform, offer.slot.node)
        self.desk.kept[uuid] = [
            Booking(place, now, min(until, now + until - offer.slot.done), Amounts(storage=size))
            for size, until in offer.slot.storages
            if used and until > max(offer.slot.done, now)
        ]

    @rule(seconds=st.sampled_from((1, 5, 20, LASTS - 1, LASTS, 2 * LASTS)))
    def wait(self, seconds: int) -> None:
        self.desk.clock.advance(seconds)
        self.run(self._now(self.desk.books.expire()))

    @rule(back=st.sampled_from((1, 30, 4000, 100_000)))
    def clock_goes_back(self, back: int) -> None:
        self.desk.clock.step(-back)

    @rule()
    def restart(self) -> None:
        self.run(self.desk.close())
        self.run(self.desk.open())

    @rule(request=requests, uuid=offers)
    def fail_to_commit(self, request: Wanted, uuid: UUID) -> None:
        """A transaction of several operations that fails at its last: nothing of it may stay."""
        with sqlite3.connect(self.desk.path) as database:
            (known,) = database.execute("SELECT count(*) FROM offersets").fetchone()
            database.execute(
                f"CREATE TRIGGER broken BEFORE INSERT ON offersets WHEN (SELECT count(*) FROM offersets) > {known} "
                "BEGIN SELECT RAISE(ABORT, 'broken'); END"
            )
        database.close()

        async def at_once() -> list[Any]:
            work = self.desk.books.reject(uuid), self.desk.books.offer(request), self.desk.books.accept(uuid)
            return await asyncio.gather(*work, self.desk.books.offer(request), return_exceptions=True)

        answers = self.run(at_once())
        with sqlite3.connect(self.desk.path) as database:
            database.execute("DROP TRIGGER broken")
        database.close()
        assert len({*map(type, answers)}) == 1
        assert type(answers[0]) is BrokerError

    @invariant()
    def all_agree(self) -> None:
        self.run(self.desk.books.expire())
        self.desk.expire()
        self.run(self.desk.check())

    async def _now(self, work: Awaitable[T]) -> T:
        """What is over is over before anything else is done."""
        self.desk.expire()
        return await work

    def _chosen(self, uuid: UUID, verb: Callable[[UUID], Awaitable[Any]]) -> bool:
        """Whether the verb did it: it must where the offer is open, and must not where it is not."""
        self.desk.expire()
        try:
            self.run(verb(uuid))
        except IllegalMove:
            assert self.desk.offers[uuid].phase != "OFFERED"
            return False
        assert self.desk.offers[uuid].phase == "OFFERED"
        return True

    def _take(self, uuid: UUID) -> None:
        for sibling in self.desk.offers.values():
            if sibling.offerset == self.desk.offers[uuid].offerset and sibling.phase == "OFFERED":
                sibling.phase = "REJECTED"
        self.desk.offers[uuid].phase = "HELD"


TestBooks = BooksMachine.TestCase
TestBooks.settings = settings(max_examples=40, stateful_step_count=20)


def opened(work: Callable[[Desk], Awaitable[None]]) -> None:
    """Run this with a desk that is open."""

    async def run() -> None:
        desk = Desk()
        await desk.open()
        try:
            await work(desk)
        finally:
            await desk.close()
            desk.folder.cleanup()

    asyncio.run(run())


def test_a_failed_commit_leaves_the_order_of_expiry() -> None:
    async def work(desk: Desk) -> None:
        for expires in (50, 10, 40, 20, 30, 60):
            await desk.books.offer(replace(wanted(earliest=desk.clock.seconds + 100), expires=expires))
        with sqlite3.connect(desk.path) as database:
            database.execute("CREATE TRIGGER broken BEFORE INSERT ON offersets BEGIN SELECT RAISE(ABORT, 'broken'); END")
        database.close()
        for expires in (5, 35, 1):
            with pytest.raises(BrokerError, match="nothing was changed"):
                await desk.books.offer(replace(wanted(), expires=expires))
        expiries = desk.books.holdings._expiries
        assert all(expiries[(index - 1) // 2] <= expiries[index] for index in range(1, len(expiries)))
        assert desk.books.next_expiry == desk.clock.seconds + 10

    opened(work)


def test_what_is_booked_is_known_after_the_clock_was_far_ahead() -> None:
    """A clock that was wrong by a year and is put right: what is booked for today must not be given away again."""

    async def work(desk: Desk) -> None:
        await desk.books.direct(wanted(4, 4, duration=100, limit=1))
        desk.clock.step(365 * 86400)
        await desk.books.expire()
        desk.clock.step(-365 * 86400)
        now = desk.clock.seconds
        first = (await desk.books.offer(wanted(4, 4, duration=10, limit=1))).offers[0].slot
        assert first is not None
        assert first.start == now + 100

    opened(work)


def test_a_locked_database_is_busy_and_changes_nothing() -> None:
    async def work(desk: Desk) -> None:
        before = await desk.books.offer(wanted())
        with sqlite3.connect(desk.path, isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            answers = await asyncio.gather(
                desk.books.offer(wanted()), desk.books.accept(before.offers[0].uuid), return_exceptions=True
            )
            other.execute("ROLLBACK")
        other.close()
        assert [type(answer) for answer in answers] == [Busy, Busy]
        desk.enter(before)
        await desk.check()
        desk.enter(await desk.books.offer(wanted()))
        await desk.check()

    opened(work)


def test_a_queue_that_is_full_is_busy() -> None:
    async def work(desk: Desk) -> None:
        answers = await asyncio.gather(*(desk.books.expire() for _ in range(QUEUE + 5)), return_exceptions=True)
        assert [type(answer) for answer in answers] == [type(None)] * QUEUE + [Busy] * 5

    opened(work)


def test_a_client_that_goes_away_leaves_the_books_in_order() -> None:
    async def work(desk: Desk) -> None:
        clients = [asyncio.create_task(desk.books.offer(wanted())) for _ in range(5)]
        await asyncio.sleep(0)
        clients[2].cancel()
        answers = await asyncio.gather(*clients, return_exceptions=True)
        assert isinstance(answers[2], asyncio.CancelledError)
        for answer in answers:
            if isinstance(answer, Answer):
                desk.enter(answer)
        held = total(future(await desk.on_disk(), desk.clock.seconds))
        assert held == total(future(desk.in_memory(), desk.clock.seconds))
        desk.enter(await desk.books.offer(wanted()))
        assert (await audit(desk.ledger, desk.clock.seconds)).errors == ()

    opened(work)


def test_of_two_who_accept_siblings_at_once_one_wins() -> None:
    async def work(desk: Desk) -> None:
        one, other, _ = desk.enter(await desk.books.offer(wanted(4, 4)))
        answers = await asyncio.gather(desk.books.accept(one), desk.books.accept(other), return_exceptions=True)
        assert isinstance(answers[0], SessionRow)
        assert isinstance(answers[1], IllegalMove)
        assert answers[1].extra == {"phase": "REJECTED", "allowed": []}
        row = await desk.ledger.session(one)
        assert row is not None
        assert row.slot is not None
        assert total(desk.in_memory()) == total(bookings_of(row.slot))

    opened(work)


def test_what_is_over_cannot_be_accepted_in_the_batch_that_finds_it_over() -> None:
    async def work(desk: Desk) -> None:
        first, *_ = desk.enter(await desk.books.offer(wanted(earliest=desk.clock.seconds + 1000)))
        desk.clock.advance(LASTS)
        with pytest.raises(IllegalMove, match="EXPIRED"):
            await desk.books.accept(first)
        assert desk.in_memory() == []
        assert await desk.on_disk() == []

    opened(work)


def test_nobody_settles_a_session_whose_lease_is_anothers() -> None:
    async def work(desk: Desk) -> None:
        (uuid,) = desk.enter(await desk.books.direct(wanted()), "HELD")
        await desk.books.cancel(uuid)
        row = await desk.ledger.session(uuid)
        assert row is not None
        assert not await desk.books.settle(replace(row, lease="another"), desk.clock.seconds, ())
        await desk.check()
        with pytest.raises(NotFound):
            await desk.books.cancel(UUID(int=0))

    opened(work)


def test_storage_of_a_session_that_is_over_late_is_kept_no_longer_than_it_was_booked() -> None:
    async def work(desk: Desk) -> None:
        (uuid,) = desk.enter(await desk.books.direct(wanted(4, 4, storages=[(20, 50)])), "HELD")
        end = desk.offers[uuid].slot.storages[0][1]
        after = await desk.books.direct(wanted(1, 1, earliest=end, storages=[(20, 50)], latest=end))
        desk.enter(after, "HELD")
        await desk.books.cancel(uuid)
        row = await desk.ledger.session(uuid)
        assert row is not None
        desk.clock.advance(40)
        now = desk.clock.seconds
        assert await desk.books.settle(replace(row, state=State(started=now - 30)), now, ())
        desk.offers[uuid].phase = "OVER"
        place = Place("site", desk.offers[uuid].slot.node)
        desk.kept[uuid] = [Booking(place, now, end, Amounts(storage=20))]
        await desk.check()

    opened(work)
