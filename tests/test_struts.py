"""Parts that hang together in the picture are joined where the gap is narrowest, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image, ImageDraw

from backend.hunyuan3d.facts import OutlineFacts
from backend.hunyuan3d.finishing import PendingShape, closed_mesh
from backend.hunyuan3d.image.outline import Outline
from backend.hunyuan3d.mesh.ops import count_parts, is_watertight, part_vertices
from backend.hunyuan3d.results import ShapeMetadata, ShapeResult
from backend.hunyuan3d.volume.decode import decode_volume
from backend.hunyuan3d.volume.outline import TRUNCATION
from backend.hunyuan3d.volume.sparse_volume import SparseVolume
from backend.hunyuan3d.volume.struts import find_struts, with_struts
from backend.limits import ObjectChoice
from benchmarks.support.fields import AnalyticField, Shape, sphere

Ball = tuple[float, tuple[float, float, float]]
# The outline of both is 1.8 long, as a checkpoint that lies as seen has them.
BEFORE, BEHIND = (0.45, (-0.45, 0.0, 0.45)), (0.5, (0.4, 0.0, -0.35))


def balls(*each: Ball) -> Shape:
    """Return the truncated field of balls."""

    def field(points: torch.Tensor) -> torch.Tensor:
        distance = torch.stack([sphere(radius, centre)(points) for radius, centre in each]).amax(0)
        return (distance / TRUNCATION).clamp(-1, 1)

    return field


def picture(*each: Ball, side: int = 400) -> Image.Image:
    """Draw what is seen of balls along -Z, 1.8 world units on nine tenths of the side."""
    image = Image.new("RGBA", (side, side))
    pen = ImageDraw.Draw(image)
    for radius, (x, y, _) in each:
        box = [x - radius, -y - radius, x + radius, -y + radius]
        pen.ellipse([(edge / 2 + 0.5) * side for edge in box], fill=(200, 60, 40, 255))
    return image


def volume_of(*each: Ball, resolution: int = 64) -> SparseVolume:
    (found,) = decode_volume(AnalyticField([balls(*each)]), resolution)
    assert isinstance(found, SparseVolume)
    return found


def joined(*each: Ball, resolution: int = 64) -> tuple[trimesh.Trimesh, trimesh.Trimesh, int]:
    """Return the mesh of balls before and after, and how many struts there are."""
    volume, outline = volume_of(*each, resolution=resolution), Outline.of(picture(*each), 1.01)
    before = closed_mesh(volume)
    struts = find_struts(part_vertices(before), outline)
    return before, closed_mesh(with_struts(volume, struts, outline)), len(struts)


@pytest.mark.parametrize("resolution", [40, 64, 129])
def test_parts_one_before_the_other_are_joined_within_the_outline(resolution: int) -> None:
    before, after, struts = joined(BEFORE, BEHIND, resolution=resolution)
    assert count_parts(before) == 2
    assert struts == count_parts(after) == 1
    assert is_watertight(after)
    # What has come is as thick as a pencil: within the outline, and in the gap.
    of_both = (BEFORE, BEHIND)
    gaps = [np.linalg.norm(after.vertices - centre, axis=1) - radius for radius, centre in of_both]
    new = after.vertices[np.min(gaps, axis=0) > 0.02]
    assert len(new) > 20
    assert max(np.ptp(new[:, 0]), np.ptp(new[:, 1])) < 0.45
    seen = [np.hypot(new[:, 0] - x, new[:, 1] - y) - radius for radius, (x, y, _) in of_both]
    assert np.min(seen, axis=0).max() < 0.01
    assert 0 < after.volume - before.volume < 0.02


def test_what_is_far_from_the_strut_stays_to_the_bit() -> None:
    before, after, _ = joined(BEFORE, BEHIND)
    away = before.vertices[np.linalg.norm(before.vertices, axis=1) > 0.6]
    assert len(away) > 1000
    assert {tuple(point) for point in away} <= {tuple(point) for point in after.vertices}


def test_parts_that_are_apart_in_the_picture_are_left_apart() -> None:
    left, right = (0.4, (-0.5, 0.0, 0.1)), (0.4, (0.5, 0.0, -0.1))
    _, after, struts = joined(left, right)
    assert struts == 0
    assert count_parts(after) == 2


def test_a_part_that_is_far_before_the_other_is_left_there() -> None:
    _, after, struts = joined((0.45, (-0.45, 0.0, 0.55)), (0.5, (0.4, 0.0, -0.5)))
    assert struts == 0
    assert count_parts(after) == 2


def test_a_row_of_parts_is_joined_link_by_link() -> None:
    row = [(0.24, (0.33 * k, 0.0, 0.27 * (-1) ** k)) for k in range(-2, 3)]
    before, after, struts = joined(*row)
    assert count_parts(before) == 5
    assert struts == 4
    assert count_parts(after) == 1
    assert is_watertight(after)


def test_of_very_many_parts_the_largest_are_joined() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal((0.1 * k - 0.8, 0, 0.05 * (-1) ** k), 0.01, (9, 3)) for k in range(17)]
    outline = Outline.of(picture((0.9, (0.0, 0.0, 0.0))), 1.01)
    assert len(find_struts(parts, outline)) == 11


def finished(objects: ObjectChoice, facts: OutlineFacts | None) -> ShapeResult:
    metadata = ShapeMetadata("balls", 1, outline=facts, objects=objects)
    return PendingShape(volume_of(BEFORE, BEHIND), metadata, picture(BEFORE, BEHIND), view_aligned=True).build_mesh()


@pytest.mark.parametrize("objects", ["all", "largest"])
def test_a_finished_mesh_is_joined_where_the_outline_was_followed(objects: ObjectChoice) -> None:
    joined = finished(objects, OutlineFacts(0.1, 0.2))
    assert joined.metadata.parts == 1
    assert joined.metadata.outline == OutlineFacts(0.1, 0.2, joined=1)
    assert joined.unwrap().bounds[:, 0] == pytest.approx([-0.9, 0.9], abs=0.02)
    apart = finished(objects, None)
    assert apart.metadata.outline is None
    assert apart.metadata.parts == (2 if objects == "all" else 1)


def test_vertices_of_parts_are_given_the_largest_first() -> None:
    parts = part_vertices(closed_mesh(volume_of(BEFORE, BEHIND)))
    assert [round(float(part[:, 0].max()), 1) for part in parts] == [0.9, 0.0]
    (alone,) = part_vertices(closed_mesh(volume_of(BEFORE)))
    assert alone[:, 0].max() == pytest.approx(0, abs=0.01)
