# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc, import-untyped, import-not-found"
"""The Triton side of norm_dot: imported when the kernel first runs."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

ROWS = 4


@triton.jit(do_not_specialize=["rows"])
def _norm_dot(
    x_ptr,
    before_ptr,
    gain_ptr,
    offset_ptr,
    vector_ptr,
    bias_ptr,
    out_ptr,
    rows,
    channels,
    eps,
    NORMED: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, CHANNELS)
    used = channel < channels
    mask = (row < rows)[:, None] & used[None, :]
    x = tl.load(x_ptr + row[:, None] * channels + channel[None, :], mask=mask, other=0.0).to(tl.float32)
    x += tl.load(before_ptr + channel, mask=used, other=0.0).to(tl.float32)[None, :]
    if NORMED:
        mean = tl.sum(x, axis=1) / channels
        x = tl.where(used[None, :], x - mean[:, None], 0.0)
        x *= tl.rsqrt(tl.sum(x * x, axis=1) / channels + eps)[:, None]
        x *= tl.load(gain_ptr + channel, mask=used, other=0.0).to(tl.float32)[None, :]
        x += tl.load(offset_ptr + channel, mask=used, other=0.0).to(tl.float32)[None, :]
    x *= tl.load(vector_ptr + channel, mask=used, other=0.0).to(tl.float32)[None, :]
    tl.store(out_ptr + row, tl.sum(x, axis=1) + tl.load(bias_ptr).to(tl.float32), mask=row < rows)


def launch_norm_dot(
    x: Tensor,
    before: Tensor,
    gain: Tensor | None,
    offset: Tensor | None,
    vector: Tensor,
    bias: Tensor,
    out: Tensor,
    eps: float,
) -> None:
    """Write out (Q,) for x (Q, C); all contiguous."""
    rows, channels = x.shape
    _norm_dot[(triton.cdiv(rows, ROWS),)](
        x,
        before,
        vector if gain is None else gain,
        vector if offset is None else offset,
        vector,
        bias,
        out,
        rows,
        channels,
        eps,
        NORMED=gain is not None,
        ROWS=ROWS,
        CHANNELS=triton.next_power_of_2(channels),
        num_warps=4,
    )
