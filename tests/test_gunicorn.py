"""A real gunicorn: requests as they come over the wire, what is no request, and how it starts and stops."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from backend.auth.agents_file import add_agent
from tests.support.hostile import FORM, Part, encode_form, image_form
from tests.support.hostile_pictures import good_png
from tests.support.own_process import printed
from tests.support.served import Served
from tests.support.server_process import GUNICORN, RawAnswer, ServerProcess, connected, raw_request, read_answer
from tests.support.workshop import eventually

JOBS = "/api/agent/jobs"
GENERATE = "/api/agent/generate-3d"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made = Served(tmp_path_factory.mktemp("served"))
    with made.server:
        yield made


@pytest.mark.parametrize(
    ("target", "refusal"),
    [
        (JOBS, None),
        (f"{JOBS}?", None),
        # A query that no call knows is refused only once its signature holds.
        (f"{JOBS}?b=1&a=2", "UNKNOWN_FIELD"),
        (f"{JOBS}?x=%2F&y=a%20b+c&z=%e9", "UNKNOWN_FIELD"),
        (f"{JOBS}?x=/&y=?&&=", "UNKNOWN_FIELD"),
        (f"{JOBS}?x=~%7E%7e", "UNKNOWN_FIELD"),
        ("/api/agent/%6Aobs?limit=1", None),
        ("/api%2Fagent/jobs", None),
        ("//api/agent/jobs", None),
    ],
)
def test_signature_holds_for_the_target_as_it_is_sent(served: Served, target: str, refusal: str | None) -> None:
    answer = served.get(target)
    assert (answer.status, answer.json.get("code")) == ((400, refusal) if refusal else (200, None))


@pytest.mark.parametrize(
    ("signed", "sent"),
    [
        (f"{JOBS}?a=2&b=1", f"{JOBS}?b=1&a=2"),
        (f"{JOBS}?x=%20", f"{JOBS}?x=+"),
        (f"{JOBS}?x=%2F", f"{JOBS}?x=/"),
        (f"{JOBS}?x=%2F", f"{JOBS}?x=%2f"),
        (f"{JOBS}?x=~", f"{JOBS}?x=%7E"),
        (f"{JOBS}?x=\u00e9", f"{JOBS}?x=%C3%A9"),
        (JOBS, "/api/agent/%6Aobs"),
        (JOBS, f"{JOBS}?x="),
        (JOBS, "//api/agent/jobs"),
    ],
)
def test_target_that_only_means_the_same_is_not_signed(served: Served, signed: str, sent: str) -> None:
    assert served.get(signed, sent).refusal == (401, "AUTH_INVALID")


def test_target_with_the_server_s_name_is_signed_without_it(served: Served) -> None:
    assert served.get(JOBS, f"http://localhost{JOBS}").status == 200


def test_encoded_slash_is_part_of_a_name(served: Served) -> None:
    assert served.get("/api/agent/status/a%2Fb").refusal == (404, "NOT_FOUND")
    assert served.get("/api/agent/download/..%2F..%2Fagents.json").refusal == (404, "NOT_FOUND")
    assert served.get("/api/agent/download/../../agents.json").refusal == (404, "NOT_FOUND")


def chunked(body: bytes, size: int = 1000) -> bytes:
    parts = [body[k : k + size] for k in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def test_body_in_chunks_is_verified_and_taken(served: Served) -> None:
    body = image_form(good_png())
    headers = {**served.headers("POST", GENERATE, body), "Content-Type": FORM, "Transfer-Encoding": "chunked"}
    head = raw_request("POST", GENERATE, headers)
    assert served.server.ask(head + chunked(body)).status == 202
    headers = {**served.headers("POST", GENERATE, body), "Content-Type": FORM, "Transfer-Encoding": "chunked"}
    head = raw_request("POST", GENERATE, headers)
    assert served.server.ask(head + chunked(body + b"x")).refusal == (401, "AUTH_BODY_MISMATCH")


def test_signed_request_inside_another_s_body_is_not_a_request(served: Served) -> None:
    inner = raw_request("GET", JOBS, served.headers("GET", JOBS))
    outer = raw_request("GET", JOBS, {**served.headers("GET", JOBS, inner)}, inner)
    with connected(served.server.port) as (connection, stream):
        connection.sendall(outer + raw_request("GET", "/nothing", {}))
        assert read_answer(stream).status == 200
        assert read_answer(stream).refusal == (404, "NOT_FOUND")


GET = b"GET /api/agent/health HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /api/agent/batch HTTP/1.1\r\nHost: a\r\n"
NOT_REQUESTS = {
    "two lengths": (POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400, "BAD_FRAMING"),
    "length and chunks": (
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "BAD_FRAMING",
    ),
    "length that is no number": (POST + b"Content-Length: +3\r\n\r\nabc", 400, "BAD_FRAMING"),
    "negative length": (POST + b"Content-Length: -1\r\n\r\n", 400, "BAD_FRAMING"),
    "unknown coding": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501, "UNSUPPORTED_TRANSFER_CODING"),
    "chunks twice": (
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "BAD_FRAMING",
    ),
    "folded header": (GET + b"X-A: b\r\n c\r\n\r\n", 400, "BAD_REQUEST"),
    "space before colon": (GET + b"X-Agent-ID : a\r\n\r\n", 400, "BAD_REQUEST"),
    "header without name": (GET + b": a\r\n\r\n", 400, "BAD_REQUEST"),
    "zero byte": (GET + b"X-A: b\x00c\r\n\r\n", 400, "BAD_REQUEST"),
    "no version": (b"GET /api/agent/health\r\n\r\n", 400, "BAD_REQUEST"),
    "two targets": (b"GET /api/agent/health /b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "BAD_REQUEST"),
    "target in UTF-8": ("GET /api/agent/jobs?x=\u00e9 HTTP/1.1\r\nHost: a\r\n\r\n".encode(), 400, "BAD_REQUEST"),
    "target in Latin-1": (b"GET /api/agent/jobs?x=\xe9 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "BAD_REQUEST"),
    "old protocol": (b"GET /api/agent/health HTTP/3.0\r\nHost: a\r\n\r\n", 400, "BAD_REQUEST"),
    "long target": (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414, "URI_TOO_LONG"),
    "long header": (GET + b"X-A: " + b"a" * 9000 + b"\r\n\r\n", 431, "HEADERS_TOO_LARGE"),
    "many headers": (GET + b"X-A: b\r\n" * 100 + b"\r\n", 431, "HEADERS_TOO_LARGE"),
}


@pytest.mark.parametrize("name", NOT_REQUESTS)
def test_what_is_no_request_is_refused_in_the_api_s_form(served: Served, name: str) -> None:
    request, status, code = NOT_REQUESTS[name]
    answer = served.server.ask(request)
    assert answer.refusal == (status, code)
    assert answer.json["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["connection"] == "close"


def test_header_with_an_underscore_is_no_signing_header(served: Served) -> None:
    headers = {name.replace("-", "_"): value for name, value in served.headers("GET", JOBS).items()}
    assert served.server.ask(raw_request("GET", JOBS, headers)).refusal == (401, "AUTH_MISSING")


@pytest.mark.parametrize("name", ["SCRIPT_NAME", "SCRIPT-NAME", "PATH_INFO", "X-Forwarded-Prefix"])
def test_no_header_says_where_the_service_is(served: Served, name: str) -> None:
    answer = served.server.ask(raw_request("GET", "/api/agent/health", {name: "/api"}))
    assert answer.status == 200


def test_connection_is_kept_for_the_next_request(served: Served) -> None:
    with connected(served.server.port) as (connection, stream):
        for _ in range(3):
            connection.sendall(raw_request("GET", JOBS, served.headers("GET", JOBS)))
            assert read_answer(stream).status == 200


@pytest.mark.slow
def test_what_there_is_no_room_for_is_told_so_or_makes_room(tmp_path: Path) -> None:
    made = Served(tmp_path, WEB_WAITING="16", GUNICORN_CMD_ARGS="--worker-connections 64")
    body = image_form(good_png())
    with made.server as server, ExitStack() as stack:
        for _ in range(16):
            connection, _ = stack.enter_context(connected(server.port))
            headers = {**made.headers("POST", GENERATE, body), "Content-Type": FORM, "Content-Length": str(len(body))}
            connection.sendall(raw_request("POST", GENERATE, headers))
        eventually(lambda: sent(made, body).refusal == (503, "SERVER_BUSY"))
        assert sent(made, body).headers["retry-after"] == "5"
        # More than there may be: those that have been idle longest are hung up on.
        silent = [stack.enter_context(connected(server.port)) for _ in range(100)]
        assert made.get(JOBS).status == 200
        assert silent[0][1].read() == b""
        assert sent(made, body).refusal == (503, "SERVER_BUSY")


def sent(served: Served, body: bytes) -> RawAnswer:
    """Return the answer to an upload of its own."""
    headers = {**served.headers("POST", GENERATE, body), "Content-Type": FORM}
    return served.server.ask(raw_request("POST", GENERATE, headers, body))


@pytest.mark.slow
def test_silent_callers_keep_no_threads_and_a_flood_of_what_is_no_request_is_summed_in_the_log(tmp_path: Path) -> None:
    made = Served(tmp_path, WEB_THREADS="2")
    request, status, code = NOT_REQUESTS["two lengths"]
    with made.server as server:
        with ExitStack() as stack:
            for _ in range(2):
                connection, _ = stack.enter_context(connected(server.port))
                connection.sendall(b"GET /api/agent/health HTTP/1.1\r\nX-Slow")
            assert server.ask(raw_request("GET", "/api/agent/health", {})).status == 200
        for _ in range(30):
            assert server.ask(request).refusal == (status, code)
        server.process.terminate()
        assert server.ended() == 0
    messages = [json.loads(line)["message"] for line in server.lines]
    first, rest = [message for message in messages if "Not a request: 400 Content-Length" in message]
    assert rest == f"{first} 29 more in 60 s"


def test_every_line_of_the_log_is_json_with_the_request_s_id(served: Served) -> None:
    headers = {**served.headers("GET", JOBS), "X-Request-ID": "find-me"}
    served.server.ask(raw_request("GET", f"{JOBS}?secret=1", headers))
    eventually(lambda: "find-me" in served.server.output)
    lines = [json.loads(line) for line in served.server.lines]
    (found,) = [line for line in lines if line.get("request_id") == "find-me"]
    assert (found["logger"], found["status"], found["code"]) == ("backend.requests", 401, "AUTH_INVALID")
    assert "secret" not in served.server.output
    assert served.key not in served.server.output


@pytest.mark.slow
@pytest.mark.parametrize("pid", ["arbiter", "worker"])
def test_stopping_server_promises_what_it_cannot_wait_for(tmp_path: Path, pid: str) -> None:
    made = Served(tmp_path)
    body = encode_form(Part("image", good_png(), "cat.png", "image/png"))
    headers = {**made.headers("POST", GENERATE, body), "Content-Type": FORM}
    with made.server as server:
        with connected(server.port) as (connection, stream):
            connection.sendall(raw_request("POST", GENERATE, headers, body))
            eventually(lambda: queued(made) == 1)
            (psutil.Process(server.process.pid).children()[0] if pid == "worker" else server.process).terminate()
            answer = read_answer(stream)
        assert (answer.status, answer.json["status"]) == (202, "queued")
        if pid == "arbiter":
            assert server.ended() == 0
        else:
            # A new one takes its place.
            eventually(lambda: made.get(f"/api/agent/status/{answer.json['job_id']}").status == 200)
    assert '"level": "ERROR"' not in server.output


def queued(served: Served) -> int:
    answer = served.server.ask(raw_request("GET", "/api/agent/health", {}))
    return int(answer.json["queue_size"])


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        ((), {"AGENTS_FILE": "/nowhere/agents.json"}, "There is no agents file"),
        (("-w", "2"), {"WORKER_ENABLED": "true"}, "would each load the model"),
        (("-w", "2"), {}, "must share limits and nonces"),
        ((), {"PORT": "many"}, "PORT must be a whole number"),
        ((), {"AGENT_AUTH_ENABLED": "false", "HOST": "0.0.0.0"}, "AGENT_AUTH_ENABLED=false would let anyone"),  # noqa: S104
    ],
)
def test_server_that_cannot_start_says_why(
    tmp_path: Path, arguments: tuple[str, ...], environment: dict[str, str], sentence: str
) -> None:
    add_agent(tmp_path / "agents.json", "ann")
    with ServerProcess((*GUNICORN, *arguments), tmp_path, **environment) as server:
        assert server.ended() != 0
        assert sentence in server.output
        assert "Traceback" not in server.output


def test_what_is_served_is_imported_before_its_processes_are_made() -> None:
    """They share its memory; a thread would not live on in them."""
    program = (
        "import sys, threading; from types import SimpleNamespace; from backend.serve import gunicorn_conf\n"
        "app = SimpleNamespace(app_uri='backend.main:create_app()')\n"
        "print('backend.main' in sys.modules); gunicorn_conf.when_ready(SimpleNamespace(app=app))\n"
        "print('backend.main' in sys.modules, 'torch' in sys.modules, threading.active_count())"
    )
    assert printed(program) == "False\nTrue False 1\n"
