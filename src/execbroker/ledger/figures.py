"""What the ledger knows that is worth a curve. SQL for every store; times are seconds since 1970."""

from typing import Any

from sqlalchemy import ColumnElement, CompoundSelect, and_, func, literal, select, union_all

from execbroker.ledger.checks import AMOUNTS, ENDED, Query
from execbroker.ledger.events import arrival
from execbroker.ledger.tables import bookings, capacities, events, sessions
from execbroker.model.phases import Phase


def phases() -> Query:
    """How many sessions and offers there are in each phase."""
    return select(sessions.c.phase, func.count().label("sessions")).group_by(sessions.c.phase)


def amounts(now: int) -> CompoundSelect[Any]:
    """What is held of each platform at `now`, and what it has: of each kind, and without a kind cores, memory and storage."""
    kind = func.coalesce(bookings.c.kind, "").label("kind")
    held = select(literal("held").label("what"), bookings.c.platform, kind, *_sums(bookings.c))
    held = held.where(bookings.c.start <= now, bookings.c.end > now).group_by(bookings.c.platform, kind)
    has = select(literal("capacity"), capacities.c.platform, capacities.c.kind, *_sums(capacities.c))
    return union_all(held, has.group_by(capacities.c.platform, capacities.c.kind))


def oldest_due() -> Query:
    """Since when the engine has had something to do that it has not finished, or from when on it will."""
    return select(func.min(sessions.c.due))


def last_event() -> Query:
    return select(func.coalesce(func.max(events.c.seq), 0))


def moves(after: int, last: int) -> Query:
    """How many sessions came to each phase by the events after `after`, until `last`."""
    return select(events.c.phase, func.count().label("sessions")).where(_between(after, last)).group_by(events.c.phase)


def runs(after: int, last: int) -> Query:
    """The sessions that began to run, or ended, by the events after `after`, until `last`: when, and when they were accepted."""
    taken = events.alias("taken")
    accepted = select(func.min(taken.c.time)).where(taken.c.session == events.c.session, taken.c.phase == Phase.ACCEPTED.value)
    columns = (events.c.phase, events.c.time, sessions.c.created, sessions.c.slot, sessions.c.state)
    return (
        select(*columns, accepted.scalar_subquery().label("accepted"))
        .join(sessions, sessions.c.uuid == events.c.session)
        .where(_between(after, last), events.c.phase.in_([Phase.RUNNING.value, *ENDED]), sessions.c.slot.is_not(None))
    )


def _between(after: int, last: int) -> ColumnElement[bool]:
    return and_(events.c.seq > after, events.c.seq <= last, arrival())


def _sums(columns: Any) -> list[ColumnElement[int]]:
    return [func.sum(columns[name]).label(name) for name in AMOUNTS]
