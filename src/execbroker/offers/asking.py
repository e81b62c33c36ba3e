from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from execbroker.config import OfferSettings
from execbroker.kinds.compute import SimpleComputeResource
from execbroker.kinds.listing import FAMILIES
from execbroker.kinds.naming import safe_name
from execbroker.kinds.storage import SimpleStorageResource, SimpleStorageSize
from execbroker.kinds.volume import SimpleVolumeMount
from execbroker.lowering import mounts_of, sources_of
from execbroker.model.base import take_unknown
from execbroker.model.components import (
    AbstractComponent,
    AbstractDataResource,
    AbstractStorageResource,
    ComponentMetadata,
    UnknownDataResource,
    UnknownExecutable,
)
from execbroker.model.messages import MessageItem, reason, warning
from execbroker.model.sessions import ExecutionRequest, RequestedScheduleItem
from execbroker.model.waist import Launch, Mount, Source
from execbroker.offers.limiting import CostLimit, cost_limits, metric_limits
from execbroker.offers.sizing import MOST_NODES, NodeAsk, Sizes
from execbroker.scheduling.asks import StorageAsk
from execbroker.scheduling.objectives import SERIES

MOST = 1000
FAR = 95_617_584_000  # the year 5000: what is longest, begun then, still ends within the calendar


@dataclass(slots=True)
class Plan:
    """What a request means: the request with every default and reference filled in, and what follows from it.

    `reasons` are all that is wrong with it whatever the platform; `launch` is None where the executable itself is wrong.
    """

    request: ExecutionRequest
    launch: Launch | None = None
    sources: list[tuple[str, Source]] = field(default_factory=list)
    mounts: list[Mount] = field(default_factory=list)
    nodes: list[NodeAsk] = field(default_factory=list)
    licences: dict[str, int] = field(default_factory=dict)
    storages: list[StorageAsk] = field(default_factory=list)
    duration: int = 0
    start: tuple[int, int] = (0, 0)
    flexible: bool = False
    objectives: tuple[str, ...] = ("earliest",)
    limits: list[CostLimit] = field(default_factory=list)
    metrics: list[tuple[str, str, float]] = field(default_factory=list)
    unsaid: set[str] = field(default_factory=set)
    """Paths of resources that the request does not have: they were added to it."""
    reasons: list[MessageItem] = field(default_factory=list)
    warnings: list[MessageItem] = field(default_factory=list)

    @property
    def interactive(self) -> bool:
        """Whether somebody is to connect to it."""
        return bool(self.launch and self.launch.ports)


def understand(request: ExecutionRequest, defaults: OfferSettings, now: int) -> Plan:
    """Fill in a request and say all that is wrong with it; it asks nobody, and its argument becomes the plan's request."""
    plan = Plan(request)
    text = "The field {path} is not known here and was left out"
    plan.warnings += [warning("unknown-field", _as_written(request, path), text) for path in take_unknown(request)]
    _kinds(plan)
    if not _few_enough(plan):
        return plan
    _executable(plan)
    sizes = Sizes(defaults)
    _compute(plan, sizes)
    _schedule(plan, defaults, now)
    _references(plan, sizes)
    _objectives(plan)
    _limits(plan)
    plan.reasons += sizes.reasons
    plan.sources, plan.mounts = sources_of(request), mounts_of(request)
    return plan


def _as_written(request: ExecutionRequest, path: str) -> str:
    """A field's path, where what we have as `compute` and `further_compute` may be one list."""
    room, dot, field = path.partition(".")
    rooms = ["compute", *(f"further_compute[{index}]" for index in range(len(request.further_compute or [])))]
    return f"{request.compute_path(rooms.index(room))}{dot}{field}" if dot and room in rooms else path


def _components(request: ExecutionRequest) -> Iterator[tuple[str, AbstractComponent]]:
    if request.executable:
        yield "executable", request.executable
    for path, compute in request.computes:
        yield path, compute
        if compute is request.compute:
            yield from ((f"{path}.volumes[{index}]", volume) for index, volume in enumerate(compute.volumes or []))
    yield from ((f"storage[{index}]", storage) for index, storage in enumerate(request.storage or []))
    yield from ((f"data[{index}]", data) for index, data in enumerate(request.data or []))


def _kinds(plan: Plan) -> None:
    text = "The kind {kind} is not known here; those there are: {known}"
    for path, component in _components(plan.request):
        for family in FAMILIES:
            if isinstance(component, family.unknown):
                known = ", ".join(family.names)
                plan.reasons.append(reason("unknown-kind", f"{path}.kind", text, kind=component.kind, known=known))


def _few_enough(plan: Plan) -> bool:
    request = plan.request
    volumes = (request.compute and request.compute.volumes) or []
    lists: dict[str, list[Any]] = {"storage": request.storage or [], "data": request.data or [], "compute.volumes": volumes}
    lists["compute"] = request.further_compute or []
    too_many = [name for name, items in lists.items() if len(items) > MOST]
    plan.reasons += [reason("too-many", name, "More than {most} in {path}", most=MOST) for name in too_many]
    return not too_many


def _executable(plan: Plan) -> None:
    executable = plan.request.executable
    if executable is None:
        plan.reasons.append(reason("no-executable", "executable", "There is no {path} to run"))
    elif against := executable.reasons_against():
        plan.reasons += against
    elif not isinstance(executable, UnknownExecutable):
        plan.launch = executable.launch()


def _compute(plan: Plan, sizes: Sizes) -> None:
    request = plan.request
    if not isinstance(request.compute, SimpleComputeResource):
        request.compute = SimpleComputeResource()
        plan.unsaid.add(request.computes[0][0])
    for index, (path, compute) in enumerate(request.computes):
        if isinstance(compute, SimpleComputeResource):
            plan.nodes += sizes.nodes(path, compute)
            for name, count in sizes.licences(path, compute):
                plan.licences[name] = plan.licences.get(name, 0) + count
            if index and compute.volumes:
                text = "What is mounted is mounted on the first node alone: {path} was left out"
                plan.warnings.append(warning("not-mounted", f"{path}.volumes", text))
    if len(plan.nodes) > MOST_NODES:
        plan.reasons.append(reason("too-many", "compute", "More than {most} nodes in {path}", most=MOST_NODES))
        del plan.nodes[MOST_NODES:]


def _objectives(plan: Plan) -> None:
    wanted = plan.request.objectives or ["earliest"]
    for index, objective in enumerate(wanted):
        if objective not in SERIES:
            text = "{objective} in {path} is not an objective; those there are: {known}"
            path, known = f"objectives[{index}]", ", ".join(SERIES)
            plan.reasons.append(reason("unknown-objective", path, text, objective=objective, known=known))
    plan.objectives = tuple(dict.fromkeys(objective for objective in wanted if objective in SERIES)) or ("earliest",)


def _limits(plan: Plan) -> None:
    for found in (*cost_limits(plan.request), *metric_limits(plan.request)):
        match found:
            case MessageItem(level="WARN"):
                plan.warnings.append(found)
            case MessageItem():
                plan.reasons.append(found)
            case CostLimit():
                plan.limits.append(found)
            case (path, uri, least):
                plan.metrics.append((path, uri, least))


def _schedule(plan: Plan, defaults: OfferSettings, now: int) -> None:
    block = plan.request.schedule
    asked = (block and block.requested) or RequestedScheduleItem()
    path = "schedule.requested"
    plan.flexible = bool(asked.flexible)
    plan.duration = int((defaults.duration if asked.duration is None else asked.duration).total_seconds())
    if asked.duration is not None and plan.duration < 1:
        plan.reasons.append(reason("not-positive", f"{path}.duration", "The duration in {path} must be a second at least"))
    earliest, latest = now, now + int(defaults.horizon.total_seconds())
    if asked.start and asked.start.unreal:
        text = "{text} in {path} is not an interval between real times"
        plan.reasons.append(reason("unreal-time", f"{path}.start", text, text=asked.start.unreal))
    elif asked.start:
        earliest, latest = int(asked.start.start.timestamp()), int(asked.start.end.timestamp())
        if latest < earliest:
            plan.reasons.append(reason("empty-range", f"{path}.start", "The range in {path} ends before it begins"))
            latest = earliest
        elif latest < now:
            text = "The latest start in {path} was {ago} s ago"
            plan.reasons.append(reason("start-is-past", f"{path}.start", text, ago=now - latest))
        elif earliest > FAR:
            plan.reasons.append(reason("too-far", f"{path}.start", "The range in {path} begins after the year 4999"))
        earliest, latest = min(earliest, FAR), min(latest, FAR)
        if not asked.start.zoned:
            plan.warnings.append(warning("no-zone", f"{path}.start", "No time zone in {path}: UTC was taken"))
    plan.start = max(earliest, now), latest


def _references(plan: Plan, sizes: Sizes) -> None:
    """Which data lives in which storage, and what is mounted where."""
    request = plan.request
    request.storage, request.data = list(request.storage or []), list(request.data or [])
    _unnamed(plan)
    for index, data in enumerate(request.data):
        storage = _resolve(plan, f"data[{index}].storage", data.storage, "storage", request.storage)
        if data.storage is None:
            size = SimpleStorageSize(min=sizes.defaults.storage, max=sizes.defaults.storage)
            meta = ComponentMetadata(name=_free_name(request, f"{data.name}-storage"))
            storage = SimpleStorageResource(meta=meta, size=size)
            plan.unsaid.add(f"storage[{len(request.storage)}]")
            request.storage.append(storage)
        data.storage = storage.name if storage else data.storage
        _fetchable(plan, f"data[{index}]", data)
    for index, storage in enumerate(request.storage):
        if isinstance(storage, SimpleStorageResource):
            _size(plan, f"storage[{index}]", storage, sizes)
    _volumes(plan)


def _fetchable(plan: Plan, path: str, data: AbstractDataResource) -> None:
    try:
        if not isinstance(data, UnknownDataResource):
            data.sources()
    except ValueError as error:
        plan.reasons.append(reason("no-source", path, "Nothing to fetch at {path}: {text}", text=error))


def _unnamed(plan: Plan) -> None:
    """Give every resource a name, and complain of names used twice."""
    seen: dict[str, str] = {}
    for path, component in _components(plan.request):
        if not path.startswith(("storage", "data")):
            continue
        component.meta = component.meta or ComponentMetadata()
        component.meta.name = name = component.meta.name or _free_name(plan.request, path.replace("[", "-").rstrip("]"))
        if name in seen:
            text = "{path} has the name {name}, as has {other}"
            plan.reasons.append(reason("duplicate-name", f"{path}.meta.name", text, name=name, other=seen[name]))
        seen[name] = path


def _free_name(request: ExecutionRequest, wish: str) -> str:
    taken = {component.name for _, component in _components(request)}
    return next(name for number in range(MOST * 4) if (name := f"{wish}-{number}" if number else wish) not in taken)


def _resolve(
    plan: Plan, path: str, name: str | None, what: str, among: list[AbstractStorageResource] | list[AbstractComponent]
) -> AbstractComponent | None:
    """The resource that `name` means, by its name or its uuid in the request."""
    if name is None:
        return None
    for resource in among:
        if resource.name == name or (resource.meta and resource.meta.uuid and str(resource.meta.uuid) == name.lower()):
            return resource
    plan.reasons.append(reason("dangling", path, "{path} names {name}, but there is no such {what}", name=name, what=what))
    return None


def _size(plan: Plan, path: str, storage: SimpleStorageResource, sizes: Sizes) -> None:
    size = storage.size or SimpleStorageSize()
    wanted = sizes.range(f"{path}.size", size.min, size.max, sizes.defaults.storage)
    sizes.units(f"{path}.size", size)
    lifetime = int((storage.lifetime if storage.lifetime is not None else sizes.defaults.lifetime).total_seconds())
    if lifetime < 0:
        plan.reasons.append(reason("not-positive", f"{path}.lifetime", "The lifetime in {path} is negative"))
    storage.size = SimpleStorageSize(min=wanted.min, max=wanted.max)
    plan.storages.append(StorageAsk(wanted, max(lifetime, 0)))


def _volumes(plan: Plan) -> None:
    request = plan.request
    assert request.compute is not None
    resources: list[AbstractComponent] = [*(request.storage or []), *(request.data or [])]
    taken: dict[str, str] = {}
    for index, volume in enumerate(request.compute.volumes or []):
        path = f"{request.computes[0][0]}.volumes[{index}]"
        if not isinstance(volume, SimpleVolumeMount):
            continue
        if volume.resource is None and volume.name is None:
            plan.reasons.append(reason("dangling", f"{path}.resource", "{path} does not say which resource to mount"))
            continue
        resource = _resolve(plan, f"{path}.resource", volume.resource or volume.name, "storage or data resource", resources)
        volume.path = volume.path or f"volumes/{safe_name(volume.name or '', f'volume-{index}')}"
        target = _mount_point(plan, f"{path}.path", volume.path)
        if target in taken:
            plan.reasons.append(
                reason("same-path", f"{path}.path", "{other} is mounted at {target} already", target=target, other=taken[target])
            )
        taken[target] = path
        if resource is not None:
            volume.resource = resource.name
            volume.mode = volume.mode or ("READONLY" if isinstance(resource, AbstractDataResource) else "READWRITE")


def _mount_point(plan: Plan, path: str, text: str) -> str:
    point = PurePosixPath(f"/{text.lstrip('/')}" if text.startswith("/") else text)  # POSIX makes something else of two slashes
    if "\0" in text or ".." in point.parts or not point.parts or point.parts == ("/",):
        plan.reasons.append(
            reason("bad-path", path, "{text} in {path} is not a path that can be mounted at", text=text.replace("\0", "?"))
        )
    return str(point)
