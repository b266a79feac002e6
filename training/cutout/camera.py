"""What a camera and a file do to a picture: exposure, tint, softness, grain, and the blocks of a JPEG.

Pictures are (B, 3, H, W) float in 0..1. Knows nothing of objects.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from training.cutout.dice import Dice

_PADDING = 32


def blur(values: Tensor, sigma: Tensor) -> Tensor:
    """Blur (B, C, H, W) by Gaussians of B deviations (B, 1, 1, 1), in pixels: a product of the Fourier transforms."""
    if not len(values):
        return values
    h, w = values.shape[-2:]
    padding = min(_PADDING, h - 1, w - 1)
    padded = F.pad(values, (padding,) * 4, mode="replicate")
    down = torch.fft.fftfreq(padded.shape[-2], device=values.device)[:, None]
    across = torch.fft.rfftfreq(padded.shape[-1], device=values.device)[None]
    kept = torch.exp(-2 * math.pi**2 * sigma**2 * (down**2 + across**2))
    blurred: Tensor = torch.fft.irfft2(torch.fft.rfft2(padded) * kept, s=padded.shape[-2:])
    return blurred[..., padding : padding + h, padding : padding + w]


def photographed(dice: Dice, image: Tensor) -> Tensor:
    """Take the picture, as 8 bits hold it."""
    side = image.shape[-1]
    tint = torch.cat([dice.uniform(0.93, 1.07) for _ in range(3)], 1)
    image = image * (dice.uniform(0.75, 1.15) * tint)
    bent = dice.some(0.25)
    some = dice.for_some(len(bent))
    image[bent] = image[bent].clamp(1e-4, 1) ** some.log_uniform(0.6, 1.6)
    soft = dice.some(0.35)
    some = dice.for_some(len(soft))
    image[soft] = blur(image[soft], some.log_uniform(0.35, 1.8) * side / 320)
    grainy = dice.some(0.5)
    some = dice.for_some(len(grainy))
    colours = 1 if dice.shared() < 0.5 else 3
    image[grainy] = image[grainy] + some.noise(colours, side, side) * some.uniform(1, 9) / 255
    coded = dice.some(0.35)
    image = _eight_bits(image)
    image[coded] = _eight_bits(jpeg(dice.for_some(len(coded)), image[coded]))
    return image


def jpeg(dice: Dice, image: Tensor) -> Tensor:
    """Lose what a JPEG of middling to poor quality loses: cosines of blocks of 8 x 8 pixels are rounded."""
    red, green, blue = image.unbind(1)
    light = 0.299 * red + 0.587 * green + 0.114 * blue
    planes = torch.stack([light, (blue - light) / 1.772, (red - light) / 1.402], 1)
    chroma = F.interpolate(F.avg_pool2d(planes[:, 1:], 2), scale_factor=2.0, mode="nearest")
    planes = torch.cat([planes[:, :1], chroma], 1)
    b, _, h, w = planes.shape
    cosines = _cosines().to(image)
    blocks = planes.reshape(b, 3, h // 8, 8, w // 8, 8)
    waves = torch.einsum("ui,bcyixj,vj->bcyuxv", cosines, blocks, cosines)
    number = torch.arange(8, device=image.device, dtype=image.dtype)
    steps = (1 + 0.55 * (number[:, None] + number[None]))[:, None, :] * dice.log_uniform(2, 16)[..., None, None] / 255
    waves = torch.round(waves / steps) * steps
    found = torch.einsum("ui,bcyuxv,vj->bcyixj", cosines, waves, cosines).reshape(b, 3, h, w)
    light, to_blue, to_red = found.unbind(1)
    red, blue = light + 1.402 * to_red, light + 1.772 * to_blue
    return torch.stack([red, (light - 0.299 * red - 0.114 * blue) / 0.587, blue], 1)


@cache
def _cosines() -> Tensor:
    """Return the orthonormal cosine transform of 8 values, (8, 8)."""
    place = torch.arange(8, dtype=torch.float32)
    waves = torch.cos(math.pi * (2 * place[None] + 1) * place[:, None] / 16) / 2
    waves[0] /= math.sqrt(2)
    return waves


def _eight_bits(image: Tensor) -> Tensor:
    return image.clamp(0, 1).mul_(255).round_().div_(255)
