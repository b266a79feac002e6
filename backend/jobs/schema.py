"""The tables behind the job store, files and cut-outs, what is left of expired jobs, keys, nonces and workers.

`backend.storage.migrations` makes them: whatever changes here needs a revision there.

Times are whole microseconds since 1970 in both kinds of database, so that they compare and read alike. The constraints
state what must hold of a row whoever writes it. This module does not know who reads or writes when.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Boolean,
    CheckConstraint,
    Column,
    Dialect,
    Enum,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    literal,
)

from backend.jobs.models import FileState, Status
from backend.limits import FILE_KINDS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class UtcTime(TypeDecorator[datetime]):
    """An aware datetime, kept as microseconds since 1970 and given back in UTC."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        """Turn a datetime into a number; a naive one is refused (SQLAlchemy's StatementError)."""
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Turn a number into a datetime."""
        return None if value is None else _EPOCH + value * _MICROSECOND


# Bytes compare faster than words, and equally on every server.
_ID = String(32).with_variant(String(32, collation="C"), "postgresql")
_STATUS = Enum(
    Status,
    native_enum=False,
    create_constraint=True,
    length=16,
    name="job_status",
    values_callable=lambda states: [state.value for state in states],
)
_FILE_STATE = Enum(
    FileState,
    native_enum=False,
    create_constraint=True,
    length=16,
    name="file_state",
    values_callable=lambda states: [state.value for state in states],
)
_FILE_KIND = Enum(*FILE_KINDS, native_enum=False, create_constraint=True, length=16, name="file_kind")

metadata = MetaData()

jobs = Table(
    "jobs",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("batch_id", _ID),
    Column("agent_id", String(128), nullable=False),
    Column("status", _STATUS, nullable=False),
    Column("request", Text, nullable=False),
    Column("batch_key", Text, nullable=False),
    Column("image_name", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    Column("started_at", UtcTime),
    Column("finished_at", UtcTime),
    Column("attempts", Integer, nullable=False),
    Column("lease_owner", String(255)),
    Column("lease_expires_at", UtcTime),
    Column("fence", BigInteger, nullable=False),
    Column("progress", Integer, nullable=False),
    Column("current_step", String(255), nullable=False),
    Column("eta_seconds", Float),
    Column("cancel_requested", Boolean, nullable=False),
    Column("artifact", String(255), unique=True),
    Column("metadata", Text),
    Column("error_code", String(64)),
    Column("error_message", Text),
    Column("label", String(200)),
    Column("label_folded", Text),
    Column("filename", String(255)),
    Column("batch_index", Integer),
    Column("error_details", Text),
    Column("webhook_url", Text),
    Column("trace", String(64)),
    Column("candidates", Integer, nullable=False, server_default="1"),
    CheckConstraint("progress BETWEEN 0 AND 100", name="progress_in_percent"),
    CheckConstraint(
        "(status = 'processing') = (lease_owner IS NOT NULL) AND (lease_owner IS NULL) = (lease_expires_at IS NULL)",
        name="leased_while_processing",
    ),
    CheckConstraint(
        "(status IN ('queued', 'processing')) = (finished_at IS NULL)",
        name="finished_at_when_finished",
    ),
    CheckConstraint("(status = 'completed') = (artifact IS NOT NULL)", name="artifact_when_completed"),
    CheckConstraint("(status = 'failed') = (error_code IS NOT NULL)", name="error_when_failed"),
    Index("jobs_by_state", "status", "agent_id", "id"),
    Index("jobs_by_agent", "agent_id", "id"),
    Index("jobs_by_start", "agent_id", "started_at"),
    Index("jobs_by_batch", "batch_id"),
    Index("jobs_by_finish", "finished_at"),
    Index("jobs_by_image", "image_name"),
    Index("jobs_by_webhook", "webhook_url", "finished_at"),
)

files = Table(
    "files",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("job_id", _ID, nullable=False),
    Column("kind", _FILE_KIND, nullable=False),
    Column("format", String(8), nullable=False),
    Column("candidate", Integer, nullable=False),
    Column("bytes", BigInteger),
    Column("state", _FILE_STATE, nullable=False),
    CheckConstraint("candidate >= 0", name="candidate_counts_from_0"),
    CheckConstraint("bytes >= 0", name="file_has_bytes"),
    UniqueConstraint("job_id", "kind", "format", "candidate", name="one_file_of_a_kind"),
    Index("files_by_state", "state"),
)

cutouts = Table(
    "cutouts",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("agent_id", String(128), nullable=False),
    Column("answer", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Index("cutouts_by_age", "created_at"),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("agent_id", String(128), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("fingerprint", String(255), nullable=False),
    Column("job_ids", Text, nullable=False),
    Column("batch_id", _ID),
    Column("expires_at", UtcTime, nullable=False),
    Index("idempotency_keys_by_expiry", "expires_at"),
)

tombstones = Table(
    "tombstones",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("agent_id", String(128), nullable=False),
    Column("expired_at", UtcTime, nullable=False),
    Column("submitted_at", UtcTime),
    Column("candidates", Integer, nullable=False, server_default="1"),
    Index("tombstones_by_expiry", "expired_at"),
    Index("tombstones_by_submission", "agent_id", "submitted_at"),
)

nonces = Table(
    "nonces",
    metadata,
    Column("agent_id", String(128), primary_key=True),
    Column("nonce", String(128), primary_key=True),
    Column("expires_at", UtcTime, nullable=False),
    Index("nonces_by_expiry", "expires_at"),
)

link_keys = Table(
    "link_keys",
    metadata,
    Column("generation", Integer, primary_key=True, autoincrement=False),
    Column("key", String(64), nullable=False),
    Column("created_at", UtcTime, nullable=False),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("agent_id", String(128), nullable=False),
    Column("subject_id", _ID, nullable=False),
    Column("type", String(32), nullable=False),
    Column("url", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_at", UtcTime),
    Column("last_status", Integer),
    Column("last_error", Text),
    Column("ended_at", UtcTime),
    CheckConstraint("(state = 'pending') = (due_at IS NOT NULL)", name="due_while_pending"),
    UniqueConstraint("subject_id", "type", name="one_delivery_of_a_kind"),
    Index("webhook_deliveries_by_due", "due_at"),
    Index("webhook_deliveries_by_age", "created_at"),
)

studio_codes = Table(
    "studio_codes",
    metadata,
    Column("code_hash", String(64), primary_key=True),
    Column("created_at", UtcTime, nullable=False),
    Column("tries_left", Integer, nullable=False),
)

workers = Table(
    "workers",
    metadata,
    Column("owner", String(255), primary_key=True),
    Column("status", String(16), nullable=False),
    Column("model", Text),
    Column("device_type", Text),
    Column("device_name", Text),
    Column("memory_total", BigInteger),
    Column("memory_free", BigInteger),
    Column("error", Text),
    Column("expires_at", UtcTime, nullable=False),
    Column("compiled", Boolean),
    Column("stage_times", Text),
    Column("process", Text),
    Column("octree_resolution", Integer),
    Column("takes_views", Boolean),
    Index("workers_by_expiry", "expires_at"),
)


def time_value(time: datetime) -> BindParameter[datetime]:
    """Return a time as part of an expression, where its column's type would not reach it."""
    return literal(time, UtcTime())


def status_value(status: Status) -> BindParameter[Status]:
    """Return a status as part of an expression, where its column's type would not reach it."""
    return literal(status, _STATUS)
