"""The files of a job: mesh in several formats, previews, image and cut-out."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_ROWS_AT_ONCE = 1000


def upgrade() -> None:
    """Make the table, and give each completed job its mesh as the first of its files."""
    op.create_table(
        "files",
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("job_id", sa.String(32).with_variant(sa.String(32, collation="C"), "postgresql"), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("format", sa.String(8), nullable=False),
        sa.Column("candidate", sa.Integer, nullable=False),
        sa.Column("bytes", sa.BigInteger),
        sa.Column("state", sa.String(16), nullable=False),
        sa.CheckConstraint(
            "kind IN ('mesh', 'preview', 'thumbnail', 'turntable', 'image', 'cutout', 'shape')", name="file_kind"
        ),
        sa.CheckConstraint("state IN ('kept', 'deleting', 'deleted')", name="file_state"),
        sa.CheckConstraint("candidate >= 0", name="candidate_counts_from_0"),
        sa.CheckConstraint("bytes >= 0", name="file_has_bytes"),
        sa.UniqueConstraint("job_id", "kind", "format", "candidate", name="one_file_of_a_kind"),
    )
    op.create_index("files_by_state", "files", ["state"])
    _adopt_meshes(op.get_bind())


def _adopt_meshes(connection: sa.Connection) -> None:
    """Enter the mesh of every completed job; its size is in the job's metadata."""
    completed = sa.text("SELECT id, artifact, metadata FROM jobs WHERE artifact IS NOT NULL")
    enter = sa.text(
        "INSERT INTO files (name, job_id, kind, format, candidate, bytes, state) "
        "VALUES (:name, :job_id, 'mesh', :format, 0, :bytes, 'kept')"
    )
    for rows in connection.execute(completed).partitions(_ROWS_AT_ONCE):
        connection.execute(
            enter,
            [
                {
                    "name": row.artifact,
                    "job_id": row.id,
                    "format": row.artifact.rpartition(".")[2],
                    "bytes": _file_size(row.metadata),
                }
                for row in rows
            ],
        )


def _file_size(metadata: str | None) -> int | None:
    try:
        size = json.loads(metadata or "{}").get("file_size")
    except (ValueError, AttributeError):
        return None
    return size if isinstance(size, int) and size >= 0 else None
