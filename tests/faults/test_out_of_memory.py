"""A device that runs out of memory, from the job table down to the network: batches halve, and no job is stuck."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image, ImageOps

from backend.batch_inference_extension import add_batch_inference_to_processor
from backend.hunyuan3d.options import ImageOptions
from backend.hunyuan_integration import Hunyuan3DProcessor
from backend.jobs.metadata import JobMetadata
from tests.support.device_meter import FakeMemory
from tests.support.faults.report import report
from tests.support.golden import load_golden
from tests.support.shortage import STAGES, Shortage
from tests.support.store_backends import empty_database, open_database
from tests.support.workshop import Workshop, workshop

pytestmark = pytest.mark.slow

JOBS = 4
NAMES = {"encode": "batch", "sample": "batch", "decode": "decode batch"}


def four_images() -> list[bytes]:
    """All different: what is the same is encoded once."""
    contents = [(load_golden("tiny-2.1").folder / f"image{k}.png").read_bytes() for k in range(JOBS - 1)]
    mirrored = io.BytesIO()
    ImageOps.mirror(Image.open(io.BytesIO(contents[0]))).save(mirrored, "PNG")
    return [*contents, mirrored.getvalue()]


def run_jobs(shop: Workshop, fits: Callable[[int], bool], stage: str) -> list[str]:
    """Run four jobs on the tiny checkpoint, whose device has room for so many at that stage."""
    processor = Hunyuan3DProcessor(load_golden("tiny-2.1").pipeline(), FakeMemory(), JOBS)
    STAGES[stage](Shortage(fits), processor.pipeline)
    generate = add_batch_inference_to_processor(processor).generate_shape_batch

    def quickly(images: list[bytes], options: list[ImageOptions], **others: Any) -> Any:
        generation = replace(options[0].generation, num_inference_steps=3, octree_resolution=16)
        return generate(images, options=[replace(own, generation=generation) for own in options], **others)

    processor.generate_shape_batch = cast(Any, quickly)
    ids = [shop.submit(content, quality=1, remove_background="never") for content in four_images()]
    assert shop.worker(open_processor=lambda: processor).run_once() == JOBS
    return ids


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("least", "halvings"), [(4, ("4→2",)), (2, ("4→2", "2→1"))], ids=["at 4", "at 2"])
def test_a_batch_that_does_not_fit_is_halved(tmp_path: Path, stage: str, least: int, halvings: tuple[str, ...]) -> None:
    with open_database(empty_database("sqlite", tmp_path)) as database, workshop(tmp_path, database) as shop:
        jobs = [shop.job(job_id) for job_id in run_jobs(shop, lambda size: size < least, stage)]
        assert [job.status.value for job in jobs] == ["completed"] * JOBS
        done = [JobMetadata.model_validate_json(job.metadata or "") for job in jobs]
        assert {each.fallbacks for each in done} == {tuple(f"{NAMES[stage]} {each}" for each in halvings)}
        # A mesh, the cut-out and the shape that further formats are made from.
        assert len(shop.files("artifacts")) == 3 * JOBS
    made = f"{JOBS} jobs, at batch {least}: {stage}"
    report("device out of memory", made, f"all completed after {', '.join(halvings)}")


@pytest.mark.parametrize("stage", STAGES)
def test_a_picture_that_never_fits_fails_by_name(tmp_path: Path, stage: str) -> None:
    with open_database(empty_database("sqlite", tmp_path)) as database, workshop(tmp_path, database) as shop:
        jobs = [shop.job(job_id) for job_id in run_jobs(shop, lambda _: False, stage)]
        assert Counter(job.error_code for job in jobs) == {"OUT_OF_MEMORY": JOBS}
        assert shop.files("artifacts") == []
    report("device out of memory", f"{JOBS} jobs, always: {stage}", "each fails with OUT_OF_MEMORY")
