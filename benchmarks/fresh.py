"""How long a fresh broker takes to its first answer, with many bookings in its ledger."""

import json
import time
from uuid import uuid4

from sqlalchemy import insert

from execbroker.ledger import schema
from execbroker.ledger.database import Database
from execbroker.ledger.rows import OfferSetRow, SessionRow, offerset_values, session_values
from execbroker.ledger.tables import bookings, offersets, sessions
from execbroker.model.phases import Phase
from execbroker.model.waist import Share, Slot

NODES, EACH, LENGTH = 100, 1000, 3600
REQUEST = json.dumps({"executable": {"kind": "docker-container", "image": {"locations": ["ghcr.io/example/image:1"]}}})


def fill(database: Database, platform: str) -> int:
    """Accepted sessions of an hour, one after the other on each of the nodes `<platform>-1`, …; how many."""
    schema.prepare(database)
    now = int(time.time()) + 600
    slots = [
        Slot(
            platform,
            (Share(f"{platform}-{node + 1}", 2, 4),),
            start := now + number * LENGTH,
            start,
            start + LENGTH,
            start + LENGTH,
        )
        for node in range(NODES)
        for number in range(EACH)
    ]
    with database.migrating() as connection:
        for first in range(0, len(slots), 2000):
            rows = [_session(slot, now) for slot in slots[first : first + 2000]]
            connection.execute(insert(offersets), [offerset_values(offerset) for offerset, _ in rows])
            connection.execute(insert(sessions), [session_values(session) for _, session in rows])
            connection.execute(insert(bookings), [_booking(session) for _, session in rows])
    return len(slots)


def _session(slot: Slot, now: int) -> tuple[OfferSetRow, SessionRow]:
    offerset = OfferSetRow(uuid4(), "owner", now, now, now + 300, "YES", REQUEST, "[]")
    return offerset, SessionRow(
        uuid4(), offerset.uuid, "owner", 0, Phase.WAITING, now, now, now + 300, slot, "secret", due=slot.start
    )


def _booking(session: SessionRow) -> dict[str, object]:
    assert session.slot
    (share,) = session.slot.shares
    held = {"platform": session.slot.platform, "node": share.node, "cores": share.cores, "memory": share.memory, "storage": 0}
    return {"holder": str(session.uuid), "start": session.slot.prepare, "end": session.slot.done, **held}
