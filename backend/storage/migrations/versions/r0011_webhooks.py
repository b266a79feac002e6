"""Webhooks: where a job's agent wants to hear of its end, and what was sent there."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0009"


def upgrade() -> None:
    """Add the column and make the table."""
    op.add_column("jobs", sa.Column("webhook_url", sa.Text))
    op.create_index("jobs_by_webhook", "jobs", ["webhook_url", "finished_at"])
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.String(32).with_variant(sa.String(32, collation="C"), "postgresql"), primary_key=True),
        sa.Column("agent_id", sa.String(128), nullable=False),
        sa.Column("subject_id", sa.String(32).with_variant(sa.String(32, collation="C"), "postgresql"), nullable=False),
        sa.Column("type", sa.String(32), nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due_at", sa.BigInteger),
        sa.Column("last_status", sa.Integer),
        sa.Column("last_error", sa.Text),
        sa.Column("ended_at", sa.BigInteger),
        sa.CheckConstraint("(state = 'pending') = (due_at IS NOT NULL)", name="due_while_pending"),
        sa.UniqueConstraint("subject_id", "type", name="one_delivery_of_a_kind"),
    )
    op.create_index("webhook_deliveries_by_due", "webhook_deliveries", ["due_at"])
    op.create_index("webhook_deliveries_by_age", "webhook_deliveries", ["created_at"])
