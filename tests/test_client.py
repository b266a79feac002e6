"""The client against a real server behind the real guard, over a wire that breaks: one job whatever is lost."""

from __future__ import annotations

import itertools
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from orfeas_client import (
    AgentClient,
    Batch,
    ClientError,
    Fields,
    Job,
    LocalFileError,
    NothingToLink,
    ServiceRefused,
    ServiceUnreachable,
    UnexpectedAnswer,
    WaitedTooLong,
)
from orfeas_client.download import CHUNK_BYTES
from orfeas_client.field_options import FIELDS
from orfeas_client.models import read_job, read_submitted_batch
from orfeas_client.retries import RetryPolicy
from tests.support.tiny_service import (
    AGENT_ID,
    Fault,
    TinyService,
    Wire,
    answer_changed,
    answer_cut,
    answer_lost,
    answered,
    passed_on,
    reset_after,
)

PICTURE = bytes(range(256)) * 4000


class Line:
    """A client, the wire it speaks over, and the service at its other end."""

    def __init__(self, service: TinyService, wire: Wire) -> None:
        self.service = service
        self.wire = wire
        self.pauses: list[float] = []
        self.client = self.connect()

    def connect(self, **changed: Any) -> AgentClient:
        options: dict[str, Any] = {"sleep": self.pauses.append, "timeout": (5.0, 20.0), **changed}
        return AgentClient(f"http://127.0.0.1:{self.wire.port}", AGENT_ID, self.service.api_key, **options)

    def completed(self) -> Job:
        job = self.client.wait(self.client.generate(PICTURE).id)
        assert isinstance(job, Job)
        self.wire.seen.clear()
        self.pauses.clear()
        return job

    def headers(self, name: str) -> list[str]:
        return [head.headers[name] for head in self.wire.seen]


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    service = TinyService(tmp_path / "data")
    with service.serving() as port:
        wire = Wire(port)
        found = Line(service, wire)
        yield found
        found.client.close()
        wire.close()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "cat.png"
    path.write_bytes(PICTURE)
    return path


def test_picture_becomes_a_file(line: Line, image: Path, tmp_path: Path) -> None:
    states: list[str] = []
    sent = line.client.generate(image, format="stl", quality=3, seed=0, guidance_scale=2.5)
    assert (sent.status, sent.finished) == ("queued", False)
    job = line.client.wait(sent.id, lambda seen: states.append(seen.status))
    assert isinstance(job, Job)
    assert states == ["processing", "processing", "completed"]
    assert (job.progress, job.metadata["faces"], job.processing_time) == (100, 1234, 1.25)
    fields = {"format": "stl", "quality": "3", "seed": "0", "guidance_scale": "2.5", "async": "true"}
    assert line.service.job[job.id].fields == fields
    assert job.download_url == f"/api/agent/download/{job.id}.stl"
    file = line.client.download(job.download_url, tmp_path / "mesh.stl", size=len(PICTURE))
    assert (file, file.read_bytes()) == (tmp_path / "mesh.stl", PICTURE)


def test_every_field_can_be_given_on_the_command_line() -> None:
    assert set(FIELDS) == set(Fields.__annotations__)


def test_synchronous_request_may_be_done_at_once(line: Line) -> None:
    job = line.client.generate(PICTURE, run_async=False)
    assert (job.succeeded, job.progress, job.metadata["seed"]) == (True, 100, 7)


def test_batch_keeps_the_order_of_its_pictures(line: Line) -> None:
    sent = line.client.batch([b"one", b"two", b"three"], target_faces=500)
    batch = line.client.wait(sent.id)
    assert isinstance(batch, Batch)
    assert [job.id for job in batch.jobs] == [job.id for job in sent.jobs]
    assert [line.service.job[job.id].image for job in batch.jobs] == [b"one", b"two", b"three"]
    assert batch.succeeded


def test_an_object_may_be_several_views(line: Line) -> None:
    sent = line.client.generate(views={"left": b"l", "front": b"f"}, seed=1)
    fields = line.service.job[sent.id].fields
    assert {name for name in fields if name.startswith("view")} == {"view_left", "view_front"}
    wrongs: list[dict[str, Any]] = [
        {"image": b"i", "views": {"front": b"f"}},
        {},
        {"views": {}},
        {"views": {"top": b"t"}},
    ]
    for wrong in wrongs:
        with pytest.raises(ClientError, match=r"exactly one|no view top"):
            line.client.generate(**wrong)
    assert len(line.service.job) == 1


def test_failed_job_says_why(line: Line) -> None:
    line.service.outcome = "failed"
    job = line.client.wait(line.client.generate(PICTURE).id)
    assert isinstance(job, Job)
    assert (job.finished, job.succeeded, job.error_code, job.error) == (
        True,
        False,
        "NO_FOREGROUND",
        "No object was found.",
    )


def test_all_that_is_said_of_a_job_is_read() -> None:
    answer = {
        "job_id": "j",
        "status": "failed",
        "error": {"code": "OUT_OF_MEMORY", "error": "Too large.", "details": {"octree_resolution": 384}},
        "index": 3,
        "filename": "mug.png",
        "label": "Set 7",
        "request": {"seed": 5},
        "expires_at": "2026-01-02T03:04:05Z",
    }
    job = read_job(answer)
    assert (job.error_code, job.error, dict(job.error_details)) == (
        "OUT_OF_MEMORY",
        "Too large.",
        {"octree_resolution": 384},
    )
    assert (job.index, job.filename, job.label, dict(job.request)) == (3, "mug.png", "Set 7", {"seed": 5})
    assert job.expires_at == "2026-01-02T03:04:05Z"


def test_bad_pictures_of_a_batch_are_failed_jobs_at_once() -> None:
    refused = [{"index": 1, "filename": "b.png", "code": "INVALID_IMAGE", "error": "It is cut."}]
    batch = read_submitted_batch({"batch_id": "b", "job_ids": ["1", "2", "3"], "refused": refused})
    assert [(job.id, job.status, job.error_code) for job in batch.jobs] == [
        ("1", "queued", ""),
        ("2", "failed", "INVALID_IMAGE"),
        ("3", "queued", ""),
    ]
    assert (batch.jobs[1].index, batch.jobs[1].filename, batch.jobs[1].error) == (1, "b.png", "It is cut.")


def test_only_what_is_asked_for_stands_in_the_query(line: Line) -> None:
    line.client.jobs(status="queued,failed", label="a b&c")
    query = urlsplit(line.wire.seen[-1].target).query
    assert parse_qs(query) == {"status": ["queued,failed"], "label": ["a b&c"]}


def test_cancelled_job_is_told_as_such(line: Line) -> None:
    job = line.client.cancel(line.client.generate(PICTURE).id)
    assert (job.status, job.finished) == ("cancelled", True)


def test_pages_of_jobs_lead_from_one_to_the_next(line: Line) -> None:
    sent = [line.client.generate(PICTURE).id for _ in range(5)]
    first = line.client.jobs(limit=3)
    second = line.client.jobs(limit=3, cursor=first.next_cursor)
    assert [job.id for job in (*first.jobs, *second.jobs)] == sent[::-1]
    assert second.next_cursor is None


def test_health_is_asked_once_and_without_a_signature(line: Line) -> None:
    health = line.client.health()
    assert (health.ok, health.status, health.model, health.queue_size) == (True, "ok", "demo", 3)
    line.service.healthy = False
    health = line.client.health()
    assert (health.ok, health.status, health.model_loaded, health.device) == (False, "unavailable", False, "cpu")
    assert len(line.wire.seen) == 2
    assert not any(name.startswith("x-agent") for head in line.wire.seen for name in head.headers)


def test_health_of_something_else_is_an_error(line: Line) -> None:
    line.wire.faults.append(answered("429 Too Many Requests", body='{"code": "RATE_LIMITED", "error": "Slowly."}'))
    with pytest.raises(ServiceRefused) as caught:
        line.client.health()
    assert (caught.value.status, caught.value.code) == (429, "RATE_LIMITED")


BUSY = '{"success": false, "code": "QUEUE_FULL", "error": "The queue is full.", "request_id": "r1", "details": {}}'
PASSING: dict[str, list[Fault]] = {
    "reset at once": [reset_after(0)],
    "reset in mid-upload": [reset_after(100_000)],
    "503": [answered("503 Service Unavailable", "Retry-After: 2", body=BUSY)],
    "429": [answered("429 Too Many Requests", "Retry-After: 3", body=BUSY)],
    "502 of a proxy": [answered("502 Bad Gateway", body="<html>down</html>")],
    "answer lost": [answer_lost],
    "answer cut": [answer_cut(20)],
    "one after the other": [reset_after(50_000), answer_lost, answered("503 Busy"), answer_cut(0), answer_lost],
}


@pytest.mark.parametrize("faults", PASSING.values(), ids=PASSING)
@pytest.mark.parametrize("kind", ["generate", "batch"])
def test_whatever_breaks_the_job_is_made_once(line: Line, kind: str, faults: list[Fault]) -> None:
    line.wire.faults.extend(faults)
    sent = line.client.generate(PICTURE) if kind == "generate" else line.client.batch([PICTURE, PICTURE])
    tries = len(faults) + 1
    assert len(line.service.job) == (1 if kind == "generate" else 2)
    assert sent.id in (line.service.job if kind == "generate" else line.service.batches)
    assert len(line.wire.seen) == tries
    assert len(set(line.headers("idempotency-key"))) == 1
    assert len(set(line.headers("x-agent-content-sha256"))) == 1
    assert len(set(line.headers("x-agent-nonce"))) == tries
    assert len(set(line.headers("x-agent-signature"))) == tries


def test_key_that_is_given_is_the_one_that_is_sent(line: Line) -> None:
    first = line.client.generate(PICTURE, idempotency_key="order-7")
    assert line.client.generate(PICTURE, idempotency_key="order-7").id == first.id
    assert line.headers("idempotency-key") == ["order-7", "order-7"]
    assert line.client.generate(PICTURE).id != first.id


def test_pause_is_at_least_what_the_service_asks_for(line: Line) -> None:
    busy = answered("503 Service Unavailable", "Retry-After: 7", body=BUSY)
    line.wire.faults.extend([busy, busy, busy])
    told: list[tuple[str, float]] = []
    client = line.connect(on_retry=lambda problem, pause: told.append((problem, pause)))
    client.generate(PICTURE)
    assert len(line.pauses) == 3
    assert all(7 <= pause <= 8 for pause in line.pauses)
    assert told == [("The queue is full. (503 QUEUE_FULL, request r1)", pause) for pause in line.pauses]


def test_pauses_double_up_to_a_bound() -> None:
    pauses: list[float] = []
    for chance in (0.0, 1.0):
        retry_policy = RetryPolicy(pauses.append, chance=itertools.repeat(chance).__next__)
        pauses += [retry_policy.pause(failures) for failures in range(8)]
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 0.25, 0.5, 1, 2, 4, 8, 15, 15]


def test_date_may_say_when_to_come_back(line: Line) -> None:
    line.wire.faults.append(answered("503 Busy", "Retry-After: Fri, 31 Dec 1999 23:59:59 GMT", body=BUSY))
    line.client.generate(PICTURE)
    assert len(line.pauses) == 1
    assert line.pauses[0] <= 1


def test_what_does_not_pass_is_raised_in_the_end(line: Line) -> None:
    line.wire.faults.extend([answered("503 Service Unavailable", "Retry-After: 4", body=BUSY)] * 3)
    with pytest.raises(ServiceRefused) as caught:
        line.connect(retries=2).generate(PICTURE)
    refusal = caught.value
    assert (refusal.status, refusal.code, refusal.retry_after, refusal.request_id) == (503, "QUEUE_FULL", 4.0, "r1")
    assert len(line.wire.seen) == 3


def test_connection_that_stays_broken_is_raised_in_the_end(line: Line) -> None:
    line.wire.faults.extend([reset_after(10)] * 3)
    with pytest.raises(ServiceUnreachable, match="No answer from 127"):
        line.connect(retries=2).generate(PICTURE)
    assert (len(line.wire.seen), len(line.pauses)) == (3, 2)


def test_nobody_there_is_said_in_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    client = AgentClient(f"http://127.0.0.1:{port}", AGENT_ID, "key", sleep=lambda _seconds: None)
    with pytest.raises(ServiceUnreachable, match=rf"^No answer from 127\.0\.0\.1:{port}: Connection refused\.$"):
        client.status("x")


def test_silent_service_is_given_up(line: Line) -> None:
    def silent(_wire: Wire, client: socket.socket, _head: bytes, _length: int) -> None:
        client.recv(1)

    line.wire.faults.append(silent)
    with pytest.raises(ServiceUnreachable, match="timed out"):
        line.connect(timeout=(5.0, 0.2), retries=0).jobs()


def test_too_long_a_pause_is_not_waited_for(line: Line) -> None:
    line.wire.faults.append(answered("429 Too Many Requests", "Retry-After: 3600", body=BUSY))
    with pytest.raises(ServiceRefused):
        line.client.generate(PICTURE)
    assert line.pauses == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 410, 411, 413, 415, 416, 422, 500, 501, 507])
def test_refusal_is_never_asked_again(line: Line, status: int) -> None:
    line.wire.faults.append(answered(f"{status} No", "Retry-After: 1", body=BUSY))
    with pytest.raises(ServiceRefused) as caught:
        line.client.generate(PICTURE)
    assert (caught.value.status, len(line.wire.seen), line.pauses) == (status, 1, [])


def test_failure_of_the_job_itself_is_never_asked_again(line: Line) -> None:
    body = '{"success": false, "code": "OUT_OF_MEMORY", "error": "Too big.", "details": {"job_id": "7"}}'
    line.wire.faults.append(answered("503 Service Unavailable", "Retry-After: 1", body=body))
    with pytest.raises(ServiceRefused):
        line.client.generate(PICTURE, run_async=False)
    assert len(line.wire.seen) == 1


def test_refusal_of_the_guard_is_told_whole(line: Line) -> None:
    client = AgentClient(f"http://127.0.0.1:{line.wire.port}", AGENT_ID, "another-key-0123456789abcdef")
    with pytest.raises(ServiceRefused) as caught:
        client.jobs()
    refusal = caught.value
    assert (refusal.status, refusal.code, refusal.request_id) == (401, "AUTH_INVALID", "request-7")
    assert str(refusal) == "The agent is unknown or the signature is wrong. (401 AUTH_INVALID, request request-7)"


@pytest.mark.parametrize("hours", [-9.0, 1.0])
def test_clock_that_is_off_is_set_right_once(line: Line, hours: float) -> None:
    line.service.hours_ahead = hours
    line.client.generate(PICTURE)
    assert len(line.wire.seen) == 2
    line.client.jobs()
    assert len(line.wire.seen) == 3
    assert line.pauses == []


def test_clock_is_not_led_to_another_day(line: Line) -> None:
    line.service.hours_ahead = 25
    with pytest.raises(ServiceRefused) as caught:
        line.client.jobs()
    assert (caught.value.code, len(line.wire.seen)) == ("AUTH_EXPIRED", 1)


def test_clock_is_corrected_once_for_a_request(line: Line) -> None:
    hours = itertools.count(1)

    def expired(wire: Wire, client: socket.socket, head: bytes, length: int) -> None:
        details = {"server_time": int(time.time()) + next(hours) * 3600, "tolerance_seconds": 300}
        answered("401 Unauthorized", body=json.dumps({"code": "AUTH_EXPIRED", "details": details}))(
            wire, client, head, length
        )

    line.wire.faults.extend([expired] * 3)
    with pytest.raises(ServiceRefused) as caught:
        line.client.jobs()
    assert (caught.value.code, len(line.wire.seen)) == ("AUTH_EXPIRED", 2)


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent", "304 Not Modified"])
def test_redirects_are_not_followed(line: Line, status: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.settimeout(0.2)
        port = elsewhere.getsockname()[1]
        line.wire.faults.append(answered(status, f"Location: http://127.0.0.1:{port}/api/agent/generate-3d"))
        with pytest.raises(UnexpectedAnswer, match="signed requests are not sent on"):
            line.client.generate(PICTURE)
        with pytest.raises(TimeoutError):
            elsewhere.accept()
    assert len(line.wire.seen) == 1


@pytest.mark.parametrize("body", ["<html>hello</html>", "[]", "", '{"success": true}', '{"job_id": 7, "status": "x"}'])
def test_answer_of_something_else_is_an_error(line: Line, body: str) -> None:
    line.wire.faults.append(answered("200 OK", body=body))
    with pytest.raises(UnexpectedAnswer, match="ORFEAS service"):
        line.client.status("x")


def test_endless_answer_is_not_read_to_its_end(line: Line) -> None:
    line.wire.faults.append(answered("200 OK", body=" " * (17 << 20)))
    with pytest.raises(UnexpectedAnswer, match="far longer"):
        line.client.status("x")


@pytest.mark.parametrize("job_id", ["a b", "ü", "%41", "a+b&c=d", "a?b#c", "~a;b'()*", "..%2F"])
def test_what_is_signed_is_what_is_sent(line: Line, job_id: str) -> None:
    with pytest.raises(ServiceRefused) as caught:
        line.client.status(job_id)
    assert caught.value.code == "JOB_NOT_FOUND"
    with pytest.raises(ServiceRefused) as caught:
        line.client.jobs(cursor=job_id, limit=0)
    assert caught.value.status == 500


def test_passwords_of_netrc_are_not_sent(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    line.client.jobs()
    line.client.health()
    assert not any("authorization" in head.headers for head in line.wire.seen)


def test_api_may_lie_below_a_path(line: Line) -> None:
    for path in ("/", "/api/agent", "/api/agent/"):
        url = f"http://127.0.0.1:{line.wire.port}{path}"
        AgentClient(url, AGENT_ID, line.service.api_key).jobs()
    with pytest.raises(ServiceRefused):
        AgentClient(f"http://127.0.0.1:{line.wire.port}/orfeas", AGENT_ID, line.service.api_key).jobs()
    assert line.wire.seen[-1].target == "/orfeas/api/agent/jobs"


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:5000", "ftp://x", "http://", "http://u:p@x", "http://x:y", "http://x?a=b", "http://x:99999"]
)
def test_unusable_address_is_refused_at_once(url: str) -> None:
    with pytest.raises(ClientError, match="is not the address of a service"):
        AgentClient(url, AGENT_ID, "key")


@pytest.mark.parametrize(("agent_id", "api_key"), [("", "key"), ("a b", "key"), ("a1", ""), ("a1\n", "key")])
def test_unusable_agent_is_refused_at_once(agent_id: str, api_key: str) -> None:
    with pytest.raises(ClientError, match="An agent's id"):
        AgentClient("http://127.0.0.1:1", agent_id, api_key)


def test_waiting_follows_the_service_and_ends_when_asked(line: Line) -> None:
    line.service.looks, line.service.retry_after = 4, "3"
    job = line.client.generate(PICTURE)
    line.client.wait(job.id)
    assert line.pauses == [3.0] * 4
    with pytest.raises(WaitedTooLong, match="is still processing after 0 seconds"):
        line.client.wait(line.client.generate(PICTURE).id, timeout=0)


def test_waiting_slows_down_by_itself(line: Line) -> None:
    line.service.looks, line.service.retry_after = 12, ""
    line.client.wait(line.client.generate(PICTURE).id)
    assert line.pauses == sorted(line.pauses)
    assert (line.pauses[0] < 0.5, line.pauses[-1]) == (True, 5.0)


def test_waiting_survives_a_broken_connection(line: Line) -> None:
    job = line.client.generate(PICTURE)
    line.wire.faults.extend([passed_on, reset_after(0), answer_cut(5)])
    assert line.client.wait(job.id).succeeded
    assert not line.wire.faults


OUTAGE = (reset_after(0), answered("502 Bad Gateway"), answered("503 Service Unavailable"), answered("504 Late"))


def test_waiting_sits_out_an_outage_of_minutes(line: Line) -> None:
    client = line.connect(retries=0)
    job = client.generate(PICTURE)
    line.wire.faults.extend(OUTAGE * 8)
    assert client.wait(job.id).succeeded
    assert not line.wire.faults
    assert sum(line.pauses) > 120


def test_waiting_sits_out_a_service_that_is_not_there(tmp_path: Path) -> None:
    service = TinyService(tmp_path / "data")
    pauses: list[float] = []
    with service.serving() as port:
        wires = [Wire(port)]

        def sleep(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 20:
                wires.append(Wire(port, listen_on=wires[0].port))

        with AgentClient(f"http://127.0.0.1:{wires[0].port}", AGENT_ID, service.api_key, sleep=sleep) as client:
            job = client.generate(PICTURE)
            wires[0].close()
            assert client.wait(job.id).succeeded
        wires[1].close()
    assert len(pauses) >= 20


def test_outage_that_does_not_end_names_the_job(line: Line) -> None:
    problems: list[str] = []
    client = line.connect(outage_seconds=60, on_retry=lambda problem, _: problems.append(problem))
    job = client.generate(PICTURE)
    line.wire.faults.extend(OUTAGE * 20)
    with pytest.raises(ClientError) as caught:
        client.wait(job.id)
    assert (caught.value.job_id, job.id in str(caught.value)) == (job.id, True)
    assert 30 < sum(line.pauses) <= 60
    assert len(problems) == len(line.pauses)
    assert all(job.id in problem for problem in problems)


def test_outage_lasts_no_longer_than_who_waits(line: Line) -> None:
    job = line.client.generate(PICTURE)
    line.wire.faults.extend(OUTAGE * 20)
    with pytest.raises((ServiceUnreachable, ServiceRefused)):
        line.client.wait(job.id, timeout=10)
    assert sum(line.pauses) <= 10


def test_too_many_requests_are_waited_out_as_asked(line: Line) -> None:
    job = line.client.generate(PICTURE)
    line.wire.faults.extend([answered("429 Too Many", "Retry-After: 40")] * 3)
    assert line.client.wait(job.id).succeeded
    assert [pause >= 40 for pause in line.pauses[:3]] == [True] * 3


def polled(line: Line) -> list[str]:
    """Return what the client's polls asked for; it asks for events first, of which this service has none."""
    return [head.target for head in line.wire.seen if "/status/" in head.target and "/events" not in head.target]


def test_service_is_asked_to_hold_its_answer_back(line: Line) -> None:
    """Less long than the client waits for bytes, and than its caller waits at all."""
    line.client.wait(line.client.generate(PICTURE).id)
    line.connect(timeout=(5.0, 600.0)).wait(line.client.generate(PICTURE).id)
    line.connect(timeout=(5.0, 600.0)).wait(line.client.generate(PICTURE).id, timeout=8.5)
    held = {target.partition("?")[2] for target in polled(line)}
    assert held == {"wait=18", "wait=25", "wait=8"}


def test_service_that_cannot_hold_its_answer_back_is_asked_without(line: Line) -> None:
    refused = {"success": False, "error": "Unknown field: wait.", "code": "UNKNOWN_FIELD", "details": {}}
    job = line.client.generate(PICTURE)
    unknown = {"success": False, "error": "No such address.", "code": "NOT_FOUND", "details": {}}
    line.wire.faults.append(answered("404 Not Found", body=json.dumps(unknown)))
    line.wire.faults.append(answered("400 Bad Request", body=json.dumps(refused)))
    assert line.client.wait(job.id).succeeded
    asked = ["wait=" in target for target in polled(line)]
    assert asked == [True, *[False] * (len(asked) - 1)]
    assert len(asked) > 2


def test_broken_download_goes_on_where_it_stopped(line: Line, tmp_path: Path) -> None:
    job = line.completed()
    line.wire.faults.extend([answer_cut(9 * CHUNK_BYTES + 5), reset_after(0), answer_cut(6 * CHUNK_BYTES)])
    line.client.download(str(job.download_url), tmp_path / "mesh.glb")
    assert (tmp_path / "mesh.glb").read_bytes() == PICTURE
    ranges = [head.headers.get("range") for head in line.wire.seen]
    assert ranges == [None, *(f"bytes={chunks * CHUNK_BYTES}-" for chunks in (9, 9, 15))]
    assert line.wire.seen[1].headers["if-range"].startswith('"')


def test_download_begins_again_when_the_file_is_another_one(line: Line, tmp_path: Path) -> None:
    job = line.completed()

    def cut_and_changed(wire: Wire, client: socket.socket, head: bytes, length: int) -> None:
        answer_cut(300_000)(wire, client, head, length)
        line.service.job[job.id].image = PICTURE[::-1]

    line.wire.faults.append(cut_and_changed)
    line.client.download(str(job.download_url), tmp_path / "mesh.glb")
    assert (tmp_path / "mesh.glb").read_bytes() == PICTURE[::-1]


def test_download_begins_again_when_nothing_vouches_for_the_file(line: Line, tmp_path: Path) -> None:
    job = line.completed()
    line.service.strong_etags = False
    line.wire.faults.append(answer_cut(300_000))
    line.client.download(str(job.download_url), tmp_path / "mesh.glb")
    assert (tmp_path / "mesh.glb").read_bytes() == PICTURE
    assert [head.headers.get("range") for head in line.wire.seen] == [None, None]


def leave_nothing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Give a file that is there from before, alone in its folder."""
    path = tmp_path / "meshes" / "mesh.glb"
    path.parent.mkdir()
    path.write_bytes(b"old")
    return path


def test_download_without_an_end_leaves_the_old_file(line: Line, target: Path) -> None:
    job = line.completed()
    line.wire.faults.extend([answer_cut(1000)] * 3)
    with pytest.raises(ServiceUnreachable):
        line.connect(retries=2).download(str(job.download_url), target)
    assert (target.read_bytes(), leave_nothing(target.parent)) == (b"old", ["mesh.glb"])


def test_download_shorter_than_its_content_length_is_refused(line: Line, target: Path) -> None:
    job = line.completed()
    longer = answer_changed(b"Content-Length: 1024000", b"Content-Length: 1024100")
    line.wire.faults.append(longer)
    with pytest.raises(ServiceUnreachable):
        line.connect(retries=0).download(str(job.download_url), target)
    assert (target.read_bytes(), leave_nothing(target.parent)) == (b"old", ["mesh.glb"])


@pytest.mark.parametrize("length", [b"Content-Length: 1000000", b"X-Length: gone"])
def test_download_must_have_the_size_it_should_have(line: Line, target: Path, length: bytes) -> None:
    job = line.completed()
    line.wire.faults.append(answer_changed(b"Content-Length: 1024000", length))
    with pytest.raises(UnexpectedAnswer, match="not the 1024001 that it should have"):
        line.client.download(str(job.download_url), target, size=len(PICTURE) + 1)
    assert (target.read_bytes(), leave_nothing(target.parent)) == (b"old", ["mesh.glb"])


def test_part_that_was_not_asked_for_is_refused(line: Line, target: Path) -> None:
    job = line.completed()
    wrong = answered("206 Partial Content", "Content-Range: bytes 5-9/10", body="12345")
    line.wire.faults.append(wrong)
    with pytest.raises(UnexpectedAnswer, match="a part that was not asked for"):
        line.client.download(str(job.download_url), target)
    assert (target.read_bytes(), leave_nothing(target.parent)) == (b"old", ["mesh.glb"])


def test_file_that_is_not_there_is_told(line: Line, target: Path) -> None:
    with pytest.raises(ServiceRefused) as caught:
        line.client.download("missing.glb", target)
    assert (caught.value.status, caught.value.code) == (404, "FILE_NOT_FOUND")
    assert leave_nothing(target.parent) == ["mesh.glb"]


def test_folder_is_given_the_files_own_name(line: Line, tmp_path: Path) -> None:
    job = line.completed()
    file = line.client.download(f"{job.id}.glb", tmp_path)
    assert file == tmp_path / f"{job.id}.glb"
    assert file.read_bytes() == PICTURE


def test_file_that_cannot_be_written_is_told(line: Line, tmp_path: Path) -> None:
    with pytest.raises(LocalFileError, match="cannot be written"):
        line.client.download("mesh.glb", tmp_path / "missing" / "mesh.glb")
    assert line.wire.seen == []


@pytest.mark.parametrize(
    "source",
    [
        "http://evil.example/api/agent/download/x.glb",
        "https://127.0.0.1:{port}/api/agent/download/x.glb",
        "http://127.0.0.1:{port}@evil.example/api/agent/download/x.glb",
        "http://me@127.0.0.1:{port}/api/agent/download/x.glb",
        "http://127.0.0.1:{port}1/api/agent/download/x.glb",
        "//evil.example/api/agent/download/x.glb",
        "\\\\evil.example\\api\\agent\\download\\x.glb",
        "http:\\\\evil.example/api/agent/download/x.glb",
        "/api/agent/download/../jobs",
        "/api/agent/download/..",
        "/api/agent/download/a/x.glb",
        "/api/agent/jobs/x",
        "/download/x.glb",
        "../x.glb",
        "/api/agent/download/x.glb?y=z",
        "/api/agent/download/%2e%2e",
        "/api/agent/download/",
        "file:///etc/passwd",
        "",
        "x.glb\r\nX-Evil: 1",
    ],
)
def test_no_signature_is_led_astray(line: Line, tmp_path: Path, source: str) -> None:
    with pytest.raises(UnexpectedAnswer, match="is not a download of this service"):
        line.client.download(source.format(port=line.wire.port), tmp_path / "x")
    assert line.wire.seen == []
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("sent", ["", "http://127.0.0.1:{port}"])
def test_a_link_is_fetched_signed_by_its_file_s_name(line: Line, tmp_path: Path, sent: str) -> None:
    job = line.completed()
    assert job.signed_url == job.files[0].signed_url
    url = sent.format(port=line.wire.port) + str(job.signed_url)
    assert line.client.download(url, tmp_path / "x").read_bytes() == PICTURE
    (head,) = line.wire.seen
    assert head.target == job.download_url
    assert "x-agent-signature" in head.headers
    with pytest.raises(UnexpectedAnswer, match="is not a download of this service"):
        line.client.download(f"{url}&expires=1", tmp_path / "x")


def test_files_are_fetched_here_when_the_service_is_known_by_another_address(line: Line, tmp_path: Path) -> None:
    line.service.public = "https://meshes.example"
    job = line.completed()
    assert str(job.download_url).startswith("https://meshes.example/api/agent/download/")
    for source in (job.download_url, job.signed_url):
        assert line.client.download(str(source), tmp_path / "x").read_bytes() == PICTURE
    assert {urlsplit(head.target).netloc for head in line.wire.seen} == {""}
    for source in ("http://meshes.example", "https://meshes.example:444", "https://evil.example"):
        with pytest.raises(UnexpectedAnswer, match="is not a download of this service"):
            line.connect().download(f"{source}/api/agent/download/x.glb", tmp_path / "x")
        with pytest.raises(UnexpectedAnswer, match="is not a download of this service"):
            line.client.download(f"{source}/api/agent/download/x.glb", tmp_path / "x")


def test_a_job_is_made_again_with_what_is_changed(line: Line) -> None:
    first = line.client.generate(PICTURE, seed=7, format="stl")
    second = line.client.again(first.id, seed=-1, preview=False)
    assert second.id != first.id
    made = line.service.job[second.id]
    assert made.image == PICTURE
    assert made.fields == {"format": "stl", "seed": "-1", "preview": "false", "async": "true"}


def test_a_job_is_made_again_once_whatever_was_lost(line: Line) -> None:
    first = line.client.generate(PICTURE)
    line.wire.faults.extend([answer_lost, reset_after(0)])
    line.client.again(first.id, seed=1)
    assert len(line.service.job) == 2


def test_a_link_is_an_address_for_others(line: Line) -> None:
    job = line.completed()
    assert line.client.link(job.id) == f"http://127.0.0.1:{line.wire.port}{job.signed_url}"
    assert line.client.link(job.id, "glb") == line.client.link(job.id)
    line.service.public = "https://meshes.example"
    assert line.client.link(job.id).startswith(f"https://meshes.example{job.download_url}?expires=")
    with pytest.raises(NothingToLink, match="there is no stl file that a link could be given to"):
        line.client.link(job.id, "stl")
    waiting = line.client.generate(PICTURE).id
    with pytest.raises(NothingToLink, match=f"^{waiting} is processing; there is no mesh file"):
        line.client.link(waiting)


def test_full_address_of_this_service_is_taken(line: Line, tmp_path: Path) -> None:
    job = line.completed()
    url = f"http://127.0.0.1:{line.wire.port}{job.download_url}"
    assert line.client.download(url, tmp_path / "x").read_bytes() == PICTURE


def test_key_is_in_no_message(line: Line) -> None:
    line.wire.faults.extend([reset_after(0), answered("400 No", body=BUSY)])
    messages = [repr(line.client), repr(line.client._transport)]
    for _ in range(2):
        with pytest.raises(ClientError) as caught:
            line.connect(retries=0).jobs()
        messages += [str(caught.value), repr(caught.value)]
    assert not any(line.service.api_key in message for message in messages)
