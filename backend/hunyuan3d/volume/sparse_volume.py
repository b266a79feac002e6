"""A cube of field values kept only where they matter: bricks of 8x8x8 lattice points under a table of brick numbers.

`BrickGrid` says which bricks exist, for a batch of images at once; `SparseVolume` is one image's finished field. This
module does not know how the values are computed, nor what a surface is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import torch
from torch import Tensor

from backend.hunyuan3d.kernels.ghost_cells import ghost_cells

BRICK = 8
VOXELS = BRICK**3
CELL_CORNERS = tuple(product((0, 1), repeat=3))


@dataclass(frozen=True, eq=False)
class BrickGrid:
    """Which bricks of B lattices exist.

    table : (B,n+2,n+2,n+2) int32, the brick's number or -1; a rim of -1 spares every neighbour look-up its range check.
    coordinates : (K,4) int64, image and brick coordinates (rim not counted) of brick number 0..K-1.
    images_in_order : an image's bricks are known to stand before those of the next.
    """

    table: Tensor
    coordinates: Tensor
    images_in_order: bool = False

    @classmethod
    def build(
        cls, batch_size: int, bricks_a_side: int, coordinates: Tensor, *, images_in_order: bool = False
    ) -> BrickGrid:
        """Build the grid of the bricks at `coordinates` (K,4) int64, numbered in their order; each at most once."""
        side = bricks_a_side + 2
        table = torch.full((batch_size, side, side, side), -1, dtype=torch.int32, device=coordinates.device)
        grid = cls(table, coordinates, images_in_order)
        table.view(-1)[grid._flat_index] = torch.arange(len(coordinates), dtype=torch.int32, device=coordinates.device)
        return grid

    @classmethod
    def full(cls, batch_size: int, bricks_a_side: int, device: torch.device) -> BrickGrid:
        """Return a grid in which every brick of every image exists, image by image."""
        side = torch.arange(bricks_a_side, device=device)
        coordinates = torch.cartesian_prod(torch.arange(batch_size, device=device), side, side, side)
        return cls.build(batch_size, bricks_a_side, coordinates, images_in_order=True)

    @property
    def batch_size(self) -> int:
        return int(self.table.shape[0])

    @property
    def bricks_a_side(self) -> int:
        return int(self.table.shape[1]) - 2

    @cached_property
    def _flat_index(self) -> Tensor:
        side = self.bricks_a_side + 2
        image, x, y, z = self.coordinates.unbind(1)
        return ((image * side + x + 1) * side + y + 1) * side + z + 1

    def __len__(self) -> int:
        return int(self.coordinates.shape[0])

    @cached_property
    def _around(self) -> Tensor:
        """Return numbers (27,K) int64 of the bricks around every brick; row 9x+3y+z+13 has offset (x,y,z); K: none."""
        offset = _steps_around(self.bricks_a_side + 2, self.coordinates.device)[:, None]
        number = self.table.view(-1)[self._flat_index + offset].long()
        return torch.where(number < 0, len(self), number)

    def neighbours(self, offset: Sequence[int], of: Tensor | None = None) -> Tensor:
        """Return numbers (K,) int64 of the bricks `offset` (each -1, 0 or 1) away from all bricks, or from bricks `of`.

        K where none exists.
        """
        row = self._around[offset[0] * 9 + offset[1] * 3 + offset[2] + 13]
        return row if of is None else row[of]

    def touching(self, bricks: Tensor) -> Tensor:
        """Return numbers (M,) int64, rising, of bricks (N,) int64 and all that touch them."""
        marked = torch.zeros(len(self) + 1, dtype=torch.bool, device=bricks.device)
        marked[self._around.index_select(1, bricks)] = True
        return marked[:-1].nonzero().squeeze(1)

    def marked_missing(self, wanted: Tensor, of: Tensor) -> Tensor:
        """Mark where no brick is although a neighbour wants one, (B,n,n,n) bool.

        wanted : (M,27) bool, which of the bricks around bricks `of` (M,) int64, in the order of `_around`.
        """
        side = self.bricks_a_side + 2
        missing = wanted & (self._around.index_select(1, of) == len(self)).t()
        place = self._flat_index[of][:, None] + _steps_around(side, of.device)
        # What is not missing is marked behind the end: picking it out would wait for the device.
        found = torch.zeros(self.table.numel() + 1, dtype=torch.bool, device=of.device)
        found[torch.where(missing, place, self.table.numel())] = True
        return found[:-1].view(self.table.shape)[:, 1:-1, 1:-1, 1:-1]

    def ghost_cells(self, values: Tensor, low: int, high: int, fill: float, of: Tensor | None = None) -> Tensor:
        """Return bricks with a margin copied from their neighbours.

        values : (K,8,8,8); of : (M,) int64 brick numbers, all when None. Returns (M,S,S,S), S = low+8+high; `fill`
        stands where no brick is.
        """
        return ghost_cells(values, self._around, of, low, high, fill)


def _steps_around(side: int, device: torch.device) -> Tensor:
    """Return how far apart a brick and the 27 around it, itself too, lie in a flat table with `side` bricks a side."""
    step = torch.arange(-1, 2, device=device)
    return ((step[:, None, None] * side + step[:, None]) * side + step).view(-1)


@dataclass(frozen=True, eq=False)
class SparseVolume:
    """One image's field on the lattice of (R+1)^3 points, known near its surface.

    Lattice index i stands at table coordinate i + origin; the points around the box hold -inf, so that the surface of a
    field which is positive at the box's wall is closed there. NaN: not known. At both ends of every lattice edge that
    the surface crosses stands the field's own value; elsewhere the sign is right and the value may be interpolated.

    resolution : R, cells a side. bounds : half the box's side, world units. grid : bricks of one image.
    values : (K,8,8,8) float32, positive inside. points_evaluated : how often the field was asked.
    """

    resolution: int
    bounds: float
    origin: int
    grid: BrickGrid
    values: Tensor
    points_evaluated: int

    @classmethod
    def from_dense(cls, values: Tensor, bounds: float = 1.01) -> SparseVolume:
        """Take the bricks in which the sign changes from a full lattice, values (R+1,R+1,R+1) float32."""
        resolution = values.shape[0] - 1
        side = bricks_needed(resolution + 3)
        high = side * BRICK + 1 - (resolution + 2)
        padded = torch.nn.functional.pad(values, (1, high) * 3, value=-torch.inf)
        inside = (padded > 0).to(torch.uint8)
        window = BRICK + 1
        some, every = (_block_extreme(inside, window, largest) for largest in (True, False))
        active = (some != every).nonzero()
        # A cell's far corners lie in the bricks behind it, which have to be there too.
        wanted = torch.zeros((side + 1,) * 3, dtype=torch.bool, device=values.device)
        for corner in CELL_CORNERS:
            wanted[tuple((active + torch.tensor(corner, device=values.device)).unbind(1))] = True
        coordinates = wanted[:side, :side, :side].nonzero()
        grid = BrickGrid.build(1, side, torch.nn.functional.pad(coordinates, (1, 0)))
        blocks = padded[:-1, :-1, :-1].reshape(side, BRICK, side, BRICK, side, BRICK).permute(0, 2, 4, 1, 3, 5)
        bricks = blocks[tuple(coordinates.unbind(1))]
        return cls(resolution, bounds, 1, grid, bricks.contiguous(), (resolution + 1) ** 3)

    @property
    def evaluated(self) -> float:
        """Return the share of the (R+1)^3 lattice points that the field was asked for, all levels together."""
        return self.points_evaluated / (self.resolution + 1) ** 3

    def cpu(self) -> SparseVolume:
        """Return the same volume in main memory."""
        grid = BrickGrid(self.grid.table.cpu(), self.grid.coordinates.cpu())
        return replace(self, grid=grid, values=self.values.cpu())

    def to_dense(self) -> Tensor:
        """Return values (R+1,R+1,R+1) float32, NaN where unknown."""
        side = self.grid.bricks_a_side
        blocks = self.values.new_full((side, side, side, BRICK, BRICK, BRICK), torch.nan)
        blocks[tuple(self.grid.coordinates[:, 1:].unbind(1))] = self.values
        dense = blocks.permute(0, 3, 1, 4, 2, 5).reshape((side * BRICK,) * 3)
        span = slice(self.origin, self.origin + self.resolution + 1)
        return dense[span, span, span].contiguous()


def bricks_needed(points: int) -> int:
    """Return how many bricks cover `points` lattice points along an axis."""
    return -(-points // BRICK)


def _block_extreme(values: Tensor, window: int, largest: bool) -> Tensor:
    """Return the largest or smallest value of every brick with its margin: (8n+1)^3 -> (n,n,n)."""
    for dim in range(3):
        blocks = values.unfold(dim, window, BRICK)
        values = blocks.amax(-1) if largest else blocks.amin(-1)
    return values
