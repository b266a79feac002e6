"""The checkpoint inside the repository: it loads by name, makes sound meshes, and batches without changing them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from backend.errors import NoForeground
from backend.hunyuan3d import Hunyuan3DShapePipeline
from backend.hunyuan3d.checkpoint.defaults import DEMO_FOLDER
from backend.hunyuan3d.volume.decode import decode_volume, dense_volume
from backend.hunyuan3d.volume.marching_cubes import extract_surface
from backend.hunyuan3d.volume.sparse_volume import SparseVolume
from benchmarks.support.fields import hausdorff, topology
from tests.support.company import IN_COMPANY

SAMPLES = Path(__file__).parents[1] / "samples"
IMAGES = [SAMPLES / name for name in ("mushroom.png", "star.png", "teapot.png")]


@cache
def demo() -> Hunyuan3DShapePipeline:
    return Hunyuan3DShapePipeline.from_pretrained("demo", device="cpu")


def test_checkpoint_ships_within_its_size() -> None:
    assert sum(path.stat().st_size for path in DEMO_FOLDER.iterdir()) <= 20_000_000


def test_latents_in_a_batch_are_those_made_alone() -> None:
    pipeline = demo()
    batch = pipeline.preprocess(IMAGES, remove_background="auto")
    together = pipeline.sample_latents(pipeline.encode_images(batch.image), seeds=[1, 2, 3])
    for k, seed in enumerate((1, 2, 3)):
        alone = pipeline.sample_latents(pipeline.encode_images(batch.image[k : k + 1]), seeds=[seed])
        torch.testing.assert_close(together[k], alone[0], rtol=0, atol=IN_COMPANY)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_seeds_of_one_image_give_what_each_gives_alone(count: int) -> None:
    cond = demo().encode_images(torch.linspace(-1, 1, 3 * 112 * 112).view(1, 3, 112, 112))
    together = demo().sample_latents(cond.expand(count, -1, -1), 4, seeds=list(range(count)))
    alone = [demo().sample_latents(cond, 4, seeds=seed) for seed in range(count)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=IN_COMPANY)


def test_meshes_are_sound_and_the_same_alone_or_in_a_batch() -> None:
    pipeline = demo()
    results = pipeline([*IMAGES, SAMPLES / "README.md"], seeds=[1, 2, 3, 4], octree_resolution=64)
    assert [result.ok for result in results] == [True, True, True, False]
    for image, seed, result in zip(IMAGES, (1, 2, 3), results[:3], strict=True):
        mesh = result.unwrap()
        assert mesh.is_watertight
        assert mesh.volume > 0
        assert mesh.body_count == 1
        alone = pipeline(image, seeds=seed, octree_resolution=64)[0].unwrap()
        assert np.array_equal(mesh.faces, alone.faces)
        np.testing.assert_allclose(mesh.vertices, alone.vertices, rtol=0, atol=IN_COMPANY)


def test_a_round_thing_is_as_deep_as_it_is_wide() -> None:
    mesh = demo()(SAMPLES / "mushroom.png", seeds=5, octree_resolution=64)[0].unwrap()
    width, height, depth = np.ptp(mesh.vertices, axis=0)
    assert height == pytest.approx(width, rel=0.25)
    assert depth == pytest.approx(width, rel=0.15)


def test_faces_are_brought_down_to_the_target() -> None:
    result = demo()(SAMPLES / "star.png", seeds=2, octree_resolution=64, target_faces=1000)[0]
    mesh = result.unwrap()
    assert 500 < len(mesh.faces) <= 1020
    assert result.metadata.faces == len(mesh.faces)
    assert result.metadata.target_faces == 1000
    assert mesh.is_watertight


def test_a_image_without_an_object_is_its_own_error() -> None:
    blank = np.full((64, 64, 3), 240, np.uint8)
    good, bad = demo()([IMAGES[0], blank], seeds=1, octree_resolution=32)
    assert good.ok
    assert isinstance(bad.error, NoForeground)


@pytest.mark.slow
def test_coarse_to_fine_finds_the_mesh_of_dense_evaluation_at_96() -> None:
    pipeline = demo()
    batch = pipeline.preprocess(SAMPLES / "mug.png", remove_background="auto")
    latents = pipeline.sample_latents(pipeline.encode_images(batch.image), seeds=[7])
    field = pipeline.shape_vae.field(pipeline.shape_vae.decode(latents))
    (found,), (reference,) = decode_volume(field, 96), dense_volume(field, 96)
    assert isinstance(found, SparseVolume)
    assert isinstance(reference, SparseVolume)
    ours, whole = extract_surface(found), extract_surface(reference)
    assert hausdorff(ours[0], whole[0]) < 0.5 * 2.02 / 96
    assert topology(*ours) == topology(*whole)
    assert found.evaluated < 0.25
