"""A PostgreSQL whose disk is full, or whose place another takes; and brokers that stall, or die, with the lock or a lease."""

import asyncio
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from ledgers import ROOM, UNFINISHED, check, check_memory, connect, flexible, is_told_to_come_again, until
from test_crash import DOCUMENT, Broker, nursery

import stores
from brokersite import NOTEBOOK, ManualClock, Site, asked, uuid_of
from execbroker.ledger.audit import audit
from execbroker.ledger.ledger import Ledger
from execbroker.ledger.postgres import STALLED

pytestmark = [pytest.mark.postgres, pytest.mark.alone, UNFINISHED]

SMALL = 16 << 20
"""Bytes: a database without anything in it takes half of that."""
HELD = ("ACCEPTED", "WAITING", "PREPARING", "AVAILABLE", "RUNNING", "RELEASING", "COMPLETED")


@contextmanager
def servers(*, synchronous: bool) -> Iterator[tuple[stores.Server, stores.Server, str]]:
    """A server, another that follows it, and the address of the database `one` on whichever of them can be written to."""
    first = stores.Server()
    first.create("one", "empty")
    second = stores.Standby(first, synchronous=synchronous)
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in (first, second))
    try:
        yield first, second, f"postgresql://execbroker@{hosts}/one?target_session_attrs=read-write"
    finally:
        for server in (first, second):
            server.remove()


def test_another_server_takes_over(tmp_path: Path) -> None:
    """Every session that a client was told is accepted is there, and the brokers go on by themselves."""
    chance, counts, accepted = random.Random(1), Counter[str](), list[str]()

    async def customer(site: Site, over: asyncio.Event) -> None:
        while not over.is_set():
            start = site.clock.at(chance.randrange(3600, 40 * 86400))
            answer = await site.client.post("/requests", json={"executable": NOTEBOOK, **flexible(start=f"{start}/P1D")})
            counts[f"asked: {answer.status_code}"] += 1
            if answer.status_code == 200:
                offer = answer.json()["offers"][0]
                answer = await site.update(offer, "ACCEPTED")
                counts[f"accepted: {answer.status_code}"] += 1
                accepted.extend([uuid_of(offer)] if answer.status_code == 200 else [])
            if answer.status_code != 200:
                is_told_to_come_again(answer)
                await asyncio.sleep(0.1)

    async def work() -> None:
        with servers(synchronous=True) as (first, second, address):
            site = partial(Site, tmp_path, ManualClock(), platforms=ROOM, database=address)
            async with site() as one, site() as two:
                over = asyncio.Event()
                customers = asyncio.gather(*(customer(broker, over) for broker in (one, two) * 3))
                await asyncio.sleep(1)
                before = len(accepted)
                await asyncio.to_thread(first.stop, "immediate")
                await asyncio.to_thread(second.promote)
                await asyncio.sleep(3)
                over.set()
                await customers
                assert 0 < before < len(accepted)
                assert {await one.phase(uuid) for uuid in accepted} <= set(HELD)
                await check(one, two)

    asyncio.run(work())
    assert counts.keys() <= {"asked: 200", "asked: 503", "accepted: 200", "accepted: 503"}


def test_a_server_takes_over_that_lacks_what_was_last_written(tmp_path: Path) -> None:
    """Nothing can bring that back, but what the broker had of it in memory is forgotten as well."""

    async def work() -> None:
        with servers(synchronous=False) as (first, second, address):
            async with Site(tmp_path, database=address) as site:
                day = {"cores": 4, "memory": 8, "start": site.clock.at(86400)}
                known = await site.take(**asked(**day))
                level = "SELECT 1 FROM pg_stat_replication WHERE replay_lsn >= pg_current_wal_lsn()"
                await until(lambda: _rows(first, level))
                await asyncio.to_thread(second.stop)
                lost = await site.take(**asked(start=site.clock.at(2 * 86400)))
                assert (await site.update(known, "CANCELLED")).status_code == 200
                await site.settle()
                assert (await site.ask(**asked(**day)))["result"] == "YES"
                await asyncio.to_thread(first.stop, "immediate")
                await asyncio.to_thread(second.start)
                await asyncio.to_thread(second.promote)
                assert (await site.ask(**asked(**day)))["result"] == "NO", "it was never cancelled there"
                assert (await site.client.get(f"/sessions/{lost}")).status_code == 404
                assert await site.phase(known) == "WAITING"
                await check(site)

    asyncio.run(work())


@pytest.mark.parametrize("killed", [False, True])
def test_the_standby_is_away(tmp_path: Path, killed: bool) -> None:
    """No commit is answered then: clients are not told that it was made, nor that it was not, also where a broker finds it in the
    journal, after its connection was killed: the standby does not have it."""

    async def work() -> None:
        with servers(synchronous=True) as (first, second, address):
            site = partial(Site, tmp_path, ManualClock(), database=address)
            async with site() as one, site() as two:
                (offer, *_) = await one.offers(**asked(cores=4, memory=8))
                await asyncio.to_thread(second.stop)
                accepting = asyncio.create_task(one.update(offer, "ACCEPTED"))
                waits = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
                await until(lambda: _rows(first, waits), 5)
                if killed:
                    assert await _rows(first, f"SELECT pg_terminate_backend(pid) FROM ({waits}) AS them") == [(True,)]
                else:
                    is_told_to_come_again(await two.client.post("/requests", json={"executable": NOTEBOOK, **asked()}))
                answer = await accepting
                is_told_to_come_again(answer)
                assert "look whether" in answer.json()["detail"]
                assert (await one.phase(offer) == "OFFERED") is not killed
                await asyncio.to_thread(second.start)
                await until(lambda: has_left(one, offer, "OFFERED"), 10)
                assert (await one.update(offer, "ACCEPTED")).status_code == 409
                await check(one, two)

    asyncio.run(work())


async def has_left(site: Site, session: Any, phase: str) -> bool:
    return await site.phase(session) != phase


async def _rows(server: stores.Server, query: str) -> list[tuple[Any, ...]]:
    async with connect(server.address("postgres")) as connection:
        return await (await connection.execute(query)).fetchall()


@pytest.fixture
def small() -> Iterator[Path]:
    """A folder on a disk of its own, with little room."""
    if os.geteuid() != 0 or not shutil.which("mount"):
        text = "to make a small disk needs root, and mount: run the tests as root, in a container say"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(text)
    assert stores.server
    folder = stores.server.folder / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL},mode=755", "tmpfs", str(folder)], check=True)
    try:
        (folder / "space").mkdir()
        shutil.chown(folder / "space", "postgres")
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


def fill(folder: Path) -> Path:
    """A file that leaves no room."""
    disk = os.statvfs(folder)
    with (folder / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_frsize)
    return folder / "filler"


def test_the_disk_of_the_database_is_full(tmp_path: Path, small: Path) -> None:
    """What is new is refused, nothing is in memory that is not written, and it goes on when there is room."""
    assert stores.server
    stores.server.do(f"CREATE TABLESPACE small LOCATION '{small / 'space'}'")
    stores.server.do("CREATE DATABASE small TEMPLATE empty TABLESPACE small STRATEGY file_copy")

    async def work() -> None:
        assert stores.server
        async with Site(tmp_path, platforms=ROOM, database=stores.server.address("small")) as site:
            due = await site.take(**asked(start=site.clock.at(60)))
            filler = fill(small)

            async def ask() -> int:
                answer = await site.client.post("/requests", json={"executable": NOTEBOOK, **flexible()})
                if answer.status_code == 507:
                    assert answer.json()["title"] == "The broker's disk is full"
                return answer.status_code

            codes = [code for _ in range(60) for code in await asyncio.gather(*(ask() for _ in range(5)))]
            assert set(codes) <= {200, 507}
            assert codes[-5:] == [507] * 5
            await check_memory(site)
            assert await site.phase(due) == "WAITING"
            filler.unlink()
            assert await ask() == 200
            site.clock.advance(60)
            await site.settle()
            assert await site.phase(due) == "RUNNING"
            await check(site)

    try:
        asyncio.run(work())
    finally:
        stores.server.do("DROP DATABASE small WITH (FORCE)")
        stores.server.do("DROP TABLESPACE small")


async def is_there(folder: Path, query: str) -> bool:
    return bool(await asyncio.to_thread(stores.execute, folder, query))


ACTIVITY = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'execbroker' AND "


def change(offer: Any, value: str) -> tuple[str, dict[str, Any]]:
    return f"/sessions/{uuid_of(offer)}", {"kind": "uri:enum-value-update", "path": "phase", "value": value}


def test_a_broker_stalls_with_the_lock(tmp_path: Path) -> None:
    """The others are told to come again until it is thrown out; when it goes on, what it was about to write is not written."""

    async def post(broker: Broker, offer: Any, value: str) -> httpx.Response:
        path, document = change(offer, value)
        return await broker.client.post(path, json=document, timeout=60)

    async def work() -> None:
        async with nursery(tmp_path) as make:
            one, two = make("both"), make("both")
            await one.start()
            await two.start()
            offers = (await two.client.post("/requests", json={"executable": NOTEBOOK, **asked()})).json()["offers"]
            async with connect(stores.address(one.folder) or "") as somebody:
                await somebody.execute("BEGIN")
                await somebody.execute("SELECT * FROM sessions WHERE uuid = %s FOR UPDATE", [uuid_of(offers[0])])
                rejecting = asyncio.create_task(post(one, offers[0], "REJECTED"))
                await until(lambda: is_there(one.folder, f"{ACTIVITY} wait_event_type = 'Lock'"), 4)
                os.kill(one.pid, signal.SIGSTOP)
                await somebody.execute("COMMIT")
            began = time.monotonic()
            codes = [(await post(two, offers[0], "ACCEPTED")).status_code]
            while codes[-1] == 503 and time.monotonic() < began + 2 * STALLED:
                codes.append((await post(two, offers[0], "ACCEPTED")).status_code)
            assert codes[0] == 503
            assert codes[-1] == 200, "the other has thrown its transaction away"
            assert time.monotonic() - began < STALLED + 3
            os.kill(one.pid, signal.SIGCONT)
            assert (await rejecting).status_code in (409, 503)
            two.uuids.append(uuid_of(offers[0]))
            assert (await one.client.get(f"/sessions/{uuid_of(offers[0])}")).json()["phase"] in HELD
            answer = await one.client.post("/direct", json=DOCUMENT)
            assert answer.status_code == 200, answer.text
            await until(two.over)
            ledger = Ledger(stores.database(one.folder))
            assert (await audit(ledger, 0)).errors == ()
            await ledger.close()

    asyncio.run(work())


def test_a_broker_dies_with_a_lease(tmp_path: Path) -> None:
    """Another sees that it is no more, and does not wait for the lease to end."""

    async def work() -> None:
        async with nursery(tmp_path) as make:
            one, two = make("both"), make("both")
            await two.start()
            await one.start(die_at="start.before")
            os.kill(two.pid, signal.SIGSTOP)
            await one.direct()
            await until(one.dead)
            assert stores.execute(one.folder, "SELECT phase FROM sessions WHERE lease IS NOT NULL") == [("AVAILABLE",)]
            os.kill(two.pid, signal.SIGCONT)
            two.uuids = one.uuids
            await until(two.over, 15)
            await two.check()

    asyncio.run(work())
