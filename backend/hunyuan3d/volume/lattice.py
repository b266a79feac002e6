"""The nested lattices of a coarse-to-fine search, and what is known of a batch of fields on one of them.

The lattice of stride s holds the fine indices 0, s, 2s, … and R along each axis, its last cell being narrower when s
does not divide R; so every lattice contains the coarser ones at any R. This module does not know how a field is
evaluated, nor which points are worth it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from backend.hunyuan3d.volume.sparse_volume import BRICK, VOXELS, BrickGrid, bricks_needed


@dataclass(frozen=True)
class LevelAxis:
    """One axis of a level's lattice: which fine index and world coordinate stands at a table coordinate.

    Table coordinate c holds fine index min((c - origin) * stride, R). The origin doubles from level to level, so that
    point c becomes point 2c and a brick splits into eight.
    """

    resolution: int
    bounds: float
    stride: int
    origin: int

    @property
    def cells(self) -> int:
        return -(-self.resolution // self.stride)

    @property
    def bricks(self) -> int:
        return bricks_needed(self.origin + self.cells + 2)

    def index(self, device: torch.device) -> Tensor:
        """Return the fine index (8 * bricks,) int64 of every table coordinate; meaningless outside the box."""
        coordinate = torch.arange(self.bricks * BRICK, device=device)
        return ((coordinate - self.origin) * self.stride).clamp(max=self.resolution)

    def inside(self, device: torch.device) -> Tensor:
        """Say which table coordinates (8 * bricks,) lie in the box."""
        coordinate = torch.arange(self.bricks * BRICK, device=device)
        return (coordinate >= self.origin) & (coordinate <= self.origin + self.cells)

    def world(self, device: torch.device) -> Tensor:
        """Return the world coordinate (8 * bricks,) float32 of every table coordinate."""
        return self.index(device).float() / self.resolution * (2 * self.bounds) - self.bounds

    def middle_weights(self, fine: LevelAxis, device: torch.device) -> Tensor:
        """Say where the odd points of the next finer lattice stand between their neighbours here, 0 to 1.

        (4 * fine bricks,) float32: one half but in a last cell that is narrower than the others.
        """
        index = fine.index(device)
        low, middle = index[0::2], index[1::2]
        high = (low + self.stride).clamp(max=self.resolution)
        return torch.where(high > low, (middle - low) / (high - low).clamp(min=1), 0.5)


def plan_levels(resolution: int, bounds: float, base_cells: int) -> list[LevelAxis]:
    """List the lattices from the coarsest with at least `base_cells` cells a side (or the finest) down to stride 1."""
    depth = 0
    while -(-resolution // 2 ** (depth + 1)) >= base_cells:
        depth += 1
    return [LevelAxis(resolution, bounds, 2 ** (depth - i), 2**i) for i in range(depth + 1)]


@dataclass(frozen=True, eq=False)
class Level:
    """A batch of fields on one lattice; `put` writes into its tensors.

    values : (K,8,8,8) float32: what the field said, else what the coarser level predicts, else NaN; -inf outside the
    box. known : (K,8,8,8) bool, the field said so, or the point is outside the box. error : (K,8,8,8) float32, how far
    a prediction may be off, 0 where none was made. residual : (K,8,8,8) float32, how far predictions were off where the
    field was asked.
    """

    axis: LevelAxis
    grid: BrickGrid
    values: Tensor
    known: Tensor
    error: Tensor
    residual: Tensor

    @classmethod
    def dense(cls, axis: LevelAxis, batch_size: int, device: torch.device) -> Level:
        """Return all lattice points, none known yet."""
        return cls.empty(axis, BrickGrid.full(batch_size, axis.bricks, device))

    @classmethod
    def empty(cls, axis: LevelAxis, grid: BrickGrid) -> Level:
        """Return the points of the grid's bricks, none known yet."""
        outside = ~_inside_box(axis, grid)
        values = torch.where(outside, -torch.inf, torch.nan)
        return cls(axis, grid, values, outside, torch.zeros_like(values), torch.zeros_like(values))

    @property
    def image(self) -> Tensor:
        """Return which image each brick belongs to, (K,) int64."""
        return self.grid.coordinates[:, 0]

    def positions(self, points: Tensor) -> Tensor:
        """Return the world coordinates (...,3) float32 of `points` (...) int64, brick * 512 + voxel."""
        world = _world(self.axis, points.device)
        corner = self.grid.coordinates[points // VOXELS, 1:] * BRICK
        local = (points // BRICK**2 % BRICK, points // BRICK % BRICK, points % BRICK)
        return torch.stack([world[corner[..., axis] + local[axis]] for axis in range(3)], dim=-1)

    def put(self, points: Tensor, values: Tensor) -> None:
        """Take down what the field said at `points` (P,) int64, brick * 512 + voxel."""
        predicted = self.values.view(-1)[points]
        self.residual.view(-1)[points] = finite(values - predicted).abs()
        self.values.view(-1)[points] = values
        self.known.view(-1)[points] = True

    def with_bricks(self, coordinates: Tensor) -> Level:
        """Return the level with more bricks at `coordinates` (M,4) int64, nothing in them known."""
        in_order = self.grid.batch_size == 1
        grid = BrickGrid.build(
            self.grid.batch_size,
            self.grid.bricks_a_side,
            torch.cat([self.grid.coordinates, coordinates]),
            images_in_order=in_order,
        )
        more = Level.empty(self.axis, BrickGrid.build(grid.batch_size, grid.bricks_a_side, coordinates))
        pairs = ((getattr(self, name), getattr(more, name)) for name in ("values", "known", "error", "residual"))
        return Level(self.axis, grid, *(torch.cat(pair) for pair in pairs))

    def lattice_values(self, image: int) -> Tensor:
        """Return a dense level's values of that image on the lattice, (n, n, n) [x, y, z]."""
        own = self.image == image
        a_side = self.axis.bricks
        table = torch.full((a_side, BRICK) * 3, -torch.inf, device=self.values.device)
        x, y, z = self.grid.coordinates[own, 1:].unbind(1)
        table[x, :, y, :, z, :] = self.values[own]
        inside = slice(self.axis.origin, self.axis.origin + self.axis.cells + 1)
        return table.reshape((a_side * BRICK,) * 3)[inside, inside, inside]

    def without_predictions(self) -> Level:
        """Keep only what the field said: a prediction built on predictions would not know its error."""
        return replace(self, values=torch.where(self.known, self.values, torch.nan))

    def subdivide(self, axis: LevelAxis, cells: Tensor, error: Tensor) -> tuple[Level, Tensor]:
        """Interpolate the next level trilinearly where `cells` (K,8,8,8) bool are, off by up to `error` (K,8,8,8).

        Returns the level and its unknown points (K',8,8,8) bool in or on the cells. Points that both lattices share
        stay known.
        """
        near = self.grid.ghost_cells(cells, 1, 0, 0)
        chosen, coordinates = self._children(axis, near)
        in_order = self.grid.images_in_order
        child = Level.empty(
            axis, BrickGrid.build(self.grid.batch_size, axis.bricks, coordinates, images_in_order=in_order)
        )
        values = _half_blocks(self.grid.ghost_cells(self.values, 0, 1, torch.nan), 5, chosen)
        known = _half_blocks(self.grid.ghost_cells(self.known, 0, 1, 0), 5, chosen)
        wanted = _half_blocks(near, 5, chosen)
        spread = _half_blocks(error, 4, chosen)
        weights = self.axis.middle_weights(axis, coordinates.device).view(-1, BRICK // 2)
        for dim in (1, 2, 3):
            weight = weights[coordinates[:, dim]].view(-1, *(BRICK // 2 if d == dim else 1 for d in (1, 2, 3)))
            values = _interleave(_low(values, dim), _low(values, dim) * (1 - weight) + _high(values, dim) * weight, dim)
            known = _interleave(_low(known, dim), _high(known, dim) & (weight == 1), dim)
            wanted = _interleave(_low(wanted, dim) | _high(wanted, dim), _high(wanted, dim), dim)
            spread = spread.repeat_interleave(2, dim)
        known |= child.known
        values = torch.where(child.known, child.values, values)
        return replace(child, values=values, known=known, error=torch.where(known, 0.0, spread)), wanted & ~known

    def _children(self, axis: LevelAxis, near: Tensor) -> tuple[Tensor, Tensor]:
        """Find the halves of bricks that cells touch: (M,4) brick and half along each axis, and coordinates (M,4).

        near : (K,9,9,9) bool, the cells with those before each brick: their far points are the brick's first.
        """
        for dim in (1, 2, 3):
            near = near.unfold(dim, 5, 4).any(-1)
        half = torch.arange(2, device=near.device)
        for dim in (1, 2, 3):
            in_reach = self.grid.coordinates[:, dim, None] * 2 + half < axis.bricks
            near &= in_reach.view(-1, *(2 if d == dim else 1 for d in (1, 2, 3)))
        chosen = near.nonzero()
        coordinates = self.grid.coordinates[chosen[:, 0]]
        coordinates[:, 1:] = coordinates[:, 1:] * 2 + chosen[:, 1:]
        return chosen, coordinates


@cache
def _world(axis: LevelAxis, device: torch.device) -> Tensor:
    return axis.world(device)


def finite(values: Tensor) -> Tensor:
    """Put 0 where values are not finite: a difference to what is unknown or outside the box tells nothing."""
    return values.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def _inside_box(axis: LevelAxis, grid: BrickGrid) -> Tensor:
    inside = axis.inside(grid.coordinates.device).view(-1, BRICK)
    x, y, z = (inside[grid.coordinates[:, 1 + d]] for d in range(3))
    return x[:, :, None, None] & y[:, None, :, None] & z[:, None, None, :]


def _half_blocks(block: Tensor, size: int, chosen: Tensor) -> Tensor:
    """Cut eight cubes out of every block, of which `chosen` (M,4), block and half along each axis, are taken."""
    for dim in (1, 2, 3):
        block = block.unfold(dim, size, BRICK // 2)
    return block[tuple(chosen.unbind(1))]


def _low(values: Tensor, dim: int) -> Tensor:
    return values.narrow(dim, 0, BRICK // 2)


def _high(values: Tensor, dim: int) -> Tensor:
    return values.narrow(dim, 1, BRICK // 2)


def _interleave(even: Tensor, odd: Tensor, dim: int) -> Tensor:
    return torch.stack([even, odd], dim + 1).flatten(dim, dim + 1)
