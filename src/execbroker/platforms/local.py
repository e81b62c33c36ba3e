import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any, ClassVar, Literal
from uuid import UUID

from execbroker.errors import PlatformFailure, Unreachable
from execbroker.model.messages import MessageItem, reason, warning
from execbroker.model.waist import Capacity, Job, Launch, Mount, Node, Progress, Source, Status
from execbroker.platforms import mounts as mounting
from execbroker.platforms import runs
from execbroker.platforms.base import Context, Platform, PlatformSettings, declared
from execbroker.platforms.confine import GIB, Confinement, memory_ceiling
from execbroker.platforms.connectors import Connectors
from execbroker.platforms.environments import RATE, Environment, Environments, normalised
from execbroker.platforms.machine import this_machine
from execbroker.platforms.means import LocalSettings, Means, find_means
from execbroker.platforms.network import SUPERVISOR
from execbroker.platforms.sandbox import HOME
from execbroker.platforms.supervisor.folder import is_locked, last_line, take_lock, write_whole
from execbroker.platforms.supervisor.processes import MARKER, boottime, kill_all, signal_exactly
from execbroker.staging.base import Estimate
from execbroker.staging.disk import on_disk, open_folder

CHUNK = 2**20
USUAL_INSTALLATION = 60
START_PATIENCE = 10

_PATH = "/usr/local/bin:/usr/bin:/bin"


class Local(Platform):
    """Sessions as processes of this machine, each under a supervisor that needs no broker.

    `run` in a job's folder is this platform's own; see `supervisor` for what is in it.
    """

    Settings: ClassVar[type[PlatformSettings]] = LocalSettings
    extendable = isolating = True

    def __init__(self, settings: LocalSettings, context: Context) -> None:
        super().__init__(settings, context)
        root = settings.environments or context.folder / "environments"
        self.environments = Environments(root.absolute(), context.stager.rates, context.several)
        self.connectors = Connectors()
        self._grace = min(3.0, settings.release.total_seconds() * 0.6)
        self._asked: dict[UUID, float] = {}
        self._means: Means | None = None
        self._machine: tuple[Node, ...] = ()
        self._looking = asyncio.Lock()

    async def open(self) -> None:
        """Raises StartupError where bubblewrap is wanted, or needed for several users, and does not work."""
        await self._find_means()

    async def capacity(self) -> Capacity:
        """The nodes of the settings, or this machine as it was when first asked: what sessions use since then is booked."""
        means = await self._find_means()
        if not self._machine:
            self._machine = await asyncio.to_thread(self._nodes, means)
        return self.whole(self._machine, means.notes())

    def _nodes(self, means: Means) -> tuple[Node, ...]:
        if self.settings.nodes:
            return tuple(declared(self.settings))
        reserves = (self.settings.memory_reserve, self.settings.storage_reserve)
        return (this_machine(f"{self.name}-1", self.context.folder, memory_ceiling(means.confinement), *reserves),)

    async def _find_means(self) -> Means:
        async with self._looking:
            if self._means is None:
                return await asyncio.to_thread(self._look)
            return self._means

    def _look(self) -> Means:
        self._means = found = find_means(self.settings, self.context)
        return found

    def reasons_against(self, launch: Launch, mounts: Iterable[Mount]) -> list[MessageItem]:
        means = self._means or self._look()
        return [*_against_launch(launch), *mounting.reasons_against_mounts(mounts, means.no_sandbox)]

    async def estimate(self, launch: Launch, sources: Iterable[tuple[str, Source]]) -> Estimate:
        data = await super().estimate(launch, sources)
        environment = self.environments.of(launch.requirements)
        if not environment.requirements or await asyncio.to_thread(lambda: environment.complete):
            return data
        known = self.context.stager.rates.seconds(RATE)
        seconds = USUAL_INSTALLATION if known is None else known
        template = "the requirements at {path} are the first to be installed here; that is assumed to take {seconds} s"
        guess = warning("first-installation", "executable.requirements", template, seconds=seconds)
        warnings = (*data.warnings, *([guess] if known is None else []))
        return Estimate(max(data.seconds, seconds), warnings, data.reasons, data.size)

    async def prepare(self, job: Job) -> Progress:
        means = await self._find_means()
        ready = self.environments.ready(job.uuid, job.launch.requirements, means.sandbox)
        data, environment = await asyncio.gather(super().prepare(job), ready)
        doing = ", ".join(each.doing for each in (environment, data) if each.doing)
        return Progress(data.done and environment.done, data.bytes, data.total, doing)

    async def start(self, job: Job) -> None:
        means = await self._find_means()
        run = job.folder / "run"
        until = time.monotonic() + START_PATIENCE
        while not await asyncio.to_thread((run / "started").exists):
            if time.monotonic() > until:
                raise Unreachable(f"the supervisor of {job.uuid} has not said within {START_PATIENCE} s that it started")
            if await asyncio.to_thread(is_locked, run):
                await asyncio.sleep(0.02)
            else:
                await on_disk(self._spawn, job, means)

    def _spawn(self, job: Job, means: Means) -> None:
        """Start a supervisor. Should another one, of a broker that died here, be on its way, the lock lets one of them live."""
        run = job.folder / "run"
        try:
            os.close(open_folder(job.folder, "run", "tmp"))
            write_whole(run / "launch.json", json.dumps(self._launch(job, means)))
            with (run / "supervisor.log").open("ab") as log:
                subprocess.run(  # noqa: S603 -- our own program
                    [sys.executable, "-I", "-S", str(SUPERVISOR), str(job.folder)],
                    env={"PATH": _PATH, "LC_ALL": "C.UTF-8"},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    check=False,
                )
        except OSError as error:
            raise PlatformFailure(f"the session cannot be started: {error}") from error
        if not (run / "started").exists() and not is_locked(run):
            raise PlatformFailure(f"the session's supervisor did not start: {last_line(run / 'supervisor.log')}")

    def _launch(self, job: Job, means: Means) -> dict[str, Any]:
        """All that the supervisor is told. Raises PlatformFailure, OSError."""
        run, confinement = job.folder / "run", means.confinement
        environment = self._environment(job)
        bound = mounting.place(job, boxed=means.sandbox is not None)
        sandbox = means.sandbox and means.sandbox.session(run, job.folder / "home", environment.folder, bound)
        memory, cpu = confinement.limits("memory"), confinement.limits("cpu")
        return {
            "session": str(job.uuid),
            "home": str(job.folder / "home"),
            "command": job.launch.command,
            "environment": self._variables(job, environment, boxed=sandbox is not None),
            "ports": [{"env": port.env, "address_env": port.address_env} for port in job.launch.ports],
            "sandbox": sandbox,
            "network": means.network and means.network.told(),
            "groups": [str(group) for group in confinement.make(str(job.uuid), job.cores, job.memory)],
            "supervisors": [str(group) for group in confinement.supervisors],
            "oom": str(memory.oom_counter(str(job.uuid))) if memory else None,
            "memory": job.memory,
            "memory_limit": None if memory else job.memory * GIB,
            "cpus": None if cpu else str(self._cpus()),
            "cores": job.cores,
            "deadline": self._deadline(job),
            "grace": self._grace,
            "output_limit": self.settings.output_limit,
        }

    def _environment(self, job: Job) -> Environment:
        found = self.environments.of(job.launch.requirements)
        if not found.complete and not found.requirements:
            found.link()
        if not found.complete:
            raise PlatformFailure(f"the environment with {', '.join(found.requirements)} is not there")
        return found

    def _cpus(self) -> Path:
        folder = self.context.folder / "cpus"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def _variables(self, job: Job, environment: Environment, boxed: bool) -> dict[str, str]:
        secret = {job.launch.secret_env: job.secret} if job.launch.secret_env else {}
        return {
            "PATH": f"{environment.folder}/bin:{_PATH}",
            "HOME": HOME if boxed else str(job.folder / "home"),
            "TMPDIR": "/tmp" if boxed else str(job.folder / "run" / "tmp"),  # noqa: S108 -- the session's own
            "LANG": "C.UTF-8",
            "LC_ALL": "C.UTF-8",
            "USER": "session",
            **job.launch.environment,
            **secret,
            MARKER: str(job.uuid),
        }

    async def poll(self, jobs: Iterable[Job]) -> Mapping[UUID, Status]:
        jobs = list(jobs)
        seen = await asyncio.to_thread(lambda: [runs.look(job.folder / "run") for job in jobs])
        statuses = await asyncio.gather(*(self._status(job, each) for job, each in zip(jobs, seen, strict=True)))
        return {job.uuid: status for job, status in zip(jobs, statuses, strict=True)}

    async def _status(self, job: Job, seen: runs.Seen) -> Status:
        connectors = await self.connectors.of(job, seen.ports, running=seen.state == "running")
        if seen.state != "ended":
            return Status(seen.state, connectors=connectors)
        end = seen.end
        warnings = tuple(end["warnings"])
        return Status("ended", end["exit_code"], end["complaint"], end["on_time_limit"], warnings, connectors)

    async def release(self, job: Job) -> bool:
        means = await self._find_means()
        await self.context.stager.forget(job.uuid)
        await self.environments.forget(job.uuid)
        self.connectors.forget(job.uuid)
        return await on_disk(self._release, job, means.confinement)

    def _release(self, job: Job, confinement: Confinement) -> bool:
        """With the lock in hand nothing can start any more, not even a supervisor that is still on its way here."""
        run, name = job.folder / "run", str(job.uuid)
        lock = take_lock(run, patience=0.2)
        if lock is None and run.exists():
            self._stop(job)
            return False
        try:
            if not kill_all(name, confinement.groups(name)) or not confinement.remove(name):
                return False
            if lock is not None:
                (run / "launch.json").unlink(missing_ok=True)
                mounting.clear(job)
                runs.remove_tree(run)
        finally:
            if lock is not None:
                os.close(lock)
        self._asked.pop(job.uuid, None)
        return True

    def _stop(self, job: Job) -> None:
        """Ask the supervisor to stop, and end it where it does not even see to that."""
        started = runs.read(job.folder / "run" / "started")
        now = time.monotonic()
        if started and job.uuid not in self._asked:
            self._asked[job.uuid] = now
            signal_exactly(started, SIGTERM)
        elif started and now > self._asked[job.uuid] + 3 * self._grace + 1:
            signal_exactly(started, SIGKILL)

    def _deadline(self, job: Job) -> float:
        """The job's end, by the clock that no one sets."""
        return boottime() + (job.end - self.context.clock.now()).total_seconds()

    async def extend(self, job: Job) -> None:
        try:
            await on_disk(write_whole, job.folder / "run" / "deadline", json.dumps(self._deadline(job)))
        except OSError as error:
            raise PlatformFailure(f"its supervisor cannot be told of the new end: {error}") from error

    async def output(self, job: Job, stream: Literal["stdout", "stderr"], offset: int) -> bytes:
        return await asyncio.to_thread(runs.read_from, job.folder / "run" / stream, offset, CHUNK)

    async def close(self) -> None:
        await self.environments.close()


def _against_launch(launch: Launch) -> list[MessageItem]:
    if launch.form != "process":
        template = "this platform runs processes, not container images ({form})"
        return [reason("no-containers", "executable", template, form=launch.form)]
    against = []
    if not launch.command:
        against.append(reason("no-command", "executable", "there is no command to run"))
    for name, value in launch.environment.items():
        if not name or "=" in name or "\0" in name + value:
            template = "the variable {name} at {path} cannot be set: a name without = and a text without NUL are needed"
            against.append(reason("bad-variable", "executable.environment", template, name=repr(name)))
    if any("\0" in word for word in launch.command):
        against.append(reason("bad-command", "executable", "a word of the command has a NUL character in it"))
    try:
        normalised(launch.requirements)
    except PlatformFailure as error:
        against.append(reason("bad-requirement", "executable.requirements", "{why}", why=error))
    return against
