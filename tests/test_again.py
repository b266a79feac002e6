"""A job made again: from the same picture, with what is given changed, and with nothing lost to a deletion beside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from werkzeug.test import TestResponse

from backend.api.again import changed
from backend.api.parameters import AgainForm
from backend.errors import ArtifactNotFound, NoForeground, StoreUnavailable
from backend.hunyuan3d.octree_resolutions import Resolutions
from backend.jobs.worker_registry import WorkerState, WorkerStatus
from backend.storage.files import LocalFiles
from backend.validation import GenerateFields, GenerationRequest, new_job, read_fields
from tests.support.agent_service import (
    API,
    FORM,
    AgentService,
    Part,
    agent_service,
    encode_form,
    fail_with,
    field,
    image,
    refused,
)
from tests.support.golden import GOLDEN
from tests.support.workshop import eventually

ASYNC = field("async", "true")
PLAIN = field("color", "none")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentService]:
    """Give a service whose worker runs."""
    with agent_service(tmp_path_factory.mktemp("again"), running=True) as made:
        yield made


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[AgentService]:
    """Give a service whose worker does not run."""
    with agent_service(tmp_path) as made:
        yield made


def again(service: AgentService, job_id: str, *parts: Part, agent: str = "ann", **headers: str) -> TestResponse:
    body = encode_form(*parts) if parts else b""
    sent = {"Content_Type": FORM, **headers} if parts else headers
    return service.call("POST", f"{API}/jobs/{job_id}/again", body, agent=agent, **sent)


def status(service: AgentService, job_id: str) -> dict[str, Any]:
    answer: dict[str, Any] = service.get(f"/status/{job_id}").get_json()
    return answer


def test_a_job_made_again_gives_the_same_mesh_of_the_same_picture(running: AgentService) -> None:
    first = running.made(PLAIN, field("seed", "7"), field("label", "set"), field("format", "stl,glb"))
    answer = again(running, first["job_id"])
    assert answer.status_code == 200
    second = answer.get_json()
    shown = [status(running, each["job_id"]) for each in (first, second)]
    assert shown[0]["job_id"] != shown[1]["job_id"]
    for name in ("request", "label", "filename"):
        assert shown[0][name] == shown[1][name], name
    fetched = [[running.call("GET", each[url]).data for url in ("download_url", "image_url")] for each in shown]
    assert fetched[0] == fetched[1]
    assert shown[0]["image_url"] != shown[1]["image_url"]


def test_only_what_is_given_is_changed(running: AgentService) -> None:
    first = running.made(PLAIN, field("seed", "7"), field("steps", "12"), field("label", "set"))
    answer = again(running, first["job_id"], field("seed", "8"), field("label", ""), ASYNC)
    assert answer.status_code == 202
    assert answer.headers["Location"] == answer.get_json()["status_url"]
    before, after = status(running, first["job_id"]), status(running, answer.get_json()["job_id"])
    assert after["request"] == {**before["request"], "seed": 8}
    assert after["label"] is None


def test_a_seed_is_drawn_where_that_is_asked_for(waiting: AgentService) -> None:
    job_id = waiting.submit(field("seed", "7"))
    seeds = set()
    for _ in range(2):
        drawn = again(waiting, job_id, field("seed", "-1"), ASYNC).get_json()["job_id"]
        seeds.add(status(waiting, drawn)["request"]["seed"])
    assert len(seeds | {7}) == 3


def failed_job(service: AgentService) -> str:
    """Return the id of a job that failed; later ones will not."""
    usual = service.fake.before_call
    fail_with(service, NoForeground())
    job_id = service.submit(PLAIN)
    eventually(lambda: status(service, job_id)["status"] == "failed")
    service.fake.before_call = usual
    service.fake.errors.clear()
    return job_id


def asked_for(**asked: str) -> tuple[GenerationRequest, str | None]:
    """Return the request of a job that was asked for with these fields, and its label."""
    fields = read_fields(GenerateFields, {name: (value,) for name, value in asked.items()})
    new = new_job(fields, "0.png", "model", lambda _bits: 5, Resolutions(384, 512))
    return GenerationRequest.from_json(new.request), new.label


@pytest.mark.parametrize(
    ("asked", "given", "expected"),
    [
        ({}, {}, {"octree_resolution": 384, "target_faces": 100_000}),
        ({}, {"quality": "1"}, {"octree_resolution": None, "target_faces": None}),
        ({"octree_resolution": "256"}, {"quality": "1"}, {"octree_resolution": 256, "target_faces": None}),
        ({"target_faces": "500"}, {"quality": "1"}, {"octree_resolution": None, "target_faces": 500}),
        ({"target_faces": "none"}, {"quality": "1"}, {"octree_resolution": None, "target_faces": "none"}),
        ({"quality": "10"}, {"quality": "1"}, {"octree_resolution": None, "target_faces": None}),
        ({"target_faces": "none"}, {"seed": "1"}, {"target_faces": "none", "seed": 1}),
        ({}, {"quality": "1", "octree_resolution": "64"}, {"quality": 1, "octree_resolution": 64}),
        ({"format": "stl,glb"}, {"color": "none"}, {"formats": ("stl", "glb"), "color": "none", "seed": 5}),
        ({"format": "stl,glb"}, {"format": "ply"}, {"formats": ("ply",)}),
        ({"label": "a"}, {}, {"label": "a", "run_async": False}),
        ({"preview": "false", "turntable": "true"}, {"preview": "true"}, {"preview": True, "turntable": True}),
    ],
)
def test_what_quality_had_set_goes_with_it(
    asked: dict[str, str], given: dict[str, str], expected: dict[str, object]
) -> None:
    form = read_fields(AgainForm, {name: (value,) for name, value in given.items()})
    found = changed(*asked_for(**asked), form, Resolutions(384, 512))
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("parts", "refusal"),
    [
        ((field("colour", "none"),), (400, "UNKNOWN_FIELD")),
        ((image(),), (400, "UNKNOWN_FIELD")),
        ((field("quality", "11"),), (400, "INVALID_QUALITY")),
        ((field("seed", "1"), field("seed", "2")), (400, "INVALID_SEED")),
        ((field("octree_resolution", "1024"),), (400, "INVALID_OCTREE_RESOLUTION")),
        ((field("async", "yes"),), (400, "INVALID_ASYNC")),
    ],
)
def test_fields_are_as_strict_as_ever(waiting: AgentService, parts: tuple[Part, ...], refusal: tuple[int, str]) -> None:
    job_id = waiting.submit()
    assert refused(again(waiting, job_id, *parts)) == refusal
    assert len(waiting.images()) == 1


def test_other_bodies_are_refused(waiting: AgentService) -> None:
    job_id = waiting.submit()
    target = f"{API}/jobs/{job_id}/again"
    assert refused(waiting.call("POST", target, b"{}", Content_Type="text/plain"))[0] == 415
    assert refused(waiting.call("POST", f"{target}?seed=1")) == (400, "UNKNOWN_FIELD")
    assert refused(again(waiting, job_id, ASYNC, Idempotency_Key="a b")) == (400, "INVALID_IDEMPOTENCY_KEY")


def test_a_job_is_its_agent_s_alone_and_a_batch_is_none(waiting: AgentService) -> None:
    batch = waiting.batch().get_json()
    for job_id, agent in ((waiting.submit(), "bob"), ("0" * 32, "ann"), ("x", "ann"), (batch["batch_id"], "ann")):
        assert refused(again(waiting, job_id, ASYNC, agent=agent)) == (404, "JOB_NOT_FOUND")
    told = again(waiting, batch["batch_id"], ASYNC).get_json()["error"]
    assert "its status names its jobs" in told
    one = again(waiting, batch["job_ids"][1], ASYNC)
    shown = status(waiting, one.get_json()["job_id"])
    assert (shown["batch_id"], shown["index"], shown["filename"]) == (None, None, "cat.png")


def test_an_object_s_views_are_all_taken_again(tmp_path: Path) -> None:
    with agent_service(tmp_path, model_path=str(GOLDEN / "tiny-2mv")) as service:
        sent = service.generate(ASYNC, image("view_front"), image("view_back"))
        job_id = sent.get_json()["job_id"]
        made = again(service, job_id, ASYNC).get_json()["job_id"]
        assert status(service, made)["request"] == status(service, job_id)["request"]
        assert status(service, made)["request"]["views"] == "front,back"
        inputs = service.settings.data_dir / "inputs"
        one, other = ((inputs / name).read_bytes() for name in service.images())
        assert one == other
        service.services.registry.beat(WorkerState("w", WorkerStatus.READY, takes_views=False), 60)
        assert refused(again(service, job_id, ASYNC)) == (400, "VIEWS_UNSUPPORTED")
        assert len(service.images()) == 2


def test_a_picture_that_is_gone_is_told(running: AgentService) -> None:
    deleted = running.made(PLAIN)["job_id"]
    running.call("DELETE", f"{API}/jobs/{deleted}/files")
    failed = failed_job(running)
    before = running.images()
    for job_id in (deleted, failed):
        answer = again(running, job_id, ASYNC)
        assert refused(answer) == (410, "EXPIRED")
        assert answer.get_json()["error"] == "The picture of this job is no longer kept; send it again."
    assert running.images() == before


def test_a_failed_job_is_made_again_while_its_picture_is_there(
    running: AgentService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.runner.result_recorder.discard", lambda *_: None)
    assert again(running, failed_job(running), PLAIN).status_code == 200


def test_a_bad_picture_of_a_batch_was_never_kept(waiting: AgentService) -> None:
    bad = Part("images", b"no picture", "bad.png", "image/png")
    answer = waiting.batch(image("images"), bad, field("accept_partial", "true")).get_json()
    again_refused = again(waiting, answer["job_ids"][1], ASYNC)
    code = answer["refused"][0]["code"]
    assert refused(again_refused)[1] == code
    assert refused(again_refused)[0] in (400, 415)


def test_a_key_gives_the_first_answer_even_when_the_job_is_gone(running: AgentService) -> None:
    first = running.made(PLAIN)["job_id"]
    sent = [again(running, first, field("seed", "3"), Idempotency_Key="key-1") for _ in range(2)]
    assert [answer.status_code for answer in sent] == [200, 200]
    assert sent[0].get_json()["job_id"] == sent[1].get_json()["job_id"]
    running.call("DELETE", f"{API}/jobs/{first}/files")
    assert again(running, first, field("seed", "3"), Idempotency_Key="key-1").status_code == 200
    for job_id, seed in ((first, "4"), (sent[0].get_json()["job_id"], "3")):
        conflict = again(running, job_id, field("seed", seed), Idempotency_Key="key-1")
        assert refused(conflict) == (409, "IDEMPOTENCY_CONFLICT")


def test_limits_hold_and_leave_no_picture(tmp_path: Path) -> None:
    with agent_service(tmp_path, max_active_jobs=2) as service:
        job_id = service.submit()
        assert again(service, job_id, ASYNC).status_code == 202
        assert refused(again(service, job_id, ASYNC)) == (429, "RATE_LIMITED")
        assert len(service.images()) == 2


def test_a_lost_answer_of_the_table_keeps_the_picture(waiting: AgentService, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection may have broken just after the job was kept: then it needs the picture."""
    job_id = waiting.submit()

    def away(*_: object, **__: object) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(waiting.services.store, "submit", away)
    assert refused(again(waiting, job_id, ASYNC)) == (503, "STORE_UNAVAILABLE")
    assert len(waiting.images()) == 2


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_deletion_beside_takes_neither_job_s_picture(
    running: AgentService, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The picture is deleted just before, or just after, it is opened to be copied."""
    first = running.made(PLAIN, field("seed", "7"))
    opened: Callable[[LocalFiles, str], BinaryIO] = LocalFiles.open

    def delete() -> None:
        # On a thread of its own, as another request.
        with ThreadPoolExecutor(1) as other:
            other.submit(running.call, "DELETE", f"{API}/jobs/{first['job_id']}/files").result()

    def meanwhile(files: LocalFiles, name: str) -> BinaryIO:
        monkeypatch.undo()
        if moment == "before":
            delete()
        stream = opened(files, name)
        if moment == "after":
            delete()
        return stream

    picture = running.call("GET", first["image_url"]).data
    monkeypatch.setattr(LocalFiles, "open", meanwhile)
    answer = again(running, first["job_id"])
    if moment == "before":
        assert refused(answer) == (410, "EXPIRED")
    else:
        assert answer.status_code == 200
        assert running.call("GET", answer.get_json()["image_url"]).data == picture


def test_many_at_once_each_have_their_own(running: AgentService) -> None:
    first = running.made(PLAIN, field("seed", "7"))["job_id"]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda seed: again(running, first, field("seed", str(seed))), range(4)))
    assert [answer.status_code for answer in answers] == [200] * 4
    pictures = {answer.get_json()["image_url"] for answer in answers}
    running.call("DELETE", f"{API}/jobs/{first}/files")
    assert {running.call("GET", url).status_code for url in pictures} == {200}
    assert len(pictures) == 4


def test_a_picture_that_storage_lost_is_told(waiting: AgentService, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = waiting.submit()

    def lost(_files: LocalFiles, _name: str) -> BinaryIO:
        raise ArtifactNotFound

    monkeypatch.setattr(LocalFiles, "open", lost)
    assert refused(again(waiting, job_id, ASYNC)) == (410, "EXPIRED")
