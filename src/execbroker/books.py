import asyncio
import heapq
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import structlog
from sqlalchemy import ColumnElement, select, update

from execbroker.engine.lifecycle import CHOICES, Wait, step
from execbroker.errors import BrokerError, Busy, IllegalMove, NotFound, StorageFull
from execbroker.faults import reach
from execbroker.ledger.ledger import Ledger
from execbroker.ledger.rows import SessionRow, read_session
from execbroker.ledger.tables import sessions
from execbroker.ledger.transaction import Transaction
from execbroker.model.messages import MessageItem, message
from execbroker.model.phases import Phase
from execbroker.model.times import Clock
from execbroker.model.waist import Capacity, Slot
from execbroker.offering import Answer, Wanted, answer_to, clip, ended, session_of
from execbroker.scheduling.profile import NOTHING, Amounts
from execbroker.scheduling.refusal import why_not
from execbroker.scheduling.search import find
from execbroker.scheduling.timeline import Booking, Place, Timeline, bookings_of, envelope

T = TypeVar("T")
Operation = Callable[[Transaction, int], Awaitable[T]]

QUEUE = 1024
BATCH = 64
OVERRUN = 120  # seconds
PAST = 3600  # seconds of the past that are kept in memory, against a clock that steps back
log = structlog.get_logger()


class Books:
    """Who holds what: the only keeper of the timeline and the only writer of bookings.

    Operations queue up; one task takes all that wait, does them in memory and in one transaction, and answers after the
    commit. Where the commit fails, memory is put back as it was.
    """

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger, self._clock = ledger, clock
        self.timeline = Timeline()
        self.capacities: dict[str, Capacity] = {}
        self._held: dict[UUID, list[Booking]] = {}
        self._expiries: list[tuple[int, UUID]] = []
        self._queue: asyncio.Queue[tuple[Operation[Any], asyncio.Future[Any]]] = asyncio.Queue(QUEUE)
        self._undo: list[Callable[[], None]] = []
        self._known_from = 0
        self._worker: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Read the bookings back, and start work."""
        await self._reload()
        self._worker = asyncio.create_task(self._work(), name="books")

    async def close(self) -> None:
        """Finish what waits, then stop."""
        await self._queue.join()
        if self._worker:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)

    async def _reload(self) -> None:
        for holder, booking in await self._ledger.bookings():
            self._held.setdefault(holder, []).append(booking)
            self.timeline.take([booking])
        self._expiries = [(expires, uuid) for uuid, expires in await self._ledger.open_offersets()]
        heapq.heapify(self._expiries)

    def set_capacity(self, platform: str, capacity: Capacity) -> None:
        self.capacities[platform] = capacity
        self.timeline.set_capacity(platform, capacity.nodes)

    @property
    def next_expiry(self) -> int | None:
        return self._expiries[0][0] if self._expiries else None

    async def offer(self, wanted: Wanted) -> Answer:
        """Find offers, hold them, write them down; NO, with the reasons, where there are none. Raises Busy, StorageFull."""

        async def operation(transaction: Transaction, now: int) -> Answer:
            slots = find(self.timeline, wanted.ask, now)
            answer = answer_to(wanted, slots, now, self._reasons(wanted, slots))
            transaction.add_offerset(answer.offerset, answer.offers)
            if slots:
                self._hold(transaction, answer.offerset.uuid, envelope(slots))
                for expires in {offer.expires for offer in answer.offers}:
                    self._expect(expires, answer.offerset.uuid)
            return answer

        return await self._take_on(operation)

    async def direct(self, wanted: Wanted) -> Answer:
        """Hold the first slot there is and accept it at once; a FAILED session, with the reasons, where there is none."""

        async def operation(transaction: Transaction, now: int) -> Answer:
            slots = find(self.timeline, replace(wanted.ask, limit=1), now)
            answer = answer_to(wanted, slots, now, self._reasons(wanted, slots))
            row = answer.offers[0] if slots else session_of(answer.offerset, None, 0, now)
            row = replace(row, phase=Phase.ACCEPTED if slots else Phase.FAILED, due=now if slots else None)
            transaction.add_offerset(answer.offerset, [row])
            transaction.record(row.uuid, row.phase, now, *answer.messages)
            if row.slot:
                self._hold(transaction, row.uuid, bookings_of(row.slot))
            return replace(answer, offers=(row,))

        return await self._take_on(operation)

    async def accept(self, uuid: UUID) -> SessionRow:
        """Make an offer the owner's; its siblings are REJECTED and what they held is free. Raises IllegalMove."""

        async def operation(transaction: Transaction, now: int) -> SessionRow:
            row = await _find(transaction, uuid, Phase.ACCEPTED)
            assert row.slot is not None
            self._check_size(row.slot)
            late = now - row.slot.start
            warning = message("WARN", "late", "Accepted {late} s after its start; it ends as promised", late=late)
            await transaction.move(row, Phase.ACCEPTED, now, [warning] if late > 0 else [], due=now)
            accepted = replace(row, phase=Phase.ACCEPTED, modified=now)
            if isinstance(then := step(Phase.WAITING, row.slot, now), Wait):  # nothing for the engine to do before that
                await transaction.move(accepted, Phase.WAITING, now, due=then.until)
            await _turn_down(transaction, [row.offerset], Phase.REJECTED, now)
            await self._release(transaction, row.offerset)
            self._hold(transaction, uuid, bookings_of(row.slot))
            return accepted

        return await self.write(operation)

    async def reject(self, uuid: UUID) -> SessionRow:
        """Turn an offer down; the others stay. Raises IllegalMove."""

        async def operation(transaction: Transaction, now: int) -> SessionRow:
            row = await _find(transaction, uuid, Phase.REJECTED)
            await transaction.move(row, Phase.REJECTED, now)
            await self._shrink(transaction, [row.offerset])
            return replace(row, phase=Phase.REJECTED, modified=now)

        return await self.write(operation)

    async def cancel(self, uuid: UUID) -> SessionRow:
        """Stop an accepted session, wherever it has got to: it is released first, then CANCELLED. Raises IllegalMove."""

        async def operation(transaction: Transaction, now: int) -> SessionRow:
            row = await _find(transaction, uuid, Phase.CANCELLED)
            said = [message("INFO", "cancelled", "Cancelled by its owner")]
            await transaction.move(row, Phase.RELEASING, now, said, outcome=Phase.CANCELLED, due=now)
            return replace(row, phase=Phase.RELEASING, outcome=Phase.CANCELLED, modified=now)

        return await self.write(operation)

    async def settle(self, row: SessionRow, now: int, said: Iterable[MessageItem], **values: Any) -> bool:
        """End a released session and give back what it held; storage that was used is kept for its lifetime from now.

        False, and nothing done, where the session has moved on or `row.lease` is no longer its lease.
        """

        async def operation(transaction: Transaction, _: int) -> bool:
            assert row.outcome is not None
            assert row.slot is not None
            slot = ended(row.slot, now, used=row.state.started is not None)
            due = min((until for _, until in slot.storages), default=None)
            if not await transaction.move(row, row.outcome, now, said, row.lease, slot=slot, due=due, **values):
                return False
            await self._release(transaction, row.uuid)
            self._hold(transaction, row.uuid, clip(bookings_of(slot), now))
            return True

        return await self.write(operation)

    async def overrun(self, uuid: UUID, slot: Slot) -> None:
        """A session that is not released in time: hold on to what is still free of its node, minute by minute, so that
        nothing new is offered on top of it. Those who have been promised the time already keep their promise."""

        async def operation(transaction: Transaction, now: int) -> None:
            pieces = [piece for piece in self._held.get(uuid, []) if piece.amounts.cores or piece.amounts.memory]
            start = max([now, *(piece.end for piece in pieces)])
            place = Place(slot.platform, slot.node)
            if start >= now + OVERRUN // 2 or place not in self.timeline.profiles:
                return
            free = self.timeline.profiles[place].least(start, now + OVERRUN)
            amounts = free.smallest(Amounts(slot.cores, slot.memory)).largest(NOTHING)
            if amounts != NOTHING:
                self._hold(transaction, uuid, [Booking(place, start, now + OVERRUN, amounts)])

        await self.write(operation)

    async def let_go(self, uuid: UUID) -> None:
        """Forget what an ended session held, once its storage is deleted."""

        async def operation(transaction: Transaction, _: int) -> None:
            await self._release(transaction, uuid)

        await self.write(operation)

    async def expire(self) -> None:
        """Let the offers go whose time is over, as every other operation does first."""

        async def operation(transaction: Transaction, now: int) -> None:
            pass

        await self.write(operation)

    def _now(self) -> int:
        return int(self._clock.now().timestamp())

    async def _take_on(self, operation: Operation[T]) -> T:
        """Do what would fill the disk further, unless it is full already."""
        if self._ledger.reserve.spent:
            self._ledger.reserve.restore()
        if self._ledger.reserve.spent:
            raise StorageFull("The broker's disk is full: nothing new is taken on until there is room again")
        return await self.write(operation)

    async def write(self, operation: Operation[T]) -> T:
        """Do this in the next transaction, with whatever else waits: one flush of the disk serves them all.

        An operation gets the transaction and the time. It may raise IllegalMove or NotFound before it has written anything;
        whatever else goes wrong undoes all of the transaction. Raises Busy, StorageFull.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait((operation, future))
        except asyncio.QueueFull:
            raise Busy(f"{QUEUE} requests are waiting already") from None
        return await future

    async def _work(self) -> None:
        while True:
            batch = [await self._queue.get()]
            while len(batch) < BATCH and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            try:
                await self._commit(batch)
            finally:
                for _ in batch:
                    self._queue.task_done()

    async def _commit(self, batch: list[tuple[Operation[Any], asyncio.Future[Any]]]) -> None:
        now = self._now()
        self._forget_the_past(now)
        answers: list[Any] = []
        try:
            async with self._ledger.write() as transaction:
                await self._expire(transaction, now)
                for operation, _ in batch:
                    answers.append(await _attempt(operation, transaction, now))
                await transaction.flush()
                reach("books.writing")
            reach("books.written")
        except Exception as error:  # whatever it was, nothing is committed, so nothing may stay in memory
            for undo in reversed(self._undo):
                undo()
            if not isinstance(error, BrokerError):
                log.exception("books.commit_failed")
                error = BrokerError("The ledger could not be written; nothing was changed")
            answers = [error] * len(batch)
        self._undo.clear()
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, BaseException):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    def _forget_the_past(self, now: int) -> None:
        """Where the clock has gone back further than was kept, what was forgotten is to come again: take everything anew."""
        if now < self._known_from:
            self.timeline.rebuild(piece for pieces in self._held.values() for piece in pieces)
            self._known_from = 0
        self._known_from = max(self._known_from, now - PAST)
        self.timeline.forget(self._known_from)

    def _hold(self, transaction: Transaction, holder: UUID, pieces: list[Booking]) -> None:
        """Book in memory and in the transaction; undone where it is not committed."""
        if not pieces:
            return
        transaction.book(holder, pieces)
        self.timeline.take(pieces)
        before = self._held.get(holder, [])
        self._held[holder] = [*before, *pieces]

        def undo() -> None:
            self.timeline.give(pieces)
            self._held[holder] = before
            if not before:
                del self._held[holder]

        self._undo.append(undo)

    async def _release(self, transaction: Transaction, *holders: UUID) -> None:
        await transaction.unbook(holders)
        for holder in holders:
            if pieces := self._held.pop(holder, None):
                self.timeline.give(pieces)
                self._undo.append(partial(self._put_back, holder, pieces))

    def _put_back(self, holder: UUID, pieces: list[Booking]) -> None:
        self.timeline.take(pieces)
        self._held[holder] = pieces

    def _expect(self, expires: int, offerset: UUID) -> None:
        entry = (expires, offerset)
        heapq.heappush(self._expiries, entry)
        self._undo.append(partial(self._expect_no_more, entry))

    def _expect_no_more(self, entry: tuple[int, UUID]) -> None:
        self._expiries.remove(entry)
        heapq.heapify(self._expiries)

    async def _expire(self, transaction: Transaction, now: int) -> None:
        due: list[UUID] = []
        while self._expiries and self._expiries[0][0] <= now:
            entry = heapq.heappop(self._expiries)
            self._undo.append(partial(heapq.heappush, self._expiries, entry))
            due.append(entry[1])
        for start in range(0, len(due), 500):
            some = due[start : start + 500]
            await _turn_down(transaction, some, Phase.EXPIRED, now, sessions.c.expires <= now)
            await self._shrink(transaction, some)

    async def _shrink(self, transaction: Transaction, offersets: list[UUID]) -> None:
        """Hold for each of these only what its remaining offers need."""
        texts = [str(uuid) for uuid in offersets]
        query = select(sessions).where(sessions.c.offerset.in_(texts), sessions.c.phase == Phase.OFFERED.value)
        left: dict[UUID, list[Slot]] = {}
        for row in map(read_session, await transaction.fetch(query)):
            if row.slot:
                left.setdefault(row.offerset, []).append(row.slot)
        await self._release(transaction, *offersets)
        for offerset, slots in left.items():
            self._hold(transaction, offerset, envelope(slots))

    def _check_size(self, slot: Slot) -> None:
        """The node may have become smaller since the offer was made. Raises IllegalMove."""
        profile = self.timeline.profiles.get(Place(slot.platform, slot.node))
        if profile is None or any(not piece.amounts.within(profile.capacity) for piece in bookings_of(slot)):
            text = f"{slot.platform} has become smaller and cannot keep this offer any more; ask again"
            raise IllegalMove(text, phase=Phase.OFFERED.value, allowed=[Phase.REJECTED.value])

    def _reasons(self, wanted: Wanted, slots: list[Slot]) -> list[MessageItem]:
        if slots:
            return []
        said = {reason.kind for reason in wanted.reasons}
        more = why_not(self.timeline, wanted.ask, wanted.platforms)
        return [*wanted.reasons, *(reason for reason in more if reason.kind not in said)]


async def _attempt(operation: Operation[T], transaction: Transaction, now: int) -> T | BrokerError:
    """The operation's result; a refusal is its own, and leaves the others of the batch alone."""
    try:
        return await operation(transaction, now)
    except (IllegalMove, NotFound) as refusal:
        return refusal


async def _find(transaction: Transaction, uuid: UUID, choice: Phase) -> SessionRow:
    """The session as it is now, if its owner may choose `choice`. Raises NotFound, IllegalMove."""
    rows = await transaction.fetch(select(sessions).where(sessions.c.uuid == str(uuid)))
    if not rows:
        raise NotFound(f"There is no session {uuid}")
    row = read_session(rows[0])
    allowed = CHOICES.get(row.phase, ())
    if choice not in allowed:
        names = " or ".join(allowed) or "nothing any more"
        raise IllegalMove(
            f"The session is {row.phase}; what can be asked for now: {names}", phase=row.phase.value, allowed=[*map(str, allowed)]
        )
    return row


async def _turn_down(transaction: Transaction, offersets: list[UUID], to: Phase, now: int, *which: ColumnElement[bool]) -> None:
    """Move the open offers of these to REJECTED or EXPIRED."""
    guard = (sessions.c.offerset.in_([str(uuid) for uuid in offersets]), sessions.c.phase == Phase.OFFERED.value, *which)
    changed = {"phase": to.value, "modified": now, "version": sessions.c.version + 1}
    rows = await transaction.fetch(update(sessions).where(*guard).values(**changed).returning(sessions.c.uuid))
    for row in rows:
        transaction.record(UUID(row.uuid), to, now)
    transaction.touched |= {UUID(row.uuid) for row in rows} | set(offersets)
