"""How brokers that share a database follow one another: what has changed since one of them last looked, and how it is now."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import select

from execbroker.ledger.rows import SessionRow, read_session
from execbroker.ledger.tables import capacities, journal, sessions
from execbroker.ledger.transaction import Transaction
from execbroker.model.waist import Capacity, Node
from execbroker.scheduling.amounts import Amounts
from execbroker.scheduling.timeline import BATCH, SHARED, Booking, Place


@dataclass(frozen=True, slots=True)
class Offered:
    """An offerset with offers that can be accepted: whose it is, and when they expire."""

    owner: str
    expiries: tuple[int, ...]


class Entry(NamedTuple):
    """One entry of the journal: its number, and the name of the transaction that wrote it."""

    seq: int
    writer: str


FIRST = Entry(0, "")


@dataclass(frozen=True, slots=True)
class News:
    """What was written until `last`, by which `writers`: what holders have now, new offersets, the flexible sessions among the
    holders that wait for their start, and platforms whose capacity is another. Where it is not `whole`, some of it is not there
    any more."""

    last: Entry
    whole: bool = True
    writers: set[str] = field(default_factory=set)
    held: dict[UUID, list[Booking]] = field(default_factory=dict)
    offered: dict[UUID, Offered] = field(default_factory=dict)
    waiting: set[UUID] = field(default_factory=set)
    platforms: set[str] = field(default_factory=set)


def read_news(rows: Sequence[Any], since: Entry) -> News:
    """Of the entries from `since` on, those after it. That one itself is not there, or another's, where it was forgotten, or
    the database is not what it was: restored, say, or a replica that had not got it yet."""
    if not rows:
        return News(since, whole=since == FIRST)
    whole = rows[0].seq == 1 if since == FIRST else (rows[0].seq, rows[0].writer) == since
    news = News(Entry(rows[-1].seq, rows[-1].writer), whole, {row.writer for row in rows})
    for row in rows[since != FIRST :] if whole else ():
        changed = json.loads(row.changed)
        held = {UUID(holder): [_booking(*piece) for piece in pieces] for holder, pieces in changed["held"].items()}
        news.held.update(held)
        news.waiting.difference_update(held)
        news.waiting.update(map(UUID, changed["waiting"]))
        news.platforms.update(changed["platforms"])
        news.offered.update((UUID(uuid), Offered(owner, tuple(times))) for uuid, (owner, times) in changed["offered"].items())
    return news


def _booking(
    platform: str, node: str, start: int, end: int, cores: int, memory: int, storage: int, counts: list[tuple[str, int]]
) -> Booking:
    amounts = Amounts(cores, memory, storage, tuple((kind, count) for kind, count in counts))
    return Booking(Place(platform, node), start, end, amounts)


def publish(
    transaction: Transaction, seq: int, writer: str, now: int, held: Callable[[UUID], list[Booking]], waiting: Iterable[UUID]
) -> None:
    """Write down what this transaction has changed, as it is now: the entry `seq`, of which there can be only one."""
    changed = {
        "held": {str(one): [[*piece.place, piece.start, piece.end, *piece.amounts] for piece in held(one)]
                 for one in transaction.holders},
        "offered": {str(uuid): [owner, expiries] for uuid, (owner, expiries) in transaction.offered.items()},
        "waiting": [str(uuid) for uuid in waiting],
        "platforms": sorted(transaction.platforms),
    }  # fmt: skip
    transaction.insert(journal, {"seq": seq, "writer": writer, "time": now, "changed": json.dumps(changed)})


async def sessions_of(transaction: Transaction, uuids: Iterable[UUID]) -> dict[UUID, SessionRow]:
    rows = await transaction.fetch(select(sessions).where(sessions.c.uuid.in_([str(uuid) for uuid in uuids])))
    return {row.uuid: row for row in map(read_session, rows)}


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


LATEST = select(journal.c.seq, journal.c.writer).order_by(journal.c.seq.desc()).limit(1)
