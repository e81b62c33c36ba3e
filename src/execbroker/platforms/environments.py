import asyncio
import fcntl
import hashlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from uuid import UUID

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from execbroker.errors import PlatformFailure
from execbroker.model.waist import Progress
from execbroker.platforms.sandbox import Bubblewrap, base_python, installer_environment
from execbroker.platforms.supervisor.folder import write_whole
from execbroker.staging.disk import on_disk
from execbroker.staging.rates import Rates

WAIT = 0.5
GONE = 5  # seconds
RATE = "environment"
_INSTALL = ("install", "--no-input", "--disable-pip-version-check", "--no-warn-script-location", "--progress-bar", "off")
_PIP_SETTINGS = ("/etc/pip.conf", "/etc/xdg/pip", "~/.config/pip", "~/.pip", "~/.netrc")


def normalised(requirements: Iterable[str]) -> tuple[str, ...]:
    """The same set of requirements always in the same words. Raises PlatformFailure where one is none (PEP 508)."""
    found = set()
    for text in requirements:
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            raise PlatformFailure(f"{text!r} is not a Python requirement such as numpy>=2: {error}") from error
        requirement.name = canonicalize_name(requirement.name)
        found.add(str(requirement))
    return tuple(sorted(found))


@dataclass(frozen=True, slots=True)
class Environment:
    """A folder with `bin/python`: a virtual one with these requirements, or only a link to the interpreter without any.

    It is built where it stays, for it cannot be moved; it counts once the file `complete` is there.
    """

    folder: Path
    requirements: tuple[str, ...]

    @classmethod
    def of(cls, requirements: Iterable[str], root: Path) -> "Environment":
        plain = normalised(requirements)
        seen = "\n".join((str(base_python()), sys.version, *plain))
        return cls(root / hashlib.sha256(seen.encode()).hexdigest()[:20], plain)

    @property
    def complete(self) -> bool:
        return (self.folder / "complete").exists()

    def link(self) -> None:
        """Make the environment without requirements: python by both its names."""
        (self.folder / "bin").mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("python", "python3"):
            with suppress(FileExistsError):
                (self.folder / "bin" / name).symlink_to(base_python())
        write_whole(self.folder / "complete", "")


class Environments:
    """Python environments kept by what is in them, made once for all who want the same, and never the broker's own.

    Where they are for `several` users, what one installs is no other's: what a package does while it is built could leave
    something for the next in the cache of pip.
    """

    def __init__(self, root: Path, rates: Rates, several: bool = False) -> None:
        self.root, self.rates, self.several = root, rates, several
        self._builds: dict[Path, asyncio.Task[None]] = {}
        self._wanted: dict[UUID, asyncio.Task[None]] = {}

    def of(self, requirements: Iterable[str]) -> Environment:
        return Environment.of(requirements, self.root)

    async def ready(self, uuid: UUID, requirements: Iterable[str], sandbox: Bubblewrap | None) -> Progress:
        """Make the environment for this job, waiting half a second; asked again until it is done. Raises PlatformFailure."""
        wanted = self.of(requirements)
        if uuid not in self._wanted and await asyncio.to_thread(lambda: wanted.complete):
            return Progress(done=True)
        if uuid not in self._wanted:
            self._wanted[uuid] = self._builds.get(wanted.folder) or self._begin(wanted, sandbox)
        task = self._wanted[uuid]
        await asyncio.wait({task}, timeout=WAIT)
        if task.done():
            self._wanted.pop(uuid, None)
            if task.cancelled():
                raise PlatformFailure("the installation was called off")
            task.result()
        doing = f"installing {', '.join(wanted.requirements)}" if wanted.requirements else "making the environment"
        return Progress(done=task.done(), doing="" if task.done() else doing)

    async def forget(self, uuid: UUID) -> None:
        """This job wants nothing any more: an installation that nobody else waits for is stopped."""
        task = self._wanted.pop(uuid, None)
        if task and task not in self._wanted.values():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def close(self) -> None:
        for uuid in list(self._wanted):
            await self.forget(uuid)

    def _begin(self, wanted: Environment, sandbox: Bubblewrap | None) -> asyncio.Task[None]:
        task = asyncio.create_task(self._build(wanted, sandbox), name=f"environment {wanted.folder.name}")
        self._builds[wanted.folder] = task
        task.add_done_callback(lambda done: self._end(wanted, done))
        return task

    def _end(self, wanted: Environment, done: asyncio.Task[None]) -> None:
        self._builds.pop(wanted.folder, None)
        if not done.cancelled():
            done.exception()  # every job that waits is told; that none does any more is no fault

    async def _build(self, wanted: Environment, sandbox: Bubblewrap | None) -> None:
        try:
            if not wanted.requirements:
                return await on_disk(wanted.link)
            lock = await self._lock(wanted)
            try:
                if not wanted.complete:
                    await self._install(wanted, sandbox, lock)
            finally:
                os.close(lock)
        except OSError as error:
            raise PlatformFailure(f"the environment cannot be made: {error}") from error

    async def _lock(self, wanted: Environment) -> int:
        """The right to build: another broker, or what is left of one, may be at it."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(f"{wanted.folder}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                try:
                    await asyncio.sleep(WAIT)
                except asyncio.CancelledError:
                    os.close(fd)
                    raise
            else:
                return fd

    async def _install(self, wanted: Environment, sandbox: Bubblewrap | None, lock: int) -> None:
        began = time.monotonic()
        folder, tmp = wanted.folder, wanted.folder.with_suffix(".tmp")
        await on_disk(_empty, folder, tmp)
        cache = (tmp if self.several else self.root) / "pip-cache"
        installer = Installer(folder, tmp, cache, sandbox, lock)
        try:
            make, pip = _tools(folder)
            await installer.run(*make)
            await installer.run(*pip, *_INSTALL, "--", *wanted.requirements)
            await on_disk(write_whole, folder / "complete", "\n".join((*wanted.requirements, "")))
        finally:
            await on_disk(shutil.rmtree, tmp, ignore_errors=True)
        self.rates.note(RATE, seconds=time.monotonic() - began)


def _tools(folder: Path) -> tuple[list[str], list[str]]:
    """How to make an environment and how to install into it: by a pip of its own, or, on a Debian without the package for
    that, by the one beside the interpreter."""
    base, python = [str(base_python()), "-I", "-m"], str(folder / "bin" / "python")
    if find_spec("ensurepip"):
        return [*base, "venv", str(folder)], [python, "-I", "-m", "pip"]
    return [*base, "venv", "--without-pip", str(folder)], [*base, "pip", "--python", python]


def _empty(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, parents=True)


@dataclass(frozen=True, slots=True)
class Installer:
    """Runs what builds an environment: packages run code of their own, so in bubblewrap where there is one.

    `lock` is left to the processes too: should the broker die, the next one waits until they are gone.
    """

    folder: Path
    tmp: Path
    cache: Path
    sandbox: Bubblewrap | None
    lock: int

    async def run(self, *command: str) -> None:
        """Raises PlatformFailure with the last that it said, where it fails."""
        variables = {"PIP_CACHE_DIR": str(self.cache), **installer_environment(os.environ)}
        await on_disk(os.makedirs, variables["PIP_CACHE_DIR"], 0o700, exist_ok=True)
        own = {"PATH": os.defpath, "HOME": str(Path.home()), "TMPDIR": self._tmpdir(), "LC_ALL": "C.UTF-8"}
        process = await asyncio.create_subprocess_exec(
            *self._boxed(variables, command),
            env=own | variables,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(self.lock,),
        )
        try:
            said, _ = await process.communicate()
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
                await self._gone(process)
        if process.returncode:
            last = "\n".join(said.decode(errors="replace").strip().splitlines()[-8:])
            raise PlatformFailure(f"the Python environment could not be made:\n{last}")

    @staticmethod
    async def _gone(process: asyncio.subprocess.Process) -> None:
        """Those in a namespace of their own die a moment after its first: its output ends with the last that can write to it."""
        assert process.stdout
        with suppress(TimeoutError):
            async with asyncio.timeout(GONE):
                while await process.stdout.read(1 << 16):
                    pass

    def _tmpdir(self) -> str:
        return "/tmp" if self.sandbox else str(self.tmp)  # noqa: S108 -- that is self.tmp, seen from inside

    def _boxed(self, variables: dict[str, str], command: tuple[str, ...]) -> list[str]:
        if not self.sandbox:
            return [*command]
        named = (word for value in variables.values() for word in value.split() if word.startswith("/"))
        settings = (str(path) for text in _PIP_SETTINGS if (path := Path(text).expanduser()).exists())
        words = self.sandbox.workshop([self.folder, Path(variables["PIP_CACHE_DIR"])], self.tmp, [*named, *settings])
        return self.sandbox.running([*words, *command])
