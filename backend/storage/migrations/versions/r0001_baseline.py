"""The tables as the first release made them; in a database of that release nothing is left to do.

That release kept the number of its schema in `schema_version`, and had no migrations.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables, each with its indexes; those that the first release made stay as they are."""
    present = set(sa.inspect(op.get_bind()).get_table_names()) & set(_MAKERS)
    # Tables of these names that somebody else made are not to be taken for ours.
    adopted = present if "schema_version" in present else set()
    for name, make in _MAKERS.items():
        if name not in adopted:
            make()
    if not op.get_bind().scalar(sa.text("SELECT count(*) FROM schema_version")):
        op.execute("INSERT INTO schema_version (version) VALUES (1)")


def _id() -> TypeEngine[str]:
    """Return the type of an id: bytes compare faster than words, and equally on every server."""
    return sa.String(32).with_variant(sa.String(32, collation="C"), "postgresql")


def _make_schema_version() -> None:
    op.create_table("schema_version", sa.Column("version", sa.Integer, primary_key=True, autoincrement=False))


def _make_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", _id(), primary_key=True),
        sa.Column("batch_id", _id()),
        sa.Column("agent_id", sa.String(128), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("batch_key", sa.Text, nullable=False),
        sa.Column("input_path", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("started_at", sa.BigInteger),
        sa.Column("finished_at", sa.BigInteger),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("lease_owner", sa.String(255)),
        sa.Column("lease_expires_at", sa.BigInteger),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("progress", sa.Integer, nullable=False),
        sa.Column("current_step", sa.String(255), nullable=False),
        sa.Column("eta_seconds", sa.Float),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("artifact", sa.String(255), unique=True),
        sa.Column("metadata", sa.Text),
        sa.Column("error_code", sa.String(64)),
        sa.Column("error_message", sa.Text),
        *_job_checks(),
    )
    op.create_index("jobs_by_state", "jobs", ["status", "agent_id", "id"])
    op.create_index("jobs_by_agent", "jobs", ["agent_id", "id"])
    op.create_index("jobs_by_start", "jobs", ["agent_id", "started_at"])
    op.create_index("jobs_by_batch", "jobs", ["batch_id"])
    op.create_index("jobs_by_finish", "jobs", ["finished_at"])
    op.create_index("jobs_by_picture", "jobs", ["input_path"])


def _job_checks() -> list[sa.CheckConstraint]:
    held, complete = "(lease_owner IS NOT NULL)", "(lease_owner IS NULL) = (lease_expires_at IS NULL)"
    return [
        sa.CheckConstraint("progress BETWEEN 0 AND 100", name="progress_in_percent"),
        sa.CheckConstraint(f"(status = 'processing') = {held} AND {complete}", name="leased_while_processing"),
        sa.CheckConstraint(
            "(status IN ('queued', 'processing')) = (finished_at IS NULL)", name="finished_at_when_finished"
        ),
        sa.CheckConstraint("(status = 'completed') = (artifact IS NOT NULL)", name="artifact_when_completed"),
        sa.CheckConstraint("(status = 'failed') = (error_code IS NOT NULL)", name="error_when_failed"),
        sa.CheckConstraint("status IN ('queued', 'processing', 'completed', 'failed', 'cancelled')", name="job_status"),
    ]


def _make_idempotency_keys() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("agent_id", sa.String(128), primary_key=True),
        sa.Column("key", sa.String(255), primary_key=True),
        sa.Column("fingerprint", sa.String(255), nullable=False),
        sa.Column("job_ids", sa.Text, nullable=False),
        sa.Column("batch_id", _id()),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
    )
    op.create_index("idempotency_keys_by_expiry", "idempotency_keys", ["expires_at"])


def _make_nonces() -> None:
    op.create_table(
        "nonces",
        sa.Column("agent_id", sa.String(128), primary_key=True),
        sa.Column("nonce", sa.String(128), primary_key=True),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
    )
    op.create_index("nonces_by_expiry", "nonces", ["expires_at"])


def _make_workers() -> None:
    op.create_table(
        "workers",
        sa.Column("owner", sa.String(255), primary_key=True),
        sa.Column("condition", sa.String(16), nullable=False),
        sa.Column("model", sa.Text),
        sa.Column("device_type", sa.Text),
        sa.Column("device_name", sa.Text),
        sa.Column("memory_total", sa.BigInteger),
        sa.Column("memory_free", sa.BigInteger),
        sa.Column("error", sa.Text),
        sa.Column("seconds_per_job", sa.Float),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
    )
    op.create_index("workers_by_expiry", "workers", ["expires_at"])


_MAKERS = {
    "schema_version": _make_schema_version,
    "jobs": _make_jobs,
    "idempotency_keys": _make_idempotency_keys,
    "nonces": _make_nonces,
    "workers": _make_workers,
}
