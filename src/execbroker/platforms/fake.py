import json
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from execbroker.errors import PlatformFailure, Unreachable
from execbroker.model.messages import MessageItem
from execbroker.model.times import Duration
from execbroker.model.waist import Capacity, Job, Launch, Mount, Progress, Source, Status
from execbroker.platforms.base import Context, NodeSettings, Platform, PlatformSettings, declared
from execbroker.staging.base import Estimate


class Cue(BaseModel):
    """What a verb does in its first `times` calls for each session: fail, be unreachable, or say "not yet" (delay; of
    `poll`: does not know the session)."""

    model_config = ConfigDict(extra="forbid")

    does: Literal["fail", "unreachable", "delay"] = Field(description="What goes wrong.")
    times: int | None = Field(None, ge=1, description="For how many calls; for ever where left out.")


class FakeSettings(PlatformSettings):
    nodes: list[NodeSettings] = Field(min_length=1, description="What there is to offer.")
    lasts: Duration | None = Field(None, description="How long a session runs; its whole schedule where left out.")
    preparing: Duration = Field(timedelta(0), description="How long preparation takes.")
    exit_code: int = Field(0, description="How every session ends.")
    release: Duration = Field(timedelta(0), description="How long stopping a session may take.")
    script: dict[Literal["capacity", "prepare", "start", "poll", "release"], Cue] = Field(
        default_factory=dict, description="What goes wrong, by verb."
    )


class Fake(Platform):
    """A platform that runs nothing: every kind, on declared nodes, each session for as long as its schedule.

    It contacts no source: each exists, has its declared size or none, and is there at once. What it "runs" is one file in
    the session's folder, so that it survives the broker as a real platform does.
    """

    Settings: ClassVar[type[PlatformSettings]] = FakeSettings
    several_nodes = extendable = isolating = True

    def __init__(self, settings: FakeSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.script = dict(settings.script)
        self._calls: dict[tuple[str, UUID | None], int] = {}

    async def capacity(self) -> Capacity:
        self._cue("capacity", None)
        return self.whole(tuple(declared(self.settings)), ("Nothing is really run here.",))

    def reasons_against(self, launch: Launch, mounts: Iterable[Mount]) -> list[MessageItem]:
        return []

    async def estimate(self, launch: Launch, sources: Iterable[tuple[str, Source]]) -> Estimate:
        return Estimate(self.settings.preparing.total_seconds(), size=sum(source.size or 0 for _, source in sources))

    async def prepare(self, job: Job) -> Progress:
        return Progress(done=not self._cue("prepare", job))

    async def start(self, job: Job) -> None:
        self._cue("start", job)
        if not _world(job).exists():
            _world(job).parent.mkdir(parents=True, exist_ok=True)
            new = _world(job).with_suffix(".new")
            new.write_text(json.dumps({"started": self._now()}) + "\n")
            new.replace(_world(job))

    async def poll(self, jobs: Iterable[Job]) -> Mapping[UUID, Status]:
        return {job.uuid: self._status(job) for job in jobs}

    def _status(self, job: Job) -> Status:
        if self._cue("poll", job) or not _world(job).exists():
            return Status("unknown")
        lasts = job.end - job.start if self.settings.lasts is None else self.settings.lasts
        if self._now() < self._started(job) + lasts.total_seconds():
            return Status("running")
        return Status("ended", self.settings.exit_code, on_time_limit=self.settings.lasts is None)

    async def release(self, job: Job) -> bool:
        if self._cue("release", job):
            return False
        _world(job).unlink(missing_ok=True)
        return True

    async def output(self, job: Job, stream: Literal["stdout", "stderr"], offset: int) -> bytes:
        known = _world(job).exists() and stream == "stdout"
        return f"{' '.join(job.launch.command) or job.launch.image}\n".encode()[offset:] if known else b""

    def _now(self) -> float:
        return self.context.clock.now().timestamp()

    def _started(self, job: Job) -> float:
        started: float = json.loads(_world(job).read_text())["started"]
        return started

    def _cue(self, verb: Any, job: Job | None) -> bool:
        """Play the script: raise, or True where the verb is to say "not yet"."""
        cue: Cue | None = self.script.get(verb)
        key = (verb, job.uuid if job else None)
        self._calls[key] = self._calls.get(key, 0) + 1
        if cue is None or (cue.times is not None and self._calls[key] > cue.times):
            return False
        if cue.does == "unreachable":
            raise Unreachable(f"{self.name} does not answer, as scripted")
        if cue.does == "fail":
            raise PlatformFailure(f"{verb} failed, as scripted")
        return True


def _world(job: Job) -> Path:
    return job.folder / "run" / "fake.json"
