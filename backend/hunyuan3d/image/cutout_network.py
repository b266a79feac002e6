"""The network that says, pixel by pixel, how likely a photograph shows the object there.

A small U-Net (Ronneberger et al. 2015) of 3 x 3 convolutions on blocks of 2 x 2 pixels, trained on drawn composites
(training/cutout). It is worked out with the BLAS that SciPy brings, so that processes without torch can ask it, too.
This module does not know where photographs come from or what becomes of the answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from backend.hunyuan3d.image.regions import Box, Mask, box_of, grown, widened

Array = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]

WEIGHTS = Path(__file__).parents[2] / "checkpoints" / "cutout" / "model.fp16.safetensors"
LEVELS = 6
STRIDE = 2**LEVELS
"""Sides of what the network sees are multiples of this: each level sees half as many pixels a side as the one above."""
SIDE = 256
"""The network sees about SIDE x SIDE pixels, in about the photograph's own proportions."""
_NEAR_SIDE = 320
_JUDGED_LEVEL = 2
# What is looked at again: the object and so much of its size on each side, if that is less of the picture than MOST.
_MARGIN, _MOST = 0.3, 0.7
# Places that are looked at again: how thick, how large, how many; how much of their rim the object is, at least, and
# how large they are beside it, at most; how much is seen around them.
_THICK, _LEAST_PLACE, _MOST_PLACES = 5, 0.002, 3
_LEAST_HELD, _LARGEST_PART = 0.1, 0.3
_LEAST_MARGIN, _MOST_NEAR, _RIM = 24, 0.6, 3
_REFINED_SIDE = 320
_PLACES = 8192
_SURE, _SURELY_NOT = 0.97, 0.02
_LEAST_ODDS = 1e-6
_AROUND, _ROUNDS = 0.11, 2
# More pixels than these that are neither surely the object's nor surely not take GrabCut seconds.
_MOST_OPEN = 45_000


@dataclass(frozen=True, eq=False)
class Sight:
    """What the network makes of a photograph.

    odds : how likely each pixel is the object's, (h, w) float32 in 0..1. expected : the IoU, 0..1, that it expects of
    the pixels whose odds are above one half.
    """

    odds: Array
    expected: float


@dataclass(frozen=True, eq=False)
class _Map:
    """Features of h x w places with a border of zeros: values ((h + 2) * (w + 2), C) float32."""

    values: Array
    h: int
    w: int

    @classmethod
    def empty(cls, h: int, w: int, channels: int) -> _Map:
        return cls(np.zeros(((h + 2) * (w + 2), channels), np.float32), h, w)

    @property
    def inner(self) -> Array:
        """The features without their border, (h, w, C), a view."""
        return self.values.reshape(self.h + 2, self.w + 2, -1)[1:-1, 1:-1]


@dataclass(frozen=True, eq=False)
class _Convolution:
    """kernel (3, 3, C, D) and bias (D), the normalisation that follows it folded in."""

    kernel: Array
    bias: Array

    def __call__(self, *parts: _Map) -> _Map:
        """Return max(0, convolution) of maps laid side by side, whose channels are C together."""
        h, w = parts[0].h, parts[0].w
        out = np.empty(((h + 2) * (w + 2), len(self.bias)), np.float32)
        out[:] = self.bias
        # In the flat order of places a neighbour is a fixed step away, and so nine products of matrices do it. What
        # they put on the border is nobody's value.
        first, last = w + 3, (h + 1) * (w + 2) - 1
        steps = [(row - 1) * (w + 2) + column - 1 for row in range(3) for column in range(3)]
        kernels = self.kernel.reshape(9, *self.kernel.shape[2:])
        product = np.empty((min(_PLACES, last - first), len(self.bias)), np.float32)
        # So many places at a time stay in the processor's cache; numpy lets other threads run meanwhile.
        for place in range(first, last, _PLACES):
            end = min(place + _PLACES, last)
            target, channel = out[place:end], 0
            for part in parts:
                channels = slice(channel, channel + part.values.shape[1])
                for step, kernel in zip(steps, kernels, strict=True):
                    seen = part.values[place + step : end + step]
                    target += np.matmul(seen, kernel[channels], out=product[: end - place])
                channel = channels.stop
        np.maximum(out, 0, out=out)
        framed = out.reshape(h + 2, w + 2, -1)
        framed[[0, -1]] = 0
        framed[:, [0, -1]] = 0
        return _Map(out, h, w)


class CutoutNetwork:
    """The U-Net with its weights, which nothing changes: any number of threads may ask it at a time."""

    def __init__(self, weights: dict[str, npt.NDArray[np.float16]]) -> None:
        """weights : {down,up}.{level}.{1,2}, head and judge.{1,2}, as training/cutout names, lays and exports them."""
        named = {name: np.ascontiguousarray(value, np.float32) for name, value in weights.items()}
        self._down = [_block(named, f"down.{level}") for level in range(LEVELS)]
        self._up = [_block(named, f"up.{level}") for level in range(LEVELS - 1)]
        self._head, self._head_bias = named["head.kernel"], named["head.bias"]
        self._judge = [(named[f"judge.{number}.kernel"], named[f"judge.{number}.bias"]) for number in (1, 2)]

    def logits(self, rgb: Pixels) -> tuple[Array, float]:
        """Return logits (h, w) of a photograph (h, w, 3) uint8, and that of the IoU that their signs should have.

        h and w are multiples of STRIDE.
        """
        maps: list[_Map] = []
        features = _in_blocks(rgb)
        for number, (first, second) in enumerate(self._down):
            features = second(first(_halved(features) if number else features))
            maps.append(features)
        seen = [features.inner.mean((0, 1))]
        for number in reversed(range(LEVELS - 1)):
            first, second = self._up[number]
            features = second(first(_doubled(features), maps[number]))
            if number == _JUDGED_LEVEL:
                seen += [features.inner.mean((0, 1)), features.inner.max((0, 1))]
        blocks = (features.inner @ self._head + self._head_bias).reshape(features.h, features.w, 2, 2)
        logits = np.ascontiguousarray(blocks.transpose(0, 2, 1, 3)).reshape(rgb.shape[:2])
        return logits, self._expected(np.concatenate(seen))

    def _expected(self, seen: Array) -> float:
        (first, first_bias), (second, second_bias) = self._judge
        hidden = np.maximum(seen @ first + first_bias, 0)
        return float((hidden @ second + second_bias)[0])


@cache
def shipped_network() -> CutoutNetwork | None:
    """Return the network that comes with the product, read once; None where its weights were left out."""
    return CutoutNetwork(load_file(WEIGHTS)) if WEIGHTS.exists() else None


def look(rgb: Pixels, network: CutoutNetwork | None = None) -> Sight | None:
    """Return what the network makes of a photograph (h, w, 3) uint8.

    network : the one to ask, the shipped one when None. None is the answer where there is none to ask. What is found is
    looked at again, with more pixels and from nearer where it is small, and the two answers count alike.
    """
    asked = network or shipped_network()
    if asked is None:
        return None
    first, expected = _look(asked, rgb, SIDE)
    near = _surroundings(first > 0)
    if near is None:
        return Sight(_odds(first), expected)
    again, expected_again = _look(asked, np.ascontiguousarray(rgb[near]), _NEAR_SIDE)
    first[near] = (first[near] + again) / 2
    return Sight(_odds(first), (expected + expected_again) / 2)


def look_nearer(rgb: Pixels, sight: Sight, doubted: Mask, network: CutoutNetwork | None = None) -> Sight:
    """Return a sight whose odds at doubted places (h, w) are half what they were and half what is seen from near.

    rgb : (h, w, 3) uint8, of which the sight is. From afar a part that is dark and low, as a nozzle is, passes for a
    shadow. Up to three places are asked for that may be parts of what is likely: no specks, not much beside it, and
    touching it, since a badge is an object to whoever sees nothing else.
    """
    asked = network or shipped_network()
    if asked is None:
        return sight
    likely = sight.odds > 0.5
    places = list(_worth_a_look(doubted, likely))
    if not places:
        return sight
    logits = np.log(np.maximum(sight.odds, _LEAST_ODDS) / np.maximum(1 - sight.odds, _LEAST_ODDS))
    for near, place in places:
        again, _ = _look(asked, np.ascontiguousarray(rgb[near]), SIDE)
        logits[near] = np.where(grown(place[near], _RIM), (logits[near] + again) / 2, logits[near])
    return Sight(_odds(logits), sight.expected)


def _worth_a_look(doubted: Mask, likely: Mask) -> Iterator[tuple[Box, Mask]]:
    """Yield rows and columns about each doubted place that may be a part of what is likely, and the place (h, w)."""
    thick = cv2.morphologyEx(doubted.astype(np.uint8), cv2.MORPH_OPEN, np.ones((_THICK, _THICK), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(thick)
    areas = stats[:, cv2.CC_STAT_AREA]
    large, small = _LEAST_PLACE * doubted.size, _LARGEST_PART * likely.sum()
    for k in sorted(range(1, count), key=lambda k: -areas[k])[:_MOST_PLACES]:
        place = labels == k
        near = _square_about(place)
        if not large <= areas[k] <= small or place[near].size > _MOST_NEAR * place.size:
            continue
        rim = grown(place, _RIM + 2) & ~grown(place, 2)
        if likely[rim].sum() >= _LEAST_HELD * rim.sum():
            yield near, place


def seen_size(h: int, w: int, side: int = SIDE) -> tuple[int, int]:
    """Return the height and width, multiples of STRIDE, at which the network sees a photograph of h x w pixels.

    Its proportions count for more than its area, which is about side x side.
    """
    lengths = np.arange(STRIDE, 2 * side + 1, STRIDE)
    height, width = np.meshgrid(lengths, lengths, indexing="ij")
    bent = np.abs(np.log(width / height) - np.log(w / h))
    unlike = np.abs(np.log(width * height / side**2))
    best = int(np.argmin(bent + 0.3 * unlike))
    return int(height.flat[best]), int(width.flat[best])


def _look(network: CutoutNetwork, rgb: Pixels, side: int) -> tuple[Array, float]:
    """Return logits (h, w), and the IoU that is expected of their signs."""
    h, w = rgb.shape[:2]
    height, width = seen_size(h, w, side)
    shrinks = height * width < h * w
    seen = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    logits, expected = network.logits(np.asarray(seen, np.uint8))
    large: Array = cv2.resize(logits, (w, h), interpolation=cv2.INTER_LINEAR)
    return large, float(_odds(np.array(expected, np.float32)))


def _odds(logits: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -30, 30))), np.float32)


def _surroundings(mask: Mask) -> Box | None:
    """Return rows and columns of what is marked and a margin, all of them where that is most; None for nothing."""
    if not mask.any():
        return None
    box = box_of(mask)
    frame = widened(box, 4 + int(_MARGIN * max(side.stop - side.start - 1 for side in box)))
    return frame if mask[frame].size <= _MOST * mask.size else (slice(None), slice(None))


def _square_about(place: Mask) -> Box:
    """Return rows and columns, as many where the image has them, of what is marked and a margin about it."""
    box = box_of(place)
    longest = max(side.stop - side.start for side in box)
    length = longest + 2 * max(_LEAST_MARGIN, int(_MARGIN * longest))
    starts = (
        max(0, min((side.start + side.stop - length) // 2, whole - length))
        for side, whole in zip(box, place.shape, strict=True)
    )
    rows, columns = (slice(start, start + length) for start in starts)
    return rows, columns


def expected_iou(probability: Array, mask: Mask) -> float:
    """Return the overlap, 0..1, that a mask (h, w) is to be expected to have with the object, by the network's odds.

    It is the expected intersection over the expected union, which for more than a few pixels is the expected ratio.
    """
    inside = float(probability[mask].sum(dtype=np.float64))
    outside = float(probability.sum(dtype=np.float64)) - inside
    return inside / max(float(mask.sum()) + outside, 1e-9)


def refined_mask(rgb: Pixels, probability: Array) -> Mask:
    """Return the object's mask (h, w): GrabCut (Rother et al. 2004) with the network's odds as its prior.

    rgb : (h, w, 3) uint8. probability : (h, w). Where the network is sure the mask is as it says; between, the colours
    of both sides and the picture's edges decide, of what is near the object: the colours that are far from it tell
    nothing. A picture of which nearly all is doubtful is looked at with fewer pixels. On 216 of
    benchmarks/background_removal.py's tuning composites that has a mean IoU of 0.929. The whole picture and a round
    more took twice the time and changed it by 0.001, with the weights of 2026-11-27.
    """
    h, w = probability.shape
    doubtful = int(((probability > _SURELY_NOT) & (probability < _SURE)).sum())
    scale = min(1.0, _REFINED_SIDE / max(h, w), math.sqrt(_MOST_OPEN / max(doubtful, 1)))
    size = (max(1, round(w * scale)), max(1, round(h * scale)))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    odds = cv2.resize(probability, size, interpolation=cv2.INTER_AREA)
    likely = np.where(odds > 0.5, cv2.GC_PR_FGD, cv2.GC_PR_BGD)
    mask = np.where(odds > _SURE, cv2.GC_FGD, np.where(odds < _SURELY_NOT, cv2.GC_BGD, likely)).astype(np.uint8)
    if (odds > 0.5).any() and not (odds > 0.5).all():
        near = widened(box_of(odds >= _SURELY_NOT), round(_AROUND * max(size)))
        part = np.ascontiguousarray(mask[near])
        cv2.setRNGSeed(0)
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(np.ascontiguousarray(small[near]), part, None, *models, _ROUNDS, cv2.GC_INIT_WITH_MASK)
        mask[near] = part
    shown = (mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD)
    return np.asarray(cv2.resize(shown.astype(np.float32), (w, h), interpolation=cv2.INTER_LINEAR) > 0.5)


def _block(weights: dict[str, Array], name: str) -> tuple[_Convolution, _Convolution]:
    first, second = (
        _Convolution(weights[f"{name}.{number}.kernel"], weights[f"{name}.{number}.bias"]) for number in (1, 2)
    )
    return first, second


def _in_blocks(rgb: Pixels) -> _Map:
    """Lay out a photograph (h, w, 3) as blocks of 2 x 2 pixels: 12 channels, a colour's four pixels together."""
    h, w = rgb.shape[0] // 2, rgb.shape[1] // 2
    blocks = _Map.empty(h, w, 12)
    pixels = rgb.reshape(h, 2, w, 2, 3).transpose(0, 2, 4, 1, 3).reshape(h, w, 12)
    blocks.inner[:] = (pixels.astype(np.float32) / 255 - 0.5) / 0.25
    return blocks


def _halved(features: _Map) -> _Map:
    """Keep the largest of every 2 x 2 places."""
    half = _Map.empty(features.h // 2, features.w // 2, features.values.shape[1])
    inner = features.inner
    across = np.maximum(inner[:, 0::2], inner[:, 1::2])
    np.maximum(across[0::2], across[1::2], out=half.inner)
    return half


def _doubled(features: _Map) -> _Map:
    """Repeat every place 2 x 2 times."""
    double = _Map.empty(features.h * 2, features.w * 2, features.values.shape[1])
    for row in range(2):
        for column in range(2):
            double.inner[row::2, column::2] = features.inner
    return double
