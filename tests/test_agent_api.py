"""The API's calls through the whole app: what each answers, and what it leaves behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import pytest
import trimesh

from backend.api.statuses import status_of
from backend.errors import (
    NoForeground,
    OutOfMemory,
    ServiceError,
    StoreUnavailable,
)
from backend.jobs.models import Job
from backend.jobs.stage_times import Measured, StageTimes, Workload
from backend.jobs.store import JobStore
from backend.jobs.worker_registry import WorkerState, WorkerStatus
from tests.support.agent_service import (
    API,
    AgentService,
    agent_service,
    fail_with,
    field,
    image,
    refused,
    report_worker,
)
from tests.support.small_disk import small_disk
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


def test_nobody_waits_for_a_mesh_when_as_many_calls_of_the_agent_wait_as_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with agent_service(tmp_path, agent_waits=1) as service:
        monkeypatch.setattr(service.services.watch, "wait", lambda *_, **__: pytest.fail("the call waits"))
        with service.services.wait_slots.one_of(service.owner("ann")):
            assert service.generate(image()).status_code == 202


def test_nobody_waits_for_a_service_that_stops(service: AgentService) -> None:
    service.services.stopping.set()
    assert service.generate(image()).status_code == 202


def test_draining_service_takes_only_what_began_before(service: AgentService, monkeypatch: pytest.MonkeyPatch) -> None:
    began_before = service.generate(image(), field("async", "true"), **{"Idempotency-Key": "k"})
    service.services.begin_drain()
    assert refused(service.generate(image())) == (503, "SERVICE_STOPPING")
    assert refused(service.batch()) == (503, "SERVICE_STOPPING")
    # Sent again, it is no new job.
    again = service.generate(image(), field("async", "true"), **{"Idempotency-Key": "k"})
    assert again.get_json()["job_id"] == began_before.get_json()["job_id"]
    # An upload that was on its way.
    monkeypatch.setattr(service.services.draining, "since", time.monotonic() + 3600)
    assert service.generate(image(), field("async", "true")).status_code == 202


def test_draining_service_takes_jobs_that_another_worker_will_run(service: AgentService) -> None:
    service.services.begin_drain()
    report_worker(service, WorkerStatus.READY, "another")
    assert service.generate(image(), field("async", "true")).status_code == 202


def test_draining_service_says_so(service: AgentService) -> None:
    service.services.begin_drain()
    response = service.get("/health")
    assert (refused(response), response.get_json()["status"]) == ((503, "SERVICE_STOPPING"), "draining")


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
        (job,) = service.get("/jobs").get_json()["jobs"]
        service.call("DELETE", f"{API}/jobs/{job['job_id']}")
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
    times = StageTimes(default_steps=10)
    times.note(Measured(Workload(10, 384), {"sample": 80.0}))
    service.services.registry.beat(WorkerState("w", WorkerStatus.READY, stage_times=times.to_json()), 60)
    eventually(lambda: service.get(f"/status/{job_id}").get_json()["eta_seconds"] is not None)
    response = service.get(f"/status/{job_id}")
    assert 70.0 < response.get_json()["eta_seconds"] <= 80.0
    assert response.headers["Retry-After"] == "20"


def test_a_status_is_waited_for_until_it_changes(service: AgentService) -> None:
    job_id = service.submit()
    batch_id = service.batch().get_json()["batch_id"]
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(service.get, f"/status/{name}?wait=60") for name in (job_id, batch_id)]
        eventually(lambda: len(service.services.watch._waiters) == 2)
        for name in (job_id, batch_id):
            service.call("DELETE", f"{API}/jobs/{name}")
        assert [each.result().get_json()["status"] for each in waiting] == ["cancelled"] * 2
    assert service.get(f"/status/{job_id}?wait=60").get_json()["status"] == "cancelled"


def test_a_status_that_does_not_change_is_answered_when_its_time_is_over(service: AgentService) -> None:
    response = service.get(f"/status/{service.submit()}?wait=1")
    assert (response.get_json()["status"], response.headers["Retry-After"]) == ("queued", "1")


def test_more_waits_than_an_agent_may_have_are_answered_at_once(tmp_path: Path) -> None:
    with agent_service(tmp_path, agent_waits=0) as service:
        assert service.get(f"/status/{service.submit()}?wait=60").get_json()["status"] == "queued"


@pytest.mark.parametrize("text", ["0", "61", "-1", "", "2.5", "ten", "1e1", "0060"])
def test_a_wait_is_a_whole_number_of_seconds(service: AgentService, text: str) -> None:
    assert refused(service.get(f"/status/{UNKNOWN}?wait={text}")) == (400, "INVALID_WAIT")


@pytest.mark.parametrize("path", ["/status/{}", "/jobs", "/me"])
def test_a_guarded_answer_says_what_is_left_of_the_minute(tmp_path: Path, path: str) -> None:
    with agent_service(tmp_path, rate_limit=3) as service:
        seen = [service.get(path.format(UNKNOWN)).headers for _ in range(4)]
    assert [headers["RateLimit-Limit"] for headers in seen] == ["3"] * 4
    assert [headers["RateLimit-Remaining"] for headers in seen] == ["2", "1", "0", "0"]
    assert all(0 <= int(headers["RateLimit-Reset"]) <= 60 for headers in seen)
    assert "Retry-After" in seen[-1]


def test_what_is_refused_before_it_counts_says_what_is_left_for_its_address(tmp_path: Path) -> None:
    with agent_service(tmp_path, unauthenticated_rate_limit=2) as service:
        client = service.app.test_client()
        seen = [client.get(f"{API}/jobs") for _ in range(3)]
    assert [answer.status_code for answer in seen] == [401, 401, 429]
    assert [answer.headers["RateLimit-Remaining"] for answer in seen] == ["1", "0", "0"]


def test_of_a_batch_the_tighter_limit_is_said(tmp_path: Path) -> None:
    with agent_service(tmp_path, rate_limit=100, batch_rate_limit=2) as service:
        headers = service.batch().headers
    assert (headers["RateLimit-Limit"], headers["RateLimit-Remaining"]) == ("2", "1")


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


@pytest.mark.parametrize("more", [0, 1, 10**15])
def test_the_last_bytes_of_a_mesh_that_has_no_more_are_all_of_it(running: AgentService, more: int) -> None:
    url = running.made()["download_url"]
    whole = running.call("GET", url).data
    response = running.call("GET", url, Range=f"bytes=-{len(whole) + more}")
    assert (response.status_code, response.data) == (206, whole)
    assert response.headers["Content-Range"] == f"bytes 0-{len(whole) - 1}/{len(whole)}"


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
    report_worker(service, WorkerStatus.FAILED)
    assert service.get("/health").get_json()["status"] == "unavailable"
    report_worker(service, WorkerStatus.READY)
    response = service.app.test_client().get(f"{API}/health")
    assert service.checked(response).status_code == 200
    answer = response.get_json()
    assert answer["model"] == {"name": "m", "loaded": True, "compiled": None}
    assert answer["device"] == {"type": "cuda", "name": "GPU", "memory_total": 100, "memory_free": 40}
    assert (answer["queue_size"], answer["active_jobs"], answer["workers_ready"]) == (1, 0, 1)


def test_health_says_when_the_store_is_away(service: AgentService, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_: JobStore) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(JobStore, "counts", away)
    assert refused(service.get("/health")) == (503, "STORE_UNAVAILABLE")


def test_health_does_not_tell_where_the_model_lies(tmp_path: Path) -> None:
    with agent_service(tmp_path, model_path="/srv/secret/models/mine") as service:
        assert service.get("/health").get_json()["model"] == {"name": "mine", "loaded": False, "compiled": None}


def test_a_model_serves_before_it_is_compiled_and_health_says_so(service: AgentService) -> None:
    assert refused(service.get("/health/ready")) == (503, "GPU_BUSY")
    for compiled, said in ((False, False), (True, False)):
        owner = f"compiled: {compiled}"
        state = WorkerState(owner, WorkerStatus.READY, "m", "cuda", "GPU", 100, 40, compiled=compiled)
        service.services.registry.beat(state, 60)
        assert service.get("/health").get_json()["model"] == {"name": "m", "loaded": True, "compiled": said}
        assert service.get("/health/ready").get_json()["status"] == "ready"
    service.services.registry.remove("compiled: False")
    assert service.get("/health").get_json()["model"]["compiled"] is True


def test_a_process_that_answers_is_alive_whatever_is_behind_it(
    service: AgentService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: JobStore) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(JobStore, "counts", away)
    assert service.get("/health/live").get_json()["status"] == "alive"
    assert refused(service.get("/health/ready")) == (503, "STORE_UNAVAILABLE")


def test_health_is_not_well_on_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "data", "4m") as data, agent_service(data) as service:
        report_worker(service, WorkerStatus.READY)
        assert service.get("/health").status_code == 200
        with suppress(OSError), (data / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        eventually(lambda: service.get("/health").status_code == 503)
        for path in ("/health", "/health/ready"):
            assert refused(service.get(path)) == (503, "STORAGE_FULL")
        assert service.get("/health").get_json()["status"] == "unavailable"
        assert service.get("/health/live").status_code == 200
        (data / "filler").unlink()
        eventually(lambda: service.get("/health").status_code == 200)
