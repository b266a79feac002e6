# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc, import-untyped, import-not-found"
"""The Triton side of query_norm: imported when the kernel first runs."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

ROWS = 128


@triton.jit(do_not_specialize=["rows"])
def _query_heads(
    f_ptr,
    centred_ptr,
    weight_ptr,
    shift_ptr,
    gain_ptr,
    offset_ptr,
    out_ptr,
    rows,
    eps,
    heads_eps,
    K: tl.constexpr,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    NORMED: tl.constexpr,
    ROWS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    real = (row < rows)[:, None]
    k = tl.arange(0, K)
    d = tl.arange(0, D)
    f = tl.load(f_ptr + row[:, None] * K + k[None, :], mask=real, other=0.0)
    total = tl.zeros((ROWS,), dtype=tl.float32)
    for head in range(HEADS):
        w = tl.load(centred_ptr + (head * D + d)[None, :] * K + k[:, None])
        x = tl.dot(f, w, input_precision="ieee")
        total += tl.sum(x * x, axis=1)
    scale = tl.rsqrt(total / (HEADS * D) + eps)[:, None]
    if NORMED:
        gain = tl.load(gain_ptr + d).to(tl.float32)[None, :]
        offset = tl.load(offset_ptr + d).to(tl.float32)[None, :]
    for head in range(HEADS):
        channel = head * D + d
        w = tl.load(weight_ptr + channel[None, :] * K + k[:, None])
        shift = tl.load(shift_ptr + channel).to(tl.float32)[None, :]
        q = tl.dot(f, w, input_precision="ieee") * scale + shift
        if NORMED:
            q -= tl.sum(q, axis=1)[:, None] / D
            q = q * tl.rsqrt(tl.sum(q * q, axis=1)[:, None] / D + heads_eps) * gain + offset
        tl.store(out_ptr + row[:, None] * (HEADS * D) + channel[None, :], q.to(out_ptr.dtype.element_ty), mask=real)


def launch_query_heads(
    f: Tensor,
    centred: Tensor,
    weight: Tensor,
    shift: Tensor,
    gain: Tensor | None,
    offset: Tensor | None,
    out: Tensor,
    eps: float,
    heads_eps: float,
) -> None:
    """Write q (Q, H, d) for f (Q, K); all contiguous."""
    rows, heads, d = out.shape
    _query_heads[(triton.cdiv(rows, ROWS),)](
        f,
        centred,
        weight,
        shift,
        shift if gain is None else gain,
        shift if offset is None else offset,
        out,
        rows,
        eps,
        heads_eps,
        K=f.shape[1],
        HEADS=heads,
        D=d,
        NORMED=gain is not None,
        ROWS=ROWS,
        num_warps=4,
    )
