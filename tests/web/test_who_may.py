"""The whole route table, walked as nobody, the owner, another and the admin, beside the one that is documented."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from brokersite import NOTEBOOK, Site, platform, uuid_of
from people import ADMIN, ALICE, AUTH, BOB, enrol

PAGE = (Path(__file__).parents[2] / "docs" / "access.md").read_text()
CALLERS = {"nobody": None, "the owner": ALICE, "another": BOB, "the admin": ADMIN}
ROOMY = platform(nodes=[{"count": 50, "cores": 4, "memory": 8, "storage": 100}])
MARKS = ["s3cr3t", "my-very-own", "secret.example.org"]
ASK = {
    "executable": {"kind": "jupyter-notebook", "mode": "batch", "location": "https://secret.example.org/my-very-own.ipynb"}
    | {"environment": {"KEY": "s3cr3t"}, "parameters": {"key": "s3cr3t"}, "meta": {"name": "my-very-own"}},
    "data": [
        {"kind": "simple-data-resource", "meta": {"name": "my-very-own-data"}, "location": "https://secret.example.org/s3cr3t"}
    ],
}
UPDATES: dict[str, dict[str, Any]] = {
    choice: {"kind": "uri:enum-value-update", "path": "phase", "value": f"{choice.upper()}ED"} for choice in ("accept", "reject")
}
UPDATES["cancel"] = UPDATES["accept"] | {"value": "CANCELLED"}
UPDATES["extend"] = {"kind": "uri:integer-delta-update", "path": "schedule.available.duration", "delta": 1}
BODIES = {"/requests": {"executable": NOTEBOOK}, "/direct": {"executable": NOTEBOOK}, "/offerset": {"executable": NOTEBOOK}}
BODIES |= {"/request": {"request": {"executable": NOTEBOOK}}, "/offersets": {"executable": NOTEBOOK}}


def table(number: int) -> dict[tuple[str, str, str], list[str]]:
    """One of the tables: what each caller gets, by method, path and what is done."""
    text = PAGE.split("| route |")[number + 1]
    rows = re.findall(r"^\| `(\w+) (\S+)`(?:: (\w+))? \|(.*)\|$", text, re.MULTILINE)
    return {(method, path, what): [cell.strip() for cell in cells.split("|")] for method, path, what, cells in rows}


WALK = {False: table(0), True: table(0) | table(1)}


def test_every_route_is_in_the_table(tmp_path: Path) -> None:
    async def work() -> set[tuple[str, str]]:
        async with Site(tmp_path) as site:
            return set(_routes(site))

    assert {(method, path) for method, path, _ in WALK[False]} == asyncio.run(work())
    assert table(1).keys() <= table(0).keys()


def _routes(site: Site) -> Iterator[tuple[str, str]]:
    for route in site.app.routes:
        for one in getattr(getattr(route, "original_router", None), "routes", [route]):
            assert isinstance(one, APIRoute), one
            yield from ((method, one.path.replace(":anything", "")) for method in one.methods - {"HEAD"})


@pytest.mark.parametrize("public", [False, True])
@pytest.mark.parametrize("caller", CALLERS)
def test_who_may_do_what(tmp_path: Path, caller: str, public: bool) -> None:
    async def work() -> None:
        async with Site(tmp_path, auth=AUTH | {"public": public}, platforms=[ROOMY]) as site:
            await enrol(site)
            await enrol(site, BOB)
            site.ledger.changes.close()  # so that streams end at once
            wrong = {}
            for step, cells in WALK[public].items():
                expected = dict(zip(CALLERS, cells, strict=True))[caller]
                answer = await _walk(site, step, CALLERS[caller])
                if (found := _outcome(answer, step, caller)) != expected:
                    wrong[step] = (found, expected)
                if caller == "the owner" and step == ("GET", "/sessions/{uuid}", ""):
                    assert [mark for mark in MARKS if mark not in answer.text] == []
                if caller != "the owner":
                    assert not [mark for mark in MARKS if mark in answer.text], (step, answer.text)
            assert wrong == {}

    asyncio.run(work())


def _outcome(answer: httpx.Response, step: tuple[str, str, str], caller: str) -> str:
    of_one = "{uuid}" in step[1] and "admin" not in step[1]
    shown = answer.status_code == 200 and of_one and caller != "the owner"
    return "face" if shown else str(answer.status_code)


async def _walk(site: Site, step: tuple[str, str, str], who: tuple[str, str] | None) -> httpx.Response:
    """Take one step, on something of the owner's that was made for it."""
    method, path, what = step
    offerset, session = await _something(site, running=what in ("", "cancel", "extend") and "offerset" not in path)
    identity = (await site.client.get("/admin/identities", auth=ADMIN)).json()["identities"][0]["uuid"]
    uuid = identity if "admin" in path else offerset if "offerset" in path else session
    if path.endswith("events"):
        site.ledger.changes.close()  # streams end as they do where the broker stops
    if "components" in path:
        uuid = uuid[:-4] + "0001"  # its executable
    body = UPDATES.get(what) or BODIES.get(path) or ({} if "{uuid}" in path else {"username": "carol", "password": "long enough"})
    if path.startswith("/offers/") and what:
        body = {"offer": {"status": UPDATES[what]["value"]}}
    path = path.replace("{uuid}", uuid).replace("{stream}", "stdout").replace("{path}", "")
    return await site.client.request(method, path, auth=who, json=body if method == "POST" else None)


async def _something(site: Site, *, running: bool) -> tuple[str, str]:
    """An offerset of the owner's, and its first offer, which perhaps runs."""
    answer = await site.client.post("/requests", json=ASK, auth=ALICE)
    assert answer.json()["result"] == "YES", answer.text
    offer = answer.json()["offers"][0]
    if running:
        taken = await site.client.post(f"/sessions/{uuid_of(offer)}", json=UPDATES["accept"], auth=ALICE)
        assert taken.status_code == 200, taken.text
        await site.settle()
    return str(answer.json()["meta"]["uuid"]), uuid_of(offer)


@pytest.mark.parametrize(("who", "by"), [(ALICE, "its owner"), (ADMIN, "an admin")])
def test_it_is_told_by_whom_a_session_was_cancelled(tmp_path: Path, who: tuple[str, str], by: str) -> None:
    async def work() -> None:
        async with Site(tmp_path, auth=AUTH, platforms=[ROOMY]) as site:
            await enrol(site)
            _, session = await _something(site, running=True)
            assert (await site.client.post(f"/sessions/{session}", json=UPDATES["cancel"], auth=who)).status_code == 200
            messages = (await site.client.get(f"/sessions/{session}", auth=ALICE)).json()["meta"]["messages"]
            assert [one["message"] for one in messages if one["kind"].endswith(":cancelled")] == [f"Cancelled by {by}"]

    asyncio.run(work())
