"""The documents of the wire, compared with those kept in `tests/golden/wire`; EXECBROKER_WRITE_GOLDEN=1 writes them anew."""

import asyncio
import os
import re
from pathlib import Path

import pytest

from brokersite import NOTEBOOK, ManualClock, Site, platform, uuid_of

GOLDEN = Path(__file__).parent.parent / "golden" / "wire"
MEDIA = {"json": "application/json", "yaml": "application/yaml"}
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
