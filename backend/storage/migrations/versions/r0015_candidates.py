"""How many meshes a job makes to choose from, and the contact sheet that shows them side by side."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"

_KINDS = "kind IN ('mesh', 'preview', 'thumbnail', 'turntable', 'contact_sheet', 'image', 'cutout', 'shape')"
_COLUMNS = ("name", "job_id", "kind", "format", "candidate", "bytes", "state")


def upgrade() -> None:
    """Add the columns, and let a file be a contact sheet."""
    for table in ("jobs", "tombstones"):
        op.add_column(table, sa.Column("candidates", sa.Integer, nullable=False, server_default="1"))
    if op.get_bind().dialect.name == "sqlite":
        _copy_files()
    else:
        op.drop_constraint("file_kind", "files", type_="check")
        op.create_check_constraint("file_kind", "files", _KINDS)


def _copy_files() -> None:
    """Put the files into a table with the new constraint: SQLite cannot change one."""
    op.drop_index("files_by_state", "files")
    op.rename_table("files", "files_before")
    op.create_table(
        "files",
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("job_id", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("format", sa.String(8), nullable=False),
        sa.Column("candidate", sa.Integer, nullable=False),
        sa.Column("bytes", sa.BigInteger),
        sa.Column("state", sa.String(16), nullable=False),
        sa.CheckConstraint(_KINDS, name="file_kind"),
        sa.CheckConstraint("state IN ('kept', 'deleting', 'deleted')", name="file_state"),
        sa.CheckConstraint("candidate >= 0", name="candidate_counts_from_0"),
        sa.CheckConstraint("bytes >= 0", name="file_has_bytes"),
        sa.UniqueConstraint("job_id", "kind", "format", "candidate", name="one_file_of_a_kind"),
    )
    before, after = (sa.table(name, *map(sa.column, _COLUMNS)) for name in ("files_before", "files"))
    op.execute(sa.insert(after).from_select(_COLUMNS, sa.select(*before.columns)))
    op.drop_table("files_before")
    op.create_index("files_by_state", "files", ["state"])
