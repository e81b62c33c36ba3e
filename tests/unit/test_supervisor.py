"""The supervisor by itself: a folder with a `launch.json`, and no broker anywhere."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execbroker.platforms import runs
from execbroker.platforms.supervisor import folder as folders
from execbroker.platforms.supervisor.processes import boottime, identity, kill_all, marked, signal_exactly
from execbroker.platforms.supervisor.resources import Output, free_ports, is_taken

SUPERVISOR = Path(folders.__file__).parent


START_AND_STAY = """
import subprocess, sys, time
subprocess.run([sys.executable, "-I", "-S", *sys.argv[1:]])
time.sleep(1000)
"""


class Session:
    """A session's folder, and what a broker would write and read there."""

    def __init__(self, root: Path) -> None:
        self.name, self.folder, self.run = str(uuid4()), root, root / "run"
        for name in ("run", "home"):
            (root / name).mkdir(parents=True)

    def launch(self, *command: str, **changes: Any) -> None:
        document = {
            "session": self.name,
            "home": str(self.folder / "home"),
            "command": command,
            "environment": {"PATH": os.defpath, "EXECBROKER_SESSION": self.name},
            "ports": [],
            "sandbox": None,
            "network": None,
            "groups": [],
            "supervisors": [],
            "oom": None,
            "memory": 1,
            "memory_limit": None,
            "cpus": None,
            "cores": 1,
            "deadline": boottime() + 600,
            "grace": 1,
            "output_limit": 10_000,
            **changes,
        }
        folders.write_whole(self.run / "launch.json", json.dumps(document))

    def spawn(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-I", "-S", str(SUPERVISOR), str(self.folder)], start_new_session=True)

    def supervise(self) -> None:
        assert self.spawn().wait(timeout=20) == 0

    def end(self) -> dict[str, Any]:
        wait_for(lambda: runs.look(self.run).state == "ended")
        return runs.look(self.run).end

    def said(self, stream: str = "stdout") -> str:
        return (self.run / stream).read_text()


def wait_for(good: Callable[[], Any], seconds: float = 20) -> None:
    """Look at what a real process does until it is good."""

    async def look() -> None:
        async with asyncio.timeout(seconds):
            while not good():  # noqa: ASYNC110 -- a process sets no event
                await asyncio.sleep(0.01)

    asyncio.run(look())


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    made = Session(tmp_path / "session")
    yield made
    assert kill_all(made.name, ())


def test_it_answers_at_once_and_tells_the_end(session: Session) -> None:
    session.launch("sh", "-c", "echo out; echo err >&2; exit 9")
    session.supervise()
    assert session.end() == {"exit_code": 9, "complaint": None, "on_time_limit": False, "warnings": []}
    assert (session.said(), session.said("stderr")) == ("out\n", "err\n")
    assert (session.run / "status").stat().st_size == folders.STATUS_SIZE


def test_of_many_supervisors_one_runs_it(session: Session) -> None:
    session.launch("sh", "-c", "echo ran; sleep 0.3")
    several = [session.spawn() for _ in range(6)]
    assert [each.wait(timeout=20) for each in several] == [0] * 6
    session.end()
    session.supervise()
    assert session.said() == "ran\n"


def test_what_was_started_once_is_never_started_again(session: Session) -> None:
    session.launch("sh", "-c", "echo ran")
    (session.run / "started").write_text(json.dumps(identity(os.getpid())))
    session.supervise()
    assert not (session.run / "stdout").exists()
    assert "supervisor was lost" in session.end()["complaint"]


def test_without_orders_it_does_nothing(session: Session) -> None:
    session.supervise()
    assert runs.look(session.run).state == "unknown"
    session.run.rename(session.folder / "gone")
    session.supervise()
    assert not session.run.exists()


def test_its_folders_are_for_the_owner_alone(session: Session) -> None:
    session.launch("sh", "-c", "umask; touch x")
    session.supervise()
    session.end()
    assert {path.name: path.stat().st_mode & 0o077 for path in session.run.iterdir() if path.stat().st_mode & 0o077} == {}
    assert session.said() == "0022\n"


def test_it_outlives_who_started_it(session: Session) -> None:
    session.launch("sh", "-c", "echo up; sleep 1000")
    starter = subprocess.Popen(
        [
            sys.executable,
            "-c",
            START_AND_STAY,
            str(SUPERVISOR),
            str(session.folder),
        ],
        start_new_session=True,
    )
    wait_for(lambda: (session.run / "stdout").exists() and session.said() == "up\n")
    os.killpg(starter.pid, signal.SIGKILL)
    starter.wait()
    assert runs.look(session.run).state == "running"
    assert signal_exactly(runs.read(session.run / "started"), signal.SIGTERM)
    assert session.end()["exit_code"] == 143
    assert not marked(session.name)


def test_a_program_dies_with_its_supervisor(session: Session) -> None:
    session.launch("sh", "-c", "echo up; exec sleep 1000")
    session.supervise()
    wait_for(lambda: session.said() == "up\n")
    os.kill(runs.read(session.run / "started")["pid"], signal.SIGKILL)
    wait_for(lambda: not marked(session.name))
    assert "supervisor was lost" in session.end()["complaint"]


def test_without_control_groups_memory_is_limited_for_each_process(session: Session) -> None:
    python = str(Path(sys.base_prefix) / "bin" / "python3")
    session.launch(python, "-c", "x = bytearray(1 << 29)", memory_limit=1 << 29)
    session.supervise()
    assert session.end()["exit_code"] == 1
    assert "MemoryError" in session.said("stderr")


def test_without_control_groups_processors_are_shared_out(session: Session, tmp_path: Path) -> None:
    """Each supervisor takes processors that no other one has, as long as there are any."""
    cpus = tmp_path / "cpus"
    cpus.mkdir()
    sessions = [session, *(Session(tmp_path / f"other{number}") for number in range(len(os.sched_getaffinity(0)) - 1))]
    script = "echo $(grep Cpus_allowed_list /proc/self/status); sleep 1000"
    for each in sessions:
        each.launch("sh", "-c", script, cpus=str(cpus))
        each.supervise()
        wait_for(each.said)
    bound = {each.said().split()[1] for each in sessions}
    assert bound == {str(cpu) for cpu in os.sched_getaffinity(0)}
    for each in sessions:
        signal_exactly(runs.read(each.run / "started"), signal.SIGTERM)
        each.end()


def test_a_signal_for_a_process_that_is_gone_goes_nowhere() -> None:
    child = subprocess.Popen(["sleep", "1000"])
    who = identity(child.pid)
    assert not signal_exactly({**who, "start": who["start"] + 1}, signal.SIGKILL)
    assert not signal_exactly({**who, "boot": "another"}, signal.SIGKILL)
    assert child.poll() is None
    assert signal_exactly(who, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not signal_exactly(who, signal.SIGKILL)


def test_free_ports_are_free_and_differ() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert not any(is_taken(port) for port in ports)


@given(limit=st.integers(0, 200), pieces=st.lists(st.binary(max_size=60), max_size=12))
def test_an_output_keeps_the_beginning_and_counts_the_rest(
    tmp_path_factory: pytest.TempPathFactory, limit: int, pieces: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("output") / "stdout"
    output = Output(path, limit)
    for piece in pieces:
        output.write(piece)
    os.close(output.fd)
    whole = b"".join(pieces)
    assert path.read_bytes() == whole[:limit]
    assert output.dropped == max(len(whole) - limit, 0)
    assert len(output.warnings()) == (len(whole) > limit)


@pytest.mark.parametrize("text", ["", " " * folders.STATUS_SIZE])
def test_a_blank_status_is_none(session: Session, text: str) -> None:
    (session.run / "status").write_text(text)
    assert runs.look(session.run).state == "unknown"
