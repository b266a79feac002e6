"""A disk that is full while a worker writes meshes: a named error, no piece of a file, and all well with room again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.faults.harness import cluster
from tests.support.faults.report import report
from tests.support.faults.web_harness import fill_disk
from tests.support.small_disk import small_disk

pytestmark = pytest.mark.slow

PICTURES = (b"1", b"2", b"3", b"4")


@pytest.fixture
def mesh_disk(tmp_path: Path) -> Iterator[Path]:
    """Provide a disk of its own where the meshes are to lie."""
    with small_disk(tmp_path / "data" / "artifacts", "256k") as folder:
        yield folder


def test_a_full_disk_fails_jobs_by_name_and_leaves_no_piece(tmp_path: Path, mesh_disk: Path) -> None:
    with cluster(tmp_path, FAKE_STEP_SECONDS=0.02) as (made, _):
        # Room for a part of one mesh.
        ballast = fill_disk(mesh_disk, left=4096)
        made.submit(*PICTURES)
        made.worker.start()
        made.await_done()
        assert made.outcomes() == {"STORAGE_FULL": 4}
        assert made.files() == {ballast.name}
        ballast.unlink()
        made.submit(*PICTURES)
        made.await_done()
        assert made.outcomes() == {"STORAGE_FULL": 4, "completed": 4}
        made.expect_whole()
        assert made.worker.stop() == 0
    report(
        "disk full while meshes are written",
        "4 jobs, then 4 with room",
        "STORAGE_FULL, no piece of a file; then 4 done",
    )


def test_a_disk_that_fills_up_keeps_what_was_whole(tmp_path: Path, mesh_disk: Path) -> None:
    with cluster(tmp_path, FAKE_STEP_SECONDS=0.02) as (made, _):
        made.worker.start()
        while not made.outcomes()["STORAGE_FULL"]:
            made.submit(*PICTURES)
            made.await_done()
        assert set(made.outcomes()) == {"completed", "STORAGE_FULL"}
        made.expect_whole()
        assert mesh_disk.is_mount()
