"""Parity: every array of the golden folders, which the reference computed in float32 on the CPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from backend.hunyuan3d import Hunyuan3DShapePipeline
from backend.hunyuan3d.checkpoint.load import Denoiser
from tests.support.golden import GOLDEN_NAMES, Golden, load_golden, load_pipeline
from tests.support.raw_meshes import raw_meshes

TOLERANCE = 1e-4
COMPARED = {
    "image", "mask", "cond", "noise", "model_t", "velocity", "latents_per_step", "latents", "decoded", "queries",
    "query_logits", "grid_logits", "enc_query_points", "enc_query_feats", "enc_input_points", "enc_input_feats",
    "enc_moments", *(f"{kind}_{k}" for kind in ("vertices", "faces") for k in range(3)),
}  # fmt: skip


@dataclass
class Recorder:
    """Stands in front of a denoiser and keeps the states and times that sampling asks it about."""

    denoiser: Denoiser
    states: list[Tensor] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    @property
    def guidance_embed(self) -> bool:
        return self.denoiser.guidance_embed

    def prepare(self, cond: Tensor, *, classifier_free: bool) -> Any:
        return self.denoiser.prepare(cond, classifier_free=classifier_free)

    def velocity(self, x: Tensor, t: Tensor, context: Any, guidance: Tensor | None = None) -> Tensor:
        self.states.append(x)
        self.times.append(float(t))
        return self.denoiser.velocity(x, t, context, guidance)


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    assert actual.shape == expected.shape
    assert float((actual - expected).abs().max()) <= tolerance


def reference_vertices(golden: Golden, k: int) -> np.ndarray:
    """Return the reference's vertices with its scale of 1 / (R + 1) undone."""
    r = golden.resolution
    return (golden.arrays[f"vertices_{k}"].numpy() + 1.01) * (r + 1) / r - 1.01


def test_no_golden_array_is_left_out(golden: Golden) -> None:
    assert set(golden.arrays) <= COMPARED


def test_images_and_masks_are_exact(golden: Golden, pipeline: Hunyuan3DShapePipeline) -> None:
    batch = pipeline.preprocess(golden.images)
    assert torch.equal(batch.image, golden.arrays["image"])
    assert torch.equal(batch.mask, golden.arrays["mask"])
    assert batch.view_indices == ((0, 1, 2) if golden.name == "tiny-2mv" else None)


def test_condition(golden: Golden, pipeline: Hunyuan3DShapePipeline) -> None:
    assert_close(pipeline.encode_images(golden.arrays["image"]), golden.arrays["cond"])


def test_schedule(golden: Golden, pipeline: Hunyuan3DShapePipeline) -> None:
    times = pipeline.scheduler.sigmas(golden.steps)[:-1]
    assert_close(times[:, None].expand_as(golden.arrays["model_t"]), golden.arrays["model_t"], 1e-7)


def test_velocity_at_every_step(golden: Golden, pipeline: Hunyuan3DShapePipeline) -> None:
    arrays, denoiser = golden.arrays, pipeline.denoiser
    states = [arrays["noise"], *arrays["latents_per_step"][:-1]]
    guidance = torch.tensor(golden.guidance_scale)
    with torch.no_grad():
        context = denoiser.prepare(arrays["cond"], classifier_free=not denoiser.guidance_embed)
        for x, t, expected in zip(states, arrays["model_t"][:, 0], arrays["velocity"], strict=True):
            assert_close(denoiser.velocity(x, t, context, guidance), expected)


def test_velocity_of_the_plain_pass(golden: Golden, pipeline: Hunyuan3DShapePipeline) -> None:
    cond, x, rows = golden.arrays["cond"], golden.arrays["noise"], golden.arrays["velocity"].shape[1]
    if rows == 2 * len(cond):
        cond, x = torch.cat([cond, torch.zeros_like(cond)]), torch.cat([x, x])
    guidance = torch.full((rows,), golden.guidance_scale)
    with torch.no_grad():
        velocity = pipeline.denoiser(x, golden.arrays["model_t"][0], cond, guidance)  # type: ignore[operator]
    assert_close(velocity, golden.arrays["velocity"][0])


def test_latents_at_every_step(golden: Golden) -> None:
    pipeline = golden.pipeline()
    recorder = Recorder(pipeline.denoiser)
    pipeline.denoiser = recorder
    arrays = golden.arrays
    latents = pipeline.sample_latents(arrays["cond"], golden.steps, golden.guidance_scale, noise=arrays["noise"])
    assert latents.dtype == torch.float32
    assert_close(latents, arrays["latents"])
    reached = [*recorder.states[1:], latents]
    # A step of length zero is not evaluated, so its state is the one before it.
    reached += [latents] * (golden.steps - len(reached))
    for actual, expected in zip(reached, arrays["latents_per_step"], strict=True):
        assert_close(actual, expected)


def test_only_the_turbo_schedule_needs_its_last_evaluation(golden: Golden) -> None:
    pipeline = golden.pipeline()
    recorder = Recorder(pipeline.denoiser)
    pipeline.denoiser = recorder
    pipeline.sample_latents(golden.arrays["cond"], golden.steps, noise=golden.arrays["noise"])
    assert len(recorder.times) == golden.steps - (golden.name != "tiny-2mini-turbo")


def test_decoded_tokens(golden: Golden, pipeline: Hunyuan3DShapePipeline) -> None:
    assert_close(pipeline.shape_vae.decode(golden.arrays["latents"]), golden.arrays["decoded"])


def test_query_logits(golden: Golden, pipeline: Hunyuan3DShapePipeline) -> None:
    logits = pipeline.shape_vae.query(golden.arrays["decoded"], golden.arrays["queries"])
    assert_close(logits, golden.arrays["query_logits"][..., 0])


def test_grid_logits(golden: Golden, pipeline: Hunyuan3DShapePipeline) -> None:
    side = torch.linspace(-1.01, 1.01, golden.resolution + 1)
    grid = torch.cartesian_prod(side, side, side)
    expected = golden.arrays["grid_logits"]
    logits = pipeline.shape_vae.query(golden.arrays["decoded"], grid.expand(len(expected), -1, -1))
    assert_close(logits.view_as(expected), expected)


def test_encoder_moments() -> None:
    arrays, vae = load_golden("tiny-2.1").arrays, load_pipeline("tiny-2.1").shape_vae
    names = ("enc_query_points", "enc_query_feats", "enc_input_points", "enc_input_feats")
    assert_close(torch.cat(vae.encode(*(arrays[name] for name in names)), dim=-1), arrays["enc_moments"])


@pytest.mark.parametrize("name", [n for n in GOLDEN_NAMES if n != "tiny-2.1"])
def test_checkpoints_without_encoder_load_without_one(name: str) -> None:
    assert not hasattr(load_pipeline(name).shape_vae, "encoder")


def test_vertices_and_faces(golden: Golden, pipeline: Hunyuan3DShapePipeline) -> None:
    results = raw_meshes(pipeline, golden.arrays["latents"], octree_resolution=golden.resolution)
    for k, result in enumerate(results):
        mesh, expected = result.unwrap(), reference_vertices(golden, k)
        cell = 2.02 / golden.resolution
        on_lattice_edge = [
            (np.abs((v + 1.01) / cell - np.round((v + 1.01) / cell)) < 2e-4).sum(1) >= 2
            for v in (mesh.vertices, expected)
        ]
        assert len(mesh.vertices) == len(expected)
        assert on_lattice_edge[0].sum() == on_lattice_edge[1].sum()
        ours, theirs = (v[on] for v, on in zip((mesh.vertices, expected), on_lattice_edge, strict=True))
        assert cKDTree(ours).query(theirs)[0].max() <= TOLERANCE
        assert cKDTree(theirs).query(ours)[0].max() <= TOLERANCE
        # The few vertices inside an ambiguous cell are each method's own choice.
        assert cKDTree(mesh.vertices).query(expected)[0].max() <= cell / 2
        assert abs(len(mesh.faces) - len(golden.arrays[f"faces_{k}"])) <= 0.001 * len(mesh.faces)


def test_faces_are_wound_as_the_reference_winds_them(golden: Golden, pipeline: Hunyuan3DShapePipeline) -> None:
    results = raw_meshes(pipeline, golden.arrays["latents"], octree_resolution=golden.resolution)
    for k, result in enumerate(results):
        mesh = result.unwrap()
        vertices, faces = reference_vertices(golden, k), golden.arrays[f"faces_{k}"].numpy()
        a, b, c = (vertices[faces[:, corner]] for corner in range(3))
        normals = np.cross(b - a, c - a)
        normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-30
        _, nearest = cKDTree(mesh.triangles_center).query((a + b + c) / 3)
        agreement = (normals * mesh.face_normals[nearest]).sum(1)
        assert np.mean(agreement > 0) > 0.95


def test_images_to_latents_in_one_go(golden: Golden, pipeline: Hunyuan3DShapePipeline) -> None:
    batch = pipeline.preprocess(golden.images)
    cond = pipeline.encode_images(batch.image, batch.view_indices)
    latents = pipeline.sample_latents(cond, golden.steps, golden.guidance_scale, noise=golden.arrays["noise"])
    assert_close(latents, golden.arrays["latents"])


def test_an_image_alone_gives_what_it_gives_in_a_batch(golden: Golden, pipeline: Hunyuan3DShapePipeline) -> None:
    batch = pipeline.preprocess(golden.images)
    cond = pipeline.encode_images(batch.image, batch.view_indices)
    seeds = list(range(11, 11 + len(cond)))
    together = pipeline.sample_latents(cond, golden.steps, seeds=seeds)
    meshes = raw_meshes(pipeline, together, octree_resolution=24)
    for k, seed in enumerate(seeds):
        own = pipeline.encode_images(batch.image[k : k + 1], batch.view_indices)
        alone = pipeline.sample_latents(own, golden.steps, seeds=[seed])
        assert_close(alone[0], together[k])
        (mesh,) = raw_meshes(pipeline, alone, octree_resolution=24)
        assert len(mesh.unwrap().faces) == pytest.approx(len(meshes[k].unwrap().faces), rel=1e-3)
