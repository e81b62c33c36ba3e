from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import select

from execbroker.books.holdings import Holdings
from execbroker.ledger.rows import SessionRow, read_session
from execbroker.ledger.tables import sessions
from execbroker.ledger.transaction import Transaction
from execbroker.model.messages import MessageItem, message
from execbroker.model.phases import HOLDING, Phase
from execbroker.model.prices import Prices
from execbroker.model.waist import Slot
from execbroker.offers.quoting import most_of
from execbroker.scheduling.moving import replaced
from execbroker.scheduling.timeline import Place, bookings_of

BUDGET = 50
"""How many sessions are tried at a time; the others have their turn as soon as the requests that wait have had theirs."""
UNLEASED: dict[str, Any] = {"leased_until": None, "lease": None}
"""A step of the engine that is under way knows the old slot: without its lease it comes to nothing."""


class Pulling:
    """The flexible sessions that wait for their start. When something comes free they are pulled forward, in their order:
    higher priorities first, then those that were to start first. Never back, and never at a higher price than was quoted."""

    def __init__(self, holdings: Holdings, prices: Mapping[str, Prices]) -> None:
        self._holdings, self._prices = holdings, prices
        self._waiting: dict[UUID, SessionRow] = {}
        self._queues: dict[str, deque[UUID]] = {}

    def add(self, row: SessionRow) -> None:
        """A session was accepted."""
        if row.slot and row.slot.floor is not None:
            self._waiting[row.uuid] = row

    @property
    def unfinished(self) -> bool:
        """Whether sessions have still to be tried for what has come free."""
        return bool(self._queues)

    async def pull(self, transaction: Transaction, now: int) -> None:
        """Try the next sessions on the platforms on which something has come free."""
        for platform in self._holdings.freed - self._queues.keys():
            if order := self._order(platform, now):
                self._queues[platform] = order
        left = BUDGET
        for platform, queue in list(self._queues.items()):
            while queue and left:
                row = self._waiting.get(queue.popleft())
                if row and row.slot and row.slot.start > (row.slot.floor or 0):
                    left -= 1
                    await self._move(transaction, row, row.slot.start - 1, now)
            if not queue:
                del self._queues[platform]
        self._holdings.freed.clear()

    def _order(self, platform: str, now: int) -> deque[UUID]:
        here: list[tuple[int, int, int, UUID]] = []
        for uuid, row in list(self._waiting.items()):
            assert row.slot is not None
            if row.slot.prepare <= now:  # it has begun
                del self._waiting[uuid]
            elif row.slot.platform == platform:
                here.append((-row.slot.priority, row.slot.start, row.created, uuid))
        return deque(uuid for *_, uuid in sorted(here))

    async def rescue(self, transaction: Transaction, platform: str, places: set[Place], now: int) -> None:
        """These have become smaller than what they hold: flexible sessions go elsewhere, in time; the others keep their promise
        for as long as it can be kept, and are told."""
        said = message("WARN", "node-shrunk", "{platform} has less than was promised; the promise is kept as long as it can be",
                       platform=platform)  # fmt: skip
        live = [phase.value for phase in HOLDING if phase not in (Phase.INITIAL, Phase.OFFERED)]
        holders = [str(holder) for holder in self._holdings.on(places, now)]
        query = select(sessions).where(sessions.c.uuid.in_(holders), sessions.c.phase.in_(live)).order_by(sessions.c.created)
        for found in map(read_session, await transaction.fetch(query)):
            if not any(self._short(place, now) for place in places):
                return
            row = self._waiting.get(found.uuid)
            if not (row and row.slot and await self._move(transaction, row, row.slot.start, now)):
                transaction.record(found.uuid, found.phase, now, said)
                transaction.touched |= {found.uuid, found.offerset}

    def _short(self, place: Place, now: int) -> bool:
        return self._holdings.timeline.short(place, now)

    async def _move(self, transaction: Transaction, row: SessionRow, last: int, now: int) -> bool:
        """Move a session to the earliest place that starts by `last`; False where it has begun, or there is none."""
        assert row.slot is not None
        slot, timeline = row.slot, self._holdings.timeline
        held = self._holdings.of(row.uuid)
        timeline.give(held)
        found = replaced(timeline, slot, now, last, self._prices.get(slot.platform), most_of(row.quote))
        timeline.take(held)
        if found is None or found == slot or not await self._write(transaction, row, found, now):
            return False
        await self._holdings.release(transaction, row.uuid)
        self._holdings.hold(transaction, row.uuid, bookings_of(found))
        self._waiting[row.uuid] = replace(row, slot=found)
        self._holdings.on_undo(lambda: self._waiting.update({row.uuid: row}))
        return True

    async def _write(self, transaction: Transaction, row: SessionRow, slot: Slot, now: int) -> bool:
        for phase, due in ((Phase.WAITING, slot.prepare), (Phase.ACCEPTED, now)):
            here = replace(row, phase=phase)
            if await transaction.move(here, phase, now, [_said(row.slot, slot)], slot=slot, due=due, **UNLEASED):
                return True
        self._waiting.pop(row.uuid, None)
        return False


def _said(old: Slot | None, new: Slot) -> MessageItem:
    earlier = old.start - new.start if old else 0
    if earlier:
        return message("INFO", "pulled-forward", "Pulled forward: it starts {earlier} s earlier", earlier=earlier)
    return message("INFO", "moved", "Moved to {node}", node=new.node)
