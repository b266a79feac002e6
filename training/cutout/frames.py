"""What surrounds photographs on pages: frame lines, a polaroid's or letterbox's margins, cards, captions and badges.

Images are (B, 3, S, S) in 0..1, masks (B, 1, S, S). None of this is ever part of the mask. Knows nothing of objects.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.cutout.bank import Bank
from training.cutout.dice import Dice
from training.cutout.shadows import places, sample


def any_colour(dice: Dice) -> Tensor:
    """Return colours (B, 3, 1, 1): vivid, pale, dark or grey."""
    value = torch.cat([dice.uniform() for _ in range(3)], 1)
    kind = dice.uniform()
    grey = (dice.uniform() + (value - 0.5) * 0.08).clamp(0, 1)
    pale = 0.84 + 0.16 * value
    return torch.where(kind < 0.25, grey, torch.where(kind < 0.4, pale, value))


def framed(dice: Dice, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Lay a line inside each picture, or lay it into margins."""
    with_margins, inner = _laid_in(dice, image, mask)
    lined = dice.chance(0.35)
    colour = _frame_colour(dice)
    outside, line = _lines(dice, image.shape[-1])
    with_line = image * (1 - line) + colour * line
    return torch.where(lined, with_line, with_margins), torch.where(lined, mask * (1 - outside), inner)


def _frame_colour(dice: Dice) -> Tensor:
    kind = dice.uniform()
    plain = torch.where(kind < 0.3, 0.0, torch.where(kind < 0.4, 0.08, torch.where(kind < 0.75, 1.0, 0.96)))
    return torch.where(dice.chance(0.35), any_colour(dice), plain.expand(-1, 3, -1, -1))


def _rounded(x: Tensor, y: Tensor, box: tuple[Tensor, Tensor, Tensor, Tensor], radius: Tensor) -> Tensor:
    """Return how far places are outside a box (left, top, right, bottom) with round corners, negative inside."""
    left, top, right, bottom = box
    dx = (x - (left + right) / 2).abs() - (right - left) / 2 + radius
    dy = (y - (top + bottom) / 2).abs() - (bottom - top) / 2 + radius
    outside = torch.sqrt(dx.clamp(min=0) ** 2 + dy.clamp(min=0) ** 2)
    return outside + torch.maximum(dx, dy).clamp(max=0) - radius


def _lines(dice: Dice, side: int) -> tuple[Tensor, Tensor]:
    """Return what lies outside a frame line or on it, and the line itself."""
    x, y = places(side, dice.device)
    at = 1 - dice.uniform(0, 0.1) * dice.chance(0.6)
    away = _rounded(x, y, (-at, -at, at, at), dice.uniform(0, 0.2) * dice.chance(0.3))
    width = dice.log_uniform(1.5, 0.05 * side) * 2 / side
    edge = side / 2
    outside = ((away + width) * edge + 0.5).clamp(0, 1)
    return outside, outside * (0.5 - away * edge).clamp(0, 1)


def _laid_in(dice: Dice, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    side = image.shape[-1]
    x, y = places(side, dice.device)
    kind = dice.uniform()
    each, wide, low = dice.uniform(0.03, 0.3), dice.uniform(0.1, 0.56), dice.uniform(0.3, 0.6)
    beside = torch.where(kind < 0.3, wide, torch.where(kind < 0.55, 0.0, each))
    above = torch.where(kind < 0.3, 0.0, torch.where(kind < 0.55, wide, each))
    below = torch.where((kind >= 0.55) & (kind < 0.78), low, above)
    box = (beside - 1, above - 1, 1 - beside, 1 - below)
    radius = dice.uniform(0, 0.15) * dice.chance(0.3)
    inside = (0.5 - _rounded(x, y, box, radius) * side / 2).clamp(0, 1)
    from_x = (x - (box[0] + box[2]) / 2) / ((box[2] - box[0]) / 2)
    from_y = (y - (box[1] + box[3]) / 2) / ((box[3] - box[1]) / 2)
    # A card shows a part of the photograph in its own proportions as often as all of it squeezed.
    tall = (box[3] - box[1]) / (box[2] - box[0])
    whole = dice.chance(0.4)
    from_x = torch.where(whole, from_x, from_x / tall.clamp(min=1))
    from_y = torch.where(whole, from_y, from_y * tall.clamp(max=1))
    laid = sample(torch.cat([image, mask], 1), from_x, from_y, "border")
    colour = _frame_colour(dice)
    return colour * (1 - inside) + laid[:, :3] * inside, laid[:, 3:] * inside


def captioned(dice: Dice, bank: Bank, image: Tensor, mask: Tensor) -> Tensor:
    """Write a caption or put a badge where the object is not."""
    x, y = places(image.shape[-1], dice.device)
    drawn = bank.writing(dice.numbers(bank.count("writing")))
    half = dice.uniform(0.08, 0.5)
    at_x, at_y = dice.uniform(-0.9, 0.9), dice.uniform(-0.95, 0.95)
    ink = sample(drawn, (x - at_x) / half, (y - at_y) / (half / 2)) * (mask < 0.02)
    return image * (1 - ink) + any_colour(dice) * ink
