"""Who may call the service, and how often: each request on a real port, each with the one answer it must get."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from backend.auth.agents_file import set_enabled
from orfeas_client.signing import digest_body
from tests.support.agent_calls import OK, TAKEN, UNKNOWN, cancel, image, job_ids
from tests.support.hostile import FORM, Part, encode_form
from tests.support.hostile_pictures import good_png
from tests.support.running import API, Agent
from tests.support.watched import WatchedService

SIGNING_HEADERS = (
    "X-Agent-ID",
    "X-Agent-Timestamp",
    "X-Agent-Nonce",
    "X-Agent-Content-SHA256",
    "X-Agent-Signature",
)


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
