"""The audit log: one line an entry, whole, private, bounded."""

from __future__ import annotations

import json
import logging
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from backend.auth.audit_log import AuditEntry, AuditLog

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


PATH = "/api/agent/generate-3d"


def entry(request_id: str = "r1", agent: str = "a1") -> AuditEntry:
    return AuditEntry(request_id, agent, True, "generate", "admitted", 200, "10.0.0.1", "POST", PATH, ("j1",))


def refusal(request_id: str, agent: str = "", address: str = "10.0.0.1") -> AuditEntry:
    return AuditEntry(request_id, agent, False, "status", "RATE_LIMITED", 429, address, "GET", "/status/x", ())


class Seconds:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def log(path: Path, **options: Any) -> AuditLog:
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
            "method": "POST",
            "path": PATH,
            "job_ids": ["j1"],
            "credential": "",
        }
    ]


def test_a_path_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log(path).write(replace(entry(), path="/" + "a" * 9000))
    assert lines(path)[0]["path"] == "/" + "a" * 299


def test_a_flood_that_was_refused_already_is_one_line_and_a_sum(tmp_path: Path) -> None:
    path, seconds = tmp_path / "audit.jsonl", Seconds()
    audit = log(path, monotonic=seconds)
    for k in range(3800):
        audit.write(refusal(f"r{k}"))
    audit.write_sums()
    assert [line["request_id"] for line in lines(path)] == ["r0"]
    seconds.now += 60
    audit.write_sums()
    assert lines(path)[1:] == [
        {
            "time": "2026-01-02T03:04:05.678+00:00",
            "since": "2026-01-02T03:04:05.678+00:00",
            "count": 3799,
            "agent": "",
            "verified": False,
            "outcome": "RATE_LIMITED",
            "status": 429,
            "address": "10.0.0.1",
        }
    ]
    # What goes on is a flood of its own; one request is no sum.
    audit.write(refusal("r3800"))
    seconds.now += 60
    audit.write_sums()
    assert [line.get("request_id") for line in lines(path)] == ["r0", None, "r3800"]


def test_others_are_written_while_a_flood_is_summed(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = log(path, monotonic=Seconds())
    for agent, address in (("", "10.0.0.1"), ("", "10.0.0.2"), ("a1", "10.0.0.1")):
        audit.write(refusal("r1", agent, address))
        audit.write(refusal("r2", agent, address))
    audit.write(entry("r3"))
    assert [line["request_id"] for line in lines(path)] == ["r1", "r1", "r1", "r3"]
    audit.write_sums(all_of_them=True)
    assert [line["count"] for line in lines(path)[4:]] == [1, 1, 1]


def test_a_flood_from_many_addresses_takes_bounded_room(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = log(path, monotonic=Seconds())
    for k in range(1500):
        audit.write(refusal(f"r{k}", address=f"2001:db8::{k:x}"))
    assert [line["request_id"] for line in lines(path)] == [f"r{k}" for k in range(1001)]
    audit.write_sums(all_of_them=True)
    assert [(line["address"], line["count"]) for line in lines(path)[1001:]] == [("many", 499)]


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
