"""Latents from noise, as the pipeline samples them, for figures by the way.

Knows the denoiser and Euler's steps; nothing of images or fields.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from backend.hunyuan3d.networks.denoiser_v2_1 import HunYuanDiTPlain


def seeded(count: int, shape: tuple[int, int], device: str) -> Tensor:
    """Return the same noise (count, *shape) every time."""
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0)).to(device)


def sample(denoiser: HunYuanDiTPlain, noise: Tensor, cond: Tensor, guidance: float, steps: int) -> Tensor:
    """Take Euler steps from noise to latents (B, N, E). cond : (B, T, D). With a guidance of 1 there is none."""
    x, guided = noise, guidance != 1
    context = denoiser.prepare(cond, classifier_free=guided)
    for t, after in pairwise(torch.linspace(0, 1, steps).tolist()):
        velocity = denoiser.velocity(x, torch.full((len(x),), t, device=x.device), context).float()
        if guided:
            given, free = velocity.chunk(2)
            velocity = free + guidance * (given - free)
        x = x + (after - t) * velocity
    return x
