"""The same cycle by several broker processes on one PostgreSQL, beside the same rows written by the ledger alone under the same
lock, each commit flushed to the disk."""

import asyncio
import multiprocessing
import sys
import tempfile
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import NamedTuple

from cycle import by_ledger, through_books

from execbroker.ledger.sqlite import Sqlite

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from stores import Server

CYCLES = 300
LONGEST = 120  # seconds


class Rates(NamedTuple):
    """Cycles per second, of all processes together."""

    books: float
    ledger: float


def compare(server: Server, processes: int, clients: int) -> Rates:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)
    names = [f"{what}{processes}x{clients}" for what in ("books", "ledger")]
    for name in names:
        server.create(name, "empty")
    addresses = [server.address(name) for name in names]
    with context.Pool(processes, _join, (barrier,)) as pool:
        seconds = pool.starmap(_work, [(addresses, clients)] * processes, chunksize=1)
    return Rates(*(processes * CYCLES / max(each) for each in zip(*seconds, strict=True)))


def _join(barrier: Barrier) -> None:
    _barriers.append(barrier)


async def _ready() -> None:
    """All begin at the same time."""
    await asyncio.to_thread(_barriers[0].wait, LONGEST)


def _work(addresses: list[str], clients: int) -> tuple[float, float]:
    from execbroker.ledger.postgres import Postgres

    with tempfile.TemporaryDirectory() as folder:
        _, written = asyncio.run(through_books(Sqlite(Path(folder) / "ledger.sqlite"), CYCLES, clients))
    ours, _ = asyncio.run(through_books(Postgres(addresses[0]), CYCLES, clients, _ready))
    return ours, asyncio.run(by_ledger(Postgres(addresses[1]), written, clients, _ready))


_barriers: list[Barrier] = []
