"""A layer norm and the product with one vector, in one pass: what ends the geometry decoder.

Nothing of the normed values is written: a row gives one number. This module does not know what that number means.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from backend.hunyuan3d.kernels.launch import WithTwin, kernels_run_on


@dataclass(frozen=True, eq=False)
class NormDotWeights:
    """What `norm_dot` uses.

    before : (C,), added to every row first. gain, offset : (C,) of the norm, None without one. vector : (C,).
    bias : (1,), added to the product.
    """

    before: Tensor
    gain: Tensor | None
    offset: Tensor | None
    eps: float
    vector: Tensor
    bias: Tensor


def norm_dot(x: Tensor, weights: NormDotWeights, *, kernels: bool = True) -> Tensor:
    """Return norm(x + before) . vector + bias, (Q,) float32, for x (Q, C)."""
    return _NORM_DOT(kernels and kernels_run_on(x), x, weights)


def norm_dot_torch(x: Tensor, weights: NormDotWeights) -> Tensor:
    """Compute `norm_dot` in torch."""
    y = x.float() + weights.before.float()
    if weights.gain is not None and weights.offset is not None:
        y = F.layer_norm(y, y.shape[-1:], weights.gain.float(), weights.offset.float(), weights.eps)
    return torch.mv(y, weights.vector.float()) + weights.bias.float()


def norm_dot_triton(x: Tensor, weights: NormDotWeights) -> Tensor:
    """Compute `norm_dot` in one kernel, which reads x once."""
    # Importing a kernel imports Triton, which not every machine has or uses.
    from backend.hunyuan3d.kernels.norm_dot_triton import launch_norm_dot

    out = torch.empty(len(x), dtype=torch.float32, device=x.device)
    launch_norm_dot(x, weights.before, weights.gain, weights.offset, weights.vector, weights.bias, out, weights.eps)
    return out


_NORM_DOT = WithTwin("norm_dot", norm_dot_triton, norm_dot_torch)
