"""Coarse-to-fine decoding finds the mesh that asking everywhere finds, with few questions, image by image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from backend.errors import Cancelled, InvalidParameter, InvalidResolution, NonFiniteValues, NoSurface, ServiceError
from backend.hunyuan3d.volume.decode import DecodeOptions, decode_volume, dense_volume
from backend.hunyuan3d.volume.host_copy import to_main_memory
from backend.hunyuan3d.volume.marching_cubes import extract_surface
from backend.hunyuan3d.volume.sparse_volume import SparseVolume
from benchmarks.support.fields import (
    AnalyticField,
    Shape,
    Topology,
    bumps,
    hausdorff,
    required_shapes,
    small_balls,
    sphere,
    thin_plate,
    topology,
    torus,
    truncated,
    waves,
)

BOUNDS = 1.01
NAMES = list(required_shapes(128))


def sound(volume: SparseVolume | ServiceError) -> SparseVolume:
    assert isinstance(volume, SparseVolume)
    return volume


def decoded(shape: Shape, resolution: int, options: DecodeOptions | None = None) -> SparseVolume:
    return sound(decode_volume(AnalyticField([shape]), resolution, options)[0])


def assert_same_mesh(found: SparseVolume, reference: SparseVolume) -> None:
    vertices, faces = extract_surface(found)
    expected, expected_faces = extract_surface(reference)
    assert hausdorff(vertices, expected) == 0.0
    assert len(vertices) == len(expected)
    assert len(faces) == len(expected_faces)


def assert_like_dense(shape: Shape, resolution: int, options: DecodeOptions | None = None) -> None:
    reference = sound(dense_volume(AnalyticField([shape]), resolution)[0])
    assert_same_mesh(decoded(shape, resolution, options), reference)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_mesh_is_that_of_dense_evaluation_at_128(name: str) -> None:
    shape = required_shapes(128)[name]
    vertices, faces = extract_surface(decoded(shape, 128))
    expected, expected_faces = extract_surface(sound(dense_volume(AnalyticField([shape]), 128)[0]))
    assert hausdorff(vertices, expected) < 0.5 * 2.02 / 128
    assert topology(vertices, faces) == topology(expected, expected_faces)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("resolution", [64, 75])
def test_mesh_is_that_of_dense_evaluation(name: str, resolution: int) -> None:
    assert_like_dense(required_shapes(resolution)[name], resolution, DecodeOptions(base_cells=16))


@pytest.mark.parametrize("resolution", [8, 9, 13, 31, 32, 33, 47, 63, 66, 67, 90])
def test_any_resolution_will_do(resolution: int) -> None:
    assert_like_dense(torus(), resolution, DecodeOptions(base_cells=8))


def scaled(shape: Shape, scale: float) -> Shape:
    return lambda p: shape(p) * scale


@settings(max_examples=12, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), cut=st.booleans(), scale=st.sampled_from([1e-3, 1.0, 1e3]))
def test_random_waves_and_bumps_are_found_at_any_scale_of_values(seed: int, cut: bool, scale: float) -> None:
    for shape in (waves(seed, 3.0), bumps(seed, 0.12)):
        field = truncated(shape, 0.4) if cut else shape
        assert_like_dense(scaled(field, scale), 48, DecodeOptions(base_cells=12))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("distance", [0.08, 0.16, None])
def test_parts_smaller_than_a_coarse_cell_are_found(seed: int, distance: float | None) -> None:
    shape = small_balls(seed, 2.02 / 64)
    assert_like_dense(truncated(shape, distance) if distance else shape, 64, DecodeOptions(base_cells=16))


def test_field_truncated_below_the_coarsest_cell_is_asked_more_finely() -> None:
    shape = small_balls(5, 2.02 / 64)
    base = DecodeOptions(base_cells=16)
    plain, narrow = decoded(shape, 64, base), decoded(truncated(shape, 0.05), 64, base)
    assert plain.points_evaluated < 33**3 < narrow.points_evaluated
    assert topology(*extract_surface(narrow)) == topology(*extract_surface(plain))


def test_surface_is_followed_where_it_was_not_expected() -> None:
    blunt = DecodeOptions(base_cells=8, error_margin=0.0, slope_margin=0.0)
    assert_like_dense(thin_plate(0.12), 64, blunt)
    assert_like_dense(torus(0.6, 0.05), 64, blunt)


@pytest.mark.parametrize("shape", [sphere(0.9, (0.6, 0.5, -0.4)), sphere(3.0), lambda p: p.sum(-1) - 0.2])
def test_surface_that_leaves_the_box_is_closed_at_its_wall(shape: Shape) -> None:
    for resolution in (64, 51):
        assert_like_dense(shape, resolution, DecodeOptions(base_cells=8))
        vertices, faces = extract_surface(decoded(shape, resolution, DecodeOptions(base_cells=8)))
        assert topology(vertices, faces) == Topology(1, 0)


@pytest.mark.parametrize(("name", "share"), [(n, 0.03 if "sphere" in n or "torus" in n else 0.06) for n in NAMES[:5]])
def test_few_points_are_asked_at_256(name: str, share: float) -> None:
    assert decoded(required_shapes(256)[name], 256).evaluated < share


@pytest.mark.parametrize("name", NAMES[5:])
def test_few_points_are_asked_at_256_of_a_truncated_field(name: str) -> None:
    assert decoded(required_shapes(256)[name], 256).evaluated < 0.06


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_few_points_are_asked_at_512(name: str) -> None:
    volume = decoded(required_shapes(512)[name], 512)
    assert volume.evaluated < 0.025
    vertices, faces = extract_surface(volume)
    expected = {"torus": Topology(1, 1), "two balls": Topology(2, 0), "box frame": Topology(1, 5)}
    assert topology(vertices, faces) == expected.get(name.partition(",")[0], Topology(1, 0))


def test_highest_resolution_finds_a_small_ball() -> None:
    volume = decoded(sphere(0.05, (0.3, -0.4, 0.5)), 1024)
    vertices, faces = extract_surface(volume)
    assert topology(vertices, faces) == Topology(1, 0)
    distance = (vertices - torch.tensor([0.3, -0.4, 0.5])).norm(dim=1)
    assert float((distance - 0.05).abs().max()) < 1e-4
    assert volume.evaluated < 1e-3


def test_points_are_lattice_points_and_none_is_asked_twice() -> None:
    field = AnalyticField([sphere(), torus()], remember=True)
    volumes = decode_volume(field, 90, DecodeOptions(base_cells=8, max_points_per_call=350))
    line = torch.arange(91).float() / 90 * 2 * BOUNDS - BOUNDS
    for image, volume in enumerate(volumes):
        asked = torch.cat([points for points, called in field.calls if called == image])
        place = torch.searchsorted(line, asked.contiguous())
        assert torch.equal(line[place.clamp(max=90)], asked)
        distinct = torch.unique(place, dim=0)
        assert len(asked) == len(distinct) == sound(volume).points_evaluated


def test_calls_are_for_one_image_and_filled_to_the_bound() -> None:
    field = AnalyticField([sphere(), torus(), sphere(0.3)], remember=True)
    decode_volume(field, 64, DecodeOptions(base_cells=16, max_points_per_call=1000))
    assert max(len(points) for points, _ in field.calls) == 1000
    for points, image in field.calls:
        assert points.shape == (len(points), 3)
        assert points.dtype == torch.float32
        assert image in range(3)
    first_level = [(len(points), image) for points, image in field.calls[:15]]
    assert first_level == [(n, image) for image in range(3) for n in (1000, 1000, 1000, 1000, 17**3 - 4000)]


def test_an_image_is_asked_for_the_same_points_in_the_same_calls_in_any_batch() -> None:
    shapes = [torus(), waves(3, 3.0), sphere(0.2)]
    options = DecodeOptions(base_cells=8, max_points_per_call=5000, error_margin=0.0, slope_margin=0.0)
    together = AnalyticField(shapes, remember=True)
    decode_volume(together, 70, options)
    for image, shape in enumerate(shapes):
        alone = AnalyticField([shape], remember=True)
        decode_volume(alone, 70, options)
        calls = [points for points, called in together.calls if called == image]
        assert len(calls) == len(alone.calls)
        assert all(torch.equal(a, b) for a, (b, _) in zip(calls, alone.calls, strict=True))


def test_an_image_gets_the_same_volume_in_any_batch() -> None:
    shapes = [torus(), truncated(sphere()), waves(3, 3.0), sphere(0.2)]
    together = decode_volume(AnalyticField(shapes), 70, DecodeOptions(base_cells=8))
    for shape, volume in zip(shapes, together, strict=True):
        alone = decoded(shape, 70, DecodeOptions(base_cells=8))
        assert sound(volume).points_evaluated == alone.points_evaluated
        vertices, faces = extract_surface(sound(volume))
        expected, expected_faces = extract_surface(alone)
        assert torch.equal(torch.unique(vertices, dim=0), torch.unique(expected, dim=0))
        assert len(faces) == len(expected_faces)


def test_levels_are_told_as_they_are_done() -> None:
    levels: list[tuple[int, int]] = []
    decode_volume(
        AnalyticField([torus(), waves(3, 3.0)]), 70, DecodeOptions(base_cells=8), lambda *at: levels.append(at)
    )
    assert levels == [(1, 4), (2, 4), (3, 4), (4, 4)]


def only_near(shape: Shape, width: float, value: float) -> Shape:
    """Return the shape, but `value` wherever it is nearer to zero than `width`."""

    def spoilt(p: Tensor) -> Tensor:
        values = shape(p)
        return torch.where(values.abs() < width, value, values)

    return spoilt


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("width", [10.0, 2e-3])
def test_values_that_are_not_finite_fail_their_image_alone(value: float, width: float) -> None:
    shapes = [torus(), only_near(sphere(), width, value), sphere(0.4)]
    first, spoilt, last = decode_volume(AnalyticField(shapes), 64, DecodeOptions(base_cells=16))
    assert isinstance(spoilt, NonFiniteValues)
    assert_same_mesh(sound(first), decoded(torus(), 64, DecodeOptions(base_cells=16)))
    assert_same_mesh(sound(last), decoded(sphere(0.4), 64, DecodeOptions(base_cells=16)))


@pytest.mark.parametrize("resolution", [32, 64, 100])
def test_a_batch_without_any_sound_image_is_only_errors(resolution: int) -> None:
    volumes = decode_volume(AnalyticField([lambda p: p.sum(-1) * torch.nan] * 2), resolution)
    assert [type(volume) for volume in volumes] == [NonFiniteValues, NonFiniteValues]


def test_empty_image_has_no_surface_and_harms_no_other() -> None:
    nothing, something = decode_volume(AnalyticField([lambda p: -1 - p[..., 0] ** 2, sphere()]), 64)
    with pytest.raises(NoSurface):
        extract_surface(sound(nothing))
    assert_same_mesh(sound(something), decoded(sphere(), 64))


@pytest.mark.parametrize("decode", [decode_volume, dense_volume])
def test_levels_are_reported_to_the_end(decode: Callable[..., object]) -> None:
    seen: list[tuple[int, int]] = []
    decode(AnalyticField([sphere()]), 64, DecodeOptions(base_cells=16), lambda done, total: seen.append((done, total)))
    assert seen == ([(1, 3), (2, 3), (3, 3)] if decode is decode_volume else [(1, 1)])


def test_what_the_callback_raises_ends_the_work() -> None:
    field = AnalyticField([sphere()], remember=True)

    def stop(done: int, total: int) -> None:
        raise Cancelled(f"{done} of {total}")

    with pytest.raises(Cancelled, match="1 of 3"):
        decode_volume(field, 64, DecodeOptions(base_cells=16), stop)
    assert sum(len(points) for points, _ in field.calls) < 2 * 17**3


def test_dense_volume_asks_for_every_point_once() -> None:
    volume = sound(dense_volume(AnalyticField([sphere()]), 20)[0])
    assert volume.points_evaluated == 21**3
    assert volume.evaluated == 1.0
    line = torch.arange(21).float() / 20 * 2 * BOUNDS - BOUNDS
    expected = sphere()(torch.stack(torch.meshgrid(line, line, line, indexing="ij"), -1))
    assert torch.equal(volume.to_dense(), expected)


def test_volume_in_main_memory_gives_the_same_mesh() -> None:
    volume = decoded(torus(), 40)
    assert_same_mesh(volume.cpu(), volume)


def test_volumes_and_errors_come_into_main_memory_in_order() -> None:
    spoilt = only_near(sphere(), 10.0, torch.nan)
    found = decode_volume(AnalyticField([torus(), spoilt, sphere()]), 40)
    copied = to_main_memory(found)
    assert isinstance(copied[1], NonFiniteValues)
    for place in (0, 2):
        assert not sound(copied[place]).values.is_cuda
        assert_same_mesh(sound(copied[place]), sound(found[place]))


@pytest.mark.parametrize("resolution", [0, 7, 1025, -8, 64.0, True, "64"])
def test_resolution_out_of_range_is_refused(resolution: int) -> None:
    for decode in (decode_volume, dense_volume):
        with pytest.raises(InvalidResolution):
            decode(AnalyticField([sphere()]), resolution)


@pytest.mark.parametrize(
    "wrong",
    [
        {"bounds": 0.0},
        {"bounds": float("nan")},
        {"max_points_per_call": 0},
        {"base_cells": 1},
        {"reach": -1.0},
        {"error_margin": float("inf")},
        {"slope_margin": -0.1},
    ],
)
def test_options_are_checked_at_birth(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter):
        DecodeOptions(**wrong)
