from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, select

from execbroker.books.accounting import Accounting
from execbroker.books.batches import Batches, Operation, T, nothing
from execbroker.books.caps import Caps
from execbroker.books.extending import Extending
from execbroker.books.following import Following
from execbroker.books.holdings import Holdings
from execbroker.books.pulling import Pulling
from execbroker.engine.lifecycle import CHOICES, Wait, step
from execbroker.errors import IllegalMove, NotFound, Outdated, StorageFull
from execbroker.ledger.journal import capacity_now
from execbroker.ledger.ledger import Ledger
from execbroker.ledger.rows import SessionRow, read_session
from execbroker.ledger.tables import sessions
from execbroker.ledger.transaction import Transaction
from execbroker.model.messages import MessageItem, message
from execbroker.model.phases import Phase
from execbroker.model.prices import Prices
from execbroker.model.times import Clock
from execbroker.model.waist import Capacity, Slot
from execbroker.offers.offering import Answer, answer_to, clip, ended, session_of
from execbroker.offers.quoting import within
from execbroker.offers.refusing import why_not
from execbroker.offers.wanting import Wanted
from execbroker.policies.rules import Policies
from execbroker.scheduling.amounts import NOTHING, Amounts
from execbroker.scheduling.moving import Limits, fits, longer, room_after
from execbroker.scheduling.objectives import find
from execbroker.scheduling.quotas import Quota
from execbroker.scheduling.timeline import SHARED, Booking, Kept, Place, Timeline, bookings_of, envelope, share_of

OVERRUN = 120  # seconds


class Books:
    """Who holds what: the only keeper of the timeline and the only writer of bookings."""

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        prices: Mapping[str, Prices] | None = None,
        caps: Caps | None = None,
        policies: Mapping[str, Policies] | None = None,
    ) -> None:
        self._ledger, self._clock = ledger, clock
        self.holdings = Holdings(ledger)
        self.capacities: dict[str, Capacity] = {}
        self._prices, self._caps = prices or {}, caps or Caps()
        self._accounting = Accounting(self.holdings, policies or {})
        self._pulling = Pulling(self.holdings, self._prices, self._accounting)
        self._extending = Extending(self.holdings, self._prices, self._accounting, self._pulling)
        self._following = Following(ledger, self.holdings, self._pulling, self._accounting, self._relearn)
        self._batches = Batches(ledger, clock, self.holdings, self._following, self._expire, self._pull)

    async def open(self) -> None:
        """Read the bookings back, and start work."""
        await self._following.reload(self._now())
        self._batches.open()

    async def close(self) -> None:
        """Finish what waits, then stop."""
        await self._batches.close()

    @property
    def timeline(self) -> Timeline:
        return self.holdings.timeline

    @property
    def next_expiry(self) -> int | None:
        return self.holdings.next_expiry

    async def learn(self, platform: str, capacity: Capacity, kept: Iterable[Kept] = ()) -> None:
        """What a platform has now: sessions that wait are pulled forward to what is new, and brought away from what is lost."""

        async def operation(transaction: Transaction, now: int) -> None:
            first = self._set_capacity(platform, capacity, tuple(kept))
            places = [Place(platform, SHARED), *(Place(platform, node) for node in self.timeline.site(platform).nodes)]
            short = {place for place in places if self.timeline.short(place, now)}
            sizes = {place: self.timeline.capacity(place) for place in places}
            changed = await transaction.set_capacities(platform, sizes, short, now)
            if changed or first:
                self.holdings.freed.add(platform)
            if changed and short:
                await self._pulling.rescue(transaction, platform, short, now)

        await self.write(operation)

    async def _relearn(self, transaction: Transaction, platform: str) -> None:
        """Another broker has learnt what a platform has now."""
        if known := self.capacities.get(platform):
            kept = self.timeline.site(platform).kept
            capacity = self.capacities[platform] = await capacity_now(transaction, platform, known)
            self.timeline.set_capacity(platform, capacity, kept)

    def _set_capacity(self, platform: str, capacity: Capacity, kept: tuple[Kept, ...]) -> bool:
        """Whether it was not known before; what came free until then, when the broker was down say, was for nobody."""
        known, kept_before = self.capacities.get(platform), self.timeline.site(platform).kept

        def undo() -> None:
            self.timeline.set_capacity(platform, known or Capacity(()), kept_before)
            if known:
                self.capacities[platform] = known
            else:
                del self.capacities[platform]

        self.holdings.on_undo(undo)
        self.timeline.set_capacity(platform, capacity, kept)
        self.capacities[platform] = capacity
        return known is None

    async def offer(self, wanted: Wanted) -> Answer:
        """Find offers, hold them, write them down; NO, with the reasons, where there are none. Raises Busy, StorageFull."""

        async def operation(transaction: Transaction, now: int) -> Answer:
            choices, held = self._accounting.find(wanted.ask, now)
            pieces = envelope(choice.slot for choice in choices)
            over = self._caps.reasons_against(pieces, wanted.owner, self.holdings.offered)
            choices = [] if over else choices
            answer = answer_to(wanted, choices, now, over or held or ([] if choices else self._reasons(wanted, now)))
            transaction.add_offerset(answer.offerset, answer.offers, answer.callbacks)
            if choices:
                self.holdings.hold(transaction, answer.offerset.uuid, pieces, wanted.owner)
                self._accounting.offer(answer.offerset.uuid, answer.offers)
                for expires in {offer.expires for offer in answer.offers}:
                    self.holdings.expect(expires, answer.offerset.uuid)
            return answer

        return await self._take_on(operation, ahead=not (self._caps.any or any(one.quotas for one in wanted.candidates)))

    async def direct(self, wanted: Wanted) -> Answer:
        """Hold the first slot there is and accept it at once; a FAILED session, with the reasons, where there is none."""

        async def operation(transaction: Transaction, now: int) -> Answer:
            choices = find(self.timeline, replace(wanted.ask, limit=1), now)
            answer = answer_to(wanted, choices, now, [] if choices else self._reasons(wanted, now))
            row = answer.offers[0] if choices else session_of(answer.offerset, None, 0, now)
            row = replace(row, phase=Phase.ACCEPTED if choices else Phase.FAILED, due=now if choices else None)
            transaction.add_offerset(answer.offerset, [row], answer.callbacks)
            transaction.record(row.uuid, row.phase, now, *answer.messages)
            if row.slot:
                self.holdings.hold(transaction, row.uuid, bookings_of(row.slot))
                self._accounting.take(row)
                self._pulling.add(row)
            return replace(answer, offers=(row,))

        return await self._take_on(operation)

    async def accept(self, uuid: UUID, version: int | None = None) -> SessionRow:
        """Make an offer the owner's; its siblings are REJECTED and what they held is free. Raises IllegalMove."""

        async def operation(transaction: Transaction, now: int) -> SessionRow:
            row = await _find(transaction, uuid, Phase.ACCEPTED)
            assert row.slot is not None
            pieces = bookings_of(row.slot)
            self._check_room(row.offerset, pieces, now)
            late = now - row.slot.start
            warning = message("WARN", "late", "Accepted {late} s after its start; it ends as promised", late=late)
            said = [warning] if late > 0 else []
            await transaction.turn_down(row.offerset, Phase.REJECTED, now, but=uuid)
            if isinstance(then := step(Phase.WAITING, row.slot, now), Wait):  # nothing for the engine to do before that
                transaction.record(uuid, Phase.ACCEPTED, now, *said)
                await transaction.move(row, Phase.WAITING, now, due=then.until)
            else:
                await transaction.move(row, Phase.ACCEPTED, now, said, due=now)
            self.holdings.release(transaction, row.offerset)
            self.holdings.hold(transaction, uuid, pieces)
            self._accounting.offer(row.offerset, ())
            self._accounting.take(row)
            accepted = replace(row, phase=Phase.ACCEPTED, modified=now)
            self._pulling.add(accepted)
            return accepted

        return await self._change(uuid, operation, version)

    async def reject(self, uuid: UUID, version: int | None = None) -> SessionRow:
        """Turn an offer down; the others stay. Raises IllegalMove."""

        async def operation(transaction: Transaction, now: int) -> SessionRow:
            row = await _find(transaction, uuid, Phase.REJECTED)
            await transaction.move(row, Phase.REJECTED, now)
            await self._shrink(transaction, row.offerset)
            return replace(row, phase=Phase.REJECTED, modified=now)

        return await self._change(uuid, operation, version)

    async def cancel(self, uuid: UUID, version: int | None = None, by: str = "its owner") -> SessionRow:
        """Stop an accepted session, wherever it has got to: it is released first, then CANCELLED. Raises IllegalMove."""

        async def operation(transaction: Transaction, now: int) -> SessionRow:
            row = await _find(transaction, uuid, Phase.CANCELLED)
            said = [message("INFO", "cancelled", "Cancelled by {by}", by=by)]
            await transaction.move(row, Phase.RELEASING, now, said, outcome=Phase.CANCELLED, due=now)
            return replace(row, phase=Phase.RELEASING, outcome=Phase.CANCELLED, modified=now)

        return await self._change(uuid, operation, version)

    async def extend(
        self,
        uuid: UUID,
        seconds: int,
        limits: Limits = (),
        quotas: tuple[Quota, ...] = (),
        longest: int | None = None,
        version: int | None = None,
    ) -> SessionRow:
        """Make an accepted session so much longer, `longest` seconds in all, or shorter where that is negative: it ends after
        now all the same.

        Raises IllegalMove, NoRoom.
        """

        async def operation(transaction: Transaction, now: int) -> SessionRow:
            return await self._extending.extend(transaction, uuid, now, seconds, limits, quotas, longest)

        return await self._change(uuid, operation, version)

    async def _change(self, uuid: UUID, operation: Operation[SessionRow], version: int | None) -> SessionRow:
        """Do it to a session, if a `version` is given only where it is still that. Raises Outdated."""

        async def guarded(transaction: Transaction, now: int) -> SessionRow:
            row = await transaction.session(uuid)
            if row and row.version != version:
                raise Outdated
            return await operation(transaction, now)

        return await self._batches.do(operation if version is None else guarded, session=uuid)

    @property
    def waiting(self) -> int:
        """How many operations wait for their turn."""
        return self._batches.waiting

    def room_after(self, slot: Slot, most: int, quotas: tuple[Quota, ...] = ()) -> int:
        """By how many seconds a session could be made longer now, `most` at most."""
        return room_after(self.timeline, slot, most, quotas)

    async def hasten(self, row: SessionRow) -> SessionRow | None:
        """Let a flexible session that is ready begin now, within what it holds; None where that would cost more than was
        quoted, or `row.lease` is no longer its lease."""

        async def operation(transaction: Transaction, now: int) -> SessionRow | None:
            assert row.slot is not None
            early = row.slot.start - now
            slot = replace(longer(row.slot, -early), start=now)
            if early <= 0 or not within(row.quote, self._prices.get(slot.platform), slot):
                return None
            said = [message("INFO", "pulled-forward", "Ready: it starts {earlier} s earlier", earlier=early)]
            if not await transaction.move(row, row.phase, now, said, row.lease, slot=slot):
                return None
            self.holdings.release(transaction, row.uuid)
            self.holdings.hold(transaction, row.uuid, clip(bookings_of(slot), now))
            hastened = replace(row, slot=slot, modified=now)
            self._accounting.take(hastened)
            return hastened

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
            self.holdings.release(transaction, row.uuid)
            self.holdings.hold(transaction, row.uuid, clip(bookings_of(slot), now))
            self._accounting.end(transaction, row, row.slot, now)
            return True

        return await self.write(operation)

    async def overrun(self, uuid: UUID, slot: Slot) -> None:
        """A session that is not released in time: hold on to what is still free of its node, minute by minute, so that
        nothing new is offered on top of it. Those who have been promised the time already keep their promise."""

        async def operation(transaction: Transaction, now: int) -> None:
            for share in slot.shares:
                self._hold_on(transaction, uuid, Place(slot.platform, share.node), share_of(share, slot.batch), now)

        await self.write(operation)

    def _hold_on(self, transaction: Transaction, uuid: UUID, place: Place, wish: Amounts, now: int) -> None:
        mine = [piece for piece in self.holdings.of(uuid) if piece.place == place]
        start = max([now, *(piece.end for piece in mine if piece.amounts.cores or piece.amounts.memory)])
        if start >= now + OVERRUN // 2 or not self.timeline.has(place):
            return
        amounts = self.timeline.least(place, start, now + OVERRUN).smallest(wish).largest(NOTHING)
        if amounts != NOTHING:
            self.holdings.hold(transaction, uuid, [Booking(place, start, now + OVERRUN, amounts)])

    async def let_go(self, uuid: UUID) -> None:
        """Forget what an ended session held, once its storage is deleted."""

        async def operation(transaction: Transaction, _: int) -> None:
            self.holdings.release(transaction, uuid)

        await self.write(operation)

    async def expire(self) -> None:
        """Let the offers go whose time is over, as every other operation does first."""

        await self.write(nothing)

    def _now(self) -> int:
        return int(self._clock.now().timestamp())

    async def _take_on(self, operation: Operation[T], *, ahead: bool = False) -> T:
        """Do what would fill the disk further, unless it is full already."""
        if self._ledger.database.full:
            raise StorageFull("The broker's disk is full: nothing new is taken on until there is room again")
        return await self._batches.do(operation, ahead=ahead)

    async def write(self, operation: Operation[T]) -> T:
        """Do this in the next transaction, with whatever else waits: one flush of the disk serves them all.

        An operation gets the transaction and the time. It may raise IllegalMove, NoRoom, NotFound or Outdated before it has
        written anything; whatever else goes wrong undoes all of the transaction. Raises Busy, StorageFull.
        """
        return await self._batches.do(operation)

    async def _pull(self, transaction: Transaction, now: int) -> bool:
        """Whether there are more to be tried."""
        if self.holdings.freed or self._pulling.unfinished:
            await self._pulling.pull(transaction, now)
        return self._pulling.unfinished

    async def _expire(self, transaction: Transaction, now: int) -> None:
        for offerset in self.holdings.expired(now):
            if await transaction.turn_down(offerset, Phase.EXPIRED, now, before=now):
                await self._shrink(transaction, offerset)

    async def _shrink(self, transaction: Transaction, offerset: UUID) -> None:
        """Hold only what the remaining offers of this need."""
        rows = await transaction.fetch(_OPEN, {"of": str(offerset), "at": Phase.OFFERED.value})
        self.holdings.release(transaction, offerset)
        open_ = [read_session(row) for row in rows]
        self.holdings.hold(transaction, offerset, envelope(row.slot for row in open_ if row.slot))
        self._accounting.offer(offerset, open_)

    def _check_room(self, offerset: UUID, pieces: list[Booking], now: int) -> None:
        """The platform may have become smaller since the offer was made. Raises IllegalMove."""
        pieces = clip(pieces, now)
        if all(self.timeline.has(piece.place) and not self.timeline.short(piece.place, now) for piece in pieces):
            return
        held = self.holdings.of(offerset)
        self.timeline.give(held)
        try:
            room = fits(self.timeline, pieces)
        finally:
            self.timeline.take(held)
        if not room:
            text = f"{pieces[0].place.platform} has become smaller and cannot keep this offer any more; ask again"
            raise IllegalMove(text, phase=Phase.OFFERED.value, allowed=[Phase.REJECTED.value])

    def _reasons(self, wanted: Wanted, now: int) -> list[MessageItem]:
        """Why there is no offer: what was wrong from the start, and what the timeline has against it."""
        said = {reason.kind for reason in wanted.reasons}
        more = why_not(self.timeline, wanted, now)
        return [*wanted.reasons, *(reason for reason in more if reason.kind not in said)]


async def _find(transaction: Transaction, uuid: UUID, choice: Phase) -> SessionRow:
    """The session as it is now, if its owner may choose `choice`. Raises NotFound, IllegalMove."""
    row = await transaction.session(uuid)
    if row is None:
        raise NotFound(f"There is no session {uuid}")
    allowed = CHOICES.get(row.phase, ())
    if choice not in allowed:
        names = " or ".join(allowed) or "nothing any more"
        raise IllegalMove(
            f"The session is {row.phase}; what can be asked for now: {names}", phase=row.phase.value, allowed=[*map(str, allowed)]
        )
    return row


_OPEN = select(sessions).where(sessions.c.offerset == bindparam("of"), sessions.c.phase == bindparam("at"))
