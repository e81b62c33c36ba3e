"""The drawings of the November 2024 talk: a request for 32 cores and a GPU, then three for 16 cores, on a busy pool.

hours      0       2       4       6
gpu        booked  -       -       -       16 cores and a GPU
gpu        -       -       -       -       16 cores and a GPU
plain      booked  booked  -       -       16 cores
plain      booked  -       -       -       16 cores
"""

import asyncio
from pathlib import Path
from typing import Any

from brokersite import Site, platform, start_of

HOUR = 3600
NODES = [
    {"cores": 32, "memory": 64},
    {"cores": 32, "memory": 64, "accelerators": [{"kind": "a100", "count": 2}]},
]


def wish(site: Site, cores: int, hours: int, gpus: int = 0, start: int | None = None) -> dict[str, Any]:
    exactly = {"min": cores, "max": cores}
    compute: dict[str, Any] = {"kind": "simple-compute-resource", "cores": exactly, "memory": exactly}
    if gpus:
        compute["accelerators"] = [{"kind": "gpu", "count": {"min": gpus, "max": gpus}}]
    schedule: dict[str, Any] = {"duration": f"PT{hours}H"}
    if start is not None:
        schedule["start"] = f"{site.clock.at(start * HOUR)}/PT0S"
    return {"compute": compute, "schedule": {"requested": schedule}}


async def book(site: Site) -> None:
    """What the pool of the drawing has taken on before."""
    await site.take(**wish(site, 16, 2, gpus=1, start=0))
    await site.take(**wish(site, 32, 2, start=0))
    await site.take(**wish(site, 16, 2, start=2))


def hours(site: Site, offers: list[dict[str, Any]]) -> list[float]:
    return [(start_of(offer) - site.clock.seconds) / HOUR for offer in offers]


def test_each_is_next_to_what_is_booked_then_after_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with Site(tmp_path, platforms=[platform(nodes=NODES)]) as site:
            await book(site)
            large = await site.offers(**wish(site, 32, 4, gpus=1))
            assert hours(site, large) == [2, 6, 10, 14], "as soon as the node with GPUs is free"
            assert large[0]["compute"]["accelerators"] == [{"kind": "a100", "count": {"min": 1, "max": 1}}]
            await site.accept(large[0])
            # beside the 16 cores on the node with GPUs; then beside those on the other; then after all
            for expected in ([0, 2, 4, 6], [2, 4, 6, 8], [4, 6, 8, 10]):
                small = await site.offers(**wish(site, 16, 2))
                assert hours(site, small) == expected
                await site.accept(small[0])

    asyncio.run(story())


def test_offers_that_are_not_accepted_are_in_the_way_as_long_as_they_are_open(tmp_path: Path) -> None:
    async def story() -> None:
        async with Site(tmp_path, platforms=[platform(nodes=NODES)]) as site:
            await book(site)
            assert hours(site, await site.offers(**wish(site, 32, 4, gpus=1))) == [2, 6, 10, 14]
            # The other node has room for one from 2 on, and for two from 4 on.
            first = await site.offers(**wish(site, 16, 2))
            assert hours(site, first) == [0, 2, 4, 6]
            assert hours(site, await site.offers(**wish(site, 16, 2))) == [4, 6, 8, 10]
            site.clock.advance(301)
            assert hours(site, await site.offers(**wish(site, 16, 4))) == [0, 4, 8, 12]

    asyncio.run(story())


def test_cores_and_gpus_have_to_be_free_on_one_node_together(tmp_path: Path) -> None:
    async def story() -> None:
        async with Site(tmp_path, platforms=[platform(nodes=NODES)]) as site:
            await site.take(**wish(site, 1, 3, gpus=2, start=0))
            await site.take(**wish(site, 16, 2, gpus=1, start=3))
            assert hours(site, await site.offers(**wish(site, 32, 4)))[0] == 0
            assert hours(site, await site.offers(**wish(site, 32, 4, gpus=1)))[0] == 5

    asyncio.run(story())
