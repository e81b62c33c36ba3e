import contextlib
import os
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from execbroker.platforms.supervisor.processes import members

RESOURCES = ("cpu", "memory", "pids")
MAX_PROCESSES = 4096
GIB = 2**30

_NAME = "execbroker"
_SUPERVISORS = "supervisors"
_PERIOD = 100_000  # microseconds, the kernel's own


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Our own group of one tree of control groups, below which each session gets one, and what that tree can limit."""

    parent: Path
    version: int
    resources: tuple[str, ...]

    def make(self, name: str, cores: int, memory: int) -> Path:
        """The group for a session of so many cores and GiB; made again, it stays the same. Raises OSError."""
        group = self.parent / name
        group.mkdir(exist_ok=True)
        for file, value, needed in self._limits(cores, memory):
            if needed or (group / file).exists():
                _write(group / file, value)
        return group

    def _limits(self, cores: int, memory: int) -> Iterator[tuple[str, object, bool]]:
        old = self.version == 1
        if "cpu" in self.resources and old:
            yield "cpu.cfs_period_us", _PERIOD, True
            yield "cpu.cfs_quota_us", cores * _PERIOD, True
        elif "cpu" in self.resources:
            yield "cpu.max", f"{cores * _PERIOD} {_PERIOD}", True
        if "memory" in self.resources:
            yield "memory.limit_in_bytes" if old else "memory.max", memory * GIB, True
            yield ("memory.memsw.limit_in_bytes", memory * GIB, False) if old else ("memory.swap.max", 0, False)
        if "pids" in self.resources:
            yield "pids.max", MAX_PROCESSES, True

    def oom_counter(self, name: str) -> Path:
        return self.parent / name / ("memory.oom_control" if self.version == 1 else "memory.events")

    def remove(self, name: str) -> bool:
        """Remove the session's group and whatever groups it made; False while processes are in them."""
        group = self.parent / name
        for folder, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
        return not group.exists()


@dataclass(frozen=True, slots=True)
class Confinement:
    """How a session is kept to its cores and memory here: by control groups as far as they can be written to."""

    hierarchies: tuple[Hierarchy, ...] = ()
    supervisors: tuple[Path, ...] = field(default=())

    def make(self, name: str, cores: int, memory: int) -> list[Path]:
        return [each.make(name, cores, memory) for each in self.hierarchies]

    def groups(self, name: str) -> list[Path]:
        return [each.parent / name for each in self.hierarchies]

    def limits(self, resource: str) -> Hierarchy | None:
        return next((each for each in self.hierarchies if resource in each.resources), None)

    def remove(self, name: str) -> bool:
        removed = [each.remove(name) for each in self.hierarchies]
        return all(removed)

    def notes(self) -> tuple[str, ...]:
        """For each resource a sentence on how sessions are kept to it."""
        without = {
            "cpu": "Cores: each session is bound to processors of its own; no control group for them can be written to.",
            "memory": "Memory: limited for each process of a session (RLIMIT_AS); no control group for it can be written to.",
            "pids": "Number of processes: not limited; no control group for it can be written to.",
        }
        by_group = {
            "cpu": "Cores: limited by control groups, version {}.",
            "memory": "Memory: limited by control groups, version {}.",
            "pids": f"Number of processes: at most {MAX_PROCESSES} by control groups, version {{}}.",
        }
        found = {resource: self.limits(resource) for resource in RESOURCES}
        return tuple(by_group[name].format(each.version) if each else without[name] for name, each in found.items())


def find_confinement() -> Confinement:
    """The control groups that can really be used: each is tried, with a process in it."""
    found: list[Hierarchy] = []
    for mount in _mounts():
        missing = tuple(name for name in mount.resources if not any(name in each.resources for each in found))
        candidates = (_try(folder, mount.version, missing) for folder in mount.candidates()) if missing else ()
        if usable := next((each for each in candidates if each), None):
            found.append(usable)
    supervisors = []
    for each in found:
        with contextlib.suppress(OSError):
            (each.parent / _SUPERVISORS).mkdir(exist_ok=True)
            supervisors.append(each.parent / _SUPERVISORS)
    return Confinement(tuple(found), tuple(supervisors))


def memory_ceiling(confinement: Confinement) -> int | None:
    """What the system lets all sessions together have, in bytes, where it says so: the limits of every group above."""
    used = confinement.limits("memory")
    for mount in _mounts():
        if "memory" in mount.resources and (not used or used.parent.is_relative_to(mount.point)):
            above = [folder for folder in mount.candidates() if not used or used.parent.is_relative_to(folder)]
            return min((limit for folder in above if (limit := _limit(folder))), default=None)
    return None


def _limit(folder: Path) -> int | None:
    for name in ("memory.max", "memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            return int((folder / name).read_text(encoding="ascii"))
    return None


@dataclass(frozen=True, slots=True)
class _Mount:
    """A mounted tree of control groups and where in it this process is."""

    point: Path
    version: int
    resources: tuple[str, ...]
    own: Path

    def candidates(self) -> Iterator[Path]:
        """From the top, where the broker's own limits do not hold, down to where this process is."""
        folder = self.point
        yield folder
        for part in self.own.parts:
            folder /= part
            yield folder


def _mounts() -> Iterator[_Mount]:
    """The trees of this machine that limit something of ours, version 2 first (cgroups(7), proc(5))."""
    own = _own_groups()
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()]
    for fields in sorted(lines, key=lambda fields: "cgroup2" not in fields):
        kind, _, options = fields[fields.index("-") + 1 :][:3]
        point, root = Path(fields[4]), fields[3]
        if kind == "cgroup2":
            here = set((point / "cgroup.controllers").read_text(encoding="ascii").split())
            group = own.get("", "/")
        elif kind == "cgroup":
            here = set(options.split(","))
            group = next((own[name] for name in here if name in own), "/")
        else:
            continue
        if resources := tuple(name for name in RESOURCES if name in here):
            relative = os.path.relpath(group, root)
            yield _Mount(point, 2 if kind == "cgroup2" else 1, resources, Path("" if relative.startswith("..") else relative))


def _own_groups() -> Mapping[str, str]:
    found = {}
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        found.update(dict.fromkeys(controllers.split(","), path))
    return found


def _try(folder: Path, version: int, resources: tuple[str, ...]) -> Hierarchy | None:
    """Our own group in `folder`, if a process can be put below it and limited."""
    parent, trial = folder / _NAME, f"trial-{secrets.token_hex(4)}"
    try:
        parent.mkdir(exist_ok=True)
        usable = delegate(folder, resources) if version == 2 else resources
    except OSError:
        return None
    found = Hierarchy(parent, version, usable)
    try:
        group = found.make(trial, 1, 1)
        enter = ("/bin/sh", "-c", 'echo 0 > "$0"', str(group / "cgroup.procs"))
        subprocess.run(enter, capture_output=True, check=True, timeout=10)  # noqa: S603 -- a fixed command
    except (OSError, subprocess.SubprocessError):
        return None
    finally:
        with contextlib.suppress(OSError):  # another user's, where not even that may be asked
            found.remove(trial)
    with contextlib.suppress(OSError):  # the reserve: when all want the processors, the rest of the machine goes first
        _write(parent / ("cpu.shares" if version == 1 else "cpu.weight"), 512 if version == 1 else 50)
    return found if usable else None


def delegate(folder: Path, resources: tuple[str, ...]) -> tuple[str, ...]:
    """Let `folder/execbroker` hand on these controllers (version 2); those that it now does.

    A group other than the root that has processes of its own hands on nothing ("no internal processes", cgroups(7)).
    Where this one is alone in it, as in a container or a delegated service, it steps down into a leaf.
    """
    if members([folder]) == {os.getpid()}:
        leaf = folder / f"{_NAME}-broker"
        leaf.mkdir(exist_ok=True)
        _write(leaf / "cgroup.procs", os.getpid())
    for name in resources:
        with contextlib.suppress(OSError):
            for group in (folder, folder / _NAME):
                _write(group / "cgroup.subtree_control", f"+{name}")
    enabled = (folder / _NAME / "cgroup.subtree_control").read_text(encoding="ascii").split()
    return tuple(name for name in resources if name in enabled)


def _write(file: Path, value: object) -> None:
    """Write to a control file; unlike Path.write_text it never makes one."""
    fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, str(value).encode())
    finally:
        os.close(fd)
