"""How brokers that share a database follow one another: what has changed since one of them last looked, and how it is now."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from uuid import UUID

from sqlalchemy import and_, bindparam, func, or_, select

from execbroker.ledger.rows import SessionRow, read_booking, read_session
from execbroker.ledger.tables import bookings, capacities, journal, sessions
from execbroker.ledger.transaction import Transaction
from execbroker.model.phases import Phase
from execbroker.model.waist import Capacity, Node
from execbroker.scheduling.timeline import BATCH, SHARED, Booking


@dataclass(frozen=True, slots=True)
class News:
    """What was written until `seq`: `holders` whose bookings are others than before, `platforms` whose capacity is, and by
    which `writers`. Where it is not `whole`, some of it was forgotten already."""

    seq: int
    whole: bool = True
    writers: frozenset[str] = frozenset()
    holders: frozenset[UUID] = frozenset()
    platforms: frozenset[str] = frozenset()


@dataclass(slots=True)
class Held:
    """What there is of a holder now: its bookings, its offers that can be accepted, and itself where it is a session that
    waits for its start."""

    pieces: list[Booking] = field(default_factory=list)
    offers: list[SessionRow] = field(default_factory=list)
    waiting: SessionRow | None = None


async def news(transaction: Transaction, since: int) -> News:
    """What was written after `since`, by anybody, in a transaction that no other writes beside."""
    rows = await transaction.fetch(_NEWS, {"since": since})
    if not rows:
        return News(since)
    changes = [json.loads(row.changed) for row in rows]
    return News(
        rows[-1].seq,
        rows[0].seq == since + 1,
        frozenset(row.writer for row in rows),
        frozenset(UUID(holder) for one in changes for holder in one["holders"]),
        frozenset(platform for one in changes for platform in one["platforms"]),
    )


def publish(transaction: Transaction, seq: int, writer: str, now: int) -> None:
    """Write down what this transaction has changed: the entry `seq`, of which there can be only one."""
    changed = {"holders": [str(holder) for holder in transaction.holders], "platforms": sorted(transaction.platforms)}
    transaction.insert(journal, {"seq": seq, "writer": writer, "time": now, "changed": json.dumps(changed)})


async def look_up(transaction: Transaction, holders: Iterable[UUID]) -> dict[UUID, Held]:
    """How it stands with each of these."""
    found = {holder: Held() for holder in holders}
    of = [str(holder) for holder in found]
    for row in await transaction.fetch(select(bookings).where(bookings.c.holder.in_(of))):
        found[UUID(row.holder)].pieces.append(read_booking(row))
    offered = and_(sessions.c.offerset.in_(of), sessions.c.phase == Phase.OFFERED.value)
    waiting = and_(sessions.c.uuid.in_(of), sessions.c.phase.in_([Phase.ACCEPTED.value, Phase.WAITING.value]))
    for row in map(read_session, await transaction.fetch(select(sessions).where(or_(offered, waiting)))):
        if row.phase is Phase.OFFERED:
            found[row.offerset].offers.append(row)
        else:
            found[row.uuid].waiting = row
    return found


async def capacity_now(transaction: Transaction, platform: str, known: Capacity) -> Capacity:
    """What was `known` of a platform, with the nodes and pools that were last written down."""
    rows = await transaction.fetch(select(capacities).where(capacities.c.platform == platform).order_by(capacities.c.kind))
    counts: dict[str, list[tuple[str, int]]] = {}
    for row in rows:
        if row.kind and row.count and not row.kind.startswith(BATCH):
            counts.setdefault(row.node, []).append((row.kind, row.count))
    wide = {row.node: row for row in rows if not row.kind}
    shared = wide.pop(SHARED, None)
    nodes = tuple(
        Node(name, row.cores, row.memory, row.storage, tuple(counts.get(name, ())))
        for name, row in wide.items()
        if row.cores or row.memory or row.storage or counts.get(name)
    )
    pools = [("storage", shared.storage)] if shared and "storage" in dict(known.pools) else []
    return replace(known, nodes=nodes, pools=(*counts.get(SHARED, ()), *pools))


_NEWS = select(journal).where(journal.c.seq > bindparam("since")).order_by(journal.c.seq)
LATEST = select(func.coalesce(func.max(journal.c.seq), 0))
