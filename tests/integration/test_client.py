"""The client, its command line and the recipes against the whole service."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import trimesh

from benchmarks.support.programs import require
from orfeas_client import AgentClient, Batch, Job, ServiceRefused
from tests.support.running import REPOSITORY
from tests.support.tiny_service import Fault, Wire, answer_cut, answer_lost, answered, reset_after
from tests.support.watched import WatchedService, sample


def client_of(service: WatchedService, port: int | None = None) -> AgentClient:
    agent = service.agent
    return AgentClient(f"http://127.0.0.1:{port or service.port}", agent.agent_id, agent.api_key)


@pytest.fixture
def wire(waiting: WatchedService) -> Iterator[Wire]:
    """Provide a line to the service whose jobs wait; it breaks where a test says so."""
    found = Wire(waiting.port)
    yield found
    found.close()


def environment(service: WatchedService) -> dict[str, str]:
    agent = service.agent
    named = {"ORFEAS_URL": service.base_url, "ORFEAS_AGENT_ID": agent.agent_id, "ORFEAS_API_KEY": agent.api_key}
    return {"PATH": os.environ["PATH"], **named}


def faces_of(path: Path) -> int:
    mesh = trimesh.load_mesh(path)
    return len(mesh.faces)


def test_picture_becomes_a_mesh_file(service: WatchedService, tmp_path: Path) -> None:
    seen: list[int] = []
    client = client_of(service)
    sent = client.generate(sample("chair"), format="stl", quality=1, steps=10, seed=7, scale_mm=50.0)
    job = client.wait(sent.id, lambda state: seen.append(state.progress))
    assert isinstance(job, Job)
    assert (job.succeeded, job.metadata["seed"], job.metadata["unit"]) == (True, 7, "mm")
    assert seen == sorted(seen)
    size = job.metadata["file_size"]
    assert isinstance(size, int)
    file = client.download(str(job.download_url), tmp_path / "chair.stl", size=size)
    assert faces_of(file) == job.metadata["faces"]
    assert job.id in [listed.id for listed in client.jobs(limit=100).jobs]


def test_batch_becomes_mesh_files_in_order(service: WatchedService, tmp_path: Path) -> None:
    client = client_of(service)
    sent = client.batch([sample("mug"), sample("star")], quality=1, steps=10, seed=7)
    batch = client.wait(sent.id)
    assert isinstance(batch, Batch)
    assert ([job.id for job in batch.jobs], batch.succeeded) == ([job.id for job in sent.jobs], True)
    for job in batch.jobs:
        file = client.download(str(job.download_url), tmp_path / f"{job.id}.glb")
        assert faces_of(file) == job.metadata["faces"]


def test_good_pictures_run_beside_bad_ones_and_come_as_one_zip(service: WatchedService, tmp_path: Path) -> None:
    client = client_of(service)
    for name in ("mug", "star"):
        (tmp_path / f"{name}.png").write_bytes(sample(name))
    (tmp_path / "cut.png").write_bytes(sample("mug")[:500])
    images = [tmp_path / "mug.png", tmp_path / "cut.png", tmp_path / "star.png"]
    with pytest.raises(ServiceRefused) as refused:
        client.batch(images, quality=1, steps=10)
    assert (refused.value.status, refused.value.code) == (400, "INVALID_IMAGE")
    named = refused.value.details["images"]
    assert isinstance(named, list)
    assert [(bad["index"], bad["filename"]) for bad in named] == [(1, "cut.png")]

    sent = client.batch(images, accept_partial=True, quality=1, steps=10, label="Client's Set")
    assert [job.status for job in sent.jobs] == ["queued", "failed", "queued"]
    assert (sent.jobs[1].error_code, sent.jobs[1].filename) == ("INVALID_IMAGE", "cut.png")
    batch = client.wait(sent.id)
    assert isinstance(batch, Batch)
    assert dict(batch.counts) == {"queued": 0, "processing": 0, "completed": 2, "failed": 1, "cancelled": 0}
    assert [(job.index, job.filename, job.label) for job in batch.jobs] == [
        (0, "mug.png", "Client's Set"),
        (1, "cut.png", "Client's Set"),
        (2, "star.png", "Client's Set"),
    ]
    assert batch.jobs[0].request["quality"] == 1
    assert batch.jobs[1].error == sent.jobs[1].error
    file = client.download(str(batch.download_url), tmp_path / "all.zip")
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert {"batch.json", "mug.glb", "star.glb"} <= set(archive.namelist())
    found = client.jobs(label="CLIENT'S set", status="completed,failed")
    assert [job.id for job in found.jobs] == [job.id for job in reversed(batch.jobs)]


def test_batch_is_cancelled_whole(waiting: WatchedService) -> None:
    client = client_of(waiting)
    sent = client.batch([sample("mug"), sample("star")])
    batch = client.cancel(sent.id)
    assert isinstance(batch, Batch)
    assert [job.status for job in batch.jobs] == ["cancelled", "cancelled"]


def test_synchronous_request_brings_the_mesh(service: WatchedService) -> None:
    job = client_of(service).generate(sample(), run_async=False, quality=1, steps=10)
    assert (job.succeeded, job.progress, job.metadata["format"]) == (True, 100, "glb")
    assert job.processing_time is not None


def test_a_job_is_made_again_and_fetched_by_a_link(service: WatchedService, tmp_path: Path) -> None:
    client = client_of(service)
    first = client.generate(sample(), run_async=False, quality=1, steps=10, seed=7, preview=False)
    second = client.again(first.id, run_async=False, format="stl")
    assert (second.metadata["seed"], second.metadata["format"]) == (7, "stl")
    mesh = client.download(str(second.download_url), tmp_path / "mesh.stl").read_bytes()
    link = client.link(second.id)
    answer = requests.get(link, timeout=30)
    assert (answer.status_code, answer.content) == (200, mesh)
    assert requests.head(link, timeout=30).headers["Content-Length"] == str(len(mesh))
    target = link.removeprefix(service.base_url)
    # Sent as they are written, which libraries for HTTP do not.
    for changed in (target[:-1], f"/{target}", target.replace(".stl", "%2estl")):
        assert service.send("GET", changed, {}).refusal == (403, "LINK_INVALID")
    log = service.log
    assert f"/download/{str(second.download_url)[-36:]}" in log
    assert link.rpartition("signature=")[2] not in log


def test_health_tells_the_model(service: WatchedService) -> None:
    health = client_of(service).health()
    assert (health.ok, health.status, health.model_loaded, health.device) == (True, "ok", True, "cpu")
    assert health.memory_total is not None


def test_refusals_are_told(service: WatchedService, waiting: WatchedService) -> None:
    client = client_of(service)
    with pytest.raises(ServiceRefused) as caught:
        client.generate(b"no picture")
    assert (caught.value.status, caught.value.code) == (415, "UNSUPPORTED_IMAGE")
    with pytest.raises(ServiceRefused) as caught:
        client.status("0" * 32)
    assert (caught.value.status, caught.value.code) == (404, "JOB_NOT_FOUND")
    stranger = AgentClient(waiting.base_url, "nobody", "another-key-0123456789abcdef")
    with pytest.raises(ServiceRefused) as caught:
        stranger.jobs()
    assert (caught.value.status, caught.value.code) == (401, "AUTH_INVALID")


def test_upload_that_is_refused_before_it_has_arrived_is_told_so(waiting: WatchedService) -> None:
    tries: list[str] = []
    agent = waiting.agent
    client = AgentClient(
        waiting.base_url, agent.agent_id, agent.api_key, on_retry=lambda problem, _pause: tries.append(problem)
    )
    with pytest.raises(ServiceRefused) as caught:
        client.generate(bytes(40_000_000))
    assert (caught.value.status, caught.value.code, tries) == (413, "FILE_TOO_LARGE", [])


BREAKS: dict[str, list[Fault]] = {
    "reset in mid-upload": [reset_after(2000)],
    "answer lost": [answer_lost],
    "answer cut": [answer_cut(10)],
    "all of them": [reset_after(0), answer_lost, answered("503 Busy", "Retry-After: 0"), answer_cut(3)],
}


@pytest.mark.parametrize("faults", BREAKS.values(), ids=BREAKS)
def test_whatever_breaks_the_job_is_made_once(waiting: WatchedService, wire: Wire, faults: list[Fault]) -> None:
    agent = waiting.add_agent()
    client = AgentClient(f"http://127.0.0.1:{wire.port}", agent.agent_id, agent.api_key, sleep=lambda _seconds: None)
    wire.faults.extend(faults)
    sent = client.generate(sample())
    assert len(wire.seen) == len(faults) + 1
    assert [job.id for job in client.jobs().jobs] == [sent.id]
    assert client.cancel(sent.id).status == "cancelled"


def test_command_line_makes_meshes(service: WatchedService, tmp_path: Path) -> None:
    for name in ("car", "star"):
        (tmp_path / f"{name}.png").write_bytes(sample(name))
    fields = [
        "--quality",
        "1",
        "--steps",
        "10",
        "--seed",
        "7",
        "--target-faces",
        "500",
        "-f",
        "ply",
        "-o",
        str(tmp_path / "out"),
    ]
    command = [sys.executable, "-m", "orfeas_client", "batch", *map(str, sorted(tmp_path.glob("*.png"))), *fields]
    done = subprocess.run(  # noqa: S603
        command, cwd=REPOSITORY, env=environment(service), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    # One line for each, as it is done; what is doubtful about a mesh may follow.
    told = [line for line in done.stderr.splitlines() if line.startswith(("1/2 ", "2/2 "))]
    assert [Path(line.rpartition(": ")[0].partition(" ")[2]).name for line in told] == ["car.png", "star.png"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["car.ply", "star.ply"]
    assert all(faces_of(path) <= 500 for path in (tmp_path / "out").iterdir())


@pytest.mark.slow
def test_recipe_makes_a_mesh(service: WatchedService, tmp_path: Path) -> None:
    require(REPOSITORY / "tests" / "support" / "install-recipe-tools.sh")
    (tmp_path / "mug.png").write_bytes(sample())
    command = ["/usr/bin/env", "bash", str(REPOSITORY / "docs" / "recipes" / "generate.sh"), "mug.png", "mug.glb"]
    done = subprocess.run(  # noqa: S603
        command, cwd=tmp_path, env=environment(service), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert faces_of(tmp_path / "mug.glb") > 1000
