"""What the conformance suite needs of each platform: how to make one, and jobs that behave in a known way on it."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

from execbroker.model.times import Clock
from execbroker.model.waist import Job, Launch, Mount, Share, Status
from execbroker.platforms.base import Context, Platform
from execbroker.platforms.fake import Fake
from execbroker.platforms.local import Local
from execbroker.staging.base import DataSettings
from execbroker.staging.rates import Rates
from execbroker.staging.stager import Stager

T = TypeVar("T")

MARK = "echo ran >> marks/runs; "


@dataclass(frozen=True)
class Site:
    """A folder with a broker's and its sessions' files in it; every `platform()` is that of a broker started anew."""

    root: Path
    settings: dict[str, Any] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)
    jobs: list[Job] = field(default_factory=list)
    several: bool = False
    """Whether several users share the broker."""

    def having(self, **settings: Any) -> "Site":
        return replace(self, settings={**self.settings, **settings})

    async def clean(self) -> None:
        """Release what a test, perhaps because it failed, did not."""
        platform = self.platform()
        for job in self.jobs:
            await released(platform, job)
        await platform.close()

    def open(self, cls: type[Platform], **settings: Any) -> Platform:
        stager = Stager({}, DataSettings(), Rates(), self.clock)
        context = Context(self.root / "broker" / "platform", self.clock, stager, (self.root / "broker",), self.several)
        return cls(cls.Settings(**{"name": "here", **settings, **self.settings}), context)

    def platform(self) -> Platform:
        raise NotImplementedError

    def job(self, *command: str, uuid: UUID | None = None, seconds: float = 600, **changes: Any) -> Job:
        """A job that leaves a line in `storage/marks/runs` for every time that its program is run."""
        uuid = uuid or uuid4()
        now = self.clock.now()
        job = Job(
            uuid=uuid,
            launch=Launch("process", command),
            sources=(),
            mounts=(Mount("marks", "storage/marks", readonly=False),),
            shares=(Share("here-1", 1, 1),),
            start=now,
            end=now + timedelta(seconds=seconds),
            folder=self.root / "sessions" / str(uuid),
            secret="a-very-secret-word",
        )
        self.jobs.append(job := replace(job, **changes))
        return job

    def endless(self, **changes: Any) -> Job:
        return self.job("sh", "-c", MARK + "echo hello; sleep 1000", **changes)

    def brief(self, **changes: Any) -> Job:
        """Ends with exit code 3 at once, having said `hello` where platforms really run programs."""
        return self.job("sh", "-c", MARK + "echo hello; exit 3", **changes)

    def runs(self, job: Job) -> int:
        """How often the job's program was run."""
        marks = job.folder / "storage" / "marks" / "runs"
        return len(marks.read_text().splitlines()) if marks.exists() else 0


class LocalSite(Site):
    def platform(self) -> Local:
        return self.open(Local, type="local")


class FakeSite(Site):
    """What the double runs it runs by its settings: `brief` jobs need a platform of their own."""

    def platform(self) -> Fake:
        return self.open(Fake, type="fake", nodes=[{"cores": 4, "memory": 8}])

    def brief(self, **changes: Any) -> Job:
        self.settings.update(lasts="PT1S", exit_code=3)
        return super().brief(**changes)

    def runs(self, job: Job) -> int:
        world = job.folder / "run" / "fake.json"
        return len(json.loads(world.read_text())) if world.exists() else 0


SITES: dict[str, Callable[[Path], Site]] = {
    "fake": lambda root: FakeSite(root, {}),
    "local": lambda root: LocalSite(root, {"isolation": "auto"}),
    "local-apart": lambda root: LocalSite(root, several=True),
    "local-unboxed": lambda root: LocalSite(root, {"isolation": "none"}),
}


async def until(look: Callable[[], Awaitable[T]], good: Callable[[T], bool], seconds: float = 20) -> T:
    """Look until it is good; the last that was seen, which a test then fails on, where it does not become so."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not good(seen := await look()) and loop.time() < deadline:  # noqa: ASYNC110 -- a process sets no event
        await asyncio.sleep(0.02)
    return seen


async def status(platform: Platform, job: Job) -> Status:
    return (await platform.poll([job]))[job.uuid]


async def ended(platform: Platform, job: Job, seconds: float = 20) -> Status:
    found = await until(lambda: status(platform, job), lambda seen: seen.state != "running", seconds)
    assert found.state == "ended"
    return found


async def released(platform: Platform, job: Job) -> None:
    assert await until(lambda: platform.release(job), bool), "it was never released"


async def whole(platform: Platform, job: Job, stream: Any = "stdout") -> bytes:
    """All of the output, read piece by piece as the broker does."""
    read = b""
    while piece := await platform.output(job, stream, len(read)):
        read += piece
    return read
