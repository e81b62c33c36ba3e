from collections.abc import Iterator
from dataclasses import dataclass, field

from execbroker.config import OfferSettings
from execbroker.kinds.amounts import Gibibytes
from execbroker.kinds.compute import Accelerators, Count, SimpleComputeCores, SimpleComputeMemory, SimpleComputeResource
from execbroker.model.messages import MessageItem, reason
from execbroker.scheduling.amounts import BASIC
from execbroker.scheduling.asks import FOREVER, Range

MOST_AMOUNT = 1 << 40
MOST_NODES = 256
RESERVED = frozenset({*BASIC, "staging"})
"""What else there is in pools."""
GPU = "gpu"
"""Accelerators of any kind."""


@dataclass(frozen=True, slots=True)
class AcceleratorAsk:
    """So many of one kind, or of any, with at least `memory` GiB each."""

    kind: str
    count: Range
    memory: int


@dataclass(frozen=True, slots=True)
class NodeAsk:
    """What is wanted of one node, at `path` of the request."""

    path: str
    cores: Range
    memory: Range
    accelerators: tuple[AcceleratorAsk, ...] = ()


@dataclass(slots=True)
class Sizes:
    """What ranges are understood to mean, and all that is wrong with them."""

    defaults: OfferSettings
    reasons: list[MessageItem] = field(default_factory=list)

    def nodes(self, path: str, compute: SimpleComputeResource) -> Iterator[NodeAsk]:
        """The nodes that a compute resource asks for; fills in what it leaves out."""
        cores, memory = compute.cores or SimpleComputeCores(), compute.memory or SimpleComputeMemory()
        node = NodeAsk(
            path,
            self.range(f"{path}.cores", cores.min, cores.max, self.defaults.cores),
            self.range(f"{path}.memory", memory.min, memory.max, self.defaults.memory),
            tuple(self._accelerators(f"{path}.accelerators[{i}]", one) for i, one in enumerate(compute.accelerators or [])),
        )
        self.units(f"{path}.memory", memory)
        compute.cores = SimpleComputeCores(min=node.cores.min, max=node.cores.max)
        compute.memory = SimpleComputeMemory(min=node.memory.min, max=node.memory.max)
        if len({one.kind for one in node.accelerators}) < len(node.accelerators):
            self.reasons.append(reason("same-kind", f"{path}.accelerators", "The same kind comes twice in {path}; add them up"))
        yield from [node] * self._positive(f"{path}.replicas", compute.replicas, MOST_NODES)

    def licences(self, path: str, compute: SimpleComputeResource) -> Iterator[tuple[str, int]]:
        for index, licences in enumerate(compute.licences or []):
            at = f"{path}.licences[{index}]"
            if licences.name in RESERVED:
                text = "{name} in {path} is no licence"
                self.reasons.append(reason("no-licence", f"{at}.name", text, name=licences.name))
            else:
                yield licences.name, self._positive(f"{at}.count", licences.count, MOST_AMOUNT)

    def _accelerators(self, path: str, wanted: Accelerators) -> AcceleratorAsk:
        count, memory = wanted.count or Count(), wanted.memory or SimpleComputeMemory()
        asked = self.range(f"{path}.count", count.min, count.max, 1)
        self.units(f"{path}.memory", memory)
        wanted.kind, wanted.count = wanted.kind or GPU, Count(min=asked.min, max=asked.max)
        return AcceleratorAsk(wanted.kind, asked, memory.min or 0)

    def _positive(self, path: str, value: int | None, most: int) -> int:
        if value is None:
            return 1
        self._check(path, value, most)
        return min(max(value, 1), most)

    def range(self, path: str, least: int | None, most: int | None, default: int) -> Range:
        """From what was asked to at most twice that, and never beyond a requested maximum."""
        for name, value in (("min", least), ("max", most)):
            if value is not None:
                self._check(f"{path}.{name}", value, MOST_AMOUNT)
        if least is not None and most is not None and least > most:
            text = "In {path} min, {min}, is above max, {max}"
            self.reasons.append(reason("min-above-max", path, text, min=least, max=most))
        low = least if least is not None else min(default, most) if most is not None else default
        high = min(2 * low, most) if most is not None else 2 * low
        return Range(low, high, FOREVER if most is None else most)

    def _check(self, path: str, value: int, most: int) -> None:
        if not 1 <= value <= most:
            text = "{value} in {path} is out of range; 1 to {most} is possible"
            self.reasons.append(reason("not-positive" if value < 1 else "too-large", path, text, value=value, most=most))

    def units(self, path: str, amount: Gibibytes) -> None:
        if amount.units:
            text = "The units {units} in {path} are not known; GiB are"
            self.reasons.append(reason("unknown-units", f"{path}.units", text, units=amount.units))
