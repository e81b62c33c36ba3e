"""The same cycle by several broker processes on one PostgreSQL, beside the same rows written by the ledger alone under the same
lock, each commit flushed to the disk."""

import asyncio
import multiprocessing
import sys
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import NamedTuple

from cycle import in_turn, rounds

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from stores import Server

CYCLES = 500
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
        measured = pool.starmap(_work, [(addresses, clients)] * processes, chunksize=1)
    slowest = [[max(each) for each in zip(*round_, strict=True)] for round_ in zip(*measured, strict=True)][1:]
    return Rates(*(processes * CYCLES / sum(each) for each in zip(*slowest, strict=True)))


def _join(barrier: Barrier) -> None:
    _barriers.append(barrier)


async def _ready() -> None:
    """All begin at the same time."""
    await asyncio.to_thread(_barriers[0].wait, LONGEST)


def _work(addresses: list[str], clients: int) -> list[tuple[float, float]]:
    from execbroker.ledger.postgres import Postgres

    books, ledger = (Postgres(address) for address in addresses)
    return asyncio.run(in_turn(books, ledger, rounds(CYCLES), clients, _ready))


_barriers: list[Barrier] = []
