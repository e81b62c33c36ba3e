from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, NamedTuple

from sqlalchemy import CompoundSelect, String, Text, and_, case, literal, or_, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from execbroker.ledger.checks import ENDED, OPEN, TAKEN
from execbroker.ledger.rows import BOOKED, read_slot
from execbroker.ledger.tables import bookings, sessions
from execbroker.model.phases import Phase
from execbroker.scheduling.timeline import Booking, bookings_of, envelope

AT_ONCE = 200
Resource = tuple[str, str, str]
Levels = dict[tuple[Resource, int], int]
"""By how much what is held of a resource changes, and when; nothing where it does not."""


class Disagreement(NamedTuple):
    """From `time` on, `held` is booked of a resource for `holder`, but its schedule says `due`."""

    holder: str
    what: str
    platform: str
    node: str
    resource: str
    time: int
    held: int
    due: int


async def disagreements(connection: AsyncConnection, now: int) -> AsyncIterator[Disagreement]:
    """Sessions and offersets whose bookings, from `now` on, are not those of their own schedules: the first difference of
    each. What is held for nobody, or not at all for a session that goes on, is not among them."""
    holder: str | None = None
    rows: list[Any] = []
    async with connection.stream(_schedules_and_bookings(now)) as stream:
        async for some in stream.partitions(AT_ONCE):
            for row in some:
                if row.holder != holder:
                    for found in _compare(rows, now):
                        yield found
                    holder, rows = row.holder, []
                rows.append(row)
    for found in _compare(rows, now):
        yield found


def _schedules_and_bookings(now: int) -> CompoundSelect[Any]:
    """For each holder, its slots and its bookings, one after the other: one statement, so that both are of one moment."""
    holder = case((sessions.c.phase.in_(OPEN), sessions.c.offerset), else_=sessions.c.uuid).label("holder")
    holding = or_(sessions.c.phase.in_([*OPEN, *TAKEN]), and_(sessions.c.phase.in_(ENDED), sessions.c.due.is_not(None)))
    nothing = (literal(None, bookings.c[name].type).label(name) for name in BOOKED)
    slots = select(holder, sessions.c.phase, sessions.c.slot, *nothing).where(holding, sessions.c.slot.is_not(None))
    none = (literal(None, String).label("phase"), literal(None, Text).label("slot"))
    held = select(bookings.c.holder, *none, *(bookings.c[name] for name in BOOKED)).where(bookings.c.end > now)
    return union_all(slots, held).order_by("holder")


def _compare(rows: list[Any], now: int) -> Iterator[Disagreement]:
    slots = [(Phase(row.phase), read_slot(row.slot)) for row in rows if row.slot]
    booked = [row for row in rows if not row.slot]
    if not slots or (not booked and slots[0][0].value in (*OPEN, *TAKEN)):
        return
    phase, slot = slots[0]
    if phase in (Phase.RUNNING, Phase.RELEASING):
        booked = [row for row in booked if not _is_overrun(row, slot.done)]
    since = max(now, slot.done) if phase.is_final else now  # what it held until its end is free, even if the clock went back
    due = _levels(_resources(envelope(one for _, one in slots) if phase.value in OPEN else bookings_of(slot)), since)
    held = _levels(_booked(booked), since)
    if held != due:
        what = "offerset" if phase.value in OPEN else "session"
        (platform, node, resource), time = min(key for key in held.keys() | due.keys() if held.get(key) != due.get(key))
        at = (platform, node, resource), time
        yield Disagreement(rows[0].holder, what, platform, node, resource, time, _at(held, *at), _at(due, *at))


def _is_overrun(row: Any, done: int) -> bool:
    """A session that is not released in time holds on to its node, beyond its schedule."""
    return row.start >= done and bool(row.cores or row.memory or row.count)


def _resources(pieces: Iterable[Booking]) -> Iterator[tuple[Resource, int, int, int]]:
    for (platform, node), start, end, amounts in pieces:
        for resource, amount in amounts.items():
            yield (platform, node, resource), start, end, amount


def _booked(rows: Iterable[Any]) -> Iterator[tuple[Resource, int, int, int]]:
    for row in rows:
        amounts = [(row.kind, row.count)] if row.kind else [(name, getattr(row, name)) for name in ("cores", "memory", "storage")]
        for resource, amount in amounts:
            yield (row.platform, row.node, resource), row.start, row.end, amount


def _levels(held: Iterable[tuple[Resource, int, int, int]], now: int) -> Levels:
    changes: Levels = defaultdict(int)
    for resource, start, end, amount in held:
        if amount and end > max(start, now):
            changes[resource, max(start, now)] += amount
            changes[resource, end] -= amount
    return {key: change for key, change in changes.items() if change}


def _at(levels: Levels, resource: Resource, time: int) -> int:
    return sum(change for (of, when), change in levels.items() if of == resource and when <= time)
