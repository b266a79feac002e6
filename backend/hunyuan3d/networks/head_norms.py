"""RMS norms of each head's queries and keys, straight from the rows of their joint projection.

Knows tensors only. On CUDA one Triton kernel reads a row once and writes normed queries and keys side by side;
elsewhere, while gradients are wanted, and inside compiled code (which fuses by itself) plain torch does the same.
Shapes: M rows (tokens of all images), H heads, d channels a head.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

EPS = 1e-6
_ROWS_PER_PROGRAM = 16


def normed_queries_keys(q: Tensor, k: Tensor, q_weight: Tensor, k_weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return q and k, each head's channels divided by their root mean square and scaled by the weight.

    q, k : (M, H, d) or (B, T, H, d), views with the same strides; q_weight, k_weight : (d,). Returns two contiguous
    tensors of the same shape. Sums are in float32 whatever the precision of the input.
    """
    if _kernel_serves(q, k):
        return launch_norm_kernel(q, k, q_weight, k_weight)
    return head_norm(q, q_weight), head_norm(k, k_weight)


def head_norm(x: Tensor, weight: Tensor) -> Tensor:
    """x / sqrt(mean(x^2) + 1e-6) * weight over the last dimension."""
    return F.rms_norm(x, weight.shape, weight, eps=EPS)


def _kernel_serves(q: Tensor, k: Tensor) -> bool:
    if torch.compiler.is_compiling() or q.device.type != "cuda" or q.requires_grad or q.dim() != 3:
        return False
    return q.stride() == k.stride() and q.stride(-1) == 1 and _has_triton()


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


def launch_norm_kernel(q: Tensor, k: Tensor, q_weight: Tensor, k_weight: Tensor) -> tuple[Tensor, Tensor]:
    """Run the kernel; shapes as `normed_queries_keys`, three dimensions, whole channels. Needs Triton."""
    import triton

    m, heads, d = q.shape
    out_q, out_k = (torch.empty((m, heads, d), dtype=q.dtype, device=q.device) for _ in range(2))
    grid = (triton.cdiv(m * heads, _ROWS_PER_PROGRAM),)
    norm_kernel()[grid](
        q, k, q_weight, k_weight, out_q, out_k, m * heads, heads, q.stride(0), q.stride(1), EPS,
        D=d, BLOCK_D=triton.next_power_of_2(d), BLOCK_R=_ROWS_PER_PROGRAM,
    )  # fmt: skip
    return out_q, out_k


def norm_kernel() -> Any:
    """Return the Triton kernel; importing it imports Triton, which not every machine has."""
    from backend.hunyuan3d.networks.head_norms_kernel import norm_queries_keys

    return norm_queries_keys
