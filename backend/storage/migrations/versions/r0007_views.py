"""Whether a worker's model takes several views of an object."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the column."""
    op.add_column("workers", sa.Column("takes_views", sa.Boolean))
