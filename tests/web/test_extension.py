"""Sessions made longer or shorter: what is offered can be had, nothing beyond it, and nobody else's time."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from brokersite import NOTEBOOK, Site, asked, names, platform, start_of

DURATION = "schedule.available.duration"
HOUR = 3600


def tell(folder: Path, story: Callable[[Site], Awaitable[None]], offers: dict[str, Any] | None = None, **settings: Any) -> None:
    async def told() -> None:
        async with Site(folder, platforms=[platform(**settings)], offers={"limit": 1, **(offers or {})}) as site:
            await story(site)
            assert await site.faults() == []

    asyncio.run(told())


async def extend(site: Site, uuid: str, delta: Any, units: str | None = None, path: str = DURATION) -> httpx.Response:
    document = {"kind": "uri:integer-delta-update", "path": path, "delta": delta, **({"units": units} if units else {})}
    return await site.client.post(f"/sessions/{uuid}", json=document)


async def longer(site: Site, uuid: str, delta: int, units: str | None = None) -> dict[str, Any]:
    answer = await extend(site, uuid, delta, units)
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


def option(session: dict[str, Any]) -> dict[str, Any] | None:
    """By how much its end can be moved."""
    options = session["meta"].get("options") or []
    return next((one for one in options if one["path"] == DURATION), None)


def length(session: dict[str, Any]) -> str:
    return str(session["schedule"]["available"]["duration"])


def test_a_running_session_runs_until_its_new_end(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        uuid = await site.take(**asked(2, 1, "PT1H"))
        await site.advance(1800)
        session = await longer(site, uuid, 30)
        assert (length(session), session["phase"]) == ("PT1H30M", "RUNNING")
        assert start_of({"schedule": {"available": session["schedule"]["releasing"]}}) == site.clock.seconds + HOUR
        assert session["compute"]["schedule"] == session["executable"]["schedule"] == session["schedule"]
        await site.advance(HOUR - 60)
        assert await site.phase(uuid) == "RUNNING"
        await site.advance(120)
        session = await site.show(uuid)
        assert (session["phase"], names(session)[-1]) == ("COMPLETED", "time-limit")

    tell(tmp_path, story)


def test_one_that_is_made_shorter_ends_sooner_and_its_time_is_free(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        uuid = await site.take(**asked(4, 1, "PT2H"))
        await site.advance(600)
        assert length(await longer(site, uuid, -1, "hours")) == "PT1H"
        assert start_of((await site.offers(**asked(4, 1, "PT1H")))[0]) - site.clock.seconds == HOUR - 600
        await site.advance(HOUR)
        assert await site.phase(uuid) == "COMPLETED"

    tell(tmp_path, story)


@pytest.mark.parametrize("phase", ["WAITING", "PREPARING", "RUNNING"])
def test_what_the_option_offers_can_be_had_and_not_a_minute_more(tmp_path: Path, phase: str) -> None:
    async def story(site: Site) -> None:
        uuid = await site.take(**asked(4, 1, "PT1H", f"{site.clock.at(HOUR)}/PT0S"))
        await site.take(**asked(1, 1, "PT1H", f"{site.clock.at(2 * HOUR + 1830)}/PT0S"))
        await site.advance({"WAITING": 0, "PREPARING": HOUR - 30, "RUNNING": HOUR + 90}[phase])
        session = await site.show(uuid)
        offered = option(session)
        assert session["phase"] == phase
        assert offered is not None
        assert (offered["max"], offered["units"]) == (29, "minutes")  # 30 s before it, the other is made ready
        refused = await extend(site, uuid, offered["max"] + 1)
        assert (refused.status_code, refused.json()["seconds"]) == (409, 1770)
        assert (await extend(site, uuid, offered["min"] - 1)).status_code == 409
        assert option(await longer(site, uuid, offered["max"])) is not None
        shortest = option(await site.show(uuid))
        assert shortest is not None
        session = await longer(site, uuid, shortest["min"])
        assert session["phase"] == phase

    script = {"prepare": {"does": "delay", "times": 5}}
    tell(
        tmp_path, story, preparing="PT1M", script={} if phase != "PREPARING" else {"prepare": {**script["prepare"], "times": 999}}
    )


def test_nothing_is_offered_where_nothing_can_be_moved(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        offer = (await site.offers(**asked(4, 1, "PT30S")))[0]
        assert option(offer) is None
        assert (await extend(site, offer["meta"]["uuid"], 1)).status_code == 409
        session = await site.accept(offer)
        await site.take(**asked(4, 1, "PT1H"))
        found = option(await site.show(session))
        assert found is None or found["min"] < 0 or found["max"] > 0
        await site.advance(120)
        ended = await site.show(session)
        assert (ended["phase"], option(ended)) == ("COMPLETED", None)
        answer = await extend(site, session["meta"]["uuid"], 1)
        assert (answer.status_code, answer.json()["phase"]) == (409, "COMPLETED")

    tell(tmp_path, story)


def test_units_are_seconds_minutes_and_hours(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        uuid = await site.take(**asked(1, 1, "PT1H"))
        for delta, units, found in (
            (1, None, "PT1H1M"),
            (1, "minutes", "PT1H2M"),
            (1, "hours", "PT2H2M"),
            (5, "seconds", "PT2H2M5S"),
        ):
            assert length(await longer(site, uuid, delta, units)) == found

    tell(tmp_path, story)


@pytest.mark.parametrize(
    ("delta", "units", "path"),
    [
        (0, None, "delta"), (10**12, None, "delta"), (-(10**12), None, "delta"), (10**300, "hours", "delta"),
        (1, "days", "units"), (1, "", None), (1, "MINUTES", "units"), (1.5, None, "delta"), ("1", None, "delta"),
        (None, None, "delta"), (True, None, "delta"),
    ],
)  # fmt: skip
def test_what_is_no_extension_is_422(tmp_path: Path, delta: Any, units: str | None, path: str | None) -> None:
    async def story(site: Site) -> None:
        uuid = await site.take(**asked(1, 1, "PT1H"))
        before = await site.show(uuid)
        answer = await extend(site, uuid, delta, units)
        if path is None:
            assert answer.status_code == 200
        else:
            assert (answer.status_code, [fault["path"] for fault in answer.json()["errors"]]) == (422, [path])
            assert await site.show(uuid) == before
        assert (await extend(site, uuid, 1, path="schedule.available.start")).status_code == 422
        assert (await extend(site, uuid, 1, path="phase")).status_code == 422

    tell(tmp_path, story)


def test_no_more_at_a_time_than_the_settings_say(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        uuid = await site.take(**asked(1, 1, "PT1H"))
        found = option(await site.show(uuid))
        assert found is not None
        assert found["max"] == 120
        assert (await extend(site, uuid, 121)).status_code == 409
        assert length(await longer(site, uuid, 120)) == "PT3H"

    tell(tmp_path, story, offers={"extension": "PT2H"})


def test_storage_and_licences_come_along(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        request = asked(
            1, 1, "PT1H", storage=[{"kind": "simple-storage-resource", "size": {"min": 60, "max": 60}, "lifetime": "PT1H"}]
        )
        request["compute"] |= {"licences": [{"name": "idl"}], "replicas": 2}
        uuid = await site.take(**request)
        await longer(site, uuid, 1, "hours")
        assert start_of((await site.offers(**request))[0]) - site.clock.seconds == 3 * HOUR  # the storage goes an hour after
        only_licence = {**asked(1, 1, "PT1H"), "compute": {**asked()["compute"], "licences": [{"name": "idl"}]}}
        assert start_of((await site.offers(**only_licence))[0]) - site.clock.seconds == 2 * HOUR

    nodes = [{"count": 3, "cores": 4, "memory": 8}]
    tell(tmp_path, story, nodes=nodes, pools={"storage": 100, "licences": {"idl": 1}})


def test_room_in_the_pool_counts_as_that_on_the_node(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        licence = {**asked(1, 1, "PT1H"), "compute": {**asked()["compute"], "licences": [{"name": "idl"}]}}
        first, second = await site.take(**licence), await site.take(**licence)
        found = option(await site.show(first))
        assert found is not None
        assert found["max"] == 0
        assert (await extend(site, first, 1)).status_code == 409
        assert length(await longer(site, second, 1)) == "PT1H1M"

    tell(tmp_path, story, nodes=[{"count": 3, "cores": 4, "memory": 8}], pools={"licences": {"idl": 1}})


def test_what_came_after_may_be_pulled_forward_once_it_is_shorter(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        first = await site.take(**asked(4, 1, "PT2H"))
        request = asked(4, 1, "PT1H")
        request["schedule"]["requested"]["flexible"] = True
        waiting = await site.take(**request)
        await longer(site, waiting, 30)
        await longer(site, first, -1, "hours")
        await site.settle()
        available = (await site.show(waiting))["schedule"]["available"]
        assert available == {"start": f"{site.clock.at(0)}/PT1H", "duration": "PT1H30M"}

    tell(tmp_path, story)


def test_it_survives_a_restart(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        uuid = await site.take(**asked(4, 1, "PT1H"))
        await site.advance(60)
        await longer(site, uuid, 30)
        await site.restart()
        assert length(await site.show(uuid)) == "PT1H30M"
        await site.advance(HOUR + 60)
        assert await site.phase(uuid) == "RUNNING"
        await site.advance(1800)
        assert await site.phase(uuid) == "COMPLETED"

    tell(tmp_path, story)


def test_many_at_once_get_only_what_is_there(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        uuids = [await site.take(**asked(1, 1, "PT1H", f"{site.clock.at(0)}/PT0S")) for _ in range(4)]
        await site.take(**asked(2, 1, "PT1H", f"{site.clock.at(HOUR)}/PT0S"))
        answers = await asyncio.gather(*(extend(site, uuid, 10) for uuid in uuids))
        assert sorted(answer.status_code for answer in answers) == [200, 200, 409, 409]

    tell(tmp_path, story)


def test_in_the_2024_dialect(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        uuid = await site.take(**asked(1, 1, "PT1H"), executable=NOTEBOOK)
        update = {"type": "uri:integer-delta-update", "path": "schedule.executing.duration", "delta": 5}
        answer = await site.client.post(f"/execution/{uuid}", json={"update": update})
        assert (answer.status_code, answer.json()["schedule"]["executing"]["duration"]) == (200, "PT1H5M")
        assert "schedule.executing.duration" in [one["path"] for one in answer.json()["options"]]

    tell(tmp_path, story)
