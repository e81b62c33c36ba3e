from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import select

from execbroker.books.accounting import Accounting
from execbroker.books.holdings import PAST, Holdings
from execbroker.ledger.rows import SessionRow, read_session
from execbroker.ledger.tables import sessions
from execbroker.ledger.transaction import Transaction
from execbroker.model.messages import MessageItem, message
from execbroker.model.phases import HOLDING, Phase
from execbroker.model.prices import Prices
from execbroker.model.waist import Slot
from execbroker.offers.quoting import most_of, staged_of
from execbroker.scheduling.moving import replaced
from execbroker.scheduling.timeline import Place, bookings_of

BUDGET = 50
"""How many sessions are tried at a time; the others have their turn as soon as the requests that wait have had theirs."""
UNLEASED: dict[str, Any] = {"leased_until": None, "lease": None}
"""A step of the engine that is under way knows the old slot: without its lease it comes to nothing."""


class Pulling:
    """The flexible sessions that wait for their start. When something comes free they are pulled forward, in their order:
    higher priorities first, then those that were to start first. Never back, and never at a higher price than was quoted.

    As the holdings, what changes within a transaction can be undone.
    """

    def __init__(self, holdings: Holdings, prices: Mapping[str, Prices], accounting: Accounting) -> None:
        self._holdings, self._prices, self._accounting = holdings, prices, accounting
        self._waiting: dict[UUID, SessionRow] = {}
        self._queues: dict[str, deque[UUID]] = {}
        self._again: set[str] = set()

    def load(self, rows: Iterable[SessionRow]) -> None:
        """At start: the sessions that wait."""
        self._waiting = {row.uuid: row for row in rows if row.slot and row.slot.floor is not None}

    def add(self, row: SessionRow) -> None:
        """A session was accepted, or has become longer or shorter."""
        if row.slot and row.slot.floor is not None:
            self._know(row.uuid, row)

    def follow(self, uuid: UUID, row: SessionRow | None) -> None:
        """Another broker has changed this session: as it is now, where it waits."""
        self._put(uuid, row)

    def waits(self, uuid: UUID) -> bool:
        return uuid in self._waiting

    def _know(self, uuid: UUID, row: SessionRow | None) -> None:
        self._holdings.on_undo(partial(self._put, uuid, self._waiting.get(uuid)))
        self._put(uuid, row)

    def _put(self, uuid: UUID, row: SessionRow | None) -> None:
        if row:
            self._waiting[uuid] = row
        else:
            self._waiting.pop(uuid, None)

    @property
    def unfinished(self) -> bool:
        """Whether sessions have still to be tried for what has come free."""
        return bool(self._queues)

    async def pull(self, transaction: Transaction, now: int) -> None:
        """Try the next sessions on the platforms on which something has come free."""
        freed = set(self._holdings.freed)
        self._holdings.on_undo(partial(self._start_over, freed | self._queues.keys()))
        self._again |= freed & self._queues.keys()
        for platform in freed - self._queues.keys():
            self._line_up(platform, now)
        left = BUDGET
        for platform, queue in list(self._queues.items()):
            while queue and left:
                row = self._waiting.get(queue.popleft())
                if row and row.slot and row.slot.start > (row.slot.floor or 0):
                    left -= 1
                    await self._move(transaction, row, row.slot.start - 1, now)
            if not queue:
                self._finish(platform, now)
        self._holdings.freed.clear()

    def _start_over(self, platforms: set[str]) -> None:
        self._queues.clear()
        self._again.clear()
        self._holdings.freed |= platforms

    def _line_up(self, platform: str, now: int) -> None:
        if order := self._order(platform, now):
            self._queues[platform] = deque(order)

    def _finish(self, platform: str, now: int) -> None:
        """All were tried; once more, from the first, where something has come free since that was."""
        del self._queues[platform]
        if platform in self._again:
            self._again.remove(platform)
            self._line_up(platform, now)

    def _order(self, platform: str, now: int) -> list[UUID]:
        here: list[tuple[int, int, int, UUID]] = []
        for uuid, row in list(self._waiting.items()):
            assert row.slot is not None
            if row.slot.prepare <= now - PAST:  # it has begun, even if the clock goes back a little
                del self._waiting[uuid]
            elif row.slot.platform == platform and row.slot.prepare > now:
                here.append((-row.slot.priority, row.slot.start, row.created, uuid))
        return [uuid for *_, uuid in sorted(here)]

    async def rescue(self, transaction: Transaction, platform: str, places: set[Place], now: int) -> None:
        """These have become smaller than what they hold: flexible sessions go elsewhere, in time; the others keep their promise
        for as long as it can be kept, and are told."""
        for uuid in self._order(platform, now):
            row = self._waiting[uuid]
            if row.slot and self._lacks(uuid, places, now):
                await self._move(transaction, row, row.slot.start, now)
        said = message("WARN", "node-shrunk", "{platform} has less than was promised; the promise is kept as long as it can be",
                       platform=platform)  # fmt: skip
        live = [phase.value for phase in HOLDING if phase not in (Phase.INITIAL, Phase.OFFERED)]
        holders = [str(holder) for holder in self._holdings.on(places, now) if self._lacks(holder, places, now)]
        for start in range(0, len(holders), 500):
            query = select(sessions).where(sessions.c.uuid.in_(holders[start : start + 500]), sessions.c.phase.in_(live))
            for found in map(read_session, await transaction.fetch(query)):
                transaction.record(found.uuid, found.phase, now, said)
                transaction.touched |= {found.uuid, found.offerset}

    def _lacks(self, holder: UUID, places: set[Place], now: int) -> bool:
        """Whether one of these has less than is held of it while, and of what, this one holds it."""
        timeline = self._holdings.timeline
        for place, start, end, amounts in self._holdings.of(holder):
            if place in places and end > now:
                least = timeline.least(place, max(start, now), end)
                if any(least.of(kind) < 0 for kind, amount in amounts.items() if amount):
                    return True
        return False

    async def _move(self, transaction: Transaction, row: SessionRow, last: int, now: int) -> bool:
        """Move a session to the earliest place that starts by `last`; False where it has begun, or there is none."""
        assert row.slot is not None
        found = self._place_for(row, row.slot, last, now)
        if found is None or found == row.slot or not await self._write(transaction, row, found, now):
            return False
        self._holdings.release(transaction, row.uuid)
        self._holdings.hold(transaction, row.uuid, bookings_of(found))
        moved = replace(row, slot=found)
        self._accounting.take(moved)
        self._know(row.uuid, moved)
        return True

    def _place_for(self, row: SessionRow, slot: Slot, last: int, now: int) -> Slot | None:
        timeline, held = self._holdings.timeline, self._holdings.of(row.uuid)
        prices, limits, quotas = self._prices.get(slot.platform), most_of(row.quote), self._accounting.quotas(slot.platform, row)
        timeline.give(held)
        try:
            with self._accounting.without(row.uuid):
                found = replaced(timeline, slot, now, last, prices, limits, staged_of(row.quote), quotas)
                if found is None and quotas and last == slot.start:  # brought away at the same time, it takes no more than before
                    there = replaced(timeline, replace(slot, floor=last), now, last, prices, limits, staged_of(row.quote))
                    found = there and replace(there, floor=slot.floor)
                return found
        finally:
            timeline.take(held)

    async def _write(self, transaction: Transaction, row: SessionRow, slot: Slot, now: int) -> bool:
        for phase, due in ((Phase.WAITING, slot.prepare), (Phase.ACCEPTED, now)):
            here = replace(row, phase=phase)
            if await transaction.move(here, phase, now, [_said(row.slot, slot)], slot=slot, due=due, **UNLEASED):
                return True
        self._know(row.uuid, None)
        return False


def _said(old: Slot | None, new: Slot) -> MessageItem:
    earlier = old.start - new.start if old else 0
    if earlier:
        return message("INFO", "pulled-forward", "Pulled forward: it starts {earlier} s earlier", earlier=earlier)
    return message("INFO", "moved", "Moved to {node}", node=new.node)
