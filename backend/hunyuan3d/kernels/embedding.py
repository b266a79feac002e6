"""Points to sines and cosines of their coordinates, laid out for the product that follows.

This module does not know which product that is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from backend.hunyuan3d.kernels.launch import WithTwin, kernels_run_on


@dataclass(frozen=True)
class Embedding:
    """phi(p) = [p, sin(p_i f_j), cos(p_i f_j)], f_j = 2^j scale, j < num_freqs, coordinate-major."""

    num_freqs: int
    scale: float

    @property
    def channels(self) -> int:
        """Return how many values a point has, F."""
        return 3 * (2 * self.num_freqs + 1)

    def __call__(self, points: Tensor) -> Tensor:
        """Embed points (..., 3) as (..., F) float32: half precision jitters by a tenth of a cell at 384."""
        points = points.float()
        f = torch.exp2(torch.arange(self.num_freqs, dtype=torch.float32, device=points.device)) * self.scale
        phase = (points[..., None] * f).flatten(-2)
        return torch.cat([points, phase.sin(), phase.cos()], dim=-1)


def embedded_points(
    points: Tensor, embedding: Embedding, width: int, dtype: torch.dtype, *, kernels: bool = True
) -> Tensor:
    """Return (Q, width) of `dtype` for points (Q, 3) float32: their embedding, a one, and zeros."""
    return _EMBEDDED_POINTS(kernels and kernels_run_on(points), points, embedding, width, dtype)


def embedded_points_torch(points: Tensor, embedding: Embedding, width: int, dtype: torch.dtype) -> Tensor:
    """Compute `embedded_points` in torch."""
    f = torch.zeros((len(points), width), dtype=dtype, device=points.device)
    f[:, : embedding.channels] = embedding(points)
    f[:, embedding.channels] = 1
    return f


def embedded_points_triton(points: Tensor, embedding: Embedding, width: int, dtype: torch.dtype) -> Tensor:
    """Compute `embedded_points` in one kernel; sines and cosines in float32."""
    # Importing a kernel imports Triton, which not every machine has or uses.
    from backend.hunyuan3d.kernels.embedding_triton import launch_embedding

    out = torch.empty((len(points), width), dtype=dtype, device=points.device)
    launch_embedding(points.contiguous(), out, embedding.num_freqs, embedding.scale)
    return out


_EMBEDDED_POINTS = WithTwin("embedded_points", embedded_points_triton, embedded_points_torch)
