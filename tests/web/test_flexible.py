"""Flexible sessions as their client sees them: an interval, pulled forward when room comes free, never back."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from brokersite import MORNING, NOTEBOOK, ManualClock, Site, asked, names, platform, start_of, uuid_of
from execbroker.model.times import parse_duration

HOUR = 3600
LAB = {"kind": "jupyter-notebook", "location": "https://example.org/a.ipynb"}
NIGHT = {"name": "night", "from": "20:00", "until": "06:00", "factor": 0.25}


def tell(folder: Path, story: Callable[[Site], Awaitable[None]], clock: ManualClock | None = None, **settings: Any) -> None:
    async def told() -> None:
        async with Site(folder, clock, platforms=[platform(**settings)], offers={"limit": 1}) as site:
            await story(site)
            assert await site.faults() == []

    asyncio.run(told())


def flexible(cores: int = 4, duration: str = "PT1H", start: str | None = None, **more: Any) -> dict[str, Any]:
    request = asked(cores, 1, duration, start, **more)
    request["schedule"]["requested"]["flexible"] = True
    return request


def interval(session: dict[str, Any]) -> tuple[int, int]:
    """Between which instants it may start, in seconds from the morning."""
    first, _, last = session["schedule"]["available"]["start"].partition("/")
    morning = datetime.fromisoformat(MORNING)
    begin = int((datetime.fromisoformat(first).astimezone(UTC) - morning).total_seconds())
    return begin, begin + int(parse_duration(last).total_seconds())


async def shown(site: Site, uuid: str) -> tuple[int, int]:
    return interval(await site.show(uuid))


async def cancel(site: Site, uuid: str) -> None:
    assert (await site.update(uuid, "CANCELLED")).status_code == 200
    await site.settle()


def test_an_interval_from_the_earliest_to_the_held_start(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        offer = (await site.offers(**flexible()))[0]
        assert interval(offer) == (0, 0)
        await site.accept(offer)
        offer = (await site.offers(**flexible()))[0]
        assert interval(offer) == (0, HOUR)
        assert interval(await site.accept(offer)) == (0, HOUR)
        precise = (await site.offers(**asked(4, 1, "PT1H")))[0]
        assert interval(precise) == (2 * HOUR, 2 * HOUR)
        for part in (offer, offer["compute"], offer["executable"]):
            assert part["schedule"]["available"] == offer["schedule"]["available"]

    tell(tmp_path, story)


def test_pulled_forward_when_something_is_cancelled(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        blocker, precise, waiting = (
            await site.take(**flexible()),
            await site.take(**asked(4, 1, "PT1H")),
            await site.take(**flexible()),
        )
        assert await shown(site, waiting) == (0, 2 * HOUR)
        await site.advance(600)
        await cancel(site, precise)
        assert (await shown(site, waiting))[1] == HOUR
        await cancel(site, blocker)
        assert (await shown(site, waiting))[1] == 600
        session = await site.show(waiting)
        assert names(session).count("pulled-forward") == 2
        await site.advance(1)
        assert await site.phase(waiting) == "RUNNING"
        await site.advance(HOUR)
        assert await site.phase(waiting) == "COMPLETED"

    tell(tmp_path, story)


def test_pulled_forward_when_something_ends_early(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        await site.take(**asked(4, 1, "PT3H"))
        waiting = await site.take(**flexible())
        assert await shown(site, waiting) == (0, 3 * HOUR)
        await site.advance(1500)
        assert await site.phase(waiting) == "RUNNING"
        assert (await shown(site, waiting))[1] <= 1500

    tell(tmp_path, story, lasts="PT20M")


@pytest.mark.parametrize("how", ["rejected", "expired"])
def test_pulled_forward_when_offers_go(tmp_path: Path, how: str) -> None:
    async def story(site: Site) -> None:
        offer = (await site.offers(**asked(4, 1, "PT1H")))[0]
        waiting = await site.take(**flexible())
        assert await shown(site, waiting) == (0, HOUR)
        if how == "rejected":
            await site.update(offer, "REJECTED")
        else:
            await site.advance(301)
        assert (await shown(site, waiting))[1] == (0 if how == "rejected" else 300)
        await site.advance(2)
        assert await site.phase(waiting) == "RUNNING"

    tell(tmp_path, story)


def test_pulled_forward_to_a_new_node(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        await site.take(**asked(4, 1, "PT5H"))
        waiting = [await site.take(**flexible()) for _ in range(2)]
        assert [await shown(site, uuid) for uuid in waiting] == [(0, 5 * HOUR), (0, 6 * HOUR)]
        await site.restart(platforms=[platform(nodes=[{"count": 2, "cores": 4, "memory": 8}])])
        await site.settle()
        assert [(await shown(site, uuid))[1] for uuid in waiting] == [0, HOUR]

    tell(tmp_path, story, nodes=[{"cores": 4, "memory": 8}])


def test_never_before_the_range_that_was_asked_for(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        blocker = await site.take(**asked(4, 1, "PT3H"))
        waiting = await site.take(**flexible(start=f"{site.clock.at(HOUR)}/PT9H"))
        assert await shown(site, waiting) == (HOUR, 3 * HOUR)
        await cancel(site, blocker)
        assert await shown(site, waiting) == (HOUR, HOUR)

    tell(tmp_path, story)


def test_never_before_its_data_can_be_there(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        blocker = await site.take(**asked(4, 1, "PT3H"))
        waiting = await site.take(**flexible())
        assert (await shown(site, waiting))[1] == 3 * HOUR + 1200
        await site.advance(60)
        await cancel(site, blocker)
        assert (await shown(site, waiting))[1] == 660
        session = await site.show(waiting)
        assert start_of({"schedule": {"available": session["schedule"]["preparing"]}}) == site.clock.seconds
        await site.advance(20)
        assert await site.phase(waiting) == "PREPARING"
        await site.advance(640)
        assert await site.phase(waiting) == "RUNNING"

    still = {"prepare": {"does": "delay", "times": 40}}
    tell(tmp_path, story, preparing="PT10M", script=still)


def test_what_is_precise_stays_where_it_is(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        blocker, precise = await site.take(**flexible()), await site.take(**asked(4, 1, "PT1H"))
        before = await site.show(precise)
        await cancel(site, blocker)
        assert await site.show(precise) == before

    tell(tmp_path, story)


def test_a_range_of_no_length_is_precise(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        blocker = await site.take(**asked(4, 1, "PT1H"))
        waiting = await site.take(**flexible(start=f"{site.clock.at(HOUR)}/PT0S"))
        await cancel(site, blocker)
        assert await shown(site, waiting) == (HOUR, HOUR)

    tell(tmp_path, story)


def test_never_at_a_higher_price_than_was_quoted(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        blocker = await site.take(**asked(4, 1, "PT20H"), costs=[])
        waiting = await site.take(**flexible())
        cost = (await site.show(waiting))["costs"][0]["max"]
        assert (await shown(site, waiting))[1] == 20 * HOUR  # five in the morning, at night
        await cancel(site, blocker)
        assert (await shown(site, waiting))[1] == 11 * HOUR  # eight in the evening
        assert (await site.show(waiting))["costs"][0]["max"] == cost == 1

    tell(tmp_path, story, prices={"money": {"core_hour": 1, "tariffs": [NIGHT]}})


def test_with_more_nodes_and_storage_it_moves_as_a_whole(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        blocker = await site.take(**asked(4, 1, "PT2H"))
        request = flexible(storage=[{"kind": "simple-storage-resource", "size": {"min": 50, "max": 50}, "lifetime": "PT1H"}])
        request["compute"]["replicas"] = 2
        waiting = await site.take(**request)
        assert (await shown(site, waiting))[1] == 2 * HOUR
        await cancel(site, blocker)
        session = await site.show(waiting)
        assert interval(session) == (0, 0)
        assert session["storage"][0]["size"]["max"] == 50
        assert start_of((await site.offers(**asked(1, 1, "PT1H")))[0]) == site.clock.seconds + HOUR

    tell(tmp_path, story, nodes=[{"count": 2, "cores": 4, "memory": 8, "storage": 50}])


def test_those_of_higher_priority_come_first(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        blocker = await site.take(**asked(4, 1, "PT1H"))
        batch = [await site.take(**flexible()) for _ in range(2)]
        lab = await site.take(**flexible(), executable=LAB)
        assert [(await shown(site, uuid))[1] for uuid in (*batch, lab)] == [HOUR, 2 * HOUR, 3 * HOUR]
        await cancel(site, blocker)
        assert [(await shown(site, uuid))[1] for uuid in (lab, *batch)] == [0, HOUR, 2 * HOUR]

    tell(tmp_path, story)


def test_a_part_is_kept_for_interactive_work(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        assert start_of((await site.offers(**asked(4, 1, "PT30M")))[0]) - site.clock.seconds == 2 * HOUR
        assert start_of((await site.offers(**asked(2, 1, "PT30M")))[0]) == site.clock.seconds
        lab = await site.offers(**asked(2, 1, "PT30M"), executable=LAB)
        assert start_of(lab[0]) == site.clock.seconds
        answer = await site.ask(**asked(4, 1, "PT30M", f"{site.clock.at(60)}/PT1H"))
        assert answer["result"] == "NO"

    tell(tmp_path, story, kept=[{"share": 0.5, "from": "09:00", "until": "11:00"}])


def test_batch_work_is_not_pulled_into_what_is_kept(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        blocker = await site.take(**asked(4, 1, "PT5H"), executable=LAB)
        batch = await site.take(**flexible(3))
        await cancel(site, blocker)
        assert (await shown(site, batch))[1] == 2 * HOUR

    tell(tmp_path, story, kept=[{"share": 0.5, "from": "09:00", "until": "11:00"}])


@pytest.mark.parametrize("share", [0.01, 0.3, 1])
def test_kept_shares_are_rounded_up_to_whole_cores(tmp_path: Path, share: float) -> None:
    async def story(site: Site) -> None:
        left = {0.01: 3, 0.3: 2, 1: 0}[share]
        now = f"{site.clock.at(0)}/PT0S"
        for cores in range(1, 5):
            answer = await site.ask(**asked(cores, 1, "PT1M", now))
            assert answer["result"] == ("YES" if cores <= left else "NO")
            for offer in answer["offers"]:
                await site.update(offer, "REJECTED")
        assert (await site.ask(**asked(4, 1, "PT1M", now), executable=LAB))["result"] == "YES"

    tell(tmp_path, story, kept=[{"share": share}])


def test_accepted_directly_it_is_flexible_too(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        blocker = await site.take(**asked(4, 1, "PT1H"))
        answer = await site.client.post("/direct", json={"executable": NOTEBOOK, **flexible()})
        assert answer.status_code == 200
        assert interval(answer.json()) == (0, HOUR)
        await cancel(site, blocker)
        assert await shown(site, uuid_of(answer.json())) == (0, 0)

    tell(tmp_path, story)


def test_a_restart_forgets_nothing_of_it(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        blocker, waiting = await site.take(**asked(4, 1, "PT1H")), await site.take(**flexible())
        await site.restart()
        assert await shown(site, waiting) == (0, HOUR)
        await cancel(site, blocker)
        assert await shown(site, waiting) == (0, 0)

    tell(tmp_path, story)


@pytest.mark.parametrize("wrong", ["yes please", 7, [], {}])
def test_flexible_is_true_or_false(tmp_path: Path, wrong: Any) -> None:
    async def story(site: Site) -> None:
        request = {"executable": NOTEBOOK, "schedule": {"requested": {"flexible": wrong}}}
        answer = await site.client.post("/requests", json=request)
        assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, "schedule.requested.flexible")

    tell(tmp_path, story)
