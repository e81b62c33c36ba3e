"""What honesty costs: four offers held, one accepted, three released, through the books, beside the same rows written by the
ledger alone, and the same statements made by the driver alone.

All on SQLite with a write-ahead log and `synchronous=FULL`: each commit is flushed to the disk.
"""

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from execbroker.books.books import Books
from execbroker.ledger import schema
from execbroker.ledger.ledger import Ledger
from execbroker.ledger.rows import SessionRow
from execbroker.ledger.sqlite import Sqlite
from execbroker.ledger.transaction import Transaction
from execbroker.model.phases import Phase
from execbroker.model.sessions import ExecutionRequest
from execbroker.model.times import Clock
from execbroker.model.waist import Capacity, Node
from execbroker.offers.asking import Plan
from execbroker.offers.offering import Answer
from execbroker.offers.sizing import NodeAsk
from execbroker.offers.wanting import Wanted
from execbroker.scheduling.asks import Candidate, Part, Range
from execbroker.scheduling.timeline import Booking, bookings_of, envelope

POOL = "pool"
PRAGMAS = ("journal_mode=WAL", "synchronous=FULL")
Statements = list[tuple[str, Any, bool]]


class Rates(NamedTuple):
    """Cycles per second."""

    books: float
    ledger: float
    driver: float


class Cycle(NamedTuple):
    """What was written: the offers, what they held, and the one that was accepted."""

    answer: Answer
    held: list[Booking]

    @property
    def accepted(self) -> SessionRow:
        return self.answer.offers[0]


def wanted(number: int) -> Wanted:
    """Half an hour on two to four cores, at some hour of the next four weeks."""
    start = int(time.time()) + 3600 * (number * 7919 % (28 * 24))
    cores, memory = Range(2, 4), Range(4, 8)
    plan = Plan(ExecutionRequest(), nodes=[NodeAsk("compute", cores, memory)], duration=1800, start=(start, start + 86400))
    return Wanted("me", "{}", plan, (Candidate(POOL, 0, 5, parts=(Part(cores, memory),)),), (POOL,), (), (), 300, 4, 0)


@asynccontextmanager
async def books(folder: Path) -> AsyncIterator[tuple[Books, Ledger]]:
    schema.prepare(Sqlite(folder / "ledger.sqlite"))
    ledger = Ledger(Sqlite(folder / "ledger.sqlite"))
    found = Books(ledger, Clock())
    await found.open()
    await found.learn(POOL, Capacity(tuple(Node(str(number), 64, 256) for number in range(100))))
    try:
        yield found, ledger
    finally:
        await found.close()
        await ledger.close()


async def through_books(folder: Path, cycles: int, clients: int) -> tuple[float, list[Cycle]]:
    """Cycles per second, and what was written."""
    requests, answers = iter([wanted(number) for number in range(cycles)]), []
    async with books(folder) as (found, _):

        async def client() -> None:
            for request in requests:
                answer = await found.offer(request)
                await found.accept(answer.offers[0].uuid)
                answers.append(answer)

        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        seconds = time.perf_counter() - began
    return cycles / seconds, [Cycle(answer, envelope(offer.slot for offer in answer.offers if offer.slot)) for answer in answers]


async def by_ledger(folder: Path, cycles: list[Cycle], together: int, record: Statements | None = None) -> float:
    """The same rows, without looking for them, without keeping a timeline and without asking anyone."""
    schema.prepare(Sqlite(folder / "ledger.sqlite"))
    ledger = Ledger(Sqlite(folder / "ledger.sqlite"))
    now = int(time.time())
    if record is not None:
        _listen(ledger, record)
    began = time.perf_counter()
    for first in range(0, len(cycles), together):
        batch = cycles[first : first + together]
        async with ledger.write() as transaction:
            for cycle in batch:
                transaction.add_offerset(cycle.answer.offerset, cycle.answer.offers)
                transaction.book(cycle.answer.offerset.uuid, cycle.held)
        async with ledger.write() as transaction:
            for cycle in batch:
                await _accept(transaction, cycle, now)
    seconds = time.perf_counter() - began
    await ledger.close()
    return len(cycles) / seconds


async def _accept(transaction: Transaction, cycle: Cycle, now: int) -> None:
    offerset, accepted = cycle.answer.offerset.uuid, cycle.accepted
    assert accepted.slot is not None
    transaction.record(accepted.uuid, Phase.ACCEPTED, now)
    await transaction.move(accepted, Phase.WAITING, now, due=accepted.slot.prepare)
    await transaction.turn_down(offerset, Phase.REJECTED, now)
    await transaction.unbook([offerset])
    transaction.book(accepted.uuid, bookings_of(accepted.slot))


def _listen(ledger: Ledger, record: Statements) -> None:
    assert isinstance(ledger.database, Sqlite)
    connection = sqlite3.connect(
        ledger.database.path, timeout=0, isolation_level=None, check_same_thread=False, factory=_Recorder
    )
    for pragma in PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
    connection.record = record
    ledger.database.connection = connection


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


def by_driver(folder: Path, record: Statements, cycles: int) -> float:
    """The same statements, in the same transactions, with the values as they go into the store."""
    schema.prepare(Sqlite(folder / "ledger.sqlite"))
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


def compare(cycles: int, clients: int) -> Rates:
    """One after the other in the same process, the first of each to warm up."""
    record: Statements = []
    with ExitStack() as stack:
        folders = (Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(5))
        asyncio.run(through_books(next(folders), 100, clients))
        ours, written = asyncio.run(through_books(next(folders), cycles, clients))
        asyncio.run(by_ledger(next(folders), written, clients, record))
        ledger = asyncio.run(by_ledger(next(folders), written, clients))
        return Rates(ours, ledger, by_driver(next(folders), record, cycles))
