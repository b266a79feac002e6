"""Holes of an object and prints on it: what is opened, what is left, what a network is asked about."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from backend.hunyuan3d.image import background, candidates
from backend.hunyuan3d.image.backdrop import Found, flood_backdrop
from backend.hunyuan3d.image.background import remove_background
from backend.hunyuan3d.image.candidates import best_cut
from backend.hunyuan3d.image.cutout_network import Sight

Pixels = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

BLUE, NEAR_BLUE, ORANGE = (120, 140, 210), (126, 141, 206), (210, 130, 60)
GREY, NEAR_GREY, WHITE, RED = (236, 236, 236), (243, 243, 243), (240, 240, 240), (200, 40, 40)
GAP = np.s_[130:160, 130:190]
SIZE = (320, 320)


def frame(backdrop: Colour, body: Colour, gap: Colour) -> Pixels:
    """Draw a board with a gap in it, a little soft and noisy, (320, 320, 3)."""
    image = np.empty((*SIZE, 3), np.float32)
    image[:], image[80:240, 90:230], image[120:170, 120:200] = backdrop, body, gap
    image = cv2.GaussianBlur(image, (0, 0), 0.8) + np.random.default_rng(3).normal(0, 1, image.shape)
    return np.asarray(image.clip(0, 255).round(), np.uint8)


def flooded(backdrop: Colour, body: Colour, gap: Colour) -> Found:
    found = flood_backdrop(frame(backdrop, body, gap))
    assert found is not None
    assert found.foreground[100, 160]
    return found


def odds(value: float) -> npt.NDArray[np.float32]:
    return np.full(SIZE, value, np.float32)


@pytest.mark.parametrize("colours", [(BLUE, ORANGE), (GREY, RED)])
def test_the_backdrops_very_colour_is_a_hole_beyond_doubt(colours: tuple[Colour, Colour]) -> None:
    backdrop, body = colours
    found = flooded(backdrop, body, backdrop)
    assert not found.foreground[GAP].any()
    assert not found.enclosed
    assert found.opened(odds(1.0)) is found


def test_another_colour_is_no_hole_whatever_the_network_says() -> None:
    found = flooded(BLUE, ORANGE, WHITE)
    assert not found.enclosed
    assert found.opened(odds(0.0)).foreground[GAP].all()


@pytest.mark.parametrize("colours", [(BLUE, ORANGE, NEAR_BLUE), (GREY, RED, NEAR_GREY)], ids=["hue", "grey"])
def test_of_nearly_the_backdrops_colour_the_network_is_asked(colours: tuple[Colour, Colour, Colour]) -> None:
    found = flooded(*colours)
    assert found.enclosed
    assert found.foreground[GAP].all()
    opened, left = found.opened(odds(0.02)), found.opened(odds(1.0))
    assert not opened.foreground[GAP].any()
    assert opened.backdrop[GAP].all()
    assert opened.foreground[100, 160]
    assert left.foreground[GAP].all()
    assert not (opened.foreground & opened.backdrop).any()


def test_a_hue_is_a_print_on_the_object_more_rarely_than_white_is() -> None:
    unsure = odds(0.8)
    assert not flooded(BLUE, ORANGE, NEAR_BLUE).opened(unsure).foreground[GAP].any()
    assert flooded(GREY, RED, NEAR_GREY).opened(unsure).foreground[GAP].all()


@pytest.mark.parametrize("seen", [0.02, 0.98], ids=["a hole", "a print"])
def test_a_cut_out_with_a_doubtful_place_is_shown_to_the_network(monkeypatch: pytest.MonkeyPatch, seen: float) -> None:
    image = frame(GREY, RED, NEAR_GREY)
    board = odds(0.01)
    board[80:240, 90:230] = 0.99
    board[120:170, 120:200] = seen
    monkeypatch.setattr(candidates, "look", lambda _: Sight(board, 0.95))
    best = best_cut(image)
    assert best is not None
    assert best.found.foreground[GAP].mean() == pytest.approx(float(seen > 0.5), abs=0.02)


def test_a_pane_that_the_network_sees_through_is_filled_where_a_flood_knows_better(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = frame(GREY, RED, BLUE)
    board = odds(0.01)
    board[80:240, 90:230] = 0.99
    board[120:170, 120:200] = 0.02
    monkeypatch.setattr(candidates, "look", lambda _: Sight(board, 0.95))
    monkeypatch.setattr(candidates, "look_nearer", lambda _, sight, __: sight)
    masks = [each.found.foreground for each in candidates.judged(image) if each.method == "network"]
    assert [bool(mask[GAP].all()) for mask in masks] == [False, False, True]
    # What is beyond the outline stays as the network has it.
    assert not masks[2][:70].any()


def ladder(side: int) -> Pixels:
    """Draw a ladder of a height in pixels on a plain wall, (480, 640, 3)."""
    image = np.full((4 * 480, 4 * 640, 3), (205, 215, 225), np.uint8)
    top, left, rail = 4 * 200, 4 * 300, side // 2
    for x in (left, left + 2 * side):
        cv2.line(image, (x, top), (x, top + 4 * side), (120, 60, 30), rail, cv2.LINE_AA)
    for step in range(1, 4):
        y = top + step * side
        cv2.line(image, (left, y), (left + 2 * side, y), (120, 60, 30), rail, cv2.LINE_AA)
    return np.asarray(cv2.resize(image, (640, 480), interpolation=cv2.INTER_AREA), np.uint8)


def gap_and_step(side: int) -> tuple[float, float]:
    """Return the mean alpha, 0..1, between two steps of a ladder, and on one."""
    result = remove_background(Image.fromarray(ladder(side)), cutter=None)
    alpha = np.asarray(result.image)[..., 3] / 255
    assert result.image.size == (640, 480)
    x, y = 300 + side // 4, 200 + side // 4
    gap = y + side // 8
    return float(alpha[gap - 1 : gap + 2, x - 1 : x + 2].mean()), float(alpha[y, x - 1 : x + 2].mean())


def test_a_small_object_is_looked_at_from_nearer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gap_and_step(56) == pytest.approx((0, 1), abs=0.1)
    monkeypatch.setattr(background, "_SMALL_SPAN", 0.0)
    gap, _ = gap_and_step(56)
    assert gap > 0.5


def test_what_is_found_from_nearer_must_be_the_same_object(monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.fromarray(ladder(56))
    monkeypatch.setattr(background, "_MUCH_THE_SAME", 1.01)
    first = remove_background(image, cutter=None)
    monkeypatch.setattr(background, "_SMALL_SPAN", 0.0)
    second = remove_background(image, cutter=None)
    np.testing.assert_array_equal(np.asarray(first.image), np.asarray(second.image))
