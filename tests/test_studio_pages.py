"""The studio over HTTP: its files and their policy, and a code exchanged for a key by this machine's browser alone."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from backend.auth.agents_file import add_agent, set_enabled
from backend.auth.studio_codes import StudioCodes
from backend.studio.invitation import AGENT_ID, LOOPBACK
from backend.studio.pages import POLICY, page_files
from tests.support.agent_service import AgentService, agent_service, refused

MOST_BYTES = 350_000
HOST = "127.0.0.1"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[AgentService]:
    with agent_service(tmp_path) as made:
        yield made


def make_code(service: AgentService) -> str:
    return StudioCodes(service.services.resources.database, service.services.clock).make()


def exchange(service: AgentService, code: Any, headers: dict[str, str] | None = None) -> TestResponse:
    sent = {"Host": HOST, "Content-Type": "application/json", **(headers or {})}
    body = code if isinstance(code, bytes) else json.dumps({"code": code}).encode()
    return service.app.test_client().post("/studio/session", data=body, headers=sent)


def test_the_address_itself_leads_to_the_page(service: AgentService) -> None:
    answer = service.app.test_client().get("/")
    assert (answer.status_code, answer.headers["Location"]) == (302, "/studio")


def test_every_file_has_the_policy_and_is_sent_once(service: AgentService) -> None:
    client = service.app.test_client()
    names = [name for name in page_files() if " " not in name]
    assert {"index.html", "studio.css", "main.js", "texts.de.js"} <= set(names)
    for path in ("/studio", *(f"/studio/{name}" for name in names)):
        answer = client.get(path)
        assert answer.status_code == 200
        assert answer.headers["Content-Security-Policy"] == POLICY
        assert client.get(path, headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304


def test_what_the_page_loads_is_kept_by_browsers_until_it_is_another(service: AgentService) -> None:
    client = service.app.test_client()
    named = re.findall(r'(?:href|src)="(/studio/[^"]+)"', client.get("/studio").text)
    assert len(named) > 3
    for path in named:
        answer = client.get(path)
        assert "immutable" in answer.headers["Cache-Control"]
        squeezed = client.get(path, headers={"Accept-Encoding": "gzip"})
        assert gzip.decompress(squeezed.data) == answer.data
        assert squeezed.headers["ETag"] != answer.headers["ETag"]
        earlier = re.sub(r"/[0-9a-f]{16}/", f"/{'0' * 16}/", path)
        assert (client.get(earlier).data, client.get(earlier).headers["Cache-Control"]) == (answer.data, "no-cache")


@pytest.mark.parametrize("path", ["/studio/", "/studio/nothing.js", "/studio/../pages.py", "/studio/pages.py"])
def test_nothing_else_is_there(service: AgentService, path: str) -> None:
    assert refused(service.app.test_client().get(path)) == (404, "NOT_FOUND")


def test_the_page_is_small_and_names_nobody_else() -> None:
    contents = [content for name, (content, _, _) in page_files().items() if " " not in name]
    assert sum(len(gzip.compress(content)) for content in contents) < MOST_BYTES
    addresses = set(re.findall(rb"https?://[a-z0-9.]+", b"".join(contents)))
    assert addresses <= {b"http://www.w3.org"}


def test_both_languages_say_the_same_things() -> None:
    keys = {
        code: set(re.findall(r'^  "?([a-z_]+(?:\.[\w,]+)?)"?:', page_files()[f"texts.{code}.js"][0].decode(), re.M))
        for code in ("en", "de")
    }
    assert len(keys["en"]) > 100
    # What the service says in English needs no second sentence.
    own = {key for key in keys["de"] if key.startswith(("error.", "warning."))}
    assert keys["en"] - keys["de"] == set()
    assert keys["de"] - keys["en"] <= own


def test_every_text_that_is_shown_is_there() -> None:
    english = page_files()["texts.en.js"][0].decode()
    used = {
        key
        for name, (content, _, _) in page_files().items()
        if name.endswith(".js") and not name.startswith("texts.")
        for key in re.findall(r'\bt\("([a-z_.]+)"', content.decode())
    }
    assert len(used) > 60
    assert {key for key in used if f'"{key}"' not in english and f"\n  {key}:" not in english} == set()


def test_without_signatures_the_page_says_so_to_its_script(tmp_path: Path, service: AgentService) -> None:
    assert b"data-open" not in service.app.test_client().get("/studio").data
    with agent_service(tmp_path / "open", auth_enabled=False) as unsigned:
        assert b"<body data-open>" in unsigned.app.test_client().get("/studio").data


def test_a_code_is_exchanged_once_for_the_key_of_an_agent_of_this_machine(service: AgentService) -> None:
    key = add_agent(service.settings.agents_file, AGENT_ID, allowed_ips=LOOPBACK)
    code = make_code(service)
    answer = exchange(service, code)
    assert answer.get_json() == {"success": True, "agent_id": "studio", "api_key": key}
    assert answer.headers["Cache-Control"] == "no-store"
    assert refused(exchange(service, code)) == (403, "STUDIO_CODE_INVALID")


def test_every_try_of_a_code_is_in_the_audit_without_the_code(service: AgentService) -> None:
    add_agent(service.settings.agents_file, AGENT_ID, allowed_ips=LOOPBACK)
    code = make_code(service)
    exchange(service, "a wrong code")
    exchange(service, code, {"Origin": "http://evil.example"})
    exchange(service, code)
    text = service.settings.audit_log.read_text()
    told = [json.loads(line) for line in text.splitlines()]
    assert {(line["operation"], line["credential"], line["path"]) for line in told} == {
        ("studio", "code", "/studio/session")
    }
    assert [(line["outcome"], line["status"], line["agent"], line["verified"]) for line in told] == [
        ("STUDIO_CODE_INVALID", 403, "", False),
        ("IP_NOT_ALLOWED", 403, "", False),
        ("admitted", 200, "studio", True),
    ]
    assert code not in text
    assert "a wrong code" not in text


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Origin": "http://evil.example"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"Via": "1.1 proxy"},
    ],
)
def test_nobody_else_may_try_a_code(service: AgentService, headers: dict[str, str]) -> None:
    add_agent(service.settings.agents_file, AGENT_ID, allowed_ips=LOOPBACK)
    code = make_code(service)
    for _ in range(6):
        assert refused(exchange(service, "wrong", headers)) == (403, "IP_NOT_ALLOWED")
    assert exchange(service, code).status_code == 200


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        (b"{", (400, "BAD_REQUEST")),
        (b"[]", (403, "STUDIO_CODE_INVALID")),
        (b'{"code": 1}', (403, "STUDIO_CODE_INVALID")),
        (b"[" * 900, (400, "BAD_REQUEST")),
        (b"x" * 1001, (413, "FILE_TOO_LARGE")),
    ],
)
def test_what_is_no_code_is_refused(service: AgentService, body: bytes, refusal: tuple[int, str]) -> None:
    assert refused(exchange(service, body)) == refusal


def test_a_key_that_works_from_elsewhere_is_given_to_nobody(service: AgentService) -> None:
    add_agent(service.settings.agents_file, AGENT_ID)
    assert refused(exchange(service, make_code(service))) == (403, "IP_NOT_ALLOWED")


def test_a_disabled_studio_stays_shut(service: AgentService) -> None:
    add_agent(service.settings.agents_file, AGENT_ID, allowed_ips=LOOPBACK)
    set_enabled(service.settings.agents_file, AGENT_ID, False)
    assert refused(exchange(service, make_code(service))) == (403, "AGENT_DISABLED")
