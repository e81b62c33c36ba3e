import json
from dataclasses import dataclass, field, fields
from typing import Any
from uuid import UUID

from execbroker.model.phases import Phase
from execbroker.model.waist import Share, Slot
from execbroker.scheduling.amounts import Amounts
from execbroker.scheduling.timeline import Booking, Place


@dataclass(frozen=True, slots=True)
class OfferSetRow:
    """One answer to one request: `request` and `messages` are JSON texts, times seconds since 1970."""

    uuid: UUID
    owner: str
    created: int
    modified: int
    expires: int
    result: str
    request: str
    messages: str


@dataclass(frozen=True, slots=True)
class State:
    """What the engine found out about a session; `told` is the end that its platform knows, `tidied` when storage that was
    over was last deleted."""

    connectors: tuple[dict[str, str], ...] = ()
    doing: str = ""
    failures: int = 0
    unreachable_since: int | None = None
    ended: int | None = None
    started: int | None = None
    told: int | None = None
    tidied: int = 0


@dataclass(frozen=True, slots=True)
class SessionRow:
    """One session, from the offer to its end; its own job: `due` is when the engine looks at it next.

    `outcome` is how it will end once it is released. `slot` is None for a session that was refused. `quote` is the JSON text
    of what it was offered for. `groups` are those that its owner had when it was asked for.
    """

    uuid: UUID
    offerset: UUID
    owner: str
    rank: int
    phase: Phase
    created: int
    modified: int
    expires: int
    slot: Slot | None
    secret: str
    quote: str | None = None
    outcome: Phase | None = None
    version: int = 0
    state: State = field(default_factory=State)
    due: int | None = None
    lease: str | None = None
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """The core-seconds that an ended session has used of a platform in a `month`, given by its first second."""

    session: UUID
    month: int
    platform: str
    owner: str
    groups: tuple[str, ...]
    core_seconds: int


@dataclass(frozen=True, slots=True)
class CallbackRow:
    """Who is told of the events of an offerset's sessions: of all, or of the phases and sorts that `events` names.

    `secret` is what every message is signed with. They were told of all until the event `position`; `tries` of the next one
    have failed, the last because of `failure`, and the next is at `due`.
    """

    uuid: UUID
    offerset: UUID
    url: str
    events: tuple[str, ...] | None
    secret: str
    position: int = 0
    tries: int = 0
    due: int | None = None
    lease: str | None = None
    failure: str | None = None
    ended: str | None = None


def callback_values(row: CallbackRow) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in _CALLBACK}
    wanted = None if row.events is None else json.dumps(row.events)
    return values | {"uuid": str(row.uuid), "offerset": str(row.offerset), "events": wanted}


def read_callback(row: Any) -> CallbackRow:
    values = {name: getattr(row, name) for name in _CALLBACK}
    wanted = None if row.events is None else tuple(json.loads(row.events))
    return CallbackRow(**values | {"uuid": UUID(row.uuid), "offerset": UUID(row.offerset), "events": wanted})


def offerset_values(row: OfferSetRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _OFFERSET} | {"uuid": str(row.uuid)}


def session_values(row: SessionRow) -> dict[str, Any]:
    return {
        "uuid": str(row.uuid),
        "offerset": str(row.offerset),
        "owner": row.owner,
        "rank": row.rank,
        "phase": row.phase.value,
        "outcome": row.outcome.value if row.outcome else None,
        "created": row.created,
        "modified": row.modified,
        "version": row.version,
        "expires": row.expires,
        "slot": slot_text(row.slot) if row.slot else None,
        "state": state_text(row.state),
        "secret": row.secret,
        "quote": row.quote,
        "due": row.due,
        "groups": groups_text(row.groups),
    }


def read_offerset(row: Any) -> OfferSetRow:
    return OfferSetRow(UUID(row.uuid), *row[1:])


def read_session(row: Any) -> SessionRow:
    return SessionRow(
        uuid=UUID(row.uuid),
        offerset=UUID(row.offerset),
        owner=row.owner,
        rank=row.rank,
        phase=Phase(row.phase),
        outcome=Phase(row.outcome) if row.outcome else None,
        created=row.created,
        modified=row.modified,
        version=row.version,
        expires=row.expires,
        slot=read_slot(row.slot) if row.slot else None,
        state=State(**json.loads(row.state)),
        secret=row.secret,
        quote=row.quote,
        due=row.due,
        lease=row.lease,
        groups=read_groups(row.groups),
    )


def usage_values(row: Usage) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _USAGE} | {"session": str(row.session), "groups": groups_text(row.groups)}


def read_usage(row: Any) -> Usage:
    return Usage(UUID(row.session), row.month, row.platform, row.owner, read_groups(row.groups), row.core_seconds)


def groups_text(groups: tuple[str, ...]) -> str | None:
    return _DUMP(groups) if groups else None


def read_groups(text: str | None) -> tuple[str, ...]:
    return tuple(json.loads(text)) if text else ()


def read_booking(
    platform: str, node: str, start: int, end: int, cores: int, memory: int, storage: int, kind: str | None, count: int
) -> Booking:
    """Of the columns BOOKED."""
    amounts = Amounts(cores, memory, storage, ((kind, count),) if kind else ())
    return Booking(Place(platform, node), start, end, amounts)


def slot_text(slot: Slot) -> str:
    """Only what is not as it is by default."""
    changed = {name: value for name, default in _SLOT.items() if (value := getattr(slot, name)) != default}
    shares = [[getattr(share, name) for name in _SHARE] for share in slot.shares]
    return _DUMP(changed | {"shares": shares})


def schedule_text(old: Slot | None, new: Slot | None) -> str | None:
    """The times of `new`, where they are not those of `old`."""
    if old is None or new is None or (old.start, old.end) == (new.start, new.end):
        return None
    return _DUMP({"start": new.start, "end": new.end})


def read_slot(text: str) -> Slot:
    document = {name: _tuples(value) for name, value in json.loads(text).items()}
    return Slot(**{**document, "shares": tuple(Share(*share) for share in document["shares"])})


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def state_text(state: State) -> str:
    """Only what differs from a new state."""
    changed = {name: value for name in _STATE if (value := getattr(state, name)) != getattr(_NEW, name)}
    return _DUMP(changed) if changed else "{}"


BOOKED = ("platform", "node", "start", "end", "cores", "memory", "storage", "kind", "count")
_CALLBACK = tuple(one.name for one in fields(CallbackRow))
_OFFERSET = tuple(one.name for one in fields(OfferSetRow))
_USAGE = tuple(one.name for one in fields(Usage))
_SLOT = {one.name: one.default for one in fields(Slot)}
_SHARE = tuple(one.name for one in fields(Share))
_DUMP = json.JSONEncoder(separators=(",", ":")).encode
_STATE = tuple(one.name for one in fields(State))
_NEW = State()
