"""Regions of a mask: what touches the border, and what is more than a speck."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from backend.hunyuan3d.image.regions import from_border, of_kept, significant


def drawn(*rows: str) -> npt.NDArray[np.bool_]:
    return np.array([[place == "#" for place in row] for row in rows])


def test_what_touches_the_border_side_by_side_is_of_it() -> None:
    mask = drawn("##....", "..#...", "..#.#.", "....##", ".#....", "......")
    # What touches by a corner alone, or is enclosed, is not.
    assert np.array_equal(from_border(mask), drawn("##....", "......", "....#.", "....##", "......", "......"))


@pytest.mark.parametrize("seed", range(6))
def test_it_is_what_labelling_finds(seed: int) -> None:
    noise = np.random.default_rng(seed).normal(size=(61, 83)).astype(np.float32)
    mask = cv2.GaussianBlur(noise, (0, 0), 1 + seed) > 0
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    edges = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    assert np.array_equal(from_border(mask), np.isin(labels, edges[edges > 0]))


def test_an_empty_and_a_full_mask_stay_as_they_are() -> None:
    for mask in (np.zeros((5, 7), np.bool_), np.ones((5, 7), np.bool_)):
        assert np.array_equal(from_border(mask), mask)


def test_the_background_is_never_kept() -> None:
    labels = np.array([[0, 1], [2, 1]], np.int32)
    assert np.array_equal(of_kept(labels, np.array([True, True, False])), [[False, True], [False, True]])


def test_specks_and_what_weighs_little_go() -> None:
    mask = np.zeros((100, 100), np.bool_)
    mask[10:50, 10:50] = mask[60:70, 60:70] = mask[90, 5:8] = True
    weight = np.ones(mask.shape, np.float32)
    kept = significant(mask)
    assert (kept[20, 20], kept[65, 65], kept[90, 6]) == (True, True, False)
    assert np.array_equal(significant(mask, weight), kept)
    weight[60:70, 60:70] = 0.1
    assert not significant(mask, weight)[65, 65]
    assert not significant(np.zeros((9, 9), np.bool_)).any()
