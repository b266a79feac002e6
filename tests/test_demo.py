"""`make demo`: the real service for a while, and what it does when that fails."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import trimesh
from PIL import Image
from rich.console import Console

from backend.cli.console import Terminal
from backend.cli.output_names import plan_names
from backend.demo import Finished, Plan, _drawn, main
from backend.demo.local_service import ServiceFailed, demo_service
from backend.hunyuan3d.mesh.offered import offered_formats
from backend.limits import FORMATS
from orfeas_client.console import Screen
from orfeas_client.models import Job
from tests.support.running import REPOSITORY

SAMPLES = REPOSITORY / "samples"


class Person:
    """Who starts the demonstration, and what they see."""

    def __init__(self) -> None:
        self.out, self.err = io.StringIO(), io.StringIO()

    def run(self, *arguments: str | Path, **environ: str) -> int:
        own = {**os.environ, "OMP_NUM_THREADS": "1", "DEVICE": "cpu", **environ}
        return main([str(part) for part in arguments], own, *self.views())

    def views(self) -> tuple[Screen, Terminal]:
        out, err = Console(file=self.out, width=200), Console(file=self.err, width=200)
        return Screen(out, err), Terminal(out, err)


EARLIER: frozenset[int] = frozenset()
"""Services that tests before these keep for as long as tests run."""


def service_processes() -> list[int]:
    """Return the processes that this test started, and theirs, which still run."""
    children = psutil.Process().children(recursive=True)
    services = [child.pid for child in children if {"gunicorn", "backend.serve"} & set(child.cmdline())]
    return [pid for pid in services if pid not in EARLIER]


@pytest.fixture(autouse=True)
def leave_out_earlier_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "EARLIER", frozenset(service_processes()))


@pytest.mark.slow
def test_demonstration_leaves_meshes_and_images_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    elsewhere = tmp_path / "elsewhere.sqlite3"
    person = Person()
    images = [SAMPLES / "mug.png", SAMPLES / "star.png"]
    assert person.run(*images, "-o", "out", "--quality", "1", DATABASE_URL=f"sqlite:///{elsewhere}") == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        *(f"mug.{format}" for format in offered_formats()),
        "mug.preview.png",
        *("star.glb", "star.preview.png", "contact-sheet.png"),
    }
    assert (
        len({len(trimesh.load_mesh(tmp_path / "out" / f"mug.{format}").faces) for format in ("glb", "stl", "ply")}) == 1
    )
    with Image.open(tmp_path / "out" / "contact-sheet.png") as sheet:
        assert sheet.width > sheet.height > 400
    for name in ("mug", "star"):
        faces = len(trimesh.load_mesh(tmp_path / "out" / f"{name}.glb").faces)
        assert f"{faces:,}".replace(",", " ") in person.out.getvalue()
    assert "2 meshes of 2 pictures" in person.err.getvalue()
    assert "the service has stopped" in person.err.getvalue()
    assert not elsewhere.exists()
    assert list(temporary.iterdir()) == []
    assert service_processes() == []


def test_image_that_failed_is_in_the_table_and_on_the_sheet(tmp_path: Path) -> None:
    images = (SAMPLES / "mug.png", SAMPLES / "star.png")
    plan = Plan(images, plan_names(images, tmp_path, FORMATS), quality=1, seed=7)
    trimesh.creation.box().export(tmp_path / "mug.glb")
    made = Job("1", "completed", metadata={"faces": 12, "watertight": True, "seed": 7, "batch_size": 2})
    failed = Job("5", "failed", error_code="NO_FOREGROUND", error="No object was found.")
    person = Person()
    screen, terminal = person.views()
    outcomes = _drawn(plan, Finished((made, failed), 1.0), screen, terminal)
    assert outcomes[0].files == tuple(tmp_path / f"mug.{end}" for end in FORMATS)
    assert (outcomes[1].files, outcomes[1].problem) == ((), "NO_FOREGROUND: No object was found.")
    assert "No object was found." in person.out.getvalue()
    assert (tmp_path / "contact-sheet.png").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([SAMPLES / "mug.png"], "A batch takes 2 to 10 pictures, not 1."),
        ([SAMPLES / "mug.png"] * 11, "A batch takes 2 to 10 pictures, not 11."),
        ([SAMPLES / "mug.png", "missing.png"], "There is no file missing.png."),
        (["-o", "/dev/null/out"], "Not a directory"),
    ],
)
def test_bad_parameters_are_reported_before_anything_starts(arguments: list[str | Path], said: str) -> None:
    person = Person()
    assert person.run(*arguments) == 2
    assert said in person.err.getvalue()


def test_service_that_cannot_start_says_why(tmp_path: Path) -> None:
    person = Person()
    assert person.run("-o", tmp_path, DEVICE="abacus") == 3
    assert "The service ended by itself, with 2." in person.err.getvalue()
    assert "DEVICE must be auto, cpu, cuda, cuda:N or mps." in person.err.getvalue()


@pytest.mark.slow
def test_model_that_cannot_be_loaded_is_reported(tmp_path: Path) -> None:
    person, spoilt = Person(), tmp_path / "spoilt"
    shutil.copytree(REPOSITORY / "backend" / "checkpoints" / "demo", spoilt)
    (spoilt / "model.fp16.safetensors").write_bytes(b"no weights")
    assert person.run("-o", tmp_path / "out", MODEL_PATH=str(spoilt)) == 3
    said = person.err.getvalue()
    assert ("its worker cannot" in said, "spoilt" in said) == (True, True)


@pytest.mark.slow
def test_model_that_is_not_there_is_reported(tmp_path: Path) -> None:
    person = Person()
    (tmp_path / "empty").mkdir()
    assert person.run("-o", tmp_path / "out", MODEL_PATH=str(tmp_path / "empty")) == 3
    said = person.err.getvalue()
    assert ("ended by itself" in said, "empty" in said) == (True, True)
    assert service_processes() == []


def test_service_that_goes_away_is_reported() -> None:
    def see_it_killed() -> None:
        with demo_service(os.environ, WORKER_ENABLED="false") as service:
            while not service._status():
                time.sleep(0.05)
            os.killpg(service._process.pid, signal.SIGKILL)
            service._process.wait()
            service.require_alive()

    with pytest.raises(ServiceFailed, match=r"^The service ended by itself, with -9\.\nThe end of its log:\n  \S"):
        see_it_killed()
    assert service_processes() == []


def test_service_that_is_not_ready_in_time_is_reported() -> None:
    def wait_for_it() -> None:
        with demo_service(os.environ, WORKER_ENABLED="false") as service:
            service.wait_until_ready(0)

    with pytest.raises(ServiceFailed, match="was not ready after 0 seconds"):
        wait_for_it()
    assert service_processes() == []


def test_service_ends_with_the_demonstration_that_is_ended(tmp_path: Path) -> None:
    environ = {**os.environ, "TMPDIR": str(tmp_path), "DEVICE": "cpu", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "backend.demo", "-o", str(tmp_path / "out")]
    with (tmp_path / "said").open("wb") as said:
        demo = subprocess.Popen(command, cwd=REPOSITORY, env=environ, stdout=said, stderr=said)  # noqa: S603
    try:
        while not service_processes() and demo.poll() is None:
            time.sleep(0.05)
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(60) == 130
    finally:
        demo.kill()
        demo.wait()
    assert "Interrupted" in (tmp_path / "said").read_text()
    assert service_processes() == []
    assert list(tmp_path.glob("orfeas-demo-*")) == []
