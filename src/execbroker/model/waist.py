"""What the two halves of the broker say to each other: kinds on one side, platforms and fetchers on the other."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Source:
    """One file to fetch: from `url`, to `path` (a bare file name where it is not yet known which folder it goes to).

    `size` in bytes and `checksum` (`sha256:…`) where the client declared them.
    """

    url: str
    path: str
    size: int | None = None
    checksum: str | None = None


@dataclass(frozen=True, slots=True)
class Named:
    """Something that a request names, for which a platform may have rules: its `sort`, the `path` of the field, the `text`."""

    sort: str
    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Mount:
    """`source`, a path relative to the job's folder, is seen at `path`: absolute, or relative to the session's home."""

    path: str
    source: str
    readonly: bool


@dataclass(frozen=True, slots=True)
class Port:
    """A port that the program listens on. The platform picks the number and passes it in the variable `env`.

    `path` is the path and query of the address to connect to; `{secret}` in it becomes the session's secret.
    `address_env`, where given, names the variable that gets the address to listen on.
    """

    env: str
    protocol: str = "HTTP"
    path: str = "/"
    address_env: str | None = None


Form = Literal["process", "oci", "sif"]
"""What sort of thing is run."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What a platform has to do to run an executable, whatever kind it was.

    `form` says what sort of thing is run: a `process` (`command` in an environment with the Python `requirements`), an
    `oci` or a `sif` image. `sources` are fetched to the session's home and `files` (path → text) written there first.
    `secret_env` is the variable in which the program finds the session's secret.
    """

    form: Form
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    requirements: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[Port, ...] = ()
    secret_env: str | None = None
    image: str | None = None


Counts = tuple[tuple[str, int], ...]
"""How many of each kind, sorted by kind."""


@dataclass(frozen=True, slots=True)
class Node:
    """A machine, or what a platform treats as one: whole cores, memory and storage in GiB, accelerators by kind."""

    name: str
    cores: int
    memory: int
    storage: int = 0
    accelerators: Counts = ()


@dataclass(frozen=True, slots=True)
class Flavour:
    """A fixed size that a platform gives its sessions."""

    name: str
    cores: int
    memory: int
    accelerators: Counts = ()


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a platform can give. Where it has `flavours`, every session is of one of these sizes.

    `pools` is what its nodes share: `storage` in GiB (where there is such a pool, all storage is there and none on nodes),
    `staging` in MB/s, and licences by name. `notes` are sentences for people on how it keeps sessions to what they were given.
    """

    nodes: tuple[Node, ...]
    notes: tuple[str, ...] = ()
    pools: Counts = ()
    flavours: tuple[Flavour, ...] = ()
    accelerator_memory: Counts = ()
    """GiB of each accelerator, by kind."""


@dataclass(frozen=True, slots=True)
class Share:
    """What a session has of one node."""

    node: str
    cores: int
    memory: int
    accelerators: Counts = ()
    flavour: str | None = None


@dataclass(frozen=True, slots=True)
class Slot:
    """A place on a timeline: where, when and how much. Times are whole seconds since 1970, sizes GiB.

    From `prepare` until `start` data is staged, from `start` until `end` the session is available, until `done` released.
    Each of `shares` is of another node. Each of `storages` is the size of one storage resource and the time until which it
    is kept: on the first node, or, where `pooled`, in the pool that the platform's nodes share; `licences` are held all the
    time, `staging` (MB/s) until the start. `batch` work keeps off what is kept for interactive work.

    A flexible session has a `floor`: it may be pulled forward as far as that, those of higher `priority` first.
    """

    platform: str
    shares: tuple[Share, ...]
    prepare: int
    start: int
    end: int
    done: int
    storages: tuple[tuple[int, int], ...] = ()
    pooled: bool = False
    licences: Counts = ()
    staging: int = 0
    batch: bool = False
    floor: int | None = None
    priority: int = 0

    @property
    def node(self) -> str:
        """The first node: where the program is started."""
        return self.shares[0].node


@dataclass(frozen=True, slots=True)
class Job:
    """All that a platform is told of a session. `folder` is the session's own, on the broker's disk: `home` below it is
    where the program starts, `storage` holds its storage; what is there at the end are the results."""

    uuid: UUID
    launch: Launch
    sources: tuple[Source, ...]
    mounts: tuple[Mount, ...]
    shares: tuple[Share, ...]
    start: datetime
    end: datetime
    folder: Path
    secret: str

    @property
    def node(self) -> str:
        """The node on which the program is started."""
        return self.shares[0].node

    @property
    def cores(self) -> int:
        """Of that node."""
        return self.shares[0].cores

    @property
    def memory(self) -> int:
        """Of that node, in GiB."""
        return self.shares[0].memory


@dataclass(frozen=True, slots=True)
class Connector:
    """A way to reach a running session."""

    kind: str
    protocol: str
    location: str
    status: Literal["PREPARING", "AVAILABLE", "FINISHED"] = "PREPARING"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far preparation has come: `done`, or `bytes` of `total` (None: unknown) and a word on what is going on."""

    done: bool
    bytes: int = 0
    total: int | None = None
    doing: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """What a platform knows of a session: `running`, `ended` with an exit code, or `unknown` to it.

    `complaint` is what a person should be told of an end that was not the program's own doing; `on_time_limit` says that
    it ended because its time was over.
    """

    state: Literal["running", "ended", "unknown"]
    exit_code: int | None = None
    complaint: str | None = None
    on_time_limit: bool = False
    warnings: tuple[str, ...] = ()
    connectors: tuple[Connector, ...] = ()
