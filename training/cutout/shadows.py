"""What an object does to its surroundings: contact, cast and drop shadows, and its mirror image on a glossy floor.

Everything is done to a batch at a time; alpha is (B, 1, S, S), places run from -1 (left, top) to 1. Knows nothing of
where the object's own pixels come from.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from training.cutout.camera import blur
from training.cutout.dice import Dice


@dataclass(frozen=True, eq=False)
class Stand:
    """Where objects stand: top and foot, and the middle and half the width of their feet, (B, 1, 1, 1) each."""

    top: Tensor
    foot: Tensor
    middle: Tensor
    half: Tensor

    @property
    def height(self) -> Tensor:
        """From the top to the foot, never nothing."""
        return (self.foot - self.top).clamp(min=0.02)


def places(side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the places of pixels' centres, x (1, 1, 1, side) and y (1, 1, side, 1)."""
    line = (torch.arange(side, device=device, dtype=torch.float32) + 0.5) * (2 / side) - 1
    return line.reshape(1, 1, 1, side), line.reshape(1, 1, side, 1)


def sample(values: Tensor, x: Tensor, y: Tensor, padding: str = "zeros") -> Tensor:
    """Return values (B, C, H, W) at places x and y, which broadcast to (B, 1, h, w)."""
    x, y = torch.broadcast_tensors(x, y)  # type: ignore[no-untyped-call]
    if not len(values):
        return values.new_zeros((0, values.shape[1], *x.shape[-2:]))
    grid = torch.stack([x[:, 0], y[:, 0]], -1).expand(len(values), -1, -1, -1)
    return F.grid_sample(values, grid, mode="bilinear", padding_mode=padding, align_corners=False)


def mapped(values: Tensor, matrix: Tensor, side: int, padding: str = "zeros") -> Tensor:
    """Return what is seen of values (B, C, H, W) on (B, C, side, side) that matrices (B, 2, 3) take there."""
    if not len(values):
        return values.new_zeros((0, values.shape[1], side, side))
    x, y = places(side, values.device)
    columns = matrix[:, :, :1] * x.reshape(1, 1, side)
    rows = matrix[:, :, 1:2] * y.reshape(1, 1, side) + matrix[:, :, 2:]
    grid = (columns[:, :, None] + rows[..., None]).permute(0, 2, 3, 1)
    return F.grid_sample(values, grid, mode="bilinear", padding_mode=padding, align_corners=False)


def stand_of(alpha: Tensor) -> Stand:
    """Find where objects stand; those that are not there stand at the picture's foot, with no width."""
    x, y = places(alpha.shape[-1], alpha.device)
    shown = alpha > 0.5
    rows = shown.any(-1, keepdim=True)
    foot = torch.where(rows, y, -1.0).amax(2, keepdim=True)
    top = torch.where(rows, y, 1.0).amin(2, keepdim=True)
    low = shown & (y > foot - (foot - top).clamp(min=0.02) / 8)
    columns = low.any(2, keepdim=True)
    left, right = (
        torch.where(columns, x, 1.0).amin(3, keepdim=True),
        torch.where(columns, x, -1.0).amax(3, keepdim=True),
    )
    there = rows.any(2, keepdim=True)
    middle, half = (left + right) / 2, (right - left) / 2
    return Stand(
        torch.where(there, top, 1.0), torch.where(there, foot, 1.0), middle, torch.where(there, half, 0.0).clamp(min=0)
    )


def shadowed(dice: Dice, image: Tensor, alpha: Tensor, stands: Stand, grounded: Tensor) -> Tensor:
    """Darken surroundings (B, 3, S, S); grounded : (B, 1, 1, 1) bool, whether there is a ground to see."""
    below = dice.chance(0.5) | (grounded & dice.chance(0.5))
    dark = below * _contact(dice, stands, alpha.shape[-1])
    kind = dice.uniform()
    thrown = dice.some(0.5)
    some = dice.for_some(len(thrown))
    cast = 1 - dark[thrown]
    cast = cast * (1 - _thrown(some, alpha[thrown], stands.foot[thrown], kind[thrown] < 0.62))
    dark = dark.index_copy(0, thrown, 1 - cast)
    # A shadow is not quite of the light's colour: what lights it comes from elsewhere.
    cool = torch.cat([dice.uniform(0.9, 1.0), dice.uniform(0.93, 1.0), dice.uniform(0.88, 1.0)], 1)
    return image * (1 - dark * cool)


def _contact(dice: Dice, stands: Stand, side: int) -> Tensor:
    """Return the darkness (B, 1, S, S) of a flat ellipse under each foot, from hard to soft."""
    x, y = places(side, dice.device)
    half = stands.half + 2 / side
    middle = stands.middle + dice.normal(0.2) * half
    foot = stands.foot - dice.uniform(-0.01, 0.04)
    wide, flat = half * dice.uniform(0.85, 1.7), half * dice.log_uniform(0.06, 0.45)
    flat = torch.maximum(flat, torch.full_like(flat, 2 / side))
    away = torch.sqrt(((x - middle) / wide) ** 2 + ((y - foot) / flat) ** 2)
    inside = ((1 - away) * flat * side / 2 + 0.5).clamp(0, 1)
    return blur(inside, dice.log_uniform(0.5, 12) * side / 320) * dice.uniform(0.15, 0.9)


def _thrown(dice: Dice, alpha: Tensor, foot: Tensor, on_ground: Tensor) -> Tensor:
    """Return the darkness of an outline: flattened and sheared about its foot, or moved a little behind the object."""
    side = alpha.shape[-1]
    x, y = places(side, dice.device)
    # What lies at (x, y) on the ground is thrown from a height (foot - y) / flat above the foot.
    flat = dice.log_uniform(0.12, 0.75) * torch.where(dice.chance(0.3), -1.0, 1.0)
    shear = dice.normal(0.9)
    up = (foot - y) / flat
    moved_x, moved_y = dice.normal(0.05), dice.uniform(-0.02, 0.1)
    from_x = torch.where(on_ground, x - shear * up, x - moved_x)
    from_y = torch.where(on_ground, foot - up, y - moved_y)
    fallen = sample(alpha, from_x, from_y)
    sigma = torch.where(on_ground, dice.log_uniform(0.2, 9), dice.log_uniform(0.4, 14)) * side / 320
    # The further from the foot, the softer: the whole is blurred more in some, and fades in some.
    fade = 1 - dice.uniform(0, 0.8) * dice.chance(0.4) * on_ground * (up.abs() / 1.5).clamp(0, 1)
    # Those as dark as a dark object are the ones that are taken for one.
    dark = torch.where(dice.chance(0.3), dice.uniform(0.6, 0.95), dice.uniform(0.15, 0.85))
    return blur(fallen, sigma) * fade * dark


def reflected(dice: Dice, image: Tensor, colour: Tensor, alpha: Tensor, stands: Stand) -> Tensor:
    """Mirror objects at their feet, fading downwards, as a glossy floor does."""
    side = image.shape[-1]
    x, y = places(side, image.device)
    foot = stands.foot + dice.uniform(0, 0.03) * dice.chance(0.3)
    mirrored = sample(torch.cat([colour * alpha, alpha], 1), x, 2 * foot - y)
    fade = (1 - (y - foot) / (dice.log_uniform(0.25, 5) * stands.height)).clamp(0, 1) * (y >= foot)
    seen = blur(mirrored * fade, dice.log_uniform(0.2, 4) * side / 320)
    seen = seen * (dice.uniform(0.1, 0.65) * (y >= foot - 2 / side))
    return image * (1 - seen[:, 3:]) + seen[:, :3]
