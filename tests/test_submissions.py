"""Forms on their way into the queue: what is refused, what is kept, and what a repeated request gets."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from backend.errors import (
    StorageFull,
    StoreUnavailable,
)
from backend.jobs.worker_registry import WorkerState, WorkerStatus
from backend.storage.files import LocalFiles
from backend.validation import GenerationRequest
from tests.support.agent_service import (
    API,
    FORM,
    AgentService,
    agent_service,
    encode_form,
    field,
    good_png,
    image,
    refused,
    report_worker,
)
from tests.support.hostile import Part


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


@pytest.mark.parametrize(
    ("part", "code"),
    [
        (field("format", "fbx"), "INVALID_FORMAT"),
        (field("quality", "11"), "INVALID_QUALITY"),
        (field("steps", "9"), "INVALID_STEPS"),
        (field("guidance_scale", "nan"), "INVALID_GUIDANCE_SCALE"),
        (field("seed", "-2"), "INVALID_SEED"),
        (field("target_faces", "99"), "INVALID_TARGET_FACES"),
        (field("remove_background", "maybe"), "INVALID_REMOVE_BACKGROUND"),
        (field("scale_mm", "0"), "INVALID_SCALE_MM"),
        (field("format", "glb,fbx"), "INVALID_FORMAT"),
        (field("octree_resolution", "513"), "INVALID_OCTREE_RESOLUTION"),
        (field("objects", "each"), "INVALID_OBJECTS"),
        (field("outline", "on"), "INVALID_OUTLINE"),
        (field("color", "red"), "INVALID_COLOR"),
        (field("place", "floor"), "INVALID_PLACE"),
        (field("upright", "on"), "INVALID_UPRIGHT"),
        (field("compress", "zip"), "INVALID_COMPRESS"),
        (field("preview", "1"), "INVALID_PREVIEW"),
        (field("turntable", "1"), "INVALID_TURNTABLE"),
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
    assert refused(response) == (400, "MISSING_IMAGE")
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
        report_worker(service, WorkerStatus.FAILED)
        assert refused(service.generate()) == (503, "GPU_BUSY")
        assert service.images() == []
        report_worker(service, WorkerStatus.LOADING)
        assert service.generate().status_code == 202


def test_where_workers_are_started_on_demand_jobs_are_taken_without_any(tmp_path: Path) -> None:
    with agent_service(tmp_path, worker_enabled=False, workers_on_demand=True) as service:
        assert service.get("/health").get_json()["workers_ready"] == 0
        assert service.generate().status_code == 202
        health = service.get("/health")
        assert (health.status_code, health.get_json()["queue_size"]) == (200, 1)
        assert refused(service.get("/health/ready")) == (503, "GPU_BUSY")
        service.services.begin_drain()
        assert refused(service.get("/health")) == (503, "SERVICE_STOPPING")


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
        report_worker(service, WorkerStatus.READY)
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


@pytest.mark.parametrize("key", ["", "two words", "k" * 129, "sch\u00f6n", "two,keys"])
def test_key_has_a_form(service: AgentService, key: str) -> None:
    assert refused(service.generate(Idempotency_Key=key)) == (400, "INVALID_IDEMPOTENCY_KEY")


def test_two_keys_are_refused_whatever_they_are(service: AgentService) -> None:
    body = encode_form(field("async", "true"), image())
    for keys in (["key-1", "key-1"], ["key-1", "key-2"]):
        headers = [*service.headers("POST", f"{API}/generate-3d", body).items(), ("Content-Type", FORM)]
        headers += [("Idempotency-Key", key) for key in keys]
        response = service.app.test_client().post(f"{API}/generate-3d", data=body, headers=headers)
        assert refused(response) == (400, "INVALID_IDEMPOTENCY_KEY")
    assert service.services.store.counts().queued == 0


def test_key_outlives_its_job(service: AgentService) -> None:
    service.generate(Idempotency_Key="key-1")
    (waiting,) = service.services.store.list_jobs(service.owner("ann"), None, 1).jobs
    job = service.services.store.cancel(waiting.id, service.owner("ann"))
    service.services.store.remove([job])
    response = service.generate(Idempotency_Key="key-1")
    assert refused(response) == (410, "EXPIRED")
    assert "new key" in response.get_json()["error"]
    service.clock.advance(7 * 86400)  # the key is over by then, and the request is a new one
    assert service.generate(Idempotency_Key="key-1").get_json()["job_id"] != job.id


def test_quality_follows_the_model_that_a_worker_runs(service: AgentService) -> None:
    """What nobody has said of yet is taken from MODEL_PATH's configuration, which is the demo's."""
    registry = service.services.registry
    before = made_resolution(service)
    registry.beat(WorkerState("gpu", WorkerStatus.READY, model="m", octree_resolution=256), 20)
    service.services.health.read_anew()
    assert (before, made_resolution(service)) == (128, 256)


def made_resolution(service: AgentService) -> int:
    """Return the octree resolution of a job that is submitted without one."""
    job_id = service.submit()
    return GenerationRequest.from_json(
        service.services.store.get(job_id, service.owner("ann")).request
    ).octree_resolution
