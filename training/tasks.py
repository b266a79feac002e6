"""What the evaluation asks of a model: held-out procedural shapes and held-out pictures, one task each.

Knows the data set, the shape generator and where a mesh lies in its picture; nothing of results or measures of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from backend.hunyuan3d.image.outline import aligned_frame
from training.dataset import ShapeDataset
from training.held_out_images import HeldOutImage
from training.metrics import (
    BOUNDS,
    IMAGE_HALF_WIDTH,
    Array,
    Mask,
    Sides,
    cell_centres,
    extent,
    mean_span,
    round_span,
    steep_share,
)
from training.shapes.generator import KINDS, make_shape

SURFACE_POINTS = 10_000
# A shape counts as round from this share of the mean span that its silhouette, turned about an axis, would have.
ROUND_FROM = 0.7


class StaleDataError(ValueError):
    """The held-out data were not made by the shape generator as it is now."""


@dataclass(frozen=True, eq=False)
class Solid:
    """The true shape behind a picture.

    inside : (n, n, n) [x, y, z] at the cell centres of the box ±1.01; surface : (P, 3) points, uniform by area, or None
    where the Chamfer distance is not asked for; sides : extents along x, y, z; steep : as metrics.steep_share, NaN
    where nobody knows.
    """

    inside: Mask
    surface: Array | None
    sides: Sides
    steep: float = math.nan


@dataclass(frozen=True, eq=False)
class Task:
    """A picture and what its mesh is held against.

    shadow : (S, S) the true silhouette, on the square picture as the model sees it; span : of something round, the mean
    distance from its front to its back under the silhouette, else None.
    """

    name: str
    group: str
    image: Image.Image
    shadow: Mask
    span: float | None
    solid: Solid | None = None


def shape_tasks(data: ShapeDataset, rows: Iterable[int], dense: bool = True) -> Iterator[Task]:
    """Yield held-out shapes, each with the first of its pictures.

    dense : with the surface points that the Chamfer distance needs. Raises StaleDataError.
    """
    for row in rows:
        index = np.array([row], np.int64)
        seed, kind = int(data.column("seed", index)[0]), KINDS[int(data.column("kind", index)[0])]
        pixels = np.asarray(data.column("picture", index)[0, 0], np.uint8)
        surface = np.asarray(data.column("surface", index)[0], np.float64)
        stored, normals = surface[:, :3], surface[:, 3:6]
        inside = data.occupancy(index)[0]
        yield Task(
            name=f"{kind} {seed}",
            group=kind,
            image=Image.fromarray(pixels),
            shadow=pixels[..., 3] >= 128,
            span=span_if_round(inside),
            solid=Solid(inside, true_surface(seed, stored) if dense else None, extent(stored), steep_share(normals)),
        )


def true_surface(seed: int, stored: Array, draw: int = 0) -> Array:
    """Return points (SURFACE_POINTS, 3) of a shape's surface, made anew from its seed.

    stored : (P, 3) points kept with the data, which must lie on it; draw : which of many drawings. Raises
    StaleDataError.
    """
    field = make_shape(seed).field
    if np.abs(field.lookup(stored.astype(np.float32))[:, 0]).mean() > field.cell / 4:
        raise StaleDataError(f"shape {seed} is kept otherwise than it is made now; run training.make_data again")
    return np.asarray(field.surface(SURFACE_POINTS, np.random.default_rng([seed, 12345, draw]))[0], np.float64)


def span_if_round(inside: Mask) -> float | None:
    """Return the mean span of an occupancy grid that is about as deep as a body round about an axis, else None."""
    span = mean_span(inside)
    return span if span >= ROUND_FROM * round_span(np.asarray(inside.any(axis=2)), BOUNDS) else None


def image_tasks(images: Iterable[HeldOutImage]) -> Iterator[Task]:
    """Yield held-out images as tasks."""
    for image in images:
        shadow = true_shadow(np.asarray(image.image)[..., 3])
        span = round_span(shadow, IMAGE_HALF_WIDTH) if image.turned else None
        yield Task(image.name, image.kind, image.image, shadow, span)


def true_shadow(alpha: npt.NDArray[np.uint8]) -> Mask:
    """Return the silhouette (S, S) of a picture's alpha (h, w) where the mesh of it should lie, S its longer side.

    That is with the outline's longer side 1.8 long in world units, about the origin.
    """
    height, width = alpha.shape
    side = max(height, width)
    square = np.zeros((side, side), np.uint8)
    square[(side - height) // 2 :, (side - width) // 2 :][:height, :width] = alpha
    frame = aligned_frame(square)
    across = cell_centres(side, IMAGE_HALF_WIDTH) * frame.scale
    # Pixels' places along a row and, from the top, down a column.
    x, y = ((across + shift + 1) * side / 2 - 0.5 for shift in (frame.shift[0], -frame.shift[1]))
    grid = [np.ascontiguousarray(each, np.float32) for each in np.meshgrid(x, y)]
    return np.asarray(cv2.remap(square.astype(np.float32), grid[0], grid[1], cv2.INTER_LINEAR) >= 127.5)


def evenly(total: int, count: int) -> list[int]:
    """Spread at most `count` numbers evenly over 0 to total - 1."""
    return sorted({int(k) for k in np.linspace(0, total - 1, min(count, total)).round()})


def one_of_each(kinds: Sequence[int], count: int) -> list[int]:
    """Choose the first row of every kind, then the first of the other rows; at most `count`, in order."""
    first = {kind: row for row, kind in reversed(list(enumerate(kinds)))}
    chosen = sorted(first.values())
    return sorted((chosen + [row for row in range(len(kinds)) if row not in chosen])[:count])
