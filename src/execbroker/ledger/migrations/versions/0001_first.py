"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    long = sa.BigInteger()
    counter = long.with_variant(sa.Integer, "sqlite")
    uuid = sa.String(36)
    op.create_table(
        "offersets",
        sa.Column("uuid", uuid, primary_key=True),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("created", long, nullable=False),
        sa.Column("modified", long, nullable=False),
        sa.Column("expires", long, nullable=False),
        sa.Column("result", sa.String(3), nullable=False),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("messages", sa.Text, nullable=False),
    )
    op.create_index("ix_offersets_created", "offersets", ["created"])
    op.create_table(
        "sessions",
        sa.Column("uuid", uuid, primary_key=True),
        sa.Column("offerset", uuid, nullable=False),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("rank", sa.Integer, nullable=False),
        sa.Column("phase", sa.String(12), nullable=False),
        sa.Column("outcome", sa.String(12)),
        sa.Column("created", long, nullable=False),
        sa.Column("modified", long, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("expires", long, nullable=False),
        sa.Column("slot", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("secret", sa.String(64), nullable=False),
        sa.Column("due", long),
        sa.Column("leased_until", long),
        sa.Column("lease", uuid),
    )
    for columns in (["offerset"], ["phase", "expires"], ["due"], ["created"]):
        op.create_index(f"ix_sessions_{'_'.join(columns)}", "sessions", columns)
    op.create_table(
        "bookings",
        sa.Column("id", counter, primary_key=True, autoincrement=True),
        sa.Column("holder", uuid, nullable=False),
        sa.Column("platform", sa.String(64), nullable=False),
        sa.Column("node", sa.String(255), nullable=False),
        sa.Column("start", long, nullable=False),
        sa.Column("end", long, nullable=False),
        sa.Column("cores", sa.Integer, nullable=False),
        sa.Column("memory", sa.Integer, nullable=False),
        sa.Column("storage", long, nullable=False),
    )
    op.create_index("ix_bookings_holder", "bookings", ["holder"])
    op.create_index("ix_bookings_end", "bookings", ["end"])
    op.create_table(
        "events",
        sa.Column("seq", counter, primary_key=True, autoincrement=True),
        sa.Column("session", uuid, nullable=False),
        sa.Column("time", long, nullable=False),
        sa.Column("phase", sa.String(12), nullable=False),
        sa.Column("message", sa.Text),
    )
    op.create_index("ix_events_session", "events", ["session"])
    op.create_table(
        "measures",
        sa.Column("id", counter, primary_key=True, autoincrement=True),
        sa.Column("what", sa.String(255), nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("amount", sa.Float, nullable=False),
        sa.Column("time", long, nullable=False),
    )
