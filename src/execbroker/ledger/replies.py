"""What was answered under an `Idempotency-Key`.

The key is written in the transaction that does what was asked, so that either both are there or neither is: whatever happens
after that, a repeat finds that it is done, and what it has made. The reply is added before it is given.
"""

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, and_, delete, select, update

from execbroker.errors import BrokerError, IllegalMove, NoRoom, NotFound
from execbroker.faults import reach
from execbroker.ledger.ledger import Ledger
from execbroker.ledger.tables import replies
from execbroker.ledger.transaction import Transaction

_COLUMNS = (replies.c.fingerprint, replies.c.made, replies.c.status, replies.c.headers, replies.c.body)


class Reply(NamedTuple):
    """`headers` are JSON."""

    status: int
    headers: str
    body: str


class Record(NamedTuple):
    """What is known of a key: of which request it is, what that has made, and the reply, where that was written."""

    fingerprint: str
    made: UUID | None
    reply: Reply | None


class Repeated(BrokerError):
    """Somebody else has done it meanwhile."""

    def __init__(self, record: Record) -> None:
        super().__init__()
        self.record = record


@dataclass(slots=True)
class Once:
    """A request that is to be done once: `route` is its method and path, `made` finds what it has made in what the books answer,
    and `refused` is the reply to a refusal, which is kept, too."""

    owner: str
    key: str
    route: str
    fingerprint: str
    made: Callable[[Any], UUID]
    refused: Callable[[BrokerError], Reply]
    taken: bool = False
    written: bool = False
    """Whether its reply is still to be added."""


ONCE: ContextVar[Once | None] = ContextVar("once", default=None)
"""The request that is being answered, where it has a key."""


def take() -> Once | None:
    """The key of the request that is being answered, for the first that asks: that is what the request is about."""
    once = ONCE.get()
    if once is None or once.taken:
        return None
    once.taken = True
    return once


async def find(ledger: Ledger, once: Once) -> Record | None:
    async with ledger.read() as connection:
        row = (await connection.execute(select(*_COLUMNS).where(_is(once)))).one_or_none()
    return _record(row) if row else None


def keyed(operation: Callable[[Transaction, int], Awaitable[Any]], once: Once) -> Callable[[Transaction, int], Awaitable[Any]]:
    """The operation, with the key in the same transaction. Raises Repeated where it was done meanwhile, by another broker."""

    async def operate(transaction: Transaction, now: int) -> Any:
        await check(transaction, once)
        try:
            answer = await operation(transaction, now)
        except (IllegalMove, NoRoom, NotFound) as refusal:
            keep(transaction, once, now, reply=once.refused(refusal))
            raise
        keep(transaction, once, now, made=once.made(answer))
        reach("once.writing")
        return answer

    return operate


async def check(transaction: Transaction, once: Once) -> None:
    """Raises Repeated."""
    if rows := await transaction.fetch(select(*_COLUMNS).where(_is(once))):
        raise Repeated(_record(rows[0]))


def keep(transaction: Transaction, once: Once, now: int, *, made: UUID | None = None, reply: Reply | None = None) -> None:
    """Write the key down, with what was made, or with the reply."""
    status, headers, body = reply or (None, None, None)
    transaction.insert(
        replies,
        {
            "owner": once.owner,
            "key": once.key,
            "route": once.route,
            "fingerprint": once.fingerprint,
            "created": now,
            "made": str(made) if made else None,
            "status": status,
            "headers": headers,
            "body": body,
        },
    )
    once.written = reply is None


async def settle(ledger: Ledger, once: Once, reply: Reply) -> None:
    """Add the reply."""
    async with ledger.write() as transaction:
        await transaction.execute(update(replies).where(_is(once)).values(**reply._asdict()))


async def forget(ledger: Ledger, before: int) -> None:
    """Those from before `before`."""
    async with ledger.write() as transaction:
        await transaction.grind(delete(replies).where(replies.c.created < before))


def _is(once: Once) -> ColumnElement[bool]:
    return and_(replies.c.owner == once.owner, replies.c.key == once.key, replies.c.route == once.route)


def _record(row: Any) -> Record:
    reply = Reply(row.status, row.headers, row.body) if row.status else None
    return Record(row.fingerprint, UUID(row.made) if row.made else None, reply)
