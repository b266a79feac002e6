"""The OpenAPI document against the running service: whatever schemathesis makes of it is answered as the document says.

The examples are the same in every run.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from requests.auth import AuthBase
from schemathesis import checks

from backend.agent_api import api
from backend.api.openapi import make_document
from backend.api.operations import ANSWER_MODELS, REQUEST_MODELS
from backend.auth.hmac_signing import sign_request
from orfeas_client.signing import digest_body
from tests.support.faults.fake_worker import STEP_SECONDS
from tests.support.faults.harness import FAKE_SERVICE
from tests.support.faults.web_harness import sized
from tests.support.hostile_pictures import object_png
from tests.support.running import Agent, running_service
from tests.support.watched import WIDE, WatchedService, sample

EXAMPLES = sized(24, 240)
# All that is unsigned is refused before anything of it is looked at: one value at a time, thousands in all, is for the
# long form.
UNSIGNED_EXAMPLES = sized(24, 60)
UNSIGNED_PHASES = {"phases": {"coverage": {"enabled": sized(False, True)}}}
# Whether a picture is one, and which ids there are, no schema can say.
LEFT_OUT = [checks.positive_data_acceptance, checks.negative_data_rejection]


class Signer(AuthBase):
    """Signs each request as it is about to be sent."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        body = request.body or b""
        assert isinstance(body, bytes | str)
        digest = digest_body(body if isinstance(body, bytes) else body.encode())
        path, _, query = request.path_url.partition("?")
        timestamp, nonce = int(time.time()), secrets.token_hex(12)
        method, agent = request.method or "", self._agent
        signature = sign_request(agent.api_key, method, path, query, agent.agent_id, timestamp, nonce, digest)
        # What the document's other way of signing made schemathesis send.
        for name in ("Signature", "Signature-Input", "Content-Digest"):
            request.headers.pop(name, None)
        request.headers.update(
            {
                "X-Agent-ID": agent.agent_id,
                "X-Agent-Timestamp": str(timestamp),
                "X-Agent-Nonce": nonce,
                "X-Agent-Content-SHA256": digest,
                "X-Agent-Signature": signature,
            }
        )
        return request


@dataclass(frozen=True)
class Known:
    """What there is to be found: ids, a file, a job whose files may go, and one where jobs wait."""

    ids: tuple[str, ...]
    file: str
    spare: str
    waits: str


class SphereService(WatchedService):
    """The whole service but for its model: of what is asked for here it makes no mesh."""

    command = FAKE_SERVICE


@pytest.fixture(scope="session")
def spheres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedService]:
    given = {STEP_SECONDS: 0, "BATCH_WAIT": 0.3, **WIDE}
    with running_service(tmp_path_factory.mktemp("spheres"), SphereService, **given) as running:
        yield running
        running.check_logs()


@pytest.fixture(scope="session")
def known(spheres: WatchedService, waiting: WatchedService) -> Known:
    done, spare = (spheres.generate(sample(), quality=1, steps=10, preview="false").json() for _ in range(2))
    batch = spheres.batch(sample(), sample("car"), quality=1, steps=10).json()
    spheres.wait(batch["batch_id"])
    waits = waiting.generate(sample(), async_="true").json()["job_id"]
    return Known((done["job_id"], batch["batch_id"]), done["download_url"].rpartition("/")[2], spare["job_id"], waits)


DOCUMENT = make_document(api, REQUEST_MODELS, ANSWER_MODELS)
schema = schemathesis.openapi.from_dict(json.loads(DOCUMENT))
schema_of_the_unsigned = schemathesis.openapi.from_dict(
    json.loads(DOCUMENT), config=schemathesis.Config.from_dict(UNSIGNED_PHASES)
)
CALLS = sum(1 for _ in schema.get_all_operations())
bounded = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
few = settings(bounded, max_examples=UNSIGNED_EXAMPLES)


@pytest.fixture(scope="module")
def good_answers() -> Iterator[dict[str, bool]]:
    """Whether any request to a call was carried out, by call; in the end all must have been.

    Where processes share the calls, none of them sees all, and each call is held to the document alone.
    """
    found: dict[str, bool] = {}
    yield found
    if len(found) < CALLS:
        return
    # A WebSocket is opened by no plain request.
    assert [call for call, carried_out in found.items() if not carried_out] == ["GET /api/agent/events"]


def make_it_meet(case: Any, known: Known) -> None:
    """Lets every other case name what is there: an id of a job or batch, a file, a sound picture."""
    names, form = case.path_parameters or {}, case.body
    number = zlib.crc32(repr((names, case.query, form)).encode())
    if number % 2:
        return
    if "job_id" in names:
        about_files = case.operation.label.endswith("/files")
        # Where jobs wait one may be asked for again without anything being made.
        lone = known.waits if case.operation.label.endswith("/again") else known.spare if about_files else None
        names["job_id"] = lone or known.ids[number // 2 % 2]
        if isinstance(form, dict) and about_files:
            form["format"] = "stl"
    if "filename" in names:
        names["filename"] = known.file
    sound = base64.b64encode(object_png()).decode() if case.media_type == "application/json" else object_png()
    if isinstance(form, dict) and "image" in form:
        form["image"] = sound
    if isinstance(form, dict) and isinstance(form.get("images"), list):
        form["images"] = [sound for _ in form["images"]]


@schema.parametrize()
@bounded
def test_every_answer_is_documented(
    case: Any, spheres: WatchedService, waiting: WatchedService, known: Known, good_answers: dict[str, bool]
) -> None:
    make_it_meet(case, known)
    # What is asked for where jobs wait is not made; of what is made there may be more files.
    submits = case.operation.method.upper() == "POST" and not case.operation.label.endswith("/files")
    target = waiting if submits else spheres
    answer = case.call_and_validate(base_url=target.base_url, auth=Signer(target.agent), excluded_checks=LEFT_OUT)
    call = case.operation.label
    good_answers[call] = good_answers.get(call, False) or answer.status_code < 300


@schema_of_the_unsigned.parametrize()
@few
def test_every_answer_to_the_unsigned_is_documented(case: Any, waiting: WatchedService) -> None:
    case.call_and_validate(base_url=waiting.base_url, excluded_checks=LEFT_OUT)


def test_the_document_is_the_one_that_is_served(waiting: WatchedService) -> None:
    assert waiting.send("GET", "/openapi.json", {}).body == DOCUMENT
