"""What workers say of themselves: if their model is compiled, how long their stages take, which process they are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the columns; a mean over all jobs, whatever they asked for, is of no use beside the times of stages."""
    op.drop_column("workers", "seconds_per_job")
    op.add_column("workers", sa.Column("compiled", sa.Boolean))
    op.add_column("workers", sa.Column("stage_times", sa.Text))
    op.add_column("workers", sa.Column("process", sa.Text))
    op.add_column("workers", sa.Column("octree_resolution", sa.Integer))
