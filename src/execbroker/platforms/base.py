from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from execbroker.model.messages import MessageItem
from execbroker.model.policies import Policy
from execbroker.model.prices import WEEKDAYS, Hour, Prices, Weekday, Zone
from execbroker.model.times import Clock, Duration
from execbroker.model.waist import Capacity, Counts, Flavour, Job, Launch, Mount, Node, Progress, Slot, Source, Status
from execbroker.staging.base import Estimate
from execbroker.staging.stager import Stager


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AcceleratorSettings(Section):
    """Accelerators of one kind."""

    kind: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$", description="What they are called in requests: a100, mi250.")
    count: int = Field(1, ge=1, description="How many there are.")
    memory: int = Field(0, ge=0, description="How much memory each has, in GiB.")


class FlavourSettings(Section):
    """A fixed size that sessions have here."""

    name: str = Field(description="What it is called.")
    cores: int = Field(ge=1, description="Whole cores.")
    memory: int = Field(ge=1, description="Memory, in GiB.")
    accelerators: list[AcceleratorSettings] = Field(default_factory=list, description="Accelerators, by kind.")


class PoolSettings(Section):
    """What all nodes share."""

    storage: int | None = Field(None, ge=0, description="Storage in GiB; where given, none is on the nodes.")
    staging: int | None = Field(None, ge=1, description="How fast data can be staged in all, in MB/s.")
    licences: dict[str, int] = Field(default_factory=dict, description="How many of which licences there are, by name.")


class KeptSettings(Section):
    """A part of every node that is kept for interactive work at certain hours."""

    share: float = Field(gt=0, le=1, description="How much of each node, from 0 to 1; rounded up to whole cores.")
    days: list[Weekday] = Field(default_factory=lambda: list(WEEKDAYS), description="On which days of the week.")
    from_: Hour = Field(0, alias="from", description='The hour at which it begins, in quotes; by default "00:00".')
    until: Hour = Field(86400, description='The hour at which it ends, in quotes; by default "24:00".')
    zone: Zone = Field("UTC", description="The time zone of these hours, by its IANA name.")


class NodeSettings(Section):
    """`count` equal nodes; memory and storage in GiB."""

    count: int = Field(1, ge=1, description="How many such nodes there are.")
    cores: int = Field(ge=1, description="Whole cores that may be offered on each.")
    memory: int = Field(ge=1, description="Memory that may be offered on each, in GiB.")
    storage: int = Field(0, ge=0, description="Storage that may be offered on each, in GiB.")
    accelerators: list[AcceleratorSettings] = Field(default_factory=list, description="Accelerators of each, by kind.")


class PlatformSettings(Section):
    """What every platform has; a platform's own settings extend it."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="How the platform is called, unique in the file.")
    type: str = Field(description="The entry point of the platform's class: local, fake, or a stranger's.")
    nodes: list[NodeSettings] = Field(default_factory=list, description="What may be offered. Local: left out, this machine.")
    flavours: list[FlavourSettings] = Field(
        default_factory=list, description="Fixed sizes; where there are any, each session has the smallest that is enough."
    )
    pools: PoolSettings = Field(default_factory=PoolSettings, description="What all nodes share.")
    prices: Prices | None = Field(None, description="What sessions cost.")
    performance: float = Field(1.0, gt=0, description="How fast a core is, against one of the core that requests think of.")
    throughput: float | None = Field(None, ge=0, description="How fast sessions read and write, in MB/s.")
    priorities: dict[Literal["interactive", "batch"], int] = Field(
        {"interactive": 1, "batch": 0},
        description="Which flexible sessions are pulled forward first: those with the higher number.",
    )
    kept: list[KeptSettings] = Field(default_factory=list, description="What is kept for interactive work, and when.")
    policies: list[Policy] = Field(
        default_factory=list, description="Who may use it, for what, how much: the first rule that is for the caller applies."
    )
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
    several: bool = False
    """Whether several users share the broker: then a session of one must see no file, process or socket of another's."""


class Platform(ABC):
    """Where sessions run.

    Every verb may be called twice, and after a restart, for a session this process never started. A verb returns within
    seconds; what takes longer says so (`Progress`, False) and is asked again. A verb that cannot reach the platform
    raises Unreachable: the session keeps its phase, and a message says since when. PlatformFailure means that this
    session cannot go on, and why.
    """

    Settings: ClassVar[type[PlatformSettings]] = PlatformSettings
    several_nodes: ClassVar[bool] = False
    """Whether one session can have several nodes."""
    extendable: ClassVar[bool] = False
    """Whether a session that runs can be made longer."""
    isolating: ClassVar[bool] = False
    """Whether it keeps sessions of several users apart; where that takes what may be missing, `open` raises StartupError."""

    def __init__(self, settings: Any, context: Context) -> None:
        self.settings: Any = settings
        self.name: str = settings.name
        self.context = context

    async def open(self) -> None:
        """Called once, before the broker answers anyone. Raises StartupError where this platform may not be used as it is set up."""

    @abstractmethod
    async def capacity(self) -> Capacity:
        """What there is to offer. Asked at start and from time to time; raises Unreachable."""

    def whole(self, nodes: tuple[Node, ...], notes: tuple[str, ...] = ()) -> Capacity:
        """These nodes, with the pools and the flavours of the settings."""
        settings = self.settings
        pools = dict(settings.pools.licences)
        pools |= {name: size for name in ("storage", "staging") if (size := getattr(settings.pools, name)) is not None}
        flavours = tuple(Flavour(one.name, one.cores, one.memory, counted(one.accelerators)) for one in settings.flavours)
        kinds = [one for group in (*settings.nodes, *settings.flavours) for one in group.accelerators]
        memory = tuple(sorted({one.kind: one.memory for one in kinds}.items()))
        return Capacity(nodes, notes, tuple(sorted(pools.items())), flavours, memory)

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

    async def extend(self, job: Job) -> None:
        """The end of a job that runs has changed. Raises PlatformFailure where it can no longer be."""

    async def hold(self, slot: Slot) -> None:
        """Where the platform itself keeps reservations: make this one."""

    async def unhold(self, slot: Slot) -> None:
        """Give it back."""

    async def close(self) -> None:
        """The broker stops; sessions go on."""


def declared(settings: PlatformSettings) -> Iterable[Node]:
    """The nodes of the settings."""
    number = 0
    for group in settings.nodes:
        for _ in range(group.count):
            number += 1
            name = f"{settings.name}-{number}"
            yield Node(name, group.cores, group.memory, group.storage, counted(group.accelerators))


def counted(accelerators: Iterable[AcceleratorSettings]) -> Counts:
    counts: dict[str, int] = {}
    for one in accelerators:
        counts[one.kind] = counts.get(one.kind, 0) + one.count
    return tuple(sorted(counts.items()))
