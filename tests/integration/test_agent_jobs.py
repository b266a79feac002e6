"""Meshes by the demo checkpoint, as an agent asks for them, waits, fetches, cancels and asks again."""

from __future__ import annotations

import io
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image
from scipy.spatial import cKDTree

from tests.support.agent_calls import NO_FILE, NO_JOB, OK, QUICK, TAKEN, UNKNOWN, cancel, job_ids, made
from tests.support.hostile_pictures import good_png
from tests.support.running import API, Agent, Answer
from tests.support.watched import WatchedService, png, sample

SIGNED = r"\?expires=\d+&signature=[0-9a-f]+"

# Meshes


@pytest.fixture(scope="module")
def mug(service: WatchedService) -> dict[str, Any]:
    """Provide a mesh of the mug, as the answer to a caller who waited for it."""
    return made(service.generate(sample("mug"), seed=7, **QUICK))


def test_a_picture_becomes_a_mesh_while_its_caller_waits(service: WatchedService, mug: dict[str, Any]) -> None:
    assert (mug["success"], mug["status"]) == (True, "completed")
    assert mug["processing_time"] > 0
    metadata = mug["metadata"]
    asked = {"format": "glb", "seed": 7, "steps": 10, "quality": 1, "octree_resolution": 48, "target_faces": 10_000}
    assert {name: metadata[name] for name in asked} == asked
    assert (metadata["model"], metadata["batch_size"], metadata["fallbacks"]) == ("demo", 1, [])
    assert metadata["unit"] == "m"
    stages = ("queued", "preprocess", "encode", "sample", "decode", "mesh", "export", "total")
    assert all(metadata["seconds"][stage] >= 0 for stage in stages)
    job = service.status(mug["job_id"])
    assert {name: job[name] for name in ("metadata", "download_url", "processing_time", "status", "progress")} == {
        **{name: mug[name] for name in ("metadata", "download_url", "processing_time")},
        "status": "completed",
        "progress": 100,
    }


def test_a_picture_becomes_a_mesh_while_its_caller_does_something_else(service: WatchedService) -> None:
    accepted = service.generate(sample("mug"), async_="true", **QUICK)
    assert accepted.refusal == TAKEN
    job_id = accepted.json()["job_id"]
    assert accepted.json()["status_url"] == f"{API}/status/{job_id}"
    job = service.wait(job_id)
    assert (job["status"], job["progress"], job["error"]) == ("completed", 100, None)
    assert service.call("GET", job["download_url"]).refusal == OK


MEDIA = {"glb": "model/gltf-binary", "stl": "model/stl", "obj": "model/obj", "ply": "application/octet-stream"}


@pytest.mark.parametrize("form", MEDIA)
def test_a_file_holds_the_mesh_that_its_metadata_names(service: WatchedService, form: str) -> None:
    said = made(service.generate(sample("star"), seed=7, format=form, target_faces=3000, scale_mm=50, **QUICK))
    metadata = said["metadata"]
    answer = service.call("GET", said["download_url"])
    assert answer.headers["Content-Type"] == MEDIA[form]
    assert len(answer.body) == metadata["file_size"] == int(answer.headers["Content-Length"])
    mesh = trimesh.load_mesh(io.BytesIO(answer.body), file_type=form)
    assert len(mesh.faces) == metadata["faces"] <= 3000
    # A texture splits vertices where it has a seam.
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    assert mesh.is_watertight is metadata["watertight"] is True
    unit, longest = ("m", 0.05) if form == "glb" else ("mm", 50)
    assert (metadata["target_faces"], metadata["unit"]) == (3000, unit)
    assert mesh.extents.max() == pytest.approx(longest, rel=2e-5)
    assert mesh.bounds == pytest.approx(np.array(metadata["bounds"]), abs=2e-5 * longest)


def test_a_batch_runs_together_and_each_picture_gets_its_own_mesh(service: WatchedService) -> None:
    names = ("mug", "car", "star")
    # As the surface was found: fewer faces and a level foot are choices that a rounding may turn.
    fields = {**QUICK, "seed": 7, "target_faces": "none", "place": "as_is", "upright": "off", "color": "none"}
    mug = made(service.generate(sample("mug"), **fields))
    accepted = service.batch(*map(sample, names), **fields).json()
    batch = service.wait(accepted["batch_id"])
    assert (batch["status"], batch["progress"], batch["total_images"]) == ("completed", 100, 3)
    assert [item["job_id"] for item in batch["items"]] == accepted["job_ids"]
    assert [item["batch_id"] for item in batch["items"]] == [accepted["batch_id"]] * 3
    assert [item["metadata"]["batch_size"] for item in batch["items"]] == [3, 3, 3]
    meshes = [service.call("GET", item["download_url"]).body for item in batch["items"]]
    assert len(set(meshes)) == 3
    # The same picture and seed: the same mesh, whoever else was in the batch.
    alone, together = (
        trimesh.load_mesh(io.BytesIO(content), file_type="glb", process=False)
        for content in (service.call("GET", mug["download_url"]).body, meshes[0])
    )
    assert len(together.faces) == len(alone.faces)
    # By place, not by number: a lattice value that is a rounding away from zero lends its vertex to another edge.
    for one, other in ((alone, together), (together, alone)):
        assert cKDTree(one.vertices).query(other.vertices)[0].max() < 5e-4 * alone.extents.max()


def test_a_picture_of_nothing_fails_with_its_reason(service: WatchedService) -> None:
    nothing = png(Image.new("RGBA", (64, 64), (0, 0, 0, 0)))
    answer = service.generate(nothing, **QUICK)
    assert answer.refusal == (422, "NO_FOREGROUND")
    job = service.status(answer.json()["details"]["job_id"])
    assert (job["status"], job["error"]["code"], job["download_url"]) == ("failed", "NO_FOREGROUND", None)


def test_one_bad_picture_fails_alone(service: WatchedService) -> None:
    nothing = png(Image.new("RGBA", (64, 64), (0, 0, 0, 0)))
    accepted = service.batch(sample("mug"), nothing, **QUICK).json()
    batch = service.wait(accepted["batch_id"])
    assert batch["status"] == "completed"
    assert [item["status"] for item in batch["items"]] == ["completed", "failed"]


def test_another_agents_file_is_not_found(service: WatchedService, mug: dict[str, Any]) -> None:
    bob = service.add_agent()
    assert service.call("GET", mug["download_url"], agent=bob).refusal == NO_FILE
    assert service.get(f"/status/{mug['job_id']}", agent=bob).refusal == NO_JOB
    assert cancel(service, mug["job_id"], bob).refusal == NO_JOB
    assert service.call("GET", mug["download_url"]).refusal == OK


def test_a_file_comes_in_parts_and_not_twice(service: WatchedService, mug: dict[str, Any]) -> None:
    def get(method: str = "GET", **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return service.call(method, mug["download_url"], headers=named)

    whole = get()
    size, etag = len(whole.body), whole.headers["ETag"]
    assert (whole.status, whole.headers["Accept-Ranges"]) == (200, "bytes")
    name = mug["download_url"].rpartition("/")[2]
    assert whole.headers["Content-Disposition"] == f'attachment; filename="{name}"'

    head = get("HEAD")
    assert (head.status, head.body, int(head.headers["Content-Length"])) == (200, b"", size)
    known = get(If_None_Match=etag)
    assert (known.status, known.body, known.headers["ETag"]) == (304, b"", etag)

    part = get(Range="bytes=100-199")
    assert (part.status, part.body) == (206, whole.body[100:200])
    assert part.headers["Content-Range"] == f"bytes 100-199/{size}"
    assert get(Range="bytes=-7").body == whole.body[-7:]
    assert get(Range=f"bytes={size - 3}-").body == whole.body[-3:]
    beyond = get(Range=f"bytes={size}-")
    assert beyond.refusal == (416, "RANGE_NOT_SATISFIABLE")
    assert beyond.headers["Content-Range"] == f"bytes */{size}"

    assert get(Range="bytes=0-9", If_Range=etag).status == 206
    assert get(Range="bytes=0-9", If_Range='"other"').status == 200
    assert get(If_Match='"other"').refusal == (412, "PRECONDITION_FAILED")


# Jobs


def test_a_waiting_job_is_cancelled_at_once_and_its_picture_goes(queue: WatchedService) -> None:
    agent = queue.add_agent()
    first, second = queue.batch(good_png(), good_png(), agent=agent).json()["job_ids"]
    positions = [queue.status(job_id, agent)["queue_position"] for job_id in (first, second)]
    # Between them come jobs that other tests left for other agents, who take turns with this one.
    assert positions[1] > positions[0]
    kept = set(queue.files("inputs"))
    answer = cancel(queue, first, agent)
    assert (answer.refusal, answer.json()["status"]) == (OK, "cancelled")
    assert queue.status(second, agent)["queue_position"] == positions[0]
    assert cancel(queue, first, agent).json()["status"] == "cancelled"
    queue.wait_until(lambda: len(kept - set(queue.files("inputs"))) == 1)


def test_a_running_job_is_cancelled_before_its_end(service: WatchedService) -> None:
    job_id = service.generate(sample("mug"), async_="true", quality=10, steps=100).json()["job_id"]
    running = service.wait(job_id, until=("processing",))
    assert running["queue_position"] is None
    answer = cancel(service, job_id)
    assert (answer.refusal, answer.json()["cancel_requested"]) == (OK, True)
    job = service.wait(job_id)
    assert (job["status"], job["download_url"], job["metadata"]) == ("cancelled", None, None)


def test_a_caller_that_waits_is_told_of_the_cancelling(service: WatchedService) -> None:
    agent = service.add_agent()
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(service.generate, sample("mug"), agent=agent, quality=10, steps=100)
        service.wait_until(lambda: job_ids(service, agent) != [])
        assert cancel(service, job_ids(service, agent)[0], agent).refusal == OK
        assert waits.result().refusal == (409, "CANCELLED")


def test_a_finished_job_stays_as_it_is(service: WatchedService, mug: dict[str, Any]) -> None:
    answer = cancel(service, mug["job_id"])
    assert (answer.refusal, answer.json()["status"]) == (OK, "completed")
    assert service.call("GET", mug["download_url"]).refusal == OK


def test_jobs_come_in_pages_newest_first(queue: WatchedService) -> None:
    agent = queue.add_agent()
    made_ = [queue.generate(good_png(), agent=agent, async_="true").json()["job_id"] for _ in range(5)]
    pages, cursor = [], ""
    while True:
        said = queue.get(f"/jobs?limit=2{cursor}", agent=agent).json()
        pages.append([job["job_id"] for job in said["jobs"]])
        if said["next_cursor"] is None:
            break
        cursor = f"&cursor={said['next_cursor']}"
    assert pages == [made_[:2:-1], made_[2:0:-1], made_[:1]]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        *((f"limit={text}", "INVALID_LIMIT") for text in ("0", "101", "-1", "", "2.5", "ten", "%D9%A7")),
        *((f"cursor={text}", "INVALID_CURSOR") for text in ("", "1", "..%2f", UNKNOWN[1:], "'%20OR%201=1")),
    ],
)
def test_a_page_that_is_none_is_refused(waiting: WatchedService, query: str, code: str) -> None:
    assert waiting.get(f"/jobs?{query}").refusal == (400, code)


# The same request again


def test_a_request_with_a_key_is_carried_out_once(queue: WatchedService) -> None:
    agent, other = queue.add_agent(), queue.add_agent()

    def generate(content: bytes = good_png(), who: Agent = agent, **fields: object) -> Answer:
        return queue.generate(content, agent=who, headers={"Idempotency-Key": "key-1"}, async_="true", **fields)

    first = generate(seed=5)
    kept = queue.files("inputs")
    again = generate(seed=5)
    assert first.refusal == again.refusal == TAKEN
    assert again.json()["job_id"] == first.json()["job_id"]
    assert generate(seed=6).refusal == (409, "IDEMPOTENCY_CONFLICT")
    assert generate(sample("car"), seed=5).refusal == (409, "IDEMPOTENCY_CONFLICT")
    assert generate().refusal == (409, "IDEMPOTENCY_CONFLICT")
    batch = queue.batch(good_png(), good_png(), agent=agent, headers={"Idempotency-Key": "key-1"}, seed=5)
    assert batch.refusal == (409, "IDEMPOTENCY_CONFLICT")
    assert job_ids(queue, agent) == [first.json()["job_id"]]
    assert queue.files("inputs") == kept
    assert generate(seed=5, who=other).json()["job_id"] != first.json()["job_id"]


def test_a_batch_with_a_key_is_carried_out_once(queue: WatchedService) -> None:
    agent, key = queue.add_agent(), {"Idempotency-Key": "key-2"}
    first = queue.batch(good_png(), sample("car"), agent=agent, headers=key)
    again = queue.batch(good_png(), sample("car"), agent=agent, headers=key)
    turned = queue.batch(sample("car"), good_png(), agent=agent, headers=key)
    assert (first.refusal, first.json()) == (again.refusal, again.json()) == (TAKEN, first.json())
    assert turned.refusal == (409, "IDEMPOTENCY_CONFLICT")
    assert len(job_ids(queue, agent)) == 2


def test_the_same_key_at_the_same_moment_makes_one_job(queue: WatchedService) -> None:
    agent, key = queue.add_agent(), {"Idempotency-Key": "key-3"}
    with ThreadPoolExecutor(6) as pool:
        answers = list(
            pool.map(lambda _: queue.generate(good_png(), agent=agent, headers=key, async_="true"), range(6))
        )
    assert [answer.refusal for answer in answers] == [TAKEN] * 6
    assert job_ids(queue, agent) == [answers[0].json()["job_id"]]
    assert len({answer.json()["job_id"] for answer in answers}) == 1


def test_a_key_gives_the_mesh_again(service: WatchedService) -> None:
    agent, key = service.add_agent(), {"Idempotency-Key": "key-4"}
    first = service.generate(sample("mug"), agent=agent, headers=key, **QUICK)
    again = service.generate(sample("mug"), agent=agent, headers=key, **QUICK)
    assert first.refusal == again.refusal == OK
    # Each answer's links are good from its own second on.
    assert re.sub(SIGNED, "", again.body.decode()) == re.sub(SIGNED, "", first.body.decode())
    other = service.generate(sample("mug"), agent=agent, headers=key, **{**QUICK, "steps": 11})
    assert other.refusal == (409, "IDEMPOTENCY_CONFLICT")
    assert len(job_ids(service, agent)) == 1


def test_a_key_gives_the_promise_again_when_it_was_kept(service: WatchedService) -> None:
    agent, key = service.add_agent(), {"Idempotency-Key": "key-5"}
    first = service.generate(sample("mug"), agent=agent, headers=key, async_="true", **QUICK)
    service.wait(first.json()["job_id"], agent)
    again = service.generate(sample("mug"), agent=agent, headers=key, async_="true", **QUICK)
    assert first.refusal == again.refusal == TAKEN
    assert (again.json()["job_id"], again.json()["status"]) == (first.json()["job_id"], "completed")
