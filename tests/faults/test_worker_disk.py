"""A disk that is full while a worker writes meshes: a named error, no piece of a file, and all well with room again."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.harness import cluster
from faults.report import report
from faults.web_harness import fill_disk

pytestmark = pytest.mark.slow

PICTURES = (b"1", b"2", b"3", b"4")
DISK_KILOBYTES = 256


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own where the meshes are to lie."""
    folder = tmp_path / "data" / "artifacts"
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_KILOBYTES}k", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, check=False, capture_output=True, text=True)  # noqa: S603
    assert mounted.returncode == 0, f"NO SMALL DISK: this test mounts a tmpfs, which takes root: {mounted.stderr}"
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S603, S607


def test_a_full_disk_fails_jobs_by_name_and_leaves_no_piece(tmp_path: Path, small_disk: Path) -> None:
    with cluster(tmp_path, FAKE_STEP_SECONDS=0.02) as (yard, _):
        # Room for a part of one mesh.
        ballast = fill_disk(small_disk, left=4096)
        yard.submit(*PICTURES)
        yard.worker.start()
        yard.await_done()
        assert yard.outcomes() == {"STORAGE_FULL": 4}
        assert yard.files() == {ballast.name}
        ballast.unlink()
        yard.submit(*PICTURES)
        yard.await_done()
        assert yard.outcomes() == {"STORAGE_FULL": 4, "completed": 4}
        yard.expect_whole()
        assert yard.worker.stop() == 0
    report(
        "disk full while meshes are written",
        "4 jobs, then 4 with room",
        "STORAGE_FULL, no piece of a file; then 4 done",
    )


def test_a_disk_that_fills_up_keeps_what_was_whole(tmp_path: Path, small_disk: Path) -> None:
    with cluster(tmp_path, FAKE_STEP_SECONDS=0.02) as (yard, _):
        yard.worker.start()
        while not yard.outcomes()["STORAGE_FULL"]:
            yard.submit(*PICTURES)
            yard.await_done()
        assert set(yard.outcomes()) == {"completed", "STORAGE_FULL"}
        yard.expect_whole()
        assert small_disk.is_mount()
