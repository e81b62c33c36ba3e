"""What must return no rows. SQL that SQLite (3.35 or newer) and PostgreSQL both understand; times are seconds since 1970."""

from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

from sqlalchemy import CompoundSelect, Select, and_, case, exists, func, literal, not_, or_, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from execbroker.ledger.ledger import Ledger
from execbroker.ledger.tables import bookings, capacities, sessions
from execbroker.model.phases import FINAL, HOLDING, Phase
from execbroker.scheduling.timeline import BATCH

Query: TypeAlias = Select[*tuple[Any, ...]]
AMOUNTS = ("cores", "memory", "storage", "count")
_PLACE = ("platform", "node", "kind")
OPEN = [Phase.INITIAL.value, Phase.OFFERED.value]
TAKEN = [phase.value for phase in HOLDING if phase.value not in OPEN]
ENDED = [phase.value for phase in FINAL if phase not in (Phase.REJECTED, Phase.EXPIRED)]


def reading(ledger: Ledger) -> AbstractAsyncContextManager[AsyncConnection]:
    """A connection to read what was committed."""
    return ledger.read(whole=True)


def overbooked(now: int) -> Query:
    """The stretches of time from `now` on in which more is held of a place than it has, unless it has become smaller.

    A place without a row, of a platform that has others, has nothing. A platform without any was never looked at since the
    ledger knows capacities: nothing can be said of it. What batch work may have is no resource of its own: it counts where it
    has a row.
    """
    levels, has = _levels(now), {name: func.coalesce(capacities.c[name], 0) for name in AMOUNTS}
    here = and_(*(levels.c[name] == capacities.c[name] for name in _PLACE))
    lacking = and_(levels.c.platform.in_(select(capacities.c.platform)), not_(levels.c.kind.startswith(BATCH)))
    return (
        select(levels, *(amount.label(f"has_{name}") for name, amount in has.items()))
        .select_from(levels.outerjoin(capacities, here))
        .where(capacities.c.shrunk.is_(None), or_(capacities.c.platform.is_not(None), lacking))
        .where(levels.c.until > levels.c.time, or_(*(levels.c[name] > amount for name, amount in has.items())))
        .order_by(*(levels.c[name] for name in _PLACE), levels.c.time)
    )


def _levels(now: int) -> Any:
    """What is held of every place over time: from `time` until `until` so much of each. What changes at the same time counts
    together, as the peers of a window do."""
    changes = _changes(now).subquery("changes")
    place = [changes.c[name] for name in _PLACE]
    until = func.lead(changes.c.time).over(partition_by=place, order_by=changes.c.time).label("until")
    sums = (func.sum(changes.c[name]).over(partition_by=place, order_by=changes.c.time).label(name) for name in AMOUNTS)
    return select(*place, changes.c.time, until, *sums).subquery("levels")


def _changes(now: int) -> CompoundSelect[Any]:
    """Every booking twice: as more when it begins, and as less when it ends."""
    place = (bookings.c.platform, bookings.c.node, func.coalesce(bookings.c.kind, "").label("kind"))
    begin = case((bookings.c.start > now, bookings.c.start), else_=now).label("time")
    ahead = and_(bookings.c.end > now, bookings.c.end > bookings.c.start)
    more = select(*place, begin, *(bookings.c[name].label(name) for name in AMOUNTS)).where(ahead)
    less = select(*place, bookings.c.end, *((-bookings.c[name]).label(name) for name in AMOUNTS)).where(ahead)
    return union_all(more, less)


def strays(now: int) -> Query:
    """What is held from `now` on for nobody: for no session that holds, nor for the storage of one that has ended, nor for
    open offers."""
    idle = and_(bookings.c.cores == 0, bookings.c.memory == 0, bookings.c.count == 0)
    kept = and_(sessions.c.phase.in_(ENDED), sessions.c.due.is_not(None), idle)
    rightful = and_(sessions.c.uuid.is_not(None), or_(sessions.c.phase.in_(TAKEN), kept))
    offers = sessions.alias("offers")
    offered = exists().where(offers.c.offerset == bookings.c.holder, offers.c.phase.in_(OPEN))
    whose = (bookings.c.holder, sessions.c.phase, bookings.c.platform, bookings.c.node)
    return (
        select(*whose, func.min(bookings.c.start).label("start"), func.max(bookings.c.end).label("end"))
        .select_from(bookings.outerjoin(sessions, sessions.c.uuid == bookings.c.holder))
        .where(bookings.c.end > now, not_(rightful), not_(offered))
        .group_by(*whose)
        .order_by(*whose)
    )


def bare() -> Query:
    """Sessions that should hold something, and offersets with open offers, for which nothing is held."""
    held = exists().where(bookings.c.holder == sessions.c.uuid)
    taken = select(sessions.c.uuid, sessions.c.phase).where(sessions.c.phase.in_(TAKEN), not_(held))
    held = exists().where(bookings.c.holder == sessions.c.offerset)
    offered = select(sessions.c.offerset, literal(None, sessions.c.phase.type)).where(sessions.c.phase.in_(OPEN), not_(held))
    found = union_all(taken, offered.distinct()).subquery("found")
    return select(found.c.uuid, found.c.phase).order_by(found.c.uuid)


def holds(now: int) -> Query:
    """How many bookings there are from `now` on."""
    return select(func.count()).select_from(bookings).where(bookings.c.end > now)


def shrunk() -> Query:
    """Places that have less than is held of them, and since when."""
    places = (capacities.c[name] for name in _PLACE)
    return select(capacities).where(capacities.c.shrunk.is_not(None)).order_by(*places)


def unknown(now: int) -> Query:
    """Platforms of which something is held, but not known what they have."""
    return (
        select(bookings.c.platform, func.count().label("holds"))
        .where(bookings.c.end > now, bookings.c.platform.not_in(select(capacities.c.platform)))
        .group_by(bookings.c.platform)
        .order_by(bookings.c.platform)
    )
