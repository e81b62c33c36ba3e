"""The books on a real ledger: memory, ledger and what was promised always agree, and no node gives more than it has."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar
from uuid import UUID

import pytest
from bookdesk import LASTS, NODES, Desk, future, is_free, longer, opened, total, wanted
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

import stores
from execbroker.books.batches import QUEUE
from execbroker.books.caps import Caps
from execbroker.errors import BrokerError, Busy, IllegalMove, NoRoom, NotFound
from execbroker.ledger.audit import audit
from execbroker.ledger.rows import SessionRow, State
from execbroker.model.waist import Node
from execbroker.offers.offering import Answer
from execbroker.offers.wanting import Wanted
from execbroker.scheduling.amounts import Amounts
from execbroker.scheduling.timeline import Booking, Place, bookings_of

T = TypeVar("T")
SITES = (
    NODES,
    (NODES[0],),
    (Node("one", 2, 8, 20), NODES[1]),
    (*NODES, Node("three", 4, 4, 20)),
    (Node("one", 8, 16, 40), NODES[1]),
)
CAPS = (Caps(), Caps(), Caps(owner=1), Caps(all=1), Caps(owner=1, all=1))

requests = st.builds(
    wanted,
    cores=st.integers(1, 4),
    memory=st.integers(1, 5),
    duration=st.integers(1, 40) | st.just(400),
    storages=st.lists(st.tuples(st.integers(1, 6), st.integers(0, 50)), max_size=2),
    nodes=st.sampled_from((1, 1, 1, 2)),
    licences=st.sampled_from((0, 0, 1, 2)),
    prepare=st.integers(0, 10),
    staging=st.sampled_from((0, 4, 10)),
    release=st.integers(0, 5),
    limit=st.integers(1, 4),
    expires=st.sampled_from((5, 20, LASTS)),
    flexible=st.booleans(),
    priority=st.integers(0, 2),
    owner=st.sampled_from(("me", "you")),
)
flexible_ones = st.builds(
    wanted,
    cores=st.integers(2, 4),
    duration=st.integers(10, 60),
    prepare=st.integers(0, 10),
    storages=st.lists(st.tuples(st.integers(1, 6), st.integers(0, 50)), max_size=1),
    flexible=st.just(True),
    priority=st.integers(0, 2),
)


class BooksMachine(RuleBasedStateMachine):
    offers = Bundle("offers")
    running = Bundle("running")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()

    @initialize(caps=st.sampled_from(CAPS))
    def open(self, caps: Caps) -> None:
        self.desk = Desk(caps)
        self.run(self.desk.open())

    def run(self, work: Awaitable[T]) -> T:
        async def run() -> T:
            return await work

        return self.runner.run(run())

    def act(self, work: Awaitable[T], then: Callable[[T], bool] = lambda _: False) -> T:
        return self.run(self.desk.act(work, then))

    def teardown(self) -> None:
        self.run(self.desk.close())
        self.runner.close()
        self.desk.folder.cleanup()

    @rule(target=offers, request=requests)
    def ask(self, request: Wanted) -> Any:
        return self.ask_at_once([request])

    @rule(target=offers, several=st.lists(requests, min_size=2, max_size=4))
    def ask_at_once(self, several: list[Wanted]) -> Any:
        async def all_of_them() -> list[Answer]:
            return await asyncio.gather(*(self.desk.books.offer(request) for request in several))

        made: list[UUID] = []

        def then(answers: list[Answer]) -> bool:
            for answer in answers:
                made.extend(self.desk.enter(answer))
                assert answer.offers or answer.messages
            return False

        self.act(all_of_them(), then)
        return multiple(*made)

    @rule(target=running, request=requests)
    def direct(self, request: Wanted) -> Any:
        return self._direct(request)

    @rule(target=running, several=st.lists(flexible_ones, min_size=2, max_size=4))
    def queue_up(self, several: list[Wanted]) -> Any:
        made = [self._direct(replace(one, limit=1)) for one in several]
        return multiple(*(uuid for one in made for uuid in one.values))

    def _direct(self, request: Wanted) -> Any:
        made: list[UUID] = []

        def then(answer: Answer) -> bool:
            made.extend(self.desk.enter(answer, "HELD"))
            return False

        self.act(self.desk.books.direct(request), then)
        return multiple(*made)

    @rule(target=running, uuid=offers)
    def accept(self, uuid: UUID) -> Any:
        return self.accept_two_at_once(uuid, uuid)

    @rule(target=running, one=offers, other=offers)
    def accept_two_at_once(self, one: UUID, other: UUID) -> Any:
        async def both() -> list[Any]:
            return await asyncio.gather(*(self.desk.books.accept(uuid) for uuid in (one, other)), return_exceptions=True)

        accepted: list[UUID] = []

        def then(answers: list[Any]) -> bool:
            for uuid, answer in zip((one, other), answers, strict=True):
                if self.desk.offers[uuid].phase == "OFFERED" and self._still_possible(uuid):
                    assert isinstance(answer, SessionRow)
                    self.desk.take(uuid)
                    accepted.append(uuid)
                else:
                    assert isinstance(answer, IllegalMove)
            return bool(accepted)

        self.act(both(), then)
        return multiple(*accepted)

    def _still_possible(self, uuid: UUID) -> bool:
        """Whether there is room for it still, on nodes that may have become smaller, beside all but its siblings."""
        offer = self.desk.offers[uuid]
        pieces = future(bookings_of(offer.slot), self.desk.clock.seconds)
        return is_free(pieces, self.desk.expected(siblings_of=offer.offerset), self.desk.sizes)

    @rule(uuid=offers)
    def reject(self, uuid: UUID) -> None:
        async def work() -> Any:
            return (await asyncio.gather(self.desk.books.reject(uuid), return_exceptions=True))[0]

        def then(answer: Any) -> bool:
            offer = self.desk.offers[uuid]
            assert isinstance(answer, SessionRow if offer.phase == "OFFERED" else IllegalMove)
            if offer.phase != "OFFERED":
                return False
            offer.phase = "REJECTED"
            return True

        self.act(work(), then)

    @rule(uuid=running, seconds=st.integers(-60, 60) | st.sampled_from((1, 10, 500)))
    def extend(self, uuid: UUID, seconds: int) -> None:
        async def work() -> Any:
            return (await asyncio.gather(self.desk.books.extend(uuid, seconds), return_exceptions=True))[0]

        def then(answer: Any) -> bool:
            offer, now = self.desk.offers[uuid], self.desk.clock.seconds
            slot = offer.slot
            if offer.phase != "HELD" or now >= slot.end:
                assert isinstance(answer, IllegalMove)
                return False
            if slot.end + seconds <= max(slot.start, now):
                assert isinstance(answer, NoRoom)
                return False
            if seconds > 0 and not self.desk.fits_longer(slot, seconds):
                assert isinstance(answer, NoRoom)
                room = answer.extra["seconds"]
                assert self.desk.fits_longer(slot, room)
                assert not self.desk.fits_longer(slot, room + 1)
                return False
            assert isinstance(answer, SessionRow), answer
            offer.slot = longer(slot, seconds)
            return True

        self.act(work(), then)

    @rule(uuid=consumes(running), used=st.booleans())
    def cancel_and_settle(self, uuid: UUID, used: bool) -> None:
        offer = self.desk.offers[uuid]

        def cancelled(_: Any) -> bool:
            offer.phase = "RELEASING"
            return False

        self.act(self.desk.books.cancel(uuid), cancelled)
        row = self.run(self.desk.ledger.session(uuid))
        assert isinstance(row, SessionRow)
        now = self.desk.clock.seconds
        used = used and now >= offer.slot.prepare

        def settled(done: bool) -> bool:
            assert done
            offer.phase = "OVER"
            self.desk.kept[uuid] = [
                Booking(Place("site", offer.slot.node), now, min(until, now + until - offer.slot.done), Amounts(storage=size))
                for size, until in offer.slot.storages
                if used and until > max(offer.slot.done, now)
            ]
            return True

        self.act(self.desk.books.settle(replace(row, state=State(started=now if used else None)), now, ()), settled)

    @rule(nodes=st.sampled_from(SITES))
    def learn(self, nodes: tuple[Node, ...]) -> None:
        self.run(self.desk.learn(nodes))

    @rule(seconds=st.sampled_from((1, 5, 20, LASTS - 1, LASTS, 2 * LASTS)))
    def wait(self, seconds: int) -> None:
        self.desk.clock.advance(seconds)
        self.act(self.desk.books.expire())

    @rule(back=st.sampled_from((1, 30, 4000, 100_000)))
    def clock_goes_back(self, back: int) -> None:
        """The engine then looks at the platforms at once."""
        self.desk.clock.step(-back)
        self.run(self.desk.learn(self.desk.nodes))

    @rule()
    def restart(self) -> None:
        self.run(self.desk.close())
        self.act(self.desk.open(), lambda _: True)

    @rule(request=requests, uuid=offers, held=running, seconds=st.sampled_from((-5, 5)), nodes=st.sampled_from(SITES))
    def fail_to_commit(self, request: Wanted, uuid: UUID, held: UUID, seconds: int, nodes: tuple[Node, ...]) -> None:
        """A transaction of several operations that fails at its last: nothing of it may stay."""
        books, before = self.desk.books, self.desk.books.capacities["site"]

        async def at_once() -> list[Any]:
            work = books.reject(uuid), books.offer(request), books.extend(held, seconds), books.cancel(held), books.accept(uuid)
            more = books.learn("site", replace(before, nodes=nodes)), books.direct(request), books.offer(request)
            return await asyncio.gather(*work, *more, return_exceptions=True)

        with stores.refusing_offersets(self.desk.path, after=1):
            answers = self.run(at_once())
        assert {*map(type, answers)} == {BrokerError}
        assert books.capacities["site"] == before
        self.desk.unsure = True

    @invariant()
    def all_agree(self) -> None:
        self.act(self.desk.books.expire())
        self.run(self.desk.check())


TestBooks = BooksMachine.TestCase
TestBooks.settings = settings(max_examples=30, stateful_step_count=20)


def test_a_failed_commit_leaves_the_order_of_expiry() -> None:
    async def work(desk: Desk) -> None:
        for expires in (50, 10, 40, 20, 30, 60):
            await desk.books.offer(replace(wanted(earliest=desk.clock.seconds + 100), expires=expires))
        with stores.refusing_offersets(desk.path):
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
        with stores.connection(desk.path) as other:
            other.execute(stores.alone())
            answers = await asyncio.gather(
                desk.books.offer(wanted()), desk.books.accept(before.offers[0].uuid), return_exceptions=True
            )
            other.execute("ROLLBACK")
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
        desk.offers[uuid].phase = "RELEASING"
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
