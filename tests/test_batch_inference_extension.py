"""Batches in parts that fit, the ladder when memory runs out, progress, cancelling, and errors that stay alone."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from backend.batch_inference_extension import BatchProgress, add_batch_inference_to_processor
from backend.errors import (
    InvalidBackgroundMode,
    InvalidSeed,
    InvalidTargetFaces,
    MissingImage,
    NoSurface,
    OutOfMemory,
    UnsupportedImage,
)
from backend.hunyuan3d.device.batch_sizing import MemoryCosts, StageCost
from backend.hunyuan3d.options import GenerationOptions, ImageOptions
from backend.hunyuan3d.results import ShapeResult
from backend.hunyuan3d.volume.decode import DecodeOptions
from backend.hunyuan_integration import Hunyuan3DProcessor
from tests.support.device_meter import FakeMemory
from tests.support.golden import load_golden
from tests.support.shortage import STAGES, Shortage
from tests.support.workshop import eventually

QUICK: dict[str, Any] = {"num_inference_steps": 3, "octree_resolution": 16, "remove_background": "never"}
SEEDS = [3, 4, 5, 6]


def images(count: int = 4) -> list[Any]:
    """Up to four pictures, all different."""
    folder = load_golden("tiny-2.1").folder
    paths = [folder / f"image{k}.png" for k in range(3)]
    return [*paths, np.asarray(Image.open(paths[0]))[:, ::-1].copy()][:count]


def make(most: int = 4, name: str = "tiny-2.1") -> Hunyuan3DProcessor:
    """Return a processor of its own, with a fake meter, that a test may change."""
    pipeline = load_golden(name).pipeline()
    return add_batch_inference_to_processor(Hunyuan3DProcessor(pipeline, FakeMemory(), most))


@pytest.fixture(scope="module")
def undisturbed() -> list[ShapeResult]:
    """Return what the four pictures give where memory never runs out."""
    return make().generate_shape_batch(images(), seeds=SEEDS, **QUICK)


def assert_same_meshes(results: list[ShapeResult], expected: list[ShapeResult]) -> None:
    for result, other in zip(results, expected, strict=True):
        mesh, known = result.unwrap(), other.unwrap()
        assert len(mesh.faces) == pytest.approx(len(known.faces), rel=1e-3)
        np.testing.assert_allclose(mesh.bounds, known.bounds, atol=1e-3)
        assert mesh.volume == pytest.approx(known.volume, rel=1e-3)


def never_fits(_: int) -> bool:
    return False


@pytest.fixture(params=STAGES)
def stage(request: pytest.FixtureRequest) -> str:
    """Return each stage on the device in turn."""
    return str(request.param)


def short_of(fits: Callable[[int], bool], stage: str, most: int = 4) -> tuple[Hunyuan3DProcessor, Shortage]:
    processor, shortage = make(most), Shortage(fits)
    STAGES[stage](shortage, processor.pipeline)
    return processor, shortage


# The processor's new method.


def test_a_processor_gets_its_method_once() -> None:
    processor = Hunyuan3DProcessor(load_golden("tiny-2.1").pipeline(), FakeMemory(), 4)
    assert not hasattr(processor, "generate_shape_batch")
    assert add_batch_inference_to_processor(processor) is processor
    method = processor.generate_shape_batch
    assert add_batch_inference_to_processor(processor).generate_shape_batch is method


def test_results_are_those_of_the_pipeline(undisturbed: list[ShapeResult]) -> None:
    direct = make().pipeline(images(), seeds=SEEDS, **QUICK)
    assert_same_meshes(undisturbed, direct)
    assert [r.metadata.seed for r in undisturbed] == SEEDS
    assert all(r.metadata.batch_size == 4 and r.metadata.fallbacks == () for r in undisturbed)


def test_more_images_than_fit_run_in_parts(undisturbed: list[ShapeResult]) -> None:
    results = make(most=3).generate_shape_batch(images(), seeds=SEEDS, **QUICK)
    assert_same_meshes(results, undisturbed)
    assert [r.metadata.batch_size for r in results] == [3, 3, 3, 1]
    assert {r.metadata.fallbacks for r in results} == {()}


def test_each_image_has_its_own_target_and_background() -> None:
    opaque = Image.new("RGB", (160, 160), (250, 250, 250))
    opaque.paste((30, 90, 160), (50, 40, 110, 120))
    results = make().generate_shape_batch(
        [opaque, opaque, images()[0]],
        seeds=1,
        num_inference_steps=3,
        octree_resolution=16,
        target_faces=[None, 1200, 800],
        remove_background=["always", "never", "auto"],
    )
    assert results[0].metadata.faces == results[0].metadata.faces_found
    assert [r.metadata.target_faces for r in results] == [None, 1200, 800]
    methods = [r.metadata.background.method for r in results if r.metadata.background is not None]
    assert methods[0] not in ("none", None)
    assert methods[1:] == ["none", "alpha"]


def test_one_bad_image_stays_alone(undisturbed: list[ShapeResult]) -> None:
    good = images()
    seen: list[tuple[str, int]] = []
    results = make().generate_shape_batch(
        [good[0], b"rubbish", good[1]],
        seeds=[3, 9, 4],
        on_refused=lambda index, shape: seen.append((type(shape.error).__name__, index)),
        on_progress=lambda progress: seen.append((progress.stage, progress.done)),
        **QUICK,
    )
    assert isinstance(results[1].error, UnsupportedImage)
    # Before the device is used.
    assert seen.index(("UnsupportedImage", 1)) < seen.index(("encode", 0) if ("encode", 0) in seen else ("encode", 1))
    assert_same_meshes([results[0], results[2]], undisturbed[:2])
    assert [r.metadata.batch_size for r in results] == [2, 0, 2]


def test_objects_with_different_views_run_apart() -> None:
    three, other = load_golden("tiny-2mv").images
    assert isinstance(other, dict)
    seen: list[BatchProgress] = []
    items: list[Any] = [three, {"back": other["back"]}, other]
    results = make(name="tiny-2mv").generate_shape_batch(items, seeds=2, on_progress=seen.append, **QUICK)
    assert [r.metadata.batch_size for r in results] == [2, 1, 2]
    assert {p.indices for p in seen if p.stage == "sample"} == {(0, 2), (1,)}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"seeds": [1, 2]}, InvalidSeed),
        ({"target_faces": [None, 500]}, InvalidTargetFaces),
        ({"target_faces": [None, 500, 5]}, InvalidTargetFaces),
        ({"remove_background": ["auto"]}, InvalidBackgroundMode),
        ({"remove_background": ["auto", "never", "perhaps"]}, InvalidBackgroundMode),
    ],
)
def test_what_is_asked_must_fit_the_images(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        make().generate_shape_batch(images(3), **{**QUICK, **options})


def test_no_image_is_an_error() -> None:
    with pytest.raises(MissingImage):
        make().generate_shape_batch([])


# Ready options.


def test_ready_options_make_the_same_meshes(undisturbed: list[ShapeResult]) -> None:
    generation = load_golden("tiny-2.1").pipeline().options(3, octree_resolution=16)
    options = [ImageOptions(generation, seed, remove_background="never") for seed in SEEDS]
    assert_same_meshes(make().generate_shape_batch(images(), options=options), undisturbed)


def test_options_come_ready_or_one_by_one() -> None:
    ready = [ImageOptions(GenerationOptions(3, 5.0, 16), 1)]
    with pytest.raises(TypeError, match="seeds"):
        make().generate_shape_batch(images(1), options=ready, seeds=1)


def test_a_capacity_that_is_given_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = make()
    monkeypatch.delattr(Hunyuan3DProcessor, "batch_capacity")
    results = processor.generate_shape_batch(images(3), seeds=1, capacity=2, **QUICK)
    assert [result.metadata.batch_size for result in results] == [2, 2, 1]


# Meshes later.


def test_meshes_may_be_drawn_later_on_another_thread(undisturbed: list[ShapeResult]) -> None:
    seen: list[BatchProgress] = []
    items = [*images(2), b"rubbish"]
    pending = make().generate_shape_batch(items, seeds=[3, 4, 5], on_progress=seen.append, finish=False, **QUICK)
    assert [type(shape.error) for shape in pending] == [type(None), type(None), UnsupportedImage]
    assert "mesh" not in {p.stage for p in seen}
    results: list[ShapeResult] = []
    thread = threading.Thread(target=lambda: results.extend(shape.build_mesh() for shape in pending))
    thread.start()
    thread.join()
    assert_same_meshes(results[:2], undisturbed[:2])
    assert results[0].metadata.seconds.mesh > 0
    assert results[0].metadata.seconds.decode == pending[0].metadata.seconds.decode > 0
    assert isinstance(results[2].error, UnsupportedImage)


def test_a_field_without_a_surface_is_found_when_the_mesh_is_drawn() -> None:
    processor = make()
    with torch.no_grad():
        processor.pipeline.shape_vae.geo_decoder.output_proj.bias.sub_(1000)
    (pending,) = processor.generate_shape_batch(images(1), seeds=1, finish=False, **QUICK)
    assert pending.error is None
    assert isinstance(pending.build_mesh().error, NoSurface)


# Running out of memory.


@pytest.mark.parametrize(
    ("fits", "sizes", "fallbacks"),
    [(2, [2] * 4, ("batch 4→2",)), (1, [1] * 4, ("batch 4→2", "batch 2→1")), (3, [2] * 4, ("batch 4→2",))],
)
def test_a_batch_that_does_not_fit_is_halved(
    stage: str, fits: int, sizes: list[int], fallbacks: tuple[str, ...], undisturbed: list[ShapeResult]
) -> None:
    processor, _ = short_of(lambda size: size <= fits, stage)
    results = processor.generate_shape_batch(images(), seeds=SEEDS, **QUICK)
    assert_same_meshes(results, undisturbed)
    named = fallbacks if stage != "decode" else tuple(f"decode {step}" for step in fallbacks)
    assert {r.metadata.fallbacks for r in results} == {named}
    assert [r.metadata.batch_size for r in results] == (sizes if stage != "decode" else [4] * 4)
    assert isinstance(processor.memory, FakeMemory)
    assert processor.memory.released == len(fallbacks)


def test_images_that_never_fit_are_out_of_memory_and_nothing_else_is(stage: str) -> None:
    processor, shortage = short_of(never_fits, stage)
    results = processor.generate_shape_batch(images(), seeds=SEEDS, **QUICK)
    assert {type(r.error) for r in results} == {OutOfMemory}
    assert all(r.metadata.fallbacks[-1] in ("batch 2→1", "decode chunk 2048→1024") for r in results)
    shortage.fits = lambda _: True
    assert all(r.ok for r in processor.generate_shape_batch(images(2), seeds=1, **QUICK))


def test_one_image_that_does_not_fit_does_not_harm_the_others(undisturbed: list[ShapeResult]) -> None:
    processor, shortage = short_of(never_fits, "sample", most=1)
    shortage.fits = lambda _: len(shortage.sizes) != 3
    results = processor.generate_shape_batch(images(), seeds=SEEDS, **QUICK)
    assert [type(r.error) for r in results] == [type(None), OutOfMemory, type(None), type(None)]
    assert_same_meshes([results[k] for k in (0, 2, 3)], [undisturbed[k] for k in (0, 2, 3)])


def test_decoding_asks_for_fewer_points_when_one_image_is_too_much(undisturbed: list[ShapeResult]) -> None:
    processor, shortage = make(), Shortage(lambda points: points <= 2000)
    shortage.while_asking(processor.pipeline)
    processor.pipeline.decode_options = DecodeOptions(max_points_per_call=4096)
    results = processor.generate_shape_batch(images(), seeds=SEEDS, **QUICK)
    assert_same_meshes(results, undisturbed)
    expected = ("decode batch 4→2", "decode batch 2→1", "decode chunk 4096→2048", "decode chunk 2048→1024")
    assert {r.metadata.fallbacks for r in results} == {expected}
    assert processor.pipeline.decode_options.max_points_per_call == 4096


def test_points_are_halved_down_to_a_floor_only() -> None:
    options = DecodeOptions(max_points_per_call=4096)
    half = options.halved()
    assert half.max_points_per_call == 2048
    least = half.halved()
    assert least.max_points_per_call == 1024
    assert least.halved() is least


def test_no_step_is_sampled_twice_when_decoding_runs_out(stage: str) -> None:
    processor, _ = short_of(lambda size: size <= 1, stage)
    steps: list[int] = []
    velocity = processor.pipeline.denoiser.velocity

    def counted(x: Tensor, *others: Any) -> Tensor:
        out = velocity(x, *others)
        steps.append(len(x))
        return out

    processor.pipeline.denoiser.velocity = counted  # type: ignore[method-assign, assignment]
    processor.generate_shape_batch(images(), seeds=SEEDS, **QUICK)
    assert steps == ([4, 4] if stage == "decode" else [1] * 8)


def test_memory_is_free_before_the_next_try(stage: str) -> None:
    processor, shortage = short_of(lambda size: size <= 1, stage)
    alive: list[list[bool]] = []
    assert isinstance(processor.memory, FakeMemory)
    processor.memory.on_release.append(lambda: alive.append([ref() is not None for ref in shortage.held]))
    gc.collect()
    gc.disable()
    try:
        processor.generate_shape_batch(images(), seeds=SEEDS, **QUICK)
    finally:
        gc.enable()
    assert alive == [[False], [False, False]]


def test_a_result_that_is_out_of_memory_keeps_no_tensor(stage: str) -> None:
    processor, shortage = short_of(never_fits, stage)
    pending = processor.generate_shape_batch(images(1), seeds=1, finish=False, **QUICK)
    assert isinstance(pending[0].error, OutOfMemory)
    assert shortage.held
    assert all(ref() is None for ref in shortage.held)


def test_later_calls_begin_with_what_went_through(stage: str) -> None:
    processor, shortage = short_of(lambda size: size <= 2, stage)
    processor.generate_shape_batch(images(), seeds=SEEDS, **QUICK)
    shortage.sizes.clear()
    results = processor.generate_shape_batch(images(), seeds=SEEDS, **QUICK)
    assert {r.metadata.fallbacks for r in results} == {()}
    assert set(shortage.sizes) == {2}
    assert processor.batch_capacity(8) == 4


def test_the_capacity_is_the_sizers(undisturbed: list[ShapeResult]) -> None:
    processor = make()
    processor.sizer.costs = MemoryCosts(StageCost(0, 200), StageCost(0, 1), 16)
    assert processor.batch_capacity(16) == 3
    results = processor.generate_shape_batch(images(), seeds=SEEDS, **QUICK)
    assert [r.metadata.batch_size for r in results] == [3, 3, 3, 1]
    processor.sizer.ran_out(16, 1)
    results = processor.generate_shape_batch(images(), seeds=SEEDS, **QUICK)
    assert [r.metadata.batch_size for r in results] == [1] * 4
    assert_same_meshes(results, undisturbed)


def test_an_image_too_large_for_main_memory_is_its_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = make()
    process = type(processor.pipeline.image_processor).process

    def process_or_not(own: Any, image: Image.Image) -> Any:
        if image.width == 1000:
            raise MemoryError
        return process(own, image)

    monkeypatch.setattr(type(processor.pipeline.image_processor), "process", process_or_not)
    huge = Image.new("RGBA", (1000, 600), (1, 2, 3, 255))
    results = processor.generate_shape_batch([huge, *images(1)], seeds=1, **QUICK)
    assert [type(r.error) for r in results] == [OutOfMemory, type(None)]


def test_an_unexpected_failure_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = make()

    def breaks(*_: object) -> Tensor:
        raise RuntimeError("an illegal memory access was encountered")

    with monkeypatch.context() as patch:
        patch.setattr(processor.pipeline.denoiser, "velocity", breaks)
        with pytest.raises(RuntimeError, match="illegal"):
            processor.generate_shape_batch(images(2), seeds=1, **QUICK)
    assert processor.generate_shape_batch(images(1), seeds=1, **QUICK)[0].ok


# Progress.


def test_every_stage_of_every_part_is_reported() -> None:
    seen: list[BatchProgress] = []
    make(most=2).generate_shape_batch(images(3), seeds=1, on_progress=seen.append, **QUICK)
    assert seen[0] == BatchProgress("preprocess", 3, 3, (0, 1, 2))
    parts = [(p.stage, p.indices) for p in seen if p.done == p.total]
    assert parts[1:] == [
        *((stage, (0, 1)) for stage in ("encode", "sample", "decode")),
        *((stage, (2,)) for stage in ("encode", "sample", "decode")),
        *(("mesh", (k,)) for k in range(3)),
    ]
    assert [(p.done, p.total) for p in seen if p.stage == "sample" and p.indices == (2,)] == [(1, 3), (2, 3), (3, 3)]


class Cancel(Exception):
    """What a caller may raise."""


@pytest.mark.parametrize("at", ["preprocess", "encode", "sample", "decode", "mesh"])
def test_raising_from_on_progress_cancels_and_leaves_the_processor_usable(at: str) -> None:
    processor = make()
    seen: list[str] = []

    def cancel(progress: BatchProgress) -> None:
        seen.append(progress.stage)
        if progress.stage == at:
            raise Cancel

    with pytest.raises(Cancel):
        processor.generate_shape_batch(images(2), seeds=1, on_progress=cancel, **QUICK)
    assert seen.count(at) == 1
    assert seen[-1] == at
    assert processor.generate_shape_batch(images(1), seeds=1, **QUICK)[0].ok


def test_a_stage_begins_again_after_memory_ran_out() -> None:
    processor, shortage = short_of(lambda size: size <= 1 or len(shortage.sizes) < 2, "sample")
    seen: list[BatchProgress] = []
    processor.generate_shape_batch(images(2), seeds=1, on_progress=seen.append, **QUICK)
    told = [(p.done, p.indices) for p in seen if p.stage == "sample"]
    assert told == [(1, (0, 1)), *((done, (place,)) for place in (0, 1) for done in (1, 2, 3))]


# Threads.


def test_the_device_is_used_by_one_thread_at_a_time() -> None:
    processor = make()
    inside: list[int] = []
    most: list[int] = []
    velocity = processor.pipeline.denoiser.velocity

    def watched(*args: Any) -> Tensor:
        inside.append(threading.get_ident())
        most.append(len(set(inside)))
        out = velocity(*args)
        inside.clear()
        return out

    processor.pipeline.denoiser.velocity = watched  # type: ignore[method-assign, assignment]
    results: list[ShapeResult] = []

    def one(seed: int) -> None:
        results.extend(processor.generate_shape_batch(images(1), seeds=seed, **QUICK))

    work = [threading.Thread(target=one, args=(seed,)) for seed in range(4)]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert len(results) == 4
    assert all(r.ok for r in results)
    assert set(most) == {1}


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    # Threads of tests before this one may still come and go.
    eventually(lambda: set(threading.enumerate()) <= before)


# Prepared ahead.


def test_images_prepared_ahead_make_the_same_meshes_to_the_bit() -> None:
    processor = make()
    given = [path.read_bytes() for path in images(2)]
    prepared = processor.prepare_images(given, ["never", "never"], ["all", "all"])
    # One that was not prepared may stand beside one that was.
    for ready in (prepared, [prepared[0], given[1]]):
        results = processor.generate_shape_batch(ready, seeds=SEEDS[:2], **QUICK)  # type: ignore[arg-type]
        expected = processor.generate_shape_batch(given, seeds=SEEDS[:2], **QUICK)
        for result, other in zip(results, expected, strict=True):
            np.testing.assert_array_equal(result.unwrap().vertices, other.unwrap().vertices)
            np.testing.assert_array_equal(result.unwrap().faces, other.unwrap().faces)
            assert result.metadata.background == other.metadata.background


def test_identical_images_prepared_ahead_are_encoded_once() -> None:
    processor = make()
    data = images(1)[0].read_bytes()
    seen: list[int] = []
    encoder = processor.pipeline.conditioner
    assert encoder is not None
    encoder.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    prepared = processor.prepare_images([data, data], ["never", "never"], ["all", "all"])
    processor.generate_shape_batch(prepared, seeds=SEEDS[:2], **QUICK)  # type: ignore[arg-type]
    assert seen == [1]


def test_an_image_that_could_not_be_prepared_keeps_its_error(undisturbed: list[ShapeResult]) -> None:
    processor = make()
    given = [images(1)[0].read_bytes(), b"no picture"]
    prepared = processor.prepare_images(given, ["never", "never"], ["all", "all"])
    good, bad = processor.generate_shape_batch(prepared, seeds=SEEDS[:2], **QUICK)  # type: ignore[arg-type]
    assert_same_meshes([good], undisturbed[:1])
    assert isinstance(bad.error, UnsupportedImage)


def test_an_image_for_which_memory_was_short_is_prepared_again_with_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = make()
    monkeypatch.setattr(processor.pipeline, "prepare_images", lambda *_: [OutOfMemory()])
    assert processor.prepare_images([b"any"], ["never"], ["all"]) == [None]


def test_images_are_prepared_ahead_only_where_another_processor_runs_the_model() -> None:
    processor = make()
    assert not processor.prepares_ahead
    processor.pipeline.device = torch.device("cuda")
    assert processor.prepares_ahead


@pytest.mark.parametrize(("taken", "most"), [(850, 4), (851, 3)])
def test_a_batch_that_nearly_fills_the_memory_makes_the_next_one_smaller(
    monkeypatch: pytest.MonkeyPatch, taken: int, most: int
) -> None:
    processor = make()
    memory = processor.memory
    assert isinstance(memory, FakeMemory)
    sample = processor.pipeline.sample_shapes

    def sample_and_take(*given: Any) -> Any:
        memory.take(taken)
        return sample(*given)

    monkeypatch.setattr(processor.pipeline, "sample_shapes", sample_and_take)
    processor.generate_shape_batch(images(), seeds=SEEDS, **QUICK)
    assert processor.batch_capacity(16) == most
    assert processor.batch_capacity(8) == 4


def test_one_image_that_nearly_fills_the_memory_still_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = make(most=1)
    memory = processor.memory
    assert isinstance(memory, FakeMemory)
    sample = processor.pipeline.sample_shapes

    def sample_and_take(*given: Any) -> Any:
        memory.take(999)
        return sample(*given)

    monkeypatch.setattr(processor.pipeline, "sample_shapes", sample_and_take)
    processor.generate_shape_batch(images(1), seeds=3, **QUICK)
    assert processor.batch_capacity(16) == 1
