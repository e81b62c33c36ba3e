"""What must be so whatever became of the database: memory is as the ledger is, and the audit finds nothing."""

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import psycopg
import pytest

import stores
from brokersite import Site, asked, platform
from execbroker.books.batches import nothing
from execbroker.errors import Interrupted
from execbroker.scheduling.amounts import NOTHING
from execbroker.scheduling.timeline import Place, core_seconds

ROOM = [platform(nodes=[{"cores": 64, "memory": 256, "storage": 1000}])]

UNFINISHED = pytest.mark.filterwarnings("ignore:.*ServerCursorMixin")
"""An audit that is interrupted leaves its cursor to the collector."""


async def check(*sites: Site) -> None:
    """Each follows what was written first."""
    for site in sites:
        await until(lambda site=site: told(site), 10)
    for site in sites:
        await settled(lambda site=site: check_memory(site), 10)
        assert await until(lambda site=site: audited(site), 10) == ["looked"]
    gc.collect()


async def settled(check: Callable[[], Awaitable[None]], seconds: float) -> None:
    """What is written and what is in memory are looked at one after the other. An engine may have done something in between, and
    then they are looked at again; what really differs does so for ever."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while loop.time() < until:
        with suppress(AssertionError):
            await check()
            return
        await asyncio.sleep(0.05)
    await check()


async def audited(site: Site) -> list[str | None]:
    """What is wrong; nothing where it has to be asked again, as its connection was from before the database went away."""
    try:
        return ["looked", *await site.faults()]
    except Interrupted:
        return []


async def told(site: Site) -> bool:
    await site.books.write(nothing)
    return not site.books._pulling.unfinished


async def check_memory(site: Site) -> None:
    holdings, now = site.books.holdings, site.clock.seconds
    rows = await site.ledger.bookings()
    assert Counter(rows) == Counter((holder, piece) for holder, pieces in holdings._held.items() for piece in pieces)
    await check_what_waits(site)
    for name, capacity in site.books.capacities.items():
        for node in capacity.nodes:
            place = Place(name, node.name)
            here = [piece for _, piece in rows if piece.place == place]
            for time in {now, *(edge for piece in here for edge in (piece.start, piece.end) if edge > now)}:
                held = NOTHING
                for piece in here:
                    held = held.plus(piece.amounts if piece.start <= time < piece.end else NOTHING)
                assert holdings.timeline.least(place, time, time + 1) == holdings.timeline.capacity(place).minus(held)


async def check_what_waits(site: Site) -> None:
    """What expires is known to, and what each owner has in offers, and every session that may be pulled forward."""
    holdings, offered = site.books.holdings, Counter[str]()
    open_ = await site.ledger.open_offersets()
    assert {(expires, uuid) for uuid, _, expires in open_} <= set(holdings._expiries)
    for uuid, owner in {(uuid, owner) for uuid, owner, _ in open_}:
        offered[owner] += core_seconds(holdings.of(uuid))
    assert +offered == +Counter(holdings.offered)
    flexible = {row.uuid: row.slot for row in await site.ledger.waiting() if row.slot and row.slot.floor is not None}
    known = {uuid: row.slot for uuid, row in site.books._pulling._waiting.items()}
    assert flexible.items() <= known.items()


def count(site: Site, table: str, where: str = "true") -> int:
    ((found,),) = stores.execute(site.folder, f"SELECT count(*) FROM {table} WHERE {where}")
    return int(found)


def flexible(**request: Any) -> dict[str, Any]:
    document = asked(**request)
    document["schedule"]["requested"]["flexible"] = True
    return document


@asynccontextmanager
async def connect(address: str) -> AsyncIterator[psycopg.AsyncConnection[tuple[Any, ...]]]:
    """Somebody else's connection to a database, where each statement is a transaction."""
    connection = await psycopg.AsyncConnection.connect(address, autocommit=True)
    try:
        yield connection
    finally:
        await connection.close()


def beside(site: Site) -> AbstractAsyncContextManager[psycopg.AsyncConnection[tuple[Any, ...]]]:
    """Somebody else's connection to the database of a broker."""
    return connect(stores.address(site.folder) or "")


async def until(look: Callable[[], Awaitable[Any]], seconds: float = 30) -> Any:
    """What `look` finds, once it finds something; fails after so many seconds."""
    async with asyncio.timeout(seconds):
        while not (found := await look()):  # noqa: ASYNC110 -- another process sets no event
            await asyncio.sleep(0.02)
    return found


def is_told_to_come_again(answer: Any) -> bool:
    """Or it fails: a problem document, with a time after which to try again."""
    assert answer.status_code == 503, (answer.status_code, answer.text)
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["status"] == 503
    assert answer.json()["detail"]
    return True
