"""Which lattice points of a field are worth asking for: rules that see a level's values and name points.

This module does not know how a field is evaluated, nor in what order levels are visited.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from backend.hunyuan3d.volume.lattice import Level, finite
from backend.hunyuan3d.volume.sparse_volume import BRICK, BrickGrid

HALF_DIAGONAL = 3**0.5 / 2
FLAT = 0.25
POSITIVE, NEGATIVE, UNKNOWN = 1, 2, 4


def curvature_residual(level: Level) -> Tensor:
    """Estimate how far interpolation on the next coarser lattice was off, from second differences: (K,8,8,8).

    Stands in for the measured residual on the coarsest level, where nothing was predicted. At the middle between two
    points 2h apart, linear interpolation is off by half the second difference.
    """
    block = level.grid.ghost_cells(level.values, 1, 1, torch.nan)
    total = torch.zeros_like(level.values)
    for dim in (1, 2, 3):
        line = _middle(block, (dim,))
        total += finite(line.narrow(dim, 0, BRICK) + line.narrow(dim, 2, BRICK) - 2 * level.values).abs()
    return total / 2


def cell_steps(level: Level) -> Tensor:
    """Return how much the field changes across a cell, in and around each: (K,8,8,8), h times the slope."""
    block = level.grid.ghost_cells(level.values, 0, 1, torch.nan)
    total = torch.zeros_like(level.values)
    for dim in (1, 2, 3):
        line = block
        for other in {1, 2, 3} - {dim}:
            line = line.narrow(other, 0, BRICK)
        total += finite(line.narrow(dim, 1, BRICK) - level.values).square()
    return _widest_around(level.grid, total.sqrt())


def prediction_error(level: Level, steps: Tensor, error_margin: float, slope_margin: float) -> Tensor:
    """Estimate how far interpolation in each cell (K,8,8,8) may be off.

    What it was off around the cell one level before, and a share of `steps` (K,8,8,8), the change across a cell, for
    safety. Where the field bends, the error falls by four from level to level, at an edge it may stay.
    """
    return _widest_around(level.grid, level.residual) * error_margin + steps * slope_margin


def likely_crossed(level: Level, error: Tensor) -> Tensor:
    """Return cells (K,8,8,8) bool that the field may cross, interpolation being off by up to `error` (K,8,8,8)."""
    least, most = _cell_extremes(level.grid, level.values, level.values)
    return (least - error <= 0) & (most + error > 0)


def blind_images(level: Level, steps: Tensor, reach: float) -> Tensor:
    """Return images (B,) bool of which a dense level may miss surfaces altogether.

    In a field of slope g, a surface inside a cell of side h is at most half a diagonal from some corner, where then
    |f| <= sqrt(3)/2 h g. A truncated field is flat beyond some distance from its surface: when its value there is
    smaller than that, a lattice of this width sees nothing of what stands between its points. Blind is an image most of
    which is so, or of which no surface is seen at all. steps : (K,8,8,8), the change across a cell.
    """
    least, most = _cell_extremes(level.grid, level.values, level.values)
    crossed = (least <= 0) & (most > 0)
    nearest = torch.minimum(least.abs(), most.abs())
    blind = []
    for image in range(level.grid.batch_size):
        own = (level.image == image)[:, None, None, None]
        usual = torch.where(own & crossed, steps, torch.nan).nanmedian()
        hiding = own & (steps < usual * FLAT) & (nearest <= usual * (HALF_DIAGONAL * reach))
        blind.append(usual.isnan() | (hiding.sum() * 2 > level.axis.cells**3))
    return torch.stack(blind)


def corners_of_crossed(level: Level) -> Tensor:
    """Return unknown points (K,8,8,8) bool of cells that the field may cross, as far as predictions are sure."""
    least, most = _cell_extremes(level.grid, level.values - level.error, level.values + level.error)
    points = level.grid.ghost_cells((least <= 0) & (most > 0), 1, 0, 0)
    for dim in (1, 2, 3):
        points = points.narrow(dim, 0, BRICK) | points.narrow(dim, 1, BRICK)
    return points & ~level.known


def ends_of_crossed(level: Level) -> Tensor:
    """Return unknown points (K,8,8,8) bool whose sign is not sure, or differs from a neighbour's along an axis."""
    unsure = (level.values - level.error <= 0) & (level.values + level.error > 0)
    signs = level.grid.ghost_cells(_signs(level), 1, 1, UNKNOWN)
    return (unsure | _differs_from_neighbour(signs)) & ~level.known


def loose_ends(level: Level, of: Tensor, sound: Tensor) -> tuple[Tensor, Tensor]:
    """Find the points to ask for so that the surface goes on, in bricks `of` (M,) int64 that are `sound` (M,) bool.

    Both ends of an edge that the surface crosses have to be known, and a cell whose corners differ in sign needs all
    eight. Returns (M,8,8,8) bool, and where bricks are missing that such cells reach into, (B,n,n,n) bool.
    """
    signs = level.grid.ghost_cells(_signs(level), 1, 1, UNKNOWN, of)
    cells = signs
    for dim in (1, 2, 3):
        cells = cells.narrow(dim, 0, BRICK + 1) | cells.narrow(dim, 1, BRICK + 1)
    wanted = pad(cells == POSITIVE | NEGATIVE | UNKNOWN, (1, 1) * 3)
    for dim in (1, 2, 3):
        wanted = wanted.narrow(dim, 0, BRICK + 2) | wanted.narrow(dim, 1, BRICK + 2)
    sound = sound[:, None, None, None]
    wanted &= (signs == UNKNOWN) & sound
    predicted = _differs_from_neighbour(signs) & ~level.known[of] & sound
    return _middle(wanted, ()) | predicted, _missing_bricks(level.grid, of, wanted)


def _signs(level: Level) -> Tensor:
    """Return POSITIVE, NEGATIVE or UNKNOWN for every point, (K,8,8,8) uint8."""
    positive = level.values > 0
    return (2 - positive.to(torch.uint8)).masked_fill_(level.values.isnan(), UNKNOWN)


def _differs_from_neighbour(signs: Tensor) -> Tensor:
    """Return points (K,8,8,8) bool with a neighbour along an axis on the other side; signs : (K,10,10,10) uint8."""
    here = _middle(signs, ())
    differs = torch.zeros(here.shape, dtype=torch.bool, device=signs.device)
    for dim in (1, 2, 3):
        line = _middle(signs, (dim,))
        for start in (0, 2):
            differs |= (line.narrow(dim, start, BRICK) ^ here) == POSITIVE | NEGATIVE
    return differs


def _middle(block: Tensor, but: tuple[int, ...]) -> Tensor:
    """Return a block (K,10,10,10) without its margins, except along the dimensions `but`."""
    for dim in {1, 2, 3} - set(but):
        block = block.narrow(dim, 1, BRICK)
    return block


def _cell_extremes(grid: BrickGrid, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least `low` and the most `high` of each cell's corners, (K,8,8,8); NaN where one is unknown."""
    least = grid.ghost_cells(low, 0, 1, torch.nan)
    most = least if high is low else grid.ghost_cells(high, 0, 1, torch.nan)
    for dim in (1, 2, 3):
        least = torch.minimum(least.narrow(dim, 0, BRICK), least.narrow(dim, 1, BRICK))
        most = torch.maximum(most.narrow(dim, 0, BRICK), most.narrow(dim, 1, BRICK))
    return least, most


def _widest_around(grid: BrickGrid, values: Tensor) -> Tensor:
    """Return the largest of `values` (K,8,8,8) over the corners of each cell and of its 26 neighbours."""
    block = grid.ghost_cells(values, 1, 2, 0.0)
    for dim in (1, 2, 3):
        pair = torch.maximum(block.narrow(dim, 0, BRICK + 2), block.narrow(dim, 1, BRICK + 2))
        block = torch.maximum(pair.narrow(dim, 0, BRICK), pair.narrow(dim, 2, BRICK))
    return block


def _missing_bricks(grid: BrickGrid, of: Tensor, wanted: Tensor) -> Tensor:
    """Mark where bricks are missing, (B,n,n,n) bool, that margins (M,10,10,10) bool of bricks `of` want points in."""
    for dim in (1, 2, 3):
        middle = wanted.narrow(dim, 1, BRICK).amax(dim, keepdim=True)
        wanted = torch.cat([wanted.narrow(dim, 0, 1), middle, wanted.narrow(dim, BRICK + 1, 1)], dim)
    return grid.marked_missing(wanted.flatten(1), of)
