"""Events as a stream: what is told, from where on, to whom, and how it ends."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest
from test_accounts import ADMIN, ALICE, AUTH, enrol
from test_extension import extend

import stores
from brokersite import NOTEBOOK, Site, asked, uuid_of
from execbroker.engine.feed import MOST_KEPT, Feed, Followed
from execbroker.model.identities import HOLDER
from execbroker.model.phases import Phase
from streaming import Block, blocks, served, whole

LIFE = ["ACCEPTED", "WAITING", "PREPARING", "AVAILABLE", "RUNNING", "RELEASING", "COMPLETED"]
BOB = ("bob", "bobs own password")


def tell(folder: Path, story: Callable[[Site, httpx.AsyncClient], Awaitable[None]], **settings: Any) -> None:
    async def told() -> None:
        async with Site(folder, **settings) as site, served(site) as client:
            await story(site, client)

    asyncio.run(told())


def numbers(found: list[Block]) -> list[int]:
    return [block.number for block in found if "data" in block.fields and "id" in block.fields]


def phases(found: list[Block]) -> list[str]:
    return [block.data["phase"] for block in found if block.event == "phase"]


async def run_one(site: Site, **request: Any) -> str:
    """A session from its beginning to its end."""
    uuid = await site.take(**(request or asked(1, 1, "PT10M")))
    await site.advance(700)
    return uuid


def test_a_session_is_told_from_its_beginning_to_its_end(tmp_path: Path) -> None:
    async def story(site: Site, client: httpx.AsyncClient) -> None:
        uuid = await site.take(**asked(1, 1, "PT10M"))
        following = asyncio.create_task(whole(client, f"/sessions/{uuid}/events"))
        await site.advance(700)
        first, *events, end = await following
        assert first.fields["retry"] == "1000"
        assert phases(events) == LIFE
        assert numbers(events) == sorted(set(numbers(events)))
        assert (end.event, end.data) == ("end", {"reason": "final"})
        assert {block.data["session"] for block in events} == {uuid}
        offerset = (await client.get("/offersets")).json()["offersets"][0]
        assert {block.data["offerset"] for block in events} == {uuid_of(offerset)}
        (ended,) = [block.data for block in events if "message" in block.data]
        assert ended["message"]["kind"] == "urn:execbroker:message:time-limit"
        assert ended["time"] == ended["message"]["time"]
        assert [block.fields for block in (await whole(client, f"/sessions/{uuid}/events"))[1:]] == [
            block.fields for block in (*events, end)
        ]

    tell(tmp_path, story)


def test_it_goes_on_after_any_number(tmp_path: Path) -> None:
    async def story(site: Site, client: httpx.AsyncClient) -> None:
        path = f"/sessions/{await run_one(site)}/events"
        known = numbers(await whole(client, path))
        for index, number in enumerate(known[:-1]):
            assert numbers(await whole(client, path, params={"after": number})) == known[index + 1 :]
            header = {"Last-Event-ID": str(number)}
            assert numbers(await whole(client, path, params={"after": 0}, headers=header)) == known[index + 1 :]
        answer = await client.get(path, headers={"Last-Event-ID": str(known[-1])})
        assert (answer.status_code, answer.text) == (204, "")

    tell(tmp_path, story)


@pytest.mark.parametrize("number", ["-1", "one", str(1 << 63), "1.5", ""])
def test_what_is_no_number_is_422(tmp_path: Path, number: str) -> None:
    async def story(site: Site, client: httpx.AsyncClient) -> None:
        answer = await client.get("/events", params={"after": number})
        assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, "query.after")
        answer = await client.get("/events", headers={"Last-Event-ID": number, "Accept": "text/event-stream"})
        assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, "header.last-event-id")

    tell(tmp_path, story)


def test_all_of_ones_own_from_now_on_or_from_the_beginning(tmp_path: Path) -> None:
    async def story(site: Site, client: httpx.AsyncClient) -> None:
        before = await run_one(site)
        async with aclosing(blocks(client, "/events")) as now, aclosing(blocks(client, "/events?after=0")) as ever:
            last = (await anext(now)).number
            await anext(ever)
            seen = [await anext(ever) for _ in range(last)]
            assert [block.number for block in seen] == [*range(1, last + 1)]
            assert {block.data["session"] for block in seen} > {before}  # and the offers that nobody took
            uuid = await site.take(**asked(1, 1, "PT10M", f"{site.clock.at(3600)}/PT0S"))
            for follower in (now, ever):
                following = [(await anext(follower)).data for _ in range(2)]
                assert [(data["session"], data["phase"]) for data in following] == [(uuid, "ACCEPTED"), (uuid, "WAITING")]

    tell(tmp_path, story)


def test_nobody_is_told_what_is_anothers(tmp_path: Path) -> None:
    async def story(site: Site, client: httpx.AsyncClient) -> None:
        for who in (ALICE, BOB):
            await enrol(site, who)
        uuids = {}
        for who in (ALICE, BOB, ALICE):
            answer = await client.post("/direct", json={"executable": {"kind": "jupyter-notebook", "location": "a"}}, auth=who)
            uuids.setdefault(who, []).append(uuid_of(answer.json()))
        for who, other in ((ALICE, BOB), (BOB, ALICE)):
            async with aclosing(blocks(client, "/events?after=0", auth=who)) as events:
                await anext(events)
                told = [(await anext(events)).data["session"] for _ in uuids[who]]
                assert set(told) <= set(uuids[who])
            answer = await client.get(f"/sessions/{uuids[other][0]}/events", auth=who)
            assert answer.status_code == 403
        assert (await client.get(f"/sessions/{uuids[ALICE][0]}/events")).status_code == 401
        assert (await client.get("/events")).status_code == 401
        assert (await client.get("/sessions/00000000-0000-4000-8000-000000000000/events", auth=BOB)).status_code == 404

    tell(tmp_path, story, auth={**AUTH, "public": True})


def test_other_times_are_told(tmp_path: Path) -> None:
    async def story(site: Site, client: httpx.AsyncClient) -> None:
        uuid = await site.take(**asked(1, 1, "PT1H", f"{site.clock.at(3600)}/PT0S"))
        begin, end = site.clock.at(3600), site.clock.at(2 * 3600 + 1800)
        assert (await extend(site, uuid, 30)).status_code == 200
        await site.update(uuid, "CANCELLED")
        await site.settle()
        told = await whole(client, f"/sessions/{uuid}/events")
        (changed,) = [block.data for block in told if block.event == "schedule"]
        assert changed["schedule"] == {"start": begin, "end": end}
        assert changed["message"]["kind"] == "urn:execbroker:message:extended"
        assert [block.data for block in told if block.event == "phase" and "schedule" in block.data] == []

    tell(tmp_path, story)


def test_what_was_deleted_is_a_gap_and_its_numbers_never_come_again(tmp_path: Path) -> None:
    async def story(site: Site, client: httpx.AsyncClient) -> None:
        uuid = await run_one(site)
        last = numbers(await whole(client, f"/sessions/{uuid}/events"))[-1]
        await site.advance(3 * 86400)
        assert (await client.get(f"/sessions/{uuid}/events")).status_code == 404
        for after in (0, last - 1):
            async with aclosing(blocks(client, f"/events?after={after}")) as events:
                gap = await anext(events)
                assert (gap.event, gap.data) == ("gap", {"until": last})
        async with aclosing(blocks(client, f"/events?after={last}")) as events:
            assert (await anext(events)).number == last
            await site.offers(**asked())
            await site.advance(400)
            block = await anext(events)
            assert (block.data["phase"], block.number) == ("EXPIRED", last + 1)

    tell(tmp_path, story, retention={"sessions": "P1D", "offersets": "PT1H"})


def test_numbers_from_a_ledger_that_is_no_more_are_a_gap(tmp_path: Path) -> None:
    async def story(site: Site, client: httpx.AsyncClient) -> None:
        uuid = await run_one(site)
        for path in ("/events", f"/sessions/{uuid}/events"):
            async with aclosing(blocks(client, path, headers={"Last-Event-ID": "1000000"})) as events:
                assert (await anext(events)).event == "gap"

    tell(tmp_path, story)


def test_streams_end_when_the_broker_stops(tmp_path: Path) -> None:
    async def story(site: Site, client: httpx.AsyncClient) -> None:
        uuid = await site.take(**asked(1, 1, "PT10M"))
        paths = ["/events", f"/sessions/{uuid}/events"]
        following = [asyncio.create_task(whole(client, path)) for path in paths]
        async with asyncio.timeout(10):
            while sum(map(len, site.parts.feed._followers.values())) < len(paths):  # noqa: ASYNC110 -- it sets no event of ours
                await asyncio.sleep(0.01)
        site.ledger.changes.close()
        for told in await asyncio.gather(*following):
            assert (told[-1].event, told[-1].data) == ("end", {"reason": "stopping"})

    tell(tmp_path, story)


def test_who_has_nothing_to_tell_says_so_from_time_to_time_and_ends_in_the_end(tmp_path: Path) -> None:
    async def work() -> None:
        async with Site(tmp_path) as site:
            feed = Feed(site.ledger, heartbeat=0.01, lasts=0.2)
            told = [news async for news in feed.follow(Followed(HOLDER.owner), None)]
            assert len(told) > 3
            assert {news.position for news in told} == {0}
            assert [news.end for news in told if news.end] == ["renew"]

    asyncio.run(work())


def test_who_reads_slowly_gets_it_all_from_the_ledger(tmp_path: Path) -> None:
    async def work() -> None:
        async with Site(tmp_path) as site:
            uuid = uuid_of((await site.offers())[0])
            feed = site.parts.feed
            async with aclosing(feed.follow(Followed(HOLDER.owner), None)) as slow:
                await anext(slow)
                for _ in range(30):
                    await site.books.write(lambda transaction, now: said(transaction, uuid, now))
                async with aclosing(feed.follow(Followed(HOLDER.owner), 0)) as quick:
                    seen = 0
                    async for news in quick:
                        seen += len(news.events)
                        if seen == 3000:
                            break
                (follower,) = feed._followers[Followed(HOLDER.owner)]
                assert len(follower.fresh) <= MOST_KEPT
                found: list[int] = []
                async for news in slow:
                    found += [event.seq for event in news.events]
                    if len(found) == 3000:
                        break
                assert found == [*range(1, 3001)]

    async def said(transaction: Any, uuid: str, now: int) -> None:
        for _ in range(100):
            transaction.record(uuid, Phase.OFFERED, now)
        transaction.touched.add(uuid)

    asyncio.run(work())


@pytest.mark.postgres
def test_whatever_broker_writes_numbers_come_in_order_at_every_broker(tmp_path: Path) -> None:
    async def work() -> None:
        async with Site(tmp_path) as one, Site(tmp_path) as two, Site(tmp_path) as three:
            sites, found = (one, two, three), {}
            over = asyncio.Event()

            async def watch(site: Site) -> None:
                position, found[site] = 0, []
                while not (over.is_set() and position == await site.parts.feed.events.last()):
                    page = await site.parts.feed.events.page(position)
                    found[site] += [event.seq for event in page.events]
                    position = page.position

            async def change(site: Site) -> None:
                for _ in range(15):
                    for offer in await site.offers(**asked(start=f"{site.clock.at(3600)}/P9D")):
                        await site.update(offer, "REJECTED")

            watching = [asyncio.create_task(watch(site)) for site in sites]
            await asyncio.gather(*map(change, sites))
            over.set()
            await asyncio.gather(*watching)
            known = [seq for (seq,) in stores.execute(one.folder, "SELECT seq FROM events ORDER BY seq")]
            assert len(known) > 100
            assert [*found.values()] == [known] * 3

    asyncio.run(work())


def test_who_is_no_longer_let_in_is_told_no_more(tmp_path: Path) -> None:
    async def story(site: Site, client: httpx.AsyncClient) -> None:
        alice = (await enrol(site)).json()["uuid"]
        offers = (await client.post("/requests", json={"executable": NOTEBOOK}, auth=ALICE)).json()["offers"]
        async with asyncio.timeout(10), aclosing(blocks(client, "/events", auth=ALICE)) as stream:
            await anext(stream)
            await site.client.post(f"/admin/identities/{alice}", json={"disabled": True}, auth=ADMIN)
            site.clock.advance(10)
            rejection = {"kind": "uri:enum-value-update", "path": "phase", "value": "REJECTED"}
            assert (await site.client.post(f"/sessions/{uuid_of(offers[0])}", json=rejection, auth=ADMIN)).status_code == 200
            rest = [block async for block in stream]
        assert [(block.event, block.data) for block in rest] == [("end", {"reason": "renew"})]
        assert (await client.get("/events", auth=ALICE)).status_code == 403

    tell(tmp_path, story, auth=AUTH)
