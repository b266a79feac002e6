"""The procedural shapes: repeatable, normalised, true distances, and shards that read back as they were drawn."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from training import make_data
from training.dataset import Sample, ShapeDataset, draw_sample, write_shard
from training.render import REACH, front_view, render_images
from training.shapes import silhouettes
from training.shapes.field import axis_of, build_field, extents
from training.shapes.generator import HELD_OUT_FIRST_SEED, KINDS, ProceduralShape, is_held_out, kind_of, make_shape
from training.shapes.sdf import Part, Placement, ellipsoid, evaluate_grid


@pytest.fixture(scope="module")
def one_of_each() -> list[ProceduralShape]:
    """Return the first shape of every kind, in the order of KINDS."""
    first: dict[int, int] = {}
    seed = 0
    while len(first) < len(KINDS):
        first.setdefault(kind_of(seed), seed)
        seed += 1
    return [make_shape(first[kind]) for kind in range(len(KINDS))]


def same(a: Sample, b: Sample) -> bool:
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))


def test_every_family_is_drawn_under_its_own_name(one_of_each: list[ProceduralShape]) -> None:
    assert [shape.name for shape in one_of_each] == list(KINDS)
    assert len(KINDS) == 33
    # Figures are taken on the first 22, as ever.
    assert {kind_of(HELD_OUT_FIRST_SEED + k) for k in range(400)} == set(range(22))


def test_the_mix_holds_the_agreed_shares() -> None:
    held_out = np.bincount([kind_of(HELD_OUT_FIRST_SEED + k) for k in range(4000)], minlength=len(KINDS)) / 4000
    np.testing.assert_allclose(held_out[:5], [0.08, 0.10, 0.14, 0.14, 0.16], atol=0.02)
    np.testing.assert_allclose(held_out[5:22], 0.38 / 17, atol=0.012)
    trained = np.bincount([kind_of(seed) for seed in range(4000)], minlength=len(KINDS)) / 4000
    np.testing.assert_allclose(trained[22:], 1 / 33, atol=0.012)


def test_a_seed_gives_the_same_sample_whatever_was_drawn_before() -> None:
    first = draw_sample(make_shape(17), occupancy=True)
    draw_sample(make_shape(3))
    assert same(first, draw_sample(make_shape(17), occupancy=True))
    assert not same(first, draw_sample(make_shape(18), occupancy=True))


def test_the_solid_is_centred_and_its_silhouette_measures_1_8(one_of_each: list[ProceduralShape]) -> None:
    for shape in one_of_each:
        low, high = extents(shape.field.occupancy(), shape.field.axis)
        np.testing.assert_allclose((low + high) / 2, 0, atol=0.02, err_msg=shape.name)
        assert (high - low)[:2].max() == pytest.approx(1.8, abs=0.03), shape.name
        assert (high - low)[2] < 1.93, shape.name


def test_the_image_leaves_a_border_of_15_percent(one_of_each: list[ProceduralShape]) -> None:
    for shape in one_of_each:
        alpha = render_images(shape, 1)[0, :, :, 3]
        rows, columns = np.nonzero(alpha > 127)
        larger = max(np.ptp(rows), np.ptp(columns)) + 1
        assert larger == pytest.approx(0.85 * 112, abs=2.5), shape.name


def test_the_images_frame_is_the_worlds(one_of_each: list[ProceduralShape]) -> None:
    for shape in one_of_each:
        view = front_view(shape)
        covered = view.alpha.ravel()[view.pixels] > 0.99
        points = view.points[covered]
        rows, columns = np.divmod(view.pixels[covered], 112)
        np.testing.assert_allclose(points[:, 0], ((columns + 0.5) / 56 - 1) * REACH, atol=1e-5)
        np.testing.assert_allclose(points[:, 1], -((rows + 0.5) / 56 - 1) * REACH, atol=1e-5)
        assert np.percentile(np.abs(shape.field.lookup(points)[:, 0]), 99) < 0.01, shape.name
        ahead = points + np.array([0, 0, 0.02], np.float32)
        assert np.mean(shape.field.lookup(ahead)[:, 0] > 0) > 0.97, shape.name


def test_distances_are_positive_inside_and_agree_with_occupancy(one_of_each: list[ProceduralShape]) -> None:
    for shape in one_of_each:
        sample = draw_sample(shape, occupancy=True)
        assert sample.occupancy is not None
        inside = np.unpackbits(sample.occupancy).reshape(64, 64, 64).astype(bool)
        queries = sample.uniform.astype(np.float32)
        cell = np.clip(((queries[:, :3] / 1.01 + 1) * 32).astype(int), 0, 63)
        clear = np.abs(queries[:, 3]) > 0.04
        agree = inside[tuple(cell.T)] == (queries[:, 3] > 0)
        assert agree[clear].mean() > 0.995, shape.name
        assert inside.any(), shape.name


def test_distance_grows_by_one_a_unit_along_the_normal(one_of_each: list[ProceduralShape]) -> None:
    for shape in one_of_each:
        points, normals = shape.field.surface(1500, np.random.default_rng(0))
        step = np.float32(0.02)
        rise = shape.field.lookup(points + step * normals)[:, 0] - shape.field.lookup(points - step * normals)[:, 0]
        assert np.median(rise / (2 * step)) == pytest.approx(1, abs=0.05), shape.name


def test_surface_points_lie_on_the_surface_with_unit_normals(one_of_each: list[ProceduralShape]) -> None:
    for shape in one_of_each:
        surface = draw_sample(shape).surface.astype(np.float32)
        distance = np.abs(shape.field.lookup(surface[:, :3])[:, 0])
        assert distance.mean() < 1e-3, shape.name
        assert np.percentile(distance, 99) < 0.006, shape.name
        np.testing.assert_allclose(np.linalg.norm(surface[:, 3:], axis=1), 1, atol=2e-3)


def test_points_on_a_sphere_are_exact_and_uniform() -> None:
    axis = axis_of(64)
    ball = Part(ellipsoid(0.9, 0.9, 0.9), np.zeros(3), np.eye(3))
    field = build_field(evaluate_grid([ball], Placement(np.eye(3)), axis), axis)
    points, normals = field.surface(20000, np.random.default_rng(1))
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 0.9, atol=2e-3)
    np.testing.assert_allclose(normals, points / 0.9, atol=0.02)
    for i in range(3):
        # Equal slices of a sphere have equal areas (Archimedes).
        share = np.histogram(points[:, i], bins=6, range=(-0.9, 0.9))[0] / len(points)
        np.testing.assert_allclose(share, 1 / 6, atol=0.012)


def test_inflating_a_disc_gives_a_ball() -> None:
    outline = silhouettes.draw(np.random.default_rng(0), lambda pen: pen.oval(0, 0, 0.8, 0.8))
    ball = silhouettes.inflate(outline)
    direction = np.random.default_rng(2).standard_normal((500, 3)).astype(np.float32)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    x, y, z = direction.T
    np.testing.assert_allclose(ball.distance(x, y, z), 0, atol=0.06)
    assert ball.half[2] == pytest.approx(1, abs=0.06)


def test_a_thicker_outline_makes_a_thicker_extrusion() -> None:
    def bar(width: float) -> float:
        drawn = silhouettes.draw(np.random.default_rng(0), lambda pen: pen.rectangle(0, 0, 0.8, width))
        return silhouettes.extrusion_thickness(drawn)

    assert bar(0.1) < bar(0.3) < bar(0.7)


def test_thin_strokes_are_removed_from_an_outline() -> None:
    def drawing(pen: silhouettes.Pen) -> None:
        pen.oval(0, 0, 0.5, 0.5)
        pen.stroke(np.array([[0.0, 0.0], [1.0, 0.0]]), 0.04)

    outline = silhouettes.draw(np.random.default_rng(0), drawing)
    assert outline.half[0] == pytest.approx(outline.half[1], abs=0.03)


def test_shards_read_back_what_was_drawn(tmp_path: Path) -> None:
    write_shard(tmp_path, 40, 3, occupancy=True)
    write_shard(tmp_path, 43, 2, occupancy=True)
    data = ShapeDataset(tmp_path)
    assert len(data) == 5
    order = np.array([4, 0, 2, 0])
    np.testing.assert_array_equal(data.column("seed", order), [44, 40, 42, 40])
    drawn = draw_sample(make_shape(44), occupancy=True)
    for item in fields(drawn):
        np.testing.assert_array_equal(data.column(item.name, order)[0], getattr(drawn, item.name))
    assert data.occupancy(order).shape == (4, 64, 64, 64)
    with pytest.raises(IndexError):
        data.column("seed", np.array([5]))


def test_a_finished_shard_is_kept_and_new_ones_are_noticed(tmp_path: Path) -> None:
    shard = write_shard(tmp_path, 0, 2)
    before = (shard / "surface.npy").stat().st_mtime_ns
    data = ShapeDataset(tmp_path)
    assert write_shard(tmp_path, 0, 2) == shard
    assert (shard / "surface.npy").stat().st_mtime_ns == before
    write_shard(tmp_path, 2, 1)
    assert data.refresh() == 3
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["shard-0000000000-0002", "shard-0000000002-0001"]


def test_the_command_line_writes_every_shape_once(tmp_path: Path) -> None:
    make_data.main(["--out", str(tmp_path), "--count", "3", "--first-seed", "7", "--workers", "1"])
    np.testing.assert_array_equal(ShapeDataset(tmp_path).column("seed", np.arange(3)), [7, 8, 9])


def test_held_out_seeds_are_kept_apart(tmp_path: Path) -> None:
    assert not is_held_out(HELD_OUT_FIRST_SEED - 1)
    assert is_held_out(HELD_OUT_FIRST_SEED)
    with pytest.raises(ValueError, match="held out"):
        make_data.make_data(tmp_path, 10, HELD_OUT_FIRST_SEED - 5, 1, False)
    assert list(tmp_path.iterdir()) == []
