"""Objects with exact masks: pictures of the procedural shapes, kept on disk, and flat figures drawn on the spot.

`python -m training.cutout.objects --out DIR --count N` fills a folder with pictures of shapes; run again, it goes on
where it stopped. Knows nothing of surroundings or networks.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from training.render import render_images
from training.shapes.generator import make_shape

SIDE = 224
SHARD = 100
STYLES = 2
Pixels = NDArray[np.uint8]
Generator = np.random.Generator


def render_objects(directory: Path, count: int, first_seed: int = 0) -> None:
    """Write the pictures of `count` shapes from `first_seed` on, STYLES each, in shards of SHARD shapes.

    A shard is a (SHARD * STYLES, SIDE, SIDE, 4) uint8 array, RGBA; one that is there already is left as it is.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for start in tqdm(range(first_seed, first_seed + count, SHARD), unit="shard", smoothing=0):
        path = directory / f"objects-{start:010d}.npy"
        if path.exists():
            continue
        images = [render_images(make_shape(seed), STYLES, SIDE) for seed in range(start, start + SHARD)]
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.save(file, np.concatenate(images))
        partial.replace(path)


def render_figures(directory: Path, count: int) -> None:
    """Write `count` flat figures in shards of SHARD * STYLES, as the pictures of shapes are."""
    directory.mkdir(parents=True, exist_ok=True)
    each = SHARD * STYLES
    for start in tqdm(range(0, count, each), unit="shard", smoothing=0):
        path = directory / f"figures-{start:010d}.npy"
        if path.exists():
            continue
        images = [draw_figure(np.random.default_rng([start + number, 77])) for number in range(each)]
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.save(file, np.stack(images))
        partial.replace(path)


class ObjectPictures:
    """The pictures of a folder, memory-mapped; shards that are finished later are found by `refresh`."""

    def __init__(self, directory: Path) -> None:
        """Find the shards of a folder. Raises FileNotFoundError when it has none."""
        self._directory = directory
        self._shards: list[Pixels] = []
        if not self.refresh():
            raise FileNotFoundError(f"no pictures of objects in {directory}; make some with training.cutout.objects")

    def refresh(self) -> int:
        """Look for newly finished shards; return the number of pictures."""
        paths = sorted(self._directory.glob("*-*.npy"))
        self._shards = [np.load(path, mmap_mode="r") for path in paths]
        return sum(len(shard) for shard in self._shards)

    def draw(self, rng: Generator) -> Pixels:
        """Return one picture (SIDE, SIDE, 4), cropped to its object."""
        shard = self._shards[int(rng.integers(len(self._shards)))]
        return crop(np.array(shard[int(rng.integers(len(shard)))]))


def crop(image: Pixels) -> Pixels:
    """Cut an RGBA picture (H, W, 4) down to what its alpha shows; one that shows nothing stays."""
    rows, cols = np.flatnonzero(image[..., 3].any(1)), np.flatnonzero(image[..., 3].any(0))
    if not len(rows):
        return image
    return np.ascontiguousarray(image[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1])


def random_colour(rng: Generator) -> NDArray[np.float32]:
    """Return a colour (3,) in 0..255: vivid, pale, dark or grey."""
    value = rng.uniform(0, 255, 3).astype(np.float32)
    kind = rng.random()
    if kind < 0.25:
        grey = float(rng.uniform(0, 255))
        return np.asarray(grey + (value - 127) * 0.08, np.float32).clip(0, 255)
    if kind < 0.4:
        return np.asarray(215 + value * 0.157, np.float32)
    return value


def draw_figure(rng: Generator) -> Pixels:
    """Draw a flat figure (SIDE, SIDE, 4) of several blobs, some with outlines, holes, stripes, hair or thin limbs."""
    scale = 2
    side = SIDE * scale
    colour = np.zeros((side, side, 3), np.uint8)
    mask = np.zeros((side, side), np.uint8)
    outline = tuple(int(c) for c in rng.uniform(0, 70, 3)) if rng.random() < 0.35 else None
    centre = np.array([side / 2, side / 2])
    for number in range(int(rng.integers(1, 6))):
        if number:
            ys, xs = np.nonzero(mask)
            pick = int(rng.integers(len(ys)))
            centre = np.array([xs[pick], ys[pick]], float)
        radius = rng.uniform(0.08, 0.3) * side * (1.2 if not number else 0.7)
        points = _blob(rng, centre, radius)
        paint = tuple(int(c) for c in random_colour(rng))
        cv2.fillPoly(mask, [points], 255, cv2.LINE_AA)
        cv2.fillPoly(colour, [points], paint, cv2.LINE_8)
        if outline is not None:
            thickness = int(rng.integers(2, 9))
            cv2.polylines(colour, [points], True, outline, thickness, cv2.LINE_AA)
            cv2.polylines(mask, [points], True, 255, thickness, cv2.LINE_AA)
    _limbs(rng, colour, mask)
    if rng.random() < 0.2:
        ys, xs = np.nonzero(mask)
        pick = int(rng.integers(len(ys)))
        hole = _blob(rng, np.array([xs[pick], ys[pick]], float), rng.uniform(0.04, 0.12) * side)
        cv2.fillPoly(mask, [hole], 0, cv2.LINE_AA)
    colour = _shade(rng, colour, mask)
    image = np.dstack([_bleed(colour, mask), mask])
    return np.asarray(cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def _blob(rng: Generator, centre: NDArray[np.float64], radius: float) -> NDArray[np.int32]:
    """Return a closed outline (N, 2): a polygon, an ellipse, or a star with soft points."""
    kind = rng.random()
    if kind < 0.3:
        corners = int(rng.integers(3, 7))
        angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
        reach = radius * rng.uniform(0.6, 1.2, corners)
    else:
        angle = np.linspace(0, 2 * np.pi, 96, endpoint=False)
        waves, depth = int(rng.integers(2, 9)), rng.uniform(0, 0.35 if kind > 0.6 else 0.0)
        reach = radius * (1 + depth * np.cos(waves * angle + rng.uniform(0, 6)))
    squash, turn = rng.uniform(0.35, 1.0), rng.uniform(0, np.pi)
    x, y = reach * np.cos(angle), squash * reach * np.sin(angle)
    points = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], 1) + centre
    return np.round(points).astype(np.int32)


def _limbs(rng: Generator, colour: Pixels, mask: Pixels) -> None:
    """Draw curves that leave the figure: a few limbs, or many hairs."""
    if rng.random() > 0.5:
        return
    hair = rng.random() < 0.5
    side = len(mask)
    ys, xs = np.nonzero(mask)
    paint = tuple(int(c) for c in random_colour(rng))
    pick = int(rng.integers(len(ys)))
    for _ in range(int(rng.integers(20, 90)) if hair else int(rng.integers(1, 6))):
        near = pick if hair else int(rng.integers(len(ys)))
        start = np.array([xs[near], ys[near]], float) + rng.normal(0, side * 0.05, 2) * hair
        heading = rng.uniform(0, 2 * np.pi)
        bend, length = rng.normal(0, 1.2), rng.uniform(0.08, 0.3) * side
        along = np.linspace(0, 1, 12)
        turn = heading + bend * along
        step = np.stack([np.cos(turn), np.sin(turn)], 1) * length / 12
        points = np.round(start + np.cumsum(step, 0)).astype(np.int32)
        thickness = int(rng.integers(1, 4)) if hair else int(rng.integers(3, 18))
        cv2.polylines(colour, [points], False, paint, thickness, cv2.LINE_8)
        cv2.polylines(mask, [points], False, 255, thickness, cv2.LINE_AA)


def _shade(rng: Generator, colour: Pixels, mask: Pixels) -> Pixels:
    """Light a flat figure as if it were round, stripe it, or leave it flat."""
    kind = rng.random()
    out = colour.astype(np.float32)
    side = len(mask)
    if kind < 0.45:
        height = np.sqrt(cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), rng.uniform(0.03, 0.1) * side))
        light = rng.normal(0, 1, 2)
        slope = cv2.Sobel(height, -1, 1, 0) * light[0] + cv2.Sobel(height, -1, 0, 1) * light[1]
        out *= 1 + np.clip(slope * rng.uniform(4, 14), -0.55, 0.45)[..., None]
    elif kind < 0.65:
        y, x = np.mgrid[:side, :side].astype(np.float32)
        turn, period = rng.uniform(0, np.pi), rng.uniform(12, 60)
        wave = np.sin((x * np.cos(turn) + y * np.sin(turn)) / period * 2 * np.pi) > rng.uniform(-0.5, 0.7)
        mix = rng.uniform(0.3, 1.0)
        out = np.where(wave[..., None], out * (1 - mix) + random_colour(rng) * mix, out)
    return out.clip(0, 255).astype(np.uint8)


def _bleed(colour: Pixels, mask: Pixels) -> Pixels:
    """Carry colours a little beyond the mask, so that soft edges have the object's own colour."""
    shown = (mask > 200).astype(np.float32)
    weight = cv2.GaussianBlur(shown, (0, 0), 2)[..., None]
    spread = cv2.GaussianBlur(colour.astype(np.float32) * shown[..., None], (0, 0), 2) / np.maximum(weight, 1e-3)
    return np.where(shown[..., None] > 0, colour, spread).clip(0, 255).astype(np.uint8)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and render the objects."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=4000)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--figures", type=int, default=4000)
    chosen = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    render_figures(chosen.out, chosen.figures)
    render_objects(chosen.out, chosen.count, chosen.first_seed)


if __name__ == "__main__":
    main()
