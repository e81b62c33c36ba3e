import asyncio
import time
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, case, delete, func, insert, or_, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as Queued
from sqlalchemy.ext.asyncio import AsyncConnection

from execbroker.errors import Busy, Interrupted, StorageFull
from execbroker.ledger.changes import Changes
from execbroker.ledger.database import PATIENCE, Database
from execbroker.ledger.journal import FIRST, LATEST, Entry
from execbroker.ledger.rows import (
    BOOKED,
    OfferSetRow,
    SessionRow,
    Usage,
    read_booking,
    read_offerset,
    read_session,
    read_usage,
)
from execbroker.ledger.tables import bookings, callbacks, events, forgotten, journal, measures, offersets, sessions, usage
from execbroker.ledger.transaction import Transaction
from execbroker.model.phases import FINAL, HOLDING, Phase
from execbroker.scheduling.months import month_of
from execbroker.scheduling.timeline import Booking

_RETRY = 0.1  # seconds
_LEASED = (sessions, callbacks)
_LEASES = [select(table.c.lease).where(table.c.lease.is_not(None)).distinct() for table in _LEASED]
_WITH_REQUEST = select(sessions, offersets.c.request).join(offersets, offersets.c.uuid == sessions.c.offerset)


class Ledger:
    """The store. Every write goes through `write`; whatever is read was committed."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.changes = Changes()
        self._reader = database.reader()
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        """From now on, hear of what other brokers write."""
        await self.database.listen(self.changes)

    async def close(self) -> None:
        await self.database.close()
        await self._reader.dispose()

    @asynccontextmanager
    async def write(
        self, since: int | None = None, transaction: Transaction | None = None, wanted: Collection[UUID] = ()
    ) -> AsyncIterator[Transaction]:
        """One transaction, or this one, committed at the end of the block, rolled back where the block raises. With `since`, no
        other broker has such a one at the same time, and what others wrote after that entry of the journal is its `news`; it will
        look at the sessions that are `wanted`.

        Raises Busy where another program keeps the database locked, Interrupted where it went away, StorageFull where it is full.
        """
        async with self._turn:
            transaction = transaction or Transaction(self.database)
            try:
                transaction.time, transaction.news, known = await self.database.begin(since, wanted)
                transaction.learn(known)
                transaction.alone = since is not None
                yield transaction
                transaction.ending = True
                await self.database.commit(transaction.last())
            except self.database.errors as error:
                clearer = self.database.clearer(error)
                if isinstance(clearer, StorageFull):
                    self.database.filled()
                raise clearer from error
            finally:
                await self.database.rollback()
        self.changes.tell(transaction.touched, due=transaction.due)

    @asynccontextmanager
    async def read(self, *, whole: bool = False) -> AsyncIterator[AsyncConnection]:
        """A connection to read with, each statement for itself, or, where the database can, the `whole` of one moment. Raises
        BrokerError."""
        try:
            async with self._reader.connect() as connection:
                if whole and self.database.snapshot:
                    await connection.execution_options(isolation_level=self.database.snapshot)
                yield connection
        except DBAPIError as error:
            if isinstance(error.orig, self.database.errors):
                raise self.database.clearer(error.orig) from error
            raise
        except Queued as error:
            raise Busy("The database is too slow at the moment: too much waits to be read") from error

    async def rows(self, query: Select[*tuple[Any, ...]]) -> Sequence[Any]:
        """What a query finds. To read does no harm, so a database that goes away is waited for. Raises BrokerError."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                async with self.read() as connection:
                    rows: Sequence[Any] = (await connection.execute(query)).all()
                    return rows
            except Interrupted:
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(_RETRY)

    async def offerset(self, uuid: UUID) -> OfferSetRow | None:
        rows = await self.rows(select(offersets).where(offersets.c.uuid == str(uuid)))
        return read_offerset(rows[0]) if rows else None

    async def session(self, uuid: UUID) -> SessionRow | None:
        rows = await self.rows(select(sessions).where(sessions.c.uuid == str(uuid)))
        return read_session(rows[0]) if rows else None

    async def session_and_request(self, uuid: UUID) -> tuple[SessionRow, str] | None:
        """A session with the request it was offered for, a JSON text."""
        rows = await self.rows(_WITH_REQUEST.where(sessions.c.uuid == str(uuid)))
        return (read_session(rows[0]), rows[0].request) if rows else None

    async def offers(self, offerset: UUID) -> list[SessionRow]:
        """The sessions of an offerset, in the order in which they were offered."""
        rows = await self.rows(select(sessions).where(sessions.c.offerset == str(offerset)).order_by(sessions.c.rank))
        return [read_session(row) for row in rows]

    async def offersets(self, owner: str, phases: Iterable[Phase], after: int | None, limit: int) -> list[OfferSetRow]:
        """The newest first, `limit` at most, created after `after`, with an offer in any of `phases`."""
        query = select(offersets).where(offersets.c.owner == owner).order_by(offersets.c.created.desc()).limit(limit)
        if after is not None:
            query = query.where(offersets.c.created > after)
        if wanted := [phase.value for phase in phases]:
            query = query.where(offersets.c.uuid.in_(select(sessions.c.offerset).where(sessions.c.phase.in_(wanted))))
        return [read_offerset(row) for row in await self.rows(query)]

    async def sessions(self, owner: str, phases: Iterable[Phase], after: int | None, limit: int) -> list[tuple[SessionRow, str]]:
        """With their requests: the newest first, `limit` at most, created after `after`, in any of `phases`."""
        query = _WITH_REQUEST.where(sessions.c.owner == owner).limit(limit)
        query = query.order_by(sessions.c.created.desc(), sessions.c.rank)
        if after is not None:
            query = query.where(sessions.c.created > after)
        if wanted := [phase.value for phase in phases]:
            query = query.where(sessions.c.phase.in_(wanted))
        return [(read_session(row), row.request) for row in await self.rows(query)]

    async def messages(self, session: UUID) -> list[str]:
        """The messages of a session, as JSON texts, oldest first."""
        query = select(events.c.message).where(events.c.session == str(session), events.c.message.is_not(None))
        return [row.message for row in await self.rows(query.order_by(events.c.seq))]

    async def written(self) -> Entry:
        """The last entry of the journal."""
        rows = await self.rows(LATEST)
        return Entry(*rows[0]) if rows else FIRST

    async def bookings(self) -> list[tuple[UUID, Booking]]:
        """Every booking, with its holder, an offerset or a session."""
        columns = (bookings.c[name] for name in ("holder", *BOOKED))
        return [(UUID(holder), read_booking(*booked)) for holder, *booked in await self.rows(select(*columns))]

    async def open_offersets(self) -> list[tuple[UUID, str, int]]:
        """The offersets with offers that can still be accepted, their owners, and every time at which one of them expires."""
        query = select(sessions.c.offerset, sessions.c.owner, sessions.c.expires).where(sessions.c.phase == Phase.OFFERED.value)
        return [(UUID(row.offerset), row.owner, row.expires) for row in await self.rows(query.distinct())]

    async def waiting(self) -> list[SessionRow]:
        """The accepted flexible sessions that nothing has been done for yet."""
        accepted = sessions.c.phase.in_((Phase.ACCEPTED.value, Phase.WAITING.value))
        rows = await self.rows(select(sessions).where(accepted, sessions.c.slot.contains('"floor":')))
        return [read_session(row) for row in rows]

    async def holding(self) -> list[SessionRow]:
        """The offers that can still be accepted, and the sessions that have not ended."""
        rows = await self.rows(select(sessions).where(sessions.c.phase.in_([phase.value for phase in HOLDING])))
        return [read_session(row) for row in rows]

    async def usage(self, since: int) -> list[Usage]:
        """What ended sessions have used in the months from `since` on."""
        return [read_usage(row) for row in await self.rows(select(usage).where(usage.c.month >= since))]

    async def next_due(self) -> int | None:
        """When the engine has something to do next."""
        wait = case((sessions.c.leased_until > sessions.c.due, sessions.c.leased_until), else_=sessions.c.due)
        rows = await self.rows(select(func.min(wait)).where(sessions.c.due.is_not(None)))
        due: int | None = rows[0][0]
        return due

    async def lease(
        self, transaction: Transaction, now: int, seconds: int, limit: int, without: Iterable[UUID]
    ) -> list[SessionRow]:
        """Take what is due at `now`, in one statement, so that nobody else does for so many seconds or until the lease is given
        back. Leases go by the time on which all brokers agree."""
        assert transaction.time is not None
        free = and_(
            or_(sessions.c.leased_until.is_(None), sessions.c.leased_until <= transaction.time),
            sessions.c.uuid.not_in([str(uuid) for uuid in without]),
        )
        due = select(sessions.c.uuid).where(sessions.c.due <= now, free).order_by(sessions.c.due).limit(limit)
        lease = {"leased_until": transaction.time + seconds, "lease": self.database.token()}
        query = update(sessions).where(sessions.c.uuid.in_(due)).values(**lease).returning(sessions)
        return [read_session(row) for row in await transaction.fetch(query)]

    async def break_leases(self) -> None:
        """End the leases of brokers that are no more, so that nobody has to wait for it."""
        async with self.write() as transaction:
            tokens = {row.lease for query in _LEASES for row in await transaction.fetch(query)}
            if dead := await self.database.dead(tokens):
                for table in _LEASED:
                    await transaction.execute(update(table).where(table.c.lease.in_(dead)).values(leased_until=None, lease=None))

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
        return [(row.what, row.seconds, row.amount) for row in reversed(await self.rows(query))]

    async def old_sessions(self, before: int) -> list[UUID]:
        """Some of those that were taken, ended before `before` and hold nothing any more."""
        ended = [phase.value for phase in FINAL if phase not in (Phase.REJECTED, Phase.EXPIRED)]
        query = select(sessions.c.uuid).where(sessions.c.phase.in_(ended), sessions.c.modified < before, sessions.c.due.is_(None))
        return [UUID(row.uuid) for row in await self.rows(query.limit(100))]

    async def forget(self, uuids: Iterable[UUID]) -> None:
        """Delete these sessions."""
        async with self.write() as transaction:
            await _delete_sessions(transaction, sessions.c.uuid.in_([str(uuid) for uuid in uuids]))

    async def purge(self, before: int, unused_before: int) -> None:
        """Delete the offers nobody took that ended before `unused_before`, what brokers have told each other until then,
        measures from before `before`, and what was used in months that were over by then."""
        never = sessions.c.phase.in_([Phase.REJECTED.value, Phase.EXPIRED.value])
        kept = select(sessions.c.offerset)
        async with self.write() as transaction:
            await _delete_sessions(transaction, and_(never, sessions.c.modified < unused_before))
            await transaction.grind(delete(offersets).where(offersets.c.modified < unused_before, offersets.c.uuid.not_in(kept)))
            await transaction.grind(delete(callbacks).where(callbacks.c.offerset.not_in(select(offersets.c.uuid))))
            await transaction.grind(delete(usage).where(usage.c.month < month_of(before)))
            await transaction.grind(delete(measures).where(measures.c.time < before))
            last = select(func.max(journal.c.seq)).scalar_subquery()  # by which brokers know where they are
            old = select(func.max(journal.c.seq)).where(journal.c.time < unused_before).scalar_subquery()  # no gap after it
            await transaction.grind(delete(journal).where(journal.c.seq <= old, journal.c.seq < last))


async def _delete_sessions(transaction: Transaction, which: ColumnElement[bool]) -> None:
    """With their events, up to the last of which is written down for each owner.

    Of the newest event the number stays: SQLite numbers after the highest that is there, and none must ever come again.
    """
    last = select(sessions.c.owner, func.max(events.c.seq)).join(events, events.c.session == sessions.c.uuid)
    later = forgotten.alias()
    superseded = select(later.c.id).where(later.c.owner == forgotten.c.owner, later.c.seq > forgotten.c.seq)
    await transaction.grind(insert(forgotten).from_select(["owner", "seq"], last.where(which).group_by(sessions.c.owner)))
    await transaction.grind(delete(forgotten).where(superseded.exists()))
    of_these = events.c.session.in_(select(sessions.c.uuid).where(which))
    old = events.c.seq < select(func.max(events.c.seq)).scalar_subquery()
    await transaction.grind(delete(events).where(or_(of_these, events.c.session == ""), old))
    await transaction.grind(update(events).where(of_these).values(session="", message=None, schedule=None))
    await transaction.grind(delete(sessions).where(which))
