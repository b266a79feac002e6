"""A worker with a real job table and real files: what runs together, and that each job ends by itself."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image

from backend.batch_inference_extension import add_batch_inference_to_processor
from backend.config import Settings
from backend.errors import (
    NoForeground,
    OutOfMemory,
)
from backend.hunyuan_integration import get_3d_processor
from backend.jobs.metadata import AccelerationOut, BackgroundOut, JobMetadata
from backend.jobs.models import Job, NewJob, Status
from tests.support.fake_gpu import FakeCall
from tests.support.own_process import printed
from tests.support.store_backends import empty_database, open_database
from tests.support.workshop import Workshop, eventually, workshop


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Workshop]:
    url = empty_database("sqlite", tmp_path)
    with open_database(url) as database, workshop(tmp_path, database) as made:
        yield made


def metadata_of(job: Job) -> JobMetadata:
    assert job.metadata is not None
    return JobMetadata.from_json(job.metadata)


def blank_image() -> bytes:
    data = io.BytesIO()
    Image.new("RGBA", (64, 64), (255, 255, 255, 0)).save(data, "PNG")
    return data.getvalue()


def test_a_bad_image_is_reported_while_the_others_still_run(shop: Workshop) -> None:
    good, bad = shop.submit(b"good", steps=10), shop.submit(b"bad", steps=10)
    shop.fake.bad[b"bad"] = NoForeground()
    seen: list[tuple[Status, Status]] = []

    def look(step: int) -> None:
        if step == 5:
            eventually(lambda: shop.job(bad).status is Status.FAILED)
            seen.append((shop.job(bad).status, shop.job(good).status))

    shop.fake.at_step = look
    shop.work_off()
    assert seen == [(Status.FAILED, Status.PROCESSING)]
    assert (shop.job(bad).error_code, shop.job(good).status) == ("NO_FOREGROUND", Status.COMPLETED)
    assert metadata_of(shop.job(bad)).seed == 7
    assert shop.counts.outcomes == {"COMPLETED": 1, "NO_FOREGROUND": 1}
    assert shop.files("inputs") == [shop.job(good).image_name]


def test_a_bad_image_is_not_run_again_when_the_others_fail_together(shop: Workshop) -> None:
    good = [shop.submit(b"1", steps=10), shop.submit(b"2", steps=10)]
    bad = shop.submit(b"bad", steps=10)
    shop.fake.bad[b"bad"] = NoForeground()

    def fail_together(call: FakeCall) -> None:
        if len(call.images) > 1:
            raise RuntimeError("all at once")

    shop.fake.at_step = lambda _: fail_together(shop.fake.calls[-1])
    shop.work_off()
    assert [call.images for call in shop.fake.calls] == [[b"1", b"2", b"bad"], [b"1"], [b"2"]]
    assert [shop.job(job_id).status for job_id in (*good, bad)] == [Status.COMPLETED, Status.COMPLETED, Status.FAILED]
    assert shop.job(bad).error_code == "NO_FOREGROUND"


def test_jobs_that_may_run_together_share_a_device_call_and_others_wait(shop: Workshop) -> None:
    alike = [shop.submit(bytes([k]), steps=10) for k in range(3)]
    other = shop.submit(b"other", steps=20)
    worker = shop.worker()
    assert (worker.run_once(), worker.run_once(), worker.run_once()) == (3, 1, 0)
    assert [call.images for call in shop.fake.calls] == [[b"\0", b"\1", b"\2"], [b"other"]]
    assert {shop.job(job_id).status for job_id in (*alike, other)} == {Status.COMPLETED}
    assert [metadata_of(shop.job(job_id)).batch_size for job_id in (*alike, other)] == [3, 3, 3, 1]
    assert shop.counts.batches == [3, 1]
    assert shop.counts.outcomes == {"COMPLETED": 4}
    assert shop.counts.stages["sample"] == shop.counts.stages["export"] == 4


def test_a_batch_is_no_larger_than_the_device_and_the_settings_allow(shop: Workshop) -> None:
    for _ in range(6):
        shop.submit()
    shop.fake.capacity = 2
    worker = shop.worker()
    assert worker.run_once() == 2
    shop.fake.capacity = 100
    assert worker.run_once() == shop.settings.max_batch_size == 4


def test_a_request_reaches_the_device_as_it_was_made(shop: Workshop) -> None:
    shop.submit(
        b"a", seed=11, target_faces=200, remove_background="never", guidance_scale=3.5, quality=4, acceleration="fast"
    )
    shop.submit(b"b", seed=12, guidance_scale=3.5, quality=4, acceleration="fast")
    shop.worker().run_once()
    (call,) = shop.fake.calls
    assert (call.seeds, call.target_faces, call.background) == ([11, 12], [200, 31_623], ["never", "auto"])
    assert (call.guidance, call.resolution, call.steps, call.acceleration) == (3.5, 256, 4, "fast")


@pytest.mark.parametrize("scale_mm", [100.0, 40.0])
def test_formats_and_face_targets_share_a_batch_and_metadata_is_what_each_file_has(
    shop: Workshop, scale_mm: float
) -> None:
    wanted: dict[str, int | str] = {"glb": "none", "stl": 100, "obj": 100, "ply": "none"}
    ids = {fmt: shop.submit(format=fmt, target_faces=faces, scale_mm=scale_mm) for fmt, faces in wanted.items()}
    assert shop.worker().run_once() == 4
    for fmt, job_id in ids.items():
        job = shop.job(job_id)
        metadata = metadata_of(job)
        assert job.artifact is not None
        data = (shop.folder / "artifacts" / job.artifact).read_bytes()
        mesh = trimesh.load_mesh(io.BytesIO(data), file_type=fmt)
        assert (metadata.format, metadata.file_size, metadata.batch_size) == (fmt, len(data), 4)
        assert metadata.faces == len(mesh.faces) == (320 if wanted[fmt] == "none" else 80)
        assert metadata.target_faces == (None if wanted[fmt] == "none" else wanted[fmt])
        assert metadata.vertices == len(mesh.vertices)
        assert metadata.watertight is mesh.is_watertight is True
        assert metadata.unit == ("m" if fmt == "glb" else "mm")
        assert metadata.bounds is not None
        np.testing.assert_allclose(np.array(metadata.bounds), mesh.bounds, rtol=1e-5, atol=1e-6)


def test_metadata_names_all_that_was_done(shop: Workshop) -> None:
    shop.fake.fallbacks = ("batch 4→2",)
    job_id = shop.submit(seed=5, quality=2)
    shop.clock.advance(3)
    shop.worker().run_once()
    metadata = metadata_of(shop.job(job_id))
    assert (metadata.seed, metadata.quality, metadata.octree_resolution) == (5, 2, 176)
    assert (metadata.steps, metadata.guidance_scale, metadata.model) == (4, 5.0, "fake model")
    assert metadata.background == BackgroundOut(method="alpha", score=1, border=0, objects=1)
    assert metadata.fallbacks == ("batch 4→2",)
    assert metadata.acceleration == AccelerationOut(mode="none", evaluations=2, without=3, measured_on="demo")
    seconds = metadata.seconds
    assert (seconds.queued, seconds.preprocess, seconds.encode, seconds.sample) == (3.0, 0.01, 0.02, 0.4)
    assert (seconds.decode, seconds.mesh, seconds.total) == (0.1, 0.05, 0.0)
    assert seconds.export is not None


def test_a_job_waits_for_batch_mates(tmp_path: Path) -> None:
    url = empty_database("sqlite", tmp_path)
    with (
        open_database(url) as database,
        workshop(tmp_path, database, batch_wait_seconds=60.0, max_batch_size=2) as shop,
    ):
        first = shop.submit(b"first")

        def bring_batch_mates() -> None:
            eventually(lambda: shop.job(first).status is Status.PROCESSING)
            shop.submit(b"other", steps=50)
            shop.notifier.notify()
            shop.submit(b"second")
            shop.notifier.notify()

        friend = threading.Thread(target=bring_batch_mates)
        friend.start()
        taken = shop.worker().run_once()
        friend.join()
        assert taken == 2
        assert shop.fake.calls[0].images == [b"first", b"second"]


def test_a_job_whose_runs_died_twice_runs_alone(shop: Workshop) -> None:
    ids = [shop.submit(bytes([k])) for k in range(2)]
    for _ in range(2):
        assert len(shop.store.lease("doomed", 4, 60)) == 2
        shop.clock.advance(60)
    worker = shop.worker()
    assert (worker.run_once(), worker.run_once()) == (1, 1)
    assert {shop.job(job_id).status for job_id in ids} == {Status.COMPLETED}


def test_a_new_worker_picks_up_what_a_dead_one_left(shop: Workshop) -> None:
    job_id = shop.submit()
    assert shop.store.lease("dead", 1, 60)
    worker = shop.worker()
    assert worker.run_once() == 0
    shop.clock.advance(60)
    assert worker.run_once() == 1
    assert (shop.job(job_id).status, shop.job(job_id).attempts) == (Status.COMPLETED, 2)


def test_the_picture_stays_with_the_mesh_and_goes_when_there_is_none(shop: Workshop) -> None:
    good, bad = shop.submit(b"good"), shop.submit(b"bad")
    shop.fake.errors = {b"bad": NoForeground()}
    before = shop.files("inputs")
    shop.worker().run_once()
    assert (len(before), shop.files("inputs")) == (2, [shop.job(good).image_name])
    assert shop.job(good).status is Status.COMPLETED
    assert (shop.job(bad).error_code, shop.job(bad).error_message) == ("NO_FOREGROUND", NoForeground().message)
    assert metadata_of(shop.job(bad)).steps == 4


def test_running_out_of_memory_is_told_with_what_was_tried(shop: Workshop) -> None:
    job_id = shop.submit(b"huge")
    shop.fake.errors = {b"huge": OutOfMemory()}
    shop.fake.fallbacks = ("batch 2→1", "decode chunk 65536→32768")
    shop.worker().run_once()
    job = shop.job(job_id)
    assert (job.status, job.error_code) == (Status.FAILED, "OUT_OF_MEMORY")
    assert metadata_of(job).fallbacks == shop.fake.fallbacks
    assert shop.counts.outcomes == {"OUT_OF_MEMORY": 1}


@pytest.mark.parametrize(
    ("failure", "code"), [(ValueError("secret"), "GENERATION_FAILED"), (MemoryError(), "OUT_OF_MEMORY")]
)
def test_a_picture_that_blows_up_a_batch_fails_alone(shop: Workshop, failure: Exception, code: str) -> None:
    def explode(call: FakeCall) -> None:
        if b"poison" in call.images:
            raise failure

    shop.fake.before_call = explode
    ids = [shop.submit(image) for image in (b"a", b"poison", b"c")]
    worker = shop.worker()
    assert worker.run_once() == 3
    assert [len(call.images) for call in shop.fake.calls] == [3, 1, 1, 1]
    jobs = [shop.job(job_id) for job_id in ids]
    assert [job.status for job in jobs] == [Status.COMPLETED, Status.FAILED, Status.COMPLETED]
    assert (jobs[1].error_code, jobs[1].attempts) == (code, 1)
    assert "secret" not in str(jobs[1].error_message)
    assert shop.files("inputs") == sorted(job.image_name for job in jobs if job is not jobs[1])


def test_a_mesh_that_cannot_be_drawn_fails_its_own_job_only(shop: Workshop) -> None:
    def explode(image: bytes) -> None:
        if image == b"poison":
            raise RuntimeError("secret")

    shop.fake.before_finish = explode
    bad, good = shop.submit(b"poison"), shop.submit(b"good")
    shop.worker().run_once()
    assert (shop.job(bad).status, shop.job(bad).error_code) == (Status.FAILED, "GENERATION_FAILED")
    assert shop.job(good).status is Status.COMPLETED


def test_a_job_whose_picture_is_gone_fails_by_name(shop: Workshop) -> None:
    lost, fine = shop.submit(b"lost"), shop.submit(b"fine")
    shop.images.delete(shop.job(lost).image_name)
    assert shop.worker().run_once() == 2
    assert (shop.job(lost).status, shop.job(lost).error_code) == (Status.FAILED, "PICTURE_LOST")
    assert shop.job(fine).status is Status.COMPLETED


def test_a_request_that_cannot_be_read_fails_by_name(shop: Workshop) -> None:
    new = NewJob('{"format": "docx"}', "any", "0" * 32 + ".png")
    (job_id,) = shop.store.submit("ann", [new], queue_limit=9, agent_limit=9).job_ids
    assert shop.worker().run_once() == 1
    assert (shop.job(job_id).status, shop.job(job_id).error_code) == (Status.FAILED, "REQUEST_UNREADABLE")
    assert shop.fake.calls == []


def test_progress_and_step_are_seen_while_the_device_works(shop: Workshop) -> None:
    job_id = shop.submit(steps=20)
    seen: list[Job] = []

    def look(step: int) -> None:
        if step == 11:
            eventually(lambda: shop.job(job_id).current_step == "sample 10/20")
            seen.append(shop.job(job_id))

    shop.fake.at_step = look
    shop.worker().run_once()
    # Between two steps it goes on with time, and nearly as far as the next step.
    assert seen[0].status is Status.PROCESSING
    assert 31 <= seen[0].progress <= 33
    assert (shop.job(job_id).progress, shop.job(job_id).current_step) == (100, "completed")


def test_the_eta_of_a_second_job_comes_from_the_first(shop: Workshop) -> None:
    worker = shop.worker()
    shop.submit(steps=20)
    worker.run_once()
    job_id = shop.submit(steps=20)
    seen: list[Job] = []

    def look(step: int) -> None:
        if step == 11:
            eventually(lambda: shop.job(job_id).current_step == "sample 10/20")
            seen.append(shop.job(job_id))

    shop.fake.at_step = look
    worker.run_once()
    assert seen[0].eta_seconds == pytest.approx(0.2 + 0.1 + 0.05, abs=0.2)


def test_one_of_a_batch_is_cancelled_while_the_others_go_on(shop: Workshop) -> None:
    ids = [shop.submit(bytes([k])) for k in range(3)]

    def cancel(step: int) -> None:
        if step == 2:
            shop.store.cancel(ids[1], "ann")
            eventually(lambda: shop.job(ids[1]).status is Status.CANCELLED)

    shop.fake.at_step = cancel
    shop.worker().run_once()
    assert [shop.job(job_id).status for job_id in ids] == [Status.COMPLETED, Status.CANCELLED, Status.COMPLETED]
    assert (shop.job(ids[1]).artifact, shop.files("artifacts")) == (None, shop.kept(*ids))
    assert shop.files("inputs") == sorted(shop.job(ids[k]).image_name for k in (0, 2))
    assert shop.counts.outcomes == {"COMPLETED": 2, "CANCELLED": 1}


def test_the_device_stops_when_all_of_a_batch_are_cancelled(shop: Workshop) -> None:
    ids = [shop.submit(bytes([k])) for k in range(2)]

    def cancel(step: int) -> None:
        if step == 2:
            for job_id in ids:
                shop.store.cancel(job_id, "ann")
            eventually(lambda: all(shop.job(job_id).status is Status.CANCELLED for job_id in ids))

    shop.fake.at_step = cancel
    worker = shop.worker()
    assert worker.run_once() == 2
    assert (shop.fake.calls[0].steps_done, shop.fake.calls[0].ended is None) == (1, False)
    assert shop.files("artifacts") == shop.files("inputs") == []
    shop.fake.at_step = lambda _: None
    after = shop.submit()
    worker.run_once()
    assert shop.job(after).status is Status.COMPLETED


def test_a_job_cancelled_while_its_mesh_is_drawn_leaves_no_file(shop: Workshop) -> None:
    job_id = shop.submit()

    def cancel(_: bytes) -> None:
        shop.store.cancel(job_id, "ann")
        eventually(lambda: shop.job(job_id).status is Status.CANCELLED)

    shop.fake.before_finish = cancel
    shop.worker().run_once()
    assert shop.job(job_id).status is Status.CANCELLED
    assert shop.files("artifacts") == []


def test_the_device_goes_on_while_a_mesh_is_drawn(shop: Workshop) -> None:
    second_began = threading.Event()
    order: list[str] = []

    def note_call(call: FakeCall) -> None:
        order.append(f"device {call.images[0].decode()}")
        if call.images == [b"two"]:
            second_began.set()

    def draw(image: bytes) -> None:
        if image == b"one":
            assert second_began.wait(20)
        order.append(f"drawn {image.decode()}")

    shop.fake.before_call, shop.fake.before_finish, shop.fake.capacity = note_call, draw, 1
    ids = [shop.submit(b"one"), shop.submit(b"two")]
    shop.worker().start()
    eventually(lambda: all(shop.job(job_id).status is Status.COMPLETED for job_id in ids))
    assert order.index("device two") < order.index("drawn one")


def test_a_queue_is_worked_off_group_by_group(shop: Workshop) -> None:
    shop.fake.capacity = 2
    ids = [shop.submit() for _ in range(5)]
    assert shop.work_off() == 5
    assert [len(call.images) for call in shop.fake.calls] == [2, 2, 1]
    assert {shop.job(job_id).status for job_id in ids} == {Status.COMPLETED}


@pytest.mark.slow
def test_the_demo_checkpoint_makes_meshes_whose_files_are_what_the_metadata_says(shop: Workshop) -> None:
    processor = add_batch_inference_to_processor(get_3d_processor(Settings(data_dir=shop.folder, device="cpu")))
    samples = Path(__file__).parent.parent / "samples"
    fields: dict[str, Any] = {"quality": 1, "steps": 10, "seed": 3}
    ids = {
        "glb": shop.submit((samples / "mug.png").read_bytes(), format="glb", **fields),
        "stl": shop.submit((samples / "rocket.png").read_bytes(), format="stl", target_faces=500, **fields),
    }
    blank = shop.submit(blank_image(), **fields)
    assert shop.worker(open_processor=lambda: processor).run_once() == 3
    for fmt, job_id in ids.items():
        job = shop.job(job_id)
        assert (job.status, job.error_message) == (Status.COMPLETED, None)
        assert job.artifact is not None
        metadata = metadata_of(job)
        mesh = trimesh.load_mesh(io.BytesIO((shop.folder / "artifacts" / job.artifact).read_bytes()), file_type=fmt)
        assert (metadata.faces, metadata.seed, metadata.steps) == (len(mesh.faces), 3, 10)
        assert (metadata.model, metadata.octree_resolution, metadata.watertight) == (processor.name, 128, True)
        np.testing.assert_allclose(np.array(metadata.bounds), mesh.bounds, rtol=1e-4, atol=1e-4)
        assert None not in metadata.seconds.model_dump().values()
    assert shop.job(blank).error_code == "NO_FOREGROUND"


def test_importing_a_worker_loads_no_model_code() -> None:
    program = "import sys, backend.batch_processor; print(sorted({'torch', 'trimesh', 'cv2'} & set(sys.modules)))"
    assert printed(program) == "[]\n"
