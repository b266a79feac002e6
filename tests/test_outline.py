"""A field is made to end at its picture's outline: nearer to it than the network's own, without walls, alone or not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from scipy import ndimage

from backend.hunyuan3d.facts import BackgroundFacts, OutlineFacts
from backend.hunyuan3d.finishing import closed_mesh
from backend.hunyuan3d.image import outline as image_outline
from backend.hunyuan3d.image.outline import AlignedFrame, Outline, aligned_frame, reason_not_to_follow
from backend.hunyuan3d.mesh.ops import count_parts, is_watertight
from backend.hunyuan3d.options import image_options
from backend.hunyuan3d.pipeline import Hunyuan3DShapePipeline
from backend.hunyuan3d.results import ShapeMetadata, ShapeResult
from backend.hunyuan3d.volume import outline
from backend.hunyuan3d.volume.decode import decode_volume
from backend.hunyuan3d.volume.marching_cubes import extract_surface
from backend.hunyuan3d.volume.outline import TRUNCATION, FollowOutlines
from backend.hunyuan3d.volume.sparse_volume import SparseVolume
from backend.rendering.camera import find_camera
from backend.rendering.outputs import OutputOptions, make_outputs
from benchmarks.support.fields import AnalyticField, Shape, norm, sphere

GOLDEN = Path(__file__).parent / "golden" / "tiny-2.1"
STAR = Path(__file__).parents[1] / "samples" / "star.png"
STEEP_WITHIN = float(np.sin(np.radians(3)))
ALPHA = BackgroundFacts("alpha", None, 0.0, 1)


@pytest.fixture(params=[1, 2])
def opencv_threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Have OpenCV take so many threads to a call."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(request.param)
    yield request.param
    cv2.setNumThreads(before)


def drawn(*shapes: tuple[str, tuple[float, ...]], side: int = 400) -> Image.Image:
    """Draw ellipses and rectangles, given by their box in shares of the side."""
    image = Image.new("RGBA", (side, side))
    pen = ImageDraw.Draw(image)
    for kind, box in shapes:
        getattr(pen, kind)([edge * side for edge in box], fill=(200, 60, 40, 255))
    return image


def disc() -> Image.Image:
    return drawn(("ellipse", (0.1, 0.1, 0.9, 0.9)))


def truncated_ball(radius: float) -> Shape:
    return lambda points: (sphere(radius)(points) / TRUNCATION).clamp(-1, 1)


def truncated_box(x: float, y: float, z: float) -> Shape:
    def distance(points: torch.Tensor) -> torch.Tensor:
        beyond = points.abs() - torch.tensor([x, y, z])
        outside = norm(beyond.clamp(min=0)) + beyond.amax(-1).clamp(max=0)
        return (-outside / TRUNCATION).clamp(-1, 1)

    return distance


def followed(
    shapes: list[Shape], cutouts: list[Image.Image | None], resolution: int = 64
) -> tuple[list[SparseVolume], dict[int, OutlineFacts]]:
    follow = FollowOutlines([None if cutout is None else Outline.of(cutout, 1.01) for cutout in cutouts])
    found = decode_volume(AnalyticField(shapes), resolution, reshape=follow)
    assert all(isinstance(volume, SparseVolume) for volume in found)
    return [volume for volume in found if isinstance(volume, SparseVolume)], follow.facts


def score(volume: SparseVolume, cutout: Image.Image) -> float:
    mesh = closed_mesh(volume)
    assert is_watertight(mesh)
    assert count_parts(mesh) == 1
    return find_camera(mesh, np.asarray(cutout.getchannel("A")), True).score


@pytest.mark.parametrize("radius", [0.82, 0.98])
def test_a_body_that_ends_short_of_the_outline_or_beyond_it_is_drawn_to_it_and_stays_round(radius: float) -> None:
    (volume,), facts = followed([truncated_ball(radius)], [disc()])
    assert score(volume, disc()) > 0.98
    vertices, faces = extract_surface(volume)
    assert len(faces) > 0
    width, height, depth = (float(side) for side in vertices.amax(0) - vertices.amin(0))
    assert width == pytest.approx(1.8, abs=0.03)
    assert height == pytest.approx(1.8, abs=0.03)
    assert depth == pytest.approx(2 * radius, abs=0.04)
    # What is said is how far the network's own silhouette was off.
    assert facts[0].carved == pytest.approx(max(radius**2 / 0.81 - 1, 0), abs=0.02)
    assert facts[0].filled == pytest.approx(max(1 - radius**2 / 0.81, 0), abs=0.02)
    raw = min(radius, 0.9) ** 2 / max(radius, 0.9) ** 2
    assert facts[0].raw_silhouette_iou == pytest.approx(raw, abs=0.02)


def steep_share(volume: SparseVolume) -> float:
    mesh = closed_mesh(volume)
    steep = np.abs(mesh.face_normals[:, 2]) < STEEP_WITHIN
    return float(mesh.area_faces[steep].sum() / mesh.area)


def test_what_is_cut_off_leaves_no_wall_and_what_is_added_is_round() -> None:
    cross = drawn(("rectangle", (0.4, 0.1, 0.6, 0.9)), ("rectangle", (0.1, 0.4, 0.9, 0.6)))
    (volume,), facts = followed([truncated_ball(0.7)], [cross])
    assert facts[0].carved > 0.3
    assert facts[0].filled > 0.2
    assert score(volume, cross) > 0.97
    assert steep_share(volume) < 0.05


def test_a_ball_that_is_cut_stands_along_the_view_no_more_than_a_ball_does() -> None:
    (volume,), _ = followed([truncated_ball(0.98)], [disc()], 48)
    # A ball's area lies evenly along any axis.
    assert steep_share(volume) < STEEP_WITHIN


def test_true_walls_stay() -> None:
    square = drawn(("rectangle", (0.1, 0.1, 0.9, 0.9)))
    (volume,), _ = followed([truncated_box(0.88, 0.88, 0.5)], [square])
    assert score(volume, square) > 0.96
    vertices, _ = extract_surface(volume)
    at_the_wall = vertices[vertices[:, 0].abs() > 0.84]
    assert float(at_the_wall[:, 2].abs().max()) > 0.44


def test_an_image_gets_the_same_surface_alone_or_in_company_to_the_bit() -> None:
    shapes: list[Shape] = [truncated_ball(0.82), truncated_box(0.8, 0.6, 0.3), truncated_ball(0.95)]
    cutouts = [disc(), None, drawn(("rectangle", (0.1, 0.2, 0.9, 0.8)))]
    together, facts = followed(shapes, cutouts, 40)
    assert sorted(facts) == [0, 2]
    for shape, cutout, volume in zip(shapes, cutouts, together, strict=True):
        (alone,), _ = followed([shape], [cutout], 40)
        for one, other in zip(extract_surface(volume), extract_surface(alone), strict=True):
            assert torch.equal(one, other)


def test_the_network_is_asked_little_more_than_without_an_outline_and_the_surface_is_that_of_asking_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cross = drawn(("rectangle", (0.4, 0.1, 0.6, 0.9)), ("rectangle", (0.1, 0.4, 0.9, 0.6)))
    # The cross's surface is another than the box's, and larger.
    for shape, cutout, most in ((truncated_ball(0.82), disc(), 1.2), (truncated_box(0.88, 0.4, 0.5), cross, 1.55)):
        follow = FollowOutlines([Outline.of(cutout, 1.01)])
        field, plain = AnalyticField([shape], remember=True), AnalyticField([shape], remember=True)
        (thrifty,), (_,) = decode_volume(field, 96, reshape=follow), decode_volume(plain, 96)
        monkeypatch.setattr(outline, "_NEAR", 1e9)
        (thorough,) = decode_volume(AnalyticField([shape]), 96, reshape=follow)
        monkeypatch.undo()
        assert isinstance(thrifty, SparseVolume)
        assert isinstance(thorough, SparseVolume)
        assert asked(field) < most * asked(plain)
        assert thrifty.points_evaluated < thorough.points_evaluated
        for one, other in zip(extract_surface(thrifty), extract_surface(thorough), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


def asked(field: AnalyticField) -> int:
    return sum(len(points) for points, _ in field.calls)


def test_a_body_that_is_not_finite_is_left_to_the_search() -> None:
    follow = FollowOutlines([Outline.of(disc(), 1.01)] * 2)
    shapes: list[Shape] = [lambda points: points.sum(-1) * torch.nan, truncated_ball(0.9)]
    bad, good = decode_volume(AnalyticField(shapes), 40, reshape=follow)
    assert not isinstance(bad, SparseVolume)
    assert isinstance(good, SparseVolume)
    assert list(follow.facts) == [1]


def test_an_outline_is_followed_only_where_it_can_be_relied_on() -> None:
    glass = disc()
    glass.putalpha(glass.getchannel("A").point(lambda alpha: alpha * 2 // 5))
    assert reason_not_to_follow(disc(), ALPHA) is None
    assert reason_not_to_follow(disc(), BackgroundFacts("network", 0.3, 0.0, 1)) == "doubtful"
    assert reason_not_to_follow(disc(), BackgroundFacts("network", 0.9, 0.2, 1)) == "border"
    assert reason_not_to_follow(glass, ALPHA) == "soft"


def test_distances_are_to_the_outline_at_its_own_size() -> None:
    outline = Outline.of(disc(), 1.01)
    side = len(outline.distance)
    assert outline.distance[side // 2, side // 2] == pytest.approx(0.9, abs=0.015)
    right = round((0.5 + 0.5 / 2.02) * side)
    assert outline.distance[side // 2, right] == pytest.approx(0.4, abs=0.01)
    assert outline.radius[len(outline.radius) // 2, len(outline.radius) // 2] == pytest.approx(0.9, abs=0.035)
    nothing = Outline.of(Image.new("RGBA", (32, 32)), 1.01)
    assert nothing.distance.max() < 0


def test_smoke_above_a_cup_counts_for_its_size_as_it_does_for_the_image_processor() -> None:
    alone, smoking = np.zeros((2, 200, 200), np.uint8)
    alone[80:180, 60:140] = smoking[80:180, 60:140] = 255
    smoking[20:70, 90:110] = 90
    assert aligned_frame(alone) == AlignedFrame(100 / 100 / 1.8, (0.0, 1 - 1.3))
    # From the smoke's top to the foot.
    assert aligned_frame(smoking) == AlignedFrame(160 / 100 / 1.8, (0.0, 0.0))
    # A soft edge is no smoke.
    soft = np.asarray(cv2.GaussianBlur(alone, (0, 0), 2), np.uint8)
    np.testing.assert_allclose(aligned_frame(soft).scale, aligned_frame(alone).scale, rtol=0.01)


def test_checkpoints_that_do_not_lie_as_seen_never_follow_one() -> None:
    pipeline = Hunyuan3DShapePipeline.from_pretrained(GOLDEN, device="cpu")
    generation = pipeline.options(2, 1.0, 16)
    (prepared,) = pipeline.prepare_shapes([disc()], image_options(generation, 1, 1, outline="auto"))
    assert (prepared.outline, prepared.metadata.outline_unused) == (None, None)


def test_the_demo_follows_outlines_unless_it_is_told_not_to() -> None:
    pipeline = Hunyuan3DShapePipeline.from_pretrained("demo", device="cpu")
    on = pipeline(STAR, seeds=3, octree_resolution=48)[0]
    off = pipeline(STAR, seeds=3, octree_resolution=48, outline="off")[0]
    assert off.metadata.outline is None
    assert on.metadata.outline is not None
    assert on.cutout is not None
    alpha = np.asarray(on.cutout.getchannel("A"))
    with_it, without = (find_camera(result.unwrap(), alpha, True).score for result in (on, off))
    assert with_it > max(without, 0.97)
    assert on.metadata.outline.raw_silhouette_iou == pytest.approx(without, abs=0.03)


def test_an_outline_that_was_not_followed_is_a_note() -> None:
    (volume,), _ = followed([truncated_ball(0.9)], [None], 24)
    metadata = ShapeMetadata("demo", 1, parts=1, outline_unused="border")
    result = ShapeResult(closed_mesh(volume), None, metadata, disc(), view_aligned=True)
    outputs = make_outputs(result, OutputOptions(("stl",), color="none", preview=False, keep=False))
    assert outputs.notes == (
        "The mesh does not follow the picture's outline: the object reaches the picture's border.",
    )


@pytest.mark.usefixtures("opencv_threads")
def test_an_outline_is_exact_and_the_same_every_time_on_any_number_of_threads() -> None:
    cutout = Image.open(STAR)
    first = Outline.of(cutout, 1.01)
    # Memory is asked for in between: what is rounded by where it lies comes out another way then.
    kept = []
    for size in range(1, 60):
        kept.append(np.empty(size * 1001, np.uint8))
        again = Outline.of(cutout, 1.01)
        assert all(np.array_equal(getattr(again, name), getattr(first, name)) for name in ("distance", "coarse"))
    inside = np.asarray(cutout.getchannel("A")) >= 128
    raw = image_outline._exact_distance(inside.astype(np.uint8))
    assert np.array_equal(raw, ndimage.distance_transform_edt(inside).astype(np.float32))
