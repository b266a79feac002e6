"""What is left of an expired job says when it came in, so that it goes on counting among those of its agent's day."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the column; of what expired before nobody knows which names were jobs', and none of it counts."""
    op.add_column("tombstones", sa.Column("submitted_at", sa.BigInteger))
    op.create_index("tombstones_by_submission", "tombstones", ["agent_id", "submitted_at"])
