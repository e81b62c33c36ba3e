"""How much may be held in offers that nobody has accepted."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from brokersite import NOTEBOOK, Site, asked, names, platform

BIG = [{"count": 10, "cores": 16, "memory": 64, "storage": 1000}]


def tell(folder: Path, story: Callable[[Site], Awaitable[None]], **offers: Any) -> None:
    async def told() -> None:
        async with Site(folder, platforms=[platform(nodes=BIG)], offers=offers) as site:
            await story(site)
            assert await site.faults() == []

    asyncio.run(told())


async def refused(site: Site, **request: Any) -> list[dict[str, str]]:
    answer = await site.ask(**request)
    assert (answer["result"], set(names(answer))) == ("NO", {"too-many-offers"}), answer
    return [item["values"] for item in answer["meta"]["messages"]]


@pytest.mark.parametrize("cap", ["held_owner", "held_all"])
def test_as_much_as_is_allowed_and_no_more(tmp_path: Path, cap: str) -> None:
    async def story(site: Site) -> None:
        held = [(await site.offers(**asked(4, 1, "PT1H")))[0] for _ in range(2)]
        reasons = await refused(site, **asked(5, 1, "PT30M"))
        assert [(values["path"], values["held"], values["over"], values["cap"]) for values in reasons] == [
            ("offers", "10.5", "0.5", "10")
        ]
        last = (await site.offers(**asked(2, 1, "PT1H")))[0]
        await refused(site, **asked(1, 1, "PT1S"))
        await site.accept(held[0])
        await refused(site, **asked(5, 1, "PT1H"))
        await site.offers(**asked(4, 1, "PT1H"))
        await refused(site, **asked(1, 1, "PT1S"))
        await site.update(last, "REJECTED")
        await site.offers(**asked(2, 1, "PT1H"))

    tell(tmp_path, story, limit=1, **{cap: 10})


def test_offers_that_expire_make_room(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        await site.offers(**asked(10, 1, "PT1H"))
        await refused(site, **asked(1, 1, "PT1H"))
        site.clock.advance(301)
        await site.offers(**asked(10, 1, "PT1H"))

    tell(tmp_path, story, limit=1, held_owner=10)


def test_alternatives_count_as_the_set_holds_them(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        assert len(await site.offers(**asked(4, 1, "PT1H"))) == 4  # one after the other: 16 core-hours
        await refused(site, **asked(1, 1, "PT1M"))

    tell(tmp_path, story, held_all=16)


def test_both_caps_are_said_at_once(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        assert len(await refused(site, **asked(4, 1, "PT1H"))) == 2

    tell(tmp_path, story, limit=1, held_owner=1, held_all=2)


def test_no_offers_at_all(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        await refused(site, **asked(1, 1, "PT1S"))
        answer = await site.client.post("/direct", json={"executable": NOTEBOOK, **asked(1, 1, "PT1H")})
        assert (answer.status_code, answer.json()["phase"]) == (200, "ACCEPTED")  # nothing of it is unaccepted

    tell(tmp_path, story, held_owner=0)


def test_a_restart_counts_what_is_still_held(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        offer = (await site.offers(**asked(8, 1, "PT1H")))[0]
        await site.restart()
        await refused(site, **asked(3, 1, "PT1H"))
        await site.update(offer, "REJECTED")
        await site.offers(**asked(10, 1, "PT1H"))

    tell(tmp_path, story, limit=1, held_owner=10)


def test_a_refusal_holds_nothing(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        for _ in range(5):
            await refused(site, **asked(16, 1, "PT1H"))
        await site.offers(**asked(10, 1, "PT1H"))

    tell(tmp_path, story, limit=1, held_owner=10)


def test_many_at_once_stay_below_the_cap(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        answers = await asyncio.gather(*(site.ask(**asked(3, 1, "PT1H")) for _ in range(12)))
        assert [answer["result"] for answer in answers].count("YES") == 3

    tell(tmp_path, story, limit=1, held_owner=10)
