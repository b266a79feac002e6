"""Changes of colours that are the same for all pixels of a picture, gathered into one matrix for each.

Pictures are (B, 3, H, W), matrices (B, 3, 3). Knows nothing of what the pictures show.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.cutout.dice import Dice


def permutation(dice: Dice, share: float) -> Tensor:
    """Return matrices that permute the channels of a share of the pictures."""
    order = torch.stack([dice.uniform().flatten() for _ in range(3)], 1).argsort(1)
    plain = torch.arange(3, device=dice.device)
    order = torch.where(dice.chance(share).flatten()[:, None], order, plain)
    return (order[:, :, None] == plain).float()


def greyed(matrix: Tensor, kept: Tensor) -> Tensor:
    """Return matrices after which so much of the pictures' colour is kept, 0 none; kept : (B, 1, 1, 1)."""
    kept = kept.reshape(-1, 1, 1)
    return matrix * kept + matrix.mean(1, keepdim=True) * (1 - kept)


def mixed(image: Tensor, matrix: Tensor, contrast: Tensor | None = None, gain: Tensor | None = None) -> Tensor:
    """Return pictures whose colours a matrix changes, about their mean colour less or more, then lighter or darker.

    contrast, gain : (B, 1, 1, 1) or, for each channel, (B, 3, 1, 1).
    """
    flat = image.flatten(2)
    if contrast is None:
        return torch.bmm(matrix, flat).reshape(image.shape)
    contrast = contrast.flatten(1)[:, :, None]
    scale = contrast if gain is None else contrast * gain.flatten(1)[:, :, None]
    mean = torch.bmm(matrix, flat.mean(2, keepdim=True))
    offset = mean * (scale / contrast - scale)
    return torch.baddbmm(offset, matrix * scale, flat).reshape(image.shape)
