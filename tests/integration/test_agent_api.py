"""What an agent sees beside its own jobs: health, what is there and whose it is, and how a request may come."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from backend.auth.agents_file import rotate_agent
from tests.support.agent_calls import NO_FILE, NO_JOB, OK, TAKEN, UNKNOWN, cancel, image, job_ids, made
from tests.support.hostile import FORM, Part, encode_form
from tests.support.hostile_pictures import good_png
from tests.support.running import API, running_service
from tests.support.watched import WatchedService

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


NOWHERE = (404, "NOT_FOUND")
NO_REQUEST = (400, "BAD_REQUEST")


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
