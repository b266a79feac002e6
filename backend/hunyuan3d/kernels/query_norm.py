"""Queries of points, from their embedding to normed heads in one kernel.

What is computed, for an embedding f (K,) whose last used entry is 1, so that weights hold biases too:

    x = centred f                           (C,)  the input of a layer norm, its mean already taken away
    y = weight f / sqrt(mean(x^2) + eps) + shift  (C,)  the norm, its affine part and the projection to queries
    q = the layer norm of every head of y         (H, d), or y itself

This module does not know where the weights come from.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from backend.hunyuan3d.kernels.launch import WithTwin, kernels_run_on

# A product in the kernel needs at least so many channels a head.
LEAST_HEAD = 16


@dataclass(frozen=True, eq=False)
class QueryWeights:
    """What `query_heads` multiplies with.

    centred, weight : (C, K). shift : (C,). eps : of the layer norm before the projection. gain, offset : (d,) of the
    heads' norm, None without one. heads_eps : of that norm.
    """

    centred: Tensor
    weight: Tensor
    shift: Tensor
    heads: int
    eps: float
    gain: Tensor | None
    offset: Tensor | None
    heads_eps: float

    @property
    def head_dim(self) -> int:
        """Return the channels of a head, d."""
        return self.weight.shape[0] // self.heads

    @property
    def fits_kernel(self) -> bool:
        """Say whether the kernel can work with these sizes: powers of two that are not too small."""
        d, k = self.head_dim, self.weight.shape[1]
        return d >= LEAST_HEAD and d & (d - 1) == 0 and k >= LEAST_HEAD and k & (k - 1) == 0


def query_heads(f: Tensor, weights: QueryWeights, *, kernels: bool = True) -> Tensor:
    """Return q (Q, H, d), heads side by side in memory, for f (Q, K) of the weights' type."""
    return _QUERY_HEADS(kernels and weights.fits_kernel and kernels_run_on(f), f, weights)


def query_heads_torch(f: Tensor, weights: QueryWeights) -> Tensor:
    """Compute `query_heads` in torch."""
    x = F.linear(f, weights.centred).float()
    scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + weights.eps)
    y = torch.addcmul(weights.shift.float(), F.linear(f, weights.weight).float(), scale)
    q = y.view(len(f), weights.heads, weights.head_dim)
    if weights.gain is not None and weights.offset is not None:
        q = F.layer_norm(q, q.shape[-1:], weights.gain.float(), weights.offset.float(), weights.heads_eps)
    return q.to(f.dtype)


def query_heads_triton(f: Tensor, weights: QueryWeights) -> Tensor:
    """Compute `query_heads` in one kernel: reads (Q, K), writes (Q, C), nothing in between."""
    # Importing a kernel imports Triton, which not every machine has or uses.
    from backend.hunyuan3d.kernels.query_norm_triton import launch_query_heads

    out = torch.empty((len(f), weights.heads, weights.head_dim), dtype=f.dtype, device=f.device)
    launch_query_heads(
        f,
        weights.centred,
        weights.weight,
        weights.shift,
        weights.gain,
        weights.offset,
        out,
        weights.eps,
        weights.heads_eps,
    )
    return out


_QUERY_HEADS = WithTwin("query_heads", query_heads_triton, query_heads_torch)
