"""How agents tell their jobs apart, why one failed in detail, and what is left of those that have expired."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the columns, all of which a row may lack, and the table of tombstones."""
    op.add_column("jobs", sa.Column("label", sa.String(200)))
    op.add_column("jobs", sa.Column("label_folded", sa.Text))
    op.add_column("jobs", sa.Column("filename", sa.String(255)))
    op.add_column("jobs", sa.Column("batch_index", sa.Integer))
    op.add_column("jobs", sa.Column("error_details", sa.Text))
    # Ids grow within a batch, in the order of its images.
    op.execute(
        "UPDATE jobs SET batch_index = (SELECT count(*) FROM jobs AS earlier "
        "WHERE earlier.batch_id = jobs.batch_id AND earlier.id < jobs.id) WHERE batch_id IS NOT NULL"
    )
    op.create_table(
        "tombstones",
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("agent_id", sa.String(128), nullable=False),
        sa.Column("expired_at", sa.BigInteger, nullable=False),
    )
    op.create_index("tombstones_by_expiry", "tombstones", ["expired_at"])
