import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, exists, func, select

from execbroker.ledger.ledger import Ledger
from execbroker.ledger.tables import events, forgotten, sessions
from execbroker.model.phases import Phase
from execbroker.model.times import format_instant

AT_ONCE = 500
LOOKED_AT = 2000
"""How many events, whoever's they are, are looked at for those of one owner at a time."""
Sort = Literal["phase", "schedule", "message"]


@dataclass(frozen=True)
class Event:
    """Something that happened to a session, numbered in the order of commits: it came to another phase, its times are others,
    or there was something to say of it. `time` is in seconds since 1970, `message` and `schedule` are JSON texts."""

    seq: int
    session: str
    offerset: str
    owner: str
    phase: Phase
    time: int
    sort: Sort
    message: str | None
    schedule: str | None

    @property
    def instant(self) -> str:
        return _instant(self.time)

    @cached_property
    def data(self) -> str:
        """What clients are told of it, one line of JSON; made once for all of them."""
        document: dict[str, Any] = {
            "session": self.session,
            "offerset": self.offerset,
            "phase": self.phase.value,
            "time": self.instant,
        }
        if self.schedule:
            document["schedule"] = {name: _instant(time) for name, time in json.loads(self.schedule).items()}
        if self.message:
            document["message"] = json.loads(self.message)
        return json.dumps(document, separators=(",", ":"))


class Page(NamedTuple):
    """Events in their order, up to the number `position`; whether there may be `more` after that."""

    events: Sequence[Event]
    position: int
    more: bool


class Events:
    """What has happened, as it was committed: who has read up to a number never finds an earlier one later."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def last(self) -> int:
        """The highest number so far; 0 where there is none."""
        return await self._number(select(func.max(events.c.seq)))

    async def forgotten(self, owner: str) -> int:
        """Up to which number events of an owner have been deleted."""
        return await self._number(select(func.max(forgotten.c.seq)).where(forgotten.c.owner == owner))

    async def _number(self, query: Select[*tuple[Any, ...]]) -> int:
        ((found,),) = await self._ledger.rows(query)
        return found or 0

    async def page(self, after: int) -> Page:
        """Everybody's."""
        return await self._page(_EVENTS, after)

    async def of_session(self, uuid: str, after: int) -> Page:
        return await self._page(_EVENTS.where(events.c.session == uuid), after)

    async def of_offerset(self, uuid: UUID, after: int, limit: int) -> Page:
        return await self._page(_EVENTS.where(sessions.c.offerset == str(uuid)), after, limit)

    async def of_owner(self, owner: str, after: int) -> Page:
        """Those of an owner among the next LOOKED_AT: so that none of these queries takes long, however much others do."""
        next_ = select(events.c.seq).where(events.c.seq > after).order_by(events.c.seq).limit(LOOKED_AT).subquery()
        until = await self._number(select(func.max(next_.c.seq)))
        if not until:
            return Page((), after, more=False)
        page = await self._page(_EVENTS.where(sessions.c.owner == owner, events.c.seq <= until), after, LOOKED_AT)
        return Page(page.events, until, more=True)

    async def _page(self, query: Select[*tuple[Any, ...]], after: int, limit: int = AT_ONCE) -> Page:
        rows = await self._ledger.rows(query.where(events.c.seq > after).order_by(events.c.seq).limit(limit))
        found = [_event(*row) for row in rows]
        return Page(found, found[-1].seq if found else after, more=len(found) == limit)


def arrival() -> ColumnElement[bool]:
    """The first event of a session in a phase; others are more that was said while it was there."""
    other = events.alias("other")
    same = and_(other.c.session == events.c.session, other.c.phase == events.c.phase, other.c.seq < events.c.seq)
    return ~exists().where(same)


def _event(seq: int, session: str, offerset: str, owner: str, phase: str, time: int, arrived: bool, *texts: str | None) -> Event:
    message, schedule = texts
    sort: Sort = "phase" if arrived else "schedule" if schedule else "message"
    return Event(seq, session, offerset, owner, Phase(phase), time, sort, message, schedule)


def _instant(seconds: int) -> str:
    return format_instant(datetime.fromtimestamp(seconds, UTC))


_EVENTS = select(
    events.c.seq,
    events.c.session,
    sessions.c.offerset,
    sessions.c.owner,
    events.c.phase,
    events.c.time,
    arrival(),
    events.c.message,
    events.c.schedule,
).join(sessions, sessions.c.uuid == events.c.session)
