"""A PostgreSQL that drops connections, loses answers, is away, is slow, or stands still: every request gets a true answer, and
nothing is in memory that is not in the ledger."""

import asyncio
import json
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from ledgers import ROOM, UNFINISHED, beside, check, count, flexible, is_told_to_come_again, until
from proxy import Cut, Proxy, proxy

import stores
from brokersite import NOTEBOOK, ManualClock, Site, asked, uuid_of
from execbroker.ledger.database import PATIENCE
from execbroker.ledger.postgres import HEARTBEAT, SILENCE

pytestmark = [pytest.mark.postgres, UNFINISHED]

CUTS: list[list[Cut]] = [
    ["before"], ["on"], ["after"], ["before", "after"], ["after", "before"], ["after", "after"], ["on", "on", "after"]
]  # fmt: skip
KILL = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


def server() -> stores.Server:
    assert stores.server
    return stores.server


@asynccontextmanager
async def away(mode: str) -> AsyncIterator[None]:
    """The server is stopped, and started again."""
    await asyncio.to_thread(server().stop, mode)
    try:
        yield
    finally:
        await asyncio.to_thread(server().start)


async def timed(work: Awaitable[Any]) -> tuple[Any, float]:
    began = time.monotonic()
    return await work, time.monotonic() - began


async def customer(site: Site, chance: random.Random, rounds: int, counts: Counter[str]) -> None:
    """Each of its requests can be granted, so it is, once."""
    for _ in range(rounds):
        start = site.clock.at(chance.randrange(3600, 40 * 86400))
        offers = await site.offers(**(flexible if chance.random() < 0.5 else asked)(start=f"{start}/P1D"))
        counts["offersets"] += 1
        does = chance.choice(("accept", "both", "reject", "cancel", "leave"))
        if does == "both":
            codes = [answer.status_code for answer in await asyncio.gather(*(site.update(one, "ACCEPTED") for one in offers[:2]))]
            assert sorted(codes) == [200, 409]
        elif does != "leave":
            answer = await site.update(offers[0], "REJECTED" if does == "reject" else "ACCEPTED")
            assert answer.status_code == 200, answer.text
        if does == "cancel":
            answer = await site.update(offers[0], "CANCELLED")
            assert answer.status_code == 200, answer.text
        counts["accepted"] += does in ("accept", "both", "cancel")


@pytest.mark.parametrize("seed", [1, 2])
def test_connections_are_killed_all_the_time(tmp_path: Path, seed: int) -> None:
    chance, counts = random.Random(seed), Counter[str]()

    async def kill(site: Site) -> None:
        async with beside(site) as other:
            while True:
                await asyncio.sleep(chance.uniform(0, 0.06))
                which = chance.choice(("", *(f" AND state = '{state}'" for state in ("active", "idle in transaction"))))
                counts["killed"] += len(await (await other.execute(KILL + which)).fetchall())

    async def work() -> None:
        async with Site(tmp_path, platforms=ROOM) as one, Site(tmp_path, one.clock, platforms=ROOM) as two:
            killer = asyncio.create_task(kill(one))
            await asyncio.gather(*(customer(site, chance, 15, counts) for site in (one, two) * 3))
            killer.cancel()
            await asyncio.gather(killer, return_exceptions=True)
            await check(one, two)
            assert count(one, "offersets") == counts["offersets"] == 90
            taken = "SELECT DISTINCT offerset FROM sessions WHERE phase NOT IN ('OFFERED', 'REJECTED')"
            assert count(one, f"({taken}) AS taken") == counts["accepted"]
            assert count(one, "events", "phase = 'ACCEPTED'") == counts["accepted"]

    asyncio.run(work())
    assert counts["killed"] > 10


async def proxied(site: Site, line: Proxy) -> Site:
    await site.restart(database=f"postgresql://execbroker@127.0.0.1:{line.port}/{server().of(site.folder)}")
    return site


@pytest.mark.parametrize("cuts", CUTS, ids="-".join)
def test_the_answer_of_a_commit_is_lost(tmp_path: Path, cuts: list[Cut]) -> None:
    """Each of these is done once, and the client is told of it."""

    async def work() -> None:
        async with proxy(server().port) as line, Site(tmp_path, platforms=ROOM) as site, Site(tmp_path, site.clock) as other:
            await proxied(site, line)

            async def cut(*requests: Awaitable[httpx.Response]) -> list[httpx.Response]:
                line.made, line.cuts = 0, list(cuts)
                answers = await asyncio.gather(*requests)
                assert line.made == len(cuts)
                return list(answers)

            def ask(path: str = "/requests") -> Awaitable[httpx.Response]:
                return site.client.post(path, json={"executable": NOTEBOOK, **flexible()})

            asked_for = [answer.json() for answer in await cut(ask(), ask(), ask("/direct"))]
            assert count(site, "offersets") == 3
            assert count(site, "sessions", "phase = 'WAITING' OR phase = 'ACCEPTED'") == 1
            offers = [found["offers"] for found in asked_for[:2]]
            accepted = await cut(*(site.update(some[0], "ACCEPTED") for some in offers))
            assert [answer.status_code for answer in accepted] == [200, 200]
            assert count(site, "events", f"session = '{uuid_of(offers[0][0])}' AND phase = 'ACCEPTED'") == 1
            assert [answer.status_code for answer in await cut(site.update(offers[0][0], "ACCEPTED"))] == [409]
            (answer,) = await cut(site.update(offers[0][0], "CANCELLED"))
            assert answer.status_code == 200
            assert await site.phase(offers[0][0]) == "RELEASING"
            await check(site, other)

    asyncio.run(work())


def test_the_database_is_away(tmp_path: Path) -> None:
    """Whoever asks is told to come again, whoever waits is not forgotten, and what came due is done when it is back."""

    async def work() -> None:
        async with Site(tmp_path, platforms=ROOM) as site:
            due, held = await site.take(**asked(start=site.clock.at(30))), await site.take(**asked(start=site.clock.at(86400)))
            offers = await site.offers(**asked(start=site.clock.at(7200)))
            site.engine.run()
            poll = asyncio.create_task(site.client.get(f"/sessions/{held}?wait=60&phase=WAITING"))
            await asyncio.sleep(0.1)
            async with away("immediate"):
                site.clock.advance(30)
                answers = await asyncio.gather(
                    *(timed(site.client.post("/requests", json={"executable": NOTEBOOK, **asked()})) for _ in range(300)),
                    *(timed(site.client.get(f"/sessions/{held}")) for _ in range(10)),
                    timed(site.update(offers[0], "ACCEPTED")),
                    timed(site.update(held, "CANCELLED")),
                )
                told = await site.client.get("/availability")
            assert (told.status_code, "available>false<" in told.text, "<avail:note>" in told.text) == (200, True, True)
            assert "available>true<" in (await site.client.get("/availability")).text
            for answer, seconds in answers:
                assert is_told_to_come_again(answer)
                assert PATIENCE - 1 < seconds < 3 * PATIENCE
            await check(site)
            assert count(site, "offersets") == 3
            assert not poll.done()
            assert (await site.update(held, "CANCELLED")).status_code == 200
            assert (await asyncio.wait_for(poll, 5)).json()["phase"] != "WAITING"
            await site.accept(offers[0])
            await until(lambda: has_reached(site, due, "RUNNING"), 20)
            await check(site)

    asyncio.run(work())


async def has_reached(site: Site, session: str, phase: str) -> bool:
    return await site.phase(session) == phase


def test_a_request_waits_for_a_database_that_is_back_soon(tmp_path: Path) -> None:
    async def work() -> None:
        async with Site(tmp_path, platforms=ROOM) as site:
            (offer, *_) = await site.offers()
            async with away("fast"):
                answers = asyncio.gather(site.update(offer, "ACCEPTED"), site.offers(), site.show(offer))
                await asyncio.sleep(1)
            assert (await answers)[0].status_code == 200
            await check(site)

    asyncio.run(work())


def test_the_database_stands_still(tmp_path: Path) -> None:
    """The connections are there, but nobody answers: requests do not wait for ever, and it goes on when the server does."""

    async def work() -> None:
        async with Site(tmp_path, platforms=ROOM) as site:
            site.client.timeout = httpx.Timeout(60)
            uuid = await site.take(**asked(start=site.clock.at(86400)))
            server().signal(signal.SIGSTOP)
            try:
                answers = await asyncio.gather(
                    *(timed(site.client.post("/requests", json={"executable": NOTEBOOK, **asked()})) for _ in range(8)),
                    *(timed(site.client.get(f"/sessions/{uuid}")) for _ in range(8)),
                )
            finally:
                server().signal(signal.SIGCONT)
            for answer, seconds in answers:
                assert is_told_to_come_again(answer)
                assert seconds < 45
            await site.offers()
            await check(site)

    asyncio.run(work())


def test_the_line_to_the_database_is_dead(tmp_path: Path) -> None:
    """Nobody says so, and nothing comes: a broker that only listens finds out, and hears what others wrote meanwhile."""

    async def work() -> None:
        async with proxy(server().port) as line, Site(tmp_path) as site, Site(tmp_path, site.clock) as other:
            await proxied(site, line)
            uuid = await other.take(**asked(start=site.clock.at(86400)))
            poll = asyncio.create_task(site.client.get(f"/sessions/{uuid}?wait=60&phase=WAITING", timeout=60))
            await asyncio.sleep(0.2)
            both = listeners(site)
            assert line.mute(b"LISTEN") == 1
            assert (await other.update(uuid, "CANCELLED")).status_code == 200
            answer = await asyncio.wait_for(poll, HEARTBEAT + SILENCE + 3)
            assert answer.json()["phase"] == "RELEASING"
            assert len(both & listeners(site)) == 1, "the other, whose line was only idle, has kept it"

    asyncio.run(work())


def listeners(site: Site) -> set[int]:
    """The connections by which brokers say that they live."""
    here = "locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    return {pid for (pid,) in stores.execute(site.folder, f"SELECT pid FROM pg_locks WHERE objsubid = 2 AND {here}")}


def test_a_deadlock(tmp_path: Path) -> None:
    """Somebody has a session's row and waits for the broker, which waits for the row: one of the two gives way."""

    async def work() -> None:
        async with Site(tmp_path, platforms=ROOM) as site, beside(site) as other:
            for wish in ("ACCEPTED", "REJECTED"):
                (offer, *_) = await site.offers()
                await other.execute("BEGIN")
                await other.execute("SELECT * FROM sessions WHERE uuid = %s FOR UPDATE", [uuid_of(offer)])
                answers = asyncio.gather(site.update(offer, wish), *(site.offers() for _ in range(5)))
                await until(lambda: waits_for_a_lock(site), 5)
                try:
                    await other.execute(stores.alone().removeprefix("BEGIN; "))
                finally:
                    await other.execute("ROLLBACK")
                answer, *offered = await answers
                assert answer.status_code == 200, answer.text
                assert all(offered)
                assert await site.phase(offer) in ("WAITING", "ACCEPTED") if wish == "ACCEPTED" else wish
            await check(site)

    asyncio.run(work())


async def waits_for_a_lock(site: Site) -> bool:
    return (
        await asyncio.to_thread(count, site, "pg_stat_activity", "datname = current_database() AND wait_event_type = 'Lock'") > 0
    )


def test_the_book_is_locked_by_somebody_else(tmp_path: Path) -> None:
    async def work() -> None:
        async with Site(tmp_path, platforms=ROOM) as site, beside(site) as other:
            (offer, *_) = await site.offers()
            before = count(site, "offersets")
            await other.execute(stores.alone())
            answers = await asyncio.gather(
                timed(site.update(offer, "ACCEPTED")),
                *(timed(site.client.post("/requests", json={"executable": NOTEBOOK, **asked()})) for _ in range(10)),
            )
            for answer, seconds in answers:
                assert is_told_to_come_again(answer)
                assert seconds < 2 * PATIENCE + 3
            assert (await site.show(offer))["phase"] == "OFFERED", "to read goes on"
            await other.execute("ROLLBACK")
            assert count(site, "offersets") == before
            await site.accept(offer)
            await check(site)

    asyncio.run(work())


def test_a_row_is_locked_by_somebody_else(tmp_path: Path) -> None:
    async def work() -> None:
        async with Site(tmp_path, platforms=ROOM) as site, beside(site) as other:
            (offer, *_) = await site.offers()
            await other.execute("BEGIN")
            await other.execute("SELECT * FROM sessions WHERE uuid = %s FOR UPDATE", [uuid_of(offer)])
            answer, seconds = await timed(site.update(offer, "ACCEPTED"))
            assert is_told_to_come_again(answer)
            assert seconds < 2 * PATIENCE
            await site.offers()
            await other.execute("ROLLBACK")
            await site.accept(offer)
            await check(site)

    asyncio.run(work())


@pytest.mark.parametrize("rest", [1, 2])
def test_the_journal_was_deleted(tmp_path: Path, rest: int) -> None:
    """A broker that was away for long takes everything anew, and what it had begun on old knowledge as well."""

    async def work() -> None:
        async with Site(tmp_path, platforms=ROOM) as one, Site(tmp_path, one.clock, platforms=ROOM) as two:
            taken = [await one.take(**flexible(cores=40, start=one.clock.at(3600) + "/P2D")) for _ in range(4)]
            await two.offers(**asked(cores=1))
            await one.update(taken[0], "CANCELLED")
            await one.settle()
            await one.take(**asked(cores=60, start=one.clock.at(40 * 86400)))
            (node,) = (capacity := one.books.capacities["site"]).nodes
            await one.books.learn("site", replace(capacity, nodes=(replace(node, cores=62),)))
            for _ in range(3):
                await one.offers()
            stores.execute(one.folder, "DELETE FROM journal WHERE seq <= (SELECT max(seq) FROM journal) - ?", [rest])
            await asyncio.gather(*(two.offers(**asked(start=two.clock.at(86400))) for _ in range(5)))
            assert [node.cores for node in two.books.capacities["site"].nodes] == [62]
            await check(two, one)

    asyncio.run(work())


def test_the_journal_was_deleted_while_a_broker_looks_ahead(tmp_path: Path) -> None:
    """What it found for its clients before it was its turn counts for nothing then."""

    async def work() -> None:
        async with Site(tmp_path) as one, Site(tmp_path, one.clock) as two, beside(one) as other:
            await one.offers()
            await other.execute("BEGIN")
            await two.offers()
            hot = {"executable": NOTEBOOK, **asked(cores=4, memory=8, start=one.clock.at(86400))}
            await other.execute(stores.alone().removeprefix("BEGIN; "))
            first = asyncio.create_task(one.client.post("/requests", json=hot))
            await until(lambda: waits_for_a_lock(one), 5)
            second = asyncio.create_task(two.client.post("/requests", json=hot))
            await until(lambda: waits_for_a_lock(two), 5)
            await other.execute("UPDATE journal SET seq = seq + 1000")
            await other.execute("COMMIT")
            answers = [(await answer).json()["result"] for answer in (first, second)]
            assert sorted(answers) == ["NO", "YES"]
            await check(one, two)

    asyncio.run(work())


def test_taking_everything_anew_is_interrupted(tmp_path: Path) -> None:
    async def work() -> None:
        async with Site(tmp_path) as one, Site(tmp_path, one.clock) as two, beside(one) as other:
            day = one.clock.at(86400)
            await one.take(**asked(cores=4, start=day))
            await one.offers()
            stores.execute(one.folder, "DELETE FROM journal WHERE seq < (SELECT max(seq) FROM journal)")
            await other.execute("ALTER TABLE bookings RENAME TO elsewhere")
            answer = await two.client.post("/requests", json={"executable": NOTEBOOK, **asked(cores=4, start=day)})
            assert answer.status_code >= 500
            await other.execute("ALTER TABLE elsewhere RENAME TO bookings")
            answer = await two.ask(**asked(cores=4, start=day))
            assert answer["result"] == "NO"
            await check(two, one)

    asyncio.run(work())


def test_a_notice_that_nobody_understands(tmp_path: Path) -> None:
    """A newer version may have more to tell: this one listens on."""

    async def work() -> None:
        async with Site(tmp_path) as one, Site(tmp_path, one.clock) as two, beside(one) as other:
            uuid = await one.take(**asked(start=one.clock.at(86400)))
            for words in ("", "what is this", json.dumps({"a": 1})):
                await other.execute("SELECT pg_notify('execbroker', %s)", [words])
            poll = asyncio.create_task(two.client.get(f"/sessions/{uuid}?wait=20&phase=WAITING"))
            await asyncio.sleep(0.3)
            await one.update(uuid, "CANCELLED")
            assert (await asyncio.wait_for(poll, 2)).json()["phase"] == "RELEASING"

    asyncio.run(work())


def test_what_one_writes_wakes_who_waits_at_the_other(tmp_path: Path, clock: ManualClock) -> None:
    async def work() -> None:
        async with Site(tmp_path, clock) as one, Site(tmp_path, clock) as two:
            uuid = await one.take(**asked(start=clock.at(86400)))
            (offer, *_) = found = await one.offers()
            ((offerset,),) = stores.execute(one.folder, "SELECT offerset FROM sessions WHERE uuid = ?", [uuid_of(offer)])
            polls = [
                asyncio.create_task(timed(two.client.get(f"/sessions/{uuid}?wait=30&phase=WAITING"))),
                asyncio.create_task(timed(two.client.get(f"/sessions/{uuid_of(found[1])}?wait=30"))),
                asyncio.create_task(timed(two.client.get(f"/offersets/{offerset}?wait=30"))),
            ]
            await asyncio.sleep(0.3)
            began = time.monotonic()
            await asyncio.gather(one.update(uuid, "CANCELLED"), one.accept(offer))
            answers = await asyncio.gather(*polls)
            assert time.monotonic() - began < 1
            assert [answer.status_code for answer, _ in answers] == [200, 200, 200]
            assert [answer.json().get("phase") for answer, _ in answers[:2]] == ["RELEASING", "REJECTED"]

    asyncio.run(work())


def test_what_one_frees_is_for_those_the_other_accepted(tmp_path: Path, clock: ManualClock) -> None:
    async def work() -> None:
        async with Site(tmp_path, clock) as one, Site(tmp_path, clock) as two:
            first = await two.take(**asked(cores=4, duration="PT2H"))
            waits = await one.take(**flexible(cores=4, duration="PT1H", start=clock.at(0) + "/P1D"))
            before = (await one.show(waits))["schedule"]["available"]["start"]
            await two.update(first, "CANCELLED")
            await two.settle()
            after = (await one.show(waits))["schedule"]["available"]["start"]
            assert after.partition("/")[2] < before.partition("/")[2]
            await check(one, two)

    asyncio.run(work())
