"""The pipeline as a whole: batches, seeds, callbacks, errors that stay with their image, and what is reported."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from backend.errors import (
    InvalidBackgroundMode,
    InvalidGuidance,
    InvalidImage,
    InvalidParameter,
    InvalidResolution,
    InvalidSeed,
    InvalidSteps,
    InvalidTargetFaces,
    MissingImage,
    NoForeground,
    NonFiniteValues,
    NoSurface,
    OutOfMemory,
    ServiceError,
    UnsupportedImage,
    ViewsUnsupported,
)
from backend.hunyuan3d import Hunyuan3DShapePipeline
from backend.hunyuan3d.results import ShapeMetadata, ShapeResult, StageSeconds, Stopwatch
from tests.support.golden import Golden, load_golden, load_pipeline
from tests.support.raw_meshes import raw_meshes

QUICK: dict[str, Any] = {"num_inference_steps": 3, "octree_resolution": 16, "remove_background": "never"}


@pytest.fixture
def images() -> list[Path]:
    """Return three pictures with alpha."""
    return [load_golden("tiny-2.1").folder / f"image{k}.png" for k in range(3)]


class Cancel(Exception):
    """What a caller may raise from a callback."""


def cancel_at(limit: int) -> Callable[[int, int], None]:
    def callback(done: int, total: int) -> None:
        assert total >= done
        if done == limit:
            raise Cancel

    return callback


def method_of(metadata: ShapeMetadata) -> str | None:
    """Return how an image was cut out."""
    return None if metadata.background is None else metadata.background.method


def shifted(pipeline: Hunyuan3DShapePipeline, shift: float) -> Hunyuan3DShapePipeline:
    """Move every logit by `shift`."""
    with torch.no_grad():
        pipeline.shape_vae.geo_decoder.output_proj.bias.add_(shift)
    return pipeline


# Whole runs.


def test_one_image_gives_one_mesh_and_says_what_was_done(tiny: Hunyuan3DShapePipeline, images: list[Path]) -> None:
    (result,) = tiny(images[0], seeds=7, guidance_scale=2.0, **QUICK)
    mesh, facts = result.unwrap(), result.metadata
    assert result.ok
    assert mesh.is_watertight
    assert np.abs(mesh.vertices).max() <= 1.011
    assert (facts.vertices, facts.faces) == (len(mesh.vertices), len(mesh.faces))
    assert (facts.seed, facts.num_inference_steps, facts.guidance_scale, facts.octree_resolution) == (7, 3, 2.0, 16)
    assert (facts.batch_size, method_of(facts), facts.watertight, facts.target_faces) == (1, "none", True, None)
    assert facts.model.endswith("tiny-2.1")
    assert facts.evaluated is not None
    assert 0 < facts.evaluated <= 1
    seconds = facts.seconds
    assert min(seconds.preprocess, seconds.encode, seconds.sample, seconds.decode, seconds.mesh) > 0
    assert seconds.total == pytest.approx(sum(asdict(seconds).values()))
    json.dumps(asdict(facts))


def test_a_result_carries_its_cutout_and_how_it_is_turned(tiny: Hunyuan3DShapePipeline, images: list[Path]) -> None:
    for result, image in zip(tiny(images[:2], seeds=7, **QUICK), images, strict=False):
        assert result.cutout is not None
        expected = tiny.image_processor.cutout(Image.open(image))
        np.testing.assert_array_equal(np.asarray(result.cutout), np.asarray(expected))
        assert result.view_aligned is tiny.config.defaults.view_aligned is False


def test_a_result_does_not_depend_on_its_batch(tiny: Hunyuan3DShapePipeline, images: list[Path]) -> None:
    together = tiny(images, seeds=[3, 4, 5], **QUICK)
    assert [r.metadata.seed for r in together] == [3, 4, 5]
    for image, seed, result in zip(images, [3, 4, 5], together, strict=True):
        (alone,) = tiny(image, seeds=[seed], **QUICK)
        assert len(alone.unwrap().faces) == pytest.approx(len(result.unwrap().faces), rel=1e-3)
        np.testing.assert_allclose(alone.unwrap().bounds, result.unwrap().bounds, atol=1e-3)


def test_drawn_seeds_are_reported_and_reproduce_the_mesh(tiny: Hunyuan3DShapePipeline, images: list[Path]) -> None:
    first = tiny(images[:2], **QUICK)
    seeds = [r.metadata.seed or 0 for r in first]
    assert seeds[0] != seeds[1]
    again = tiny(images[:2], seeds=seeds, **QUICK)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.unwrap().vertices, b.unwrap().vertices)


def test_every_step_and_level_is_reported(tiny: Hunyuan3DShapePipeline, images: list[Path]) -> None:
    steps: list[tuple[int, int]] = []
    levels: list[tuple[int, int]] = []
    tiny(
        images[0],
        on_step=lambda *done: steps.append(done),
        on_progress=lambda *done: levels.append(done),
        **QUICK,
    )
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert levels[-1][0] == levels[-1][1]
    assert [done for done, _ in levels] == sorted({done for done, _ in levels})


def test_raising_from_a_callback_cancels_and_leaves_the_pipeline_usable(
    tiny: Hunyuan3DShapePipeline, images: list[Path]
) -> None:
    with pytest.raises(Cancel):
        tiny(images[0], on_step=cancel_at(2), **QUICK)
    with pytest.raises(Cancel):
        tiny(images[0], on_progress=cancel_at(1), **QUICK)
    assert tiny(images[0], **QUICK)[0].ok


def test_one_bad_image_never_harms_its_neighbours(tiny: Hunyuan3DShapePipeline, images: list[Path]) -> None:
    items: list[Any] = [
        images[0],
        b"rubbish",
        Image.new("RGBA", (40, 40)),
        {"front": images[0]},
        np.asarray(Image.open(images[1])),
        images[2].read_bytes()[:-200],
    ]
    results = tiny(items, seeds=9, **QUICK)
    kinds = [type(r.error) for r in results]
    assert kinds == [type(None), UnsupportedImage, NoForeground, ViewsUnsupported, type(None), InvalidImage]
    (alone,) = tiny(images[1], seeds=9, **QUICK)
    assert len(alone.unwrap().faces) == pytest.approx(len(results[4].unwrap().faces), rel=1e-3)
    assert all(r.metadata.seed == 9 for r in results)
    assert [r.metadata.batch_size for r in results] == [2, 0, 0, 0, 2, 0]
    with pytest.raises(NoForeground):
        results[2].unwrap()


def test_a_batch_of_bad_images_is_a_batch_of_errors(tiny: Hunyuan3DShapePipeline) -> None:
    assert [type(r.error) for r in tiny([b"", b"x"], **QUICK)] == [InvalidImage, UnsupportedImage]


def test_what_fewer_faces_cannot_show_keeps_its_own(tiny: Hunyuan3DShapePipeline, images: list[Path]) -> None:
    (full, fewer) = (tiny(images[0], seeds=1, target_faces=n, **QUICK)[0] for n in (None, 1200))
    # What random weights make is a sponge: with a quarter of its faces it would have other holes.
    found, kept = len(full.unwrap().faces), len(fewer.unwrap().faces)
    assert (full.metadata.faces, fewer.metadata.faces_found, fewer.metadata.faces) == (found, found, kept)
    assert 1200 < kept <= found
    assert fewer.metadata.target_faces == 1200


def test_each_image_may_have_its_own_target_and_background(tiny: Hunyuan3DShapePipeline, images: list[Path]) -> None:
    modes = {"remove_background": ["never", "auto", "always"]}
    results = tiny(images, seeds=1, target_faces=[None, 1200, 800], **{**QUICK, **modes})
    assert results[0].metadata.faces == results[0].metadata.faces_found
    assert [result.metadata.target_faces for result in results] == [None, 1200, 800]
    assert [method_of(result.metadata) for result in results[:2]] == ["none", "alpha"]
    assert method_of(results[2].metadata) != "none"


def test_objects_with_different_views_share_a_call() -> None:
    golden, pipeline = load_golden("tiny-2mv"), load_pipeline("tiny-2mv")
    three, other = golden.images
    assert isinstance(three, dict)
    assert isinstance(other, dict)
    items: list[Any] = [three, {"back": other["back"]}, other, other["front"], {"top": other["back"]}]
    results = pipeline(items, seeds=2, **QUICK)
    assert [r.ok for r in results] == [True, True, True, True, False]
    (alone,) = pipeline([other], seeds=2, **QUICK)
    assert len(alone.unwrap().faces) == pytest.approx(len(results[2].unwrap().faces), rel=1e-3)
    with pytest.raises(InvalidImage, match="same views"):
        pipeline.preprocess(items[:2])


def test_a_background_is_removed_when_asked_for(tiny: Hunyuan3DShapePipeline, images: list[Path]) -> None:
    cut = Image.open(images[0])
    opaque = Image.new("RGB", (160, 160), (250, 250, 250))
    opaque.paste((30, 90, 160), (50, 40, 110, 120))
    (by_alpha, by_method) = tiny([cut, opaque], seeds=1, **{**QUICK, "remove_background": "auto"})
    assert method_of(by_alpha.metadata) == "alpha"
    assert method_of(by_method.metadata) not in ("alpha", "none", None)
    mask = tiny.preprocess(opaque, remove_background="auto").mask
    assert 0.3 < float((mask > 0).float().mean()) < 0.7


# Values that are not finite, and fields without a surface.


def test_latents_that_are_not_finite_are_that_images_error(tiny: Hunyuan3DShapePipeline) -> None:
    latents = load_golden("tiny-2.1").arrays["latents"].clone()
    good = raw_meshes(tiny, latents, octree_resolution=16)
    latents[1, 3, 2] = torch.nan
    results = raw_meshes(tiny, latents, octree_resolution=16)
    assert isinstance(results[1].error, NonFiniteValues)
    for k in (0, 2):
        assert len(results[k].unwrap().faces) == len(good[k].unwrap().faces)


def test_an_image_whose_sampling_overflows_stays_alone(tiny: Hunyuan3DShapePipeline) -> None:
    golden = load_golden("tiny-2.1")
    cond = golden.arrays["cond"].clone()
    cond[0] = torch.nan
    latents = tiny.sample_latents(cond, golden.steps, noise=golden.arrays["noise"])
    assert not latents[0].isfinite().any()
    assert float((latents[1:] - golden.arrays["latents"][1:]).abs().max()) < 1e-4


@pytest.mark.parametrize("shift", [-1000.0, 1000.0])
def test_a_field_without_a_sign_change_has_no_surface(shift: float, images: list[Path]) -> None:
    pipeline = shifted(load_golden("tiny-2.1").pipeline(), shift)
    assert isinstance(pipeline(images[0], **QUICK)[0].error, NoSurface)
    latents = load_golden("tiny-2.1").arrays["latents"]
    assert all(isinstance(r.error, NoSurface) for r in raw_meshes(pipeline, latents, octree_resolution=16))


def test_running_out_of_memory_has_its_name(monkeypatch: pytest.MonkeyPatch, images: list[Path]) -> None:
    pipeline = load_golden("tiny-2.1").pipeline()

    def too_much(*_: object, **__: object) -> Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(pipeline.denoiser, "velocity", too_much)
    with pytest.raises(OutOfMemory):
        pipeline(images[0], **QUICK)


# Sampling.


def test_the_same_seed_is_the_same_noise_in_any_batch(tiny: Hunyuan3DShapePipeline) -> None:
    noise = tiny.initial_noise(3, [5, 6, 5])
    assert noise.shape == (3, *tiny.shape_vae.latent_shape)
    assert torch.equal(noise[0], noise[2])
    assert not torch.equal(noise[0], noise[1])
    assert torch.equal(tiny.initial_noise(1, 6)[0], noise[1])
    assert torch.equal(tiny.initial_noise(2, 5), noise[::2])


def test_a_checkpoint_says_how_strong_noise_is() -> None:
    pipeline = load_golden("tiny-2.1").pipeline()
    plain = pipeline.initial_noise(2, [1, 2])
    pipeline.config = replace(pipeline.config, defaults=replace(pipeline.config.defaults, noise_scale=0.25))
    assert torch.equal(pipeline.initial_noise(2, [1, 2]), plain / 4)


def test_seeds_may_be_any_whole_numbers(tiny: Hunyuan3DShapePipeline) -> None:
    expected = tiny.initial_noise(2, [1, 2])
    for seeds in ((1, 2), np.array([1, 2]), torch.tensor([1, 2]), iter([1, 2])):
        assert torch.equal(tiny.initial_noise(2, seeds), expected)


def count_rows(pipeline: Hunyuan3DShapePipeline, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return how many rows every evaluation of the denoiser returns, while the test runs."""
    rows: list[int] = []
    velocity = pipeline.denoiser.velocity

    def counted(*args: Any) -> Tensor:
        out = velocity(*args)
        rows.append(len(out))
        return out

    monkeypatch.setattr(pipeline.denoiser, "velocity", counted)
    return rows


@pytest.mark.parametrize("name", ["tiny-2.1", "tiny-2.0"])
def test_guidance_of_one_skips_the_unconditional_pass(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = load_golden(name)
    pipeline = golden.pipeline()
    rows = count_rows(pipeline, monkeypatch)
    cond, noise = golden.arrays["cond"], golden.arrays["noise"]
    one = pipeline.sample_latents(cond, 4, 1.0, noise=noise)
    assert rows == [3] * 3
    nearly = pipeline.sample_latents(cond, 4, 1.0 + 1e-7, noise=noise)
    assert rows[3:] == [6] * 3
    torch.testing.assert_close(one, nearly, atol=1e-4, rtol=0)


def test_embedded_guidance_needs_one_pass_and_has_an_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    golden = load_golden("tiny-2mini-turbo")
    pipeline = golden.pipeline()
    rows = count_rows(pipeline, monkeypatch)
    weak, strong = (
        pipeline.sample_latents(golden.arrays["cond"], 2, g, noise=golden.arrays["noise"]) for g in (1.0, 5.0)
    )
    assert rows == [3] * 4
    assert not torch.allclose(weak, strong)


def test_guidance_of_zero_ignores_the_image(tiny: Hunyuan3DShapePipeline) -> None:
    arrays = load_golden("tiny-2.1").arrays
    latents = tiny.sample_latents(arrays["cond"], 4, 0, noise=arrays["noise"])
    other = tiny.sample_latents(arrays["cond"].flip(0), 4, 0, noise=arrays["noise"])
    torch.testing.assert_close(latents, other, atol=1e-5, rtol=0)


def test_defaults_come_from_the_checkpoint(golden: Golden, pipeline: Hunyuan3DShapePipeline) -> None:
    total: list[int] = []
    pipeline.sample_latents(golden.arrays["cond"][:1], seeds=1, on_step=lambda _, n: total.append(n))
    assert set(total) == {5 if golden.name == "tiny-2mini-turbo" else 50}
    options = pipeline.options()
    assert (options.guidance_scale, options.octree_resolution) == (5.0, 384)


def test_noise_must_fit(tiny: Hunyuan3DShapePipeline) -> None:
    arrays = load_golden("tiny-2.1").arrays
    with pytest.raises(InvalidParameter, match=r"\(3, 24, 8\)"):
        tiny.sample_latents(arrays["cond"], noise=arrays["noise"][:2])


# Encoding.


def test_identical_images_are_encoded_once(images: list[Path]) -> None:
    pipeline = load_golden("tiny-2.1").pipeline()
    sizes: list[int] = []

    def counted(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        sizes.append(len(args[0]))

    assert pipeline.conditioner is not None
    pipeline.conditioner.register_forward_pre_hook(counted)
    image = pipeline.preprocess([images[0], images[1], images[0], images[0]]).image
    cond = pipeline.encode_images(image)
    assert sizes == [2]
    expected = load_golden("tiny-2.1").arrays["cond"]
    torch.testing.assert_close(cond, expected[[0, 1, 0, 0]], atol=1e-4, rtol=0)


def test_the_same_views_under_other_indices_are_not_identical() -> None:
    golden, pipeline = load_golden("tiny-2mv"), load_pipeline("tiny-2mv")
    image = golden.arrays["image"][[0, 0]]
    cond = pipeline.encode_images(image, [[0, 1, 2], [0, 1, 3]])
    assert torch.equal(cond[0], pipeline.encode_images(image[:1], (0, 1, 2))[0])
    assert not torch.allclose(cond[0], cond[1])


def test_one_image_needs_no_batch_dimension(tiny: Hunyuan3DShapePipeline) -> None:
    arrays = load_golden("tiny-2.1").arrays
    torch.testing.assert_close(tiny.encode_images(arrays["image"][0]), arrays["cond"][:1], atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", [(64, 64), (1, 4, 64, 64), (1, 2, 3, 64, 64), (1, 1, 1, 3, 64, 64)])
def test_tensors_that_are_no_images_are_refused(tiny: Hunyuan3DShapePipeline, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidImage):
        tiny.encode_images(torch.zeros(shape))


@pytest.mark.parametrize("indices", [(0, 1), (0, 1, 4), (-1, 0, 1), [(0, 1, 2)] * 3])
def test_view_indices_must_fit(indices: Any) -> None:
    with pytest.raises(InvalidParameter, match="view"):
        load_pipeline("tiny-2mv").encode_images(load_golden("tiny-2mv").arrays["image"], indices)


# Parameters.


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"octree_resolution": 0}, InvalidResolution),
        ({"octree_resolution": 7}, InvalidResolution),
        ({"octree_resolution": 1025}, InvalidResolution),
        ({"octree_resolution": 64.0}, InvalidResolution),
        ({"octree_resolution": True}, InvalidResolution),
        ({"num_inference_steps": 0}, InvalidSteps),
        ({"num_inference_steps": 2.5}, InvalidSteps),
        ({"guidance_scale": -0.1}, InvalidGuidance),
        ({"guidance_scale": float("nan")}, InvalidGuidance),
        ({"guidance_scale": float("inf")}, InvalidGuidance),
        ({"guidance_scale": "5"}, InvalidGuidance),
        ({"seeds": -1}, InvalidSeed),
        ({"seeds": 2**32}, InvalidSeed),
        ({"seeds": 1.5}, InvalidSeed),
        ({"seeds": "1"}, InvalidSeed),
        ({"seeds": [1, 2]}, InvalidSeed),
        ({"seeds": []}, InvalidSeed),
        ({"seeds": [True]}, InvalidSeed),
        ({"target_faces": 99}, InvalidTargetFaces),
        ({"target_faces": 2_000_001}, InvalidTargetFaces),
        ({"target_faces": 1e3}, InvalidTargetFaces),
        ({"target_faces": [500, 500]}, InvalidTargetFaces),
        ({"target_faces": [True]}, InvalidTargetFaces),
        ({"remove_background": "maybe"}, InvalidBackgroundMode),
        ({"remove_background": ["auto", "auto"]}, InvalidBackgroundMode),
    ],
)
def test_a_parameter_out_of_range_is_refused_before_any_work(
    tiny: Hunyuan3DShapePipeline, images: list[Path], parameters: dict[str, Any], error: type[ServiceError]
) -> None:
    with pytest.raises(error):
        tiny(images[0], **{**QUICK, **parameters}, on_step=cancel_at(1))


def test_no_image_is_an_error(tiny: Hunyuan3DShapePipeline) -> None:
    with pytest.raises(MissingImage):
        tiny([])


def test_resolution_zero_is_refused_by_the_decoding_stage_too(tiny: Hunyuan3DShapePipeline) -> None:
    with pytest.raises(InvalidResolution):
        raw_meshes(tiny, load_golden("tiny-2.1").arrays["latents"], octree_resolution=0)


# Results.


def test_a_result_is_either_a_mesh_or_an_error() -> None:
    metadata = ShapeMetadata("m", 1)
    with pytest.raises(ValueError, match="either"):
        ShapeResult(None, None, metadata)
    failed = ShapeResult(None, NoSurface(), metadata)
    assert not failed.ok
    with pytest.raises(NoSurface):
        failed.unwrap()


def test_a_kept_error_does_not_keep_the_image(tiny: Hunyuan3DShapePipeline) -> None:
    result = tiny(Image.new("RGBA", (40, 40)), **QUICK)[0]
    assert isinstance(result.error, NoForeground)
    assert result.error.__traceback__ is None


def test_stages_of_one_batch_follow_each_other_in_the_metadata() -> None:
    earlier, later = StageSeconds(preprocess=1.0, sample=2.0), StageSeconds(sample=0.5, mesh=4.0)
    assert earlier + later == StageSeconds(preprocess=1.0, sample=2.5, mesh=4.0)


def test_a_stage_entered_twice_adds_up() -> None:
    ticks = iter([0.0, 1.0, 10.0, 12.5])
    watch = Stopwatch(torch.device("cpu"), lambda: next(ticks))
    for _ in range(2):
        with watch.stage("encode"):
            pass
    assert watch.seconds().encode == 3.5
    assert watch.seconds().total == 3.5
