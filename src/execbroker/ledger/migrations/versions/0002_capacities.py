"""Accelerators and shared pools among the bookings, quotes, and what every place has."""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    long = sa.BigInteger()
    op.add_column("bookings", sa.Column("kind", sa.String(64)))
    op.add_column("bookings", sa.Column("count", sa.Integer, nullable=False, server_default="0"))
    op.add_column("sessions", sa.Column("quote", sa.Text))
    op.create_table(
        "capacities",
        sa.Column("platform", sa.String(64), primary_key=True),
        sa.Column("node", sa.String(255), primary_key=True),
        sa.Column("kind", sa.String(64), primary_key=True),
        sa.Column("cores", sa.Integer, nullable=False, server_default="0"),
        sa.Column("memory", sa.Integer, nullable=False, server_default="0"),
        sa.Column("storage", long, nullable=False, server_default="0"),
        sa.Column("count", sa.Integer, nullable=False, server_default="0"),
        sa.Column("shrunk", long),
    )
    _share_slots()


def _share_slots() -> None:
    """A slot was one node with its cores and memory; it is shares of one or more nodes now."""
    sessions = sa.table("sessions", sa.column("uuid", sa.String), sa.column("slot", sa.Text))
    slots = op.get_bind().execute(sa.select(sessions).where(sessions.c.slot.is_not(None))).all()
    shared = sa.update(sessions).where(sessions.c.uuid == sa.bindparam("of")).values(slot=sa.bindparam("text"))
    if values := [{"of": row.uuid, "text": json.dumps(_shared(json.loads(row.slot)), separators=(",", ":"))} for row in slots]:
        op.get_bind().execute(shared, values)


def _shared(slot: dict[str, Any]) -> dict[str, Any]:
    share = [slot["node"], slot["cores"], slot["memory"], [], None]
    return {"shares": [share], **{name: value for name, value in slot.items() if name not in ("node", "cores", "memory")}}
