"""Batch sizes from free memory and measured costs, and from experience."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from backend.errors import OutOfMemory
from backend.hunyuan3d import Hunyuan3DShapePipeline
from backend.hunyuan3d.device.batch_sizing import (
    CALLS_BEFORE_GROWTH,
    SAFETY,
    BatchSizer,
    MemoryCosts,
    StageCost,
    measure_costs,
)
from backend.hunyuan3d.device.memory import HostMemory
from tests.support.device_meter import FakeMemory
from tests.support.golden import load_golden


def sizer(most: int = 8, free: int = 1000, costs: MemoryCosts | None = None) -> BatchSizer:
    made = BatchSizer(FakeMemory(free=free), most)
    made.costs = costs
    return made


# Costs.


@pytest.mark.parametrize(
    ("fixed", "per_image", "free", "images"),
    [(100, 50, 1000, 11), (100, 50, 224, 1), (100, 50, 300, 2), (100, 50, 0, 1), (0, 0, 10, 16), (100, 0, 10, 1)],
)
def test_as_many_images_fit_as_the_memory_holds(fixed: int, per_image: int, free: int, images: int) -> None:
    assert SAFETY == 1.5
    assert StageCost(fixed, per_image).images(free, 16) == images


def test_a_cost_is_never_negative() -> None:
    with pytest.raises(ValueError, match="negative"):
        StageCost(-1, 4)


def test_an_image_takes_more_at_a_finer_resolution_and_the_greedier_stage_decides() -> None:
    costs = MemoryCosts(sample=StageCost(0, 60), decode=StageCost(40, 10), decoded_at=128)
    assert costs.decode_cost(64) == costs.decode_cost(128) == StageCost(40, 10)
    assert costs.decode_cost(512) == StageCost(40, 160)
    assert [costs.images(resolution, 1000, 99) for resolution in (64, 128, 256, 512)] == [11, 11, 11, 3]


# Capacity.


def test_capacity_follows_the_free_memory() -> None:
    memory = FakeMemory(free=1000)
    made = BatchSizer(memory, 8)
    made.costs = MemoryCosts(StageCost(0, 100), StageCost(0, 1), 128)
    assert made.capacity(128) == 6
    memory.free = 400
    assert made.capacity(128) == 2
    memory.free = 10
    assert made.capacity(128) == 1
    memory.free = 10**9
    assert made.capacity(128) == 8


def test_without_measured_costs_the_capacity_is_what_was_asked_for() -> None:
    assert sizer(most=5, free=0).capacity(512) == 5


def test_what_ran_out_once_is_not_tried_at_once_again() -> None:
    made = sizer(most=8)
    made.ran_out(256, 2)
    assert [made.capacity(resolution) for resolution in (128, 256, 384)] == [8, 2, 2]
    made.ran_out(384, 1)
    assert [made.capacity(resolution) for resolution in (128, 256, 384)] == [8, 2, 1]


def test_larger_batches_are_tried_again_after_enough_calls_without_trouble() -> None:
    made = sizer(most=4)
    made.ran_out(256, 2)
    for _ in range(CALLS_BEFORE_GROWTH - 1):
        made.ran_well()
    assert made.capacity(256) == 2
    made.ran_well()
    assert made.capacity(256) == 3
    made.ran_out(256, 2)
    for _ in range(2 * CALLS_BEFORE_GROWTH):
        made.ran_well()
    assert made.capacity(256) == 4


# Measuring.


@pytest.fixture
def pipeline() -> Hunyuan3DShapePipeline:
    """Return a pipeline that a test may change."""
    return load_golden("tiny-2.1").pipeline()


def metered(pipeline: Hunyuan3DShapePipeline, memory: FakeMemory, sample_limit: int = 99, limit: int = 99) -> None:
    """Make the pipeline take 200 + 30 an image for sampling, 15 + 7 an image and a hundredth a point for decoding."""
    sample_shapes, decode_shapes = pipeline.sample_shapes, pipeline.decode_shapes

    def sample(prepared: Sequence[Any], *options: Any) -> list[Any]:
        if len(prepared) > sample_limit:
            raise OutOfMemory
        memory.take(200 + 30 * len(prepared))
        return sample_shapes(prepared, *options)

    def decode(sampled: Sequence[Any], options: Any, report: Any = None, decode_options: Any = None) -> list[Any]:
        points = (decode_options or pipeline.decode_options).max_points_per_call
        if len(sampled) > limit:
            raise OutOfMemory
        memory.take(15 + 7 * len(sampled) + points // 100)
        return decode_shapes(sampled, options, report, decode_options)

    pipeline.sample_shapes, pipeline.decode_shapes = sample, decode  # type: ignore[method-assign, assignment]


def test_costs_are_what_more_images_add(pipeline: Hunyuan3DShapePipeline) -> None:
    memory = FakeMemory(used_bytes=5000)
    metered(pipeline, memory)
    costs = measure_costs(pipeline, memory, 32)
    assert costs.sample == StageCost(200, 30)
    assert costs.decode == StageCost(15 + 2 * 7 + 65536 // 100, 7)
    assert costs.decoded_at == 32
    assert memory.released == 1


def test_where_two_do_not_fit_one_at_a_time_is_left(pipeline: Hunyuan3DShapePipeline) -> None:
    memory = FakeMemory(total=10_000)
    metered(pipeline, memory, sample_limit=1, limit=1)
    costs = measure_costs(pipeline, memory, 32)
    assert costs.sample == StageCost(0, 10_000)
    assert costs.decode == StageCost(10_000, 10_000)
    assert costs.images(32, 9_999, 8) == 1
    assert memory.released == 1 + 3


def test_where_not_even_one_can_be_sampled_measuring_fails(pipeline: Hunyuan3DShapePipeline) -> None:
    memory = FakeMemory()
    metered(pipeline, memory, sample_limit=0)
    with pytest.raises(OutOfMemory):
        measure_costs(pipeline, memory, 32)


def test_a_real_run_costs_something_on_this_machine(pipeline: Hunyuan3DShapePipeline) -> None:
    costs = measure_costs(pipeline, HostMemory(), 32)
    assert costs.decode.fixed > 0
    assert costs.images(32, HostMemory().state().memory_free, 4) == 4
    assert pipeline.device == torch.device("cpu")
