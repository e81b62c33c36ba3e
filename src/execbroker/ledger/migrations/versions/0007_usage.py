"""What has been used, by month, and the groups of who asked."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("sessions", sa.Column("groups", sa.Text))
    op.create_table(
        "usage",
        sa.Column("session", sa.String(36), primary_key=True),
        sa.Column("month", sa.BigInteger, primary_key=True),
        sa.Column("platform", sa.String(64), nullable=False),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("groups", sa.Text),
        sa.Column("core_seconds", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_usage_month", "usage", ["month"])
