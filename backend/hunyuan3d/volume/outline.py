"""A field made to end where its picture's outline says, for models whose shapes lie as the camera saw them.

The network's own field is drawn towards the outline (`_Maps.shift`: where its body ends a little beyond or short of it,
points near it are asked for a little beside), then composed, in world units divided by the field's truncation:

    f = min(max(max~(min(f, bevel), lens), -1), s),   s(x, y) the distance to the outline, positive inside

bevel: where the body still reaches beyond the outline the cut is rounded as a circle is, sqrt(s (2 R - s)) with R the
local inner radius, and not left as a wall; a body that ends at the outline by itself keeps its walls. lens: where the
body does not reach the outline, a part as deep as its neighbours say, about the middle of the body, with the same
profile; max~ is a smooth maximum. All that is known of the body comes from the coarsest lattice, which is asked anyway.

This module does not know of pictures, nor how a field is searched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

from backend.hunyuan3d.facts import OutlineFacts
from backend.hunyuan3d.image.outline import COARSE_SIDE, Outline, signed_distance
from backend.hunyuan3d.volume.decode import Field
from backend.hunyuan3d.volume.lattice import Level
from backend.hunyuan3d.volume.sparse_volume import VOXELS

Floats = NDArray[np.float32]
_Reals = NDArray[np.floating]

TRUNCATION = 0.1
"""World units to one of a field that is trained on truncated distances."""

_PULL, _PULL_WITHIN = 0.08, 0.12
_BEVEL_FROM, _BEVEL_BY = 0.004, 3.0
_DEEPEST, _SHALLOWEST, _LEAST_DEPTH = 1.2, 0.2, 0.02
_LACK, _LACK_MARGIN = 0.006, 0.02
_BLEND = 0.035
_FAR = 0.03
_NEAR = 0.6
_BEYOND = 0.006
_SMOOTH = 2.0


@dataclass(frozen=True, eq=False)
class _Body:
    """What the coarsest lattice says of a body, on rasters (COARSE_SIDE, COARSE_SIDE), world units, top row first.

    ends : distance to its own silhouette, positive inside. middle, half : of its first and last surface along z, spread
    to where there is none. rim : where it is nearest to the silhouette along z, or to a place beyond it. edge_half : as
    half, by what is near the silhouette.
    """

    ends: Floats
    middle: Floats
    half: Floats
    rim: Floats
    edge_half: Floats

    @classmethod
    def of(cls, values: Floats, axis: Floats) -> _Body:
        """Measure (n, n, n) [x, y, z] values of a field at the lattice axis (n,)."""
        most, rim = _peaks(values, axis)
        low, high = _surfaces(values, axis)
        middle, half = (np.asarray(each, np.float32) for each in ((low + high) / 2, (high - low) / 2))
        # What is near the silhouette is thinner than the body is: it says less of its depth, more of its rim.
        inside, deep = (np.asarray(each, np.float32) for each in (np.clip(4 * most, 0, 1), np.clip(most, 0, 1) ** 2))
        at_rim = np.clip(4 * (most + 0.9), 0, 1) * (0.02 + 0.98 * np.clip(2 - 4 * most, 0, 1))
        rim = np.where(most < 0.4, rim, middle)
        raster = np.linspace(axis[0], axis[-1], 2 * COARSE_SIDE + 1)[:-1] + (axis[-1] - axis[0]) / (4 * COARSE_SIDE)
        at = np.interp(raster, axis, np.arange(len(axis))).astype(np.float32)
        shown = cv2.remap(_rows(most), *_grid(at), cv2.INTER_CUBIC)
        bounds = float(axis[-1])
        ends = signed_distance((shown > 0).astype(np.float32), bounds)
        # Near its own end a truncated distance is more exact than a raster.
        near = np.clip(shown, -1, 1) * TRUNCATION
        ends = np.where(np.abs(ends) < 0.02, 0.5 * ends + 0.5 * near, ends)
        small = cv2.resize(np.asarray(ends, np.float32), (COARSE_SIDE, COARSE_SIDE), interpolation=cv2.INTER_AREA)
        at = at.reshape(-1, 2).mean(axis=1)
        grid = _grid(at)
        tables: list[tuple[_Reals, _Reals]] = [
            (middle, inside),
            (half, deep),
            (rim, at_rim),
            (half, inside * (1.05 - deep)),
        ]
        spread = [cv2.remap(_rows(_spread(table, weight)), *grid, cv2.INTER_LINEAR) for table, weight in tables]
        return cls(np.asarray(small, np.float32), *(np.asarray(table, np.float32) for table in spread))


@dataclass(frozen=True, eq=False)
class _Maps:
    """What is looked up at a point's x, y: the tables (1, C, n, n), rows from the top.

    distance : to the outline. rest : shift to the right, shift upwards, radius, bevel's width, how far the body's
    depth there is trusted, bevel's middle and half depth, lens's middle and half depth, and how far
    the place is from where something is lacking.
    """

    distance: Tensor
    rest: Tensor

    def at(self, points: Tensor, bounds: float) -> tuple[Tensor, Tensor]:
        """Return distance (Q,) and rest (10, Q) at points (Q, 3)."""
        grid = torch.stack([points[:, 0] / bounds, points[:, 1] / -bounds], dim=1)[None, None]
        found = [
            grid_sample(table, grid, mode="bilinear", padding_mode="border", align_corners=False)[0, :, 0]
            for table in (self.distance, self.rest)
        ]
        return found[0][0], found[1]

    def to(self, device: torch.device) -> _Maps:
        """Return the same on a device."""
        return _Maps(self.distance.to(device), self.rest.to(device))


@dataclass(frozen=True, eq=False)
class OutlinedField:
    """A batch of fields, each made to end at its outline (decode.Field). maps : for each image, None for none."""

    raw: Field
    maps: Sequence[_Maps | None]
    bounds: float

    @property
    def batch_size(self) -> int:
        return self.raw.batch_size

    @property
    def device(self) -> torch.device:
        return self.raw.device

    def __call__(self, points: Tensor, image: int) -> Tensor:
        """Evaluate the field of that image of the batch at points (Q, 3) float32, world: (Q,) float32.

        Where a point is well outside the outline, the network's own field is not asked.
        """
        maps = self.maps[image]
        if maps is None:
            return self.raw(points, image)
        s, rest = maps.at(points, self.bounds)
        near = (s > -_FAR).nonzero().squeeze(1)
        values = (s + _BEYOND) / TRUNCATION
        if len(near) > 0:
            s, rest, own = s[near], rest[:, near], points[near]
            asked = torch.stack([own[:, 0] + rest[0], own[:, 1] + rest[1], own[:, 2]], dim=1)
            values[near] = compose(self.raw(asked, image), own[:, 2], s, rest)
        return values


class FollowOutlines:
    """Makes a batch of fields end at their outlines (decode.Reshape).

    facts : of each image that was changed, by its place in the batch, once it is known.
    """

    def __init__(self, outlines: Sequence[Outline | None]) -> None:
        self._outlines = outlines
        self.facts: dict[int, OutlineFacts] = {}

    def __call__(self, field: Field, level: Level) -> tuple[Field, Level]:
        """Return the outlined field and its level; points that it asks for elsewhere are unknown again."""
        axis = level.axis
        world = axis.world(torch.device("cpu"))[axis.origin : axis.origin + axis.cells + 1].numpy()
        every: list[_Maps | None] = []
        for image in range(field.batch_size):
            outline = self._outlines[image]
            values = None if outline is None else level.lattice_values(image).cpu().numpy()
            if outline is None or values is None or not np.isfinite(values).all():
                every.append(None)
                continue
            maps, self.facts[image] = make_maps(values, world, outline)
            maps = maps.to(field.device)
            every.append(maps)
            level = _outlined(level, image, maps)
        return OutlinedField(field, every, axis.bounds), level


def _outlined(level: Level, image: int, maps: _Maps) -> Level:
    """Return the level with that image's values composed, unknown where points asked for elsewhere may matter.

    What the field is at a point asked for a little beside is interpolated first. Only where that is near a surface is
    the point unknown again: farther away its sign is sure, and that is all that finer levels see of it.
    """
    own = level.image == image
    bricks = own.nonzero()
    points = (bricks * VOXELS + torch.arange(VOXELS, device=bricks.device)).reshape(-1)
    there = level.positions(points)
    raw, inside = level.values[own].reshape(-1), level.values[own].reshape(-1).isfinite()
    s, rest = maps.at(there, level.axis.bounds)
    moved = (rest[0] != 0) | (rest[1] != 0)
    beside = torch.stack([there[:, 0] + rest[0], there[:, 1] + rest[1], there[:, 2]], dim=1)
    guess = torch.where(moved, _interpolated(level, image, beside), raw.nan_to_num(neginf=-1.0))
    composed = compose(guess, there[:, 2], s, rest)
    again = moved & (composed.abs() < _NEAR)
    composed = torch.where(again, torch.nan, composed)
    values, known = level.values.clone(), level.known.clone()
    values[own] = torch.where(inside, composed, raw).view(values[own].shape)
    known[own] = ~(inside & again).view(values[own].shape)
    return replace(level, values=values, known=known)


def _interpolated(level: Level, image: int, points: Tensor) -> Tensor:
    """Return what a dense level says of that image at points (Q, 3), (Q,)."""
    axis, lattice = level.axis, level.lattice_values(image)
    index = (points / axis.bounds + 1) * (axis.resolution / (2 * axis.stride))
    grid = (index / axis.cells * 2 - 1).flip(1)[None, None, None]
    found = grid_sample(lattice[None, None], grid, mode="bilinear", padding_mode="border", align_corners=True)
    return found[0, 0, 0, 0]


def make_maps(values: Floats, axis: Floats, outline: Outline) -> tuple[_Maps, OutlineFacts]:
    """Compare a body with its outline."""
    body = _Body.of(values, axis)
    s, radius = outline.coarse, outline.radius
    pixel = 2 * outline.bounds / COARSE_SIDE
    over = (body.ends > 0) & (s < 0)
    short = (body.ends < 0) & (s > 0)
    whole = max(1, int((s > 0).sum()))
    facts = OutlineFacts(round(int(over.sum()) / whole, 4), round(int(short.sum()) / whole, 4))
    right, up = _pull(body.ends, s, pixel)
    own = (body.ends, body.middle, body.half, body.rim, body.edge_half)
    ends, middle, half, rim, edge_half = (_moved(table, right, up, pixel) for table in own)
    beyond = np.maximum(ends - np.maximum(s, 0), 0) * (s > -0.05)
    width = np.minimum(radius, _BEVEL_BY * np.maximum(cv2.GaussianBlur(beyond, (0, 0), 1.0) - _BEVEL_FROM, 0))
    # Where much is cut from something thin, what is left of the body is a slice of it, whose depth says nothing.
    cut = cv2.dilate(beyond / np.maximum(radius, 0.03), np.ones((3, 3), np.uint8))
    sure = np.clip(1.25 - 2.5 * cv2.GaussianBlur(cut, (0, 0), 1.0), 0, 1)
    round_half = np.minimum(half, _DEEPEST * np.maximum(radius, 0.03))
    bevel_half = np.maximum(sure * half + (1 - sure) * round_half, _LEAST_DEPTH)
    t = np.clip(np.maximum(ends, 0.03) / np.maximum(radius, 0.03), 0, 1)
    lens_half = np.clip(edge_half / np.sqrt(t * (2 - t)), _SHALLOWEST * radius, _DEEPEST * radius)
    lens_half = np.maximum(cv2.GaussianBlur(lens_half, (0, 0), 1.5), _LEAST_DEPTH)
    lacking = ((s > _LACK) & (ends < 0)).astype(np.uint8)
    far = cv2.distanceTransform(1 - lacking, cv2.DIST_L2, cv2.DIST_MASK_5) * pixel if lacking.any() else s * 0 + 9
    tables = [right, up, radius, width, sure, middle, bevel_half, rim, lens_half, far]
    rest = torch.from_numpy(np.stack(tables).astype(np.float32))[None]
    return _Maps(torch.from_numpy(outline.distance)[None, None], rest), facts


def compose(raw: Tensor, z: Tensor, s: Tensor, rest: Tensor) -> Tensor:
    """Return the field (Q,) at heights z (Q,), from the network's own `raw` (Q,) and what _Maps.at returns."""
    _, _, radius, width, sure, middle, bevel_half, rim, lens_half, far = rest
    t = (s / width.clamp(min=1e-4)).clamp(0, 1)
    # A body that is trusted is cut near the outline only: what stands out farther in is its own.
    within = ((1 - sure * t) * ((z - middle) / bevel_half) ** 2 + (1 - t) ** 2).sqrt()
    bevel = width * (1 - within) + sure * (s - 0.4 * width).clamp(min=0)
    body = torch.where(width > 1e-3, torch.minimum(raw, bevel / TRUNCATION), raw)
    steep = radius / lens_half
    lens = radius - ((radius - s) ** 2 + ((z - rim) * steep) ** 2).sqrt()
    lens = lens / steep.clamp(min=1) - (far - _LACK_MARGIN).clamp(min=0)
    lens = torch.where(far < 0.5, lens / TRUNCATION, -1.0)
    blend = (0.6 * s).clamp(1e-4, _BLEND) / TRUNCATION
    joined = smooth_maximum(body, lens, blend)
    # A little beyond the outline: at it, a wall along z would be cut wherever the body stands out by a hair's breadth.
    # As far below as the network's own field goes: steeper, the search would take it for a surface that is near.
    return torch.minimum(joined.clamp(min=-1), (s + _BEYOND) / TRUNCATION)


def smooth_maximum(one: Tensor, other: Tensor, blend: Tensor | float) -> Tensor:
    """Return the maximum of two fields, rounded where they differ by less than `blend`, all of a common shape.

    Source: Quilez, Smooth minimum (quadratic).
    """
    nearness = (blend - (one - other).abs()).clamp(min=0)
    return torch.maximum(one, other) + nearness * nearness / (4 * blend)


def _pull(ends: Floats, s: Floats, pixel: float) -> tuple[Floats, Floats]:
    """Return how far right and up to ask instead, so that the body ends at the outline where it nearly does."""
    near = np.clip(1 - (s / (3 * _PULL_WITHIN)) ** 2, 0, 1) ** 4
    down, right = np.gradient(cv2.GaussianBlur(ends, (0, 0), 1.5), pixel)
    steep = np.maximum(np.hypot(down, right), 0.3)
    moves = np.zeros((*ends.shape, 2), np.float32)
    for _ in range(3):
        gap = _moved(ends, moves[..., 0], moves[..., 1], pixel) - s
        size = gap * np.exp(-((gap / _PULL) ** 2)) * near
        step = np.stack([-size * right / steep, size * down / steep], axis=-1)
        moves += cv2.GaussianBlur(np.asarray(step, np.float32), (0, 0), _SMOOTH)
    moves[np.abs(moves).max(axis=2) < 5e-4] = 0
    return np.ascontiguousarray(moves[..., 0]), np.ascontiguousarray(moves[..., 1])


def _moved(table: Floats, right: Floats, up: Floats, pixel: float) -> Floats:
    rows, columns = np.indices(table.shape, dtype=np.float32)
    return np.asarray(
        cv2.remap(table, columns + right / pixel, rows - up / pixel, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE),
        np.float32,
    )


def _surfaces(values: Floats, axis: Floats) -> tuple[Floats, Floats]:
    """Return the first and the last crossing (n, n) of each column; where there is none, both at its most."""
    n = len(axis)
    inside = values > 0
    first, last = inside.argmax(axis=2), n - 1 - inside[:, :, ::-1].argmax(axis=2)
    none = ~inside.any(axis=2)
    peak = axis[values.argmax(axis=2)]

    def crossing(at: NDArray[np.int64], step: int) -> Floats:
        beside = np.clip(at + step, 0, n - 1)
        own = np.take_along_axis(values, at[..., None], 2)[..., 0]
        other = np.take_along_axis(values, beside[..., None], 2)[..., 0]
        share = np.clip(own / np.maximum(own - other, 1e-6), 0, 1)
        return np.asarray(axis[at] + share * (axis[beside] - axis[at]), np.float32)

    low, high = crossing(first, -1), crossing(last, 1)
    return np.where(none, peak, low), np.where(none, peak, high)


def _peaks(values: Floats, axis: Floats) -> tuple[Floats, Floats]:
    """Return each column's most (n, n), by a parabola through its three highest points, and where along z that is."""
    at = np.clip(values.argmax(axis=2), 1, values.shape[2] - 2)[..., None]
    before, most, after = (np.take_along_axis(values, at + step, 2)[..., 0] for step in (-1, 0, 1))
    bend = np.maximum(2 * most - before - after, 1e-3)
    offset = np.clip((after - before) / (2 * bend), -1, 1)
    peak = axis[at[..., 0]] + offset * (axis[1] - axis[0])
    return np.asarray(most + np.clip((after - before) ** 2 / (8 * bend), 0, 0.3), np.float32), peak.astype(np.float32)


def _spread(values: _Reals, weight: _Reals) -> _Reals:
    """Smooth a table where it has weight, and fill it from ever farther around where it has none."""
    found = np.zeros_like(values)
    left = np.ones_like(values)
    for sigma in (0.7, 2.0, 5.0, 15.0):
        total = cv2.GaussianBlur(weight, (0, 0), sigma)
        mean = cv2.GaussianBlur(values * weight, (0, 0), sigma) / np.maximum(total, 1e-12)
        share = left * np.clip(total / 0.15, 0, 1)
        found, left = found + share * mean, left - share
    return np.asarray(found + left * mean, np.float32)


def _rows(table: Floats) -> Floats:
    """Turn a table [x, y] into rows from the top."""
    return np.ascontiguousarray(table.T[::-1])


def _grid(at: Floats) -> tuple[Floats, Floats]:
    n = len(at)
    return np.ascontiguousarray(np.broadcast_to(at, (n, n))), np.ascontiguousarray(np.broadcast_to(at[:, None], (n, n)))
