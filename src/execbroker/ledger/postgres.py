import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import psycopg
import structlog
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import (
    ARRAY,
    Connection,
    String,
    Table,
    any_,
    bindparam,
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

Session: TypeAlias = psycopg.AsyncConnection[tuple[Any, ...]]

BOOK = 0x65786562  # the advisory lock of the one who writes the book
_ALIVE = 0x65786563  # those of the brokers that live, each with a number of its own
CHANNEL = "execbroker"
MOST_TOLD = 150  # uuids; a notice has 8,000 bytes at most
EVERYTHING = "*"
STALLED = 15  # seconds for which a transaction may do nothing before it is ended from outside
_RETRY = 0.5
START = 30  # seconds
_COMING = ("refused", "starting up", "shutting down", "not yet accepting", "No such file")
"""What is said of a server, or by it, that is not there as yet."""
_WANTED = select(sessions.c.offerset).where(sessions.c.uuid == any_(bindparam("wanted", type_=ARRAY(String))))
FAMILIES = select(sessions).where(sessions.c.offerset.in_(_WANTED))
NEWS = select(journal).where(journal.c.seq >= bindparam("since")).order_by(journal.c.seq)

_GONE = ("08", "57P", "25P03", "25006", "40", "53300")
"""Where a statement was not the matter: connection lost, server stopping, stalled, standby, deadlock, too many connections."""
log = structlog.get_logger()


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
        self._inserts: dict[tuple[Table, tuple[str, ...]], str] = {}
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
        settings = {"statement_timeout": "30s", "default_transaction_read_only": "on"}
        return create_async_engine("postgresql+psycopg://", async_creator=lambda: self._connect(**settings), **READING)

    async def _connect(self, **settings: str) -> Session:
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        return await psycopg.AsyncConnection.connect(
            self._address, autocommit=True, connect_timeout=PATIENCE, options=options, application_name="execbroker"
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
            if since is not None:
                await self._writing.execute(f"SELECT pg_advisory_xact_lock({BOOK})")
                entries = await self._writing.execute(news.text, {"since": since}, prepare=True)
                if wanted:
                    family = await self._writing.execute(families.text, {"wanted": [str(uuid) for uuid in wanted]}, prepare=True)
            clock = await self._writing.execute("SELECT extract(epoch FROM clock_timestamp())::bigint", prepare=True)
        ((seconds,),) = await clock.fetchall()
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
            for table, rows in last.inserts:
                names = tuple(rows[0])
                await self._writing.execute(self._inserting(table, names), [json.dumps(rows)])
            if words:
                await self._writing.execute("SELECT pg_notify(%s, %s)", [CHANNEL, " ".join(words)])
            await self._writing.execute("COMMIT")

    def _inserting(self, table: Table, names: tuple[str, ...]) -> str:
        """One statement for any number of rows, and one value, which costs less to write than as many as there are."""
        if (table, names) not in self._inserts:
            columns = ", ".join(f'"{name}"' for name in names)
            rows = f"json_populate_recordset(NULL::{table.name}, %s)"
            self._inserts[table, names] = f"INSERT INTO {table.name} ({columns}) SELECT {columns} FROM {rows}"  # noqa: S608
        return self._inserts[table, names]

    def token(self) -> str:
        return f"{self._number:08x}{uuid4().hex[:24]}"

    async def dead(self, tokens: Collection[str]) -> Collection[str]:
        """Those of brokers that were not there this time nor the time before: one that has only lost its connection is back by
        then."""
        if not tokens:
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
        await self.run(statement)

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
        while True:
            try:
                async with self._live() as connection:
                    ready.set()
                    changes.tell_all()  # of what was written while nobody listened, nothing is known
                    async for notice in connection.notifies():
                        _pass_on(notice.payload, changes)
            except psycopg.Error as error:
                log.warning("ledger.deaf", error=str(error))
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


def _pass_on(payload: str, changes: Changes) -> None:
    words = payload.split()
    if EVERYTHING in words:
        changes.tell_all()
    else:
        changes.tell([UUID(word) for word in words if word != "due"], due="due" in words)
