"""Bearer tokens: off by default, over https alone, an agent's rights and limits, revocable, and nowhere to be read."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from ipaddress import ip_network
from pathlib import Path
from types import MappingProxyType

import pytest
from werkzeug.test import TestResponse

from backend.auth.agents_file import add_token, revoke_tokens, set_enabled, update_agent
from backend.auth.bearer_tokens import hash_of, name_of, new_token
from backend.errors import AgentNotFound, AgentsFileError
from tests.support.agent_service import API, FORM, AgentService, agent_service, encode_form, field, image, refused

PROXY = "198.51.100.1"
MISSING, WRONG, PLAIN = (401, "AUTH_MISSING"), (401, "AUTH_INVALID"), (403, "HTTPS_REQUIRED")
CHALLENGES = ["Agent-Signature", 'Bearer realm="orfeas"']


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentService]:
    """Give a service that takes tokens, behind a proxy that it believes."""
    proxies = (ip_network(f"{PROXY}/32"),)
    folder = tmp_path_factory.mktemp("tokens")
    with agent_service(folder, bearer_tokens=True, trusted_proxies=proxies) as made:
        yield made


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentService]:
    """Give a service that takes tokens, on this machine alone."""
    with agent_service(tmp_path_factory.mktemp("here"), bearer_tokens=True) as made:
        yield made


def token_of(service: AgentService, agent: str = "ann") -> Iterator[str]:
    token = add_token(service.settings.agents_file, agent)
    yield token
    revoke_tokens(service.settings.agents_file, agent)


@pytest.fixture
def token(here: AgentService) -> Iterator[str]:
    """Give a token of ann's at the service here, revoked in the end."""
    yield from token_of(here)


@pytest.fixture
def far_token(service: AgentService) -> Iterator[str]:
    """Give a token of ann's at the service behind a proxy, revoked in the end."""
    yield from token_of(service)


def call(
    service: AgentService,
    authorization: str,
    target: str = f"{API}/me",
    method: str = "GET",
    body: bytes = b"",
    address: str = "127.0.0.1",
    others: Mapping[str, str] = MappingProxyType({}),
) -> TestResponse:
    """Send a request with a header Authorization; others : headers beside it."""
    sent = {"Authorization": authorization, **others}
    answer = service.app.test_client().open(
        target, method=method, data=body, headers=sent, environ_overrides={"REMOTE_ADDR": address}, buffered=True
    )
    return service.checked(answer)


def test_a_token_stands_for_its_agent(here: AgentService, token: str) -> None:
    answer = call(here, f"Bearer {token}")
    assert (answer.status_code, answer.get_json()["agent_id"]) == (200, "ann")
    assert {"RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"} <= set(answer.headers.keys())
    form = encode_form(field("async", "true"), image())
    sent = call(here, f"bearer {token}", f"{API}/generate-3d", "POST", form, others={"Content-Type": FORM})
    assert sent.status_code == 202
    assert here.get(f"/status/{sent.get_json()['job_id']}").status_code == 200
    assert refused(here.get(f"/status/{sent.get_json()['job_id']}", agent="bob")) == (404, "JOB_NOT_FOUND")


def test_tokens_are_off_by_default(tmp_path: Path) -> None:
    with agent_service(tmp_path) as off:
        token = add_token(off.settings.agents_file, "ann")
        answer = call(off, f"Bearer {token}")
    assert refused(answer) == MISSING
    assert answer.headers.getlist("WWW-Authenticate") == CHALLENGES[:1]


@pytest.mark.parametrize(
    ("authorization", "refusal"),
    [
        ("Bearer", MISSING),
        ("Bearer ", MISSING),
        ("Bearer {token} {token}", MISSING),
        ("Bearer {token},Bearer {token}", MISSING),
        ("Bearer tok\u00e9n", MISSING),
        ("Bearer {token}==x", MISSING),
        ("Bearer " + "x" * 513, MISSING),
        ("Basic {token}", MISSING),
        ("Bearertoken {token}", MISSING),
        ("Bearer {token}x", WRONG),
        ("Bearer {hash}", WRONG),
        ("Bearer {key}", WRONG),
        ("Bearer x", WRONG),
    ],
)
def test_what_is_no_token_is_refused(
    here: AgentService, token: str, authorization: str, refusal: tuple[int, str]
) -> None:
    given = authorization.format(token=token, hash=hash_of(token), key=here.keys["ann"])
    answer = call(here, given)
    assert refused(answer) == refusal
    assert answer.headers.getlist("WWW-Authenticate") == CHALLENGES
    assert token not in answer.text


def test_a_token_is_no_api_key(here: AgentService, token: str) -> None:
    own, here.keys["ann"] = here.keys["ann"], token
    answer = here.get("/me")
    here.keys["ann"] = own
    assert refused(answer) == WRONG


@pytest.mark.parametrize("name", ["X-Agent-ID", "X-Agent-Signature", "Signature-Input", "Signature"])
def test_token_and_signature_together_are_refused(here: AgentService, token: str, name: str) -> None:
    answer = call(here, f"Bearer {token}", others={name: "ann"})
    assert refused(answer) == MISSING
    assert answer.get_json()["details"] == {"header": name, "docs": "/docs"}
    signed = here.headers("GET", f"{API}/me")
    assert refused(call(here, f"Bearer {token}", others=signed)) == MISSING


@pytest.mark.parametrize(
    ("address", "headers", "refusal"),
    [
        ("192.0.2.7", {}, PLAIN),
        ("192.0.2.7", {"X-Forwarded-Proto": "https"}, PLAIN),
        (PROXY, {"X-Forwarded-For": "192.0.2.7"}, PLAIN),
        (PROXY, {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "http"}, PLAIN),
        (PROXY, {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https, http"}, PLAIN),
        (PROXY, {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https,"}, PLAIN),
        (PROXY, {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}, None),
        (PROXY, {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "HTTPS, https"}, None),
        ("127.0.0.1", {}, PLAIN),
    ],
)
def test_behind_a_proxy_tokens_come_over_https(
    service: AgentService, far_token: str, address: str, headers: dict[str, str], refusal: tuple[int, str] | None
) -> None:
    for given in (far_token, new_token()):
        answer = call(service, f"Bearer {given}", address=address, others=headers)
        expected = refusal or (WRONG if given != far_token else None)
        assert answer.status_code == (expected or (200, ""))[0]
        assert expected is None or refused(answer) == expected


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "Via", "X-Real-IP", "Origin"])
def test_what_comes_through_an_unknown_proxy_is_not_from_here(here: AgentService, token: str, header: str) -> None:
    answer = call(here, f"Bearer {token}", others={header: "http://192.0.2.7"})
    assert refused(answer) == PLAIN
    assert "WWW-Authenticate" not in answer.headers


def test_a_name_that_was_made_to_point_here_is_not_from_here(here: AgentService, token: str) -> None:
    assert refused(call(here, f"Bearer {token}", others={"Host": "rebound.example"})) == PLAIN


def test_tls_of_our_own_is_taken(service: AgentService, far_token: str) -> None:
    sent = {"Authorization": f"Bearer {far_token}"}
    answer = service.app.test_client().get(
        f"{API}/me", headers=sent, base_url="https://localhost", environ_overrides={"REMOTE_ADDR": "192.0.2.7"}
    )
    assert answer.status_code == 200


def test_a_token_has_its_agent_s_rights_and_no_more(here: AgentService, token: str) -> None:
    path = here.settings.agents_file
    update_agent(path, "ann", {"operations": ["status"]})
    denied = call(here, f"Bearer {token}", f"{API}/download/{'0' * 32}.glb")
    assert refused(denied) == (403, "OPERATION_NOT_ALLOWED")
    update_agent(path, "ann", {"operations": None, "allowed_ips": ["192.0.2.0/24"]})
    assert refused(call(here, f"Bearer {token}")) == (403, "IP_NOT_ALLOWED")
    update_agent(path, "ann", {"allowed_ips": None})
    set_enabled(path, "ann", False)
    assert refused(call(here, f"Bearer {token}")) == (403, "AGENT_DISABLED")
    set_enabled(path, "ann", True)
    assert call(here, f"Bearer {token}").status_code == 200


def test_tokens_and_signatures_share_one_limit(tmp_path: Path) -> None:
    with agent_service(tmp_path, bearer_tokens=True, rate_limit=3, unauthenticated_rate_limit=2) as made:
        token = add_token(made.settings.agents_file, "ann")
        assert [call(made, f"Bearer {token}").status_code for _ in range(2)] == [200, 200]
        assert made.get("/me").status_code == 200
        assert refused(call(made, f"Bearer {token}")) == (429, "RATE_LIMITED")
        assert [call(made, "Bearer x").status_code for _ in range(3)] == [401, 401, 429]


def test_a_revoked_token_is_none_and_the_others_stay(here: AgentService, token: str) -> None:
    path = here.settings.agents_file
    other = add_token(path, "ann")
    assert revoke_tokens(path, "ann", name_of(hash_of(token))) == 1
    assert refused(call(here, f"Bearer {token}")) == WRONG
    assert call(here, f"Bearer {other}").status_code == 200
    with pytest.raises(AgentsFileError, match="has no token"):
        revoke_tokens(path, "ann", name_of(hash_of(token)))
    with pytest.raises(AgentNotFound):
        add_token(path, "nobody")


def test_an_agent_has_ten_tokens_at_most(tmp_path: Path) -> None:
    with agent_service(tmp_path, bearer_tokens=True) as made:
        path = made.settings.agents_file
        tokens = [add_token(path, "ann") for _ in range(10)]
        with pytest.raises(AgentsFileError, match="has 10 tokens, the most there may be"):
            add_token(path, "ann")
        assert len(set(tokens)) == 10
        assert all(len(token) >= 43 for token in tokens)
        text = path.read_text()
        assert not any(token in text for token in tokens)
        assert all(hash_of(token) in text for token in tokens)


def test_a_token_is_in_no_log(here: AgentService, token: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        call(here, f"Bearer {token}")
        call(here, f"Bearer {token}x")
    audit = here.settings.audit_log.read_text()
    for text in (caplog.text, audit, here.app.test_client().get("/metrics").text):
        assert token[10:30] not in text
        assert hash_of(token) not in text
    assert '"agent": "ann", "verified": true' in audit
    assert '"credential": "token"' in audit


def test_metrics_are_read_by_an_admin_s_token(tmp_path: Path) -> None:
    secret = "s" * 20
    with agent_service(tmp_path, bearer_tokens=True, metrics_allowed=(), metrics_token=secret) as made:
        token = add_token(made.settings.agents_file, "ann")
        assert refused(call(made, f"Bearer {token}", "/metrics")) == (403, "OPERATION_NOT_ALLOWED")
        update_agent(made.settings.agents_file, "ann", {"operations": ["admin"]})
        assert call(made, f"Bearer {token}", "/metrics").status_code == 200
        assert call(made, f"Bearer {secret}", "/metrics").status_code == 200
        assert refused(call(made, "Bearer other", "/metrics")) == (403, "IP_NOT_ALLOWED")
