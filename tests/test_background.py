"""Cut-outs of drawn photographs against their known masks; when alpha, rembg or the classical way is used."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from backend.errors import InvalidParameter, NoForeground
from backend.hunyuan3d.image.background import BackgroundResult, alpha_cuts, remove_background
from backend.limits import BackgroundMode
from benchmarks.support.images import DRAWINGS, blank_wall, enlarged, leaves_only, mask_iou


def _cut(image: np.ndarray, mode: BackgroundMode = "auto") -> BackgroundResult:
    return remove_background(Image.fromarray(image), mode, cutter=None)


def _disc(alpha_inside: int, alpha_outside: int) -> np.ndarray:
    rows, columns = np.mgrid[0:96, 0:128]
    inside = np.hypot(rows - 48, columns - 64) < 30
    colour = np.where(inside[..., None], (200, 40, 40), (240, 240, 240))
    return np.dstack([colour, np.where(inside, alpha_inside, alpha_outside)]).astype(np.uint8)


# All others have an outline that is clear all along, which a flood follows best.
SEEN_BY_THE_NETWORK = {"checkered", "contact_shadow", "garden", "touching_border", "white_ball", "white_mug"}


@pytest.mark.parametrize("name", sorted(DRAWINGS))
def test_cut_out_matches_the_drawn_mask(name: str) -> None:
    photograph = DRAWINGS[name]()
    result = _cut(photograph.image)
    alpha = np.asarray(result.image)[..., 3]
    assert photograph.least_iou >= 0.9
    assert mask_iou(alpha, photograph.mask) >= photograph.least_iou
    assert result.method == ("network" if name in SEEN_BY_THE_NETWORK else "flood")
    assert result.image.size == (photograph.image.shape[1], photograph.image.shape[0])


def test_edges_are_soft_and_free_of_backdrop() -> None:
    photograph = DRAWINGS["red_on_green"]()
    rgba = np.asarray(_cut(photograph.image).image).astype(int)
    soft = (rgba[..., 3] > 20) & (rgba[..., 3] < 235)
    assert soft.sum() > 200
    assert np.abs(rgba[..., 3] / 255 - photograph.mask)[soft].mean() < 0.08
    greenish = rgba[..., 1] > rgba[..., 0] + 20
    assert (greenish & soft).sum() < 0.02 * soft.sum()


def test_handle_hole_is_cut_and_highlights_stay() -> None:
    mug, glossy = (np.asarray(_cut(DRAWINGS[name]().image).image)[..., 3] for name in ("mug", "glossy"))
    assert mug[252, 432] == 0
    assert glossy[180, 270] == 255


def test_transparent_pixels_are_exactly_zero_away_from_the_object() -> None:
    rgba = np.asarray(_cut(DRAWINGS["sensor_noise"]().image).image)
    rows, columns = np.nonzero(rgba[..., 3])
    assert rows.min() > 100
    assert columns.min() > 180
    assert rows.max() < 380
    assert columns.max() < 460


@pytest.mark.parametrize("width", [160, 2000])
def test_other_sizes_give_the_same_object(width: int) -> None:
    photograph = enlarged(DRAWINGS["gradient_vignette"](), width)
    alpha = np.asarray(_cut(photograph.image).image)[..., 3]
    assert alpha.shape == photograph.mask.shape
    assert mask_iou(alpha, photograph.mask) >= 0.95


def test_result_is_the_same_every_time() -> None:
    image = DRAWINGS["garden"]().image
    np.testing.assert_array_equal(np.asarray(_cut(image).image), np.asarray(_cut(image).image))


@pytest.mark.parametrize("draw", [blank_wall, leaves_only])
def test_images_without_an_object_are_refused(draw: object) -> None:
    assert callable(draw)
    with pytest.raises(NoForeground):
        _cut(draw())


@pytest.mark.parametrize("colour", [0, 128, 255])
def test_one_colour_is_no_object(colour: int) -> None:
    with pytest.raises(NoForeground):
        _cut(np.full((64, 64, 3), colour, np.uint8))


def test_pure_noise_is_no_object() -> None:
    with pytest.raises(NoForeground):
        _cut(np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8))


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (8, 8), (9, 500)])
def test_odd_sizes_are_cut_or_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(NoForeground):
        _cut(np.full((*shape, 3), 200, np.uint8))


@pytest.mark.parametrize("mode", ["auto", "always"])
def test_all_transparent_is_refused(mode: BackgroundMode) -> None:
    with pytest.raises(NoForeground, match="transparent"):
        _cut(_disc(5, 0), mode)


def test_alpha_that_cuts_is_used_and_dust_removed() -> None:
    result = _cut(_disc(255, 3))
    assert result.method == "alpha"
    np.testing.assert_array_equal(np.asarray(result.image)[..., 3], _disc(255, 0)[..., 3])
    np.testing.assert_array_equal(np.asarray(result.image)[..., :3], _disc(255, 0)[..., :3])


@pytest.mark.parametrize(("inside", "outside"), [(255, 255), (128, 128), (255, 254), (250, 240)])
def test_alpha_that_cuts_nothing_is_ignored(inside: int, outside: int) -> None:
    result = _cut(_disc(inside, outside))
    assert result.method == "flood"
    assert mask_iou(np.asarray(result.image)[..., 3], (_disc(1, 0)[..., 3]).astype(np.float32)) > 0.95


def test_rounded_corners_are_no_cut_out() -> None:
    rows, columns = np.mgrid[0:200, 0:200]
    corner = np.hypot(np.maximum(np.abs(rows - 99.5) - 80, 0), np.maximum(np.abs(columns - 99.5) - 80, 0)) > 20
    assert corner.any()
    assert not alpha_cuts(np.where(corner, 0, 255).astype(np.uint8))


def test_never_leaves_everything_alone() -> None:
    for rgba in (_disc(255, 3), _disc(0, 0), _disc(255, 255)):
        result = _cut(rgba, "never")
        assert result.method == "none"
        np.testing.assert_array_equal(np.asarray(result.image), rgba)


def test_always_cuts_even_what_alpha_shows() -> None:
    rgba = _disc(255, 255)
    rgba[:, :40, 3] = 0  # cuts something, but leaves backdrop around the disc
    auto, always = _cut(rgba), _cut(rgba, "always")
    assert (auto.method, always.method) == ("alpha", "network")
    assert auto.mask.foreground > 0.6
    visible = np.where(rgba[..., 3] > 0, _disc(1, 0)[..., 3], 0).astype(np.float32)
    assert mask_iou(np.asarray(always.image)[..., 3], visible) > 0.9


def test_unknown_mode_is_refused() -> None:
    with pytest.raises(InvalidParameter):
        _cut(_disc(255, 0), "sometimes")  # type: ignore[arg-type]


def test_mask_statistics() -> None:
    stats = _cut(_disc(255, 0)).mask
    assert stats.foreground == pytest.approx(np.pi * 900 / (96 * 128), rel=0.02)
    assert (stats.soft, stats.border) == (0, 0)


def test_neural_cutter_is_preferred() -> None:
    seen = []

    def cutter(image: Image.Image) -> Image.Image:
        seen.append(image.mode)
        return Image.fromarray(_disc(255, 6)[..., 3])

    result = remove_background(Image.fromarray(_disc(255, 255)), cutter=cutter)
    assert (result.method, result.fallback, seen) == ("rembg", None, ["RGB"])
    np.testing.assert_array_equal(np.asarray(result.image)[..., 3], _disc(255, 0)[..., 3])


def test_edge_of_a_neural_cut_out_shows_neither_backdrop_nor_black() -> None:
    disc = cv2.resize(_disc(255, 0)[..., 3], (640, 480), interpolation=cv2.INTER_CUBIC)
    cover = cv2.GaussianBlur(disc.astype(np.float32) / 255, (0, 0), 1.0)
    red, white = np.array([200.0, 40.0, 30.0]), np.array([250.0, 250.0, 250.0])
    picture = np.rint(cover[..., None] * red + (1 - cover[..., None]) * white).astype(np.uint8)
    mask = np.rint(cover * 255).astype(np.uint8)
    result = remove_background(Image.fromarray(picture), cutter=lambda _: Image.fromarray(mask))
    cut = np.asarray(result.image).astype(float)
    edge = (mask > 40) & (mask < 215)
    assert edge.sum() > 200
    np.testing.assert_array_equal(cut[..., 3], np.where(mask <= 12, 0, mask))
    off = np.abs(cut[edge][:, :3] - red).max(axis=1)
    assert np.median(off) < 30  # 116 where the backdrop stays in, 94 where black is mixed in
    assert np.quantile(off, 0.95) < 60


def test_neural_cutter_that_finds_nothing_is_no_foreground() -> None:
    with pytest.raises(NoForeground):
        remove_background(Image.fromarray(_disc(255, 255)), cutter=lambda _: Image.fromarray(_disc(2, 2)[..., 3]))


def test_neural_cutter_that_fails_is_recorded_and_replaced() -> None:
    def offline(_: Image.Image) -> Image.Image:
        raise ConnectionError("no model here")

    def small(image: Image.Image) -> Image.Image:
        return image.convert("L").resize((8, 8))

    def coloured(image: Image.Image) -> Image.Image:
        return image

    wrong = ((small, "ValueError"), (coloured, "ValueError"), (lambda _: b"x", "TypeError"))
    for cutter, name in ((offline, "ConnectionError"), *wrong):
        result = remove_background(Image.fromarray(_disc(255, 255)), cutter=cutter)  # type: ignore[arg-type]
        assert result.method == "flood"
        assert result.fallback is not None
        assert name in result.fallback
