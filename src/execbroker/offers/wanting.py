import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice, product

from execbroker.model.messages import MessageItem, reason, warning
from execbroker.model.waist import Capacity
from execbroker.offers.asking import Plan
from execbroker.offers.limiting import PERFORMANCE, THROUGHPUT
from execbroker.offers.sizing import GPU, MOST_AMOUNT, AcceleratorAsk, NodeAsk
from execbroker.platforms.base import PlatformSettings
from execbroker.scheduling.asks import Ask, Candidate, Part

MOST_CHOICES = 8
"""In how many ways accelerators that may be of any kind are looked for on one platform."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request as it was understood: it has no candidates where something in it stands against it on each of `platforms`.

    `elsewhere` are candidates on platforms that the request leaves aside. `expires` in seconds.
    """

    owner: str
    request: str
    plan: Plan
    candidates: tuple[Candidate, ...]
    platforms: tuple[str, ...]
    warnings: tuple[MessageItem, ...]
    reasons: tuple[MessageItem, ...]
    expires: int
    limit: int
    longest: int
    elsewhere: tuple[Candidate, ...] = ()
    groups: tuple[str, ...] = ()
    """Those of the owner."""

    @property
    def ask(self) -> Ask:
        """What is looked for."""
        return ask_for(self.plan, self.candidates, self.limit, self.longest)


def ask_for(plan: Plan, candidates: tuple[Candidate, ...], limit: int, longest: int) -> Ask:
    earliest, latest = plan.start
    return Ask(
        parts=tuple(Part(node.cores, node.memory) for node in plan.nodes),
        storages=tuple(plan.storages),
        duration=plan.duration,
        earliest=earliest,
        latest=latest,
        candidates=candidates,
        limit=limit,
        licences=tuple(sorted(plan.licences.items())),
        batch=not plan.interactive,
        objectives=plan.objectives,
        longest=max(longest, plan.duration),
        limits=tuple((limit.currency, limit.most) for limit in plan.limits),
    )


def candidates_on(
    plan: Plan, settings: PlatformSettings, capacity: Capacity, prepare: float, staged: int
) -> Iterator[Candidate | MessageItem]:
    """A platform as a candidate, once for every kind of accelerator that would do; or why it is none."""
    nodes = list(plan.nodes)
    for path, uri, least in plan.metrics:
        if uri == PERFORMANCE:
            each = max(0, min(least / settings.performance / len(nodes), 2 * MOST_AMOUNT))
            nodes = [_powerful(node, math.ceil(each)) for node in nodes]
        if uri == THROUGHPUT and settings.throughput is None:
            text = "{platform} does not say what its throughput is, so that {path} is not checked"
            yield warning("not-checked", path, text, platform=settings.name)
        elif uri == THROUGHPUT and settings.throughput is not None and settings.throughput < least:
            text = "{platform} has a throughput of {has} MB/s, {missing} less than {path} wants"
            missing = least - settings.throughput
            yield reason("too-slow", path, text, platform=settings.name, has=settings.throughput, missing=missing)
            return
    weak = [node for node in nodes if node.cores.min > node.cores.cap]
    if weak:
        text = "{platform} would need {cores} cores a node for {path}, more than are asked for at most"
        path = next(path for path, uri, _ in plan.metrics if uri == PERFORMANCE)
        yield reason("too-slow", path, text, platform=settings.name, cores=weak[0].cores.min)
        return
    mbytes = math.ceil(staged / max(prepare, 1) / 1e6) if staged else 0
    plain = Candidate(
        platform=settings.name,
        prepare=math.ceil(prepare),
        release=math.ceil(settings.release.total_seconds()),
        staging=mbytes,
        staged=staged,
        prices=settings.prices,
        performance=settings.performance,
        throughput=settings.throughput,
        priority=settings.priorities.get("interactive" if plan.interactive else "batch", 0),
    )
    choices = {node.path: _kinds(node, capacity) for node in nodes}
    for way in islice(product(*choices.values()), MOST_CHOICES):
        chosen = dict(zip(choices, way, strict=True))
        yield replace(plain, parts=tuple(chosen[node.path] for node in nodes))
    for path in (path for path, parts in choices.items() if not parts):
        text = "{platform} has no accelerators such as {path} wants; it has {known}"
        known = ", ".join(sorted({kind for node in capacity.nodes for kind, _ in node.accelerators})) or "none"
        yield reason("no-accelerators", f"{path}.accelerators", text, platform=settings.name, known=known)


def _powerful(node: NodeAsk, cores: int) -> NodeAsk:
    least = max(node.cores.min, cores)
    return replace(node, cores=replace(node.cores, min=least, max=max(node.cores.max, least)))


def _kinds(node: NodeAsk, capacity: Capacity) -> list[Part]:
    """The ways in which a platform's kinds of accelerators make what is wanted of one node."""
    memory = dict(capacity.accelerator_memory)
    here = sorted({kind for one in capacity.nodes for kind, _ in one.accelerators})

    def kinds(wanted: AcceleratorAsk) -> list[str]:
        named = here if wanted.kind == GPU and GPU not in here else [wanted.kind] if wanted.kind in here else []
        return [kind for kind in named if memory.get(kind, 0) >= wanted.memory]

    ways = product(*(kinds(wanted) for wanted in node.accelerators))
    return [
        Part(node.cores, node.memory, tuple(zip(way, (wanted.count for wanted in node.accelerators), strict=True)))
        for way in ways
        if len(set(way)) == len(way)
    ]
