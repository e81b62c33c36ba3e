from typing import Annotated, Any, ClassVar, Literal

from pydantic import ModelWrapValidatorHandler, PrivateAttr, field_validator, model_validator

from execbroker.model.base import Wire
from execbroker.model.components import (
    AbstractComponent,
    AbstractComputeResource,
    Compute,
    Cost,
    Data,
    Executable,
    Metric,
    Storage,
)
from execbroker.model.hints import Xml
from execbroker.model.phases import Phase
from execbroker.model.registry import Family, published
from execbroker.model.times import DateTime, Duration, Instant, Interval


class Callback(Wire):
    """An extension: an address that is told of what happens to the sessions of a request; of all, or of what `events` names,
    phases, `schedule` and `message`."""

    url: str | None = None
    events: list[str] | None = None


class RegisteredCallback(Callback):
    """As it is in replies to its owner: the `secret` that what is sent there is signed with, whether all was told (DONE) or the
    address wants no more (GONE), and how often, and why, the next message could not be delivered."""

    secret: str | None = None
    status: Literal["OPEN", "DONE", "GONE"] | None = None
    tries: int | None = None
    failure: str | None = None


class SimpleSessionConnector(Wire):
    """An address at which a session, or its output, is reached."""

    kind: str | None = None
    status: Literal["PREPARING", "AVAILABLE", "FINISHED"] | None = None
    protocol: str | None = None
    location: str | None = None


class ScheduleStartDurationInstant(Wire):
    start: Instant | None = None
    duration: Duration | None = None


class ScheduleStartDurationInterval(Wire):
    start: Interval | None = None
    duration: Duration | None = None


class ScheduledExecutionSchedule(Wire):
    """When a session is prepared, available (promised, to the second) and released."""

    preparing: ScheduleStartDurationInstant | None = None
    available: ScheduleStartDurationInterval | None = None
    releasing: ScheduleStartDurationInstant | None = None


class AbstractExecutionSession(AbstractComponent):
    pass


class UnknownExecutionSession(AbstractExecutionSession):
    pass


SESSIONS = Family("session", AbstractExecutionSession, UnknownExecutionSession)


@SESSIONS.register(published("session", "simple-execution-session"))
class SimpleExecutionSession(AbstractExecutionSession):
    """Extensions: `platform`, where it is to run, by its name; `further_compute`, where the request had several; `objective`,
    what an offer is best in, where it was asked; `callbacks`, where the request had any."""

    ELEMENT: ClassVar[str] = "execution"
    phase: Phase | None = None
    expires: DateTime | None = None
    executable: Executable | None = None
    compute: Compute | None = None
    further_compute: list[Compute] | None = None
    storage: list[Storage] | None = None
    data: list[Data] | None = None
    connectors: list[SimpleSessionConnector] | None = None
    objective: str | None = None
    platform: str | None = None
    callbacks: list[RegisteredCallback] | None = None


@SESSIONS.register(published("session", "scheduled-execution-session"))
class ScheduledExecutionSession(SimpleExecutionSession):
    schedule: ScheduledExecutionSchedule | None = None


Session = Annotated[AbstractExecutionSession, SESSIONS]


class RequestedScheduleItem(Wire):
    """How long, and between which instants to start.

    The extension `flexible`: the start may be pulled forward, when room comes free earlier, until shortly before.
    """

    duration: Duration | None = None
    start: Interval | None = None
    flexible: bool | None = None


class RequestedScheduleBlock(Wire):
    requested: RequestedScheduleItem | None = None


class ExecutionRequest(Wire):
    """When, where and how can I run this? All but the executable has a default.

    `compute` may be a list: the first is the published field, the others are the extension `further_compute`. The extension
    `objectives` says what the offers are to be best in, `platforms` where it is to run, by their names; anywhere without it;
    `callbacks` who is told of what happens.
    """

    ELEMENT: ClassVar[str] = "offers-request"
    executable: Executable | None = None
    compute: Compute | None = None
    further_compute: list[Compute] | None = None
    storage: list[Storage] | None = None
    data: list[Data] | None = None
    schedule: RequestedScheduleBlock | None = None
    costs: list[Cost] | None = None
    metrics: list[Metric] | None = None
    objectives: list[str] | None = None
    platforms: list[str] | None = None
    callbacks: list[Callback] | None = None
    _as_list: bool = PrivateAttr(False)

    @property
    def computes(self) -> list[tuple[str, AbstractComputeResource]]:
        """Every compute resource, with its path in the request as it was written."""
        found = enumerate([self.compute, *(self.further_compute or [])])
        return [(self.compute_path(index), compute) for index, compute in found if compute]

    def compute_path(self, index: int) -> str:
        """That of one of them, whether it is there or not."""
        return f"compute[{index}]" if self._as_list or self.further_compute else "compute"

    @field_validator("objectives", "platforms", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """One alone needs no list around it."""
        return [value] if isinstance(value, str) else value

    @model_validator(mode="wrap")
    @classmethod
    def _unlist(cls, document: Any, read: ModelWrapValidatorHandler["ExecutionRequest"]) -> "ExecutionRequest":
        if not (isinstance(document, dict) and isinstance(compute := document.get("compute"), list)):
            return read(document)
        first, *others = compute or [None]
        request = read({**document, "compute": first, **({"further_compute": others} if others else {})})
        request._as_list = True  # noqa: SLF001 -- it is its own
        return request


class OfferSetResponse(AbstractComponent):
    """YES with offers, best first, or NO with every reason among `meta.messages`. The extension `callbacks` is there where the
    request had any."""

    KIND = published("offerset", "execution-offerset")
    ELEMENT: ClassVar[str] = "offers-response"

    result: Literal["YES", "NO"] | None = None
    description: str | None = None
    offers: Annotated[list[Annotated[Session, Xml("execution")]] | None, Xml(wrapped=True)] = None
    callbacks: list[RegisteredCallback] | None = None
