import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, delete, event, func, or_, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from execbroker.errors import BrokerError, Busy, StorageFull
from execbroker.ledger.changes import Changes
from execbroker.ledger.reserve import Reserve
from execbroker.ledger.rows import OfferSetRow, SessionRow, read_offerset, read_session
from execbroker.ledger.tables import bookings, events, measures, offersets, sessions
from execbroker.ledger.transaction import Transaction
from execbroker.ledger.writing import PATIENCE, Writing
from execbroker.model.phases import FINAL, Phase
from execbroker.scheduling.amounts import Amounts
from execbroker.scheduling.timeline import Booking, Place

_WITH_REQUEST = select(sessions, offersets.c.request).join(offersets, offersets.c.uuid == sessions.c.offerset)


class Ledger:
    """The store. Every write goes through `write`; whatever is read was committed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.changes = Changes()
        self.reserve = Reserve(path.with_name("reserve"))
        self.writing = Writing(path)
        self._reader = _reader(path)
        self._turn = asyncio.Lock()

    async def close(self) -> None:
        self.writing.close()
        await self._reader.dispose()

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Transaction]:
        """One transaction, committed at the end of the block, rolled back where the block raises.

        Raises Busy where another program keeps the database locked, StorageFull where the disk is.
        """
        async with self._turn:
            try:
                await self.writing.begin()
                transaction = Transaction(self.writing)
                yield transaction
                await transaction.flush()
                await self.writing.commit(changed=transaction.changed)
            except sqlite3.OperationalError as error:
                clearer = _clearer(error)
                if isinstance(clearer, StorageFull):
                    self.reserve.spend()
                raise clearer from error
            finally:
                self.writing.rollback()
        self.changes.tell(transaction.touched, due=transaction.due)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection to read with, each statement for itself. Raises BrokerError."""
        try:
            async with self._reader.connect() as connection:
                yield connection
        except OperationalError as error:
            raise _clearer(error.orig or error) from error

    async def _rows(self, query: Select[*tuple[Any, ...]]) -> Sequence[Any]:
        async with self.read() as connection:
            rows: Sequence[Any] = (await connection.execute(query)).all()
            return rows

    async def offerset(self, uuid: UUID) -> OfferSetRow | None:
        rows = await self._rows(select(offersets).where(offersets.c.uuid == str(uuid)))
        return read_offerset(rows[0]) if rows else None

    async def session(self, uuid: UUID) -> SessionRow | None:
        rows = await self._rows(select(sessions).where(sessions.c.uuid == str(uuid)))
        return read_session(rows[0]) if rows else None

    async def session_and_request(self, uuid: UUID) -> tuple[SessionRow, str] | None:
        """A session with the request it was offered for, a JSON text."""
        rows = await self._rows(_WITH_REQUEST.where(sessions.c.uuid == str(uuid)))
        return (read_session(rows[0]), rows[0].request) if rows else None

    async def offers(self, offerset: UUID) -> list[SessionRow]:
        """The sessions of an offerset, in the order in which they were offered."""
        rows = await self._rows(select(sessions).where(sessions.c.offerset == str(offerset)).order_by(sessions.c.rank))
        return [read_session(row) for row in rows]

    async def offersets(self, owner: str, phases: Iterable[Phase], after: int | None, limit: int) -> list[OfferSetRow]:
        """The newest first, `limit` at most, created after `after`, with an offer in any of `phases`."""
        query = select(offersets).where(offersets.c.owner == owner).order_by(offersets.c.created.desc()).limit(limit)
        if after is not None:
            query = query.where(offersets.c.created > after)
        if wanted := [phase.value for phase in phases]:
            query = query.where(offersets.c.uuid.in_(select(sessions.c.offerset).where(sessions.c.phase.in_(wanted))))
        return [read_offerset(row) for row in await self._rows(query)]

    async def sessions(self, owner: str, phases: Iterable[Phase], after: int | None, limit: int) -> list[tuple[SessionRow, str]]:
        """With their requests: the newest first, `limit` at most, created after `after`, in any of `phases`."""
        query = _WITH_REQUEST.where(sessions.c.owner == owner).limit(limit)
        query = query.order_by(sessions.c.created.desc(), sessions.c.rank)
        if after is not None:
            query = query.where(sessions.c.created > after)
        if wanted := [phase.value for phase in phases]:
            query = query.where(sessions.c.phase.in_(wanted))
        return [(read_session(row), row.request) for row in await self._rows(query)]

    async def messages(self, session: UUID) -> list[str]:
        """The messages of a session, as JSON texts, oldest first."""
        query = select(events.c.message).where(events.c.session == str(session), events.c.message.is_not(None))
        return [row.message for row in await self._rows(query.order_by(events.c.seq))]

    async def bookings(self) -> list[tuple[UUID, Booking]]:
        """Every booking, with its holder, an offerset or a session."""
        rows = await self._rows(select(bookings))
        return [(UUID(row.holder), read_booking(row)) for row in rows]

    async def open_offersets(self) -> list[tuple[UUID, str, int]]:
        """The offersets with offers that can still be accepted, their owners, and every time at which one of them expires."""
        query = select(sessions.c.offerset, sessions.c.owner, sessions.c.expires).where(sessions.c.phase == Phase.OFFERED.value)
        return [(UUID(row.offerset), row.owner, row.expires) for row in await self._rows(query.distinct())]

    async def waiting(self) -> list[SessionRow]:
        """The accepted sessions that nothing has been done for yet."""
        phases = (Phase.ACCEPTED.value, Phase.WAITING.value)
        return [read_session(row) for row in await self._rows(select(sessions).where(sessions.c.phase.in_(phases)))]

    async def next_due(self) -> int | None:
        """When the engine has something to do next."""
        wait = func.max(sessions.c.due, func.coalesce(sessions.c.leased_until, 0))
        rows = await self._rows(select(func.min(wait)).where(sessions.c.due.is_not(None)))
        due: int | None = rows[0][0]
        return due

    async def lease(
        self, transaction: Transaction, now: int, until: int, token: str, limit: int, without: Iterable[UUID]
    ) -> list[SessionRow]:
        """Take what is due, in one statement, so that nobody else does until `until` or until the lease is given back."""
        free = and_(
            or_(sessions.c.leased_until.is_(None), sessions.c.leased_until <= now),
            sessions.c.uuid.not_in([str(uuid) for uuid in without]),
        )
        due = select(sessions.c.uuid).where(sessions.c.due <= now, free).order_by(sessions.c.due).limit(limit)
        query = update(sessions).where(sessions.c.uuid.in_(due)).values(leased_until=until, lease=token).returning(sessions)
        return [read_session(row) for row in await transaction.fetch(query)]

    async def break_leases(self) -> None:
        """At start: nobody else works on this ledger, so every lease is a dead process's."""
        async with self.write() as transaction:
            await transaction.execute(update(sessions).values(leased_until=None, lease=None))

    async def recall(self, now: int) -> None:
        """After the clock went back: look at everything now, for what was due soon would be due late."""
        async with self.write() as transaction:
            await transaction.execute(update(sessions).where(sessions.c.due > now).values(due=now))

    async def note(self, what: str, seconds: float, amount: float, now: int) -> None:
        async with self.write() as transaction:
            transaction.insert(measures, {"what": what, "seconds": seconds, "amount": amount, "time": now})

    async def measures(self) -> list[tuple[str, float, float]]:
        """What steps took, oldest first: what, seconds, amount."""
        query = select(measures.c.what, measures.c.seconds, measures.c.amount).order_by(measures.c.id.desc()).limit(10_000)
        return [(row.what, row.seconds, row.amount) for row in reversed(await self._rows(query))]

    async def old_sessions(self, before: int) -> list[UUID]:
        """Some of those that were taken, ended before `before` and hold nothing any more."""
        ended = [phase.value for phase in FINAL if phase not in (Phase.REJECTED, Phase.EXPIRED)]
        query = select(sessions.c.uuid).where(sessions.c.phase.in_(ended), sessions.c.modified < before, sessions.c.due.is_(None))
        return [UUID(row.uuid) for row in await self._rows(query.limit(100))]

    async def forget(self, uuids: Iterable[UUID]) -> None:
        """Delete these sessions."""
        async with self.write() as transaction:
            await _delete_sessions(transaction, sessions.c.uuid.in_([str(uuid) for uuid in uuids]))

    async def purge(self, before: int, unused_before: int) -> None:
        """Delete the offers nobody took that ended before `unused_before`, and measures from before `before`."""
        never = sessions.c.phase.in_([Phase.REJECTED.value, Phase.EXPIRED.value])
        kept = select(sessions.c.offerset)
        async with self.write() as transaction:
            await _delete_sessions(transaction, and_(never, sessions.c.modified < unused_before))
            await transaction.grind(delete(offersets).where(offersets.c.modified < unused_before, offersets.c.uuid.not_in(kept)))
            await transaction.grind(delete(measures).where(measures.c.time < before))


async def _delete_sessions(transaction: Transaction, which: ColumnElement[bool]) -> None:
    await transaction.grind(delete(events).where(events.c.session.in_(select(sessions.c.uuid).where(which))))
    await transaction.grind(delete(sessions).where(which))


def read_booking(row: Any) -> Booking:
    counts = ((row.kind, row.count),) if row.kind else ()
    return Booking(Place(row.platform, row.node), row.start, row.end, Amounts(row.cores, row.memory, row.storage, counts))


def _reader(path: Path) -> AsyncEngine:
    """Each read is one statement, so none needs a transaction around it."""
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{path}", pool_size=4, max_overflow=0, isolation_level="AUTOCOMMIT", pool_reset_on_return=None
    )

    @event.listens_for(engine.sync_engine, "connect")
    def _connected(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={PATIENCE * 1000}")
        cursor.close()

    return engine


def _clearer(error: Exception) -> BrokerError:
    text = str(error)
    if "full" in text or "disk I/O error" in text:
        return StorageFull(f"The broker's disk does not take any more ({text}); nothing was changed")
    if "locked" in text or "busy" in text:
        return Busy(f"The database has been locked by another program for {PATIENCE} s; nothing was changed")
    return BrokerError(f"The database cannot be used ({text})")
