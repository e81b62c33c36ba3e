"""The drawings of the August 2024 talk, in v1.0 YAML: what is offered where, and what becomes free when."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from brokersite import ManualClock, Site, platform, start_of

NOTEBOOK = "executable: {kind: jupyter-notebook, location: 'https://example.org/a.ipynb'}\n"
FOUR_CORES = NOTEBOOK + "compute: {kind: simple-compute-resource, cores: {min: 4, max: 4}, memory: {min: 8, max: 8}}\n"
HALF_HOUR = 1800


async def ask(site: Site, text: str) -> dict[str, Any]:
    answer = await site.client.post("/requests", content=text, headers={"content-type": "application/yaml"})
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


def starts(answer: dict[str, Any], clock: ManualClock) -> list[int]:
    """When each offer starts, in seconds from now."""
    return [start_of(offer) - clock.seconds for offer in answer["offers"]]


def test_on_an_idle_platform_offers_follow_one_another(site: Site, clock: ManualClock) -> None:
    async def story() -> None:
        async with site:
            answer = await ask(site, NOTEBOOK)
            assert starts(answer, clock) == [0, HALF_HOUR, 2 * HALF_HOUR, 3 * HALF_HOUR]
            compute = answer["offers"][0]["compute"]
            assert (compute["cores"], compute["memory"]) == ({"min": 2, "max": 4}, {"min": 2, "max": 4})

    asyncio.run(story())


def test_they_fit_around_a_block_that_is_booked(site: Site, clock: ManualClock) -> None:
    async def story() -> None:
        async with site:
            block = f"schedule: {{requested: {{start: '{clock.at(HALF_HOUR)}/PT0S', duration: PT1H}}}}\n"
            await site.accept((await ask(site, FOUR_CORES + block))["offers"][0])
            assert starts(await ask(site, FOUR_CORES), clock) == [0, 3 * HALF_HOUR, 4 * HALF_HOUR, 5 * HALF_HOUR]

    asyncio.run(story())


def test_a_second_request_is_pushed_behind_the_first_and_expiry_frees_the_time(site: Site, clock: ManualClock) -> None:
    async def story() -> None:
        async with site:
            await ask(site, FOUR_CORES)
            assert starts(await ask(site, FOUR_CORES), clock)[0] == 4 * HALF_HOUR
            clock.advance(301)
            assert starts(await ask(site, FOUR_CORES), clock)[0] == 0

    asyncio.run(story())


def test_accepting_one_frees_the_others(site: Site, clock: ManualClock) -> None:
    async def story() -> None:
        async with site:
            await site.accept((await ask(site, FOUR_CORES))["offers"][1])
            assert starts(await ask(site, FOUR_CORES), clock) == [0, 2 * HALF_HOUR, 3 * HALF_HOUR, 4 * HALF_HOUR]

    asyncio.run(story())


def test_twice_is_offered_only_where_twice_is_free(site: Site, clock: ManualClock) -> None:
    async def story() -> None:
        async with site:
            half = NOTEBOOK + "compute: {kind: simple-compute-resource, cores: {min: 2, max: 2}, memory: {min: 2, max: 2}}\n"
            block = f"schedule: {{requested: {{start: '{clock.at(0)}/PT0S', duration: PT1H}}}}\n"
            await site.accept((await ask(site, half + block))["offers"][0])
            answer = await ask(site, NOTEBOOK + "compute: {kind: simple-compute-resource, cores: {min: 2}, memory: {min: 3}}\n")
            assert starts(answer, clock) == [0, HALF_HOUR, 2 * HALF_HOUR, 3 * HALF_HOUR]
            assert [offer["compute"]["cores"] for offer in answer["offers"]] == [{"min": 2, "max": n} for n in (2, 2, 4, 4)]
            assert [offer["compute"]["memory"]["max"] for offer in answer["offers"]] == [6, 6, 6, 6]

    asyncio.run(story())


@pytest.mark.parametrize("path", ["my-data", "/my-data"])
def test_data_is_mounted_where_it_was_asked(path: str, site: Site) -> None:
    async def story() -> None:
        async with site:
            volume = f"{{kind: simple-volume-mount, path: {path}, resource: sky}}"
            text = NOTEBOOK + (
                f"compute: {{kind: simple-compute-resource, volumes: [{volume}]}}\n"
                "data: [{kind: simple-data-resource, meta: {name: sky}, location: 'https://example.org/sky.fits'}]\n"
                "schedule: {requested: {start: '2026-11-20T10:00Z/PT1H', duration: PT4H}}\n"
            )
            answer = await ask(site, text)
            offer = answer["offers"][0]
            assert len(answer["offers"]) == 1  # the range is too short for a second one
            mounted, data = offer["compute"]["volumes"][0], offer["data"][0]
            assert (mounted["path"], mounted["mode"], mounted["resource"]) == (path, "READONLY", data["meta"]["uuid"])
            assert data["storage"] == offer["storage"][0]["meta"]["uuid"]
            assert offer["storage"][0]["data"] == [data["meta"]["uuid"]]
            assert offer["schedule"]["available"] == {"start": "2026-11-20T10:00:00Z/PT0S", "duration": "PT4H"}

    asyncio.run(story())


@pytest.mark.parametrize(
    ("size", "found"),
    [
        ("{min: 2, units: TiB}", {"min": 2048, "max": 4096}),
        ("{min: 1, max: 1, units: TB}", {"min": 932, "max": 932}),
        ("{min: 1, max: 4096, units: MiB}", {"min": 1, "max": 2}),
    ],
)
def test_units_are_turned_into_gib(size: str, found: dict[str, int], tmp_path: Path) -> None:
    async def story() -> None:
        async with Site(tmp_path, platforms=[platform(nodes=[{"cores": 4, "memory": 8, "storage": 10_000}])]) as site:
            answer = await ask(site, NOTEBOOK + f"storage: [{{kind: simple-storage-resource, size: {size}}}]\n")
            assert answer["offers"][0]["storage"][0]["size"] == found

    asyncio.run(story())


def test_units_that_nobody_knows_are_a_reason_for_no(site: Site) -> None:
    async def story() -> None:
        async with site:
            answer = await ask(site, NOTEBOOK + "storage: [{kind: simple-storage-resource, size: {min: 10, units: parsecs}}]\n")
            assert answer["result"] == "NO"
            assert [item["values"]["path"] for item in answer["meta"]["messages"]] == ["storage[0].size.units"]

    asyncio.run(story())
