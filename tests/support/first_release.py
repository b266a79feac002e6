"""A database as the first release made it, before there were migrations, with rows in every table."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from backend.storage.database import Database

_TABLES = Path(__file__).with_name("first_release.sql")
_LATER = 4_000_000_000_000_000  # microseconds since 1970: the year 2096
_BEFORE = 1_000_000_000_000_000
_JOB: dict[str, Any] = {
    "batch_id": None,
    "agent_id": "ann",
    "status": "queued",
    "request": '{"seed": 7}',
    "batch_key": "demo/20/5.0/256",
    "created_at": _BEFORE,
    "updated_at": _BEFORE + 1,
    "started_at": None,
    "finished_at": None,
    "attempts": 0,
    "lease_owner": None,
    "lease_expires_at": None,
    "fence": 0,
    "progress": 0,
    "current_step": "queued",
    "eta_seconds": None,
    "cancel_requested": False,
    "artifact": None,
    "metadata": None,
    "error_code": None,
    "error_message": None,
}
_DONE: dict[str, Any] = {"attempts": 1, "fence": 1, "started_at": _BEFORE + 2, "finished_at": _BEFORE + 3}
_FAILURE: dict[str, Any] = {"error_code": "NO_FOREGROUND", "error_message": "No object was found."}
_LEASE: dict[str, Any] = {
    "lease_owner": "w",
    "lease_expires_at": _LATER,
    "started_at": _BEFORE + 2,
    "attempts": 2,
    "fence": 3,
}

ROWS: dict[str, list[dict[str, Any]]] = {
    "schema_version": [{"version": 1}],
    "jobs": [
        {**_JOB, "id": f"{k:032x}", "input_path": f"{k}.png", **changes}
        for k, changes in enumerate(
            (
                {"batch_id": "b" * 32},
                {"status": "processing", **_LEASE, "progress": 40, "current_step": "denoising", "eta_seconds": 7.5},
                {"status": "completed", **_DONE, "artifact": "mesh.glb", "metadata": '{"faces": 12}', "progress": 100},
                {"status": "failed", **_DONE, **_FAILURE},
                {"status": "cancelled", **_DONE, "cancel_requested": True},
            )
        )
    ],
    "idempotency_keys": [
        {"agent_id": "ann", "key": "k", "fingerprint": "f", "job_ids": "0" * 32, "batch_id": None, "expires_at": _LATER}
    ],
    "nonces": [{"agent_id": "ann", "nonce": "nonce-000001", "expires_at": _LATER}],
    "workers": [
        {
            "owner": "w",
            "condition": "ready",
            "model": "demo",
            "device_type": "cpu",
            "device_name": "a processor",
            "memory_total": 2**33,
            "memory_free": 2**32,
            "error": None,
            "seconds_per_job": 1.5,
            "expires_at": _BEFORE,
        }
    ],
}


def make_first_release(url: str) -> None:
    """Make the first release's tables in a database without any, and fill them."""
    database = Database.open(url)
    try:
        with database.write() as connection:
            for statement in _statements(database.is_sqlite):
                connection.execute(text(statement))
            for table, rows in ROWS.items():
                _insert(connection, table, rows)
    finally:
        database.close()


def rows_of(connection: Connection, table: str) -> list[dict[str, Any]]:
    """Return all rows of a table as the database keeps them, in the order of their first column."""
    return [dict(row._mapping) for row in connection.execute(text(f"SELECT * FROM {table} ORDER BY 1"))]  # noqa: S608


def _statements(sqlite: bool) -> list[str]:
    lines = [line for line in _TABLES.read_text("utf-8").splitlines() if not line.startswith("--")]
    whole = re.sub(r" COLLATE_C\b", "" if sqlite else ' COLLATE "C"', "\n".join(lines))
    return [statement for statement in whole.split(";") if statement.strip()]


def _insert(connection: Connection, table: str, rows: list[dict[str, Any]]) -> None:
    names = list(rows[0])
    values = ", ".join(f":{name}" for name in names)
    connection.execute(text(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({values})"), rows)  # noqa: S608
