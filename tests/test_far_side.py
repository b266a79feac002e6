"""What the far side is thought to look like: a fish's is a mirror image, a face's has no face."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from backend.rendering.far_side import far_side
from backend.rendering.islands import without_islands

Image = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
SIDE = 200
BROWN, DARK, WHITE = (150, 90, 50), (20, 15, 12), (240, 240, 235)


def disc() -> tuple[Image, Image]:
    """Return a brown disc without anything on it, and where it is."""
    known = np.zeros((SIDE, SIDE), np.float32)
    cv2.circle(known, (100, 100), 85, 1.0, -1)
    return np.broadcast_to(np.array(BROWN, np.float32), (SIDE, SIDE, 3)).copy(), known


def test_two_eyes_are_not_on_the_back() -> None:
    image, known = disc()
    for x in (70, 130):
        cv2.circle(image, (x, 80), 9, DARK, -1)
    cv2.ellipse(image, (100, 125), (25, 15), 0, 0, 360, WHITE, -1)
    found = far_side(image, known)
    assert found.plain
    inside = found.image[known > 0]
    assert np.abs(inside - BROWN).max() < 12


def test_one_eye_is_a_profile_and_seen_from_both_sides() -> None:
    image, known = disc()
    cv2.circle(image, (60, 80), 9, DARK, -1)
    found = far_side(image, known)
    assert not found.plain
    np.testing.assert_array_equal(found.image, image)


def test_a_band_goes_round_even_where_there_is_a_face() -> None:
    image, known = disc()
    cv2.rectangle(image, (0, 120), (SIDE, 145), (200, 30, 30), -1)
    for x in (75, 125):
        cv2.circle(image, (x, 80), 8, DARK, -1)
    found = far_side(image, known)
    assert found.plain
    assert found.image[132, 100] == pytest.approx([200, 30, 30], abs=10)
    assert found.image[80, 75] == pytest.approx(BROWN, abs=12)


def test_dots_of_a_pattern_are_on_both_sides() -> None:
    image, known = disc()
    for x, y in ((60, 70), (100, 60), (140, 70), (70, 110), (130, 110), (100, 140)):
        cv2.circle(image, (x, y), 12, DARK, -1)
    assert not far_side(image, known).plain


def test_shading_is_no_island() -> None:
    image, known = disc()
    rows, columns = np.mgrid[:SIDE, :SIDE]
    image *= (1.4 - 0.5 * np.hypot(rows - 100, columns - 100) / 100)[..., None].astype(np.float32)
    for x in (70, 130):
        cv2.circle(image, (x, 80), 9, DARK, -1)
    found = far_side(image, known)
    assert found.plain
    np.testing.assert_allclose(found.image[150, 100], image[150, 100])
    assert found.image[80, 70] == pytest.approx(image[80, 55], abs=25)


def test_what_reaches_the_outline_stays() -> None:
    image = np.full((60, 60, 3), 100, np.uint8)
    inside = np.zeros((60, 60), np.bool_)
    inside[5:55, 5:55] = True
    image[20:30, 5:55] = 200
    image[40:45, 20:25] = 0
    bare = without_islands(image, inside)
    assert (bare[20:30, 5:55] == 200).all()
    assert (bare[40:45, 20:25] == 100).all()


def test_an_object_of_which_nothing_is_known_stays_as_it_is() -> None:
    image, known = disc()
    found = far_side(image, known * 0)
    assert not found.plain
    np.testing.assert_array_equal(found.image, image)
