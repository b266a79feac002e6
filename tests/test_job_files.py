"""A job's files: all are found by their owner alone, one more format is the same mesh, and what is deleted is gone."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from werkzeug.test import TestResponse

import backend
from backend.errors import ArtifactStoreUnavailable, FilesExpired, NoForeground
from backend.jobs.janitor import Janitor
from backend.jobs.models import NewFile
from backend.rendering.shape_file import FinishedShape, encode, read_shape
from backend.storage.artifacts import ArtifactStore
from tests.support.agent_service import API, FORM, AgentService, agent_service, field, refused
from tests.support.fake_gpu import ball_cutout
from tests.support.file_places import s3_server
from tests.support.hostile import Part, encode_form
from tests.support.workshop import eventually

URLS = ("preview_url", "thumbnail_url", "turntable_url", "image_url", "cutout_url")


@pytest.fixture
def running(tmp_path: Path) -> Iterator[AgentService]:
    """Give a service whose worker runs, and whose every picture is a ball."""
    with agent_service(tmp_path, running=True, sync_wait_seconds=120.0) as made:
        made.fake.cutout = ball_cutout()
        yield made


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentService]:
    """Give one like that to all tests that look at their own jobs alone."""
    with agent_service(tmp_path_factory.mktemp("shared"), running=True, sync_wait_seconds=120.0) as made:
        made.fake.cutout = ball_cutout()
        yield made


@pytest.fixture
def service(tmp_path: Path) -> Iterator[AgentService]:
    """Give a service whose worker does not run."""
    with agent_service(tmp_path) as made:
        yield made


def add(service: AgentService, job_id: str, *parts: Part, agent: str = "ann", **headers: str) -> TestResponse:
    sent = {"Content_Type": FORM, **headers}
    return service.call("POST", f"{API}/jobs/{job_id}/files", encode_form(*parts), agent=agent, **sent)


def delete(service: AgentService, job_id: str, agent: str = "ann") -> TestResponse:
    return service.call("DELETE", f"{API}/jobs/{job_id}/files", agent=agent)


def addresses(answer: dict[str, Any]) -> list[str]:
    """Every address of a file that an answer has."""
    return [file["url"] for file in answer["files"]] + [answer[name] for name in URLS if answer[name]]


def stored(service: AgentService) -> set[str]:
    return {path.name for part in ("artifacts", "inputs") for path in (service.settings.data_dir / part).glob("*")}


def test_all_that_was_made_is_listed_and_fetched_by_its_owner_alone(running: AgentService) -> None:
    answer = running.made(field("format", "glb,ply"), field("preview", "true"))
    job_id = answer["job_id"]
    listed = running.get("/jobs").get_json()["jobs"][0]
    status = running.get(f"/status/{job_id}").get_json()
    for shown in (listed, status):
        assert {name: shown[name] for name in ("files", "download_url", *URLS)} == {
            name: answer[name] for name in ("files", "download_url", *URLS)
        }
    assert [file["format"] for file in answer["files"]] == ["glb", "ply"]
    assert answer["files"][0]["url"] == answer["download_url"]
    assert answer["turntable_url"] is None
    for address in addresses(answer):
        got = running.call("GET", address)
        assert got.status_code == 200
        etag, half = got.headers["ETag"], len(got.data) // 2
        assert running.call("HEAD", address).headers["Content-Length"] == str(len(got.data))
        part = running.call("GET", address, Range=f"bytes={half}-", If_Range=etag)
        assert (part.status_code, part.data) == (206, got.data[half:])
        assert running.call("GET", address, If_None_Match=etag).status_code == 304
        assert refused(running.call("GET", address, agent="bob")) == (404, "FILE_NOT_FOUND")
    sizes = [len(running.call("GET", file["url"]).data) for file in answer["files"]]
    assert sizes == [file["bytes"] for file in answer["files"]]


def test_pictures_of_a_mesh_are_what_they_say(shared: AgentService) -> None:
    answer = shared.made(field("preview", "true"))
    seen = {name: shared.call("GET", answer[name]) for name in URLS if answer[name]}
    assert {name: got.mimetype for name, got in seen.items()} == {
        "preview_url": "image/webp",
        "thumbnail_url": "image/webp",
        "image_url": "image/png",
        "cutout_url": "image/png",
    }
    images = {name: Image.open(io.BytesIO(got.data)) for name, got in seen.items()}
    assert images["preview_url"].size == (4 * images["preview_url"].height, images["preview_url"].height)
    assert images["thumbnail_url"].size == (256, 256)
    assert images["cutout_url"].tobytes() == ball_cutout().tobytes()
    # The front is red on its left and blue on its right, and the back the other way round.
    height = images["preview_url"].height
    picture = images["preview_url"].convert("RGB")
    left, right = (picture.getpixel((round(height * x), height // 2)) for x in (0.3, 0.7))
    assert isinstance(left, tuple)
    assert isinstance(right, tuple)
    assert (left[0] > left[2] + 50, right[2] > right[0] + 50) == (True, True)


def test_what_the_shape_is_kept_as_is_nobodys_to_fetch(running: AgentService) -> None:
    running.made()
    (shape,) = (name for name in stored(running) if name.endswith(".npz"))
    assert refused(running.get(f"/download/{shape}")) == (404, "FILE_NOT_FOUND")


@pytest.mark.parametrize("format", ["glb", "stl", "obj", "ply", "3mf"])
def test_one_more_format_is_the_file_that_would_have_been_made_at_first(shared: AgentService, format: str) -> None:
    other = "glb" if format == "stl" else "stl"
    whole = shared.made(field("format", f"{other},{format}"), field("seed", "5"))
    assert encode(shape_of(shared, whole), format) == shared.call("GET", whole["files"][1]["url"]).data
    lone = shared.made(field("format", other), field("seed", "5"))
    answer = add(shared, lone["job_id"], field("format", format)).get_json()
    assert {file["format"] for file in answer["files"]} == {other, format}
    assert answer["download_url"] == lone["download_url"]
    (now,) = (file for file in answer["files"] if file["format"] == format)
    assert shared.call("GET", now["url"]).data == encode(shape_of(shared, lone), format)
    again = add(shared, lone["job_id"], field("format", format)).get_json()
    assert again["files"] == answer["files"] == shared.get(f"/status/{lone['job_id']}").get_json()["files"]


def test_a_key_names_one_request_for_a_format(shared: AgentService) -> None:
    job_id, other = (shared.made()["job_id"] for _ in range(2))
    first = add(shared, job_id, field("format", "stl"), Idempotency_Key="key-1")
    assert add(shared, job_id, field("format", "stl"), Idempotency_Key="key-1").get_json() == first.get_json()
    conflict = (409, "IDEMPOTENCY_CONFLICT")
    assert refused(add(shared, job_id, field("format", "ply"), Idempotency_Key="key-1")) == conflict
    assert refused(add(shared, other, field("format", "stl"), Idempotency_Key="key-1")) == conflict
    assert refused(shared.generate(Idempotency_Key="key-1")) == conflict
    assert refused(add(shared, job_id, field("format", "ply"), Idempotency_Key="a key")) == (
        400,
        "INVALID_IDEMPOTENCY_KEY",
    )
    formats = [file["format"] for file in shared.get(f"/status/{job_id}").get_json()["files"]]
    assert formats == ["glb", "stl"]


def test_a_request_for_a_format_that_failed_leaves_its_key_free(service: AgentService) -> None:
    waiting = service.submit()
    unfinished = (409, "JOB_UNFINISHED")
    assert refused(add(service, waiting, field("format", "stl"), Idempotency_Key="key-1")) == unfinished
    assert refused(add(service, waiting, field("format", "ply"), Idempotency_Key="key-1")) == unfinished


def test_equal_jobs_have_equal_meshes_to_the_byte(shared: AgentService) -> None:
    asked = {"format": "glb,3mf,stl", "seed": "5", "octree_resolution": "64", "compress": "meshopt"}
    first, second = (shared.made(*(field(name, value) for name, value in asked.items())) for _ in range(2))
    assert first["job_id"] != second["job_id"]
    for one, other in zip(first["files"], second["files"], strict=True):
        assert one["url"] != other["url"]
        assert shared.call("GET", one["url"]).data == shared.call("GET", other["url"]).data


def test_a_mesh_file_says_what_it_was_made_of_and_how(shared: AgentService) -> None:
    asked = {"seed": "5", "octree_resolution": "64", "steps": "12", "target_faces": "500"}
    answer = shared.made(*(field(name, value) for name, value in asked.items()))
    data = shared.call("GET", answer["download_url"]).data
    document = json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])
    (node,) = document["nodes"]
    assert (node["name"], document["materials"][0]["name"]) == ("cat", "cat")
    assert document["asset"]["generator"] == f"ORFEAS {backend.__version__}"
    said = {name: str(value) for name, value in node["extras"].items()}
    assert asked.items() <= said.items()
    assert said["model"] == shared.fake.name


def test_files_in_a_bucket_are_sent_made_and_removed_like_those_in_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = s3_server()
    for variable, value in server.environment.items():
        monkeypatch.setenv(variable, value)
    bucket = server.new_bucket()
    with agent_service(tmp_path, running=True, sync_wait_seconds=120.0, files_url=f"s3://{bucket}/orfeas") as made:
        made.fake.cutout = ball_cutout()
        answer = made.made(field("preview", "true"), field("format", "glb,ply"))
        for address in addresses(answer):
            got = made.call("GET", address)
            assert got.status_code == 200
            part = made.call("GET", address, Range="bytes=10-", If_Range=got.headers["ETag"])
            assert (part.status_code, part.data) == (206, got.data[10:])
        more = add(made, answer["job_id"], field("format", "stl")).get_json()
        (stl,) = (file for file in more["files"] if file["format"] == "stl")
        assert made.call("GET", stl["url"]).data == encode(shape_of(made, answer), "stl")
        kept = {path.rpartition("/")[2] for path in server.filesystem().find(bucket)}
        assert {address.rpartition("/")[2] for address in addresses({**answer, **more})} < kept
        assert delete(made, answer["job_id"]).status_code == 200
        assert server.filesystem().find(bucket) == []
        assert refused(made.call("GET", stl["url"])) == (410, "EXPIRED")
        other = made.made()
        services, kept_for = made.services, timedelta(hours=made.settings.artifact_ttl_hours)
        made.clock.advance(kept_for.total_seconds())
        Janitor(services.store, services.artifacts, services.images, made.clock, kept_for).sweep()
        assert server.filesystem().find(bucket) == []
        assert refused(made.call("GET", other["download_url"])) == (410, "EXPIRED")


def shape_of(service: AgentService, answer: dict[str, Any]) -> FinishedShape:
    """Return the shape that was kept of a job."""
    store = service.services.store
    job = store.get(answer["job_id"], service.owner("ann"))
    (kept,) = (file for file in store.files.of(job) if file.kind == "shape")
    return read_shape(service.services.artifacts.read(kept.name))


def test_many_who_ask_for_one_format_at_once_get_one_file(running: AgentService) -> None:
    job_id = running.made()["job_id"]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: add(running, job_id, field("format", "ply")), range(4)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.get_json()["files"][1]["url"] for answer in answers}) == 1
    assert sum(name.endswith(".ply") for name in stored(running)) == 1


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ((field("format", "exe"),), "INVALID_FORMAT"),
        ((field("format", "glb,stl"),), "INVALID_FORMAT"),
        ((), "INVALID_FORMAT"),
        ((field("format", "stl"), field("seed", "1")), "UNKNOWN_FIELD"),
        ((field("format", "stl"), Part("image", b"x", "x.png")), "UNKNOWN_FIELD"),
    ],
)
def test_what_is_no_format_is_refused(service: AgentService, parts: tuple[Part, ...], code: str) -> None:
    assert refused(add(service, service.submit(), *parts)) == (400, code)


def test_files_are_a_finished_jobs_own(service: AgentService) -> None:
    job_id = service.submit()
    batch_id = service.batch().get_json()["batch_id"]
    for wrong, refusal in (
        (job_id, (409, "JOB_UNFINISHED")),
        (batch_id, (404, "JOB_NOT_FOUND")),
        ("f" * 32, (404, "JOB_NOT_FOUND")),
    ):
        assert refused(add(service, wrong, field("format", "stl"))) == refusal
        assert refused(delete(service, wrong)) == refusal
    assert refused(add(service, job_id, field("format", "stl"), agent="bob")) == (404, "JOB_NOT_FOUND")
    assert refused(delete(service, job_id, agent="bob")) == (404, "JOB_NOT_FOUND")


def test_a_job_without_a_mesh_has_no_other_format(running: AgentService) -> None:
    running.fake.before_finish = lambda image: running.fake.errors.update({image: NoForeground()})
    job_id = running.submit()
    eventually(lambda: running.get(f"/status/{job_id}").get_json()["status"] == "failed")
    assert refused(add(running, job_id, field("format", "stl"))) == (422, "NO_FOREGROUND")
    assert delete(running, job_id).status_code == 200


def test_files_that_are_deleted_are_gone_at_once_and_for_good(running: AgentService) -> None:
    answer = running.made(field("format", "glb,stl"))
    job_id = answer["job_id"]
    gone = delete(running, job_id).get_json()
    assert (gone["files"], gone["download_url"], gone["image_url"]) == ([], None, None)
    assert stored(running) == set()
    for address in addresses(answer):
        assert refused(running.call("GET", address)) == (410, "EXPIRED")
        assert refused(running.call("GET", address, agent="bob")) == (404, "FILE_NOT_FOUND")
    status = running.get(f"/status/{job_id}").get_json()
    assert (status["status"], status["download_url"], status["files"]) == ("completed", None, [])
    assert refused(add(running, job_id, field("format", "ply"))) == (410, "EXPIRED")
    assert delete(running, job_id).status_code == 200
    job = running.services.store.get(job_id, running.owner("ann"))
    with pytest.raises(FilesExpired):
        running.services.store.files.add(job, NewFile("turntable", "webp", f"{'a' * 32}.webp", 1))


def test_an_answer_that_is_asked_for_again_says_that_its_files_are_gone(running: AgentService) -> None:
    first = running.generate(Part("image", _png(), "cat.png"), Idempotency_Key="key-1")
    delete(running, first.get_json()["job_id"])
    again = running.generate(Part("image", _png(), "cat.png"), Idempotency_Key="key-1")
    assert refused(again) == (410, "EXPIRED")


def _png() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (64, 64), (9, 9, 9)).save(data, "PNG")
    return data.getvalue()


def test_what_storage_does_not_let_go_of_is_out_of_reach_and_goes_later(
    running: AgentService, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = running.made()

    def away(*_: object) -> None:
        raise ArtifactStoreUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(ArtifactStore, "delete", away)
        assert refused(delete(running, answer["job_id"])) == (503, "STORAGE_UNAVAILABLE")
        assert refused(running.call("GET", answer["download_url"])) == (410, "EXPIRED")
    assert delete(running, answer["job_id"]).status_code == 200
    assert stored(running) == set()


def test_a_file_that_vanished_is_not_found(running: AgentService) -> None:
    answer = running.made()
    name = answer["download_url"].rpartition("/")[2]
    (running.settings.data_dir / "artifacts" / name).unlink()
    assert refused(running.call("GET", answer["download_url"])) == (404, "FILE_NOT_FOUND")
    assert running.call("GET", answer["cutout_url"]).status_code == 200
    for kept in (running.settings.data_dir / "artifacts").glob("*.npz"):
        kept.unlink()
    assert refused(add(running, answer["job_id"], field("format", "stl"))) == (410, "EXPIRED")


def test_a_turntable_comes_when_the_job_is_done(running: AgentService) -> None:
    job_id = running.made(field("turntable", "true"))["job_id"]
    eventually(lambda: running.get(f"/status/{job_id}").get_json()["turntable_url"] is not None)
    address = running.get(f"/status/{job_id}").get_json()["turntable_url"]
    with Image.open(io.BytesIO(running.call("GET", address).data)) as turning:
        assert (turning.format, turning.size, getattr(turning, "n_frames", 1)) == ("WEBP", (256, 256), 24)


def test_without_a_preview_there_is_none(shared: AgentService) -> None:
    answer = shared.made()
    assert (answer["preview_url"], answer["thumbnail_url"]) == (None, None)
    assert not any("preview" in note for note in answer["metadata"]["notes"])


def test_a_preview_that_cannot_be_drawn_is_noted(running: AgentService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "embreex.rtcore_scene", None)
    answer = running.made(field("preview", "true"))
    assert answer["preview_url"] is None
    assert any("embreex" in note for note in answer["metadata"]["notes"])
    assert running.call("GET", answer["download_url"]).status_code == 200
