"""Sessions of different users on one machine: neither finds a trace of the other, and nothing is left of how that is done."""

import asyncio
import json
import os
import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sites import Site, ended, released, status, until, whole

from execbroker.model.waist import Job, Port
from execbroker.platforms.network import own_addresses
from execbroker.platforms.supervisor.processes import marked

HERE = Path(__file__).parent
MARKER, SPY = (HERE / "marker.py").read_text(), (HERE / "spy.py").read_text()


def marking(site: Site, mark: str) -> Job:
    job = site.job("python", "-c", MARKER, mark)
    return replace(job, launch=replace(job.launch, ports=(Port("PORT"),), environment={"MARK": mark}))


async def spied(site: Site, roots: list[str]) -> tuple[list[str], bool]:
    """By which ways a session finds another one that runs, and whether that one could use a key ring."""
    mark = secrets.token_hex(8)
    (site.root / "broker").mkdir(exist_ok=True)
    (site.root / "broker" / "token").write_text(mark)
    platform, job = site.platform(), marking(site, mark)
    await platform.start(job)
    told = job.folder / "storage" / "marks" / "told"
    assert await until(lambda: asyncio.to_thread(told.exists), bool), await whole(platform, job, "stderr")
    places = {"home": str(job.folder / "home"), "roots": roots, "but": [str(site.root / "sessions" / "spy")]}
    where = json.loads(told.read_text()) | places | {"mark": mark, "uuid": str(job.uuid)}
    where["paths"] = [str(site.root / "broker" / "token"), f"{where['home']}/secret-{mark}"]
    where["pids"] = sorted(marked(str(job.uuid)))
    where["addresses"] = ["198.18.0.2", "198.18.0.3", "198.18.0.100", *own_addresses()]
    spy = replace(site.job("python", "-c", SPY, json.dumps(where)[::-1]), folder=site.root / "sessions" / "spy")
    await platform.start(spy)
    end = await ended(platform, spy, 60)
    assert end.exit_code == 0, await whole(platform, spy, "stderr")
    found = json.loads(await whole(platform, spy))
    await released(platform, spy)
    assert (await status(platform, job)).state == "running"
    await released(platform, job)
    return found, where["ring"]


def test_a_session_finds_no_trace_of_another_users(apart: Site) -> None:
    assert asyncio.run(spied(apart, ["/"])) == ([], False)


def test_without_isolation_it_would_find_them_all(unboxed: Site) -> None:
    found, ring = asyncio.run(spied(unboxed, [str(unboxed.root)]))
    ways = ["file", "environment", "command line", "supervisor", "signal", "socket file", "abstract socket", "TCP", "UDP"]
    ways += ["list of local sockets", "list of TCP sockets", "shared memory", "System V", *(["key ring"] if ring else [])]
    assert [way for way in found if way != "memory map"] == ways
