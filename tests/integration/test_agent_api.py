"""What an agent sees of the service: each request on a real port, each with the one answer it must get.

`service` makes meshes with the demo checkpoint; in `waiting` jobs stay queued.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image
from scipy.spatial import cKDTree

from backend.auth.agents_file import rotate_agent, set_enabled
from orfeas_client.signing import digest_body
from tests.support.hostile import FORM, Part, encode_form
from tests.support.hostile_pictures import good_png
from tests.support.running import API, Agent, Answer, running_service
from tests.support.watched import WatchedService, png, sample

UNKNOWN = "0" * 32
QUICK: dict[str, Any] = {"quality": 1, "steps": 10}
SIGNING_HEADERS = (
    "X-Agent-ID",
    "X-Agent-Timestamp",
    "X-Agent-Nonce",
    "X-Agent-Content-SHA256",
    "X-Agent-Signature",
)
OK = (200, "")
TAKEN = (202, "")


@pytest.fixture
def queue(waiting: WatchedService) -> Iterator[WatchedService]:
    """Provide the service in which jobs wait, without jobs; those that a test leaves are cancelled."""
    before = len(waiting.agents)
    yield waiting
    for agent in (waiting.agent, *waiting.agents[before:]):
        for job in waiting.get("/jobs?limit=100", agent=agent).json()["jobs"]:
            if job["status"] == "queued":
                assert cancel(waiting, job["job_id"], agent).refusal == OK


def job_ids(service: WatchedService, agent: Agent) -> list[str]:
    return [job["job_id"] for job in service.get("/jobs?limit=100", agent=agent).json()["jobs"]]


def cancel(service: WatchedService, job_id: str, agent: Agent | None = None) -> Answer:
    return service.call("DELETE", f"{API}/jobs/{job_id}", agent=agent)


def made(answer: Answer) -> dict[str, Any]:
    """Return what is said of a mesh that was waited for."""
    assert answer.refusal == OK, answer.body
    return answer.json()


# Who may call


def test_a_signed_request_is_let_in(waiting: WatchedService) -> None:
    assert waiting.get("/jobs").refusal == OK


@pytest.mark.parametrize("header", SIGNING_HEADERS)
def test_a_request_without_a_signing_header_is_refused(waiting: WatchedService, header: str) -> None:
    answer = waiting.get("/jobs", headers={header: None})
    assert answer.refusal == (401, "AUTH_MISSING")
    assert answer.json()["details"] == {"header": header, "docs": "/docs"}


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("X-Agent-ID", "../ann"),
        ("X-Agent-ID", "a" * 65),
        ("X-Agent-Timestamp", "now"),
        ("X-Agent-Timestamp", "1760000000.5"),
        ("X-Agent-Timestamp", "-1"),
        ("X-Agent-Nonce", "short"),
        ("X-Agent-Nonce", "a" * 129),
        ("X-Agent-Nonce", "eight or more"),
        ("X-Agent-Content-SHA256", "0" * 63),
        ("X-Agent-Content-SHA256", digest_body(b"").upper()),
        ("X-Agent-Signature", "0" * 65),
        ("X-Agent-Signature", "zz" * 32),
    ],
)
def test_a_malformed_signing_header_is_refused(waiting: WatchedService, header: str, value: str) -> None:
    assert waiting.get("/jobs", headers={header: value}).refusal == (401, "AUTH_MISSING")


def test_an_unknown_agent_and_a_wrong_key_are_answered_alike(waiting: WatchedService) -> None:
    wrong = waiting.get("/jobs", agent=Agent(waiting.agent.agent_id, "k" * 43))
    unknown = waiting.get("/jobs", agent=Agent("nobody", waiting.agent.api_key))
    assert wrong.refusal == unknown.refusal == (401, "AUTH_INVALID")
    answers = [answer.json() for answer in (wrong, unknown)]
    # Each is shown the text of its own request.
    texts = [answer.pop("details") for answer in answers]
    assert [[*text, text["canonical_text"].split("\n")[4]] for text in texts] == [
        ["canonical_text", waiting.agent.agent_id],
        ["canonical_text", "nobody"],
    ]
    assert answers[0] | {"request_id": ""} == answers[1] | {"request_id": ""}


@pytest.mark.parametrize(
    ("seconds", "refusal"),
    [(-310, (401, "AUTH_EXPIRED")), (310, (401, "AUTH_EXPIRED")), (-290, OK), (290, OK)],
)
def test_a_timestamp_holds_for_five_minutes(waiting: WatchedService, seconds: int, refusal: tuple[int, str]) -> None:
    signed = waiting.sign("GET", f"{API}/jobs", timestamp=int(time.time()) + seconds)
    assert waiting.send("GET", f"{API}/jobs", signed).refusal == refusal


def test_a_disabled_agent_is_refused(waiting: WatchedService) -> None:
    agent = waiting.add_agent()
    set_enabled(waiting.agents_file, agent.agent_id, False)
    assert waiting.get("/jobs", agent=agent).refusal == (403, "AGENT_DISABLED")


def test_a_request_counts_once(waiting: WatchedService) -> None:
    signed = waiting.sign("GET", f"{API}/jobs")
    assert waiting.send("GET", f"{API}/jobs", signed).refusal == OK
    assert waiting.send("GET", f"{API}/jobs", signed).refusal == (401, "AUTH_REPLAYED")


def test_a_nonce_counts_once_whatever_it_signs(waiting: WatchedService) -> None:
    other = waiting.add_agent()
    nonce = "one-nonce-for-all"
    for agent, target, refusal in (
        (waiting.agent, f"{API}/jobs", OK),
        (waiting.agent, f"{API}/jobs?limit=7", (401, "AUTH_REPLAYED")),
        (other, f"{API}/jobs", OK),
    ):
        signed = waiting.sign("GET", target, nonce=nonce, agent=agent)
        assert waiting.send("GET", target, signed).refusal == refusal


def test_one_of_many_at_the_same_moment_is_let_in(waiting: WatchedService) -> None:
    signed = waiting.sign("GET", f"{API}/jobs")
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda _: waiting.send("GET", f"{API}/jobs", signed).refusal, range(16))
    assert sorted(answers) == [OK, *[(401, "AUTH_REPLAYED")] * 15]


def alterations() -> dict[str, Callable[[dict[str, Any]], None]]:
    """Return changes to a request after it was signed, one for each signed part."""

    def header(name: str, change: Callable[[str], str]) -> Callable[[dict[str, Any]], None]:
        def alter(request: dict[str, Any]) -> None:
            request["headers"][name] = change(request["headers"][name])

        return alter

    return {
        "method": lambda request: request.update(method="GET", target=f"{API}/status/{UNKNOWN}?a=1&b=2"),
        "path": lambda request: request.update(target=f"{API}/batch?a=1&b=2"),
        "path in another spelling": lambda request: request.update(target=f"{API}/generate%2d3d?a=1&b=2"),
        "query": lambda request: request.update(target=f"{API}/generate-3d?a=1&b=3"),
        "order of the query": lambda request: request.update(target=f"{API}/generate-3d?b=2&a=1"),
        "no query": lambda request: request.update(target=f"{API}/generate-3d"),
        "agent id": header("X-Agent-ID", lambda _: "agent-1"),
        "timestamp": header("X-Agent-Timestamp", lambda text: str(int(text) + 1)),
        "nonce": header("X-Agent-Nonce", lambda text: text[:-1] + ("0" if text[-1] != "0" else "1")),
        "digest": header("X-Agent-Content-SHA256", lambda _: digest_body(b"")),
        "signature": header("X-Agent-Signature", lambda text: text[:-1] + ("0" if text[-1] != "0" else "1")),
    }


@pytest.mark.parametrize("part", alterations())
def test_a_change_of_a_signed_part_is_refused(waiting: WatchedService, part: str) -> None:
    if len(waiting.agents) == 1:
        waiting.add_agent("agent-1")
    target, body = f"{API}/generate-3d?a=1&b=2", encode_form(Part("async", b"true"), image())
    headers = {**waiting.sign("POST", target, body), "Content-Type": FORM}
    request: dict[str, Any] = {"method": "POST", "target": target, "headers": headers, "body": body}
    alterations()[part](request)
    assert waiting.send(**request).refusal == (401, "AUTH_INVALID")


@pytest.mark.parametrize("change", [lambda body: body + b" ", lambda body: body[:-1] + b"_", lambda _: b""])
def test_another_body_is_refused_and_nothing_is_kept(queue: WatchedService, change: Callable[[bytes], bytes]) -> None:
    target, body = f"{API}/generate-3d", encode_form(Part("async", b"true"), image())
    agent = queue.add_agent()
    kept = queue.files("inputs")
    headers = {**queue.sign("POST", target, body, agent=agent), "Content-Type": FORM}
    assert queue.send("POST", target, headers, change(body)).refusal == (401, "AUTH_BODY_MISMATCH")
    assert job_ids(queue, agent) == []
    assert queue.files("inputs") == kept
    assert queue.files("spool") == []


def test_an_agent_may_be_bound_to_addresses(waiting: WatchedService) -> None:
    agent = waiting.add_agent(allowed_ips=["192.0.2.0/24"])
    assert waiting.get("/jobs", agent=agent).refusal == (403, "IP_NOT_ALLOWED")
    inside, outside = {"X-Forwarded-For": "192.0.2.7"}, {"X-Forwarded-For": "192.0.2.7, 198.51.100.1"}
    assert waiting.get("/jobs", agent=agent, headers=inside).refusal == OK
    assert waiting.get("/jobs", agent=agent, headers=outside).refusal == (403, "IP_NOT_ALLOWED")


CALLS = {
    "generate": [("POST", "/generate-3d"), ("DELETE", f"/jobs/{UNKNOWN}"), ("POST", f"/jobs/{UNKNOWN}/again")],
    "batch": [("POST", "/batch")],
    "status": [("GET", f"/status/{UNKNOWN}"), ("GET", "/jobs")],
    "download": [("GET", f"/download/{UNKNOWN}.glb")],
}


@pytest.mark.parametrize(
    ("operation", "method", "path"), [(name, *call) for name, calls in CALLS.items() for call in calls]
)
def test_an_operation_must_be_granted(waiting: WatchedService, operation: str, method: str, path: str) -> None:
    without = waiting.add_agent(operations=[name for name in CALLS if name != operation])
    alone = waiting.add_agent(operations=[operation])
    answer = waiting.call(method, API + path, agent=without)
    assert answer.refusal == (403, "OPERATION_NOT_ALLOWED")
    assert answer.json()["details"] == {"operation": operation}
    assert waiting.call(method, API + path, agent=alone).status not in (401, 403)


# Limits


def test_requests_over_the_rate_are_refused_for_their_agent_alone(waiting: WatchedService) -> None:
    agent = waiting.add_agent(rate_limit=5)
    answers = [waiting.get("/jobs", agent=agent) for _ in range(7)]
    assert [answer.refusal for answer in answers] == [OK] * 5 + [(429, "RATE_LIMITED")] * 2
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
    assert waiting.get("/jobs").refusal == OK


def test_batches_have_a_rate_of_their_own(queue: WatchedService) -> None:
    agent = queue.add_agent(batch_rate_limit=2)
    answers = [queue.batch(good_png(), good_png(), agent=agent) for _ in range(3)]
    assert [answer.refusal for answer in answers] == [TAKEN, TAKEN, (429, "RATE_LIMITED")]
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
    assert queue.generate(good_png(), agent=agent, async_="true").refusal == TAKEN
    assert len(job_ids(queue, agent)) == 5


def test_unfinished_jobs_of_an_agent_are_bounded(queue: WatchedService) -> None:
    agent = queue.add_agent(max_active_jobs=2)
    assert queue.batch(good_png(), good_png(), good_png(), agent=agent).refusal == (400, "TOO_MANY_JOBS")
    assert queue.batch(good_png(), good_png(), agent=agent).refusal == TAKEN
    assert queue.generate(good_png(), agent=agent, async_="true").refusal == (429, "RATE_LIMITED")
    assert cancel(queue, job_ids(queue, agent)[0], agent).refusal == OK
    assert queue.generate(good_png(), agent=agent, async_="true").refusal == TAKEN


def test_a_full_queue_and_floods_and_a_missing_worker(tmp_path: Path) -> None:
    narrow: dict[str, Any] = {"QUEUE_LIMIT": 3, "UNAUTHENTICATED_RATE_LIMIT": 5, "WORKER_ENABLED": "false"}
    service = WatchedService(tmp_path, **narrow)
    try:
        service.start(health=503)
        assert service.generate(good_png(), async_="true").refusal == (503, "GPU_BUSY")
        assert service.send("GET", f"{API}/health", {}).json()["status"] == "unavailable"

        service.pretend_worker()
        assert service.batch(good_png(), good_png()).refusal == TAKEN
        assert service.batch(good_png(), good_png()).refusal == (503, "QUEUE_FULL")
        assert service.generate(good_png(), async_="true").refusal == TAKEN
        assert service.generate(good_png(), async_="true").refusal == (503, "QUEUE_FULL")
        assert len(service.files("inputs")) == 3

        floods = [service.send("GET", f"{API}/jobs", {}).refusal for _ in range(6)]
        assert floods == [(401, "AUTH_MISSING")] * 5 + [(429, "RATE_LIMITED")]
        assert service.get("/jobs").refusal == OK
        service.stop()
        service.check_logs()
    finally:
        service.kill()


# Health


def test_health_is_told_to_anyone(service: WatchedService) -> None:
    answer = service.send("GET", f"{API}/health", {})
    said = made(answer)
    assert (said["status"], said["model"]) == ("ok", {"name": "demo", "loaded": True, "compiled": False})
    assert said["device"]["type"] == "cpu"
    assert 0 < said["device"]["memory_free"] <= said["device"]["memory_total"]
    assert {"version", "queue_size", "active_jobs"} <= set(said)


def test_health_can_be_asked_for_without_its_body(service: WatchedService) -> None:
    answer = service.send("HEAD", f"{API}/health", {})
    assert (answer.status, answer.body) == (200, b"")


# What is sent


def image(name: str = "image", content: bytes | None = None) -> Part:
    return Part(name, good_png() if content is None else content, "cat.png", "image/png")


def post(service: WatchedService, path: str, *parts: Part) -> Answer:
    return service.call("POST", API + path, encode_form(*parts), headers={"Content-Type": FORM})


BAD_VALUES = {
    "format": ("INVALID_FORMAT", ["gltf", "GLB", "", "glb ", "../glb", "glb,", "glb,fbx"]),
    "quality": ("INVALID_QUALITY", ["0", "11", "-1", "7.0", " 7", "", "0x7", "٧", "high"]),
    "steps": ("INVALID_STEPS", ["9", "101", "0", "1e1", "20.5", ""]),
    "guidance_scale": ("INVALID_GUIDANCE_SCALE", ["-0.1", "20.1", "nan", "inf", "1e999", "five"]),
    "acceleration": ("INVALID_ACCELERATION", ["", "Fast", "turbo", "true"]),
    "seed": ("INVALID_SEED", ["-2", "4294967296", "1.0", "1_0", "seven"]),
    "target_faces": ("INVALID_TARGET_FACES", ["99", "2000001", "1e3", "-100", "all"]),
    "remove_background": ("INVALID_REMOVE_BACKGROUND", ["maybe", "true", ""]),
    "scale_mm": ("INVALID_SCALE_MM", ["0", "-5", "0.09", "10000.1", "nan", "5 mm"]),
    "octree_resolution": ("INVALID_OCTREE_RESOLUTION", ["15", "513", "128.0"]),
    "objects": ("INVALID_OBJECTS", ["each", ""]),
    "color": ("INVALID_COLOR", ["red", ""]),
    "place": ("INVALID_PLACE", ["floor", ""]),
    "upright": ("INVALID_UPRIGHT", ["on", "true"]),
    "compress": ("INVALID_COMPRESS", ["zip", "true"]),
    "preview": ("INVALID_PREVIEW", ["1", "auto"]),
    "turntable": ("INVALID_TURNTABLE", ["0", ""]),
}
GOOD_VALUES = {
    "format": ["glb", "stl", "obj", "ply", "3mf", "stl,glb"],
    "quality": ["1", "10"],
    "steps": ["10", "100"],
    "guidance_scale": ["0", "20", "7.5"],
    "acceleration": ["none", "balanced", "fast"],
    "seed": ["0", "4294967295", "-1"],
    "target_faces": ["100", "2000000", "none"],
    "remove_background": ["auto", "always", "never"],
    "scale_mm": ["0.1", "10000"],
    "octree_resolution": ["16", "512"],
    "objects": ["all", "largest"],
    "color": ["auto", "none", "vertex", "texture"],
    "place": ["ground", "center", "as_is"],
    "upright": ["auto", "off"],
    "compress": ["none", "meshopt"],
    "preview": ["true", "false"],
    "turntable": ["true", "false"],
}


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [(field, value, code) for field, (code, values) in BAD_VALUES.items() for value in values],
)
def test_a_bad_value_is_refused(waiting: WatchedService, field: str, value: Any, code: str) -> None:
    single = waiting.generate(good_png(), async_="true", **{field: value})
    several = waiting.batch(good_png(), good_png(), **{field: value})
    assert single.refusal == several.refusal == (400, code)
    assert single.json()["details"]["field"] == field


@pytest.mark.parametrize("value", ["yes", "1", ""])
def test_whether_to_wait_is_true_or_false(waiting: WatchedService, value: str) -> None:
    assert waiting.generate(good_png(), async_=value).refusal == (400, "INVALID_ASYNC")


@pytest.mark.parametrize(
    ("field", "value"), [(name, value) for name, values in GOOD_VALUES.items() for value in values]
)
def test_a_value_at_either_end_is_taken(queue: WatchedService, field: str, value: Any) -> None:
    assert queue.generate(good_png(), async_="True", **{field: value}).refusal == TAKEN


@pytest.mark.parametrize("field", ["colour", "Quality", "octree", "images", "quality[]"])
def test_an_unknown_field_is_refused(waiting: WatchedService, field: str) -> None:
    fields: dict[str, Any] = {field: "7"}
    assert waiting.generate(good_png(), **fields).refusal == (400, "UNKNOWN_FIELD")


def test_a_batch_is_never_waited_for_so_it_cannot_be_asked_to_be(waiting: WatchedService) -> None:
    assert waiting.batch(good_png(), good_png(), async_="true").refusal == (400, "UNKNOWN_FIELD")


def test_a_field_may_be_given_once(waiting: WatchedService) -> None:
    twice = (Part("quality", b"7"), Part("quality", b"7"), image())
    assert post(waiting, "/generate-3d", *twice).refusal == (400, "INVALID_QUALITY")


def test_one_picture_is_needed_for_one_mesh(waiting: WatchedService) -> None:
    assert post(waiting, "/generate-3d", Part("seed", b"1")).refusal == (400, "MISSING_IMAGE")
    assert post(waiting, "/generate-3d", image(), image()).refusal == (400, "TOO_MANY_IMAGES")


@pytest.mark.parametrize(
    ("count", "refusal"),
    [
        (0, (400, "MISSING_IMAGE")),
        (1, (400, "TOO_FEW_IMAGES")),
        (2, TAKEN),
        (10, TAKEN),
        (11, (400, "TOO_MANY_IMAGES")),
    ],
)
def test_a_batch_has_two_to_ten_pictures(queue: WatchedService, count: int, refusal: tuple[int, str]) -> None:
    agent = queue.add_agent()
    answer = queue.batch(*[good_png()] * count, agent=agent)
    assert answer.refusal == refusal
    assert len(job_ids(queue, agent)) == (count if refusal == TAKEN else 0)
    if refusal == TAKEN:
        said = answer.json()
        assert (said["total_images"], len(set(said["job_ids"]))) == (count, count)
        assert said["status_url"] == f"{API}/status/{said['batch_id']}"


@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        (b"", (400, "INVALID_IMAGE")),
        (good_png()[:60], (400, "INVALID_IMAGE")),
        (b"GIF89a" + bytes(100), (400, "INVALID_IMAGE")),
        (b"%PDF-1.7", (415, "UNSUPPORTED_IMAGE")),
        (good_png() + bytes(12_000_000), (413, "FILE_TOO_LARGE")),
    ],
    ids=["empty", "cut", "GIF", "PDF", "too large"],
)
def test_what_is_no_picture_is_refused_by_name(queue: WatchedService, content: bytes, refusal: tuple[int, str]) -> None:
    agent = queue.add_agent()
    kept = queue.files("inputs")
    assert queue.generate(content, agent=agent).refusal == refusal
    batch = queue.batch(good_png(), content, agent=agent)
    assert batch.refusal == refusal
    assert "2" in batch.json()["error"]
    assert job_ids(queue, agent) == []
    assert queue.files("inputs") == kept


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded", "image/png"])
def test_what_is_no_form_is_refused(waiting: WatchedService, content_type: str) -> None:
    answer = waiting.call("POST", f"{API}/generate-3d", b"{}", headers={"Content-Type": content_type})
    assert answer.refusal == (415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize("key", ["a b", "a" * 129, "schlüssel"])
def test_a_key_that_is_none_is_refused(waiting: WatchedService, key: str) -> None:
    refused = waiting.generate(good_png(), headers={"Idempotency-Key": key})
    assert refused.refusal == (400, "INVALID_IDEMPOTENCY_KEY")


@pytest.mark.parametrize(
    ("method", "path", "refusal"),
    [
        ("GET", "/generate-3d", (405, "METHOD_NOT_ALLOWED")),
        ("DELETE", "/jobs", (405, "METHOD_NOT_ALLOWED")),
        ("POST", "/health", (405, "METHOD_NOT_ALLOWED")),
        ("OPTIONS", "/jobs", (405, "METHOD_NOT_ALLOWED")),
        ("GET", "", (404, "NOT_FOUND")),
        ("GET", "/jobs/", (404, "NOT_FOUND")),
        ("GET", "//jobs", (404, "NOT_FOUND")),
        ("GET", "/status/", (404, "NOT_FOUND")),
    ],
)
def test_what_is_not_offered_is_refused(
    waiting: WatchedService, method: str, path: str, refusal: tuple[int, str]
) -> None:
    answer = waiting.call(method, API + path)
    assert answer.refusal == refusal
    assert ("Allow" in answer.headers) == (refusal[0] == 405)


# What is there, and whose it is


@pytest.mark.parametrize("job_id", [UNKNOWN, "f" * 32, "job", "0" * 31, UNKNOWN.replace("0", "A"), "%00" * 32])
def test_an_unknown_job_is_not_found(waiting: WatchedService, job_id: str) -> None:
    assert waiting.get(f"/status/{job_id}").refusal == (404, "JOB_NOT_FOUND")
    assert cancel(waiting, job_id).refusal == (404, "JOB_NOT_FOUND")


@pytest.mark.parametrize("name", [f"{UNKNOWN}.glb", "mesh.glb", UNKNOWN, f"{UNKNOWN}.png", f"{UNKNOWN}.glb.part"])
def test_an_unknown_file_is_not_found(waiting: WatchedService, name: str) -> None:
    assert waiting.get(f"/download/{name}").refusal == (404, "FILE_NOT_FOUND")


def test_another_agents_job_is_not_found(queue: WatchedService) -> None:
    ann, bob = queue.add_agent(), queue.add_agent()
    said = queue.batch(good_png(), good_png(), agent=ann).json()
    for job_id in (said["batch_id"], *said["job_ids"]):
        assert queue.get(f"/status/{job_id}", agent=bob).refusal == (404, "JOB_NOT_FOUND")
        assert cancel(queue, job_id, bob).refusal == (404, "JOB_NOT_FOUND")
    assert job_ids(queue, bob) == []
    assert [item["status"] for item in queue.status(said["batch_id"], ann)["items"]] == ["queued", "queued"]


NO_FILE, NO_JOB, NOWHERE, NO_REQUEST = (
    (404, "FILE_NOT_FOUND"),
    (404, "JOB_NOT_FOUND"),
    (404, "NOT_FOUND"),
    (400, "BAD_REQUEST"),
)


@pytest.mark.parametrize(
    ("path", "refusal"),
    [
        ("/download/agents.json", NO_FILE),
        ("/download/..%5cagents.json", NO_FILE),
        ("/download/%2e%2e", NO_FILE),
        ("/download/..", NO_FILE),
        ("/download/%252e%252e%252fagents.json", NO_FILE),
        ("/download/%2525252e%2525252e%2525252fagents.json", NO_FILE),
        ("/download/agents.json%00.glb", NO_FILE),
        (f"/download/{UNKNOWN}.glb%00", NO_FILE),
        (f"/download/{UNKNOWN}.glb%0a", NO_FILE),
        ("/download/%c0%ae%c0%ae%c0%afagents.json", NO_FILE),
        ("/download/\N{FULLWIDTH FULL STOP}\N{FULLWIDTH FULL STOP}agents.json", NO_REQUEST),
        ("/download/file:%2f%2f%2fetc%2fpasswd", NOWHERE),
        ("/download/../agents.json", NOWHERE),
        ("/download/../../../../etc/passwd", NOWHERE),
        ("/download/..%2f..%2fagents.json", NOWHERE),
        ("/download/%2e%2e%2f%2e%2e%2fetc%2fpasswd", NOWHERE),
        ("/download//etc/passwd", NOWHERE),
        ("/download/%2fetc%2fpasswd", NOWHERE),
        ("/download/./agents.json", NOWHERE),
        ("/../../etc/passwd", NOWHERE),
        ("/status/../jobs", NOWHERE),
        ("/status/..%2f..%2fagents.json", NOWHERE),
        ("/status/..", NO_JOB),
        ("/status/%00", NO_JOB),
        ("/download/\0agents.json", NO_REQUEST),
        ("/download/a b", NO_REQUEST),
    ],
)
def test_no_path_leads_out(waiting: WatchedService, path: str, refusal: tuple[int, str]) -> None:
    target = API + path
    # A target that cannot be signed is refused before its signature is checked.
    signed = waiting.sign("GET", target if refusal != NO_REQUEST else f"{API}/jobs")
    assert waiting.send("GET", target, signed).refusal == refusal


# Meshes


@pytest.fixture(scope="module")
def mug(service: WatchedService) -> dict[str, Any]:
    """Provide a mesh of the mug, as the answer to a caller who waited for it."""
    return made(service.generate(sample("mug"), seed=7, **QUICK))


def test_a_picture_becomes_a_mesh_while_its_caller_waits(service: WatchedService, mug: dict[str, Any]) -> None:
    assert (mug["success"], mug["status"]) == (True, "completed")
    assert mug["processing_time"] > 0
    metadata = mug["metadata"]
    asked = {"format": "glb", "seed": 7, "steps": 10, "quality": 1, "octree_resolution": 48, "target_faces": 10_000}
    assert {name: metadata[name] for name in asked} == asked
    assert (metadata["model"], metadata["batch_size"], metadata["fallbacks"]) == ("demo", 1, [])
    assert metadata["unit"] == "m"
    stages = ("queued", "preprocess", "encode", "sample", "decode", "mesh", "export", "total")
    assert all(metadata["seconds"][stage] >= 0 for stage in stages)
    job = service.status(mug["job_id"])
    assert {name: job[name] for name in ("metadata", "download_url", "processing_time", "status", "progress")} == {
        **{name: mug[name] for name in ("metadata", "download_url", "processing_time")},
        "status": "completed",
        "progress": 100,
    }


def test_a_picture_becomes_a_mesh_while_its_caller_does_something_else(service: WatchedService) -> None:
    accepted = service.generate(sample("mug"), async_="true", **QUICK)
    assert accepted.refusal == TAKEN
    job_id = accepted.json()["job_id"]
    assert accepted.json()["status_url"] == f"{API}/status/{job_id}"
    job = service.wait(job_id)
    assert (job["status"], job["progress"], job["error"]) == ("completed", 100, None)
    assert service.call("GET", job["download_url"]).refusal == OK


MEDIA = {"glb": "model/gltf-binary", "stl": "model/stl", "obj": "model/obj", "ply": "application/octet-stream"}


@pytest.mark.parametrize("form", MEDIA)
def test_a_file_holds_the_mesh_that_its_metadata_names(service: WatchedService, form: str) -> None:
    said = made(service.generate(sample("mug"), seed=7, format=form, target_faces=3000, scale_mm=50, **QUICK))
    metadata = said["metadata"]
    answer = service.call("GET", said["download_url"])
    assert answer.headers["Content-Type"] == MEDIA[form]
    assert len(answer.body) == metadata["file_size"] == int(answer.headers["Content-Length"])
    mesh = trimesh.load_mesh(io.BytesIO(answer.body), file_type=form)
    assert len(mesh.faces) == metadata["faces"] <= 3000
    # A texture splits vertices where it has a seam.
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    assert mesh.is_watertight is metadata["watertight"] is True
    unit, longest = ("m", 0.05) if form == "glb" else ("mm", 50)
    assert (metadata["target_faces"], metadata["unit"]) == (3000, unit)
    assert mesh.extents.max() == pytest.approx(longest, rel=2e-5)
    assert mesh.bounds == pytest.approx(np.array(metadata["bounds"]), abs=2e-5 * longest)


def test_a_batch_runs_together_and_each_picture_gets_its_own_mesh(service: WatchedService) -> None:
    names = ("mug", "car", "star")
    # As the surface was found: fewer faces and a level foot are choices that a rounding may turn.
    fields = {**QUICK, "seed": 7, "target_faces": "none", "place": "as_is", "upright": "off", "color": "none"}
    mug = made(service.generate(sample("mug"), **fields))
    accepted = service.batch(*map(sample, names), **fields).json()
    batch = service.wait(accepted["batch_id"])
    assert (batch["status"], batch["progress"], batch["total_images"]) == ("completed", 100, 3)
    assert [item["job_id"] for item in batch["items"]] == accepted["job_ids"]
    assert [item["batch_id"] for item in batch["items"]] == [accepted["batch_id"]] * 3
    assert [item["metadata"]["batch_size"] for item in batch["items"]] == [3, 3, 3]
    meshes = [service.call("GET", item["download_url"]).body for item in batch["items"]]
    assert len(set(meshes)) == 3
    # The same picture and seed: the same mesh, whoever else was in the batch.
    alone, together = (
        trimesh.load_mesh(io.BytesIO(content), file_type="glb", process=False)
        for content in (service.call("GET", mug["download_url"]).body, meshes[0])
    )
    assert len(together.faces) == len(alone.faces)
    # By place, not by number: a lattice value that is a rounding away from zero lends its vertex to another edge.
    for one, other in ((alone, together), (together, alone)):
        assert cKDTree(one.vertices).query(other.vertices)[0].max() < 5e-4 * alone.extents.max()


def test_a_picture_of_nothing_fails_with_its_reason(service: WatchedService) -> None:
    nothing = png(Image.new("RGBA", (64, 64), (0, 0, 0, 0)))
    answer = service.generate(nothing, **QUICK)
    assert answer.refusal == (422, "NO_FOREGROUND")
    job = service.status(answer.json()["details"]["job_id"])
    assert (job["status"], job["error"]["code"], job["download_url"]) == ("failed", "NO_FOREGROUND", None)


def test_one_bad_picture_fails_alone(service: WatchedService) -> None:
    nothing = png(Image.new("RGBA", (64, 64), (0, 0, 0, 0)))
    accepted = service.batch(sample("mug"), nothing, **QUICK).json()
    batch = service.wait(accepted["batch_id"])
    assert batch["status"] == "completed"
    assert [item["status"] for item in batch["items"]] == ["completed", "failed"]


def test_another_agents_file_is_not_found(service: WatchedService, mug: dict[str, Any]) -> None:
    bob = service.add_agent()
    assert service.call("GET", mug["download_url"], agent=bob).refusal == NO_FILE
    assert service.get(f"/status/{mug['job_id']}", agent=bob).refusal == NO_JOB
    assert cancel(service, mug["job_id"], bob).refusal == NO_JOB
    assert service.call("GET", mug["download_url"]).refusal == OK


def test_a_file_comes_in_parts_and_not_twice(service: WatchedService, mug: dict[str, Any]) -> None:
    def get(method: str = "GET", **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return service.call(method, mug["download_url"], headers=named)

    whole = get()
    size, etag = len(whole.body), whole.headers["ETag"]
    assert (whole.status, whole.headers["Accept-Ranges"]) == (200, "bytes")
    name = mug["download_url"].rpartition("/")[2]
    assert whole.headers["Content-Disposition"] == f'attachment; filename="{name}"'

    head = get("HEAD")
    assert (head.status, head.body, int(head.headers["Content-Length"])) == (200, b"", size)
    known = get(If_None_Match=etag)
    assert (known.status, known.body, known.headers["ETag"]) == (304, b"", etag)

    part = get(Range="bytes=100-199")
    assert (part.status, part.body) == (206, whole.body[100:200])
    assert part.headers["Content-Range"] == f"bytes 100-199/{size}"
    assert get(Range="bytes=-7").body == whole.body[-7:]
    assert get(Range=f"bytes={size - 3}-").body == whole.body[-3:]
    beyond = get(Range=f"bytes={size}-")
    assert beyond.refusal == (416, "RANGE_NOT_SATISFIABLE")
    assert beyond.headers["Content-Range"] == f"bytes */{size}"

    assert get(Range="bytes=0-9", If_Range=etag).status == 206
    assert get(Range="bytes=0-9", If_Range='"other"').status == 200
    assert get(If_Match='"other"').refusal == (412, "PRECONDITION_FAILED")


# Jobs


def test_a_waiting_job_is_cancelled_at_once_and_its_picture_goes(queue: WatchedService) -> None:
    agent = queue.add_agent()
    first, second = queue.batch(good_png(), good_png(), agent=agent).json()["job_ids"]
    positions = [queue.status(job_id, agent)["queue_position"] for job_id in (first, second)]
    # Between them come jobs that other tests left for other agents, who take turns with this one.
    assert positions[1] > positions[0]
    kept = set(queue.files("inputs"))
    answer = cancel(queue, first, agent)
    assert (answer.refusal, answer.json()["status"]) == (OK, "cancelled")
    assert queue.status(second, agent)["queue_position"] == positions[0]
    assert cancel(queue, first, agent).json()["status"] == "cancelled"
    queue.wait_until(lambda: len(kept - set(queue.files("inputs"))) == 1)


def test_a_running_job_is_cancelled_before_its_end(service: WatchedService) -> None:
    job_id = service.generate(sample("mug"), async_="true", quality=10, steps=100).json()["job_id"]
    running = service.wait(job_id, until=("processing",))
    assert running["queue_position"] is None
    answer = cancel(service, job_id)
    assert (answer.refusal, answer.json()["cancel_requested"]) == (OK, True)
    job = service.wait(job_id)
    assert (job["status"], job["download_url"], job["metadata"]) == ("cancelled", None, None)


def test_a_caller_that_waits_is_told_of_the_cancelling(service: WatchedService) -> None:
    agent = service.add_agent()
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(service.generate, sample("mug"), agent=agent, quality=10, steps=100)
        service.wait_until(lambda: job_ids(service, agent) != [])
        assert cancel(service, job_ids(service, agent)[0], agent).refusal == OK
        assert waits.result().refusal == (409, "CANCELLED")


def test_a_finished_job_stays_as_it_is(service: WatchedService, mug: dict[str, Any]) -> None:
    answer = cancel(service, mug["job_id"])
    assert (answer.refusal, answer.json()["status"]) == (OK, "completed")
    assert service.call("GET", mug["download_url"]).refusal == OK


def test_jobs_come_in_pages_newest_first(queue: WatchedService) -> None:
    agent = queue.add_agent()
    made_ = [queue.generate(good_png(), agent=agent, async_="true").json()["job_id"] for _ in range(5)]
    pages, cursor = [], ""
    while True:
        said = queue.get(f"/jobs?limit=2{cursor}", agent=agent).json()
        pages.append([job["job_id"] for job in said["jobs"]])
        if said["next_cursor"] is None:
            break
        cursor = f"&cursor={said['next_cursor']}"
    assert pages == [made_[:2:-1], made_[2:0:-1], made_[:1]]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        *((f"limit={text}", "INVALID_LIMIT") for text in ("0", "101", "-1", "", "2.5", "ten", "%D9%A7")),
        *((f"cursor={text}", "INVALID_CURSOR") for text in ("", "1", "..%2f", UNKNOWN[1:], "'%20OR%201=1")),
    ],
)
def test_a_page_that_is_none_is_refused(waiting: WatchedService, query: str, code: str) -> None:
    assert waiting.get(f"/jobs?{query}").refusal == (400, code)


# The same request again


def test_a_request_with_a_key_is_carried_out_once(queue: WatchedService) -> None:
    agent, other = queue.add_agent(), queue.add_agent()

    def generate(content: bytes = good_png(), who: Agent = agent, **fields: object) -> Answer:
        return queue.generate(content, agent=who, headers={"Idempotency-Key": "key-1"}, async_="true", **fields)

    first = generate(seed=5)
    kept = queue.files("inputs")
    again = generate(seed=5)
    assert first.refusal == again.refusal == TAKEN
    assert again.json()["job_id"] == first.json()["job_id"]
    assert generate(seed=6).refusal == (409, "IDEMPOTENCY_CONFLICT")
    assert generate(sample("car"), seed=5).refusal == (409, "IDEMPOTENCY_CONFLICT")
    assert generate().refusal == (409, "IDEMPOTENCY_CONFLICT")
    batch = queue.batch(good_png(), good_png(), agent=agent, headers={"Idempotency-Key": "key-1"}, seed=5)
    assert batch.refusal == (409, "IDEMPOTENCY_CONFLICT")
    assert job_ids(queue, agent) == [first.json()["job_id"]]
    assert queue.files("inputs") == kept
    assert generate(seed=5, who=other).json()["job_id"] != first.json()["job_id"]


def test_a_batch_with_a_key_is_carried_out_once(queue: WatchedService) -> None:
    agent, key = queue.add_agent(), {"Idempotency-Key": "key-2"}
    first = queue.batch(good_png(), sample("car"), agent=agent, headers=key)
    again = queue.batch(good_png(), sample("car"), agent=agent, headers=key)
    turned = queue.batch(sample("car"), good_png(), agent=agent, headers=key)
    assert (first.refusal, first.json()) == (again.refusal, again.json()) == (TAKEN, first.json())
    assert turned.refusal == (409, "IDEMPOTENCY_CONFLICT")
    assert len(job_ids(queue, agent)) == 2


def test_the_same_key_at_the_same_moment_makes_one_job(queue: WatchedService) -> None:
    agent, key = queue.add_agent(), {"Idempotency-Key": "key-3"}
    with ThreadPoolExecutor(6) as pool:
        answers = list(
            pool.map(lambda _: queue.generate(good_png(), agent=agent, headers=key, async_="true"), range(6))
        )
    assert [answer.refusal for answer in answers] == [TAKEN] * 6
    assert job_ids(queue, agent) == [answers[0].json()["job_id"]]
    assert len({answer.json()["job_id"] for answer in answers}) == 1


def test_a_key_gives_the_mesh_again(service: WatchedService) -> None:
    agent, key = service.add_agent(), {"Idempotency-Key": "key-4"}
    first = service.generate(sample("mug"), agent=agent, headers=key, **QUICK)
    again = service.generate(sample("mug"), agent=agent, headers=key, **QUICK)
    assert first.refusal == again.refusal == OK
    assert again.json() == first.json()
    other = service.generate(sample("mug"), agent=agent, headers=key, **{**QUICK, "steps": 11})
    assert other.refusal == (409, "IDEMPOTENCY_CONFLICT")
    assert len(job_ids(service, agent)) == 1


def test_a_key_gives_the_promise_again_when_it_was_kept(service: WatchedService) -> None:
    agent, key = service.add_agent(), {"Idempotency-Key": "key-5"}
    first = service.generate(sample("mug"), agent=agent, headers=key, async_="true", **QUICK)
    service.wait(first.json()["job_id"], agent)
    again = service.generate(sample("mug"), agent=agent, headers=key, async_="true", **QUICK)
    assert first.refusal == again.refusal == TAKEN
    assert (again.json()["job_id"], again.json()["status"]) == (first.json()["job_id"], "completed")


# Around it


def test_a_caller_may_name_its_request(waiting: WatchedService) -> None:
    assert waiting.get("/jobs", headers={"X-Request-ID": "mine-1"}).headers["X-Request-ID"] == "mine-1"
    for bad in ("a b", "a" * 65, "<script>", "é"):
        assert waiting.get("/jobs", headers={"X-Request-ID": bad}).headers["X-Request-ID"] != bad


def test_a_body_may_come_in_chunks(queue: WatchedService) -> None:
    target, body = f"{API}/generate-3d", encode_form(Part("async", b"true"), image())
    headers = {**queue.sign("POST", target, body), "Content-Type": FORM, "Transfer-Encoding": "chunked"}
    middle = len(body) // 2
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:middle], body[middle:], b""))
    assert queue.send("POST", target, headers, chunks).refusal == TAKEN


@pytest.mark.parametrize(("length", "refusal"), [(0, (400, "BAD_FRAMING")), (100_000_000, (413, "FILE_TOO_LARGE"))])
def test_a_body_that_breaks_off_leaves_nothing(queue: WatchedService, length: int, refusal: tuple[int, str]) -> None:
    agent, target = queue.add_agent(), f"{API}/generate-3d"
    body = encode_form(Part("async", b"true"), image())
    kept = queue.files("inputs")
    signed = queue.sign("POST", target, body, agent=agent)
    headers = {**signed, "Content-Type": FORM, "Content-Length": str(length or len(body))}
    assert queue.send("POST", target, headers, body[:-1], ends=True).refusal == refusal
    assert job_ids(queue, agent) == []
    assert (queue.files("inputs"), queue.files("spool")) == (kept, [])


@pytest.mark.parametrize(
    ("request_", "refusal"),
    [
        (b"rubbish\r\n\r\n", (400, "BAD_REQUEST")),
        (b"GET / HTTP/9.9\r\n\r\n", (400, "BAD_REQUEST")),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", (414, "URI_TOO_LONG")),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: " + b"a" * 9000 + b"\r\n\r\n", (431, "HEADERS_TOO_LARGE")),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X-A: 1\r\n" * 100 + b"\r\n", (431, "HEADERS_TOO_LARGE")),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            (400, "BAD_FRAMING"),
        ),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", (400, "BAD_FRAMING")),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", (400, "BAD_FRAMING")),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", (400, "BAD_FRAMING")),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: rot13, chunked\r\n\r\n",
            (501, "UNSUPPORTED_TRANSFER_CODING"),
        ),
    ],
)
def test_what_is_no_request_is_answered_in_the_same_form(
    waiting: WatchedService, request_: bytes, refusal: tuple[int, str]
) -> None:
    answer = waiting.send_bytes(request_)
    assert answer.refusal == refusal
    assert answer.json()["request_id"] == answer.headers["X-Request-ID"]
    assert waiting.get("/jobs").refusal == OK


def test_agents_take_turns_with_two_keys(waiting: WatchedService) -> None:
    old = waiting.add_agent()
    new = replace(old, api_key=rotate_agent(waiting.agents_file, old.agent_id))
    waiting.agents.append(new)
    assert [waiting.get("/jobs", agent=agent).refusal for agent in (old, new)] == [OK, OK]
    newest = replace(old, api_key=rotate_agent(waiting.agents_file, old.agent_id, keep=0))
    assert waiting.get("/jobs", agent=newest).refusal == OK
    for agent in (old, new):
        assert waiting.get("/jobs", agent=agent).refusal == (401, "AUTH_INVALID")


def test_neither_log_nor_audit_tells_a_secret(tmp_path: Path) -> None:
    with running_service(tmp_path, WatchedService, works=False, LOG_LEVEL="DEBUG") as service:
        agent = service.add_agent()
        signed = service.sign("GET", f"{API}/jobs", agent=agent)
        assert service.send("GET", f"{API}/jobs", signed).refusal == OK
        assert service.send("GET", f"{API}/jobs", signed).refusal == (401, "AUTH_REPLAYED")
        assert service.get("/jobs", headers={"X-Agent-ID": agent.api_key[:60].strip("-_")}).status == 401
        assert service.get("/jobs", headers={"X-Agent-Nonce": agent.api_key}).refusal == (401, "AUTH_INVALID")
        assert service.generate(good_png(), agent=agent, async_="true").refusal == TAKEN
        service.stop()
        service.check_logs()
        audit = (service.data / "audit.jsonl").read_text()
        outcomes = ["admitted", "AUTH_REPLAYED", "AUTH_INVALID", "AUTH_INVALID", "admitted"]
        assert [line.split('"outcome": "')[1].split('"')[0] for line in audit.splitlines()] == outcomes
