"""Two agents: whatever one has, the other is answered as if it had never been, on every path and by every method."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.faults.report import report
from tests.support.faults.web_harness import fake_worker, images, one_image, records_of, web_service
from tests.support.hostile import FORM
from tests.support.hostile_pictures import good_png
from tests.support.picture_files import encode
from tests.support.running import API, Agent, Answer, RunningService

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY")
PATHS = (
    "/status/{}",
    "/status/{}?wait=1",
    "/download/{}",
    "/download/{}.glb",
    "/download/{}.zip",
    "/jobs/{}",
    "/jobs/{}/files",
    "/jobs?cursor={}",
    "/jobs?cursor={}&limit=100",
    "/batch/{}",
    "/generate-3d/{}",
    "/{}",
)
_OWN = ("date", "x-request-id")
# Each request takes one from the caller's minute: that they are told is the same, how much is left is not.
_COUNTED = ("ratelimit-remaining", "ratelimit-reset")
_REQUEST_ID = re.compile(rb'"request_id":"[^"]*"')
# The caller's own files are signed anew, to the second, in each answer.
_SIGNED = re.compile(rb"expires=[0-9]+&signature=[0-9a-f]+")


@pytest.mark.slow
def test_nothing_of_one_agent_is_told_to_another(tmp_path: Path) -> None:
    with web_service(tmp_path, works=False, NONCE_STORE="memory", UNAUTHENTICATED_RATE_LIMIT=1_000_000) as service:
        ann, bob = service.add_agent(), service.add_agent()
        older = post(service, bob, "/generate-3d", one_image(good_png())).json()["job_id"]
        had = things_of(service, ann)
        newer = post(service, bob, "/generate-3d", one_image(good_png())).json()["job_id"]
        before = told(service, ann)

        leaks = []
        for thing, path, method in itertools.product(had, PATHS, METHODS):
            known = ask(service, bob, method, path, thing)
            unknown = ask(service, bob, method, path, never_given(thing))
            if known != unknown:
                leaks.append((method, path, thing, known, unknown))
        assert leaks == []
        assert told(service, ann) == before
        assert told(service, bob).keys() == {older, newer}
    report("two agents", f"{len(had)} ids × {len(PATHS)} paths × {len(METHODS)} methods", "0 leaks")


@pytest.mark.slow
def test_a_file_s_tag_or_range_tells_another_agent_nothing(tmp_path: Path) -> None:
    with web_service(tmp_path, works=False) as service:
        ann, bob = service.add_agent(), service.add_agent()
        *_, name = things_of(service, ann)
        own = service.get(f"/download/{name}", agent=ann)
        assert own.status == 200
        conditions = (
            {"If-None-Match": own.headers["ETag"]},
            {"If-Match": own.headers["ETag"]},
            {"If-Range": own.headers["ETag"], "Range": "bytes=0-0"},
            {"Range": f"bytes={len(own.body)}-"},
        )
        for headers in conditions:
            refused = service.get(f"/download/{name}", agent=bob, headers=headers)
            unknown = service.get(f"/download/{never_given(name)}", agent=bob, headers=headers)
            assert refused.refusal == (404, "FILE_NOT_FOUND")
            assert bare(refused, name) == bare(unknown, never_given(name))


@pytest.mark.slow
def test_an_idempotency_key_is_its_agent_s_own(tmp_path: Path) -> None:
    with web_service(tmp_path, works=False) as service, records_of(service) as found:
        ann, bob = service.add_agent(), service.add_agent()
        bodies = [one_image(good_png()), one_image(encode(Image.new("RGB", (8, 8)), "PNG"))]
        key = {"Idempotency-Key": "shared-key"}
        answers = [
            post(service, agent, "/generate-3d", body, **key)
            for agent, body in ((ann, bodies[0]), (bob, bodies[1]), (bob, bodies[1]), (ann, bodies[0]))
        ]
        assert [answer.refusal for answer in answers] == [(202, "")] * 4
        ids = [answer.json()["job_id"] for answer in answers]
        assert (ids[0], ids[1]) == (ids[3], ids[2])
        assert set(found.rows()) == {ids[0], ids[1]}
        # The conflict is each agent's own, too.
        assert post(service, bob, "/generate-3d", bodies[0], **key).refusal == (409, "IDEMPOTENCY_CONFLICT")


def things_of(service: RunningService, agent: Agent) -> tuple[str, ...]:
    """Ids of an agent's: a finished job, a waiting one, a batch, one of its jobs, and the name of a file, last."""
    done = post(service, agent, "/generate-3d", one_image(good_png())).json()["job_id"]
    with fake_worker(service):
        found = service.wait(done, agent)
    assert found["status"] == "completed"
    service.pretend_worker()
    waiting = post(service, agent, "/generate-3d", one_image(good_png())).json()["job_id"]
    batch = post(service, agent, "/batch", images(good_png(), good_png())).json()
    return done, waiting, batch["batch_id"], batch["job_ids"][0], found["download_url"].rpartition("/")[2]


def post(service: RunningService, agent: Agent, path: str, body: bytes, **headers: str) -> Answer:
    return service.call("POST", API + path, body, agent=agent, headers={"Content-Type": FORM, **headers})


def ask(service: RunningService, agent: Agent, method: str, path: str, thing: str) -> tuple[Any, ...]:
    target = API + path.format(thing)
    return bare(service.call(method, target, agent=agent), thing)


def bare(answer: Answer, thing: str) -> tuple[Any, ...]:
    """Return an answer without what differs between any two requests."""
    headers = sorted(
        (name, "counted" if name.lower() in _COUNTED else value)
        for name, value in answer.headers.items()
        if name.lower() not in _OWN
    )
    body = _SIGNED.sub(b"signed", _REQUEST_ID.sub(b"", answer.body))
    return answer.status, str(headers).replace(thing, "thing"), body.replace(thing.encode(), b"thing")


def never_given(thing: str) -> str:
    """Return an id or name of the same form, and age, that nobody has."""
    stem, dot, ending = thing.partition(".")
    return stem[:-8] + "".join("0" if digit != "0" else "1" for digit in stem[-8:]) + dot + ending


def told(service: RunningService, agent: Agent) -> dict[str, tuple[str, bool, int]]:
    """Return an agent's jobs as it may see them."""
    jobs: Iterator[dict[str, Any]] = iter(service.get("/jobs?limit=100", agent=agent).json()["jobs"])
    return {job["job_id"]: (job["status"], job["cancel_requested"], job["progress"]) for job in jobs}
