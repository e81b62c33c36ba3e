from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import Select, Table, Update, bindparam, delete, select, update

from execbroker.ledger.database import Database, Last, Parameters, Result, Statement
from execbroker.ledger.rows import (
    CallbackRow,
    OfferSetRow,
    SessionRow,
    callback_values,
    offerset_values,
    read_session,
    schedule_text,
    session_values,
    slot_text,
    state_text,
)
from execbroker.ledger.tables import bookings, callbacks, capacities, events, offersets, sessions
from execbroker.model.messages import MessageItem
from execbroker.model.phases import Phase
from execbroker.scheduling.amounts import Amounts
from execbroker.scheduling.asks import FOREVER
from execbroker.scheduling.timeline import Booking, Place


class Transaction:
    """Writes that take effect together. Those whose result nobody needs are gathered and go out in bulk, after all else."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._inserts: dict[Table, list[dict[str, Any]]] = {}
        self._later: list[tuple[Statement, Parameters]] = []
        self._moves: list[tuple[Statement, Parameters]] = []
        self._known: dict[str, Any] = {}
        self._whole: set[str] = set()
        self.time: int | None = None
        """The database's time, in seconds since 1970, where it has one."""
        self.news: Sequence[Any] = ()
        """What other brokers have written to the journal."""
        self.touched: set[UUID] = set()
        self.holders: set[UUID] = set()
        self.offered: dict[UUID, tuple[str, list[int]]] = {}
        self.platforms: set[str] = set()
        self.due = False
        self.changed = False
        self.alone = False
        """Whether no other broker has such a one at the same time."""
        self.ending = False
        """Whether it is being committed: where that fails, nobody knows whether it was."""

    def insert(self, table: Table, *rows: dict[str, Any]) -> None:
        self._inserts.setdefault(table, []).extend(rows)

    def start_over(self) -> None:
        """Forget what was gathered."""
        self._inserts.clear()
        self.touched.clear()
        self.holders.clear()
        self.offered.clear()
        self.due = False

    def last(self) -> Last:
        """What was gathered, to be written as the last of it.

        Events get their numbers there, and nobody else gives any until this is committed: so they are numbered in the order of
        commits, and who has read up to one never finds an earlier one later.
        """
        assert self.alone or not self._inserts.get(events)
        inserts = [(table, rows) for table, rows in self._inserts.items() if rows]
        changes = [*self._moves, *self._later]
        self.changed |= bool(inserts or changes)
        return Last(self.changed, changes, inserts, self.touched, self.due)

    @property
    def writes(self) -> bool:
        """Whether it has changed anything, or is going to."""
        return self.changed or bool(self._moves or self._later) or any(self._inserts.values())

    async def execute(self, statement: Statement, parameters: Parameters | None = None) -> int:
        """How many rows it touched. A statement that comes again and again is made once, and run with parameters."""
        touched = (await self._run(statement, parameters)).touched
        self.changed |= touched > 0
        return touched

    async def _run(self, statement: Statement, parameters: Parameters | None) -> Result:
        """After the moves that were gathered, which it has to see."""
        while self._moves:
            await self._database.run(*self._moves.pop(0))
            self.changed = True
        return await self._database.run(statement, parameters)

    async def grind(self, statement: Statement) -> None:
        """A statement that may take long."""
        await self._database.grind(statement)
        self.changed = True

    async def fetch(self, statement: Statement, parameters: Parameters | None = None) -> list[Any]:
        """The rows that a query, or a change, gives back."""
        result = await self._run(statement, parameters)
        self.changed |= not isinstance(statement, Select) and result.touched > 0
        return result.rows

    def learn(self, rows: Iterable[Any]) -> None:
        """Sessions as they are now, each with all the others of its offerset: they need not be looked up again. Nobody else
        changes the phase of a session beside a transaction that is alone."""
        for row in rows:
            self._known[row.uuid] = row
            self._whole.add(row.offerset)

    async def session(self, uuid: UUID) -> SessionRow | None:
        """As it is now."""
        if known := self._known.get(str(uuid)):
            return read_session(known)
        rows = await self.fetch(_ONE, {"of": str(uuid)})
        return read_session(rows[0]) if rows else None

    def add_offerset(self, row: OfferSetRow, offers: Sequence[SessionRow], told: Iterable[CallbackRow] = ()) -> None:
        self.insert(offersets, offerset_values(row))
        self.insert(callbacks, *map(callback_values, told))
        self.due |= any(offer.due is not None for offer in offers)
        if values := [session_values(offer) for offer in offers]:
            self.insert(sessions, *values)
        if open_ := sorted({offer.expires for offer in offers if offer.phase is Phase.OFFERED}):
            self.offered[row.uuid] = row.owner, open_
        self.touched.add(row.uuid)

    def book(self, holder: UUID, pieces: Iterable[Booking]) -> None:
        """What is counted by kind has rows of its own."""
        self.holders.add(holder)
        for place, start, end, amounts in pieces:
            row = {"holder": str(holder), "platform": place.platform, "node": place.node, "start": start, "end": end, **_WIDE}
            if any(amounts[:3]):
                wide = {"cores": amounts.cores, "memory": amounts.memory, "storage": amounts.storage}
                self.insert(bookings, row | wide)
            self.insert(bookings, *(row | {"kind": kind, "count": count} for kind, count in amounts.counts))

    def unbook(self, holder: UUID) -> None:
        """Delete its bookings, those gathered here included."""
        self.holders.add(holder)
        if here := self._inserts.get(bookings):
            self._inserts[bookings] = [row for row in here if row["holder"] != str(holder)]
        self._later.append((_UNBOOK, {"of": str(holder)}))

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
        if rows == {key: row._asdict() for key, row in known.items()}:
            return False
        self.platforms.add(platform)
        await self.execute(delete(capacities).where(capacities.c.platform == platform))
        self.insert(capacities, *rows.values())
        return True

    def record(self, session: UUID, phase: Phase, now: int, *messages: MessageItem, schedule: str | None = None) -> None:
        """Add to the history of a session: that it came to `phase`, its new times, and what there is to say of it."""
        moment = {"session": str(session), "time": now, "phase": phase.value, "schedule": schedule}
        dated = [message.model_copy(update={"time": datetime.fromtimestamp(now, UTC)}) for message in messages]
        texts: list[str | None] = [message.model_dump_json(exclude_none=True) for message in dated]
        self.insert(events, *({**moment, "message": text} for text in texts or [None]))

    async def move(
        self, row: SessionRow, to: Phase, now: int, messages: Iterable[MessageItem] = (), token: str | None = None, **values: Any
    ) -> bool:
        """Take the session from the phase of `row` to `to`: False, and nothing written, where it is no longer there or
        `token` is no longer its lease. `values` are further columns."""
        schedule = schedule_text(row.slot, values.get("slot"))
        values = {name: _COLUMN_TEXT[name](value) if name in _COLUMN_TEXT and value else value for name, value in values.items()}
        where = {"of": str(row.uuid), "at": row.phase.value, **({} if token is None else {"leased": token})}
        changed = {f"to_{name}": value for name, value in (("phase", to.value), ("modified", now), *values.items())}
        moving = _moving(tuple(where), tuple(changed))
        self._whole.discard(str(row.offerset))
        if (known := self._known.pop(str(row.uuid), None)) and token is None and known.phase == row.phase:
            self._moves.append((moving, where | changed))
        elif not await self.execute(moving, where | changed):
            return False
        if to is not row.phase or messages:
            self.record(row.uuid, to, now, *messages, schedule=schedule)
        self.touched |= {row.uuid, row.offerset}
        self.due |= (due := values.get("due")) is not None and due <= now
        return True

    async def turn_down(self, offerset: UUID, to: Phase, now: int, before: int = FOREVER, but: UUID | None = None) -> bool:
        """Move the open offers of this that expire before `before` or then, all `but` one, to REJECTED or EXPIRED; False where
        there are none."""
        values = {"of": str(offerset), "at": Phase.OFFERED.value, "before": before, "but": str(but), "to": to.value, "now": now}
        if values["of"] in self._whole:
            self._whole.remove(values["of"])
            found = [row.uuid for row in self._known.values() if _is_meant(row, values)]
            self._moves += [(_TURN_DOWN, values)] if found else []
        else:
            found = [row.uuid for row in await self.fetch(_TURNED_DOWN, values)]
        for uuid in found:
            self._known.pop(uuid, None)
            self.record(UUID(uuid), to, now)
        self.touched.update(map(UUID, found), [offerset])
        return bool(found)


def _is_meant(row: Any, values: Parameters) -> bool:
    is_open = row.offerset == values["of"] and row.phase == values["at"]
    return bool(is_open and row.expires <= values["before"] and row.uuid != values["but"])


def _rows_of(amounts: Amounts) -> Iterator[tuple[str, dict[str, int]]]:
    yield "", {"cores": amounts.cores, "memory": amounts.memory, "storage": amounts.storage, "count": 0}
    for kind, count in amounts.counts:
        yield kind, {"cores": 0, "memory": 0, "storage": 0, "count": count}


_COLUMN_TEXT: dict[str, Callable[[Any], str]] = {"state": state_text, "slot": slot_text, "outcome": str}
_WIDE: dict[str, Any] = {"cores": 0, "memory": 0, "storage": 0, "kind": None, "count": 0}
_UNBOOK = delete(bookings).where(bookings.c.holder == bindparam("of"))
_TURN_DOWN = (
    update(sessions)
    .where(sessions.c.offerset == bindparam("of"), sessions.c.phase == bindparam("at"))
    .where(sessions.c.expires <= bindparam("before"), sessions.c.uuid != bindparam("but"))
    .values(phase=bindparam("to"), modified=bindparam("now"), version=sessions.c.version + 1)
)
_TURNED_DOWN = _TURN_DOWN.returning(sessions.c.uuid)
_ONE = select(sessions).where(sessions.c.uuid == bindparam("of"))
_GUARDS = {"of": sessions.c.uuid, "at": sessions.c.phase, "leased": sessions.c.lease}


@cache
def _moving(where: tuple[str, ...], changed: tuple[str, ...]) -> Update:
    """The same statement each time, so that it is compiled once."""
    statement = update(sessions).where(*(_GUARDS[name] == bindparam(name) for name in where))
    values: dict[str, Any] = {name.removeprefix("to_"): bindparam(name) for name in changed}
    return statement.values(version=sessions.c.version + 1, **values)
