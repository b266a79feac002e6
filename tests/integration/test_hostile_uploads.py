"""Every hostile upload against the running service: its one answer, and nothing left of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.hostile import HostileUpload, hostile_uploads
from tests.support.running import API
from tests.support.watched import WIDE, WatchedService

UPLOADS = hostile_uploads(WIDE["MAX_IMAGE_BYTES"])
PATHS = {"generate": f"{API}/generate-3d", "batch": f"{API}/batch"}
ITS_OWN = ("audit.jsonl", "orfeas.sqlite3")


def files_outside(service: WatchedService) -> list[Path]:
    """Return what lies around the data folder."""
    folder = service.data.parent
    return sorted(path for path in folder.rglob("*") if not path.is_relative_to(service.data))


@pytest.mark.parametrize("hostile", UPLOADS, ids=lambda hostile: hostile.name)
def test_each_upload_gets_its_answer_and_leaves_nothing(waiting: WatchedService, hostile: HostileUpload) -> None:
    before, outside = waiting.files(), files_outside(waiting)
    answer = waiting.call(
        "POST",
        PATHS[hostile.operation],
        hostile.body,
        headers={"Content-Type": hostile.content_type.encode("latin-1").decode("utf-8", "surrogateescape")},
    )
    assert answer.refusal == (hostile.status, hostile.code), answer.body
    said = answer.json()
    for job_id in said.get("job_ids", [said["job_id"]] if "job_id" in said else []):
        assert waiting.call("DELETE", f"{API}/jobs/{job_id}").json()["status"] == "cancelled"
    new = set(waiting.files()) - set(before)
    assert [name for name in new if not name.startswith(ITS_OWN)] == []
    assert files_outside(waiting) == outside
