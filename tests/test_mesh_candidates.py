"""Several seeds of one image: one device call, the best mesh kept, the scores of all told, each counted as a job."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image

from backend.errors import NoSurface, TooManyActiveJobs
from backend.hunyuan3d.facts import OutlineFacts
from backend.hunyuan3d.image import background
from backend.hunyuan3d.pipeline import Hunyuan3DShapePipeline
from backend.hunyuan3d.results import ShapeMetadata, ShapeResult
from backend.jobs.metadata import JobMetadata
from backend.jobs.models import Job, JobFile, NewJob, Status
from backend.jobs.store import JobStore
from backend.rendering.candidates import Candidate, candidate_sheet, in_order
from tests.support.agent_service import API, FORM, AgentService, agent_service, encode_form, field, image, refused
from tests.support.company import IN_COMPANY
from tests.support.fake_gpu import ball_cutout, sphere
from tests.support.store_backends import ManualClock, empty_database, open_database
from tests.support.workshop import Workshop, workshop

SAMPLES = Path(__file__).parents[1] / "samples"
FITS = {7: 0.2, 8: 0.1, 9: 0.3}
"""What each seed's silhouette lacks: the second is the best."""


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Workshop]:
    with open_database(empty_database("sqlite", tmp_path)) as database, workshop(tmp_path, database) as made:
        made.fake.outlines = {seed: OutlineFacts(0.0, lacks) for seed, lacks in FITS.items()}
        yield made


@pytest.fixture
def service(tmp_path: Path) -> Iterator[AgentService]:
    with agent_service(tmp_path, running=True) as made:
        made.fake.outlines = {seed: OutlineFacts(0.0, lacks) for seed, lacks in FITS.items()}
        made.fake.cutout = ball_cutout()
        yield made


def told(job: Job) -> JobMetadata:
    assert job.metadata is not None
    return JobMetadata.from_json(job.metadata)


def meshes(shop: Workshop, job: Job) -> list[JobFile]:
    return [file for file in shop.store.files.of(job) if file.kind == "mesh"]


def seed_in(shop: Workshop, file: JobFile) -> int:
    """Return the seed that a GLB says it was made with."""
    data = shop.artifacts.read(file.name)
    node = json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])["nodes"][0]
    return int(node["extras"]["seed"])


def test_candidates_run_in_one_device_call_and_the_best_is_kept(shop: Workshop) -> None:
    job_id = shop.submit(candidates=3)
    assert shop.work_off() == 1
    (call,) = shop.fake.calls
    assert (call.seeds, call.images) == ([7, 8, 9], [b"picture"] * 3)
    job = shop.job(job_id)
    assert (job.status, told(job).seed) == (Status.COMPLETED, 8)
    assert [(each.seed, each.silhouette_iou) for each in told(job).candidates] == [(8, 0.9), (7, 0.8), (9, 0.7)]
    (mesh,) = meshes(shop, job)
    assert (mesh.name, mesh.candidate, seed_in(shop, mesh)) == (job.artifact, 0, 8)


def test_all_are_kept_where_that_is_asked_for_the_best_first(shop: Workshop) -> None:
    job = shop.job(shop.submit(candidates=3, keep="all", format="glb,stl"))
    shop.work_off()
    kept = meshes(shop, shop.job(job.id))
    assert [(file.candidate, file.format) for file in kept] == [
        (k, format) for k in range(3) for format in ("glb", "stl")
    ]
    assert [seed_in(shop, file) for file in kept if file.format == "glb"] == [8, 7, 9]


def test_a_seed_without_a_mesh_comes_last_and_says_why(shop: Workshop) -> None:
    shop.fake.seed_errors = {8: NoSurface()}
    job_id = shop.submit(candidates=3, keep="all")
    shop.work_off()
    job = shop.job(job_id)
    assert [(each.seed, each.error) for each in told(job).candidates] == [(7, None), (9, None), (8, "NO_SURFACE")]
    assert [file.candidate for file in meshes(shop, job)] == [0, 1]


def test_a_job_fails_where_no_seed_gives_a_mesh(shop: Workshop) -> None:
    shop.fake.seed_errors = dict.fromkeys(FITS, NoSurface())
    job_id = shop.submit(candidates=3)
    shop.work_off()
    assert (shop.job(job_id).status, shop.job(job_id).error_code) == (Status.FAILED, "NO_SURFACE")


def test_a_call_that_fails_as_a_whole_is_made_again_seed_by_seed(shop: Workshop) -> None:
    def fail_together(call: Any) -> None:
        if len(call.images) > 1:
            raise RuntimeError("all at once")

    shop.fake.before_call = fail_together
    job_id = shop.submit(candidates=2)
    shop.work_off()
    assert [call.seeds for call in shop.fake.calls] == [[7, 8], [7], [8]]
    assert told(shop.job(job_id)).seed == 8


def test_candidates_take_the_room_of_batch_mates(shop: Workshop) -> None:
    many, others = shop.submit(b"many", candidates=3), [shop.submit(b"1"), shop.submit(b"2")]
    worker = shop.worker()
    assert (worker.run_once(), worker.run_once()) == (2, 1)
    assert [call.images for call in shop.fake.calls] == [[b"many"] * 3 + [b"1"], [b"2"]]
    assert {shop.job(job_id).status for job_id in (many, *others)} == {Status.COMPLETED}


def test_seeds_go_on_at_0_after_the_largest(shop: Workshop) -> None:
    shop.submit(candidates=2, seed=2**32 - 1)
    shop.work_off()
    assert shop.fake.calls[0].seeds == [2**32 - 1, 0]


def test_each_candidate_counts_as_a_job(store: JobStore, clock: ManualClock) -> None:
    three = NewJob("{}", "key", "a.png", candidates=3)
    store.submit("ann", [three], queue_limit=9, agent_limit=4, daily_limit=5)
    assert (store.usage("ann").active, store.usage("ann").daily) == (3, 3)
    with pytest.raises(TooManyActiveJobs):
        store.submit("ann", [replace(three, candidates=2)], queue_limit=9, agent_limit=4)
    clock.advance(3600)
    store.submit("ann", [replace(three, candidates=1)], queue_limit=9, agent_limit=9, daily_limit=5)
    # All three of the older one end at once.
    assert store.usage("ann").oldest_ends_in == 23 * 3600


def test_an_answer_has_scores_and_a_sheet_and_one_more_format_is_the_best_one_s(service: AgentService) -> None:
    asked = {"candidates": "3", "keep": "all", "seed": "7", "preview": "true"}
    answer = service.made(*(field(name, value) for name, value in asked.items()))
    assert [each["seed"] for each in answer["metadata"]["candidates"]] == [8, 7, 9]
    assert [file["candidate"] for file in answer["files"]] == [0, 1, 2]
    assert answer["files"][0]["url"] == answer["download_url"]
    sheet = Image.open(io.BytesIO(service.call("GET", answer["contact_sheet_url"]).data))
    assert sheet.format == "WEBP"
    path, form = f"{API}/jobs/{answer['job_id']}/files", encode_form(field("format", "stl"))
    files = service.call("POST", path, form, Content_Type=FORM).get_json()["files"]
    assert [(file["format"], file["candidate"]) for file in files] == [("glb", 0), ("stl", 0), ("glb", 1), ("glb", 2)]


@pytest.mark.parametrize(("name", "value"), [("candidates", "0"), ("candidates", "9"), ("keep", "none")])
def test_other_values_are_refused(service: AgentService, name: str, value: str) -> None:
    assert refused(service.generate(image(), field(name, value))) == (400, f"INVALID_{name.upper()}")


def test_a_batch_makes_at_most_sixteen_meshes(service: AgentService) -> None:
    answer = service.batch(*[image("images")] * 3, field("candidates", "6"))
    assert refused(answer) == (400, "TOO_MANY_JOBS")
    assert answer.get_json()["details"] == {"images": 3, "candidates": 6, "most": 16}


def a_result(seed: int, lacks: float | None = None, parts: int = 1, *, watertight: bool = True) -> ShapeResult:
    outline = None if lacks is None else OutlineFacts(0.0, lacks)
    facts = ShapeMetadata("m", 1, seed=seed, outline=outline, parts=parts, watertight=watertight)
    return ShapeResult(sphere(None), None, facts, ball_cutout(), view_aligned=True)


def order(*results: ShapeResult) -> list[int | None]:
    return [candidate.result.metadata.seed for candidate in in_order(results, 100.0)]


def test_what_is_sound_decides_and_between_equals_the_silhouette() -> None:
    assert order(a_result(1, 0.1, parts=3), a_result(2, 0.2)) == [2, 1]
    assert order(a_result(1, 0.2), a_result(2, 0.1)) == [2, 1]
    assert order(a_result(1, 0.2, parts=2), a_result(2, 0.2)) == [2, 1]
    assert order(a_result(1, 0.2, watertight=False), a_result(2, 0.2)) == [2, 1]
    failed = ShapeResult(None, NoSurface(), ShapeMetadata("m", 1, seed=1))
    assert order(failed, a_result(2, 0.9)) == [2, 1]


def test_where_no_outline_is_followed_the_mesh_itself_is_looked_at() -> None:
    flat = a_result(1)
    flat = replace(flat, mesh=trimesh.Trimesh(flat.unwrap().vertices * (1, 0.3, 1), flat.unwrap().faces, process=False))
    found = in_order([flat, a_result(2)], 100.0)
    assert [each.result.metadata.seed for each in found] == [2, 1]
    assert found[1].silhouette_iou is not None
    assert 0.2 < found[1].silhouette_iou < 0.6


def test_the_sheet_shows_every_candidate() -> None:
    failed = ShapeResult(None, NoSurface(), ShapeMetadata("m", 1, seed=3))
    some = [Candidate(a_result(seed), 0.9, 1.0) for seed in (1, 2)]
    two, five = candidate_sheet(some), candidate_sheet([*some, *some, Candidate(failed)])
    assert five.width > 1.9 * two.width
    assert five.height > 1.3 * two.height


def test_a_candidate_is_the_mesh_of_its_seed_alone_and_its_image_is_prepared_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipeline = Hunyuan3DShapePipeline.from_pretrained("demo", device="cpu")
    picture, seeds, cut = (SAMPLES / "mug.png").read_bytes(), [4, 5, 6], list[Any]()

    def remove(*given: Any) -> Any:
        cut.append(given)
        return background.remove_background(*given)

    monkeypatch.setattr("backend.hunyuan3d.preprocess.remove_background", remove)
    together = pipeline([picture] * 3, seeds=seeds, octree_resolution=32)
    assert len(cut) == 1
    for seed, result in zip(seeds, together, strict=True):
        (alone,) = pipeline(picture, seeds=seed, octree_resolution=32)
        assert np.array_equal(result.unwrap().faces, alone.unwrap().faces)
        vertices = result.unwrap().vertices
        np.testing.assert_allclose(vertices, alone.unwrap().vertices, rtol=0, atol=IN_COMPANY)
