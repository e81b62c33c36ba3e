"""Sixteen clients on one hot node over two months, and a broker that is killed again and again: every promise is kept."""

import asyncio
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from test_crash import NURSERY, Broker, until

import stores
from brokersite import NOTEBOOK, asked, uuid_of
from execbroker.errors import Interrupted
from execbroker.ledger.audit import audit
from execbroker.ledger.ledger import Ledger
from execbroker.model.times import Interval, parse_duration, parse_instant

pytestmark = pytest.mark.alone

SECONDS = float(os.environ.get("EXECBROKER_HAMMER_SECONDS", "20"))
SEEDS = os.environ.get("EXECBROKER_HAMMER_SEEDS", "1").split(",")
CLIENTS = 16
MOST = 700
"""How many acceptances are enough."""
CORES, MEMORY, STORAGE = 32, 64, 2000
SETTINGS = {
    "platforms": [
        {
            "name": "site",
            "type": "counted",
            "lasts": "PT1S",
            "release": "PT1S",
            "nodes": [{"cores": CORES, "memory": MEMORY, "storage": STORAGE}],
        }
    ],
    "auth": {"mode": "none"},
    "offers": {"expires": "PT2S"},
}
HELD = ("ACCEPTED", "WAITING", "PREPARING", "AVAILABLE", "RUNNING", "RELEASING")


@dataclass
class Promise:
    """What a client was told when it accepted: to start by then. `cancelled` where it has asked for that, answered or not."""

    latest: datetime
    offerset: str
    cancelled: bool = False


@dataclass
class Hammer:
    """What the clients did, and what they were promised."""

    brokers: list[Broker]
    chance: random.Random
    until: float
    counts: Counter[str] = field(default_factory=Counter)
    promises: dict[str, Promise] = field(default_factory=dict)
    up: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.ready = list(self.brokers)
        self.up.set()

    @property
    def broker(self) -> Broker:
        """Any that is up."""
        return self.chance.choice(self.ready)

    async def client(self) -> None:
        while asyncio.get_running_loop().time() < self.until and self.counts["accepted"] < MOST:
            try:
                await self._turn()
            except httpx.TransportError:
                self.counts["lost replies"] += 1
                await asyncio.sleep(0.02)

    async def _turn(self) -> None:
        offers = await self._ask()
        if not offers:
            return
        match self.chance.choices(("accept", "twice", "reject", "leave", "drop"), (10, 3, 2, 3, 2))[0]:
            case "accept":
                await self._accept(self.chance.choice(offers))
            case "twice":
                pair = self.chance.choices(offers, k=2)
                done = await asyncio.gather(*(self._accept(offer) for offer in pair), return_exceptions=True)
                assert not [one for one in done if isinstance(one, Exception) and not isinstance(one, httpx.TransportError)]
            case "reject":
                self._answered(await self._update(self.chance.choice(offers)["session"], phase("REJECTED")), "rejected")
            case "leave":
                self.counts["left to expire"] += 1
            case "drop":
                await self._drop(self.chance.choice(offers)["session"])
        if self.promises and self.chance.random() < 0.4:
            await self._change(self.chance.choice(list(self.promises)))

    async def _ask(self) -> list[dict[str, Any]]:
        answer = await self._post("/requests", self._request())
        self._look_for_the_database(answer)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        self.counts[found["result"]] += 1
        offers = found.get("offers") or []
        self.counts["offers"] += len(offers)
        return [{"session": uuid_of(offer), "offerset": uuid_of(found)} for offer in offers]

    def _request(self) -> dict[str, Any]:
        """A start at once or within two months; short where it is soon, so that some are really run."""
        soon, chance = self.chance.random() < 0.3, self.chance
        start = datetime.now(UTC) + timedelta(seconds=0 if soon else chance.uniform(60, 60 * 86400))
        duration = chance.randint(60, 600) if soon else chance.randint(3600, 5 * 86400)
        window = f"{start:%Y-%m-%dT%H:%M:%SZ}/P{chance.choice((1, 10, 60))}D"
        request = asked(chance.randint(1, CORES), chance.randint(1, 16), f"PT{duration}S", window, executable=NOTEBOOK)
        request["schedule"]["requested"]["flexible"] = chance.random() < 0.6
        if chance.random() < 0.3:
            request["storage"] = [
                {"kind": "simple-storage-resource", "size": {"min": chance.randint(1, 400)}, "lifetime": "PT1H"}
            ]
        return request

    async def _accept(self, offer: dict[str, Any]) -> None:
        answer = await self._update(offer["session"], phase("ACCEPTED"))
        if self._answered(answer, "accepted"):
            self.promises[offer["session"]] = Promise(starts_by(answer.json()), offer["offerset"])

    async def _change(self, session: str) -> None:
        if self.chance.random() < 0.5:
            self.promises[session].cancelled = True
            self._answered(await self._update(session, phase("CANCELLED")), "cancelled")
            return
        path, delta = "schedule.available.duration", self.chance.choice((-30, -1, 1, 30, 600))
        change = {"kind": "uri:integer-delta-update", "path": path, "delta": delta, "units": "minutes"}
        self._answered(await self._update(session, change), "made longer or shorter")

    def _answered(self, answer: httpx.Response, what: str) -> bool:
        self._look_for_the_database(answer)
        assert answer.status_code in (200, 409), answer.text
        self.counts[what if answer.status_code == 200 else f"not {what}"] += 1
        return answer.status_code == 200

    def _look_for_the_database(self, answer: httpx.Response) -> None:
        """Where it was away for longer than anybody waits, the reply tells no more than one that is lost."""
        if answer.status_code == 503 and len(self.brokers) > 1:
            raise httpx.ReadError(answer.text)

    async def _update(self, session: str, change: dict[str, Any]) -> httpx.Response:
        return await self._post(f"/sessions/{session}", change)

    async def _post(self, path: str, document: dict[str, Any]) -> httpx.Response:
        await self.up.wait()
        return await self.broker.client.post(path, json=document)

    async def _drop(self, session: str) -> None:
        """Accept, and hang up without reading the reply."""
        await self.up.wait()
        body, port = json.dumps(phase("ACCEPTED")), self.broker.port
        head = f"POST /sessions/{session} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            await writer.drain()
            await asyncio.sleep(self.chance.uniform(0, 0.01))
            writer.close()
            await writer.wait_closed()
        except OSError as error:
            raise httpx.ConnectError(str(error)) from error
        self.counts["hung up"] += 1

    async def killer(self) -> None:
        while asyncio.get_running_loop().time() < self.until:
            await asyncio.sleep(self.chance.uniform(0.2, 3))
            broker = self.broker
            self.ready.remove(broker)
            if not self.ready:
                self.up.clear()
            os.kill(broker.pid, signal.SIGKILL)
            await broker.end(signal.SIGKILL)
            self.counts["kills"] += 1
            await broker.start()
            if await broker.dead():  # the database was stopped just then: whoever keeps brokers running starts it again
                await broker.end(signal.SIGKILL)
                await broker.start()
            await self.check_audit()
            self.ready.append(broker)
            self.up.set()

    async def stopper(self) -> None:
        """The database is stopped in the middle of it all, without a word, and started again."""
        await asyncio.sleep(SECONDS / 2)
        assert stores.server
        await asyncio.to_thread(stores.server.stop, "immediate")
        await asyncio.to_thread(stores.server.start)
        self.counts["restarts of the database"] += 1

    async def check_audit(self) -> None:
        ledger = Ledger(stores.database(self.brokers[0].folder))

        async def look() -> list[str] | None:
            try:
                found = await audit(ledger, int(datetime.now(UTC).timestamp()))
            except Interrupted:  # the database is being started again
                return None
            return ["looked", *(error.message for error in found.errors)]

        try:
            assert await until(look) == ["looked"]
        finally:
            await ledger.close()

    async def check(self) -> None:
        """At the end: by what anybody can read over HTTP, and by the ledger."""
        await self.check_audit()
        sessions = {uuid: (await self.broker.client.get(f"/sessions/{uuid}")).json() for uuid in self.promises}
        for uuid, promise in self.promises.items():
            session = sessions[uuid]
            assert session["phase"] in (*HELD, "COMPLETED", *(("CANCELLED",) if promise.cancelled else ())), session
            assert starts_by(session) <= promise.latest
        offersets = [promise.offerset for promise in self.promises.values()]
        assert len(set(offersets)) == len(offersets)
        starts = [file.read_text() for file in self.broker.folder.glob("sessions/*/home/starts")]
        assert set(starts) <= {"started\n"}
        self.counts["started"] = len(starts)
        known = "phase NOT IN ('OFFERED', 'REJECTED', 'EXPIRED')"
        taken = await self.broker._rows(f"SELECT uuid, offerset FROM sessions WHERE {known}")
        assert len({offerset for _, offerset in taken}) == len(taken) >= len(sessions)
        held = await self._held()
        check_room(held)
        assert {uuid_of(session) for session in held} <= {uuid for uuid, _ in taken}
        ((pulls,),) = await self.broker._rows("SELECT count(*) FROM events WHERE message LIKE '%pulled-forward%'")
        self.counts["pulled forward"] = pulls
        self.counts["accepted by whom nobody told"] = len(taken) - len(sessions)
        self.counts["sessions held at the end"] = len(held)

    async def _held(self) -> list[dict[str, Any]]:
        """All at one moment: some are still pulled forward."""
        answer = await self.broker.client.get("/sessions", params={"phase": HELD, "limit": 1000}, timeout=60)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["sessions"]
        assert 0 < len(found) < 1000
        return found


def phase(value: str) -> dict[str, Any]:
    return {"kind": "uri:enum-value-update", "path": "phase", "value": value}


def starts_by(session: dict[str, Any]) -> datetime:
    return Interval.parse(session["schedule"]["available"]["start"]).end


def over(part: dict[str, Any]) -> datetime:
    return parse_instant(part["start"].partition("/")[0])[0] + parse_duration(part["duration"])


def check_room(sessions: list[dict[str, Any]]) -> None:
    """By the sessions' own schedules nothing is given twice, at any instant."""
    changes: dict[datetime, list[int]] = {}

    def hold(start: datetime, end: datetime, *amounts: int) -> None:
        for time, sign in ((start, 1), (end, -1)):
            at = changes.setdefault(time, [0, 0, 0])
            at[:] = [level + sign * amount for level, amount in zip(at, amounts, strict=True)]

    for session in sessions:
        schedule, compute = session["schedule"], session["compute"]
        prepare = parse_instant(schedule["preparing"]["start"].partition("/")[0])[0]
        hold(prepare, over(schedule["releasing"]), compute["cores"]["max"], compute["memory"]["max"], 0)
        for storage in session.get("storage") or []:
            hold(prepare, over(storage["schedule"]["releasing"]), 0, 0, storage["size"]["max"])
    levels, now = [0, 0, 0], datetime.now(UTC)
    for time in sorted(changes):
        levels = [level + change for level, change in zip(levels, changes[time], strict=True)]
        assert time < now or all(level <= most for level, most in zip(levels, (CORES, MEMORY, STORAGE), strict=True)), time


@asynccontextmanager
async def hot_brokers(folder: Path, brokers: int) -> AsyncIterator[list[Broker]]:
    nursery = await asyncio.create_subprocess_exec(
        sys.executable, str(NURSERY), str(folder / "warm"), json.dumps(SETTINGS),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    turn = asyncio.Lock()
    made = [Broker(nursery, turn, folder / "hot") for _ in range(brokers)]
    try:
        for broker in made:
            await broker.start()
        yield made
    finally:
        for broker in made:
            if broker.pid:
                await broker.end(signal.SIGKILL)
        assert nursery.stdin
        nursery.stdin.close()
        await nursery.wait()


async def every_one(*work: Callable[[], Awaitable[None]]) -> None:
    """All of these at once, until all are done or one fails."""
    async with asyncio.TaskGroup() as group:
        for one in work:
            group.create_task(one())  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", SEEDS)
def test_every_promise_is_kept(tmp_path: Path, seed: str, capsys: pytest.CaptureFixture[str]) -> None:
    async def work() -> Counter[str]:
        async with hot_brokers(tmp_path, 1) as brokers:
            hammer = Hammer(brokers, random.Random(seed), asyncio.get_running_loop().time() + SECONDS)
            await every_one(hammer.killer, *[hammer.client] * CLIENTS)
            await hammer.check()
            return hammer.counts

    report(asyncio.run(work()), seed, capsys)


# SQLAlchemy lets go of a connection whose server goes away while they are introduced, but does not close it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.postgres
@pytest.mark.parametrize("seed", SEEDS)
def test_several_brokers_keep_one_book(tmp_path: Path, seed: str, capsys: pytest.CaptureFixture[str]) -> None:
    async def work() -> Counter[str]:
        async with hot_brokers(tmp_path, 3) as brokers:
            hammer = Hammer(brokers, random.Random(seed), asyncio.get_running_loop().time() + SECONDS)
            await every_one(hammer.killer, hammer.stopper, *[hammer.client] * (CLIENTS // 2))
            await hammer.check()
            return hammer.counts

    report(asyncio.run(work()), seed, capsys)


def report(counts: Counter[str], seed: str, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        sys.stdout.write(f"\nseed {seed}: {', '.join(f'{count} {what}' for what, count in sorted(counts.items()))}\n")
    assert min(counts["accepted"], counts["rejected"], counts["cancelled"], counts["kills"], counts["pulled forward"]) > 0
