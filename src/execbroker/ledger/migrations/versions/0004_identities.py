"""Who may come."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "identities",
        sa.Column("uuid", sa.String(36), primary_key=True),
        sa.Column("issuer", sa.String(255), nullable=False),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("secret", sa.Text),
        sa.Column("groups", sa.Text, nullable=False, server_default="[]"),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("disabled", sa.BigInteger),
    )
    op.create_index("ix_identities_issuer_subject", "identities", ["issuer", "subject"], unique=True)
