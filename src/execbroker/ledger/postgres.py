import asyncio
import json
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID, uuid4

import psycopg
import structlog
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Connection,
    String,
    any_,
    bindparam,
    case,
    create_engine,
    select,
)
from sqlalchemy.dialects.postgresql.psycopg import dialect
from sqlalchemy.engine.interfaces import IsolationLevel
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from execbroker.errors import BrokerError, Busy, Interrupted, StartupError, StorageFull
from execbroker.ledger.changes import Changes
from execbroker.ledger.database import PATIENCE, READING, Begun, Compiled, Database, Last, Parameters, Result, Statement
from execbroker.ledger.tables import journal, sessions

if TYPE_CHECKING:
    from psycopg.abc import PQGen

T = TypeVar("T")
BOOK = 0x65786562  # the advisory lock of the one who writes the book
_ALIVE = 0x65786563  # those of the brokers that live, each with a number of its own
CHANNEL = "execbroker"
MOST_TOLD = 150  # uuids; a notice has 8,000 bytes at most
EVERYTHING = "*"
STALLED = 15  # seconds for which a transaction may do nothing before it is ended from outside
SILENCE = 2 * PATIENCE + 2
"""Seconds for which a server that was asked something may say nothing; it ends a statement itself before that."""
READ = 30  # seconds that a query may take
HEARTBEAT = 5  # seconds
KEEPALIVE = {"tcp_keepalives_idle": "15", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3"}
"""By which the server notices that a broker's machine is gone, and lets go of its locks."""
_RETRY = 0.5
START = 30  # seconds
_COMING = ("refused", "starting up", "shutting down", "not yet accepting", "No such file")
"""What is said of a server, or by it, that is not there as yet."""
_WANTED = select(sessions.c.offerset).where(sessions.c.uuid == any_(bindparam("wanted", type_=ARRAY(String))))
FAMILIES = select(sessions).where(sessions.c.offerset.in_(_WANTED))
_SINCE = bindparam("since", type_=BigInteger)
NEWS = (
    select(journal.c.seq, journal.c.writer, case((journal.c.seq > _SINCE, journal.c.changed)).label("changed"))
    .where(journal.c.seq >= _SINCE)
    .order_by(journal.c.seq)
)

_GONE = ("08", "57P", "25P03", "25006", "40", "53300")
"""Where a statement was not the matter: connection lost, server stopping, stalled, standby, deadlock, too many connections."""
log = structlog.get_logger()


class Session(psycopg.AsyncConnection[tuple[Any, ...]]):
    """Hangs up on a server that says nothing for `patience` seconds: it is as good as away."""

    patience: float | None = SILENCE

    async def wait(self, gen: "PQGen[T]", *how: Any, **more: Any) -> T:
        if self.patience is None:
            return await super().wait(gen, *how, **more)
        watch = asyncio.get_running_loop().call_later(self.patience, self._hang_up)
        try:
            return await super().wait(gen, *how, **more)
        finally:
            watch.cancel()

    def _hang_up(self) -> None:
        """Whoever waits is told that the connection is lost."""
        with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(self.pgconn.socket)) as line:
            line.shutdown(socket.SHUT_RDWR)


class Postgres(Database):
    """A server that several brokers share.

    Who writes the book holds a lock that ends with its transaction, so that they come one after the other; whoever stalls
    in between is thrown out by the server.
    """

    fault = psycopg.Error
    errors = (psycopg.OperationalError, psycopg.InternalError, psycopg.errors.UniqueViolation)
    snapshot: IsolationLevel = "REPEATABLE READ"
    shared = True

    def __init__(self, url: str) -> None:
        super().__init__(dialect())  # type: ignore[no-untyped-call]
        try:
            parts = conninfo_to_dict(url)
        except psycopg.ProgrammingError:  # which quotes the address, and the password in it
            raise StartupError("`database` is no address such as postgresql://user@host/name") from None
        self._address = url
        self.name = " ".join(f"{key}={value}" for key, value in parts.items() if "password" not in key)
        self._connection: Session | None = None
        self._number = secrets.randbelow(1 << 31)
        self._missing: set[str] = set()
        self._listening: asyncio.Task[None] | None = None

    def wait(self) -> None:
        until = time.monotonic() + START
        while time.monotonic() < until:
            try:
                psycopg.connect(self._address, connect_timeout=PATIENCE).close()
            except psycopg.OperationalError as error:
                if not any(sign in str(error) for sign in _COMING):
                    return
                time.sleep(_RETRY)
            else:
                return

    def revision(self) -> str | None:
        with psycopg.connect(self._address, autocommit=True, connect_timeout=PATIENCE) as connection:
            if connection.execute("SELECT to_regclass('alembic_version')").fetchone() == (None,):
                return None
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            return row[0] if row else None

    @contextmanager
    def migrating(self) -> Iterator[Connection]:
        """Of brokers that start together one changes the schema, and the others find it changed."""
        engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(self._address, connect_timeout=PATIENCE))
        try:
            with engine.begin() as connection:
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({BOOK})")
                yield connection
        finally:
            engine.dispose()

    def reader(self) -> AsyncEngine:
        settings = {"statement_timeout": f"{READ}s", "default_transaction_read_only": "on"}
        address = self._address
        if conninfo_to_dict(address).get("target_session_attrs") == "read-write":  # which a connection that only reads is not
            address = make_conninfo(address, target_session_attrs="primary")

        async def connect() -> Session:
            connection = await self._connect(address, **settings)
            connection.patience = READ + PATIENCE
            return connection

        return create_async_engine("postgresql+psycopg://", async_creator=connect, pool_timeout=PATIENCE, **READING)

    async def _connect(self, address: str | None = None, **settings: str) -> Session:
        options = " ".join(f"-c {name}={value}" for name, value in (KEEPALIVE | settings).items())
        return await Session.connect(
            address or self._address, autocommit=True, connect_timeout=PATIENCE, options=options, application_name="execbroker"
        )

    @property
    def _writing(self) -> Session:
        assert self._connection is not None
        return self._connection

    async def begin(self, since: int | None = None, wanted: Collection[UUID] = ()) -> Begun:
        if self._connection is None:
            self._connection = await self._connect(
                statement_timeout=f"{2 * PATIENCE}s",
                lock_timeout=f"{PATIENCE}s",
                idle_in_transaction_session_timeout=f"{STALLED}s",
            )
        news, families = self.compiled(NEWS, kept=True), self.compiled(FAMILIES, kept=True)
        family: psycopg.AsyncCursor[Any] | None = None
        async with self._writing.pipeline():
            await self._writing.execute("BEGIN")
            turn = "NULL" if since is None else f"pg_advisory_xact_lock({BOOK})"
            when = f"SELECT {turn}, extract(epoch FROM clock_timestamp())::bigint"  # noqa: S608 -- a number of our own
            clock = await self._writing.execute(when, prepare=True)
            if since is not None:  # a statement of its own, so that it sees what was committed while the lock was waited for
                entries = await self._writing.execute(news.text, {"since": since}, prepare=True)
                if wanted:
                    family = await self._writing.execute(families.text, {"wanted": [str(uuid) for uuid in wanted]}, prepare=True)
        ((_, seconds),) = await clock.fetchall()
        if since is None:
            return Begun(seconds)
        known = self._rows(families, await family.fetchall()) if family else []
        return Begun(seconds, self._rows(news, await entries.fetchall()), known)

    async def run(self, statement: Statement, parameters: Parameters | None = None) -> Result:
        compiled = self.compiled(statement, kept=parameters is not None)
        cursor = await self._writing.execute(compiled.text, compiled.values | (parameters or {}))
        if compiled.kind is None:
            return Result([], cursor.rowcount)
        rows = self._rows(compiled, await cursor.fetchall())
        return Result(rows, len(rows))

    @staticmethod
    def _rows(compiled: Compiled, rows: Iterable[Sequence[Any]]) -> list[Any]:
        assert compiled.kind is not None
        return [compiled.kind(*row) for row in rows]

    async def commit(self, last: Last) -> None:
        """All in one go: nothing waits for an answer but the last."""
        touched = [str(uuid) for uuid in last.touched]
        words = ["due"] * last.due + (touched if len(touched) <= MOST_TOLD else [EVERYTHING])
        async with self._writing.pipeline():
            for statement, parameters in last.changes:
                compiled = self.compiled(statement, kept=True)
                await self._writing.execute(compiled.text, compiled.values | parameters)
            if last.inserts or words:
                tables = tuple((table.name, tuple(rows[0])) for table, rows in last.inserts)
                rows = json.dumps({table.name: rows for table, rows in last.inserts})
                await self._writing.execute(_inserting(tables), [rows, CHANNEL, " ".join(words)])
            await self._writing.execute("COMMIT")

    def token(self) -> str:
        return f"{self._number:08x}{uuid4().hex[:24]}"

    async def dead(self, tokens: Collection[str]) -> Collection[str]:
        """Those of brokers that were not there this time nor the time before: one that has only lost its connection is back by
        then."""
        if not tokens:
            self._missing = set()
            return tokens
        cursor = await self._writing.execute(
            "SELECT objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND classid = %s "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())", [_ALIVE]
        )  # fmt: skip
        alive = {f"{number:08x}" for (number,) in await cursor.fetchall()}
        missing = {token[:8] for token in tokens} - alive
        missed, self._missing = missing & self._missing, missing
        return [token for token in tokens if token[:8] in missed]

    async def grind(self, statement: Statement) -> None:
        await self._writing.execute("SET LOCAL statement_timeout = 0")
        self._writing.patience = None
        try:
            await self.run(statement)
        finally:
            self._writing.patience = SILENCE

    async def rollback(self) -> None:
        connection = self._connection
        if connection is None:
            return
        if connection.closed or connection.broken:
            await self._drop()
        elif connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            try:
                await connection.execute("ROLLBACK")
            except psycopg.Error:
                await self._drop()

    async def _drop(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def close(self) -> None:
        if self._listening:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        await self._drop()

    async def listen(self, changes: Changes) -> None:
        ready = asyncio.Event()
        self._listening = asyncio.create_task(self._listen(changes, ready), name="listen")
        await ready.wait()

    async def _listen(self, changes: Changes, ready: asyncio.Event) -> None:
        """For as long as it listens, the broker holds a lock that says it lives."""
        deaf = False
        while True:
            try:
                async with self._live() as connection:
                    deaf = False
                    ready.set()
                    changes.tell_all()  # of what was written while nobody listened, nothing is known
                    await _pass_all_on(connection, changes)
            except psycopg.Error as error:
                if not deaf:
                    log.warning("ledger.deaf", error=str(error))
                deaf = True
            await asyncio.sleep(_RETRY)

    @asynccontextmanager
    async def _live(self) -> AsyncIterator[Session]:
        connection = await self._connect()
        try:
            await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))
            await connection.execute(f"SELECT pg_advisory_lock({_ALIVE}, {self._number})")
            yield connection
        finally:
            await connection.close()

    def clearer(self, error: BaseException) -> BrokerError:
        state = getattr(error, "sqlstate", None) or ""
        if isinstance(error, psycopg.errors.UniqueViolation) or state.startswith(_GONE) or not state:
            return Interrupted(f"The database is not there at the moment ({error})")
        if state in ("55P03", "57014"):
            return Busy("The database is too slow at the moment; nothing was changed")
        if state == "53100":
            return StorageFull(f"The database's disk is full ({error}); nothing was changed")
        return BrokerError(f"The database cannot be used ({error})")


@cache
def _inserting(tables: tuple[tuple[str, tuple[str, ...]], ...]) -> str:
    """One statement, with one value, for any number of rows of these tables and columns, and for the notice: each costs more
    than what is in it."""
    parts = ["WITH given AS MATERIALIZED (SELECT %s::json AS rows)"]
    for number, (table, names) in enumerate(tables):
        columns = ", ".join(f'"{name}"' for name in names)
        rows = f"given, json_populate_recordset(NULL::{table}, rows->'{table}')"
        parts.append(f"done{number} AS (INSERT INTO {table} ({columns}) SELECT {columns} FROM {rows})")  # noqa: S608 -- names of our own
    return f"{', '.join(parts)} SELECT pg_notify(%s, %s)"


async def _pass_all_on(connection: Session, changes: Changes) -> None:
    """A server that has nothing to tell is asked now and then whether it is still there."""
    while True:
        async for notice in connection.notifies(timeout=HEARTBEAT):
            _pass_on(notice.payload, changes)
        await connection.execute("SELECT")


def _pass_on(payload: str, changes: Changes) -> None:
    words = payload.split()
    try:
        changes.tell([UUID(word) for word in words if word != "due"], due="due" in words)
    except ValueError:  # EVERYTHING, or what only a newer version understands
        changes.tell_all()
