"""Events that are followed, and who is told of them."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    long = sa.BigInteger()
    op.add_column("events", sa.Column("schedule", sa.Text))
    op.create_table(
        "forgotten",
        sa.Column("id", long.with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("seq", long, nullable=False),
    )
    op.create_index("ix_forgotten_owner_seq", "forgotten", ["owner", "seq"])
    op.create_table(
        "callbacks",
        sa.Column("uuid", sa.String(36), primary_key=True),
        sa.Column("offerset", sa.String(36), nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("events", sa.Text),
        sa.Column("secret", sa.String(64), nullable=False),
        sa.Column("position", long, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("due", long),
        sa.Column("leased_until", long),
        sa.Column("lease", sa.String(36)),
        sa.Column("failure", sa.Text),
        sa.Column("ended", sa.String(12)),
    )
    op.create_index("ix_callbacks_offerset", "callbacks", ["offerset"])
    op.create_index("ix_callbacks_ended_due", "callbacks", ["ended", "due"])
