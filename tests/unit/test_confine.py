import os
import subprocess
import sys
from pathlib import Path

import pytest

from execbroker.platforms.confine import Confinement, Hierarchy, find_confinement

V2 = {"cpu.max": "200000 100000", "memory.max": str(3 << 30), "memory.swap.max": "0", "pids.max": "4096"}
V1 = {
    "cpu.cfs_period_us": "100000",
    "cpu.cfs_quota_us": "200000",
    "memory.limit_in_bytes": str(3 << 30),
    "memory.memsw.limit_in_bytes": str(3 << 30),
    "pids.max": "4096",
}


@pytest.mark.parametrize(("version", "files"), [(2, V2), (1, V1)])
def test_what_is_written_to_a_group(tmp_path: Path, version: int, files: dict[str, str]) -> None:
    """The kernel's file names and units (cgroup-v2.rst, cgroup-v1/memory.rst), on a folder that stands for a group."""
    (tmp_path / "session").mkdir()
    for name in files:
        (tmp_path / "session" / name).touch()
    Hierarchy(tmp_path, version, ("cpu", "memory", "pids")).make("session", cores=2, memory=3)
    assert {path.name: path.read_text() for path in (tmp_path / "session").iterdir()} == files


def test_a_limit_that_cannot_be_set_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"memory\.max"):
        Hierarchy(tmp_path, 2, ("memory",)).make("session", cores=2, memory=3)


def test_a_machine_without_swap_accounting_is_none(tmp_path: Path) -> None:
    (tmp_path / "session").mkdir()
    (tmp_path / "session" / "memory.max").touch()
    Hierarchy(tmp_path, 2, ("memory",)).make("session", cores=2, memory=3)
    assert not (tmp_path / "session" / "memory.swap.max").exists()


def test_every_resource_has_its_sentence() -> None:
    for confinement in (Confinement(), find_confinement()):
        assert [note.partition(":")[0] for note in confinement.notes()] == ["Cores", "Memory", "Number of processes"]
    assert all("no control group" in note for note in Confinement().notes())


ALONE = """
import os, sys
from pathlib import Path
from execbroker.platforms.confine import delegate
folder, controller = Path(sys.argv[1]), sys.argv[2]
(folder / "cgroup.procs").write_text("0")
(folder / "execbroker").mkdir()
assert delegate(folder, (controller,)) == (controller,)
assert (folder / "execbroker-broker" / "cgroup.procs").read_text().split() == [str(os.getpid())]
"""


def test_a_broker_alone_in_its_group_steps_down_from_it() -> None:
    """A group with processes of its own hands no controller on (cgroups(7)); seen in containers and delegated services."""
    top = next(
        (Path(line.split()[4]) for line in Path("/proc/self/mountinfo").read_text().splitlines() if "- cgroup2" in line), None
    )
    controllers = (top / "cgroup.controllers").read_text().split() if top else []
    if not top or not controllers or not os.access(top / "cgroup.subtree_control", os.W_OK):
        what = "no control group of version 2 can be written to: run as root on a machine that has them"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(what)
    assert top
    folder = top / f"execbroker-test-{os.getpid()}"
    before = (top / "cgroup.subtree_control").read_text().split()
    folder.mkdir()
    try:
        (top / "cgroup.subtree_control").write_text(f"+{controllers[0]}")
        subprocess.run([sys.executable, "-c", ALONE, str(folder), controllers[0]], check=True, timeout=30)
    finally:
        for below in ("execbroker", "execbroker-broker", "."):
            (folder / below).rmdir()
        if controllers[0] not in before:
            (top / "cgroup.subtree_control").write_text(f"-{controllers[0]}")
