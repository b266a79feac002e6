"""Bricks with a margin copied from their neighbours, by one kernel instead of a handful of operations a neighbour.

This module does not know what the bricks hold.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from backend.hunyuan3d.kernels.launch import WithTwin, kernels_run_on

BRICK = 8


def ghost_cells(values: Tensor, around: Tensor, of: Tensor | None, low: int, high: int, fill: float) -> Tensor:
    """Return bricks with `low` and `high` more points before and behind along every axis.

    values : (K,8,8,8). around : (27,K) int64, the bricks around every brick, K where none is; row 9x+3y+z+13 has offset
    (x,y,z). of : (M,) int64, the bricks that are wanted, all when None. Returns (M,S,S,S), S = low+8+high; `fill`
    stands where no brick is.
    """
    return _GHOST_CELLS(len(values) > 0 and kernels_run_on(values), values, around, of, low, high, fill)


def ghost_cells_torch(values: Tensor, around: Tensor, of: Tensor | None, low: int, high: int, fill: float) -> Tensor:
    """Compute `ghost_cells` in torch, neighbour by neighbour."""
    size = low + BRICK + high
    shape = (len(values) if of is None else len(of), size, size, size)
    out = torch.empty(shape, dtype=values.dtype, device=values.device)
    spans = {
        -1: (slice(0, low), slice(BRICK - low, BRICK)),
        0: (slice(low, low + BRICK), slice(0, BRICK)),
        1: (slice(low + BRICK, size), slice(0, high)),
    }
    steps = [step for step in (-1, 0, 1) if step == 0 or (low if step < 0 else high)]
    for x, y, z in product(steps, repeat=3):
        chosen = [spans[x], spans[y], spans[z]]
        target, source = ((slice(None), *(pair[k] for pair in chosen)) for k in (0, 1))
        if x == y == z == 0:
            out[target] = values if of is None else values.index_select(0, of)
            continue
        row = around[x * 9 + y * 3 + z + 13]
        number = row if of is None else row[of]
        missing = (number == len(values))[:, None, None, None]
        out[target] = _taken(values[source], number.clamp(max=len(values) - 1)).masked_fill_(missing, fill)
    return out


def ghost_cells_triton(values: Tensor, around: Tensor, of: Tensor | None, low: int, high: int, fill: float) -> Tensor:
    """Compute `ghost_cells` in one kernel."""
    # Importing a kernel imports Triton, which not every machine has or uses.
    from backend.hunyuan3d.kernels.ghost_cells_triton import launch_ghost_cells

    size = low + BRICK + high
    count = len(values) if of is None else len(of)
    out = torch.empty((count, size, size, size), dtype=values.dtype, device=values.device)
    if count:
        launch_ghost_cells(values.contiguous(), around, of, out, low, fill)
    return out


def _taken(values: Tensor, numbers: Tensor) -> Tensor:
    """values[numbers], the fast way: few from many as they lie, many after gathering what lies apart."""
    return values[numbers] if 4 * len(numbers) < len(values) else values.contiguous().index_select(0, numbers)


_GHOST_CELLS = WithTwin("ghost_cells", ghost_cells_triton, ghost_cells_torch)
