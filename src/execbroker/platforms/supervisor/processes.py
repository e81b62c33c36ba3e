import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

MARKER = "EXECBROKER_SESSION"


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def boottime() -> float:
    """Seconds since the machine started, sleep included, whatever is done to the wall clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the state on (proc(5)); [] where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def identity(pid: int) -> dict[str, Any]:
    """What tells a process from every other, before and after it: a pid alone is used again."""
    fields = _stat(pid)
    return {"boot": boot_id(), "pid": pid, "start": int(fields[19]) if fields else None}


def signal_exactly(who: dict[str, Any], number: int) -> bool:
    """Send a signal to that very process; False where it is gone."""
    try:
        fd = os.pidfd_open(who["pid"])
    except ProcessLookupError:
        return False
    try:
        if identity(who["pid"]) != {key: who[key] for key in ("boot", "pid", "start")}:
            return False
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit())


def children(pid: int) -> list[int]:
    return [child for child in _pids() if (fields := _stat(child)) and int(fields[1]) == pid]


def descendants(ancestor: int) -> set[int]:
    parents = {pid: int(fields[1]) for pid in _pids() if (fields := _stat(pid))}
    found = {ancestor}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {ancestor}


def marked(session: str) -> set[int]:
    """The processes that were started for this session, as their environment says."""
    mark = f"{MARKER}={session}".encode()
    found = set()
    for pid in _pids():
        with contextlib.suppress(OSError):
            if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.add(pid)
    return found


def members(groups: Iterable[str | Path]) -> set[int]:
    """The processes in these control groups."""
    found: set[int] = set()
    for group in groups:
        with contextlib.suppress(OSError):
            found.update(int(line) for line in Path(group, "cgroup.procs").read_text(encoding="ascii").split())
    return found


def kill_all(session: str, groups: Iterable[str | Path], below: int | None = None, patience: float = 3) -> bool:
    """Kill whatever carries the session's mark, is in its groups, or descends from `below`; True when nothing is left."""
    groups = tuple(groups)
    until = time.monotonic() + patience
    while left := _living(marked(session) | members(groups) | (descendants(below) if below else set())):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _reap(below)
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True


def _living(pids: set[int]) -> set[int]:
    return {pid for pid in pids if (fields := _stat(pid)) and fields[0] not in "ZX"}


def _reap(below: int | None) -> None:
    if below == os.getpid():
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
