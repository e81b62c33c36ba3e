import asyncio
import sqlite3
import time
from collections import namedtuple
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Delete, Select, Table, Update, insert
from sqlalchemy.dialects.sqlite import dialect

PATIENCE = 5
"""Seconds to wait for another program that has the database locked."""
_RETRY = 0.02

Parameters = dict[str, Any]
Statement = Select[*tuple[Any, ...]] | Update | Delete
_DIALECT = dialect(paramstyle="named")


class Compiled(NamedTuple):
    """A statement's text, the values that it has in it, and what its rows are like, where it gives any."""

    text: str
    values: Parameters
    kind: type | None


class Result(NamedTuple):
    """The rows that a statement gave, and how many it touched."""

    rows: list[Any]
    touched: int


class Writing:
    """The one connection that writes.

    To SQLite a statement is a function call of microseconds, and so it is made here, at once; only the commit, which waits
    for the disk, has a thread. Statements are SQLAlchemy's; one that is run with parameters is compiled once.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.connection: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1, "ledger")
        self._compiled: dict[Statement, Compiled] = {}
        self._inserts: dict[tuple[Table, tuple[str, ...]], str] = {}

    async def begin(self) -> None:
        """Begin a transaction, alone. Raises sqlite3.OperationalError where another program goes on being before us."""
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
                return

    def _connect(self) -> sqlite3.Connection:
        self.connection = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode=WAL", "synchronous=FULL"):
            self.connection.execute(f"PRAGMA {pragma}")
        return self.connection

    def run(self, statement: Statement, parameters: Parameters | None = None) -> Result:
        """One statement; without parameters it has its values in it."""
        assert self.connection is not None
        compiled = self._compile(statement, kept=parameters is not None)
        cursor = self.connection.execute(compiled.text, compiled.values | (parameters or {}))
        if compiled.kind is None:
            return Result([], cursor.rowcount)
        rows = [compiled.kind(*row) for row in cursor]
        return Result(rows, len(rows))

    def insert(self, table: Table, rows: Sequence[Parameters]) -> None:
        """Rows that all have the same columns."""
        assert self.connection is not None
        names = tuple(rows[0])
        if (table, names) not in self._inserts:
            self._inserts[table, names] = str(insert(table).compile(dialect=_DIALECT, column_keys=list(names)))
        self.connection.executemany(self._inserts[table, names], rows)

    async def commit(self, *, changed: bool) -> None:
        """End the transaction, on the disk where anything has `changed`."""
        assert self.connection is not None
        if not changed:
            self.connection.execute("COMMIT")
            return
        await self._in_thread(self.connection.execute, "COMMIT")

    async def grind(self, statement: Statement) -> None:
        """A statement that may take long."""
        await self._in_thread(self.run, statement)

    async def _in_thread(self, work: Callable[..., Any], *args: Any) -> None:
        """Over only when it is over, also where its caller gives up."""
        done = asyncio.get_running_loop().run_in_executor(self._thread, work, *args)
        try:
            await asyncio.shield(done)
        except asyncio.CancelledError:
            await asyncio.wait({done})
            raise

    def rollback(self) -> None:
        if self.connection is not None and self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def close(self) -> None:
        self._thread.shutdown()
        if self.connection is not None:
            self.connection.close()

    def _compile(self, statement: Statement, *, kept: bool) -> Compiled:
        if found := self._compiled.get(statement) if kept else None:
            return found
        compiled = statement.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})
        given = {bind.key for bind in compiled.binds.values() if bind.required}
        values = {name: value for name, value in compiled.params.items() if name not in given}
        names = [str(column.key) for column in statement.exported_columns]
        kind = namedtuple("Row", names) if names else None  # noqa: PYI024 -- the columns are what they are
        found = Compiled(str(compiled), values, kind)
        if kept:
            self._compiled[statement] = found
        return found
