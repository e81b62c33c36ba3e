"""The documents of the wire, compared with those kept in `tests/golden/wire`; EXECBROKER_WRITE_GOLDEN=1 writes them anew."""

import asyncio
import os
import re
from pathlib import Path

import pytest

from brokersite import NOTEBOOK, ManualClock, Site, platform, uuid_of

GOLDEN = Path(__file__).parent.parent / "golden" / "wire"
MEDIA = {"json": "application/json", "yaml": "application/yaml", "xml": "application/xml"}
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

REQUEST = {
    "executable": {**NOTEBOOK, "meta": {"name": "analysis"}, "parameters": {"band": "NO", "n": 3}},
    "compute": {
        "kind": "simple-compute-resource",
        "meta": {"name": "node"},
        "cores": {"min": 1, "max": 8},
        "memory": {"min": 2},
        "volumes": [{"kind": "simple-volume-mount", "path": "my-data", "resource": "image"}],
    },
    "storage": [{"kind": "simple-storage-resource", "meta": {"name": "results"}, "size": {"min": 1}, "lifetime": "PT2H"}],
    "data": [{"kind": "simple-data-resource", "meta": {"name": "image"}, "location": "https://example.org/image.fits"}],
    "schedule": {"requested": {"duration": "PT30M"}},
    "colour": "blue",
}
NODES = [{"count": 3, "cores": 8, "memory": 32, "accelerators": [{"kind": "a100", "count": 2, "memory": 40}]}]
PRICES = {
    "zone": "Europe/Madrid",
    "money": {
        "core_hour": 0.05,
        "gb_day": 0.01,
        "tariffs": [{"name": "night", "from": "20:00", "until": "06:00", "factor": 0.5}],
    },
    "carbon": {"node_hour": 0.1},
}
EXTENDED = {
    "executable": {**NOTEBOOK, "meta": {"name": "training"}},
    "compute": [
        {"kind": "simple-compute-resource", "meta": {"name": "head"}, "cores": {"min": 1}, "licences": [{"name": "idl"}]},
        {
            "kind": "simple-compute-resource",
            "meta": {"name": "workers"},
            "cores": {"min": 4},
            "memory": {"min": 8, "max": 8},
            "replicas": 2,
            "accelerators": [{"kind": "gpu", "count": {"min": 1}, "memory": {"min": 20}}],
        },
    ],
    "storage": [{"kind": "simple-storage-resource", "meta": {"name": "models"}, "size": {"min": 10, "max": 10}}],
    "schedule": {"requested": {"duration": "PT2H", "flexible": True}},
    "costs": [{"kind": "simple-minmax-float-cost", "type": "urn:ivoa:calycopis:cost:monetary", "max": 2.5}],
    "objectives": ["earliest", "cheapest"],
    "platforms": ["site"],
}
REFUSED = {
    "executable": {"kind": "docker-container", "privileged": True},
    "compute": {"kind": "simple-compute-resource", "cores": {"min": 64, "max": 32}},
}


def stable(text: str) -> str:
    """Every uuid by the order in which it first occurs."""
    seen: dict[str, str] = {}
    return _UUID.sub(lambda match: seen.setdefault(match[0], f"uuid-{len(seen) + 1}"), text)


def compare(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("EXECBROKER_WRITE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(stable(text) + "\n" * (not text.endswith("\n")), encoding="utf-8")
    assert stable(text).rstrip("\n") == path.read_text(encoding="utf-8").rstrip("\n")


@pytest.mark.parametrize("media", MEDIA)
def test_the_wire(tmp_path: Path, media: str) -> None:
    async def story() -> None:
        fake = platform(preparing="PT1M", lasts="PT10M")
        async with Site(tmp_path, ManualClock(), platforms=[fake], offers={"limit": 2}) as site:
            accept = {"accept": MEDIA[media]}
            compare(f"no.{media}", (await site.client.post("/requests", json=REFUSED, headers=accept)).text)
            answer = await site.ask(**REQUEST)
            shown = await site.client.get(f"/offersets/{uuid_of(answer)}", headers=accept)
            compare(f"yes.{media}", shown.text)
            update = {"kind": "uri:enum-value-update", "path": "phase", "value": "ACCEPTED"}
            session = f"/sessions/{uuid_of(answer['offers'][0])}"
            compare(f"accepted.{media}", (await site.client.post(session, json=update, headers=accept)).text)
            for name, seconds in (("running", 90), ("completed", 600)):
                await site.advance(seconds)
                compare(f"{name}.{media}", (await site.client.get(session, headers=accept)).text)
            compare(f"illegal.{media}", (await site.client.post(session, json=update, headers=accept)).text)
            compare(f"invalid.{media}", (await site.client.post("/requests", json={"data": [{}]}, headers=accept)).text)

    asyncio.run(story())


@pytest.mark.parametrize("media", MEDIA)
def test_the_wire_of_our_extensions(tmp_path: Path, media: str) -> None:
    async def story() -> None:
        pools = {"storage": 100, "licences": {"idl": 1}}
        fake = platform(nodes=NODES, prices=PRICES, pools=pools, preparing="PT1M")
        async with Site(tmp_path, ManualClock(), platforms=[fake], offers={"limit": 2}) as site:
            accept = {"accept": MEDIA[media]}
            worker = {**EXTENDED["compute"][1], "replicas": 4}
            refused = {**EXTENDED, "compute": [EXTENDED["compute"][0], worker], "costs": [{**EXTENDED["costs"][0], "max": 1}]}
            compare(f"extended-no.{media}", (await site.client.post("/requests", json=refused, headers=accept)).text)
            answer = await site.ask(**EXTENDED)
            shown = await site.client.get(f"/offersets/{uuid_of(answer)}", headers=accept)
            compare(f"extended-yes.{media}", shown.text)
            session = f"/sessions/{uuid_of(await site.accept(answer['offers'][0]))}"
            await site.advance(90)
            longer = {"kind": "uri:integer-delta-update", "path": "schedule.available.duration", "delta": 15}
            compare(f"extended-longer.{media}", (await site.client.post(session, json=longer, headers=accept)).text)
            too_long = await site.client.post(session, json={**longer, "delta": 600}, headers=accept)
            compare(f"extended-no-room.{media}", too_long.text)

    asyncio.run(story())
