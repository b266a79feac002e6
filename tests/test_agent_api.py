"""The API's calls through the whole app: what each answers, and what it leaves behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import trimesh
from flask import Flask

from backend.agent_api import register_agent_api
from backend.api.statuses import status_of
from backend.auth.agents_file import add_agent
from backend.config import Settings
from backend.errors import (
    NoForeground,
    OutOfMemory,
    ServiceError,
    StorageFull,
    StoreUnavailable,
)
from backend.jobs.models import Job
from backend.jobs.store import JobStore
from backend.jobs.worker_registry import WorkerState, WorkerStatus
from backend.services import AgentServices
from backend.storage.files import LocalFiles
from tests.support.agent_service import API, FORM, AgentService, agent_service, encode_form, good_png, image, refused
from tests.support.fake_gpu import FakeCall
from tests.support.hostile import Part
from tests.support.workshop import eventually

UNKNOWN = "0" * 32


@pytest.fixture
def service(tmp_path: Path) -> Iterator[AgentService]:
    """Give a service whose worker does not run."""
    with agent_service(tmp_path) as made:
        yield made


@pytest.fixture
def running(tmp_path: Path) -> Iterator[AgentService]:
    """Give a service whose worker runs."""
    with agent_service(tmp_path, running=True) as made:
        yield made


def fail_with(service: AgentService, error: ServiceError) -> None:
    """Every picture ends with this error from now on."""

    def spoil(call: FakeCall) -> None:
        service.fake.errors.update(dict.fromkeys(call.images, error))

    service.fake.before_call = spoil


def say(service: AgentService, condition: WorkerStatus, owner: str = "w") -> None:
    """Have a worker report itself."""
    state = WorkerState(owner, condition, "m", "cuda", "GPU", 100, 40)
    service.services.registry.beat(state, 60)


def field(name: str, value: str) -> Part:
    return Part(name, value.encode())


def test_picture_becomes_a_mesh_while_its_sender_waits(running: AgentService) -> None:
    answer = running.made(field("seed", "5"), field("format", "stl"), field("steps", "12"), field("scale_mm", "40"))
    assert answer["success"] is True
    assert answer["status"] == "completed"
    metadata = answer["metadata"]
    assert (metadata["seed"], metadata["format"], metadata["steps"]) == (5, "stl", 12)
    mesh = trimesh.load_mesh(BytesIO(running.call("GET", answer["download_url"]).data), file_type="stl")
    assert len(mesh.faces) == metadata["faces"]
    assert mesh.extents.max() == pytest.approx(40)


def test_absent_seed_is_drawn_and_told(running: AgentService) -> None:
    seeds = {running.made()["metadata"]["seed"] for _ in range(3)}
    assert len(seeds) == 3


def test_job_that_nobody_waits_for_is_promised(service: AgentService) -> None:
    response = service.generate()
    answer = response.get_json()
    assert response.status_code == 202
    assert answer["status"] == "queued"
    assert answer["status_url"] == f"{API}/status/{answer['job_id']}"


def test_job_that_outlasts_the_wait_is_promised(tmp_path: Path) -> None:
    with agent_service(tmp_path, sync_wait_seconds=0.05) as service:
        response = service.generate(image())
        assert response.status_code == 202
        assert service.get(f"/status/{response.get_json()['job_id']}").get_json()["status"] == "queued"


def test_nobody_waits_when_half_of_the_threads_do(tmp_path: Path) -> None:
    with agent_service(tmp_path, web_threads=4) as service:
        assert service.services.sync_slots.acquire(blocking=False)
        assert service.services.sync_slots.acquire(blocking=False)
        assert service.generate(image()).status_code == 202
        service.services.sync_slots.release(2)


def test_nobody_waits_for_a_service_that_stops(service: AgentService) -> None:
    service.services.stopping.set()
    assert service.generate(image()).status_code == 202


def test_job_is_promised_when_the_store_goes_away_after_it_was_kept(
    service: AgentService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> Job:
        service.services.stopping.set()
        raise StoreUnavailable

    monkeypatch.setattr(service.services.store, "get", away)
    response = service.generate(image())
    assert (response.status_code, response.get_json()["status"]) == (202, "queued")


@pytest.mark.parametrize("error", [NoForeground(), OutOfMemory(), ServiceError("It broke.")])
def test_failed_job_is_answered_with_its_own_error(running: AgentService, error: ServiceError) -> None:
    fail_with(running, error)
    response = running.generate(image())
    assert refused(response) == (status_of(error), error.code)
    job_id = response.get_json()["details"]["job_id"]
    status = running.get(f"/status/{job_id}").get_json()
    assert (status["status"], status["error"]["code"]) == ("failed", error.code)


def test_job_that_is_cancelled_while_its_sender_waits_is_answered_so(service: AgentService) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(service.generate, image())
        eventually(lambda: service.services.store.counts().queued == 1)
        (job,) = service.services.store.list_jobs("ann", None, 1).jobs
        service.call("DELETE", f"{API}/jobs/{job.id}")
        assert refused(waiting.result()) == (409, "CANCELLED")


def test_batch_keeps_the_order_of_its_pictures(running: AgentService) -> None:
    answer = running.batch(*[image("images")] * 3, field("seed", "9")).get_json()
    assert answer["total_images"] == len(answer["job_ids"]) == 3
    eventually(lambda: running.call("GET", answer["status_url"]).get_json()["status"] == "completed")
    batch = running.call("GET", answer["status_url"]).get_json()
    assert [item["job_id"] for item in batch["items"]] == answer["job_ids"]
    assert (batch["progress"], batch["current_step"], batch["eta_seconds"]) == (100, "3 of 3 finished", None)
    assert [item["metadata"]["seed"] for item in batch["items"]] == [9, 9, 9]


def test_batch_that_waits_tells_its_place(service: AgentService) -> None:
    first = service.submit()
    batch = service.get(f"/status/{service.batch().get_json()['batch_id']}").get_json()
    assert (batch["status"], batch["progress"], batch["queue_position"]) == ("queued", 0, 2)
    assert [item["queue_position"] for item in batch["items"]] == [2, 3]
    assert service.get(f"/status/{first}").get_json()["queue_position"] == 1


def test_waiting_job_tells_when_to_look_again(service: AgentService) -> None:
    job_id = service.submit()
    response = service.get(f"/status/{job_id}")
    assert (response.get_json()["eta_seconds"], response.headers["Retry-After"]) == (None, "1")
    state = WorkerState("w", WorkerStatus.READY, seconds_per_job=8.0)
    service.services.registry.beat(state, 60)
    response = service.get(f"/status/{job_id}")
    assert (response.get_json()["eta_seconds"], response.headers["Retry-After"]) == (8.0, "4")


@pytest.mark.parametrize(
    ("part", "code"),
    [
        (field("format", "fbx"), "INVALID_FORMAT"),
        (field("quality", "11"), "INVALID_QUALITY"),
        (field("steps", "9"), "INVALID_STEPS"),
        (field("guidance_scale", "nan"), "INVALID_GUIDANCE_SCALE"),
        (field("seed", "-1"), "INVALID_SEED"),
        (field("target_faces", "99"), "INVALID_TARGET_FACES"),
        (field("remove_background", "maybe"), "INVALID_REMOVE_BACKGROUND"),
        (field("scale_mm", "0"), "INVALID_SCALE_MM"),
        (field("async", "1"), "INVALID_ASYNC"),
        (field("texture", "yes"), "UNKNOWN_FIELD"),
        (image(), "TOO_MANY_IMAGES"),
    ],
)
def test_bad_field_is_named(service: AgentService, part: Part, code: str) -> None:
    assert refused(service.generate(image(), part)) == (400, code)
    assert service.images() == []


def test_asynchrony_is_no_field_of_a_batch(service: AgentService) -> None:
    assert refused(service.batch(image("images"), image("images"), field("async", "true"))) == (
        400,
        "UNKNOWN_FIELD",
    )


@pytest.mark.parametrize(("count", "code"), [(0, "MISSING_IMAGE"), (1, "TOO_FEW_IMAGES"), (11, "TOO_MANY_IMAGES")])
def test_batch_has_two_to_ten_pictures(service: AgentService, count: int, code: str) -> None:
    assert refused(service.batch(field("seed", "1"), *[image("images")] * count)) == (400, code)
    assert service.images() == []


def test_body_that_is_no_form_is_refused(service: AgentService) -> None:
    response = service.call("POST", f"{API}/generate-3d", b"{}", Content_Type="application/json")
    assert refused(response) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert refused(service.call("POST", f"{API}/generate-3d")) == (415, "UNSUPPORTED_MEDIA_TYPE")


def test_nothing_is_kept_of_a_batch_with_one_bad_picture(service: AgentService) -> None:
    response = service.batch(image("images"), image("images", good_png()[:-30]))
    assert refused(response) == (400, "INVALID_IMAGE")
    assert "Picture 2" in response.get_json()["error"]
    assert service.images() == []
    assert service.services.store.counts().queued == 0


def test_full_queue_keeps_nothing(tmp_path: Path) -> None:
    with agent_service(tmp_path, queue_limit=2) as service:
        service.submit(agent="bob")
        response = service.batch()
        assert refused(response) == (503, "QUEUE_FULL")
        assert int(response.headers["Retry-After"]) > 0
        assert len(service.images()) == 1


def test_agent_has_so_many_unfinished_jobs(tmp_path: Path) -> None:
    with agent_service(tmp_path, max_active_jobs=2) as service:
        service.submit()
        assert refused(service.batch()) == (429, "RATE_LIMITED")
        assert service.batch(agent="bob").status_code == 202
        assert len(service.images()) == 3


def test_full_disk_keeps_nothing(service: AgentService, monkeypatch: pytest.MonkeyPatch) -> None:
    put = LocalFiles.put
    calls: list[str] = []

    def second_fails(self: LocalFiles, name: str, data: Any) -> None:
        calls.append(name)
        if len(calls) == 2:
            raise StorageFull
        put(self, name, data)

    monkeypatch.setattr(LocalFiles, "put", second_fails)
    assert refused(service.batch()) == (507, "STORAGE_FULL")
    assert service.images() == []


def test_pictures_stay_when_nobody_knows_whether_the_jobs_do(
    service: AgentService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(service.services.store, "submit", broken)
    assert refused(service.generate()) == (503, "STORE_UNAVAILABLE")
    assert len(service.images()) == 1


def test_nothing_is_taken_on_that_no_worker_could_run(tmp_path: Path) -> None:
    with agent_service(tmp_path, worker_enabled=False) as service:
        assert refused(service.generate()) == (503, "GPU_BUSY")
        say(service, WorkerStatus.FAILED)
        assert refused(service.generate()) == (503, "GPU_BUSY")
        assert service.images() == []
        say(service, WorkerStatus.LOADING)
        assert service.generate().status_code == 202


def test_same_key_and_request_get_the_first_answer(service: AgentService) -> None:
    first = service.generate(Idempotency_Key="key-1").get_json()
    again = service.generate(Idempotency_Key="key-1")
    assert (again.status_code, again.get_json()) == (202, first)
    assert len(service.images()) == service.services.store.counts().queued == 1


def test_same_key_waits_again_for_the_same_mesh(running: AgentService) -> None:
    first = running.generate(image(), Idempotency_Key="key-1")
    again = running.generate(image(), Idempotency_Key="key-1")
    assert (again.status_code, again.get_json()) == (200, first.get_json())
    assert len(running.fake.calls) == 1


def test_same_key_gets_the_same_batch(service: AgentService) -> None:
    first = service.batch(Idempotency_Key="key-1").get_json()
    assert service.batch(Idempotency_Key="key-1").get_json() == first
    assert service.services.store.counts().queued == 2


def test_repeated_request_is_answered_while_no_worker_runs(tmp_path: Path) -> None:
    with agent_service(tmp_path, worker_enabled=False) as service:
        say(service, WorkerStatus.READY)
        first = service.generate(Idempotency_Key="key-1").get_json()
        service.services.registry.remove("w")
        assert service.generate(Idempotency_Key="key-1").get_json() == first


def test_same_key_with_another_request_is_a_conflict(service: AgentService) -> None:
    service.generate(Idempotency_Key="key-1")
    other = service.generate(field("async", "true"), image(), field("seed", "1"), Idempotency_Key="key-1")
    assert refused(other) == (409, "IDEMPOTENCY_CONFLICT")
    assert refused(service.batch(Idempotency_Key="key-1")) == (409, "IDEMPOTENCY_CONFLICT")
    assert len(service.images()) == 1


def test_keys_of_two_agents_have_nothing_to_do_with_each_other(service: AgentService) -> None:
    first = service.generate(Idempotency_Key="key-1").get_json()["job_id"]
    assert service.generate(agent="bob", Idempotency_Key="key-1").get_json()["job_id"] != first


def test_of_many_alike_at_once_one_makes_the_job(service: AgentService) -> None:
    with ThreadPoolExecutor(4) as pool:
        responses = list(pool.map(lambda _: service.generate(Idempotency_Key="key-1"), range(8)))
    assert {response.status_code for response in responses} == {202}
    assert len({response.get_json()["job_id"] for response in responses}) == 1
    assert len(service.images()) == service.services.store.counts().queued == 1


@pytest.mark.parametrize("key", ["", "two words", "k" * 129, "sch\u00f6n"])
def test_key_has_a_form(service: AgentService, key: str) -> None:
    assert refused(service.generate(Idempotency_Key=key)) == (400, "INVALID_IDEMPOTENCY_KEY")


def test_key_outlives_its_job(service: AgentService) -> None:
    service.generate(Idempotency_Key="key-1")
    (waiting,) = service.services.store.list_jobs("ann", None, 1).jobs
    job = service.services.store.cancel(waiting.id, "ann")
    service.services.store.remove([job])
    response = service.generate(Idempotency_Key="key-1")
    assert refused(response) == (404, "JOB_NOT_FOUND")
    assert "new key" in response.get_json()["error"]


@pytest.mark.parametrize("name", [UNKNOWN, "0" * 31, "%2e%2e", "a%20b", "\u00e9", "A" * 32])
def test_unknown_id_is_not_found(service: AgentService, name: str) -> None:
    quoted = name.replace("\u00e9", "%C3%A9")
    assert refused(service.get(f"/status/{quoted}")) == (404, "JOB_NOT_FOUND")
    assert refused(service.call("DELETE", f"{API}/jobs/{quoted}")) == (404, "JOB_NOT_FOUND")


def test_nothing_of_another_agent_is_found(running: AgentService) -> None:
    answer = running.made()
    batch = running.batch().get_json()
    for name in (answer["job_id"], batch["batch_id"], batch["job_ids"][0]):
        assert refused(running.get(f"/status/{name}", agent="bob")) == (404, "JOB_NOT_FOUND")
        assert refused(running.call("DELETE", f"{API}/jobs/{name}", agent="bob")) == (404, "JOB_NOT_FOUND")
    assert refused(running.call("GET", answer["download_url"], agent="bob")) == (404, "FILE_NOT_FOUND")
    assert running.get("/jobs", agent="bob").get_json()["jobs"] == []


def test_waiting_job_is_cancelled_at_once(service: AgentService) -> None:
    job_id = service.submit()
    answer = service.call("DELETE", f"{API}/jobs/{job_id}").get_json()
    assert (answer["status"], answer["cancel_requested"]) == ("cancelled", True)
    assert service.services.store.counts().queued == 0
    assert service.images() == []


def test_running_job_is_cancelled_between_two_steps(running: AgentService) -> None:
    reached, over = threading.Event(), threading.Event()

    def go_slowly(_step: int) -> None:
        reached.set()
        over.wait(0.2)

    running.fake.at_step = go_slowly
    job_id = running.submit(field("steps", "100"))
    assert reached.wait(20)
    answer = running.call("DELETE", f"{API}/jobs/{job_id}").get_json()
    assert (answer["status"], answer["cancel_requested"]) == ("processing", True)
    eventually(lambda: running.get(f"/status/{job_id}").get_json()["status"] == "cancelled")
    over.set()
    assert running.fake.calls[0].steps_done < 100


def test_finished_job_stays_as_it_is(running: AgentService) -> None:
    job_id = running.made()["job_id"]
    assert running.call("DELETE", f"{API}/jobs/{job_id}").get_json()["status"] == "completed"


def test_batch_is_not_cancelled_by_its_id(service: AgentService) -> None:
    batch_id = service.batch().get_json()["batch_id"]
    assert refused(service.call("DELETE", f"{API}/jobs/{batch_id}")) == (404, "JOB_NOT_FOUND")


def test_jobs_are_paged_newest_first(service: AgentService) -> None:
    ids = [service.submit() for _ in range(5)][::-1]
    first = service.get("/jobs?limit=2").get_json()
    second = service.get(f"/jobs?cursor={first['next_cursor']}&limit=3").get_json()
    assert [job["job_id"] for job in first["jobs"] + second["jobs"]] == ids
    assert second["next_cursor"] is None
    assert len(service.get("/jobs").get_json()["jobs"]) == 5


@pytest.mark.parametrize("limit", ["0", "101", "-1", "1.0", "", "x", "%D9%A7", "0001", "1000"])
def test_page_has_one_to_a_hundred_jobs(service: AgentService, limit: str) -> None:
    assert refused(service.get(f"/jobs?limit={limit}")) == (400, "INVALID_LIMIT")


@pytest.mark.parametrize("cursor", ["", "x", "0" * 31, "%27%20or%201"])
def test_cursor_is_one_that_a_page_gave(service: AgentService, cursor: str) -> None:
    assert refused(service.get(f"/jobs?cursor={cursor}")) == (400, "INVALID_CURSOR")


@pytest.mark.parametrize(
    ("fmt", "media_type"),
    [
        ("glb", "model/gltf-binary"),
        ("stl", "model/stl"),
        ("obj", "model/obj"),
        ("ply", "application/octet-stream"),
    ],
)
def test_mesh_is_downloaded_as_what_it_is(running: AgentService, fmt: str, media_type: str) -> None:
    answer = running.made(field("format", fmt), field("target_faces", "100"))
    response = running.call("GET", answer["download_url"])
    name = answer["download_url"].rpartition("/")[2]
    assert (response.status_code, response.mimetype) == (200, media_type)
    assert response.headers["Content-Disposition"] == f'attachment; filename="{name}"'
    assert response.content_length == answer["metadata"]["file_size"] == len(response.data)
    mesh = trimesh.load_mesh(BytesIO(response.data), file_type=fmt)
    assert len(mesh.faces) == answer["metadata"]["faces"]


def test_head_tells_of_a_mesh_without_it(running: AgentService) -> None:
    url = running.made()["download_url"]
    response = running.call("HEAD", url)
    assert (response.status_code, response.data) == (200, b"")
    assert response.content_length == len(running.call("GET", url).data)


def test_mesh_is_not_sent_to_who_has_it(running: AgentService) -> None:
    url = running.made()["download_url"]
    etag = running.call("GET", url).headers["ETag"]
    response = running.call("GET", url, If_None_Match=etag, Range="bytes=0-3")
    assert (response.status_code, response.data) == (304, b"")
    assert running.call("GET", url, If_None_Match='"other"').status_code == 200
    assert running.call("GET", url, If_Match=etag).status_code == 200
    assert refused(running.call("GET", url, If_Match='"other"')) == (412, "PRECONDITION_FAILED")


@pytest.mark.parametrize(
    ("asked", "first", "last"), [("bytes=4-9", 4, 9), ("bytes=-5", -5, None), ("bytes=10-", 10, None)]
)
def test_part_of_a_mesh_is_downloaded(running: AgentService, asked: str, first: int, last: int | None) -> None:
    url = running.made()["download_url"]
    whole = running.call("GET", url).data
    part = whole[first:] if last is None else whole[first : last + 1]
    start = whole.index(part) if first >= 0 else len(whole) + first
    response = running.call("GET", url, Range=asked)
    assert (response.status_code, response.data) == (206, part)
    assert response.headers["Content-Range"] == f"bytes {start}-{start + len(part) - 1}/{len(whole)}"


def test_part_is_sent_only_of_the_mesh_that_was_meant(running: AgentService) -> None:
    url = running.made()["download_url"]
    whole = running.call("GET", url)
    same = running.call("GET", url, Range="bytes=4-9", If_Range=whole.headers["ETag"])
    other = running.call("GET", url, Range="bytes=4-9", If_Range='"other"')
    assert (same.status_code, other.status_code, other.data) == (206, 200, whole.data)


@pytest.mark.parametrize("asked", ["bytes=0-1,3-4", "bytes=x-y", "lines=1-2", "bytes=-", "bytes=9"])
def test_what_is_no_single_range_is_not_regarded(running: AgentService, asked: str) -> None:
    url = running.made()["download_url"]
    assert running.call("GET", url, Range=asked).status_code == 200


def test_part_behind_the_end_is_refused(running: AgentService) -> None:
    answer = running.made()
    response = running.call("GET", answer["download_url"], Range="bytes=99999999-")
    assert refused(response) == (416, "RANGE_NOT_SATISFIABLE")
    assert response.headers["Content-Range"] == f"bytes */{answer['metadata']['file_size']}"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        (f"{UNKNOWN}.glb", "FILE_NOT_FOUND"),
        ("..%2f..%2fagents.json", "NOT_FOUND"),
        ("../../agents.json", "NOT_FOUND"),
        ("%2e%2e", "FILE_NOT_FOUND"),
        ("agents.json", "FILE_NOT_FOUND"),
        ("..%5c..%5cagents.json", "FILE_NOT_FOUND"),
        ("a%00.glb", "FILE_NOT_FOUND"),
    ],
)
def test_no_path_leads_out_of_the_meshes(running: AgentService, name: str, code: str) -> None:
    assert refused(running.get(f"/download/{name}")) == (404, code)


def test_mesh_that_is_gone_is_not_found(running: AgentService) -> None:
    answer = running.made()
    running.services.artifacts.delete(answer["download_url"].rpartition("/")[2])
    assert refused(running.call("GET", answer["download_url"])) == (404, "FILE_NOT_FOUND")


def test_health_tells_of_the_worker_and_the_queue(service: AgentService) -> None:
    service.submit()
    assert refused(service.get("/health")) == (503, "GPU_BUSY")
    assert service.get("/health").get_json()["status"] == "loading"
    say(service, WorkerStatus.FAILED)
    assert service.get("/health").get_json()["status"] == "unavailable"
    say(service, WorkerStatus.READY)
    response = service.app.test_client().get(f"{API}/health")
    assert service.checked(response).status_code == 200
    answer = response.get_json()
    assert answer["model"] == {"name": "m", "loaded": True}
    assert answer["device"] == {"type": "cuda", "name": "GPU", "memory_total": 100, "memory_free": 40}
    assert (answer["queue_size"], answer["active_jobs"], answer["workers_ready"]) == (1, 0, 1)


def test_health_says_when_the_store_is_away(service: AgentService, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_: JobStore) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(JobStore, "counts", away)
    assert refused(service.get("/health")) == (503, "STORE_UNAVAILABLE")


def test_health_does_not_tell_where_the_model_lies(tmp_path: Path) -> None:
    with agent_service(tmp_path, model_path="/srv/secret/models/mine") as service:
        assert service.get("/health").get_json()["model"] == {"name": "mine", "loaded": False}


SIGNED_CALLS = [
    ("POST", "/generate-3d"),
    ("POST", "/batch"),
    ("GET", f"/status/{UNKNOWN}"),
    ("GET", f"/download/{UNKNOWN}.glb"),
    ("DELETE", f"/jobs/{UNKNOWN}"),
    ("GET", "/jobs"),
]


@pytest.mark.parametrize(("method", "path"), SIGNED_CALLS)
def test_every_call_but_health_is_signed(service: AgentService, method: str, path: str) -> None:
    response = service.checked(service.app.test_client().open(API + path, method=method))
    assert refused(response) == (401, "AUTH_MISSING")
    assert "WWW-Authenticate" in response.headers


@pytest.mark.parametrize(
    ("operations", "allowed"),
    [("generate", {0, 4}), ("batch", {1}), ("status", {2, 5}), ("download", {3}), ("admin", set())],
)
def test_each_call_needs_its_operation(tmp_path: Path, operations: str, allowed: set[int]) -> None:
    with agent_service(tmp_path) as service:
        service.keys["eve"] = add_agent(service.settings.agents_file, "eve", operations=[operations])
        answers = [service.call(method, API + path, agent="eve") for method, path in SIGNED_CALLS]
        codes = [answer.get_json().get("code", "") for answer in answers]
    assert {k for k, code in enumerate(codes) if code != "OPERATION_NOT_ALLOWED"} == allowed


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", f"{API}/generate-3d", "POST"),
        ("OPTIONS", f"{API}/batch", "POST"),
        ("POST", f"{API}/health", "GET, HEAD"),
        ("TRACE", f"{API}/jobs", "GET, HEAD"),
        ("PUT", f"{API}/jobs/{UNKNOWN}", "DELETE"),
        ("DELETE", "/openapi.json", "GET, HEAD"),
    ],
)
def test_other_methods_are_told_which_there_are(service: AgentService, method: str, path: str, allowed: str) -> None:
    response = service.app.test_client().open(path, method=method)
    assert refused(response) == (405, "METHOD_NOT_ALLOWED")
    assert response.headers["Allow"] == allowed


@pytest.mark.parametrize("path", ["/", "/api", API, f"{API}/", f"{API}/nothing", f"{API}/health/", "/docs/other.js"])
def test_what_is_nowhere_is_not_found(service: AgentService, path: str) -> None:
    assert refused(service.app.test_client().get(path)) == (404, "NOT_FOUND")


def test_request_id_is_the_caller_s_when_it_is_harmless(service: AgentService) -> None:
    client = service.app.test_client()
    assert client.get("/x", headers={"X-Request-ID": "abc-1.2_3"}).headers["X-Request-ID"] == "abc-1.2_3"
    for harmful in ("", "a b", "x" * 65, "<script>", "\u00e9"):
        assert len(client.get("/x", headers={"X-Request-ID": harmful}).headers["X-Request-ID"]) == 32


def test_unforeseen_error_tells_nothing(service: AgentService, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*_: object) -> None:
        raise RuntimeError("the secret lies in /srv/secret")

    monkeypatch.setattr(service.services.store, "get", break_down)
    response = service.get(f"/status/{UNKNOWN}")
    assert refused(response) == (500, "INTERNAL_ERROR")
    assert "secret" not in response.text
    assert response.get_json()["details"] == {}


def test_own_fault_of_the_service_tells_nothing(service: AgentService, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*_: object) -> None:
        raise ServiceError("The file /srv/secret is damaged.", details={"path": "/srv/secret"})

    monkeypatch.setattr(service.services.store, "get", break_down)
    response = service.get(f"/status/{UNKNOWN}")
    assert refused(response) == (500, "INTERNAL_ERROR")
    assert "secret" not in response.text


@pytest.mark.parametrize("path", [f"{API}/health", f"{API}/jobs", "/nowhere", "/docs", "/openapi.json", "/metrics"])
def test_every_answer_is_guarded_against_browsers(service: AgentService, path: str) -> None:
    headers = service.app.test_client().get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


def plain_app(folder: Path) -> tuple[Flask, AgentServices]:
    """Return an app with pages and error handlers of its own, and the API in it."""
    app = Flask("plain", static_folder=None)

    @app.get("/own")
    def own() -> str:
        return "own"

    @app.get("/broken")
    def broken() -> str:
        raise ServiceError("own")

    @app.errorhandler(ServiceError)
    def handle(_: ServiceError) -> tuple[str, int]:
        return "own handler", 418

    settings = Settings(data_dir=folder, auth_enabled=False)
    return app, register_agent_api(app, AgentServices.from_settings(settings))


def test_api_lives_in_any_app(tmp_path: Path) -> None:
    app, services = plain_app(tmp_path)
    client = app.test_client()
    assert client.get(f"{API}/jobs").get_json() == {"success": True, "jobs": [], "next_cursor": None}
    assert refused(client.get(f"{API}/nothing")) == (404, "NOT_FOUND")
    assert refused(client.get(f"{API}/status/{UNKNOWN}")) == (404, "JOB_NOT_FOUND")
    assert client.get("/openapi.json").get_json()["openapi"] == "3.1.0"
    services.stop()


def test_other_pages_of_the_app_stay_its_own(tmp_path: Path) -> None:
    app, services = plain_app(tmp_path)
    client = app.test_client()
    own, missing, broken = client.get("/own"), client.get("/missing"), client.get("/broken")
    assert (own.text, broken.text, broken.status_code) == ("own", "own handler", 418)
    assert (missing.status_code, missing.mimetype) == (404, "text/html")
    assert not any("X-Request-ID" in response.headers for response in (own, missing, broken))
    services.stop()


def test_api_is_put_into_an_app_as_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORFEAS_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("AGENT_AUTH_ENABLED", "false")
    services = register_agent_api(Flask("plain"))
    assert services.settings.data_dir == tmp_path
    services.stop()


def test_metrics_are_for_some_addresses_only(service: AgentService) -> None:
    client = service.app.test_client()
    assert client.get("/metrics").status_code == 200
    elsewhere = client.get("/metrics", environ_overrides={"REMOTE_ADDR": "192.0.2.7"})
    assert refused(elsewhere) == (403, "IP_NOT_ALLOWED")
    claimed = client.get(
        "/metrics", headers={"X-Forwarded-For": "127.0.0.1"}, environ_overrides={"REMOTE_ADDR": "192.0.2.7"}
    )
    assert refused(claimed) == (403, "IP_NOT_ALLOWED")


def test_metrics_are_for_nobody_when_no_address_is_named(tmp_path: Path) -> None:
    with agent_service(tmp_path, metrics_allowed=()) as service:
        assert refused(service.app.test_client().get("/metrics")) == (403, "IP_NOT_ALLOWED")


def test_signed_request_reaches_a_form_that_is_spooled(service: AgentService) -> None:
    body = encode_form(Part("async", b"true"), image())
    response = service.call("POST", f"{API}/generate-3d?trace=1&a=%20b", body, Content_Type=FORM)
    assert response.status_code == 202
    assert list(service.settings.spool_dir.iterdir()) == []
