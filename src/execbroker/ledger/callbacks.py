from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Select, and_, bindparam, case, exists, func, or_, select, update

from execbroker.ledger.ledger import Ledger
from execbroker.ledger.rows import CallbackRow, read_callback
from execbroker.ledger.tables import callbacks, events, sessions
from execbroker.ledger.transaction import Transaction
from execbroker.model.phases import FINAL

_OPEN = callbacks.c.ended.is_(None)


class Callbacks:
    """Who is told of events, in the ledger.

    A callback is `due` when there may be something to tell it, or to try again; that is so, too, while it is leased to the broker
    that does so. All that writes here does so alone, as what adds events does: none falls between a look and a write.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def of_offerset(self, uuid: UUID) -> list[CallbackRow]:
        query = select(callbacks).where(callbacks.c.offerset == str(uuid)).order_by(callbacks.c.url)
        return [read_callback(row) for row in await self._ledger.rows(query)]

    async def any_open(self) -> bool:
        return bool(await self._ledger.rows(select(callbacks.c.uuid).where(_OPEN).limit(1)))

    async def first_position(self) -> int | None:
        """Up to which event all open callbacks know everything; None where there are none."""
        return await self._one(select(func.min(callbacks.c.position)).where(_OPEN))

    async def next_due(self) -> int | None:
        """When there is something to tell next."""
        wait = case((callbacks.c.leased_until > callbacks.c.due, callbacks.c.leased_until), else_=callbacks.c.due)
        return await self._one(select(func.min(wait)).where(_OPEN, callbacks.c.due.is_not(None)))

    async def _one(self, query: Select[*tuple[Any, ...]]) -> int | None:
        ((found,),) = await self._ledger.rows(query)
        return found  # type: ignore[no-any-return]

    async def concerned(self, after: int, until: int) -> list[str]:
        """Those that nothing was due for, and that the events after `after`, until `until`, may be for."""
        new = select(sessions.c.offerset).join(events, events.c.session == sessions.c.uuid)
        new = new.where(events.c.seq > after, events.c.seq <= until)
        query = select(callbacks.c.uuid).where(_OPEN, callbacks.c.due.is_(None), callbacks.c.offerset.in_(new))
        return [row.uuid for row in await self._ledger.rows(query)]

    async def take(
        self, transaction: Transaction, concerned: Sequence[str], now: int, seconds: int, limit: int, without: Iterable[UUID]
    ) -> list[CallbackRow]:
        """From now on those `concerned` are due. Lease what is, those first that have not failed, for so many seconds."""
        assert transaction.time is not None
        if concerned:
            idle = and_(callbacks.c.uuid.in_(concerned), callbacks.c.due.is_(None), _OPEN)
            await transaction.execute(update(callbacks).where(idle).values(due=now))
        free = or_(callbacks.c.leased_until.is_(None), callbacks.c.leased_until <= transaction.time)
        others = callbacks.c.uuid.not_in([str(uuid) for uuid in without])
        due = select(callbacks.c.uuid).where(_OPEN, callbacks.c.due <= now, free, others)
        due = due.order_by(callbacks.c.tries, callbacks.c.due).limit(limit)
        lease = {"leased_until": transaction.time + seconds, "lease": self._ledger.database.token()}
        query = update(callbacks).where(callbacks.c.uuid.in_(due)).values(**lease).returning(callbacks)
        return [read_callback(row) for row in await transaction.fetch(query)]

    async def write(self, transaction: Transaction, row: CallbackRow, seconds: int | None) -> bool:
        """How it stands now, and lease it for so many `seconds` more, or give it back; whether it was leased as `row` says."""
        assert transaction.time is not None
        until = None if seconds is None else transaction.time + seconds
        now = {f"to_{name}": getattr(row, name) for name in ("position", "tries", "due", "failure", "ended")}
        lease = {"to_leased_until": until, "to_lease": None if seconds is None else row.lease}
        return await transaction.execute(_WRITE, {"of": str(row.uuid), "leased": row.lease, **now, **lease}) > 0

    async def settle(self, transaction: Transaction, row: CallbackRow) -> bool:
        """Nothing is due any more, and nothing ever will be where all sessions are over. False, and nothing done, where there are
        events after its `position`, or the lease is no longer that of `row`."""
        mine = {"of": str(row.uuid), "leased": row.lease}
        return await transaction.execute(_SETTLE, {**mine, "offers_of": str(row.offerset), "to_position": row.position}) > 0


_MINE = and_(callbacks.c.uuid == bindparam("of"), callbacks.c.lease == bindparam("leased"))
_WRITTEN = ("position", "tries", "due", "failure", "ended", "leased_until", "lease")
_WRITE = update(callbacks).where(_MINE).values({name: bindparam(f"to_{name}") for name in _WRITTEN})
_HERE = select(sessions.c.uuid).where(sessions.c.offerset == bindparam("offers_of"))
_LIVE = _HERE.where(*(sessions.c.phase != phase.value for phase in FINAL)).exists()
_NEWER = exists(select(events.c.seq).where(events.c.session.in_(_HERE), events.c.seq > bindparam("to_position")))
_SETTLE = (
    update(callbacks)
    .where(_MINE, ~_NEWER)
    .values(position=bindparam("to_position"), due=None, leased_until=None, lease=None, ended=case((_LIVE, None), else_="DONE"))
)
