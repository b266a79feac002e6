"""The network that cuts objects out: as it was trained, the same in company, and shipped."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from backend.hunyuan3d.image import cutout_network
from backend.hunyuan3d.image.cutout_network import (
    STRIDE,
    WEIGHTS,
    CutoutNetwork,
    Sight,
    expected_iou,
    look,
    look_nearer,
    refined_mask,
    seen_size,
    shipped_network,
)
from benchmarks.support.composites import compose
from benchmarks.support.cutouts import Cutout, white_vase
from benchmarks.support.images import mask_iou
from training.cutout.network import CutoutNetwork as TrainedNetwork
from training.cutout.network import folded

RANDOM = np.random.default_rng(3)


@cache
def networks() -> tuple[TrainedNetwork, CutoutNetwork]:
    """Return a network as it is trained, with weights and averages of its own, and the same as the service has it."""
    torch.manual_seed(1)
    trained = TrainedNetwork().train()
    with torch.inference_mode():
        for _ in range(20):
            trained(torch.rand(2, 3, STRIDE, STRIDE))
    return trained.eval(), CutoutNetwork(folded(trained))


def photograph(h: int, w: int) -> np.ndarray:
    return RANDOM.integers(0, 256, (h, w, 3)).astype(np.uint8)


def test_the_service_works_out_what_was_trained() -> None:
    trained, served = networks()
    image = photograph(2 * STRIDE, 3 * STRIDE)
    with torch.inference_mode():
        mask, expected = trained(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)
    found, judged = served.logits(image)
    # What is left are the weights' 16 bits.
    np.testing.assert_allclose(found, mask[0, 0].numpy(), rtol=0, atol=2e-3 * float(mask.abs().max()))
    assert judged == pytest.approx(float(expected), abs=2e-3)


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (97, 131)])
def test_a_photograph_of_any_size_gets_odds_of_its_size(size: tuple[int, int]) -> None:
    sight = look(photograph(*size), networks()[1])
    assert sight is not None
    assert sight.odds.shape == size
    assert sight.odds.dtype == np.float32
    assert 0 < sight.odds.min() <= sight.odds.max() < 1
    assert 0 < sight.expected < 1


@pytest.mark.parametrize("size", [(480, 640), (640, 480), (512, 512), (1080, 1920), (50, 3000)])
def test_photographs_are_seen_in_about_their_own_proportions(size: tuple[int, int]) -> None:
    height, width = seen_size(*size)
    assert (height % STRIDE, width % STRIDE) == (0, 0)
    assert height * width <= 1.5 * cutout_network.SIDE**2
    if max(size) < 2 * min(size):
        assert width / height == pytest.approx(size[1] / size[0], rel=0.15)


def test_odds_are_the_same_alone_and_in_company() -> None:
    images = [photograph(200, 300) for _ in range(4)]
    network = networks()[1]
    alone = [look(image, network) for image in images]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda image: look(image, network), images * 2))
    for k, sight in enumerate(together):
        before = alone[k % 4]
        assert sight is not None
        assert before is not None
        np.testing.assert_array_equal(sight.odds, before.odds)
        assert sight.expected == before.expected


def test_a_doubted_place_is_looked_at_from_near_and_nothing_else_changes() -> None:
    _, served = networks()
    image = photograph(300, 400)
    sight = Sight(np.full((300, 400), 0.3, np.float32), 0.8)
    sight.odds[100:200, 80:300] = 0.9
    doubted = np.zeros((300, 400), np.bool_)
    doubted[200:230, 100:140] = True
    nearer = look_nearer(image, sight, doubted, served)
    changed = np.abs(nearer.odds - sight.odds) > 1e-4
    assert changed[200:230, 100:140].mean() > 0.9
    changed[197:233, 97:143] = False
    assert not changed.any()
    # A square of 40 pixels and 24 on each side of them.
    near = np.s_[171:259, 76:164]
    seen = look_alone(image[near], served)
    before = np.log(sight.odds / (1 - sight.odds))[near]
    expected = 1 / (1 + np.exp(-(before + seen) / 2))
    np.testing.assert_allclose(nearer.odds[near][29:59, 24:64], expected[29:59, 24:64], atol=1e-4)
    assert nearer.expected == sight.expected


def look_alone(image: np.ndarray, network: CutoutNetwork) -> np.ndarray:
    """Return the logits of one look at an image, (h, w)."""
    height, width = seen_size(*image.shape[:2])
    logits, _ = network.logits(cv2.resize(np.ascontiguousarray(image), (width, height)))
    large: np.ndarray = cv2.resize(logits, image.shape[1::-1])
    return large


@pytest.mark.parametrize(
    ("places", "looks"),
    [
        ([], 0),
        ([(30, 75, 4)], 0),
        ([(0, 0, 280)], 0),
        ([(30, 20, 30)], 0),
        ([(30, 20, 60)], 1),
        ([(30, 50, 30)], 1),
        ([(20 + 90 * k, 50, 30) for k in range(4)], 3),
    ],
    ids=["none", "a speck", "most of the picture", "apart, as a badge is", "larger", "smaller", "four"],
)
def test_up_to_three_places_are_looked_at_again(places: list[tuple[int, int, int]], looks: int) -> None:
    seen: list[tuple[int, ...]] = []

    class Watched(CutoutNetwork):
        def logits(self, rgb: np.ndarray) -> tuple[np.ndarray, float]:
            seen.append(rgb.shape)
            return super().logits(rgb)

    doubted = np.zeros((300, 400), np.bool_)
    for x, y, side in places:
        doubted[y : y + side, x : x + side] = True
    sight = Sight(np.full((300, 400), 0.2, np.float32), 0.8)
    sight.odds[80:200] = 0.9
    found = look_nearer(photograph(300, 400), sight, doubted, Watched(folded(networks()[0])))
    assert len(seen) == looks
    np.testing.assert_allclose(found.odds[290:], 0.2, rtol=1e-5)


def test_the_expected_overlap_is_that_of_expected_intersection_and_union() -> None:
    odds = np.array([[1.0, 0.5], [0.5, 0.0]], np.float32)
    assert expected_iou(odds, np.array([[True, False], [False, False]])) == pytest.approx(1 / 2)
    assert expected_iou(odds, np.array([[True, True], [False, False]])) == pytest.approx(1.5 / 2.5)
    assert expected_iou(odds, np.array([[False, False], [False, True]])) == 0
    assert expected_iou(np.zeros((2, 2), np.float32), np.zeros((2, 2), bool)) == 0


def test_the_edge_goes_where_the_colours_change_within_what_is_doubtful() -> None:
    image = np.full((120, 160, 3), 230, np.uint8)
    image[30:90, 50:110] = (40, 60, 160)
    odds = np.full((120, 160), 0.01, np.float32)
    odds[22:98, 42:118] = 0.6
    odds[40:80, 60:100] = 0.99
    wanted = image[..., 0] < 128
    np.testing.assert_array_equal(refined_mask(image, odds), wanted)
    np.testing.assert_array_equal(refined_mask(image, odds), wanted)


@pytest.mark.parametrize("odds", [0.0, 0.3, 0.7, 1.0])
def test_where_one_side_is_empty_there_is_no_edge(odds: float) -> None:
    found = refined_mask(photograph(40, 50), np.full((40, 50), odds, np.float32))
    assert found.all() == (odds > 0.5)
    assert found.any() == (odds > 0.5)


def test_a_picture_that_is_nearly_all_doubtful_is_looked_at_with_fewer_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """GrabCut took three seconds for one of many sweets on white."""
    sizes: list[int] = []
    monkeypatch.setattr(cv2, "grabCut", lambda image, *_: sizes.append(image.shape[0] * image.shape[1]))
    image = photograph(480, 640)
    for least in (0.1, 0.0):
        odds = np.full((480, 640), least, np.float32)
        odds[200:280, 250:390] = 0.6
        refined_mask(image, odds)
    assert sizes[0] == pytest.approx(45_000, rel=0.01)
    assert sizes[1] < 0.25 * 320 * 240


def test_without_weights_there_are_no_odds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutout_network, "WEIGHTS", tmp_path / "none.safetensors")
    shipped_network.cache_clear()
    assert look(photograph(64, 64)) is None
    shipped_network.cache_clear()


def test_processes_without_torch_can_ask_the_network() -> None:
    program = (
        "import sys, numpy\n"
        "from backend.hunyuan3d.image.cutout_network import look\n"
        "look(numpy.zeros((64, 64, 3), numpy.uint8))\n"
        "print('torch' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)  # noqa: S603
    assert told.stdout.strip() == "False"


def test_the_weights_ship_within_their_size() -> None:
    assert WEIGHTS.stat().st_size <= 4_000_000
    assert shipped_network() is shipped_network() is not None


@pytest.mark.parametrize(
    "kind", ["table before wall, any colours", "table before wall, brown", "wood", "tiles", "pillarbox", "reflection"]
)
def test_the_shipped_network_finds_a_white_vase_before_ordinary_surroundings(kind: str) -> None:
    drawn = compose(kind, "tuning", Cutout("white vase", white_vase()), 40)
    sight = look(drawn.image)
    assert sight is not None
    assert mask_iou(refined_mask(drawn.image, sight.odds).astype(np.uint8) * 255, drawn.mask) >= 0.93
