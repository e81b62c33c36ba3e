import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Select, insert, literal, select, update

from execbroker.ledger.ledger import Ledger
from execbroker.ledger.tables import identities


@dataclass(frozen=True, slots=True)
class IdentityRow:
    """Somebody who has an account here, or was seen with the token of a trusted issuer.

    `issuer` is "" for an account of the broker's own, whose `secret` is the hash of its password. Times are seconds since 1970.
    """

    uuid: UUID
    issuer: str
    subject: str
    name: str
    secret: str | None
    groups: tuple[str, ...]
    created: int
    disabled: int | None = None


class Identities:
    """Who is known, in the ledger. Every method raises BrokerError where that cannot be read or written."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def find(self, issuer: str, subject: str) -> IdentityRow | None:
        found = await self._read(select(identities).where(identities.c.issuer == issuer, identities.c.subject == subject))
        return found[0] if found else None

    async def get(self, uuid: UUID) -> IdentityRow | None:
        found = await self._read(select(identities).where(identities.c.uuid == str(uuid)))
        return found[0] if found else None

    async def all(self) -> list[IdentityRow]:
        """In the order of their names."""
        return await self._read(select(identities).order_by(identities.c.name, identities.c.uuid))

    async def add(self, row: IdentityRow) -> bool:
        """Unless there is one of this issuer and subject already: whether there was none."""
        values: dict[str, Any] = {"uuid": str(row.uuid), "issuer": row.issuer, "subject": row.subject, "name": row.name}
        values |= {"secret": row.secret, "groups": json.dumps(row.groups), "created": row.created}
        taken = select(identities.c.uuid).where(identities.c.issuer == row.issuer, identities.c.subject == row.subject)
        columns = [literal(value, identities.c[name].type).label(name) for name, value in values.items()]
        statement = insert(identities).from_select(list(values), select(*columns).where(~taken.exists()))
        async with self._ledger.write() as transaction:
            return await transaction.execute(statement) > 0

    async def change(self, uuid: UUID, **values: Any) -> bool:
        """Columns of one; whether there is such a one."""
        if "groups" in values:
            values["groups"] = json.dumps(values["groups"])
        async with self._ledger.write() as transaction:
            return await transaction.execute(update(identities).where(identities.c.uuid == str(uuid)).values(**values)) > 0

    async def _read(self, query: Select[*tuple[Any, ...]]) -> list[IdentityRow]:
        async with self._ledger.read() as connection:
            rows = (await connection.execute(query)).all()
        return [_row(*row) for row in rows]


def _row(uuid: str, issuer: str, subject: str, name: str, secret: str | None, groups: str, *times: Any) -> IdentityRow:
    return IdentityRow(UUID(uuid), issuer, subject, name, secret, tuple(json.loads(groups)), *times)
