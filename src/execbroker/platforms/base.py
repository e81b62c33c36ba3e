from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from execbroker.model.messages import MessageItem
from execbroker.model.times import Clock, Duration
from execbroker.model.waist import Capacity, Job, Launch, Mount, Progress, Slot, Source, Status
from execbroker.staging.base import Estimate
from execbroker.staging.stager import Stager


class NodeSettings(BaseModel):
    """`count` equal nodes; memory and storage in GiB."""

    model_config = ConfigDict(extra="forbid")

    count: int = Field(1, ge=1, description="How many such nodes there are.")
    cores: int = Field(ge=1, description="Whole cores that may be offered on each.")
    memory: int = Field(ge=1, description="Memory that may be offered on each, in GiB.")
    storage: int = Field(0, ge=0, description="Storage that may be offered on each, in GiB.")


class PlatformSettings(BaseModel):
    """What every platform has; a platform's own settings extend it."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="How the platform is called, unique in the file.")
    type: str = Field(description="The entry point of the platform's class: local, fake, or a stranger's.")
    nodes: list[NodeSettings] = Field(default_factory=list, description="What may be offered. Local: left out, this machine.")
    release: Duration = Field(
        timedelta(seconds=5), description="How long stopping a session and collecting its results may take."
    )
    poll: Duration = Field(timedelta(seconds=1), description="How often running sessions are looked at.")


@dataclass(frozen=True, slots=True)
class Context:
    """What the broker lends a platform: a folder of its own, the time, and the stager."""

    folder: Path
    clock: Clock
    stager: Stager
    hidden: tuple[Path, ...] = ()
    """Folders that no session may see: the broker's data."""


class Platform(ABC):
    """Where sessions run.

    Every verb may be called twice, and after a restart, for a session this process never started. A verb returns within
    seconds; what takes longer says so (`Progress`, False) and is asked again. A verb that cannot reach the platform
    raises Unreachable: the session keeps its phase, and a message says since when. PlatformFailure means that this
    session cannot go on, and why.
    """

    Settings: ClassVar[type[PlatformSettings]] = PlatformSettings

    def __init__(self, settings: Any, context: Context) -> None:
        self.settings: Any = settings
        self.name: str = settings.name
        self.context = context

    @abstractmethod
    async def capacity(self) -> Capacity:
        """What there is to offer. Asked at start and from time to time; raises Unreachable."""

    @abstractmethod
    def reasons_against(self, launch: Launch, mounts: Iterable[Mount]) -> list[MessageItem]:
        """Why this cannot run here: [] means it can. Pure: it asks nobody, and it is called within a request."""

    async def estimate(self, launch: Launch, sources: Iterable[tuple[str, Source]]) -> Estimate:
        """How long `prepare` will take, within two seconds: what cannot be learnt by then is guessed, with a warning.

        `sources` are those of the data, each with the path of the field of the request that it came from.
        """
        program = (("executable.location", source) for source in launch.sources)
        return await self.context.stager.estimate((*program, *sources))

    async def prepare(self, job: Job) -> Progress:
        """Bring data and storage into place; asked again until it is `done`. Raises PlatformFailure."""
        return await self.context.stager.stage(job)

    @abstractmethod
    async def start(self, job: Job) -> None:
        """Start the job, once.

        Derives a name from the job's uuid, looks for it and adopts what it finds, so that a second call, even after a
        crash in the middle of the first, starts nothing twice. Raises PlatformFailure.
        """

    @abstractmethod
    async def poll(self, jobs: Iterable[Job]) -> Mapping[UUID, Status]:
        """How these jobs, all of them started, are doing; one call for many."""

    @abstractmethod
    async def release(self, job: Job) -> bool:
        """Stop the job if it still runs and give back all it held, results excepted: True when nothing is left.

        Also the way out of failure and cancellation, at whatever point: of preparation, of a start that was never
        answered, of a job that this platform never saw.
        """

    @abstractmethod
    async def output(self, job: Job, stream: Literal["stdout", "stderr"], offset: int) -> bytes:
        """What the job wrote to `stream` from byte `offset` on, at most about a megabyte at once; b"" where there is no more."""

    async def hold(self, slot: Slot) -> None:
        """Where the platform itself keeps reservations: make this one."""

    async def unhold(self, slot: Slot) -> None:
        """Give it back."""

    async def close(self) -> None:
        """The broker stops; sessions go on."""


def declared(settings: PlatformSettings) -> Iterable[tuple[str, NodeSettings]]:
    """The nodes of the settings, each by its name."""
    number = 0
    for group in settings.nodes:
        for _ in range(group.count):
            number += 1
            yield f"{settings.name}-{number}", group
