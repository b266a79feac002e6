"""Dots that the outline cuts are known by whole ones like them, and are not drawn out along the flank."""

from __future__ import annotations

import cv2
import numpy as np

from backend.rendering.color_sources import color_sources
from backend.rendering.cut_spots import cut_spots
from backend.rendering.islands import find_details

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
SIDE = 288
RED, WHITE = (200, 30, 30), (240, 240, 235)
WHOLE = ((100, 110), (190, 110), (144, 160), (100, 200), (190, 200))
EDGE = (250, 144)


def toadstool(dots: tuple[tuple[int, int], ...]) -> Pixels:
    """Return the cut-out of a red disc with white dots, one of which lies at its edge."""
    image = np.zeros((SIDE, SIDE, 4), np.uint8)
    cv2.circle(image, (144, 144), 120, (*RED, 255), -1)
    there = image[..., 3].copy()
    for dot in (*dots, EDGE):
        cv2.circle(image, dot, 22, (*WHITE, 255), -1)
    image[..., 3] = there
    return image


def spots_of(cutout: Pixels) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    return cut_spots(find_details(cutout[..., :3].astype(np.float32), (cutout[..., 3] > 0).astype(np.float32)))


def test_a_dot_at_the_edge_is_known_by_whole_ones() -> None:
    spots = spots_of(toadstool(WHOLE))
    # The image is looked at half as large.
    assert spots[EDGE[1] // 2, EDGE[0] // 2]
    assert not any(spots[y // 2, x // 2] for x, y in WHOLE)


def test_what_has_no_dots_has_none_at_its_edge() -> None:
    assert not spots_of(toadstool(())).any()
    assert not spots_of(toadstool(WHOLE[:2])).any()


def test_strips_are_no_dots() -> None:
    cutout = toadstool(())
    for y in (90, 130, 170):
        cv2.rectangle(cutout, (90, y), (190, y + 14), (*WHITE, 255), -1)
    assert not spots_of(cutout).any()


def test_a_long_edge_of_the_dots_color_stays() -> None:
    cutout = toadstool(WHOLE)
    there = cutout[..., 3].copy()
    cv2.rectangle(cutout, (60, 245), (230, 288), (*WHITE, 255), -1)
    cutout[..., 3] = there
    spots = spots_of(cutout)
    assert spots[EDGE[1] // 2, EDGE[0] // 2]
    assert not spots[125:, :].any()


def test_a_dot_in_the_shade_is_the_same() -> None:
    cutout = toadstool(WHOLE)
    dark = cutout[EDGE[1] :, 200:, :3]
    dark[:] = (dark * 0.6).astype(np.uint8)
    assert spots_of(cutout)[EDGE[1] // 2 + 5, EDGE[0] // 2]


def test_the_flank_has_no_dot_that_the_edge_cuts() -> None:
    flank = color_sources(toadstool(WHOLE)).flank
    row, column = EDGE[1] * len(flank) // SIDE, 270 * len(flank) // SIDE
    np.testing.assert_allclose(flank[row, column], RED, atol=12)
    lone = color_sources(toadstool(())).flank
    np.testing.assert_allclose(lone[row, column], WHITE, atol=12)
