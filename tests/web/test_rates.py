"""Rates and failed logins, through the door."""

import asyncio
from pathlib import Path
from typing import Any

import httpx

from brokersite import NOTEBOOK, Site

ASK = {"executable": NOTEBOOK}


async def statuses(*calls: Any) -> list[int]:
    return [answer.status_code for answer in await asyncio.gather(*calls)]


def test_asks_are_limited_beside_other_requests(tmp_path: Path) -> None:
    async def work() -> None:
        rate = {"asks": 0.001, "ask_burst": 3}
        async with Site(tmp_path, limits={"rate": rate}) as site:
            found = await statuses(*(site.client.post(path, json=ASK) for path in ("/requests", "/direct", "/offerset") * 2))
            assert sorted(found) == [200, 200, 200, 429, 429, 429]
            refused = await site.client.post("/requests", json=ASK)
            assert refused.headers["content-type"] == "application/problem+json"
            assert refused.json()["title"] == "Too many requests"
            assert 900 < int(refused.headers["retry-after"]) <= 1000
            assert await statuses(*(site.client.get("/platforms") for _ in range(20))) == [200] * 20

    asyncio.run(work())


def test_requests_of_one_identity_are_limited_and_healthz_is_not(tmp_path: Path) -> None:
    async def work() -> None:
        async with Site(tmp_path, auth={"mode": "token"}, limits={"rate": {"requests": 0.001, "burst": 5}}) as site:
            site.client.headers["authorization"] = f"Bearer {(site.folder / 'token').read_text()}"
            assert sorted(await statuses(*(site.client.get("/platforms") for _ in range(8)))) == [200] * 5 + [429] * 3
            del site.client.headers["authorization"]
            assert await statuses(*(site.client.get("/healthz") for _ in range(8))) == [200] * 8

    asyncio.run(work())


def test_who_says_nothing_is_limited_by_address_as_the_proxy_tells_it(tmp_path: Path) -> None:
    async def work() -> None:
        settings = {"limits": {"rate": {"anonymous": 0.001, "burst": 2}}, "proxies": ["127.0.0.1"], "auth": {"mode": "token"}}
        async with Site(tmp_path, **settings) as site:
            for address in ("192.0.2.1", "192.0.2.2"):
                headers = {"x-forwarded-for": f"6.6.6.6, {address}"}
                assert sorted(await statuses(*(site.client.get("/healthz", headers=headers) for _ in range(4)))) == [
                    200,
                    200,
                    429,
                    429,
                ]
                assert (await site.client.get("/sessions", headers=headers)).status_code == 429

    asyncio.run(work())


def test_guessing_at_tokens_has_to_wait_and_who_was_let_in_has_not(tmp_path: Path) -> None:
    async def work() -> None:
        async with Site(tmp_path, auth={"mode": "token"}, limits={"rate": {"failures": 3}}) as site:
            right = {"authorization": f"Bearer {(site.folder / 'token').read_text()}"}
            assert (await site.client.get("/sessions", headers=right)).status_code == 200
            found = [await site.client.get("/sessions", headers={"authorization": f"Bearer {number}"}) for number in range(5)]
            assert [one.status_code for one in found] == [401, 401, 401, 429, 429]
            assert (found[-1].headers["retry-after"], found[-1].json()["status"]) == ("1", 429)
            assert (await site.client.get("/sessions", headers=right)).status_code == 200

    asyncio.run(work())


def test_nothing_is_limited_where_there_is_one_identity_and_nothing_set(site: Site) -> None:
    async def work() -> None:
        async with site:
            found: list[httpx.Response] = await asyncio.gather(*(site.client.get("/platforms") for _ in range(2500)))
            assert {one.status_code for one in found} == {200}

    asyncio.run(work())
