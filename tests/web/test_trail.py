"""The audit log: who did what."""

import asyncio
import json
import os
import threading
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from brokersite import NOTEBOOK, Site, uuid_of
from execbroker.config import Config, load
from execbroker.errors import StartupError
from execbroker.web.trail import Trail, trail_of


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def said(site: Site, *names: str) -> list[tuple[Any, ...]]:
    return [tuple(line.get(name) for name in names) for line in lines(site.folder / "audit.jsonl")]


def test_what_changes_something_is_there_and_what_reads_is_not(site: Site) -> None:
    async def work() -> None:
        async with site:
            answer = await site.ask()
            first, second = (uuid_of(offer) for offer in answer["offers"][:2])
            await site.update(second, "REJECTED")
            await site.accept(first)
            longer = {"kind": "uri:integer-delta-update", "path": "schedule.available.duration", "delta": 1}
            await site.client.post(f"/sessions/{first}", json=longer)
            await site.update(first, "cancelled")
            await site.update(first, "ACCEPTED")
            await site.client.post("/requests", content=b"{", headers={"content-type": "application/json"})
            await site.client.get(f"/sessions/{first}")
            await site.client.get("/nothing")
            headers = {"x-request-id": "mine", "idempotency-key": "k"}
            direct = [await site.client.post("/direct", json={"executable": NOTEBOOK}, headers=headers) for _ in range(2)]
        found = said(site, "method", "route", "action", "uuid", "status", "owner", "address")
        me, updates = ("owner", "127.0.0.1"), ("POST", "/sessions/{uuid}")
        session = direct[0].json()["meta"]["uuid"]
        assert found == [
            ("POST", "/requests", "ask", answer["meta"]["uuid"], 200, *me),
            (*updates, "reject", second, 200, *me),
            (*updates, "accept", first, 200, *me),
            (*updates, "extend", first, 200, *me),
            (*updates, "cancel", first, 200, *me),
            (*updates, "accept", first, 409, *me),
            ("POST", "/requests", None, None, 400, *me),
            ("POST", "/direct", "direct", session, 200, *me),
            ("POST", "/direct", "replay", session, 200, *me),
        ]
        assert said(site, "request")[-1] == ("mine",)
        assert all(UUID(request) for (request,) in said(site, "request")[:-2])
        assert (site.folder / "audit.jsonl").stat().st_mode & 0o777 == 0o600

    asyncio.run(work())


def test_logins_that_failed_are_there_without_what_was_tried(tmp_path: Path) -> None:
    site = Site(tmp_path, auth={"mode": "token"})

    async def work() -> None:
        async with site:
            for credentials in ("Bearer hunter2", "Basic YWRhOmh1bnRlcjI="):
                assert (await site.client.get("/sessions", headers={"authorization": credentials})).status_code == 401
            assert (await site.client.get("/sessions")).status_code == 401
        assert said(site, "method", "status", "login", "owner") == [("GET", 401, "bearer", None), ("GET", 401, "ada", None)]
        assert "hunter2" not in (site.folder / "audit.jsonl").read_text()
        assert "aHVudGVyMi" not in (site.folder / "audit.jsonl").read_text()

    asyncio.run(work())


def test_it_can_be_elsewhere_or_off(tmp_path: Path) -> None:
    async def work() -> None:
        async with Site(tmp_path, audit={"log": tmp_path / "who.jsonl"}) as site:
            await site.ask()
            await site.restart(audit={"log": False})
            await site.ask()
        assert len(lines(tmp_path / "who.jsonl")) == 1
        assert not (site.folder / "audit.jsonl").exists()

    asyncio.run(work())


def test_off_in_yaml_is_off(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("audit: {log: off}")
    assert load(tmp_path / "config.yaml").audit.log == "off"


def test_a_log_that_cannot_be_written_is_told_at_start(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"audit\.log: .*none/log cannot be written: No such file"):
        trail_of(Config(audit={"log": tmp_path / "none" / "log"}).audit, tmp_path)


def test_so_many_files_of_so_much_are_kept(tmp_path: Path) -> None:
    trail = Trail(tmp_path / "log", 4096, 3)
    for number in range(1000):
        trail.add({"number": number})
    trail.close()
    files = [tmp_path / name for name in ("log.2", "log.1", "log")]
    assert {path.name for path in tmp_path.iterdir()} == {*(path.name for path in files), "log.lock"}
    assert all(path.stat().st_size <= 4096 for path in files)
    kept = [line["number"] for path in files for line in lines(path)]
    assert kept == list(range(kept[0], 1000))
    assert kept[0] > 0


def test_several_brokers_write_to_the_same_without_losing_a_line(tmp_path: Path) -> None:
    trails = [Trail(tmp_path / "log", 4096, 1000) for _ in range(4)]

    def write(who: int) -> None:
        for number in range(300):
            trails[who].add({"who": who, "number": number})

    threads = [threading.Thread(target=write, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for trail in trails:
        trail.close()
    found = [(line["who"], line["number"]) for path in tmp_path.glob("log*") if path.suffix != ".lock" for line in lines(path)]
    assert sorted(found) == [(who, number) for who in range(4) for number in range(300)]


def test_who_moves_it_away_gets_a_new_one(tmp_path: Path) -> None:
    trail = Trail(tmp_path / "log", 1 << 20, 3)
    trail.add({"number": 1})
    while not (tmp_path / "log").stat().st_size:
        os.sched_yield()
    (tmp_path / "log").rename(tmp_path / "mine")
    trail.add({"number": 2})
    trail.close()
    assert [line["number"] for name in ("mine", "log") for line in lines(tmp_path / name)] == [1, 2]
