"""Sessions of different users on one machine: neither finds a trace of the other, and nothing is left of how that is done."""

import asyncio
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from sites import Site, ended, released, status, until, whole

from execbroker.errors import StartupError
from execbroker.model.waist import Job, Port, Status
from execbroker.platforms.base import Platform
from execbroker.platforms.network import own_addresses
from execbroker.platforms.supervisor.processes import marked
from execbroker.platforms.supervisor.resources import is_taken
from lacking import lack, need

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


@pytest.mark.parametrize(
    ("mode", "reached"),
    [
        ("own", ["by name", "public", "allowed", "own, allowed"]),
        ("none", []),
        ("shared", ["by name", "public", "private", "allowed", "metadata", "own", "own, allowed", "loopback"]),
    ],
)
def test_what_a_session_reaches(tmp_path: Path, mode: str, reached: list[str]) -> None:
    """In a world of two machines that the test makes; the last case shows that all of it is there."""
    need("bubblewrap", "slirp4netns", "nftables", "iproute2")
    if os.geteuid():
        lack("a network cannot be made: run as root")
    command = ["unshare", "--net", "--mount", sys.executable, str(HERE / "world.py"), str(tmp_path), mode]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == reached


def network_of(job: Job) -> int:
    """The number of the network namespace of its program."""
    ours = Path("/proc/self/ns/net").stat().st_ino
    return next(found for pid in marked(str(job.uuid)) if (found := namespace(pid)) not in {ours, None})


def namespace(pid: int) -> int | None:
    with suppress(OSError):
        return Path(f"/proc/{pid}/ns/net").stat().st_ino
    return None


def left_of(job: Job, network: int, port: int) -> list[str]:
    """What there still is of its network: processes with its mark or in its network, the port that led into it."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    within = [pid for pid in pids if namespace(pid) == network]
    return [*map(str, (*marked(str(job.uuid)), *within)), *([f"port {port}"] if is_taken(port) else [])]


def killed(job: Job) -> None:
    os.kill(json.loads((job.folder / "run" / "started").read_text())["pid"], signal.SIGKILL)


SERVER = """
import http.server, os, sys
class Server(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        super().do_GET()
        if self.path == "/end":
            os._exit(7)
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Server).serve_forever()
"""


def serving(site: Site, **changes: Any) -> Job:
    job = site.job("python", "-c", SERVER, **changes)
    return replace(job, launch=replace(job.launch, ports=(Port("PORT", path="/end"),)))


async def reachable(platform: Platform, job: Job) -> str:
    """Its address, once it answers."""

    async def look() -> Status:
        return await status(platform, job)

    found = await until(look, lambda seen: any(each.status == "AVAILABLE" for each in seen.connectors))
    assert [each.status for each in found.connectors] == ["AVAILABLE"]
    return found.connectors[0].location


def visit(address: str) -> None:
    with suppress(OSError), urlopen(address, timeout=5):
        pass


@pytest.mark.parametrize("end", ["its own", "time limit", "release", "supervisor killed", "gateway killed"])
def test_nothing_is_left_of_its_network(apart: Site, end: str) -> None:
    """Each time it was started by one broker and is seen to its end by another."""

    async def go() -> None:
        job = serving(apart, seconds=4 if end == "time limit" else 600)
        await apart.platform().start(job)
        platform = apart.platform()
        address = await reachable(platform, job)
        network, port = network_of(job), urlsplit(address).port or 0
        assert len(left_of(job, network, port)) >= 4
        match end:
            case "its own":
                await asyncio.to_thread(visit, address)
                assert (await ended(platform, job)).exit_code == 7
            case "time limit":
                assert (await ended(platform, job)).on_time_limit
            case "supervisor killed":
                killed(job)
                assert "supervisor was lost" in ((await ended(platform, job)).complaint or "")
            case "gateway killed":
                os.kill(gateway_of(job), signal.SIGKILL)
                assert await until(lambda: asyncio.to_thread(lambda: not is_taken(port)), bool)
                assert (await status(platform, job)).state == "running"
        if end not in {"release", "gateway killed"}:
            assert await until(lambda: asyncio.to_thread(left_of, job, network, port), lambda left: not left) == []
        await released(platform, job)
        assert left_of(job, network, port) == []

    asyncio.run(go())


def gateway_of(job: Job) -> int:
    return next(pid for pid in marked(str(job.uuid)) if b"--gateway" in Path(f"/proc/{pid}/cmdline").read_bytes())


LATE = """
import os, socket, time
while not os.path.exists("marks/go"):
    time.sleep(0.01)
listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
while True:
    listener.accept()[0].recv(1000)
"""


def test_a_port_that_says_nothing_is_there_once_somebody_listens(apart: Site) -> None:
    """Whatever its gateway takes meanwhile."""

    async def go() -> None:
        job = apart.job("python", "-c", LATE)
        platform, job = apart.platform(), replace(job, launch=replace(job.launch, ports=(Port("PORT", "TCP"),)))
        await platform.start(job)
        assert await until(lambda: asyncio.to_thread(marked, str(job.uuid)), lambda pids: len(pids) >= 4)
        assert [each.status for each in (await status(platform, job)).connectors] == ["PREPARING"]
        await asyncio.to_thread((job.folder / "storage" / "marks" / "go").touch)
        await reachable(platform, job)
        await released(platform, job)

    asyncio.run(go())


def test_without_a_gateway_it_does_not_start(apart: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where what leads out is there when the broker looks, and then no more."""
    program = tmp_path / "bin" / "slirp4netns"
    program.parent.mkdir()
    program.symlink_to(str(shutil.which("slirp4netns")))
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    async def go() -> None:
        platform, job = apart.platform(), apart.brief()
        await platform.capacity()
        program.unlink()
        await platform.start(job)
        end = await ended(platform, job)
        assert end.exit_code is None
        assert re.match("it could not be started: its network: .*slirp4netns", end.complaint or "")
        assert apart.runs(job) == 0
        await released(platform, job)

    asyncio.run(go())


def test_a_gateway_that_does_not_start_is_tried_again(apart: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What leads out fails twice, once the broker has found it, and then works."""
    program, failures = tmp_path / "bin" / "slirp4netns", tmp_path / "failures"
    program.parent.mkdir()
    program.symlink_to(real := str(shutil.which("slirp4netns")))
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    async def go() -> None:
        platform, job = apart.platform(), apart.brief()
        await platform.capacity()
        program.unlink()
        program.write_text(
            f'#!/bin/sh\nif [ $(wc -l < {failures}) -lt 2 ]; then echo >> {failures}; exit 1; fi\nexec {real} "$@"\n'
        )
        program.chmod(0o755)
        failures.touch()
        await platform.start(job)
        assert ((await ended(platform, job)).exit_code, apart.runs(job), failures.read_text()) == (3, 1, "\n\n")
        await released(platform, job)

    asyncio.run(go())


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"isolation": "none"}, "with accounts sessions are kept apart; leave out the setting isolation: none"),
        ({"network": "shared"}, "leave out the setting network: shared"),
        ({}, "kept apart, but slirp4netns .*install .*, or set network: none"),
        ({"network": "none"}, "install bubblewrap"),
    ],
)
def test_several_users_need_isolation(
    apart: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: dict[str, str], why: str
) -> None:
    """On a machine on which nothing is installed."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StartupError, match=why):
        asyncio.run(apart.having(**settings).platform().open())


def test_one_user_alone_may_have_an_own_network_too(boxed: Site) -> None:
    def note(**settings: str) -> str:
        return asyncio.run(boxed.having(**settings).platform().capacity()).notes[4]

    need("slirp4netns", "nftables")
    assert note() == "Network: this machine's; sessions reach what listens on it, and one another."
    assert note(network="own").startswith("Network: each session has its own and reaches what is public")
    assert note(network="none").startswith("Network: each session has its own and reaches nothing")
    with pytest.raises(StartupError, match="network: own needs bubblewrap"):
        note(isolation="none", network="own")
