"""Signed links: good for one file and a while, to whoever has them; whatever is changed on one is found."""

from __future__ import annotations

import io
import logging
import re
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from werkzeug.test import TestResponse

from backend.auth.agents_file import add_agent, remove_agent, set_enabled, update_agent
from backend.auth.link_keys import SqlLinkKeys
from backend.errors import StoreUnavailable
from backend.jobs.janitor import Janitor
from orfeas_client.signing import hmac_hex
from tests.support.agent_service import API, AgentService, agent_service, field, image, refused
from tests.support.workshop import eventually

INVALID, EXPIRED, GONE = (403, "LINK_INVALID"), (403, "LINK_EXPIRED"), (410, "EXPIRED")
LONG = 500_000
"""Seconds for which the links of a test are good that is about something else."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentService]:
    """Give a service whose worker runs; tests leave it as they found it, but for its clock."""
    with agent_service(tmp_path_factory.mktemp("links"), running=True) as made:
        yield made


@pytest.fixture(scope="module")
def job(service: AgentService) -> dict[str, Any]:
    """Give what was answered for a mesh in two formats."""
    return service.made(field("format", "glb,stl"), field("color", "none"))


@pytest.fixture(scope="module")
def batch(service: AgentService) -> dict[str, Any]:
    """Give a finished batch's status."""
    return finished_batch(service)


@pytest.fixture
def url(service: AgentService, job: dict[str, Any]) -> str:
    """Give a link that is good now."""
    return fresh(service, job)


def finished_batch(service: AgentService) -> dict[str, Any]:
    sent = service.batch(image("images"), image("images"), field("color", "none")).get_json()
    eventually(lambda: status(service, sent["batch_id"])["status"] == "completed")
    return status(service, sent["batch_id"])


def status(service: AgentService, job_or_batch_id: str, agent: str = "ann") -> dict[str, Any]:
    answer: dict[str, Any] = service.get(f"/status/{job_or_batch_id}", agent=agent).get_json()
    return answer


def fresh(service: AgentService, job: dict[str, Any]) -> str:
    return str(status(service, job["job_id"])["signed_url"])


def fetch(
    service: AgentService, url: str, method: str = "GET", address: str = "127.0.0.1", **headers: str
) -> TestResponse:
    """Fetch an address as a browser would: without any header of an agent's."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    client, caller = service.app.test_client(), {"REMOTE_ADDR": address}
    answer = client.open(url, method=method, headers=sent, environ_overrides=caller, buffered=True)
    return service.checked(answer)


def parts(url: str) -> tuple[str, str, str]:
    """Return a link's path, end and signature."""
    split = urlsplit(url)
    query = parse_qs(split.query)
    return split.path, query["expires"][0], query["signature"][0]


def with_parts(path: str, expires: object, signature: str) -> str:
    return f"{path}?expires={expires}&signature={signature}"


def sweep(service: AgentService) -> None:
    """Let the time of every finished job be over, and remove them."""
    services = service.services
    service.clock.advance(24 * 3600 + 1)
    Janitor(services.store, services.artifacts, services.images, service.clock, timedelta(hours=24)).sweep()


# What a link is good for


def test_a_link_fetches_its_file_without_any_header(service: AgentService, url: str) -> None:
    path, expires, _ = parts(url)
    signed = service.call("GET", path)
    got = fetch(service, url)
    assert (got.status_code, got.data, got.mimetype) == (200, signed.data, "model/gltf-binary")
    assert int(expires) == int(service.clock().timestamp()) + 3600
    assert "private" in got.headers["Cache-Control"]
    assert "public" not in got.headers["Cache-Control"]
    assert got.headers["Referrer-Policy"] == "no-referrer"
    assert {"RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"} <= set(got.headers.keys())


def test_a_link_is_good_for_head_ranges_and_etags(service: AgentService, url: str) -> None:
    whole = fetch(service, url)
    head = fetch(service, url, "HEAD")
    assert (head.status_code, head.data, head.headers["Content-Length"]) == (200, b"", str(len(whole.data)))
    part = fetch(service, url, Range="bytes=10-19", If_Range=whole.headers["ETag"])
    assert (part.status_code, part.data) == (206, whole.data[10:20])
    assert fetch(service, url, If_None_Match=whole.headers["ETag"]).status_code == 304


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_a_link_is_good_for_nothing_else(service: AgentService, url: str, method: str) -> None:
    assert refused(fetch(service, url, method)) == (405, "METHOD_NOT_ALLOWED")


def test_a_link_opens_no_other_call(service: AgentService, job: dict[str, Any], url: str) -> None:
    query = urlsplit(url).query
    for path in (f"/status/{job['job_id']}", "/jobs", "/me"):
        assert refused(fetch(service, f"{API}{path}?{query}")) == (401, "AUTH_MISSING")


def test_every_answer_that_names_a_file_has_a_link_to_it(
    service: AgentService, job: dict[str, Any], batch: dict[str, Any]
) -> None:
    listed = service.get("/jobs?status=completed").get_json()["jobs"]
    shown = [job, status(service, job["job_id"]), *listed, *batch["items"]]
    for answer in shown:
        assert answer["signed_url"] == answer["files"][0]["signed_url"]
        for file in answer["files"]:
            assert urlsplit(file["signed_url"]).path == file["url"]
            assert fetch(service, file["signed_url"]).data == service.call("GET", file["url"]).data
    assert {len(answer["files"]) for answer in shown} == {1, 2}


def test_what_has_no_file_has_no_link(tmp_path: Path) -> None:
    with agent_service(tmp_path) as waiting:
        single = status(waiting, waiting.submit())
        several = status(waiting, waiting.batch().get_json()["batch_id"])
    assert (single["signed_url"], single["files"]) == (None, [])
    assert several["signed_url"] is None


def test_a_batch_s_link_fetches_the_zip(service: AgentService, batch: dict[str, Any]) -> None:
    got = fetch(service, batch["signed_url"])
    assert (got.status_code, got.mimetype) == (200, "application/zip")
    assert zipfile.ZipFile(io.BytesIO(got.data)).testzip() is None
    assert got.data == service.call("GET", batch["download_url"]).data
    _, expires, signature = parts(batch["signed_url"])
    item = batch["items"][0]["download_url"]
    assert refused(fetch(service, with_parts(item, expires, signature))) == INVALID


def test_previews_and_pictures_are_opened_by_their_owner_alone(service: AgentService, job: dict[str, Any]) -> None:
    _, expires, signature = parts(job["signed_url"])
    assert refused(fetch(service, with_parts(job["image_url"], expires, signature))) == INVALID


# What is changed on a link

GOOD = "{path}?expires={end}&signature={sign}"
NOBODYS = f"{API}/download/{'0' * 32}"
ATTEMPTS = {
    "another file": "{other}?expires={end}&signature={sign}",
    "a later end": "{path}?expires={later}&signature={sign}",
    "a leading zero": "{path}?expires=0{end}&signature={sign}",
    "a plus": "{path}?expires=%2B{end}&signature={sign}",
    "a blank": "{path}?expires=+{end}&signature={sign}",
    "a fraction": "{path}?expires={end}.0&signature={sign}",
    "an exponent": "{path}?expires=1e12&signature={sign}",
    "a negative end": "{path}?expires=-{end}&signature={sign}",
    "no end": "{path}?expires=&signature={sign}",
    "an end beyond all numbers": "{path}?expires={end}" + "9" * 400 + "&signature={sign}",
    "an end beyond 64 bits": "{path}?expires=1844674407{end}&signature={sign}",
    "another script's digits": "{path}?expires=%D9%A1%D9%A7&signature={sign}",
    "a zero byte": "{path}?expires={end}%00&signature={sign}",
    "a line end": "{path}?expires={end}%0A&signature={sign}",
    "no signature": "{path}?expires={end}&signature=",
    "half a signature": "{path}?expires={end}&signature={sign:.32}",
    "a longer signature": "{path}?expires={end}&signature={sign}0",
    "one digit off": "{path}?expires={end}&signature={near}",
    "capitals": "{path}?expires={end}&signature={loud}",
    "a signature that is not ASCII": "{path}?expires={end}&signature=" + "%C3%A9" * 64,
    "the end alone": "{path}?expires={end}",
    "the signature alone": "{path}?signature={sign}",
    "two ends": f"{GOOD}&expires={{later}}",
    "the same end twice": f"{GOOD}&expires={{end}}",
    "two signatures": f"{GOOD}&signature={{sign}}",
    "a path written otherwise": GOOD.replace("{path}", "/%61pi/agent/download/{name}"),
    "a name written otherwise": GOOD.replace("{path}", "/api/agent/download/{name:.32}%2eglb"),
    "a slash written otherwise": GOOD.replace("{path}", "/api/agent%2Fdownload/{name}"),
    "an unknown file": GOOD.replace("{path}", f"{NOBODYS}.glb"),
    "an unknown batch": GOOD.replace("{path}", f"{NOBODYS}.zip"),
    "no name of ours": GOOD.replace("{path}", "/api/agent/download/passwd"),
}


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_a_link_that_was_changed_is_not_valid(
    service: AgentService, job: dict[str, Any], url: str, attempt: str
) -> None:
    path, end, sign = parts(url)
    known = {"path": path, "name": path.rpartition("/")[2], "end": end, "sign": sign}
    assert GOOD.format(**known) == url
    near, later = f"{int(sign[0], 16) ^ 1:x}{sign[1:]}", int(end) + 1
    made = {"other": job["files"][1]["url"], "later": later, "near": near, "loud": sign.upper()}
    answer = fetch(service, ATTEMPTS[attempt].format(**known, **made))
    assert refused(answer) == INVALID
    assert answer.get_json()["details"] == {}
    assert fetch(service, url).status_code == 200


@pytest.mark.parametrize("way", ["/../download/", "/./", "//", "/%2e%2e/download/"])
def test_a_path_that_leads_there_otherwise_is_nowhere(service: AgentService, url: str, way: str) -> None:
    path, expires, signature = parts(url)
    folder, _, name = path.rpartition("/")
    answer = fetch(service, with_parts(f"{folder}{way}{name}", expires, signature))
    assert refused(answer) == (404, "NOT_FOUND")


def test_a_link_with_something_beside_is_good_but_strict(service: AgentService, url: str) -> None:
    answer = fetch(service, f"{url}&utm_source=chat")
    assert refused(answer) == (400, "UNKNOWN_FIELD")
    assert answer.get_json()["details"] == {"field": "utm_source", "allowed": ["expires", "signature"], "docs": "/docs"}


def test_the_order_of_the_query_is_nothing(service: AgentService, url: str) -> None:
    path, expires, signature = parts(url)
    assert fetch(service, f"{path}?signature={signature}&expires={expires}").status_code == 200


def test_an_agent_s_signature_is_no_link_and_a_link_needs_none(service: AgentService, url: str) -> None:
    path, expires, _ = parts(url)
    for headers in (service.headers("GET", url), {"X-Agent-ID": "bob"}, {"Authorization": "Basic Ym9iOmJvYg=="}):
        assert fetch(service, url, **headers).status_code == 200
    wrong = with_parts(path, expires, "0" * 64)
    assert refused(service.call("GET", wrong)) == INVALID
    made = service.headers("GET", path)["X-Agent-Signature"]
    assert refused(fetch(service, with_parts(path, expires, made))) == INVALID


def test_another_agent_s_link_is_not_made_of_one_s_own(service: AgentService, job: dict[str, Any]) -> None:
    """Whoever knows the name of a file, a former agent perhaps, gets no link to it by asking as another."""
    assert refused(service.get(f"/status/{job['job_id']}", agent="bob")) == (404, "JOB_NOT_FOUND")
    assert refused(service.call("GET", job["download_url"], agent="bob")) == (404, "FILE_NOT_FOUND")


def test_a_wrong_link_costs_as_much_whatever_is_wrong(
    service: AgentService, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def counted(key: str, text: bytes) -> str:
        made.append(len(text))
        return hmac_hex(key, text)

    monkeypatch.setattr("backend.auth.links.hmac_hex", counted)
    path, expires, signature = parts(url)
    costs = set()
    for name in (path, f"{API}/download/{'0' * 32}.glb"):
        for sign in (signature, "0" * 64):
            made.clear()
            fetch(service, with_parts(name, expires, sign))
            costs.add(len(made))
    assert costs == {2}


# When it ends, and for whom


def test_a_link_ends_at_its_time_and_no_sooner(service: AgentService, url: str) -> None:
    _, expires, signature = parts(url)
    service.clock.advance(int(expires) - service.clock().timestamp())
    assert fetch(service, url).status_code == 200
    service.clock.advance(1)
    answer = fetch(service, url)
    assert refused(answer) == EXPIRED
    assert answer.get_json()["details"] == {"expired_at": int(expires)}
    assert refused(fetch(service, url.replace(signature, "0" * 64))) == INVALID


def test_a_clock_that_is_set_back_lets_no_link_end_sooner(service: AgentService, url: str) -> None:
    service.clock.advance(4000)
    assert refused(fetch(service, url)) == EXPIRED
    service.clock.advance(-4000 - 3600)
    assert fetch(service, url).status_code == 200
    service.clock.advance(3600)


def test_rotation_keeps_the_links_of_one_generation(service: AgentService, job: dict[str, Any], url: str) -> None:
    keys = SqlLinkKeys(service.services.database, service.clock)
    keys.rotate()
    # A process signs for up to a second with the key that it knows.
    eventually(lambda: fresh(service, job) != url)
    newer = fresh(service, job)
    assert [fetch(service, each).status_code for each in (url, newer)] == [200, 200]
    keys.rotate()
    assert refused(fetch(service, url)) == INVALID
    assert fetch(service, newer).status_code == 200


@pytest.fixture
def own(tmp_path: Path) -> Iterator[AgentService]:
    """Give a service of the test's own, whose links are good for long."""
    with agent_service(tmp_path, running=True, link_ttl_seconds=LONG) as made:
        yield made


def test_links_end_with_their_agent_s_rights(own: AgentService) -> None:
    path = own.settings.agents_file
    job = own.made(field("color", "none"))
    url = job["signed_url"]
    set_enabled(path, "ann", False)
    assert refused(fetch(own, url)) == INVALID
    set_enabled(path, "ann", True)
    assert fetch(own, url).status_code == 200
    update_agent(path, "ann", {"operations": ["generate", "status"]})
    assert refused(fetch(own, url)) == INVALID
    shown = status(own, job["job_id"])
    assert (shown["signed_url"], shown["files"][0]["signed_url"]) == (None, None)
    update_agent(path, "ann", {"operations": ["generate", "status", "download"], "allowed_ips": ["192.0.2.0/24"]})
    assert refused(fetch(own, url)) == (403, "IP_NOT_ALLOWED")
    remove_agent(path, "ann")
    assert refused(fetch(own, url)) == INVALID
    add_agent(path, "ann")
    assert refused(fetch(own, url)) == INVALID


def test_what_is_gone_is_gone_to_a_valid_link_alone(own: AgentService) -> None:
    deleted, kept, batch = own.made(field("color", "none")), own.made(field("color", "none")), finished_batch(own)
    assert own.call("DELETE", f"{API}/jobs/{deleted['job_id']}/files").status_code == 200
    assert refused(fetch(own, deleted["signed_url"])) == GONE
    sweep(own)
    for answer in (kept, batch):
        assert refused(fetch(own, answer["signed_url"])) == GONE
        path, expires, signature = parts(answer["signed_url"])
        assert refused(fetch(own, with_parts(path, expires, signature[::-1]))) == INVALID
        assert refused(own.call("GET", path, agent="bob")) == (404, "FILE_NOT_FOUND")
    own.clock.advance(LONG)
    assert refused(fetch(own, kept["signed_url"])) == EXPIRED
    own.clock.advance(7 * 24 * 3600)
    own.services.store.forget_expired(100)
    assert refused(fetch(own, kept["signed_url"])) == INVALID


def test_links_are_counted_by_address_and_agent(tmp_path: Path) -> None:
    with agent_service(tmp_path, running=True, rate_limit=4, unauthenticated_rate_limit=2) as own:
        url = own.made(field("color", "none"))["signed_url"]
        answers = [fetch(own, url) for _ in range(6)]
        assert [answer.status_code for answer in answers] == [200] * 4 + [429] * 2
        assert answers[-1].get_json()["details"] == {"limit": 4, "window_seconds": 60}
        elsewhere = "192.0.2.7"
        assert fetch(own, url, address=elsewhere).status_code == 200
        assert own.get("/me").get_json()["limits"]["rate_limit"]["remaining"] == 2
        assert [fetch(own, url[:-1], address=elsewhere).status_code for _ in range(3)] == [403, 403, 429]
        assert fetch(own, url, address=elsewhere).status_code == 200


def test_no_link_is_honoured_while_the_table_is_away(
    service: AgentService, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_name: str) -> str:
        raise StoreUnavailable

    monkeypatch.setattr(service.services.links, "_owner_of", away)
    assert refused(fetch(service, url)) == (503, "STORE_UNAVAILABLE")


# Who hears of it


def test_a_link_s_signature_is_written_nowhere(
    service: AgentService, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    path, expires, signature = parts(url)
    with caplog.at_level(logging.DEBUG):
        good, wrong = fetch(service, url), fetch(service, with_parts(path, expires, signature[:-1] + "x"))
        for elsewhere in (f"{API}/status/{'0' * 32}", f"{API}/nothing", "/openapi.json"):
            headers = service.headers("GET", elsewhere) | {"X-Agent-Signature": "0" * 64}
            answer = service.app.test_client().get(f"{elsewhere}?signature={signature}", headers=headers)
            assert signature[:16] not in answer.text
    assert (good.status_code, refused(wrong)) == (200, INVALID)
    metrics = service.app.test_client().get("/metrics").text
    audit = service.settings.audit_log.read_text()
    for text in (caplog.text, metrics, audit, wrong.text, str(wrong.headers)):
        assert signature[:16] not in text
    lines = audit.splitlines()
    assert '"agent": "ann"' in "".join(line for line in lines if '"credential": "link"' in line)


def test_without_signatures_links_are_for_this_machine_alone(tmp_path: Path) -> None:
    with agent_service(tmp_path, running=True, auth_enabled=False) as own:
        url = own.made(field("color", "none"))["signed_url"]
        assert fetch(own, url).status_code == 200
        assert refused(fetch(own, re.sub("expires=1", "expires=2", url))) == INVALID
        assert refused(fetch(own, url, X_Forwarded_For="192.0.2.7")) == (403, "IP_NOT_ALLOWED")
