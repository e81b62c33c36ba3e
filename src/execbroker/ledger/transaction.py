from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Executable, Insert, Table, and_, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from execbroker.ledger.rows import OfferSetRow, SessionRow, offerset_values, session_values, slot_text, state_text
from execbroker.ledger.tables import bookings, capacities, events, offersets, sessions
from execbroker.model.messages import MessageItem
from execbroker.model.phases import Phase
from execbroker.scheduling.amounts import Amounts
from execbroker.scheduling.timeline import Booking, Place


class Transaction:
    """Writes that take effect together. Inserts are gathered and go out in bulk, after all else."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._inserts: dict[Table, list[dict[str, Any]]] = {}
        self.touched: set[UUID] = set()
        self.due = False
        self.changed = False

    def insert(self, table: Table, *rows: dict[str, Any]) -> None:
        self._inserts.setdefault(table, []).extend(rows)
        self.changed = True

    async def flush(self) -> None:
        pending, self._inserts = self._inserts, {}
        for table, rows in pending.items():
            if not rows:
                continue
            await self._connection.execute(_insert_into(table), rows)

    async def execute(self, statement: Executable) -> int:
        """How many rows it touched."""
        result = await self._connection.execute(statement)
        self.changed |= result.rowcount > 0
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
        """What is counted by kind has rows of its own."""
        for place, start, end, amounts in pieces:
            row = {"holder": str(holder), "platform": place.platform, "node": place.node, "start": start, "end": end, **_WIDE}
            if any(amounts[:3]):
                wide = {"cores": amounts.cores, "memory": amounts.memory, "storage": amounts.storage}
                self.insert(bookings, row | wide)
            self.insert(bookings, *(row | {"kind": kind, "count": count} for kind, count in amounts.counts))

    async def unbook(self, holders: Iterable[UUID]) -> None:
        """Delete the bookings of these, those gathered here included."""
        gone = [str(holder) for holder in holders]
        self._inserts[bookings] = [row for row in self._inserts.get(bookings, []) if row["holder"] not in gone]
        await self.execute(delete(bookings).where(bookings.c.holder.in_(gone)))

    async def set_capacities(self, platform: str, sizes: Mapping[Place, Amounts], short: Collection[Place], now: int) -> bool:
        """Write down what a platform has, and since when something of it is `short` of what is held; False where it is so
        already."""
        known = {
            (row.node, row.kind): row for row in await self.fetch(select(capacities).where(capacities.c.platform == platform))
        }
        rows = {
            (place.node, kind): {"platform": platform, "node": place.node, "kind": kind, **size}
            for place, amounts in sizes.items()
            for kind, size in _rows_of(amounts)
        }
        gone = {"platform": platform, "cores": 0, "memory": 0, "storage": 0, "count": 0}
        rows |= {(node, kind): gone | {"node": node, "kind": kind} for node, kind in known.keys() - rows.keys()}
        for (node, kind), row in rows.items():
            before = known.get((node, kind))
            since = before.shrunk if before else None
            row["shrunk"] = (since or now) if Place(platform, node) in short else None
        if rows == {key: dict(row._mapping) for key, row in known.items()}:  # noqa: SLF001 -- the documented way
            return False
        await self.execute(delete(capacities).where(capacities.c.platform == platform))
        self.insert(capacities, *rows.values())
        return True

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


def _rows_of(amounts: Amounts) -> Iterator[tuple[str, dict[str, int]]]:
    yield "", {"cores": amounts.cores, "memory": amounts.memory, "storage": amounts.storage, "count": 0}
    for kind, count in amounts.counts:
        yield kind, {"cores": 0, "memory": 0, "storage": 0, "count": count}


_COLUMN_TEXT: dict[str, Callable[[Any], str]] = {"state": state_text, "slot": slot_text, "outcome": str}
_WIDE: dict[str, Any] = {"cores": 0, "memory": 0, "storage": 0, "kind": None, "count": 0}
_INSERTS: dict[Table, Insert] = {}


def _insert_into(table: Table) -> Insert:
    """The same statement each time, so that it is compiled once."""
    return _INSERTS.setdefault(table, insert(table))
