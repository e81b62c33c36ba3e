"""What honesty costs: four offers held, one accepted, three released, through the books, beside the same rows written by the
ledger alone, and the same statements made by the driver alone.

All on SQLite with a write-ahead log and `synchronous=FULL`: each commit is flushed to the disk.
"""

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from execbroker.books.books import Books
from execbroker.ledger import schema
from execbroker.ledger.database import Database
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
ROUNDS = 5
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
async def opened(database: Database) -> AsyncIterator[Ledger]:
    schema.prepare(database)
    ledger = Ledger(database)
    await ledger.open()
    try:
        yield ledger
    finally:
        await ledger.close()


@asynccontextmanager
async def books(ledger: Ledger) -> AsyncIterator[Books]:
    found = Books(ledger, Clock())
    await found.open()
    await found.learn(POOL, Capacity(tuple(Node(str(number), 64, 256) for number in range(100))))
    try:
        yield found
    finally:
        await found.close()


async def through_books(found: Books, numbers: Iterable[int], clients: int) -> tuple[float, list[Cycle]]:
    """How many seconds it took, and what was written."""
    requests, answers = iter([wanted(number) for number in numbers]), []

    async def client() -> None:
        for request in requests:
            answer = await found.offer(request)
            await found.accept(answer.offers[0].uuid)
            answers.append(answer)

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    seconds = time.perf_counter() - began
    return seconds, [Cycle(answer, envelope(offer.slot for offer in answer.offers if offer.slot)) for answer in answers]


async def by_ledger(ledger: Ledger, cycles: list[Cycle], together: int) -> float:
    """How many seconds the same rows took, without looking for them, without keeping a timeline and without asking anyone."""
    now = int(time.time())
    began = time.perf_counter()
    for first in range(0, len(cycles), together):
        batch = cycles[first : first + together]
        async with ledger.write(0) as transaction:
            for cycle in batch:
                transaction.add_offerset(cycle.answer.offerset, cycle.answer.offers)
                transaction.book(cycle.answer.offerset.uuid, cycle.held)
        async with ledger.write(0, wanted=[cycle.accepted.uuid for cycle in batch]) as transaction:
            for cycle in batch:
                await _accept(transaction, cycle, now)
    return time.perf_counter() - began


async def _accept(transaction: Transaction, cycle: Cycle, now: int) -> None:
    offerset, accepted = cycle.answer.offerset.uuid, cycle.accepted
    assert accepted.slot is not None
    await transaction.turn_down(offerset, Phase.REJECTED, now, but=accepted.uuid)
    transaction.record(accepted.uuid, Phase.ACCEPTED, now)
    await transaction.move(accepted, Phase.WAITING, now, due=accepted.slot.prepare)
    transaction.unbook(offerset)
    transaction.book(accepted.uuid, bookings_of(accepted.slot))


def recording(path: Path, record: Statements) -> Sqlite:
    database = Sqlite(path)
    connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False, factory=_Recorder)
    for pragma in PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
    connection.record = record
    database.connection = connection
    return database


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


def by_driver(path: Path, record: Statements) -> float:
    """How many seconds the same statements took, in the same transactions, with the values as they go into the store."""
    schema.prepare(Sqlite(path))
    connection = sqlite3.connect(path, isolation_level=None)
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
    return seconds


async def in_turn(
    one: Database,
    other: Database,
    numbers: Iterable[Iterable[int]],
    clients: int,
    ready: Callable[[], Awaitable[None]] | None = None,
) -> list[tuple[float, float]]:
    """How many seconds some of the numbers took through the books, and then the same rows by the ledger, again and again: a
    machine whose speed changes changes it for both."""
    async with opened(one) as ledger, books(ledger) as found, opened(other) as bare:
        measured = []
        for some in numbers:
            if ready:
                await ready()
            ours, written = await through_books(found, some, clients)
            if ready:
                await ready()
            measured.append((ours, await by_ledger(bare, written, clients)))
        return measured


def rounds(cycles: int) -> list[range]:
    """The first is to warm up."""
    size = cycles // ROUNDS
    return [range(number * size, (number + 1) * size) for number in range(ROUNDS + 1)]


async def _record(path: Path, cycles: int, clients: int) -> Statements:
    """The statements by which the ledger writes these."""
    record: Statements = []
    async with opened(Sqlite(path.with_suffix(".books"))) as ledger, books(ledger) as found:
        _, written = await through_books(found, range(cycles), clients)
    async with opened(recording(path, record)) as bare:
        await by_ledger(bare, written, clients)
    return record


def compare(cycles: int, clients: int) -> Rates:
    with ExitStack() as stack:
        paths = (Path(stack.enter_context(tempfile.TemporaryDirectory())) / "ledger.sqlite" for _ in range(4))
        measured = asyncio.run(in_turn(Sqlite(next(paths)), Sqlite(next(paths)), rounds(cycles), clients))[1:]
        record = asyncio.run(_record(next(paths), cycles, clients))
        return Rates(*(cycles / sum(seconds) for seconds in (*zip(*measured, strict=True), [by_driver(next(paths), record)])))
