"""Columns that are called what the code calls them: a worker's status, and the name of a job's image."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Rename the columns where they are: SQLite and PostgreSQL both keep rows and constraints as they were."""
    op.alter_column("workers", "condition", new_column_name="status")
    op.drop_index("jobs_by_picture", "jobs")
    op.alter_column("jobs", "input_path", new_column_name="image_name")
    op.create_index("jobs_by_image", "jobs", ["image_name"])
    # The first release looks here only: it is to refuse this database, not to add tables to it.
    op.execute("UPDATE schema_version SET version = 2")
