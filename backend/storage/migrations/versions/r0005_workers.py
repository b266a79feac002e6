"""What workers say of themselves: whether their model is compiled, and how long their stages take."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add what workers say of themselves."""
    op.add_column("workers", sa.Column("octree_resolution", sa.Integer()))
