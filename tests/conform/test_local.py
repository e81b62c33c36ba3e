"""What `local` alone promises: limits, isolation, and sessions that need no broker."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from sites import LocalSite, Site, ended, released, status, until, whole

from execbroker.errors import PlatformFailure, StartupError
from execbroker.model.times import Clock
from execbroker.model.waist import Job, Launch, Mount, Port, Status
from execbroker.platforms.base import Platform
from execbroker.platforms.sandbox import find_bubblewrap
from execbroker.platforms.supervisor.processes import identity, marked
from lacking import lack

SPIN = """
import os, time
began, children = time.monotonic(), []
for _ in range(3):
    if not (child := os.fork()):
        while time.monotonic() < began + 1.5:
            pass
        os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
used = os.times()
print((used.children_user + used.children_system) / (time.monotonic() - began))
"""
HOG = (
    "import mmap, sys; size = int(sys.argv[1]); room = mmap.mmap(-1, size << 20); [room.write(b'x' * 2**20) for _ in range(size)]"
)


async def run(site: Site, *command: str, **changes: Any) -> tuple[Status, str, str]:
    """Run a command to its end: how it ended, and what it said on both streams."""
    platform, job = site.platform(), site.job(*command, **changes)
    await platform.start(job)
    end = await ended(platform, job)
    said = [(await whole(platform, job, stream)).decode() for stream in ("stdout", "stderr")]
    await released(platform, job)
    return end, said[0], said[1]


def shell(site: Site, script: str, **changes: Any) -> tuple[Status, str, str]:
    return asyncio.run(run(site, "sh", "-c", script, **changes))


def limited(site: Site, resource: str) -> None:
    notes = asyncio.run(site.platform().capacity()).notes
    if not any(note.startswith(resource) and "control groups" in note and "no control" not in note for note in notes):
        lack(f"{resource}: no control group can be written to: run as root, or with systemd-run --user -p Delegate=yes")


def test_one_core_is_one_core(local: Site) -> None:
    limited(local, "Cores")
    end, said, _ = asyncio.run(run(local, "python", "-c", SPIN))
    assert end.exit_code == 0
    assert 0.1 < float(said) < 1.2


def test_one_gibibyte_is_one_gibibyte(local: Site) -> None:
    limited(local, "Memory")
    end, _, _ = asyncio.run(run(local, "python", "-c", HOG, "2048"))
    assert end.exit_code == 137
    assert "memory" in (end.complaint or "")
    assert "1 GiB" in (end.complaint or "")


def test_within_its_memory_the_same_program_ends_well(local: Site) -> None:
    end, _, error = asyncio.run(run(local, "python", "-c", HOG, "700"))
    assert (end.exit_code, end.complaint, error) == (0, None, "")


def test_nothing_stays_of_its_control_groups(local: Site) -> None:
    platform, job = local.platform(), local.endless()

    async def go() -> None:
        await platform.start(job)
        assert await until(lambda: asyncio.to_thread(marked, str(job.uuid)), bool)
        await released(platform, job)

    asyncio.run(go())
    assert not marked(str(job.uuid))
    assert not list(Path("/sys/fs/cgroup").glob(f"**/{job.uuid}"))


def test_it_sees_neither_the_broker_nor_other_sessions(boxed: Site) -> None:
    (boxed.root / "broker").mkdir(exist_ok=True)
    token = boxed.root / "broker" / "token"
    token.write_text("the broker's token")
    other = boxed.job("sh", "-c", "echo private > own; sleep 1000")

    async def go() -> tuple[Status, str, str]:
        platform = boxed.platform()
        await platform.start(other)
        private = other.folder / "home" / "own"
        await until(lambda: asyncio.to_thread(private.exists), bool)
        pid = next(iter(marked(str(other.uuid))))
        look = f"cat {token}; cat {private}; ls {boxed.root}/broker; ls {other.folder}; kill -0 {pid}; cat /proc/{pid}/environ"
        found = await run(boxed, "sh", "-c", f"{look}; ls {boxed.root}/sessions; cat /etc/shadow; cat /proc/[0-9]*/comm")
        await released(platform, other)
        return found

    _, said, errors = asyncio.run(go())
    assert "token" not in said
    assert "private" not in said
    assert set(said.split()) <= {"bwrap", "sh", "cat", "platform"}  # the last leads to its Python environment, and nowhere else
    assert len([line for line in errors.splitlines() if line]) == 7


def test_what_is_hidden_is_so_below_the_system_too(boxed: Site, tmp_path: Path) -> None:
    """As where a broker is installed, data and all, below /usr or below the Python that it runs on."""
    secret = Path("/usr/share/zoneinfo")
    sandbox, why = find_bubblewrap(tmp_path / "trial", (secret,))
    assert sandbox, why
    words = sandbox.session(tmp_path / "trial" / "run", tmp_path, tmp_path, ())
    assert subprocess.check_output([*words, "--", "ls", "-A", str(secret)]) == b""
    assert subprocess.check_output([*words, "--", "ls", "/usr/share"])


def test_it_is_nobody_special(boxed: Site) -> None:
    """Even where the broker is root: what root owns in /proc/sys root may write, without any capability."""
    script = "id -u; grep CapEff /proc/self/status; cd /proc/sys/vm; cat swappiness > swappiness; touch /usr/x /etc/x /x"
    _, said, errors = shell(boxed, script)
    assert said.split() == ["1000", "CapEff:", "0000000000000000"]
    assert errors.count("Read-only file system") == 4


def test_mounts_are_where_they_were_asked_for(boxed: Site) -> None:
    mounts = (
        Mount("deep/er/rw", "storage/rw", readonly=False),
        Mount("ro", "storage/ro", readonly=True),
        Mount("/my-data", "storage/rw", readonly=False),
        Mount("/deep/er/ro", "storage/ro", readonly=True),
        Mount("/home/session/inside", "storage/rw", readonly=False),
    )
    script = (
        "echo 1 > deep/er/rw/a; echo 2 > /my-data/b; cat inside/a inside/b; echo 3 > ro/c; echo 4 > /deep/er/ro/d; echo 5 > e"
    )
    job = boxed.job(mounts=mounts)
    end, said, errors = shell(boxed, script, mounts=mounts, uuid=job.uuid)
    assert said == "1\n2\n"
    assert errors.count("Read-only file system") == 2
    assert end.exit_code == 0
    assert {path.name for path in (job.folder / "storage" / "rw").iterdir()} == {"a", "b"}
    assert not list((job.folder / "storage" / "ro").iterdir())
    assert {path.name for path in (job.folder / "home").iterdir()} == {"e", "deep"}


def test_without_bubblewrap_mounts_are_links(unboxed: Site) -> None:
    mounts = (Mount("deep/er/rw", "storage/rw", readonly=False),)
    job = unboxed.job(mounts=mounts)
    _, said, _ = shell(unboxed, "echo 1 > deep/er/rw/a; pwd; echo $HOME", mounts=mounts, uuid=job.uuid)
    assert said == f"{job.folder}/home\n" * 2
    assert (job.folder / "storage" / "rw" / "a").read_text() == "1\n"
    assert not list((job.folder / "home" / "deep" / "er").iterdir())


def test_a_mount_never_follows_a_link(unboxed: Site) -> None:
    outside = unboxed.root / "outside"
    outside.mkdir()
    job = unboxed.job("true", mounts=(Mount("way/in", "storage/x", readonly=False),))
    (job.folder / "home").mkdir(parents=True)
    (job.folder / "home" / "way").symlink_to(outside)

    async def go() -> None:
        with pytest.raises(PlatformFailure, match="way/in cannot be mounted"):
            await unboxed.platform().start(job)

    asyncio.run(go())
    assert not list(outside.iterdir())


@pytest.mark.parametrize(
    "path", ["/", "/usr", "/usr/share/x", "/etc/ssl", "/proc/1", "/dev", "//sys", "/lib64", "/a/../bin", "/home", "/tmp"]
)
def test_the_system_cannot_be_covered(boxed: Site, path: str) -> None:
    against = boxed.platform().reasons_against(Launch("process", ("true",)), [Mount(path, "storage/x", readonly=True)])
    assert [each.kind for each in against] == ["urn:execbroker:message:system-mount"]
    assert path in (against[0].message or "")


def test_nor_can_the_python_it_runs_on(boxed: Site) -> None:
    for path in (sys.base_prefix, f"{sys.base_prefix}/lib/x", str(Path(sys.base_prefix).parent)):
        assert boxed.platform().reasons_against(Launch("process", ("true",)), [Mount(path, "storage/x", readonly=True)])


def test_an_absolute_mount_needs_bubblewrap(unboxed: Site) -> None:
    against = unboxed.platform().reasons_against(Launch("process", ("true",)), [Mount("/my-data", "storage/x", readonly=True)])
    assert [each.kind for each in against] == ["urn:execbroker:message:absolute-mount"]
    assert "/my-data" in (against[0].message or "")
    assert (against[0].values or {})["value"] == "my-data"


def test_a_mount_never_leads_out_of_its_storage(site_of_any_isolation: Site) -> None:
    job = site_of_any_isolation.job("cat", "in/hosts", mounts=(Mount("in", "storage/x/y", readonly=False),))
    (job.folder / "storage" / "x").mkdir(parents=True)
    (job.folder / "storage" / "x" / "y").symlink_to("/etc")

    async def go() -> None:
        with pytest.raises(PlatformFailure, match="storage/x/y cannot be mounted"):
            await site_of_any_isolation.platform().start(job)

    asyncio.run(go())


def test_containers_and_impossible_words_are_refused(local: Site) -> None:
    def kinds(launch: Launch, *mounts: Mount) -> list[str]:
        return [(each.kind or "").rpartition(":")[2] for each in local.platform().reasons_against(launch, mounts)]

    assert kinds(Launch("oci", image="debian")) == ["no-containers"]
    assert kinds(Launch("process")) == ["no-command"]
    assert kinds(Launch("process", ("a\0b",), {"A": "\0--bind\0/\0/x", "B=C": ""})) == [
        "bad-variable",
        "bad-variable",
        "bad-command",
    ]
    assert kinds(Launch("process", ("x",), requirements=("--editable x",))) == ["bad-requirement"]
    assert kinds(Launch("process", ("x",)), Mount("a", "storage/a", True), Mount("a/b", "storage/b", True)) == ["nested-mount"]
    assert (
        kinds(Launch("process", ("x",)), Mount("../a", "storage/a", True), Mount("x/..", "storage/b", True)) == ["mount-path"] * 2
    )


def test_its_environment_is_scrubbed(site_of_any_isolation: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXECBROKER_TOKEN", "the broker's token")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    job = site_of_any_isolation.job("env", "-0")
    job = replace(job, launch=replace(job.launch, environment={"MINE": "a\nb", "LANG": "C"}, secret_env="SECRET"))

    async def go() -> str:
        platform = site_of_any_isolation.platform()
        await platform.start(job)
        await ended(platform, job)
        return (await whole(platform, job)).decode()

    found = dict(line.split("=", 1) for line in asyncio.run(go()).rstrip("\0").split("\0"))
    found.pop("PWD", None)
    assert set(found) == {"PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "USER", "MINE", "SECRET", "EXECBROKER_SESSION"}
    assert (found["MINE"], found["LANG"], found["SECRET"]) == ("a\nb", "C", job.secret)
    assert found["EXECBROKER_SESSION"] == str(job.uuid)


@pytest.fixture(params=["local", "unboxed", "apart"])
def site_of_any_isolation(request: pytest.FixtureRequest) -> Site:
    found: Site = request.getfixturevalue(request.param)
    return found


def test_its_python_is_not_the_brokers(site_of_any_isolation: Site) -> None:
    script = "python -c 'import sys; print(sys.prefix)'; python3 -c 'import execbroker'; touch $TMPDIR/x && echo $TMPDIR"
    _, said, errors = shell(site_of_any_isolation, script)
    assert said.splitlines()[0] == sys.base_prefix
    assert "No module named 'execbroker'" in errors
    assert len(said.splitlines()) == 2


def test_output_is_capped(local: Site) -> None:
    site = local.having(output_limit=1000)
    end, said, errors = shell(site, "head -c 5000 /dev/zero | tr '\\0' x; head -c 1000 /dev/zero | tr '\\0' y >&2")
    assert (said, errors) == ("x" * 1000, "y" * 1000)
    assert end.exit_code == 0
    assert end.warnings == ("4000 bytes of stdout were dropped: at most 1000 bytes are kept",)


def test_a_full_disk_ends_nothing(local: Site, small_disk: Path) -> None:
    site = replace(local, root=small_disk)
    end, said, _ = shell(site, "head -c 3000000 /dev/zero | tr '\\0' x; exit 4")
    assert (end.exit_code, end.complaint) == (4, None)
    assert 0 < len(said) < 2**21
    assert end.warnings == (f"{3_000_000 - len(said)} bytes of stdout were dropped: the disk took no more",)


def fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)


def test_a_disk_that_is_full_before_the_start_is_a_clear_failure(local: Site, small_disk: Path) -> None:
    site = replace(local, root=small_disk)

    async def go() -> None:
        platform, job = site.platform(), site.brief()
        await platform.capacity()
        fill(small_disk / "ballast")
        with pytest.raises(PlatformFailure, match="No space left"):
            await platform.start(job)
        assert (await status(platform, job)).state == "unknown"
        (small_disk / "ballast").unlink()
        await platform.start(job)
        assert (await ended(platform, job)).exit_code == 3
        assert site.runs(job) == 1
        await released(platform, job)

    asyncio.run(go())


def test_what_cannot_be_started_is_told_from_what_fails(site_of_any_isolation: Site) -> None:
    end, _, _ = asyncio.run(run(site_of_any_isolation, "no-such-program"))
    assert end.exit_code is None
    assert "could not be started" in (end.complaint or "")
    assert "no-such-program" in (end.complaint or "")
    end, _, _ = shell(site_of_any_isolation, "exit 1")
    assert (end.exit_code, end.complaint) == (1, None)
    end, _, _ = shell(site_of_any_isolation, "kill -SEGV $$")
    assert (end.exit_code, end.complaint) == (139, None)


def test_a_lost_supervisor_is_a_clear_end(site_of_any_isolation: Site) -> None:
    site = site_of_any_isolation
    job = site.job("sh", "-c", "setsid sleep 1000 & echo ran >> marks/runs; sleep 1000")

    async def go() -> None:
        platform = site.platform()
        await platform.start(job)
        await until(lambda: asyncio.to_thread(site.runs, job), bool)
        started = json.loads((job.folder / "run" / "started").read_text())
        assert started == identity(started["pid"])
        os.kill(started["pid"], signal.SIGKILL)
        end = await ended(platform, job)
        assert end.exit_code is None
        assert "supervisor was lost" in (end.complaint or "")
        await platform.start(job)
        assert (await status(site.platform(), job)).state == "ended"
        await released(platform, job)
        assert not marked(str(job.uuid))
        assert site.runs(job) == 1

    asyncio.run(go())


def test_a_restarted_machine_is_named(local: Site) -> None:
    async def go() -> None:
        platform, job = local.platform(), local.endless()
        (job.folder / "run").mkdir(parents=True)
        (job.folder / "run" / "started").write_text(json.dumps({"boot": "another", "pid": os.getpid(), "start": 1}))
        end = await ended(platform, job)
        assert "the machine was restarted" in (end.complaint or "")
        await released(platform, job)

    asyncio.run(go())


def test_a_pid_that_was_used_again_is_never_signalled(local: Site) -> None:
    async def go() -> None:
        platform, job = local.platform(), local.endless()
        await platform.start(job)
        facts = job.folder / "run" / "started"
        truth = facts.read_text()
        facts.write_text(json.dumps({**json.loads(truth), "pid": os.getpid()}))
        assert not await platform.release(job)
        assert (await status(platform, job)).state == "running"
        facts.write_text(truth)
        await released(local.platform(), job)

    asyncio.run(go())


def test_what_the_program_left_behind_ends_with_it(site_of_any_isolation: Site) -> None:
    platform, job = site_of_any_isolation.platform(), site_of_any_isolation.job("sh", "-c", "setsid sleep 1000 & exit 5")

    async def go() -> None:
        await platform.start(job)
        assert (await ended(platform, job)).exit_code == 5
        assert not marked(str(job.uuid))

    asyncio.run(go())


def test_it_is_asked_to_stop_before_it_is_made_to(site_of_any_isolation: Site) -> None:
    polite = "trap 'echo bye; exit 6' TERM; echo up; while :; do sleep 0.05; done"

    async def stopped(script: str, release: bool) -> tuple[Status, bytes]:
        site = site_of_any_isolation.having(release="PT1S")
        platform, job = site.platform(), site.job("sh", "-c", script, seconds=600 if release else 6)
        await platform.start(job)
        await until(lambda: whole(platform, job), bool)
        if release:
            assert not await platform.release(job)
        found = await ended(platform, job), await whole(platform, job)
        await released(platform, job)
        return found

    end, said = asyncio.run(stopped(polite, release=False))
    assert (end.exit_code, end.on_time_limit, said) == (6, True, b"up\nbye\n")
    end, said = asyncio.run(stopped(polite, release=True))
    assert (end.exit_code, end.on_time_limit, said) == (6, False, b"up\nbye\n")
    end, said = asyncio.run(stopped(polite.replace("exit 6", ":"), release=True))
    assert (end.exit_code, end.on_time_limit, said) == (137, False, b"up\nbye\n")


def test_only_the_time_that_is_left_counts(local: Site) -> None:
    """The supervisor counts down; that the broker's clock is years away, or is set anew, is nothing to it."""

    class Wrong(Clock):
        def now(self) -> datetime:
            return datetime(2001, 1, 1, tzinfo=UTC)

    async def go() -> None:
        site = replace(local, clock=Wrong())
        platform, job = site.platform(), site.endless(end=datetime(2001, 1, 1, tzinfo=UTC) + timedelta(seconds=1))
        await platform.start(job)
        assert (await ended(platform, job)).on_time_limit

    asyncio.run(go())


SERVER = """
import http.server, os
assert os.environ["TOKEN"]
address = (os.environ["ADDRESS"], int(os.environ["PORT"]))
http.server.HTTPServer(address, http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def listening(site: Site, program: str) -> Job:
    job = site.job("python", "-c", program)
    ports = (Port("PORT", "HTTP", "/lab?token={secret}", address_env="ADDRESS"),)
    return replace(job, launch=replace(job.launch, ports=ports, secret_env="TOKEN"))


def test_its_port_is_a_connector(site_of_any_isolation: Site) -> None:
    job = listening(site_of_any_isolation, SERVER)

    async def go() -> None:
        platform = site_of_any_isolation.platform()
        await platform.start(job)
        found = await available(platform, job)
        (connector,) = found.connectors
        assert (connector.kind, connector.protocol) == ("urn:execbroker:connector:http", "HTTP")
        assert connector.location.startswith("http://127.0.0.1:")
        assert connector.location.endswith(f"/lab?token={job.secret}")
        with await asyncio.to_thread(urlopen, connector.location.partition("/lab")[0]) as reply:
            assert reply.status == 200
        assert (await status(site_of_any_isolation.platform(), job)).connectors == found.connectors
        said = [command_line(pid) for pid in marked(str(job.uuid))]
        assert said
        assert not any(job.secret in words for words in said)
        assert not await platform.release(job)
        assert [each.status for each in (await ended(platform, job)).connectors] == ["FINISHED"]

    asyncio.run(go())


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


async def available(platform: Platform, job: Job) -> Status:
    found = await until(lambda: status(platform, job), lambda seen: any(each.status == "AVAILABLE" for each in seen.connectors))
    assert [each.status for each in found.connectors] == ["AVAILABLE"]
    return found


def test_a_port_that_someone_else_took_is_replaced(local: Site) -> None:
    """The first run waits until the test has taken its port, and then fails as a server does."""
    wait = 'import os, time\nopen("marks/runs", "a").write(os.environ["PORT"] + "\\n")\n'
    wait += 'while not os.path.exists("marks/taken"): time.sleep(0.01)\n'
    job = listening(local, wait + SERVER)
    marks = job.folder / "storage" / "marks"

    async def go() -> None:
        platform = local.platform()
        await platform.start(job)
        await until(lambda: asyncio.to_thread(local.runs, job), bool)
        with socket.socket() as thief:
            thief.bind(("127.0.0.1", int((marks / "runs").read_text())))
            thief.listen()
            (marks / "taken").touch()
            found = await available(platform, job)
        tried = (marks / "runs").read_text().split()
        assert len(set(tried)) == 2
        assert f":{tried[1]}/" in found.connectors[0].location
        await released(platform, job)

    asyncio.run(go())


def test_what_it_says_of_itself(local: Site, unboxed: Site) -> None:
    async def go() -> None:
        capacity = await local.platform().capacity()
        assert [node.name for node in capacity.nodes] == ["here-1"]
        assert capacity.nodes[0].cores == len(os.sched_getaffinity(0))
        topics = ["Cores", "Memory", "Number of processes", "Isolation", "Network", "Storage"]
        assert [note.partition(":")[0] for note in capacity.notes] == topics
        less = await local.having(memory_reserve=capacity.nodes[0].memory).platform().capacity()
        assert less.nodes[0].memory < capacity.nodes[0].memory
        assert "Isolation: none, because the setting isolation is none" in (await unboxed.platform().capacity()).notes[3]
        declared = local.having(nodes=[{"count": 2, "cores": 7, "memory": 8, "storage": 9}])
        assert [node.name for node in (await declared.platform().capacity()).nodes] == ["here-1", "here-2"]

    asyncio.run(go())


def test_bubblewrap_that_is_wanted_has_to_be_there(boxed: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StartupError, match="bwrap is not installed"):
        asyncio.run(boxed.platform().open())
    notes = asyncio.run(boxed.having(isolation="auto").platform().capacity()).notes
    assert "bwrap is not installed" in notes[3]
    assert isinstance(boxed, LocalSite)
    monkeypatch.undo()
