# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc, import-untyped, import-not-found"
"""The Triton side of ghost_cells: imported when the kernel first runs."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit(do_not_specialize=["bricks"])
def _ghost_cells(
    values_ptr,
    around_ptr,
    of_ptr,
    out_ptr,
    bricks,
    fill_ptr,
    LOW: tl.constexpr,
    SIZE: tl.constexpr,
    POINTS: tl.constexpr,
    PICKED: tl.constexpr,
):
    block = tl.program_id(0).to(tl.int64)
    brick = tl.load(of_ptr + block) if PICKED else block
    point = tl.arange(0, POINTS)
    real = point < SIZE * SIZE * SIZE
    # Eight more than the brick's own coordinate, so that shifting and masking need no negative numbers.
    x = point // (SIZE * SIZE) - LOW + 8
    y = point // SIZE % SIZE - LOW + 8
    z = point % SIZE - LOW + 8
    row = (x >> 3) * 9 + (y >> 3) * 3 + (z >> 3)
    number = tl.load(around_ptr + row.to(tl.int64) * bricks + brick, mask=real, other=0)
    there = number < bricks
    voxel = (x & 7) * 64 + (y & 7) * 8 + (z & 7)
    value = tl.load(values_ptr + number * 512 + voxel, mask=real & there, other=0)
    value = tl.where(there, value, tl.load(fill_ptr))
    tl.store(out_ptr + block * (SIZE * SIZE * SIZE) + point, value, mask=real)


def launch_ghost_cells(values: Tensor, around: Tensor, of: Tensor | None, out: Tensor, low: int, fill: float) -> None:
    """Write out (M,S,S,S) from values (K,8,8,8); all contiguous."""
    if values.dtype == torch.bool:
        values, out = values.view(torch.uint8), out.view(torch.uint8)
    size = out.shape[1]
    _ghost_cells[(len(out),)](
        values,
        around,
        around if of is None else of,
        out,
        len(values),
        values.new_full((1,), fill),
        LOW=low,
        SIZE=size,
        POINTS=triton.next_power_of_2(size**3),
        PICKED=of is not None,
        num_warps=4,
    )
