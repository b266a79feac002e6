"""The guard: each refusal with its status and code, in the contract's order; bodies; addresses; the audit log."""

from __future__ import annotations

import functools
import http.client
import json
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, request
from werkzeug.test import TestResponse

from backend.agent_auth import AgentGuard, require_agent_token, sign_request, verify
from backend.auth.agents import MAX_KEYS, AgentConfig
from backend.auth.agents_file import add_agent
from backend.auth.client_address import client_address
from backend.auth.hmac_signing import SignedRequest
from backend.auth.nonces import MemoryNonceStore
from backend.config import Settings
from backend.errors import AuthInvalid, ConfigurationError, ServiceError
from orfeas_client.signing import digest_body, hmac_hex
from tests.support.guarded_service import (
    AGENT,
    FAULTS,
    KEY,
    NOW,
    OLD_KEY,
    PAIRS,
    Service,
    Unreachable,
    answer,
    generate,
    render,
    set_up_faults,
)
from tests.support.listening import listening


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path)


def test_signed_request_reaches_the_view_with_its_body(service: Service) -> None:
    response = service.call(body=b"hello")
    assert response.status_code == 200
    assert response.get_json() == {"agent": "a1", "body": "hello", "size": 5, "digest": digest_body(b"hello")}


def test_request_without_body_is_one_of_an_empty_body(service: Service) -> None:
    assert service.call("GET").get_json()["body"] == ""


def test_every_accepted_key_signs_and_no_other(service: Service) -> None:
    assert service.call(key=OLD_KEY).status_code == 200
    assert answer(service.call(key="another-key-0123456789abcdef")) == (401, "AUTH_INVALID")


def faulty_call(service: Service, faults: set[str]) -> TestResponse:
    """Return a request that is wrong in each of these ways at once."""
    set_up_faults(service, faults)
    changed = {"nonce": "nonce-seen"} if "replayed" in faults else {}
    if "expired" in faults:
        changed["timestamp"] = str(NOW - 301)
    if "invalid" in faults:
        changed["key"] = "another-key-0123456789abcdef"
    headers = service.headers("POST", "/generate", b"hello", **changed)
    if "missing" in faults:
        del headers["X-Agent-Nonce"]
    return service.client.post("/generate", data=b"hallo" if "body" in faults else b"hello", headers=headers)


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_has_its_status_and_code(service: Service, fault: str) -> None:
    assert faulty_call(service, set()).status_code == 200
    assert answer(faulty_call(service, {fault})) == FAULTS[fault]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_of_two_faults_the_earlier_one_is_answered(service: Service, first: str, second: str) -> None:
    assert answer(faulty_call(service, {first, second})) == FAULTS[first]


def test_unknown_agent_is_answered_like_a_wrong_signature(service: Service) -> None:
    unknown = service.call(agent_id="a2", nonce="nonce-same")
    wrong = service.call(key="another-key-0123456789abcdef", nonce="nonce-same")
    assert answer(unknown) == answer(wrong) == (401, "AUTH_INVALID")
    # Each is shown its own text, in which the id stands.
    assert unknown.data.replace(b"a2", b"a1") == wrong.data


@pytest.mark.parametrize("agent", [None, replace(AGENT, api_keys=(KEY,)), AGENT])
def test_unknown_agent_costs_as_many_comparisons(agent: AgentConfig | None, monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0
    real = hmac_hex

    def counted(key: str, text: bytes) -> str:
        nonlocal made
        made += 1
        return real(key, text)

    monkeypatch.setattr("backend.auth.hmac_signing.hmac_hex", counted)
    signed = SignedRequest("GET", "/", "", "a1", str(NOW), "nonce-01", digest_body(b""), "0" * 64)
    with pytest.raises(AuthInvalid):
        verify(signed, agent, datetime.fromtimestamp(NOW, UTC), 300, ["dummy-key-0123456789abcdef"] * MAX_KEYS)
    assert made == MAX_KEYS


def test_dummy_key_is_nobody_s_key() -> None:
    dummy_key = "dummy-key-0123456789abcdef"
    signed = SignedRequest("GET", "/", "", "a1", str(NOW), "nonce-01", digest_body(b""), "")
    signature = sign_request(dummy_key, "GET", "/", "", "a1", NOW, "nonce-01", digest_body(b""))
    for agent in (None, AGENT):
        with pytest.raises(AuthInvalid):
            verify(replace(signed, signature=signature), agent, datetime.fromtimestamp(NOW, UTC), 300, [dummy_key] * 3)


@pytest.mark.parametrize(("off", "expected"), [(-300, 200), (300, 200), (-301, 401), (301, 401)])
def test_timestamp_may_be_five_minutes_off(service: Service, off: int, expected: int) -> None:
    assert service.call(timestamp=str(NOW + off)).status_code == expected


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/generate?x=1"),
        ("POST", "/generate?x=2"),
        ("POST", "/generate"),
        ("POST", "/generate?x=%31"),
        ("POST", "/generate?x=1&"),
        ("POST", "/%67enerate?x=1"),
        ("POST", "/batch?x=1"),
    ],
)
def test_signature_holds_for_the_request_as_it_was_sent(service: Service, method: str, target: str) -> None:
    headers = service.headers("POST", "/generate?x=1")
    assert answer(service.client.open(target, method=method, headers=headers)) == (401, "AUTH_INVALID")


@pytest.mark.parametrize("name", ["X-Agent-ID", "X-Agent-Timestamp", "X-Agent-Nonce", "X-Agent-Content-SHA256"])
def test_signature_holds_for_each_header(service: Service, name: str) -> None:
    service.agents.known["a2"] = replace(AGENT, agent_id="a2", api_keys=("second-key-0123456789abcdef",))
    headers = service.headers("POST", "/generate")
    other = service.headers("POST", "/generate", b"x", agent_id="a2", timestamp=str(NOW + 1))
    response = service.client.post("/generate", headers={**headers, name: other[name]})
    assert answer(response) == (401, "AUTH_INVALID")


def test_nonce_serves_once_for_each_agent_until_its_time_is_over(service: Service) -> None:
    service.agents.known["a2"] = replace(AGENT, agent_id="a2")
    assert service.call(nonce="nonce-same").status_code == 200
    assert service.call(nonce="nonce-same", agent_id="a2").status_code == 200
    service.now += 600
    assert answer(service.call(nonce="nonce-same")) == (401, "AUTH_REPLAYED")
    service.now += 1
    assert service.call(nonce="nonce-same").status_code == 200


def test_request_can_never_be_replayed_while_its_timestamp_lasts(service: Service) -> None:
    headers = service.headers("POST", "/generate", timestamp=str(NOW + 300))
    assert service.client.post("/generate", headers=headers).status_code == 200
    service.now += 600
    assert answer(service.client.post("/generate", headers=headers)) == (401, "AUTH_REPLAYED")
    service.now += 1
    assert answer(service.client.post("/generate", headers=headers)) == (401, "AUTH_EXPIRED")


def test_one_of_many_threads_uses_a_nonce() -> None:
    store, now = MemoryNonceStore(), datetime.fromtimestamp(NOW, UTC)
    ttl = timedelta(seconds=600)
    with ThreadPoolExecutor(8) as pool:
        admitted = list(pool.map(lambda k: store.remember("a1", f"n{k % 100}", now, ttl), range(800)))
    assert sum(admitted) == 100


def test_memory_forgets_nonces_whose_time_is_over() -> None:
    store, now = MemoryNonceStore(), datetime.fromtimestamp(NOW, UTC)
    for k in range(1000):
        store.remember("a1", f"n{k}", now + timedelta(seconds=k), timedelta(seconds=10))
    assert len(store) == 11


def test_nonce_is_not_spent_by_a_request_that_was_refused_before(service: Service) -> None:
    headers = service.headers("POST", "/generate", nonce="nonce-kept")
    assert service.client.post("/generate", headers={**headers, "X-Agent-Signature": "0" * 64}).status_code == 401
    assert service.client.post("/generate", headers=headers).status_code == 200


def test_rate_and_batch_rate_hold(tmp_path: Path) -> None:
    service = Service(tmp_path, replace(AGENT, rate_limit=4, batch_rate_limit=2))
    codes = [service.call(target="/batch").status_code for _ in range(3)]
    codes += [service.call(target="/generate").status_code for _ in range(2)]
    assert codes == [200, 200, 429, 200, 429]


def test_refused_rate_says_when_to_come_again(tmp_path: Path) -> None:
    service = Service(tmp_path, replace(AGENT, rate_limit=1))
    service.call()
    response = service.call()
    assert answer(response) == (429, "RATE_LIMITED")
    assert 1 <= response.get_json()["retry_after"] <= 60


def test_unreachable_nonces_say_when_to_come_again(service: Service) -> None:
    service.nonces = Unreachable()
    assert service.call().get_json()["retry_after"] == 7


def test_flood_of_refusals_is_stopped_and_holds_no_agent_back(tmp_path: Path) -> None:
    service = Service(tmp_path, unauthenticated_rate_limit=2)
    assert [service.client.post("/generate").status_code for _ in range(3)] == [401, 401, 429]
    assert service.call().status_code == 200


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("198.51.100.7", "", "198.51.100.7"),
        ("198.51.100.7", "203.0.113.9", "198.51.100.7"),
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "192.0.2.1, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "192.0.2.1, nonsense, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9:4711", "203.0.113.9"),
        ("10.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
        ("::ffff:10.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("fe80::1%eth0", "", "fe80::1"),
        ("", "203.0.113.9", "None"),
    ],
)
def test_client_is_the_nearest_address_that_is_no_believed_proxy(peer: str, forwarded: str, expected: str) -> None:
    assert str(client_address(peer, forwarded, [ip_network("10.0.0.0/8")])) == expected


@pytest.mark.parametrize(
    ("proxies", "forwarded", "expected"),
    [
        ((), "192.0.2.1", 403),
        ((ip_network("127.0.0.1"),), "192.0.2.1", 200),
        ((ip_network("127.0.0.1"),), "192.0.2.1, 198.51.100.1", 403),
        ((ip_network("127.0.0.1"),), "", 403),
    ],
)
def test_proxy_is_believed_only_when_it_is_configured(
    tmp_path: Path, proxies: tuple[Any, ...], forwarded: str, expected: int
) -> None:
    agent = replace(AGENT, allowed_ips=(ip_network("192.0.2.0/24"),))
    service = Service(tmp_path, agent, trusted_proxies=proxies)
    headers = {**service.headers("POST", "/generate"), "X-Forwarded-For": forwarded}
    assert service.client.post("/generate", headers=headers).status_code == expected


def test_audit_has_one_line_for_each_guarded_request(service: Service) -> None:
    service.call(body=b"hello")
    service.call(key=OLD_KEY, target="/status/x?secret=sesame", method="GET")
    service.client.post("/generate")
    service.call(agent_id="a9")
    service.call(key="another-key-0123456789abcdef")
    service.client.get("/open")
    service.client.get("/nowhere")
    lines = service.audited()
    fields = ("agent", "verified", "operation", "outcome", "status", "address", "method", "path")
    assert [tuple(line[name] for name in fields) for line in lines] == [
        ("a1", True, "generate", "admitted", 200, "127.0.0.1", "POST", "/generate"),
        ("a1", True, "status", "admitted", 200, "127.0.0.1", "GET", "/status/x"),
        ("", False, "generate", "AUTH_MISSING", 401, "127.0.0.1", "POST", "/generate"),
        ("", False, "generate", "AUTH_INVALID", 401, "127.0.0.1", "POST", "/generate"),
        ("a1", False, "generate", "AUTH_INVALID", 401, "127.0.0.1", "POST", "/generate"),
    ]
    assert len({line["request_id"] for line in lines}) == 5
    assert "sesame" not in service.settings.audit_log.read_text()


def test_a_flood_is_summed_in_the_audit(tmp_path: Path) -> None:
    service = Service(tmp_path, unauthenticated_rate_limit=5)
    codes = [service.client.post("/generate").status_code for _ in range(60)]
    assert codes == [401] * 5 + [429] * 55
    assert [line["outcome"] for line in service.audited()] == ["AUTH_MISSING"] * 5 + ["RATE_LIMITED"]
    service.guard.write_audit_sums(all_of_them=True)
    assert service.audited()[-1]["count"] == 54


WRONG_KEY = "another-key-0123456789abcdef"


@pytest.mark.parametrize("agent_id", ["a1", "a9"])
def test_a_wrong_signature_shows_the_text_that_was_to_be_signed_for_known_and_unknown_ids(
    service: Service, agent_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    target = "/status/x%20y?a=%20b"
    with caplog.at_level(logging.DEBUG):
        response = service.call("GET", target, agent_id=agent_id, key=WRONG_KEY, nonce="nonce-wrong")
    assert answer(response) == (401, "AUTH_INVALID")
    digest = digest_body(b"")
    text = "\n".join(["v1", "GET", "/status/x%20y", "a=%20b", agent_id, str(NOW), "nonce-wrong", digest])
    assert response.get_json()["details"] == {"canonical_text": text}
    for secret in ("nonce-wrong", digest, "a=%20b"):
        assert secret not in caplog.text
        assert secret not in service.settings.audit_log.read_text()


def test_what_a_wrong_signature_shows_is_bounded(service: Service) -> None:
    long = service.call("GET", f"/status/x?a={'b' * 5000}", key=WRONG_KEY).get_json()["details"]
    assert long["truncated"] is True
    assert len(long["canonical_text"].encode()) == 2048
    assert long["canonical_text"].startswith("v1\nGET\n/status/x\na=bbb")


def test_bytes_that_are_no_text_are_shown_as_such_and_control_characters_not_at_all(service: Service) -> None:
    headers = service.headers("GET", "/status/x")
    raw = {"RAW_URI": "/status/\xff\xe4\xb8\xad"}
    response = service.client.get("/status/x", headers=headers, environ_overrides=raw)
    assert response.get_json()["details"]["canonical_text"].startswith("v1\nGET\n/status/\\xff\u4e2d\n\na1\n")
    for target in ("/status/x\x01", "/status/x\n", "/status/x y"):
        response = service.client.get("/status/x", headers=headers, environ_overrides={"RAW_URI": target})
        assert answer(response) == (401, "AUTH_INVALID")
        assert response.get_json()["details"] == {}


def test_what_a_wrong_signature_shows_is_under_the_limit_for_refused_requests(tmp_path: Path) -> None:
    service = Service(tmp_path, unauthenticated_rate_limit=2)
    details = [service.call(key=WRONG_KEY).get_json()["details"] for _ in range(4)]
    assert ["canonical_text" in shown for shown in details] == [True, True, False, False]


@pytest.mark.parametrize(
    "header", ["X-Agent-ID", "X-Agent-Timestamp", "X-Agent-Nonce", "X-Agent-Content-SHA256", "X-Agent-Signature"]
)
def test_a_signing_header_that_comes_twice_is_malformed(service: Service, header: str) -> None:
    headers = service.headers("POST", "/generate")
    twice = [*headers.items(), (header, headers[header])]
    response = service.client.post("/generate", headers=twice)
    assert answer(response) == (401, "AUTH_MISSING")


def test_requests_that_follow_count_apart_where_the_agent_has_a_limit_for_them(service: Service) -> None:
    service.agents.known["a1"] = replace(AGENT, rate_limit=2, status_rate_limit=3)
    assert [service.call("GET", "/status/x").status_code for _ in range(4)] == [200, 200, 200, 429]
    assert [service.call().status_code for _ in range(3)] == [200, 200, 429]


def test_a_service_s_clock_that_was_set_back_admits_nothing_twice(service: Service) -> None:
    captured = service.headers("POST", "/generate")
    assert service.client.post("/generate", headers=captured).status_code == 200
    service.now += 3600
    assert [service.call().status_code for _ in range(20)] == [200] * 20
    service.now -= 3600
    refused = service.client.post("/generate", headers=captured)
    assert answer(refused) == (401, "AUTH_EXPIRED")
    assert refused.get_json()["details"] == {"server_time": NOW + 3300, "tolerance_seconds": 300}


def test_audit_never_holds_a_key_or_a_signature(service: Service) -> None:
    headers = service.headers("POST", "/generate")
    service.client.post("/generate", headers=headers)
    for misplaced in (KEY, headers["X-Agent-Signature"]):
        service.client.post("/generate", headers={**headers, "X-Agent-ID": misplaced})
    text = service.settings.audit_log.read_text()
    assert len(text.splitlines()) == 3
    assert KEY not in text
    assert headers["X-Agent-Signature"] not in text


def test_audit_records_a_view_that_fails(service: Service) -> None:
    def fail() -> str:
        raise LookupError

    service.app.add_url_rule("/fail", "fail", require_agent_token("admin")(fail))
    service.agents.known["a1"] = replace(AGENT, operations=frozenset({"admin"}))
    assert service.call("GET", "/fail").status_code == 500
    (line,) = service.audited()
    assert (line["outcome"], line["status"]) == ("admitted", 500)


def test_guard_comes_before_other_decorators_of_a_view(service: Service) -> None:
    parsed: list[bytes] = []

    def parsing(view: Callable[[], str]) -> Callable[[], str]:
        @functools.wraps(view)
        def inner() -> str:
            parsed.append(request.get_data())
            return view()

        return inner

    @parsing
    @require_agent_token("generate")
    def view() -> str:
        return "seen"

    service.app.add_url_rule("/parsed", "parsed", view, methods=["POST"])
    assert service.client.post("/parsed", data=b"evil").status_code == 401
    assert parsed == []
    assert service.call(target="/parsed", body=b"good").status_code == 200
    assert parsed == [b"good"]
    assert len(service.audited()) == 2


def test_decorator_guards_where_its_mark_is_lost(service: Service) -> None:
    guarded = require_agent_token("generate")(lambda: "seen")
    service.app.add_url_rule("/bare", "bare", lambda: str(guarded()), methods=["POST"])
    assert service.client.post("/bare").status_code == 401
    assert service.call(target="/bare").status_code == 200


def test_admission_for_one_operation_is_none_for_another(service: Service) -> None:
    service.agents.known["a1"] = replace(AGENT, operations=frozenset({"generate"}))
    view = require_agent_token("generate")(require_agent_token("admin")(lambda: "seen"))
    service.app.add_url_rule("/both", "both", view, methods=["POST"])
    assert answer(service.call(target="/both")) == (403, "OPERATION_NOT_ALLOWED")


def test_admission_ends_with_its_request(service: Service) -> None:
    with service.app.app_context():
        assert service.call().status_code == 200
        assert service.client.post("/generate").status_code == 401


def test_options_and_wrong_methods_need_no_signature(service: Service) -> None:
    assert service.client.options("/batch").status_code == 200
    assert service.client.get("/batch").status_code == 405


def test_unknown_operation_is_refused_when_the_view_is_made() -> None:
    with pytest.raises(ConfigurationError, match="There is no operation 'fly'"):
        require_agent_token("fly")


def test_view_without_a_guard_is_never_reached() -> None:
    app = Flask("bare")
    app.register_error_handler(ServiceError, render)
    app.add_url_rule("/", "index", require_agent_token("generate")(lambda: "seen"))
    assert answer(app.test_client().get("/")) == (500, "CONFIGURATION_ERROR")


def test_server_that_hides_the_target_is_refused(service: Service) -> None:
    headers = service.headers("POST", "/generate")
    hidden = {"RAW_URI": "", "REQUEST_URI": ""}
    response = service.client.post("/generate", headers=headers, environ_overrides=hidden)
    assert answer(response) == (500, "CONFIGURATION_ERROR")


@pytest.mark.parametrize(("peer", "expected"), [("127.0.0.1", 200), ("::1", 200), ("192.0.2.1", 403), ("", 403)])
def test_without_signatures_only_this_machine_calls(tmp_path: Path, peer: str, expected: int) -> None:
    service = Service(tmp_path, auth_enabled=False)
    response = service.client.post("/generate", data=b"hello", environ_overrides={"REMOTE_ADDR": peer})
    assert response.status_code == expected
    if expected == 200:
        assert response.get_json()["agent"] == "local"


def test_guard_of_the_settings_reads_their_agents_file(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, rate_limit=1)
    key = add_agent(settings.agents_file, "a1")
    helper = Service(tmp_path / "other")
    app = Flask("whole")
    app.register_error_handler(ServiceError, render)
    app.add_url_rule("/generate", "generate", generate, methods=["POST"])
    now = datetime.fromtimestamp(helper.now, UTC)
    AgentGuard.from_settings(settings, MemoryNonceStore(), lambda: now).init_app(app)
    codes = [
        app.test_client().post("/generate", headers=helper.headers("POST", "/generate", key=key)).status_code
        for _ in range(2)
    ]
    assert codes == [200, 429]
    assert settings.audit_log.exists()


@pytest.fixture
def port(service: Service) -> Iterator[int]:
    """Give the port of a real server in front of the service."""
    with listening(service.app) as made:
        yield made


@pytest.mark.parametrize("target", ["/status/a%2Fb%20c?x=%20b&y=a+b", "/status/%C3%A4%3F?", "/status/x?a=1?b=2"])
def test_real_server_passes_the_target_as_it_was_sent(service: Service, port: int, target: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", target, headers=service.headers("GET", target))
    response = connection.getresponse()
    assert (response.status, json.load(response).keys()) == (200, {"name", "query"})
    changed = target.replace("%20", "+").replace("%C3%A4", "%c3%a4").replace("a=1", "a=%31")
    headers = service.headers("GET", target)
    connection.close()
    connection.request("GET", changed, headers=headers)
    assert connection.getresponse().status == 401
    connection.close()


def test_real_server_takes_a_chunked_body(service: Service, port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = service.headers("POST", "/generate", b"hello")
    connection.request("POST", "/generate", body=iter([b"hel", b"lo"]), headers=headers, encode_chunked=True)
    response = connection.getresponse()
    assert (response.status, json.load(response)["body"]) == (200, "hello")
    connection.close()
