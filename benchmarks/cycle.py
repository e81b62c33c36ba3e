"""What durability costs: four offers held, one accepted, three released, through the books, beside the same rows written bare.

Both on SQLite with a write-ahead log and `synchronous=FULL`, in the same folder: each commit is flushed to the disk.
"""

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from execbroker.books.books import Books
from execbroker.ledger import schema
from execbroker.ledger.ledger import Ledger
from execbroker.model.sessions import ExecutionRequest
from execbroker.model.times import Clock
from execbroker.model.waist import Capacity, Node
from execbroker.offers.asking import Plan
from execbroker.offers.sizing import NodeAsk
from execbroker.offers.wanting import Wanted
from execbroker.scheduling.asks import Candidate, Part, Range

POOL = "pool"
PRAGMAS = ("journal_mode=WAL", "synchronous=FULL")
Statements = list[tuple[str, Any, bool]]


def wanted(number: int) -> Wanted:
    """Half an hour on two to four cores, at some hour of the next four weeks."""
    start = int(time.time()) + 3600 * (number * 7919 % (28 * 24))
    cores, memory = Range(2, 4), Range(4, 8)
    plan = Plan(ExecutionRequest(), nodes=[NodeAsk("compute", cores, memory)], duration=1800, start=(start, start + 86400))
    return Wanted("me", "{}", plan, (Candidate(POOL, 0, 5, parts=(Part(cores, memory),)),), (POOL,), (), (), 300, 4, 0)


@asynccontextmanager
async def books(folder: Path) -> AsyncIterator[tuple[Books, Ledger]]:
    schema.prepare(folder / "ledger.sqlite")
    ledger = Ledger(folder / "ledger.sqlite")
    found = Books(ledger, Clock())
    await found.open()
    await found.learn(POOL, Capacity(tuple(Node(str(number), 64, 256) for number in range(100))))
    try:
        yield found, ledger
    finally:
        await found.close()
        await ledger.close()


async def one_cycle(found: Books, number: int) -> None:
    answer = await found.offer(wanted(number))
    await found.accept(answer.offers[0].uuid)


async def through_books(folder: Path, cycles: int, clients: int, record: Statements | None = None) -> float:
    """Cycles per second; what is written goes into `record`, where that is given."""
    async with books(folder) as (found, ledger):
        if record is not None:
            _listen(ledger, record)
        left = iter(range(cycles))

        async def client() -> None:
            for number in left:
                await one_cycle(found, number)

        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        return cycles / (time.perf_counter() - began)


def _listen(ledger: Ledger, record: Statements) -> None:
    connection = sqlite3.connect(ledger.path, timeout=0, isolation_level=None, check_same_thread=False, factory=_Recorder)
    for pragma in PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
    connection.record = record
    assert ledger.writing.connection is not None
    ledger.writing.connection.close()
    ledger.writing.connection = connection


class _Recorder(sqlite3.Connection):
    """Keeps what it is told to do."""

    record: Statements = []

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if not sql.startswith(("SELECT", "PRAGMA")):
            self.record.append((sql, parameters, False))
        return super().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Any, /) -> sqlite3.Cursor:
        self.record.append((sql, parameters, True))
        return super().executemany(sql, parameters)


def bare(folder: Path, record: Statements, cycles: int) -> float:
    """The same statements by the driver alone, in the same transactions."""
    schema.prepare(folder / "ledger.sqlite")
    connection = sqlite3.connect(folder / "ledger.sqlite", isolation_level=None)
    for pragma in PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
    began = time.perf_counter()
    for statement, parameters, many in record:
        if many:
            connection.executemany(statement, parameters)
        else:
            connection.execute(statement, parameters)
    seconds = time.perf_counter() - began
    connection.close()
    return cycles / seconds


def compare(cycles: int, clients: int) -> tuple[float, float]:
    """Cycles per second through the books and bare."""
    record: Statements = []
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two, tempfile.TemporaryDirectory() as three:
        asyncio.run(through_books(Path(one), cycles, clients, record))
        ours = asyncio.run(through_books(Path(two), cycles, clients))
        return ours, bare(Path(three), record, cycles)
