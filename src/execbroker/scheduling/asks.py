from dataclasses import dataclass

from execbroker.model.prices import Currency, Prices
from execbroker.model.waist import Counts
from execbroker.scheduling.amounts import Amounts, counts_of
from execbroker.scheduling.quotas import Most, Quota

FOREVER = 1 << 40  # seconds; beyond any time that is asked for


@dataclass(frozen=True, slots=True)
class Range:
    """At least `min`, at most `max`; `cap` is what was expressly asked for at most, where a size is not free to choose."""

    min: int
    max: int
    cap: int = FOREVER


@dataclass(frozen=True, slots=True)
class Part:
    """What is wanted of one node."""

    cores: Range
    memory: Range
    accelerators: tuple[tuple[str, Range], ...] = ()

    @property
    def least(self) -> Amounts:
        return Amounts(self.cores.min, self.memory.min, 0, counts_of((kind, count.min) for kind, count in self.accelerators))

    @property
    def fixed(self) -> bool:
        """Whether it wants exactly so much."""
        return all(wanted.min == wanted.max for wanted in (self.cores, self.memory, *(count for _, count in self.accelerators)))


@dataclass(frozen=True, slots=True)
class StorageAsk:
    """GiB, and for how many seconds after the end they are kept."""

    size: Range
    lifetime: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A platform that could run it, and what it means there.

    It takes `prepare` seconds to stage `staged` bytes and make ready, with `staging` MB/s of the platform's bandwidth, and
    `release` seconds to stop. `parts` are the ask's where they are others there, each accelerator of a kind that it has.
    `performance` is that of a core, `throughput` in MB/s; of flexible sessions, those of higher `priority` come first. It may
    have `most` there, and what the `quotas` leave.
    """

    platform: str
    prepare: int
    release: int
    staging: int = 0
    staged: int = 0
    prices: Prices | None = None
    parts: tuple[Part, ...] = ()
    performance: float = 1.0
    throughput: float | None = None
    priority: int = 0
    most: Most | None = None
    quotas: tuple[Quota, ...] = ()


@dataclass(frozen=True, slots=True)
class Ask:
    """What is looked for: `parts`, each on a node of its own, for `duration` seconds, starting within [earliest, latest].

    Storage is on the node of the first part, or in the platform's pool. `licences` are counts of the platform's pools.
    """

    parts: tuple[Part, ...]
    storages: tuple[StorageAsk, ...]
    duration: int
    earliest: int
    latest: int
    candidates: tuple[Candidate, ...]
    limit: int
    licences: Counts = ()
    batch: bool = False
    objectives: tuple[str, ...] = ("earliest",)
    longest: int = 0
    """The objective `longest` asks for up to so many seconds."""
    limits: tuple[tuple[Currency, float], ...] = ()
    """What it may cost at most."""
