"""Cut-outs that were asked for alone, without a job."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "cutouts",
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("agent_id", sa.String(128), nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_index("cutouts_by_age", "cutouts", ["created_at"])
