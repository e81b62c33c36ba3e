from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from pydantic import TypeAdapter

from execbroker.engine.lifecycle import CHOICES
from execbroker.kinds.compute import Accelerators, Count, SimpleComputeCores, SimpleComputeMemory, SimpleComputeResource
from execbroker.kinds.storage import SimpleStorageResource, SimpleStorageSize
from execbroker.ledger.rows import OfferSetRow, SessionRow
from execbroker.lowering import folders_of
from execbroker.model.components import (
    AbstractComponent,
    ComponentMetadata,
    LifecycleSchedule,
    LifecycleStartDurationInstant,
    LifecycleStartDurationInterval,
)
from execbroker.model.messages import MessageItem, message
from execbroker.model.options import AbstractOption, EnumValueOption, IntegerDeltaOption
from execbroker.model.phases import Phase
from execbroker.model.sessions import (
    ExecutionRequest,
    OfferSetResponse,
    ScheduledExecutionSchedule,
    ScheduledExecutionSession,
    ScheduleStartDurationInstant,
    ScheduleStartDurationInterval,
    SimpleSessionConnector,
)
from execbroker.model.times import Interval
from execbroker.model.waist import Slot
from execbroker.offers.offering import COMPONENTS
from execbroker.offers.quoting import objective_of, quoted, quoted_for

C = TypeVar("C", bound=AbstractComponent)

EXECUTABLE, COMPUTE, VOLUMES, STORAGES, DATA, FURTHER = 1, 2, 0x1000, 0x2000, 0x3000, 0x4000
UNQUOTED = {"costs": None, "metrics": None}
"""A client's limits are not the broker's quotes."""
_MESSAGES = TypeAdapter(list[MessageItem])


def component_uuid(owner: UUID, number: int) -> UUID:
    """A component's uuid is its session's, with its number in the last 16 bits: no table is needed to find it again."""
    return UUID(int=owner.int + number)


def owner_of(component: UUID) -> UUID:
    """The uuid of the session or offerset that a component, or the thing itself, belongs to."""
    return UUID(int=component.int & ~(COMPONENTS - 1))


def moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@dataclass(frozen=True, slots=True)
class Renderer:
    """Rows of the ledger as documents of the wire; `base` is the address of the broker."""

    base: str

    def offerset(self, row: OfferSetRow, offers: Iterable[SessionRow], request: ExecutionRequest) -> OfferSetResponse:
        messages = _MESSAGES.validate_json(row.messages) if row.messages != "[]" else []
        return OfferSetResponse(
            meta=ComponentMetadata(
                uuid=row.uuid,
                url=f"{self.base}/offersets/{row.uuid}",
                created=moment(row.created),
                modified=moment(row.modified),
                messages=[_dated(item, row.created) for item in messages] or None,
            ),
            result=row.result,
            offers=[self.session(offer, request) for offer in offers],
        )

    def session(
        self,
        row: SessionRow,
        request: ExecutionRequest,
        said: Iterable[MessageItem] = (),
        room: tuple[int, int] | None = None,
    ) -> ScheduledExecutionSession:
        """One session; `said` are its messages, `room` by how many seconds its end can be moved back and on."""
        one = _Session(self.base, row, request)
        messages = list(said)
        if row.state.doing and row.phase is Phase.PREPARING:
            messages.append(message("INFO", "progress", "{doing}", doing=row.state.doing))
        options: list[AbstractOption] = []
        if choices := CHOICES.get(row.phase):
            options.append(EnumValueOption(path="phase", values=[*choices]))
        if room and any(room):
            path = "schedule.available.duration"
            scale, units = (60, "minutes") if max(room) >= 60 else (1, "seconds")
            options.append(IntegerDeltaOption(path=path, min=-(room[0] // scale), max=room[1] // scale, units=units))
        return ScheduledExecutionSession(
            meta=ComponentMetadata(
                uuid=row.uuid,
                url=f"{self.base}/sessions/{row.uuid}",
                created=moment(row.created),
                modified=moment(row.modified),
                messages=messages or None,
                options=options or None,
            ),
            **quoted(row.quote),
            objective=objective_of(row.quote),
            platform=row.slot.platform if row.slot else None,
            phase=row.phase,
            expires=moment(row.expires) if row.phase is Phase.OFFERED else None,
            executable=one.component(request.executable, EXECUTABLE) if request.executable else None,
            compute=one.compute(),
            further_compute=one.further_compute() or None,
            storage=one.storages() or None,
            data=one.data() or None,
            connectors=one.connectors() or None,
            schedule=_schedule(row.slot, ScheduledExecutionSchedule) if row.slot else None,
        )


class _Session:
    """The parts of one session's document."""

    def __init__(self, base: str, row: SessionRow, request: ExecutionRequest) -> None:
        self.base, self.row, self.request = base, row, request
        self.phase = row.phase.of_components
        self.schedule = _schedule(row.slot, LifecycleSchedule) if row.slot else None
        self.numbers = {item.name: STORAGES + i for i, item in enumerate(request.storage or [])}
        self.numbers |= {item.name: DATA + i for i, item in enumerate(request.data or [])}

    def uuid_of(self, name: str | None) -> str | None:
        return str(component_uuid(self.row.uuid, self.numbers[name])) if name in self.numbers else name

    def meta(self, component: AbstractComponent, number: int) -> ComponentMetadata:
        uuid, asked = component_uuid(self.row.uuid, number), component.meta
        return ComponentMetadata(
            uuid=uuid,
            name=asked.name if asked else None,
            description=asked.description if asked else None,
            url=f"{self.base}/components/{uuid}",
            created=moment(self.row.created),
            modified=moment(self.row.modified),
        )

    def component(self, component: C, number: int, **values: Any) -> C:
        """A copy of the client's component with what the broker adds to it."""
        filled = {"meta": self.meta(component, number), "phase": self.phase, "schedule": self.schedule, **UNQUOTED, **values}
        return component.model_copy(update=filled)

    def compute(self) -> AbstractComponent | None:
        asked = self.request.compute
        if asked is None:
            return None
        volumes = [
            volume.model_copy(
                update={
                    "meta": self.meta(volume, VOLUMES + i),
                    "resource": self.uuid_of(getattr(volume, "resource", None)),
                    **UNQUOTED,
                }
            )
            for i, volume in enumerate(asked.volumes or [])
        ]
        quote = quoted(self.row.quote, lambda parts: parts.compute)
        return self.component(asked, COMPUTE, **quote, volumes=volumes or None, **self._held(asked, 0))

    def further_compute(self) -> list[AbstractComponent]:
        found: list[AbstractComponent] = []
        first = _replicas(self.request.compute)
        for index, asked in enumerate(self.request.further_compute or []):
            found.append(self.component(asked, FURTHER + index, volumes=None, **self._held(asked, first)))
            first += _replicas(asked)
        return found

    def _held(self, asked: AbstractComponent, first: int) -> dict[str, Any]:
        """What is held of a node for a compute resource, of which `first` is the number of its share."""
        if not (isinstance(asked, SimpleComputeResource) and asked.cores and asked.memory and self.row.slot):
            return {}
        share = self.row.slot.shares[first]
        held: dict[str, Any] = {
            "cores": SimpleComputeCores(min=asked.cores.min, max=share.cores),
            "memory": SimpleComputeMemory(min=asked.memory.min, max=share.memory),
        }
        if share.flavour:
            held["flavour"] = share.flavour
        if asked.accelerators:
            held["accelerators"] = _accelerators(asked.accelerators, dict(share.accelerators))
        return held

    def storages(self) -> list[AbstractComponent]:
        return [self._storage(storage, i) for i, storage in enumerate(self.request.storage or [])]

    def _storage(self, storage: AbstractComponent, index: int) -> AbstractComponent:
        slot = self.row.slot
        data = [self.uuid_of(item.name) for item in self.request.data or [] if item.storage == storage.name]
        values: dict[str, Any] = {"data": data or None}
        if isinstance(storage, SimpleStorageResource) and slot and index < len(slot.storages):
            size, until = slot.storages[index]
            values |= quoted_for(self.row.quote, lambda parts: sum(parts.storages[index : index + 1]))
            values["size"] = SimpleStorageSize(min=storage.size.min if storage.size else None, max=size)
            values["schedule"] = _schedule(slot, LifecycleSchedule, until)
            if self.row.phase.is_final and self.row.state.started is not None and self.row.state.tidied < until:
                values["location"] = f"{self.base}/sessions/{self.row.uuid}/files/{folders_of(self.request)[storage.name or '']}/"
                values["expires"] = moment(until)
        return self.component(storage, STORAGES + index, **values)

    def data(self) -> list[AbstractComponent]:
        """What staging costs is known for all of it together, and so told where there is one."""
        items = self.request.data or []
        quote = quoted_for(self.row.quote, lambda parts: parts.data) if len(items) == 1 else {}
        return [self.component(item, DATA + i, **quote, storage=self.uuid_of(item.storage)) for i, item in enumerate(items)]

    def connectors(self) -> list[SimpleSessionConnector]:
        found = [SimpleSessionConnector(**one) for one in self.row.state.connectors]
        if self.row.state.started is not None:
            status = "FINISHED" if self.row.phase.is_final else "AVAILABLE"
            url = f"{self.base}/sessions/{self.row.uuid}"
            protocol = self.base.partition(":")[0].upper()
            found += [
                SimpleSessionConnector(
                    kind=f"urn:execbroker:connector:{name}", protocol=protocol, status=status, location=f"{url}/{name}"
                )
                for name in ("stdout", "stderr")
            ]
        return found


def _replicas(compute: AbstractComponent | None) -> int:
    return compute.replicas or 1 if isinstance(compute, SimpleComputeResource) else 1


def _accelerators(asked: list[Accelerators], held: dict[str, int]) -> list[Accelerators]:
    """What was asked for with what is held: those of any kind get the kind that no other has."""
    named = {one.kind for one in asked}
    found = []
    for one in asked:
        kind = one.kind if one.kind in held else next((kind for kind in held if kind not in named), one.kind)
        least = one.count.min if one.count else None
        found.append(one.model_copy(update={"kind": kind, "count": Count(min=least, max=held.pop(kind or "", None))}))
    return found


S = TypeVar("S", ScheduledExecutionSchedule, LifecycleSchedule)
_PARTS = {
    ScheduledExecutionSchedule: (ScheduleStartDurationInstant, ScheduleStartDurationInterval),
    LifecycleSchedule: (LifecycleStartDurationInstant, LifecycleStartDurationInterval),
}


def _schedule(slot: Slot, whole: type[S], end: int | None = None) -> S:
    """A slot as preparing, available (a promise to the second, or, where it is flexible, the latest) and releasing; `end` is
    when storage that is kept goes."""
    instant, interval = _PARTS[whole]
    start, over = moment(slot.start), moment(slot.end)
    earliest = start if slot.floor is None else moment(slot.floor)
    return whole(
        preparing=instant(start=moment(slot.prepare), duration=timedelta(seconds=slot.start - slot.prepare)),
        available=interval(
            start=Interval(earliest, start),
            duration=timedelta(seconds=slot.end - slot.start),
        ),
        releasing=instant(start=over, duration=timedelta(seconds=max((end or slot.done) - slot.end, 0))),
    )


def _dated(item: MessageItem, time: int) -> MessageItem:
    item.time = item.time or moment(time)
    return item
