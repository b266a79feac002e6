# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc, import-untyped, import-not-found"
"""The Triton side of embedding: imported when the kernel first runs."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

ROWS = 64


@triton.jit(do_not_specialize=["rows"])
def _embedding(
    points_ptr,
    out_ptr,
    rows,
    scale,
    FREQS: tl.constexpr,
    WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    real = (row < rows)[:, None]
    itself = column < 3
    cosine = column >= 3 + 3 * FREQS
    # Which of the 3 x FREQS phases: counted from 0 among the sines, and again among the cosines.
    number = tl.maximum(tl.where(cosine, column - 3 - 3 * FREQS, column - 3), 0)
    axis = tl.where(itself, column, tl.minimum(number // FREQS, 2))
    f = (1 << (number % FREQS)).to(tl.float32) * scale
    p = tl.load(points_ptr + row[:, None] * 3 + axis[None, :], mask=real, other=0.0)
    phase = p * f[None, :]
    value = tl.where(itself[None, :], p, tl.where(cosine[None, :], tl.cos(phase), tl.sin(phase)))
    used = 3 + 6 * FREQS
    value = tl.where((column < used)[None, :], value, tl.where(column == used, 1.0, 0.0)[None, :])
    place = out_ptr + row[:, None] * WIDTH + column[None, :]
    tl.store(place, value.to(out_ptr.dtype.element_ty), mask=real & (column < WIDTH)[None, :])


def launch_embedding(points: Tensor, out: Tensor, num_freqs: int, scale: float) -> None:
    """Write out (Q, WIDTH) for points (Q, 3) float32; both contiguous."""
    rows, width = out.shape
    _embedding[(triton.cdiv(rows, ROWS),)](
        points,
        out,
        rows,
        float(scale),
        FREQS=num_freqs,
        WIDTH=width,
        COLUMNS=triton.next_power_of_2(width),
        ROWS=ROWS,
        num_warps=4,
    )
