"""Changes of an image that do not change the shape in it.

Knows images as tensors only. Mirroring is not here, since it changes the shape as well.
"""

from __future__ import annotations

import torch
from torch import Tensor


def colour_jitter(image: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Permute channels, change gamma, contrast and saturation, add noise; the white background stays white.

    image : (B, 4, H, W) in [0, 1], colours composited on white, alpha last. Returns (B, 3, H, W) in [0, 1].
    """
    b, device = image.shape[0], image.device
    rgb, alpha = image[:, :3], image[:, 3:]

    def draw(low: float, high: float) -> Tensor:
        return torch.rand(b, 1, 1, 1, generator=generator, device=device) * (high - low) + low

    order = torch.rand(b, 3, generator=generator, device=device).argsort(dim=1)
    keep = torch.rand(b, 1, generator=generator, device=device) < 0.3
    order = torch.where(keep, torch.arange(3, device=device), order)
    rgb = rgb.gather(1, order[:, :, None, None].expand_as(rgb))
    grey = rgb.mean(dim=1, keepdim=True)
    rgb = grey + (rgb - grey) * draw(0.2, 1.3)
    rgb = rgb.clamp(0, 1) ** torch.exp(draw(-0.35, 0.35))
    rgb = rgb * draw(0.8, 1.1)
    rgb = rgb + torch.randn(rgb.shape, generator=generator, device=device) * 0.02 * draw(0.0, 1.0)
    return (rgb * alpha + (1 - alpha)).clamp(0, 1)
