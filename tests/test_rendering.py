"""Previews: what a view must show, and how previews and contact sheets are laid out."""

from __future__ import annotations

import builtins
import io

import numpy as np
import pytest
import trimesh
from PIL import Image

from backend.errors import InvalidMesh, InvalidParameter, PreviewUnavailable
from backend.rendering.contact_sheet import SheetRow, contact_sheet, png_bytes
from backend.rendering.previews import PREVIEW_VIEWS
from backend.rendering.render import FRONT, SIDE, THREE_QUARTER, RenderOptions, View, render_views

SMALL = RenderOptions(size=96, samples=2, occlusion_rays=2)


def pointer() -> trimesh.Trimesh:
    """Return a body with one arm to the right (+X), a taller one up (+Y) and a nose towards the front viewer (+Z)."""
    body = trimesh.creation.box((0.4, 0.4, 0.4))
    right = trimesh.creation.box((0.5, 0.1, 0.1)).apply_translation((0.45, 0, 0))
    up = trimesh.creation.box((0.1, 0.7, 0.1)).apply_translation((0, 0.5, 0))
    nose = trimesh.creation.box((0.1, 0.1, 0.3)).apply_translation((0, -0.1, 0.3))
    return trimesh.util.concatenate([body, right, up, nose])


def shape_in(image: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Return where the clay is: it is warm (red above blue), the room is cool."""
    pixels = np.asarray(image).astype(np.int64)
    return pixels[..., 0] > pixels[..., 2] + 5


def share(mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], x: float, y: float) -> bool:
    """Return whether the mask covers the point x to the right and y up of the middle, in half picture sides."""
    size = len(mask)
    return bool(mask[round((1 - y) * size / 2), round((1 + x) * size / 2)])


def test_front_view_has_right_on_the_right_and_up_on_top() -> None:
    (front,) = render_views(pointer(), (FRONT,), SMALL)
    mask = shape_in(front)
    assert front.size == (96, 96)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    # The bounds' middle is (0.25, 0.325): the body lies left of and below it.
    assert share(mask, -0.5, -0.6)
    assert not share(mask, 0.5, 0.5)
    upper = mask[rows[0] + 3]
    assert np.flatnonzero(upper).mean() < 48
    assert np.flatnonzero(mask[:, columns[-1] - 3]).mean() > 48


def test_side_view_looks_from_the_right_so_the_front_is_on_the_left() -> None:
    (side,) = render_views(pointer(), (SIDE,), SMALL)
    mask = shape_in(side)
    low = np.flatnonzero(mask[round(96 * 0.72)])
    high = np.flatnonzero(mask[20])
    assert low.min() < high.min() - 10


def test_three_quarter_view_looks_from_above_and_drops_a_shadow() -> None:
    table = trimesh.creation.box((1.0, 0.1, 1.0))
    front, oblique = render_views(table, (FRONT, THREE_QUARTER), SMALL)
    assert shape_in(oblique).sum() > 2 * shape_in(front).sum()
    ball = trimesh.creation.icosphere(subdivisions=3)
    (image,) = render_views(ball, (THREE_QUARTER,), SMALL)
    grey = np.asarray(image.convert("L")).astype(np.float64)
    assert grey[88, 48] < grey[88, 2] - 8


def test_views_fill_the_image_up_to_the_margin() -> None:
    ball = trimesh.creation.icosphere(subdivisions=4, radius=37.0).apply_translation((500, -3, 8))
    for image in render_views(ball, options=SMALL):
        columns = np.flatnonzero(shape_in(image).any(axis=0))
        assert np.ptp(columns) + 1 == pytest.approx(0.85 * 96, abs=3)
        assert columns.mean() == pytest.approx(47.5, abs=1.5)


def test_light_comes_from_the_upper_left() -> None:
    (front,) = render_views(trimesh.creation.icosphere(subdivisions=4), (FRONT,), SMALL)
    grey = np.asarray(front.convert("L")).astype(np.float64)
    assert grey[30, 36] > grey[66, 62] + 15


def test_what_is_hidden_from_the_light_is_darker() -> None:
    open_pit = trimesh.creation.annulus(r_min=0.3, r_max=1.0, height=2.0)
    open_pit.apply_transform(trimesh.transformations.rotation_matrix(0.0, (1, 0, 0)))
    floor = trimesh.creation.box((2, 2, 0.1)).apply_translation((0, 0, -1.0))
    (front,) = render_views(trimesh.util.concatenate([open_pit, floor]), (FRONT,), SMALL)
    grey = np.asarray(front.convert("L")).astype(np.float64)
    assert grey[48, 48] < grey[48, 20] - 40


@pytest.mark.parametrize("size", [96, 97])
def test_light_that_is_looked_for_in_few_places_looks_like_that_from_all(size: int) -> None:
    thin = trimesh.creation.cylinder(radius=0.01, height=2.0).apply_translation((0.9, 0, 0))
    both = trimesh.util.concatenate([trimesh.creation.icosphere(subdivisions=4, radius=0.7), pointer(), thin])
    full, few = (
        render_views(both, (FRONT,), RenderOptions(size=size, samples=1, occlusion_rays=8, light_step=step))[0]
        for step in (1, 2)
    )
    off = np.abs(np.asarray(full).astype(np.int64) - np.asarray(few))
    assert off.mean() < 0.6
    assert np.percentile(off, 99) < 12


def test_edges_are_smoothed_by_supersampling() -> None:
    ball = trimesh.creation.icosphere(subdivisions=4)
    rough, fine = (
        render_views(ball, (FRONT,), RenderOptions(size=64, samples=samples, occlusion_rays=2))[0] for samples in (1, 4)
    )
    assert len(np.unique(np.asarray(fine)[32:34])) > len(np.unique(np.asarray(rough)[32:34]))


def test_same_mesh_gives_the_same_image() -> None:
    first, second = (render_views(pointer(), (THREE_QUARTER,), SMALL)[0] for _ in range(2))
    np.testing.assert_array_equal(np.asarray(first), np.asarray(second))


def test_box_sides_stay_flat() -> None:
    (front,) = render_views(trimesh.creation.box(), (View("low", 30.0, 0.0),), SMALL)
    column = np.asarray(front.convert("L")).astype(np.float64)[30:66, 60]
    assert np.ptp(column) < 12


def test_open_mesh_shows_its_inside() -> None:
    ball = trimesh.creation.icosphere(subdivisions=3)
    back = trimesh.Trimesh(ball.vertices, ball.faces[ball.triangles_center[:, 2] < 0], process=False)
    (front,) = render_views(back, (FRONT,), SMALL)
    assert shape_in(front)[48, 48]
    assert np.asarray(front.convert("L"))[48, 48] > 60


@pytest.mark.parametrize("vertices", [np.zeros((0, 3)), np.full((3, 3), np.nan)])
def test_unusable_mesh_is_refused(vertices: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> None:
    faces = np.array([[0, 1, 2]])[: len(vertices)]
    with pytest.raises(InvalidMesh):
        render_views(trimesh.Trimesh(vertices, faces, process=False), options=SMALL)


@pytest.mark.parametrize(
    "wrong", [{"size": 2}, {"samples": 0}, {"occlusion_rays": 0}, {"light_step": 0}, {"margin": 1.0}]
)
def test_senseless_options_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidParameter):
        RenderOptions(**wrong)  # type: ignore[arg-type]


def test_missing_ray_caster_is_a_named_error(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object, **more: object) -> object:
        if name.startswith("embreex"):
            raise ImportError(name)
        return real(name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(PreviewUnavailable, match="embreex"):
        render_views(pointer(), options=SMALL)


def test_sheet_shows_the_image_beside_the_views_of_a_preview() -> None:
    red = Image.new("RGB", (200, 100), (200, 20, 20))
    row = SheetRow(red, render_views(pointer(), PREVIEW_VIEWS, SMALL), "red.png")
    image = contact_sheet([row], tile=SMALL.size)
    assert image.mode == "RGB"
    assert image.width == pytest.approx(5 * 96, rel=0.1)
    pixels = np.asarray(image).astype(np.int64)
    reddish = (pixels[..., 0] > 180) & (pixels[..., 1] < 60)
    rows, columns = np.flatnonzero(reddish.any(axis=1)), np.flatnonzero(reddish.any(axis=0))
    assert np.ptp(columns) + 1 == pytest.approx(96, abs=2)
    assert np.ptp(rows) + 1 == pytest.approx(48, abs=2)
    assert columns.max() < image.width / 5 + 4


def test_see_through_image_lies_on_a_light_card() -> None:
    clear = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    pixels = np.asarray(contact_sheet([SheetRow(clear, [])], tile=64, labels=[]))
    assert pixels.min() > 200


def test_contact_sheet_has_room_for_every_row() -> None:
    tile = Image.new("RGB", (50, 50), (10, 90, 10))
    rows = [SheetRow(tile, [tile] * 3, f"row {k}") for k in range(5)]
    single, double = contact_sheet(rows, tile=50), contact_sheet(rows, tile=50, columns=2)
    assert double.width == pytest.approx(2 * single.width, rel=0.05)
    assert double.height == pytest.approx(single.height * 3 / 5, rel=0.1)
    for sheet in (single, double):
        green = np.asarray(sheet)[..., 0] < 60
        assert green.sum() >= 5 * 4 * 50 * 50 * 0.9


def test_contact_sheet_says_why_a_mesh_is_missing() -> None:
    tile = Image.new("RGB", (50, 50), (255, 255, 255))
    quiet = contact_sheet([SheetRow(tile, [], "bad.png")], tile=100)
    told = contact_sheet([SheetRow(tile, [], "bad.png", "No object was found in the picture.")], tile=100)
    pixels = [np.asarray(sheet).astype(np.int64) for sheet in (quiet, told)]
    reds = [int((p[..., 0] > p[..., 2] + 60).sum()) for p in pixels]
    assert reds[0] == 0
    assert reds[1] > 50


def test_long_caption_does_not_widen_the_sheet() -> None:
    tile = Image.new("RGB", (50, 50))
    short, long = (contact_sheet([SheetRow(tile, [tile] * 3, text)], tile=50) for text in ("a", "a long name " * 30))
    assert short.size == long.size


@pytest.mark.parametrize("wrong", [{"columns": 0}, {"tile": 3}])
def test_senseless_sheet_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidParameter):
        contact_sheet([SheetRow(Image.new("RGB", (8, 8)), [])], **wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidParameter):
        contact_sheet([])


def test_png_bytes_are_a_png() -> None:
    image = Image.new("RGB", (7, 5), (1, 2, 3))
    again = Image.open(io.BytesIO(png_bytes(image)))
    assert again.format == "PNG"
    assert again.size == (7, 5)
