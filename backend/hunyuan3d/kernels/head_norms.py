"""RMS norms of each head's queries and keys, straight from the rows of their joint projection.

On CUDA one Triton kernel reads a row once and writes normed queries and keys densely, in compiled code too; elsewhere,
and while gradients are wanted, plain torch does the same. Knows tensors only. Shapes: M rows (tokens of all images),
H heads, d channels a head.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from backend.hunyuan3d.kernels.launch import WithTwin, kernels_run_on

EPS = 1e-6
# Heads that one program takes at once.
_HEADS_AT_ONCE = 16


def normed_queries_keys(q: Tensor, k: Tensor, q_weight: Tensor, k_weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return q and k, each head's channels divided by their root mean square and scaled by the weight.

    q, k : (M, H, d) or (B, T, H, d), views with the same strides; q_weight, k_weight : (d,). Returns two contiguous
    tensors of the same shape. Sums are in float32 whatever the precision of the input.
    """
    if _is_for_kernel(q, k):
        normed_q, normed_k = norm_on_device(q, k, q_weight, k_weight)
        return normed_q, normed_k
    return head_norm(q, q_weight), head_norm(k, k_weight)


def head_norm(x: Tensor, weight: Tensor) -> Tensor:
    """x / sqrt(mean(x^2) + 1e-6) * weight over the last dimension.

    The weight takes x's precision, which differs from its own in training under autocast: torch's fused norm wants one.
    """
    return F.rms_norm(x, weight.shape, weight.to(x.dtype), eps=EPS)


# An operator of its own, so that compiled code calls it as it is.
@torch.library.custom_op("orfeas::norm_queries_keys", mutates_args=())
def norm_on_device(q: Tensor, k: Tensor, q_weight: Tensor, k_weight: Tensor) -> tuple[Tensor, Tensor]:
    """Run the kernel, or its twin where it cannot run."""
    runs = kernels_run_on(q) and q.stride() == k.stride() and q.stride(-1) == 1
    return _NORMS(runs, q, k, q_weight, k_weight)


@norm_on_device.register_fake
def _(q: Tensor, k: Tensor, q_weight: Tensor, k_weight: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    return q.new_empty(q.shape), k.new_empty(k.shape)


def _is_for_kernel(q: Tensor, k: Tensor) -> bool:
    return q.device.type == "cuda" and not (q.requires_grad or k.requires_grad) and q.dim() == 3


def launch_norm_kernel(q: Tensor, k: Tensor, q_weight: Tensor, k_weight: Tensor) -> tuple[Tensor, Tensor]:
    """Run the kernel; shapes as `normed_queries_keys`, three dimensions, whole channels. Needs Triton."""
    # Importing a kernel imports Triton, which not every machine has or uses.
    from backend.hunyuan3d.kernels.head_norms_triton import norm_queries_keys

    m, heads, d = q.shape
    out_q, out_k = (torch.empty((m, heads, d), dtype=q.dtype, device=q.device) for _ in range(2))
    grid = ((m * heads + _HEADS_AT_ONCE - 1) // _HEADS_AT_ONCE,)
    norm_queries_keys[grid](
        q, k, q_weight, k_weight, out_q, out_k, m * heads, heads, q.stride(0), q.stride(1), EPS,
        D=d, BLOCK_D=1 << (d - 1).bit_length(), BLOCK_R=_HEADS_AT_ONCE,
    )  # fmt: skip
    return out_q, out_k


def _norms_plainly(q: Tensor, k: Tensor, q_weight: Tensor, k_weight: Tensor) -> tuple[Tensor, Tensor]:
    return head_norm(q, q_weight).contiguous(), head_norm(k, k_weight).contiguous()


_NORMS = WithTwin("norm_queries_keys", launch_norm_kernel, _norms_plainly)
