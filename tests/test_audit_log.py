"""The audit log: one line an entry, whole, private, bounded."""

from __future__ import annotations

import json
import logging
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backend.auth.audit_log import AuditEntry, AuditLog

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def entry(request_id: str = "r1", agent: str = "a1") -> AuditEntry:
    return AuditEntry(request_id, agent, True, "generate", "admitted", 200, "10.0.0.1")


def log(path: Path, **options: int) -> AuditLog:
    return AuditLog(path, lambda: NOW, **options)


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_entry_is_one_line_of_json(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "audit.jsonl"
    log(path).write(entry(agent="Ä\nb"))
    assert lines(path) == [
        {
            "time": "2026-01-02T03:04:05.678+00:00",
            "request_id": "r1",
            "agent": "Ä\nb",
            "verified": True,
            "operation": "generate",
            "outcome": "admitted",
            "status": 200,
            "address": "10.0.0.1",
        }
    ]


def test_log_is_its_owner_s_alone(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log(path).write(entry())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_lines_of_many_writers_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    logs = [log(path), log(path)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda k: logs[k % 2].write(entry(f"r{k}")), range(200)))
    assert {line["request_id"] for line in lines(path)} == {f"r{k}" for k in range(200)}


def test_full_log_moves_aside_and_the_oldest_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    small = log(path, max_bytes=1, kept_files=3)
    for k in range(5):
        small.write(entry(f"r{k}"))
    kept = {file.name: lines(file)[0]["request_id"] for file in tmp_path.glob("audit.jsonl.[0-9]")}
    assert kept == {"audit.jsonl.1": "r4", "audit.jsonl.2": "r3"}
    assert not path.exists()


def test_log_that_cannot_be_written_fails_no_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.ERROR):
        log(tmp_path / "file" / "audit.jsonl").write(entry())
    assert "cannot be written" in caplog.text
