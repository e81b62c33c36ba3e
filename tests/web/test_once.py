"""`Idempotency-Key`: a request that is sent again is not done again."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

import stores
from brokersite import NOTEBOOK, ManualClock, Site, asked, uuid_of

DOCUMENT = {"executable": NOTEBOOK, **asked()}
LONGER = {"kind": "uri:integer-delta-update", "path": "schedule.available.duration", "delta": 10}


def run(site: Site, work: Callable[[Site], Awaitable[None]]) -> None:
    async def opened() -> None:
        async with site:
            await work(site)

    asyncio.run(opened())


async def post(site: Site, path: str, document: Any, key: str = "k", **headers: str) -> httpx.Response:
    return await site.client.post(path, json=document, headers={"Idempotency-Key": key, **headers})


def count(site: Site, table: str) -> int:
    ((rows,),) = stores.execute(site.folder, f"SELECT count(*) FROM {table}")
    return int(rows)


def same(first: httpx.Response, second: httpx.Response) -> bool:
    kept = ("content-type", "location", "vary")
    assert second.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    return (first.status_code, first.content, [first.headers.get(name) for name in kept]) == (
        second.status_code,
        second.content,
        [second.headers.get(name) for name in kept],
    )


@pytest.mark.parametrize("path", ["/requests", "/direct"])
@pytest.mark.parametrize("prefer", ["", "return=minimal"])
@pytest.mark.parametrize("accept", ["application/json", "application/yaml"])
def test_the_same_again_is_the_very_same_reply(site: Site, path: str, prefer: str, accept: str) -> None:
    async def work(site: Site) -> None:
        first = await post(site, path, DOCUMENT, prefer=prefer, accept=accept)
        assert first.status_code == (303 if prefer else 200)
        site.clock.advance(30)
        await site.settle()
        second = await post(site, path, dict(reversed(DOCUMENT.items())), prefer=prefer, accept=accept)
        assert same(first, second)
        assert count(site, "offersets") == 1

    run(site, work)


def test_the_2024_dialect_has_it_too(site: Site) -> None:
    async def work(site: Site) -> None:
        document = {"executable": {"type": "jupyter-notebook", "location": NOTEBOOK["location"]}}
        assert same(await post(site, "/offerset", document), await post(site, "/offerset", document))
        assert count(site, "offersets") == 1

    run(site, work)


def test_without_a_key_each_is_a_new_one(site: Site) -> None:
    async def work(site: Site) -> None:
        for _ in range(2):
            assert (await site.client.post("/requests", json=DOCUMENT)).status_code == 200
        assert (count(site, "offersets"), count(site, "replies")) == (2, 0)

    run(site, work)


def test_a_key_belongs_to_one_request_of_one_route(site: Site) -> None:
    async def work(site: Site) -> None:
        assert (await post(site, "/requests", DOCUMENT)).status_code == 200
        other = await post(site, "/requests", {"executable": NOTEBOOK, **asked(2)})
        assert (other.status_code, other.headers["content-type"]) == (422, "application/problem+json")
        assert "Idempotency-Key" in other.json()["title"]
        assert count(site, "offersets") == 1
        assert (await post(site, "/direct", DOCUMENT)).status_code == 200
        assert (await post(site, "/requests", DOCUMENT, key="another")).status_code == 200
        assert count(site, "offersets") == 3

    run(site, work)


@pytest.mark.parametrize("key", ["", "x" * 256, "\u00e9"])
def test_a_key_that_is_none_is_refused_and_named(site: Site, key: str) -> None:
    async def work(site: Site) -> None:
        headers = [(b"idempotency-key", key.encode())]
        answer = await site.client.post("/requests", json=DOCUMENT, headers=headers)
        assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, "header.Idempotency-Key")
        assert count(site, "offersets") == 0

    run(site, work)


def test_a_no_and_a_failed_session_are_replies(site: Site) -> None:
    async def work(site: Site) -> None:
        too_much = {"executable": NOTEBOOK, **asked(99)}
        no = await post(site, "/requests", too_much)
        assert no.json()["result"] == "NO"
        assert same(no, await post(site, "/requests", too_much))
        failed = await post(site, "/direct", too_much)
        assert (failed.status_code, failed.json()["phase"]) == (400, "FAILED")
        assert same(failed, await post(site, "/direct", too_much))

    run(site, work)


def test_what_cannot_be_read_uses_no_key_up(site: Site) -> None:
    async def work(site: Site) -> None:
        assert (await post(site, "/requests", {"executable": 3})).status_code == 422
        assert (await post(site, "/requests", DOCUMENT)).status_code == 200

    run(site, work)


def test_keys_of_yaml_that_are_no_strings_are_refused_and_named(site: Site) -> None:
    async def work() -> None:
        async with site:
            headers = {"Idempotency-Key": "one", "Content-Type": "application/yaml"}
            answer = await site.client.post("/requests", content=b"1.5: a\nb: c\n", headers=headers)
            assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, "1.5")

    asyncio.run(work())


def test_a_session_is_made_longer_once(site: Site) -> None:
    async def work(site: Site) -> None:
        offer = (await site.offers(**asked()))[0]
        path = f"/sessions/{uuid_of(offer)}"
        accept = {"kind": "uri:enum-value-update", "path": "phase", "value": "ACCEPTED"}
        first = await post(site, path, accept)
        assert first.status_code == 200
        assert same(first, await post(site, path, accept))
        assert (await site.client.post(path, json=accept)).status_code == 409
        longer = await post(site, path, LONGER, key="longer")
        assert longer.json()["schedule"]["available"]["duration"] == "PT20M"
        assert same(longer, await post(site, path, LONGER, key="longer"))
        assert (await site.show(offer))["schedule"]["available"]["duration"] == "PT20M"

    run(site, work)


def test_a_refusal_is_kept_too(site: Site) -> None:
    async def work(site: Site) -> None:
        offer = (await site.offers(**asked()))[0]
        path = f"/sessions/{uuid_of(offer)}"
        refused = await post(site, path, LONGER)
        assert (refused.status_code, refused.json()["phase"]) == (409, "OFFERED")
        await site.accept(offer)
        again = await post(site, path, LONGER)
        assert (again.status_code, again.json(), again.headers["idempotency-replayed"]) == (409, refused.json(), "true")

    run(site, work)


def test_a_repeat_while_the_first_is_under_way_is_told_so(site: Site) -> None:
    async def work(site: Site) -> None:
        answers = await asyncio.gather(*(post(site, "/requests", DOCUMENT) for _ in range(8)))
        done = [answer for answer in answers if answer.status_code == 200]
        told = [answer for answer in answers if answer.status_code == 409]
        assert len(done) + len(told) == 8
        assert len({answer.content for answer in done}) == 1
        assert told
        assert {answer.headers["retry-after"] for answer in told} == {"1"}
        assert count(site, "offersets") == 1
        assert (await post(site, "/requests", DOCUMENT)).content == done[0].content

    run(site, work)


def test_replies_are_kept_as_long_as_is_set_also_through_a_restart(site: Site) -> None:
    async def work(site: Site) -> None:
        first = await post(site, "/requests", DOCUMENT)
        await site.restart(retention={"replies": "PT2H"})
        await site.advance(3600)
        assert same(first, await post(site, "/requests", DOCUMENT))
        await site.advance(3 * 3600)
        await site.settle()
        assert count(site, "replies") == 0
        assert (await post(site, "/requests", DOCUMENT)).content != first.content

    run(site, work)


def test_where_the_ledger_cannot_be_written_the_key_is_free(site: Site) -> None:
    async def work(site: Site) -> None:
        with stores.refusing_offersets(site.folder):
            assert (await post(site, "/requests", DOCUMENT)).status_code >= 500
        assert count(site, "replies") == 0
        first = await post(site, "/requests", DOCUMENT)
        assert first.status_code == 200
        assert same(first, await post(site, "/requests", DOCUMENT))

    run(site, work)


@pytest.mark.postgres
def test_two_brokers_that_get_the_same_at_once_do_it_once(tmp_path: Path) -> None:
    async def work() -> None:
        clock = ManualClock()
        async with Site(tmp_path, clock) as one, Site(tmp_path, clock) as other:
            for number in range(20):
                answers = await asyncio.gather(*(post(site, "/direct", DOCUMENT, key=f"{number}") for site in (one, other)))
                assert {answer.status_code for answer in answers} == {200}, [answer.text for answer in answers]
                assert len({answer.json()["meta"]["uuid"] for answer in answers}) == 1
            assert count(one, "sessions") == 20
            assert await one.faults() == []

    asyncio.run(work())
