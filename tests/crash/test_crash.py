"""Brokers killed by SIGKILL at every step of a session's life, and at any moment of a batch: all ends as it should."""

import asyncio
import json
import os
import random
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from nursery import PLATFORM

import judge
import stores
from brokersite import NOTEBOOK, asked
from execbroker.ledger.audit import audit
from execbroker.ledger.ledger import Ledger
from execbroker.model.phases import FINAL

NURSERY = Path(__file__).parent / "nursery.py"
STORAGE = [{"kind": "simple-storage-resource", "meta": {"name": "kept"}, "size": {"min": 1}, "lifetime": "PT1H"}]
DOCUMENT = {"executable": NOTEBOOK, **asked(), "storage": STORAGE}
PHASES = ("WAITING", "PREPARING", "AVAILABLE", "RUNNING", "RELEASING")
POINTS = [
    *(f"{verb}.{when}" for verb in ("prepare", "start", "poll", "release") for when in ("before", "after")),
    *(f"{phase}.{when}" for phase in PHASES for when in ("writing", "written")),
    "settled",
]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


async def until(look: Callable[[], Awaitable[Any]], seconds: float = 30) -> Any:
    """What `look` finds, once it finds something; fails after so many seconds."""
    async with asyncio.timeout(seconds):
        while not (found := await look()):  # noqa: ASYNC110 -- a process sets no event
            await asyncio.sleep(0.02)
    return found


class Broker:
    """One broker's data folder, and the process that works on it now."""

    def __init__(self, nursery: asyncio.subprocess.Process, turn: asyncio.Lock, folder: Path) -> None:
        self.nursery, self.turn, self.folder = nursery, turn, folder
        self.pid, self.uuids = 0, list[str]()

    async def start(self, die_at: str | None = None) -> None:
        self.port = free_port()
        assert self.nursery.stdin
        assert self.nursery.stdout
        where = {"folder": str(self.folder), "database": stores.address(self.folder), "port": self.port}
        wish = json.dumps({**where, "die_at": die_at})
        async with self.turn:
            self.nursery.stdin.write(f"{wish}\n".encode())
            self.pid = json.loads(await self.nursery.stdout.readline())
        self.client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=10, event_hooks=judge.HOOKS)
        await until(self._answers)

    async def _answers(self) -> bool:
        try:
            return (await self.client.get("/healthz")).status_code == 200
        except httpx.TransportError:
            return await self.dead()

    async def dead(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        return False

    async def end(self, how: signal.Signals) -> None:
        if not await self.dead():
            os.kill(self.pid, how)
        await until(self.dead)
        await self.client.aclose()

    async def direct(self) -> None:
        answer = await self.client.post("/direct", json=DOCUMENT)
        assert answer.status_code == 200, answer.text
        self.uuids.append(answer.json()["meta"]["uuid"])

    async def over(self) -> bool:
        """Whether every session that was ever accepted has ended."""
        return not await self._phases(f"phase NOT IN ({', '.join(repr(str(phase)) for phase in (*FINAL, 'OFFERED'))})")

    async def _phases(self, where: str) -> list[str]:
        return [phase for (phase,) in stores.execute(self.folder, f"SELECT phase FROM sessions WHERE {where}")]

    async def check(self, *, exactly_once: bool = True) -> None:
        """Everything ended, each ran once and kept its output, the books balance, and no folder is nobody's."""
        for uuid in self.uuids:
            session = (await self.client.get(f"/sessions/{uuid}")).json()
            assert session["phase"] == "COMPLETED", session["meta"]["messages"]
            starts = (await self.client.get(f"/sessions/{uuid}/files/home/starts")).text
            assert starts == "started\n" or (not exactly_once and starts.count("started\n") <= 1)
            assert (await self.client.get(f"/sessions/{uuid}/stdout")).text != ""
        await self.check_books()

    async def check_books(self) -> None:
        ledger = Ledger(stores.database(self.folder))
        try:
            assert (await audit(ledger, 0)).errors == ()
            held: dict[UUID, int] = {}
            for holder, booking in await ledger.bookings():
                held[holder] = held.get(holder, 0) + 1
                assert booking.amounts.cores == 0, "cores are held after the end"
            for uuid in self.uuids:
                row = await ledger.session(UUID(uuid))
                assert row is not None
                assert held.pop(row.uuid, 0) == 1, "the storage that is kept"
            assert held == {}
        finally:
            await ledger.close()
        known = {uuid for (uuid,) in await self._rows("SELECT uuid FROM sessions")}
        assert {folder.name for folder in (self.folder / "sessions").glob("*")} <= known

    async def _rows(self, query: str) -> list[Any]:
        return stores.execute(self.folder, query)


@asynccontextmanager
async def nursery(folder: Path, lasts: str = "PT1S") -> AsyncIterator[Callable[[str], Broker]]:
    """Makes brokers, each in a folder of its own; none of them outlives it. A session runs as long as it `lasts`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(NURSERY), str(folder / "warm"), json.dumps({"platforms": [{**PLATFORM, "lasts": lasts}]}),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    brokers: list[Broker] = []
    turn = asyncio.Lock()

    def make(name: str) -> Broker:
        brokers.append(Broker(process, turn, folder / name))
        return brokers[-1]

    try:
        yield make
    finally:
        for broker in brokers:
            if broker.pid:
                await broker.end(signal.SIGKILL)
        assert process.stdin
        process.stdin.close()
        await process.wait()


async def dies_and_goes_on(broker: Broker, point: str) -> None:
    await broker.start(die_at=point)
    with suppress(httpx.TransportError):  # some points are reached before the answer is
        await broker.direct()
    await until(broker.dead)
    await broker.client.aclose()
    await broker.start()
    broker.uuids = [uuid for (uuid,) in await broker._rows("SELECT uuid FROM sessions")]
    assert len(broker.uuids) == 1
    await until(broker.over)
    await broker.check()
    await broker.end(signal.SIGTERM)


def test_killed_at_every_step_of_a_life(tmp_path: Path) -> None:
    async def work() -> None:
        async with nursery(tmp_path) as make:
            waiting = [make(point) for point in POINTS]
            several = asyncio.Semaphore(6)

            async def one(broker: Broker) -> None:
                async with several:
                    await dies_and_goes_on(broker, broker.folder.name)

            await asyncio.gather(*(one(broker) for broker in waiting))

    asyncio.run(work())


@pytest.mark.parametrize("point", ["books.writing", "books.written"])
def test_killed_at_the_commit_of_an_acceptance(tmp_path: Path, point: str) -> None:
    """Before it, nothing has happened; after it, it has, though nobody was told."""

    async def work() -> None:
        async with nursery(tmp_path) as make:
            broker = make("one")
            await broker.start()
            offers = (await broker.client.post("/requests", json=DOCUMENT)).json()["offers"]
            await broker.end(signal.SIGKILL)
            await broker.start(die_at=point)
            update = {"kind": "uri:enum-value-update", "path": "phase", "value": "ACCEPTED"}
            with pytest.raises(httpx.TransportError):
                await broker.client.post(f"/sessions/{offers[0]['meta']['uuid']}", json=update)
            await until(broker.dead)
            await broker.client.aclose()
            await broker.start()
            again = await broker.client.post(f"/sessions/{offers[0]['meta']['uuid']}", json=update)
            assert again.status_code == (200 if point == "books.writing" else 409)
            broker.uuids.append(offers[0]["meta"]["uuid"])
            await until(broker.over)
            await broker.check()

    asyncio.run(work())


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_random_moments_of_a_batch(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)

    async def work() -> None:
        async with nursery(tmp_path) as make:
            broker = make("batch")
            await broker.start()
            await asyncio.gather(*(broker.direct() for _ in range(20)))
            for _ in range(8):
                await asyncio.sleep(chance.uniform(0, 0.6))
                await broker.end(signal.SIGKILL)
                await broker.start()
            await until(broker.over)
            await broker.check(exactly_once=False)
            assert len(broker.uuids) == 20

    asyncio.run(work())


def test_sigterm_leaves_sessions_running(tmp_path: Path) -> None:
    async def work() -> None:
        async with nursery(tmp_path, lasts="PT10S") as make:
            broker = make("drained")
            await broker.start()
            await broker.direct()

            async def running() -> bool:
                return bool(await broker._phases("phase = 'RUNNING'"))

            await until(running)
            await broker.end(signal.SIGTERM)
            assert await broker._phases("true") == ["RUNNING"]
            assert (broker.folder / "sessions" / broker.uuids[0] / "run" / "fake.json").exists()
            await broker.start()
            await until(broker.over)
            await broker.check()

    asyncio.run(work())
