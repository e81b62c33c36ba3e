from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Executable, Insert, Table, and_, delete, insert, update
from sqlalchemy.ext.asyncio import AsyncConnection

from execbroker.ledger.rows import OfferSetRow, SessionRow, offerset_values, session_values, slot_text, state_text
from execbroker.ledger.tables import bookings, events, offersets, sessions
from execbroker.model.messages import MessageItem
from execbroker.model.phases import Phase
from execbroker.scheduling.timeline import Booking


class Transaction:
    """Writes that take effect together. Inserts are gathered and go out in bulk, after all else."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._inserts: dict[Table, list[dict[str, Any]]] = {}
        self.touched: set[UUID] = set()
        self.due = False

    def insert(self, table: Table, *rows: dict[str, Any]) -> None:
        self._inserts.setdefault(table, []).extend(rows)

    async def flush(self) -> None:
        pending, self._inserts = self._inserts, {}
        for table, rows in pending.items():
            if not rows:
                continue
            await self._connection.execute(_insert_into(table), rows)

    async def execute(self, statement: Executable) -> int:
        """How many rows it touched."""
        result = await self._connection.execute(statement)
        return int(result.rowcount)

    async def fetch(self, statement: Executable) -> Sequence[Any]:
        return (await self._connection.execute(statement)).all()

    def add_offerset(self, row: OfferSetRow, offers: Sequence[SessionRow]) -> None:
        self.insert(offersets, offerset_values(row))
        self.due |= any(offer.due is not None for offer in offers)
        if values := [session_values(offer) for offer in offers]:
            self.insert(sessions, *values)
        self.touched.add(row.uuid)

    def book(self, holder: UUID, pieces: Iterable[Booking]) -> None:
        rows = [
            {
                "holder": str(holder),
                "platform": place.platform,
                "node": place.node,
                "start": start,
                "end": end,
                "cores": amounts.cores,
                "memory": amounts.memory,
                "storage": amounts.storage,
            }
            for place, start, end, amounts in pieces
        ]
        if rows:
            self.insert(bookings, *rows)

    async def unbook(self, holders: Iterable[UUID]) -> None:
        """Delete the bookings of these, those gathered here included."""
        gone = [str(holder) for holder in holders]
        self._inserts[bookings] = [row for row in self._inserts.get(bookings, []) if row["holder"] not in gone]
        await self.execute(delete(bookings).where(bookings.c.holder.in_(gone)))

    def record(self, session: UUID, phase: Phase, now: int, *messages: MessageItem) -> None:
        """Add to the history of a session: that it came to `phase`, and what there is to say of it."""
        moment = {"session": str(session), "time": now, "phase": phase.value}
        dated = [message.model_copy(update={"time": datetime.fromtimestamp(now, UTC)}) for message in messages]
        texts: list[str | None] = [message.model_dump_json(exclude_none=True) for message in dated]
        self.insert(events, *({**moment, "message": text} for text in texts or [None]))

    async def move(
        self, row: SessionRow, to: Phase, now: int, messages: Iterable[MessageItem] = (), token: str | None = None, **values: Any
    ) -> bool:
        """Take the session from the phase of `row` to `to`: False, and nothing written, where it is no longer there or
        `token` is no longer its lease. `values` are further columns."""
        values = {name: _COLUMN_TEXT[name](value) if name in _COLUMN_TEXT and value else value for name, value in values.items()}
        guard = and_(sessions.c.uuid == str(row.uuid), sessions.c.phase == row.phase.value)
        if token is not None:
            guard = and_(guard, sessions.c.lease == token)
        statement = update(sessions).where(guard)
        if not await self.execute(statement.values(phase=to.value, modified=now, version=sessions.c.version + 1, **values)):
            return False
        if to is not row.phase or messages:
            self.record(row.uuid, to, now, *messages)
        self.touched |= {row.uuid, row.offerset}
        self.due |= (due := values.get("due")) is not None and due <= now
        return True


_COLUMN_TEXT: dict[str, Callable[[Any], str]] = {"state": state_text, "slot": slot_text, "outcome": str}
_INSERTS: dict[Table, Insert] = {}


def _insert_into(table: Table) -> Insert:
    """The same statement each time, so that it is compiled once."""
    return _INSERTS.setdefault(table, insert(table))
