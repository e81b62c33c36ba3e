"""Every request of the talks, posted the day before as it stands: read the offers, accept one at its `href`, see it run."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from brokersite import ManualClock, Site, platform

TALKS = sorted((Path(__file__).parents[1] / "golden" / "talks").glob("*.yaml"))
DAY_BEFORE = {"2021-": "2021-02-01T09:00:00Z", "2024-": "2024-08-28T12:00:00Z", "2025-": "2025-11-13T09:00:00Z"}
REFUSED = {"vospace": "unknown-kind"}
"""The talks' storage in VOSpace is a kind that nothing here can give: NO, with that reason."""


class AsWritten(yaml.SafeLoader):
    """YAML whose dates stay strings, to make the same document in JSON."""


AsWritten.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def body_of(talk: Path, form: str) -> bytes:
    return talk.read_bytes() if form == "yaml" else json.dumps(yaml.load(talk.read_text(), AsWritten)).encode()


def read(answer: httpx.Response, form: str) -> Any:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == f"application/{form}"
    return yaml.load(answer.text, AsWritten) if form == "yaml" else answer.json()


@pytest.mark.parametrize("form", ["yaml", "json"])
@pytest.mark.parametrize("talk", TALKS, ids=lambda talk: talk.stem)
def test_an_example_of_the_talks_is_offered_and_runs(talk: Path, form: str, tmp_path: Path) -> None:
    async def story() -> None:
        clock = ManualClock(next(day for year, day in DAY_BEFORE.items() if talk.name.startswith(year)))
        nodes = [{"count": 4, "cores": 16, "memory": 64, "storage": 100_000}]
        async with Site(tmp_path, clock, platforms=[platform(nodes=nodes)]) as site:
            headers = {"content-type": f"application/{form}", "accept": f"application/{form}"}
            found = read(await site.client.post("/offerset", content=body_of(talk, form), headers=headers), form)
            if reason := next((reason for word, reason in REFUSED.items() if word in talk.name), None):
                assert found["result"] == "NO"
                assert reason in [item["type"].rpartition(":")[2] for item in found["messages"]]
                return
            assert found["result"] == "YES", found
            assert read(await site.client.get(found["href"], headers=headers), form)["offers"] == found["offers"]
            offer = found["offers"][0]
            assert offer["state"] == "OFFERED"
            assert offer["href"].endswith(f"/execution/{offer['uuid']}")
            answer = await site.client.post(offer["href"], content=b'{"state": "ACCEPTED"}', headers=headers)
            assert read(answer, form)["state"] == "ACCEPTED"
            states = [one["state"] for one in read(await site.client.get(found["href"], headers=headers), form)["offers"]]
            has_to_wait = offer["schedule"]["preparing"]["start"] > clock.at(0)
            assert states == ["WAITING" if has_to_wait else "ACCEPTED"] + ["REJECTED"] * (len(found["offers"]) - 1)
            await site.advance(2 * 86400)
            assert read(await site.client.get(offer["href"], headers=headers), form)["state"] == "COMPLETED"

    asyncio.run(story())


def test_a_start_range_that_is_past_is_no_with_that_reason(tmp_path: Path) -> None:
    async def story() -> None:
        async with Site(tmp_path, ManualClock("2026-11-21T09:00:00Z")) as site:
            talk = next(talk for talk in TALKS if talk.stem == "2024-08-notes-schedule")
            answer = await site.client.post("/offerset", content=talk.read_bytes(), headers={"content-type": "application/yaml"})
            assert answer.json()["result"] == "NO"
            assert answer.json()["messages"][0]["type"] == "urn:execbroker:message:start-is-past"

    asyncio.run(story())
