import asyncio
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Table, create_engine, event, insert
from sqlalchemy.dialects.sqlite import dialect
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from execbroker.errors import BrokerError, Busy, StorageFull
from execbroker.ledger.database import PATIENCE, READING, Begun, Database, Last, Parameters, Result, Statement
from execbroker.ledger.reserve import Reserve

_RETRY = 0.02


class Sqlite(Database):
    """A file that one broker has for itself.

    To SQLite a statement is a function call of microseconds, and so it is made here, at once; only the commit, which waits
    for the disk, has a thread.
    """

    fault = sqlite3.Error
    errors = (sqlite3.OperationalError,)

    def __init__(self, path: Path) -> None:
        super().__init__(dialect(paramstyle="named"))
        self.path, self.name = path, str(path)
        self.connection: sqlite3.Connection | None = None
        self._reserve = Reserve(path.with_name("reserve"))
        self._thread = ThreadPoolExecutor(1, "ledger")
        self._inserts: dict[tuple[Table, tuple[str, ...]], str] = {}

    def revision(self) -> str | None:
        if not self.path.exists():
            return None
        connection = sqlite3.connect(self.path)
        try:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return None
            raise
        finally:
            connection.close()
        return row[0] if row else None

    @contextmanager
    def migrating(self) -> Iterator[Connection]:
        engine = create_engine(f"sqlite:///{self.path}", connect_args={"isolation_level": None})
        # The driver would commit every CREATE TABLE by itself, and a broker killed between two would leave half a schema.
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        try:
            with engine.begin() as connection:
                yield connection
        finally:
            engine.dispose()

    def reader(self) -> AsyncEngine:
        engine = create_async_engine(f"sqlite+aiosqlite:///{self.path}", **READING)

        @event.listens_for(engine.sync_engine, "connect")
        def _connected(connection: Any, _record: Any) -> None:
            cursor = connection.cursor()
            cursor.execute(f"PRAGMA busy_timeout={PATIENCE * 1000}")
            cursor.close()

        return engine

    async def begin(self, since: int | None = None, wanted: Collection[UUID] = ()) -> Begun:
        """Raises sqlite3.OperationalError where another program goes on having the database locked."""
        connection = self.connection or self._connect()
        until = time.monotonic() + PATIENCE
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
                await asyncio.sleep(_RETRY)
            else:
                return Begun()

    def _connect(self) -> sqlite3.Connection:
        self.connection = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode=WAL", "synchronous=FULL"):
            self.connection.execute(f"PRAGMA {pragma}")
        return self.connection

    async def run(self, statement: Statement, parameters: Parameters | None = None) -> Result:
        return self._run(statement, parameters)

    def _run(self, statement: Statement, parameters: Parameters | None = None) -> Result:
        assert self.connection is not None
        compiled = self.compiled(statement, kept=parameters is not None)
        cursor = self.connection.execute(compiled.text, compiled.values | (parameters or {}))
        if compiled.kind is None:
            return Result([], cursor.rowcount)
        rows = [compiled.kind(*row) for row in cursor]
        return Result(rows, len(rows))

    async def commit(self, last: Last) -> None:
        assert self.connection is not None
        for statement, parameters in last.changes:
            self._run(statement, parameters)
        for table, rows in last.inserts:
            names = tuple(rows[0])
            if (table, names) not in self._inserts:
                self._inserts[table, names] = str(insert(table).compile(dialect=self._dialect, column_keys=list(names)))
            self.connection.executemany(self._inserts[table, names], rows)

        if last.changed:
            await self._in_thread(self.connection.execute, "COMMIT")
        else:
            self.connection.execute("COMMIT")

    async def grind(self, statement: Statement) -> None:
        await self._in_thread(self._run, statement)

    async def _in_thread(self, work: Callable[..., Any], *args: Any) -> None:
        """Over only when it is over, also where its caller gives up."""
        done = asyncio.get_running_loop().run_in_executor(self._thread, work, *args)
        try:
            await asyncio.shield(done)
        except asyncio.CancelledError:
            await asyncio.wait({done})
            raise

    async def rollback(self) -> None:
        if self.connection is not None and self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    async def close(self) -> None:
        self._thread.shutdown()
        if self.connection is not None:
            self.connection.close()

    def clearer(self, error: BaseException) -> BrokerError:
        text = str(error)
        if "full" in text or "disk I/O error" in text:
            return StorageFull(f"The broker's disk does not take any more ({text}); nothing was changed")
        if "locked" in text or "busy" in text:
            return Busy(f"The database has been locked by another program for {PATIENCE} s; nothing was changed")
        return BrokerError(f"The database cannot be used ({text})")

    @property
    def full(self) -> bool:
        if self._reserve.spent:
            self._reserve.restore()
        return self._reserve.spent

    def filled(self) -> None:
        self._reserve.spend()

    def set_room_aside(self) -> None:
        self._reserve.restore()
