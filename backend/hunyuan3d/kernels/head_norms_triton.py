# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc, import-untyped, import-not-found"
"""The Triton kernel of `head_norms`."""

import triton
import triton.language as tl


@triton.jit
def norm_queries_keys(
    q, k, q_weight, k_weight, out_q, out_k, count, heads, row_stride, head_stride, eps,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    """Norm BLOCK_R of `count` = M * H heads: read d channels of q and of k where they lie, write them densely."""
    r = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    channel = tl.arange(0, BLOCK_D)
    mask = (r < count)[:, None] & (channel < D)[None, :]
    read = ((r // heads) * row_stride + (r % heads) * head_stride)[:, None] + channel[None, :]
    write = (r * D)[:, None] + channel[None, :]
    x = tl.load(q + read, mask=mask, other=0.0).to(tl.float32)
    w = tl.load(q_weight + channel, mask=channel < D, other=0.0).to(tl.float32)
    y = x * tl.rsqrt(tl.sum(x * x, axis=1) / D + eps)[:, None] * w[None, :]
    tl.store(out_q + write, y.to(out_q.dtype.element_ty), mask=mask)
    x = tl.load(k + read, mask=mask, other=0.0).to(tl.float32)
    w = tl.load(k_weight + channel, mask=channel < D, other=0.0).to(tl.float32)
    y = x * tl.rsqrt(tl.sum(x * x, axis=1) / D + eps)[:, None] * w[None, :]
    tl.store(out_k + write, y.to(out_k.dtype.element_ty), mask=mask)
