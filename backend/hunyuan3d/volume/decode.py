"""From a batch of fields to sparse volumes: ask coarsely everywhere, then finely only where a surface may pass.

This module does not know what computes a field, nor how a surface is drawn through it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import isfinite
from typing import Protocol

import torch
from torch import Tensor

from backend.errors import InvalidParameter, InvalidResolution, NonFiniteValues, ServiceError
from backend.hunyuan3d.volume import refinement
from backend.hunyuan3d.volume.lattice import Level, LevelAxis, plan_levels
from backend.hunyuan3d.volume.sparse_volume import VOXELS, BrickGrid, SparseVolume
from backend.limits import MAX_RESOLUTION, MIN_RESOLUTION

MAX_CELLS = 64
# Below this a call of the field is so small that the rest of a decoding takes more memory than it.
MIN_POINTS_PER_CALL = 1024
OnLevel = Callable[[int, int], None]
Found = SparseVolume | ServiceError


class Field(Protocol):
    """A batch of scalar fields on one device, positive inside."""

    @property
    def batch_size(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    def __call__(self, points: Tensor, image: int) -> Tensor:
        """Evaluate the field of that image of the batch at points (Q,3) float32, world: logits (Q,) float32."""
        ...


@dataclass(frozen=True)
class DecodeOptions:
    """How a field is searched.

    bounds : half the box's side, world units. max_points_per_call : most points in one call of the field, which bounds
    the memory. base_cells : least cells a side of the coarsest lattice; by resolution when None. reach : how readily
    the coarsest lattice is held too coarse for a truncated field, which is then asked everywhere on the next; 1 is
    exact. error_margin, slope_margin : how far predictions may be off, in what they were off before and in changes of
    the field across a cell.
    """

    bounds: float = 1.01
    max_points_per_call: int = 65536
    base_cells: int | None = None
    reach: float = 1.1
    error_margin: float = 1.0
    slope_margin: float = 0.1

    def __post_init__(self) -> None:
        for name in ("bounds", "reach", "error_margin", "slope_margin"):
            value = getattr(self, name)
            if not (isfinite(value) and value >= 0) or (name == "bounds" and value == 0):
                raise InvalidParameter(f"{name} must be a finite positive number, not {value}.")
        if self.max_points_per_call < 1:
            raise InvalidParameter(f"max_points_per_call must be at least 1, not {self.max_points_per_call}.")
        if self.base_cells is not None and self.base_cells < 2:
            raise InvalidParameter(f"base_cells must be at least 2, not {self.base_cells}.")

    def halved(self) -> DecodeOptions:
        """Halve the points in a call, which finds the same; return the same options where that is too few."""
        half = self.max_points_per_call // 2
        return self if half < MIN_POINTS_PER_CALL else replace(self, max_points_per_call=half)

    def least_cells(self, resolution: int) -> int:
        """Return the cells a side that the coarsest lattice has to have at this resolution."""
        if self.base_cells is not None:
            return self.base_cells
        return 32 if resolution <= 256 else 48


class Reshape(Protocol):
    """What makes another field of one whose coarsest level is known."""

    def __call__(self, field: Field, level: Level) -> tuple[Field, Level]:
        """Return the field to search and its coarsest level, with what is still to be asked marked as unknown."""
        ...


class _FieldSampler:
    """Asks the field for points of a level, in calls of bounded size, and keeps count of each image.

    asked : points so far of each image. alive : (B,) bool, images of which all values were finite. Every call is for
    points of one image, cut the same way whatever the other images need: its values are the same in any batch.
    """

    def __init__(self, field: Field, options: DecodeOptions) -> None:
        self.field = field
        self.options = options
        self.asked = [0] * field.batch_size
        self.alive = torch.ones(field.batch_size, dtype=torch.bool, device=field.device)

    def __call__(self, level: Level, points: Tensor) -> None:
        """Put the field's values at `points` (P,) int64, brick * 512 + voxel, of sound images into the level."""
        points, counts = self._by_image(level, points)
        values = torch.empty(len(points), device=points.device)
        parts = list(zip(torch.split(points, counts), torch.split(values, counts), strict=True))
        for image, (own, out) in enumerate(parts):
            for part, there in zip(self._calls(own), self._calls(out), strict=True):
                if len(part) > 0:
                    there.copy_(self.field(level.positions(part), image))
            self.alive[image] &= out.isfinite().all()
            self.asked[image] += len(out)
        level.put(points, values)

    def _calls(self, own: Tensor) -> Sequence[Tensor]:
        return torch.split(own, self.options.max_points_per_call)

    def _by_image(self, level: Level, points: Tensor) -> tuple[Tensor, list[int]]:
        """Return the points in the images' order, and how many each image has."""
        batch = self.field.batch_size
        if batch == 1:
            return points, [len(points)]
        image = level.image[points // VOXELS]
        if not level.grid.images_in_order:
            image, order = image.sort(stable=True)
            points = points[order]
        ends = torch.searchsorted(image, torch.arange(batch, device=image.device), right=True).tolist()
        return points, [end - start for start, end in pairwise([0, *ends])]


def decode_volume(
    field: Field,
    resolution: int,
    options: DecodeOptions | None = None,
    on_level: OnLevel | None = None,
    reshape: Reshape | None = None,
) -> list[Found]:
    """Find every image's surface on the lattice of (R+1)^3 points while asking for few of them.

    The coarsest lattice is asked everywhere. Each finer one is predicted by interpolation, whose error is known from
    the level before, and asked where that leaves a sign or the place of a crossing open. On every level the surface is
    followed across cells until it is closed, so that only what no coarser lattice has a trace of can be missed.

    Returns one SparseVolume per image, in order, or NonFiniteValues for an image whose field is not finite.
    reshape : makes the field that is searched, once the given one's coarsest level is known. on_level(done, total) is
    called after every level; what it raises ends the decoding. Raises InvalidResolution.
    """
    options = options or DecodeOptions()
    check_resolution(resolution)
    axes = plan_levels(resolution, options.bounds, options.least_cells(resolution))
    return _decode(field, axes, options, on_level, reshape)


def dense_volume(
    field: Field, resolution: int, options: DecodeOptions | None = None, on_level: OnLevel | None = None
) -> list[Found]:
    """Ask for every point of the lattice: what decode_volume is measured against. Returns and raises as it does."""
    options = options or DecodeOptions()
    check_resolution(resolution)
    return _decode(field, plan_levels(resolution, options.bounds, resolution), options, on_level)


def check_resolution(resolution: int) -> None:
    """Raise InvalidResolution unless `resolution` is a whole number from 8 to 1024."""
    if isinstance(resolution, bool) or not isinstance(resolution, int):
        raise InvalidResolution
    if not MIN_RESOLUTION <= resolution <= MAX_RESOLUTION:
        raise InvalidResolution(details={"resolution": resolution})


def _decode(
    field: Field,
    axes: list[LevelAxis],
    options: DecodeOptions,
    on_level: OnLevel | None,
    reshape: Reshape | None = None,
) -> list[Found]:
    ask = _FieldSampler(field, options)
    level = Level.dense(axes[0], field.batch_size, field.device)
    ask(level, _points(~level.known))
    if reshape is not None:
        ask.field, level = reshape(field, level)
        ask(level, _points(~level.known))
    if len(axes) > 1:
        level = replace(level, residual=refinement.curvature_residual(level))
    _tell(on_level, 1, len(axes))
    everywhere: Tensor | None = torch.ones_like(ask.alive)
    for depth, axis in enumerate(axes[1:], start=2):
        level, everywhere = _refine(level, axis, ask, everywhere)
        _tell(on_level, depth, len(axes))
    return _volumes(level, ask)


def _tell(on_level: OnLevel | None, done: int, total: int) -> None:
    if on_level is not None:
        on_level(done, total)


def _refine(
    coarse: Level, axis: LevelAxis, ask: _FieldSampler, everywhere: Tensor | None
) -> tuple[Level, Tensor | None]:
    """Return the next finer level, asked where a surface may pass.

    everywhere : (B,) bool, images of which the coarse level knows all points, None for no image; returned for the new
    level. Such an image is asked everywhere again when the coarse level shows too little.
    """
    options = ask.options
    steps = refinement.cell_steps(coarse)
    error = refinement.prediction_error(coarse, steps, options.error_margin, options.slope_margin)
    cells = refinement.likely_crossed(coarse, error)
    blind = None
    if everywhere is not None and axis.cells <= max(MAX_CELLS, axis.resolution // 4):
        blind = everywhere & refinement.blind_images(coarse, steps, options.reach)
        cells |= _of_image(blind, coarse)
    level, in_cells = coarse.subdivide(axis, cells & _of_image(ask.alive, coarse), error)
    last = axis.stride == 1
    wanted = refinement.ends_of_crossed(level) if last else refinement.corners_of_crossed(level)
    if blind is not None:
        wanted |= in_cells & _of_image(blind, level)
    ask(level, _points(wanted))
    return _follow(level if last else level.without_predictions(), ask), blind


def _of_image(flags: Tensor, level: Level) -> Tensor:
    """Spread flags of the images (B,), to be set against points (K,8,8,8)."""
    return flags[level.image][:, None, None, None]


def _points(wanted: Tensor) -> Tensor:
    """Return the numbers (P,) int64 of the points in `wanted` (K,8,8,8) bool."""
    return wanted.reshape(-1).nonzero().squeeze(1)


def _follow(level: Level, ask: _FieldSampler) -> Level:
    """Ask on while a crossed edge has an end that was only predicted, or a crossed cell a corner that is not there."""
    look = torch.arange(len(level.grid), device=level.values.device)
    while True:
        wanted, missing = refinement.loose_ends(level, look, ask.alive[level.image[look]])
        # Both at once, for the device is waited for here.
        more_points, more_bricks = torch.stack([wanted.any(), missing.any()]).tolist()
        if not more_points and not more_bricks:
            return level
        points = _points(wanted)
        bricks = look[points // VOXELS]
        ask(level, bricks * VOXELS + points % VOXELS)
        if more_bricks:
            coordinates = missing.nonzero()
            new = torch.arange(len(coordinates), device=look.device) + len(level.grid)
            level, bricks = level.with_bricks(coordinates), torch.cat([bricks, new])
        look = level.grid.touching(bricks)


def _volumes(level: Level, ask: _FieldSampler) -> list[Found]:
    """Cut the batch into its images."""
    results: list[Found] = []
    axis = level.axis
    for image, sound in enumerate(ask.alive.tolist()):
        if not sound:
            results.append(NonFiniteValues())
            continue
        own = (level.image == image).nonzero().squeeze(1)
        coordinates = level.grid.coordinates[own] * torch.tensor([0, 1, 1, 1], device=own.device)
        grid = BrickGrid.build(1, level.grid.bricks_a_side, coordinates)
        results.append(
            SparseVolume(axis.resolution, axis.bounds, axis.origin, grid, level.values[own], ask.asked[image])
        )
    return results
