"""Struts between parts that hang together in the picture, but not in depth.

A network may see a lamp from the front and place the upper half of its pole before the lower one. The outline is closed
there, so that the object goes on: each part is joined to the others by a strut where the gap within the outline is
narrowest, blended into the field on both sides. Lengths are in world units. This module does not know what a mesh is
made of, only where its vertices are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, map_coordinates
from scipy.spatial import cKDTree

from backend.hunyuan3d.image.outline import Outline
from backend.hunyuan3d.volume.outline import TRUNCATION, smooth_maximum
from backend.hunyuan3d.volume.sparse_volume import BRICK, BrickGrid, SparseVolume

Reals = NDArray[np.float64]
Floats = NDArray[np.float32]

_RADIUS = 0.045
_BLEND = 0.05
# A gap that is wider is left: what is so far away may well be another thing.
_WIDEST_GAP = 0.3
_MOST_PARTS = 12
_MOST_STARTS, _MOST_ENDS, _NEAREST = 3000, 60_000, 8
# How much wider a gap may be for each unit by which a strut would stand out of the outline.
_STANDS_OUT = 3.0


@dataclass(frozen=True, eq=False)
class Strut:
    """A rod with round ends between two points (3,) of two parts' surfaces."""

    start: Reals
    end: Reals


def find_struts(parts: Sequence[Reals], outline: Outline) -> list[Strut]:
    """Choose the struts that join what hangs together within the outline; each links one more part to the first.

    parts : each part's vertices (V, 3), the largest first; of many the first ones.
    """
    joined, left = [_thinned(parts[0], _MOST_ENDS)], list(parts[1:_MOST_PARTS])
    struts: list[Strut] = []
    while left:
        ends = np.concatenate(joined)
        tree = cKDTree(ends)
        options = [_narrowest(part, ends, tree, outline) for part in left]
        best = min(range(len(left)), key=lambda k: options[k][0])
        strut = options[best][1]
        if strut is None:
            break
        struts.append(strut)
        joined.append(_thinned(left.pop(best), _MOST_ENDS))
    return struts


def with_struts(volume: SparseVolume, struts: Sequence[Strut], outline: Outline) -> SparseVolume:
    """Return the volume, in main memory, with the struts in it; they end at the outline."""
    for strut in struts:
        volume = _with_strut(volume, strut, outline)
    return volume


def _narrowest(part: Reals, ends: Reals, tree: cKDTree, outline: Outline) -> tuple[float, Strut | None]:
    """Return the strut from a part to one of `ends`, and what it costs; infinity and None where none is allowed."""
    starts = _thinned(part, _MOST_STARTS)
    gap, nearest = tree.query(starts, k=range(1, min(_NEAREST, len(ends)) + 1))
    along = np.linspace(0, 1, 5)[:, None, None, None]
    way = starts[:, None] + along * (ends[nearest] - starts[:, None])
    within = _distance_within(outline, way[..., 0], way[..., 1]).min(axis=0)
    cost = gap + _STANDS_OUT * np.maximum(_RADIUS - within, 0)
    cost[(within <= 0) | (gap > _WIDEST_GAP)] = np.inf
    at = np.unravel_index(cost.argmin(), cost.shape)
    if not np.isfinite(cost[at]):
        return np.inf, None
    return float(cost[at]), Strut(starts[at[0]], ends[nearest[at]])


def _thinned(vertices: Reals, most: int) -> Reals:
    """Return at most twice as many evenly chosen vertices."""
    return vertices[:: max(1, len(vertices) // most)]


def _distance_within(outline: Outline, x: Reals, y: Reals) -> Reals:
    """Return how far within the outline places of world coordinates x, y lie, of their common shape."""
    side = len(outline.distance)
    column, row = (np.asarray((value / outline.bounds + 1) * side / 2 - 0.5) for value in (x, -y))
    return np.asarray(map_coordinates(outline.distance, [row, column], order=1, mode="nearest"), np.float64)


def _with_strut(volume: SparseVolume, strut: Strut, outline: Outline) -> SparseVolume:
    cell = 2 * volume.bounds / volume.resolution
    # In cells of the table of bricks.
    ends = np.stack([strut.start, strut.end]) / cell + volume.resolution / 2 + volume.origin
    margin = (_RADIUS + _BLEND) / cell + 1
    low, high = (ends.min(axis=0) - margin) // BRICK, (ends.max(axis=0) + margin) // BRICK
    last = volume.grid.bricks_a_side - 1
    first, stop = low.clip(0, last).astype(int), high.clip(0, last).astype(int) + 1
    axes = [np.arange(a * BRICK, b * BRICK) for a, b in zip(first, stop, strict=True)]
    x, y, z = ((axis - volume.origin) * cell - volume.bounds for axis in axes)
    numbers = volume.grid.table[0].numpy()[1:-1, 1:-1, 1:-1][tuple(map(slice, first, stop))]
    body = _filled(_dense(volume.values.numpy(), numbers))
    rod = (_RADIUS - _distances(strut, x, y, z)) / TRUNCATION
    both = smooth_maximum(torch.from_numpy(body), torch.from_numpy(rod), _BLEND / TRUNCATION).numpy()
    edge = _distance_within(outline, *np.meshgrid(x, y, indexing="ij"))[..., None] / TRUNCATION
    # Outside the box nothing is.
    both = np.where(np.isneginf(body), body, np.maximum(body, np.minimum(both, edge)))
    return _put(volume, np.asarray(both, np.float32), numbers, first)


def _distances(strut: Strut, x: Reals, y: Reals, z: Reals) -> Reals:
    """Return the distance of the points of a lattice to a strut's axis, (len(x), len(y), len(z))."""
    length = strut.end - strut.start
    grid = np.meshgrid(x, y, z, indexing="ij", sparse=True)
    place = [axis - start for axis, start in zip(grid, strut.start, strict=True)]
    along = sum(a * b for a, b in zip(place, length, strict=True)) / max(float(length @ length), 1e-12)
    along = np.clip(along, 0, 1)
    return np.asarray(np.sqrt(sum((a - along * b) ** 2 for a, b in zip(place, length, strict=True))), np.float64)


def _dense(values: Floats, numbers: NDArray[np.int32]) -> Floats:
    """Lay bricks (K, 8, 8, 8) out as `numbers` (a, b, c) says, -1 for none: (8a, 8b, 8c), NaN where unknown."""
    blocks = np.where((numbers >= 0)[..., None, None, None], values[numbers], np.float32(np.nan))
    sides = [BRICK * count for count in numbers.shape]
    return np.asarray(blocks.transpose(0, 3, 1, 4, 2, 5).reshape(sides), np.float32)


def _filled(body: Floats) -> Floats:
    """Fill what is not known from the nearest place that is: no surface passes between them."""
    unknown = np.isnan(body)
    if not unknown.any():
        return body
    nearest = distance_transform_edt(unknown, return_distances=False, return_indices=True)
    return np.where(unknown, np.where(body[tuple(nearest)] > 0, 1, -1), body).astype(np.float32)


def _put(volume: SparseVolume, body: Floats, numbers: NDArray[np.int32], first: NDArray[np.int64]) -> SparseVolume:
    """Return the volume with the bricks at and behind brick `first` (3,) replaced, or added where there are none."""
    a, b, c = numbers.shape
    blocks = body.reshape(a, BRICK, b, BRICK, c, BRICK).transpose(0, 2, 4, 1, 3, 5)
    there, new = (torch.from_numpy(blocks[which]) for which in (numbers >= 0, numbers < 0))
    values = volume.values.clone()
    values[torch.from_numpy(numbers[numbers >= 0]).long()] = there
    added = np.pad(np.argwhere(numbers < 0) + first, ((0, 0), (1, 0)))
    coordinates = torch.cat([volume.grid.coordinates, torch.from_numpy(added)])
    grid = BrickGrid.build(1, volume.grid.bricks_a_side, coordinates)
    return replace(volume, grid=grid, values=torch.cat([values, new]))
