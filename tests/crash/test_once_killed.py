"""Brokers killed while they answer a request with an `Idempotency-Key`: the client sends it again, and it is done once."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
from test_crash import Broker, nursery, until

from brokersite import NOTEBOOK, asked

DOCUMENT = {"executable": NOTEBOOK, **asked(duration="PT1M", start="2100-01-01T00:00:00Z/PT1H")}
LONGER = {"kind": "uri:integer-delta-update", "path": "schedule.available.duration", "delta": 1}
POINTS = {"once.writing": False, "once.done": True, "once.settled": True}
"""Where it dies, and whether what was asked is done by then."""


async def post(broker: Broker, path: str, document: Any) -> httpx.Response:
    return await broker.client.post(path, json=document, headers={"Idempotency-Key": "k"})


async def killed(broker: Broker, point: str, path: str, document: Any) -> httpx.Response:
    """The reply to the request that is sent again, after a broker has died in answering it."""
    await broker.start(die_at=point)
    with pytest.raises(httpx.TransportError):
        await post(broker, path, document)
    await until(broker.dead)
    await broker.client.aclose()
    await broker.start()
    answer = await post(broker, path, document)
    assert answer.status_code == 200, answer.text
    assert answer.headers.get("idempotency-replayed") == ("true" if POINTS[point] else None)
    again = await post(broker, path, document)
    assert again.json()["meta"]["uuid"] == answer.json()["meta"]["uuid"]
    return answer


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("path", ["/requests", "/direct"])
def test_asked_once_it_is_held_once(tmp_path: Path, path: str, point: str) -> None:
    async def work() -> None:
        async with nursery(tmp_path) as make:
            broker = make("broker")
            answer = await killed(broker, point, path, DOCUMENT)
            [(uuid,)] = await broker._rows("SELECT uuid FROM offersets")
            sessions = {uuid for (uuid,) in await broker._rows("SELECT uuid FROM sessions")}
            assert answer.json()["meta"]["uuid"] == uuid if path == "/requests" else {answer.json()["meta"]["uuid"]} == sessions
            await broker.end(signal.SIGTERM)

    asyncio.run(work())


@pytest.mark.parametrize("point", POINTS)
def test_a_session_is_made_longer_once(tmp_path: Path, point: str) -> None:
    async def work() -> None:
        async with nursery(tmp_path) as make:
            broker = make("broker")
            await broker.start()
            session = (await broker.client.post("/direct", json=DOCUMENT)).json()["meta"]["uuid"]
            await broker.end(signal.SIGTERM)
            answer = await killed(broker, point, f"/sessions/{session}", LONGER)
            assert answer.json()["schedule"]["available"]["duration"] == "PT2M"
            shown = (await broker.client.get(f"/sessions/{session}")).json()
            assert shown["schedule"]["available"]["duration"] == "PT2M"
            await broker.end(signal.SIGTERM)

    asyncio.run(work())
