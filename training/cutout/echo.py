"""Composites that are drawn once and learnt from several times, each time cropped, turned and coloured anew.

A composite costs far more to put together than a step of the network costs on it. They wait in pools on the device,
one for each side, and what is drawn from a pool is a function of its seed and of what the pool holds. Knows nothing of
how composites are drawn, or of networks.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from training.cutout.colour import greyed, mixed, permutation
from training.cutout.composites import Composites
from training.cutout.dice import Dice
from training.cutout.shadows import mapped, places

_NEAR = 0.8


class Pool:
    """Composites of one side, 8 bits a value; where there are more than room for, the oldest give way."""

    def __init__(self, room: int, side: int, device: torch.device) -> None:
        self._values = torch.empty((room, 4, side, side), dtype=torch.uint8, device=device)
        self._centres = torch.empty((room, 2), device=device)
        self._device = device
        self.count, self._next = 0, 0

    def add(self, drawn: Composites) -> None:
        """Put composites where there is room, else in the oldest ones' places."""
        room = len(self._values)
        image, mask = drawn.image[:room], drawn.mask[:room]
        at = (self._next + torch.arange(len(mask), device=self._device)) % room
        self._values[at] = torch.round(torch.cat([image, mask], 1) * 255).to(torch.uint8)
        self._centres[at] = centres_of(mask)
        self._next = (self._next + len(mask)) % room
        self.count = min(self.count + len(mask), room)

    def draw(self, seed: int, batch: int) -> Composites:
        """Return composites chosen at random, changed."""
        dice = Dice(seed, batch, self._device)
        which = dice.numbers(self.count)
        with torch.no_grad():
            values = moved(dice, self._values[which].float() / 255, self._centres[which])
            return Composites(recoloured(dice, values[:, :3]), values[:, 3:])


class Echo:
    """Pools, and how many new composites each is owed for what was drawn from it."""

    def __init__(self, draw: Callable[[int, int, int], Composites], times: float, drawn: int, room: int) -> None:
        """draw : returns the composites of a seed, so many of a side.

        times : how often each is learnt from, about. drawn : how many of 256 pixels are drawn at a time, of smaller
        ones more. room : how many of 256 pixels a pool has room for; the same number of bytes for each side.
        """
        self._draw, self._times, self._drawn, self._room = draw, times, drawn, room
        self._pools: dict[int, Pool] = {}
        self._owed: dict[int, float] = {}

    def next(self, seed: int, batch: int, side: int, device: torch.device) -> Composites:
        """Return a step's composites; new ones are drawn first where the pool is owed them, or has none."""
        scale = (256 / side) ** 2
        if side not in self._pools:
            self._pools[side] = Pool(max(2, round(self._room * scale)), side, device)
        pool = self._pools[side]
        owed = self._owed.get(side, 0.0) + batch / self._times
        new = max(2, round(self._drawn * scale))
        while owed >= new or not pool.count:
            pool.add(self._draw(seed, new, side))
            owed -= new
            # Seeds of steps are far below.
            seed += 1 << 40
        self._owed[side] = owed
        return pool.draw(seed + (1 << 50), batch)


def centres_of(mask: Tensor) -> Tensor:
    """Return the middles (B, 2) of masks (B, 1, S, S), -1 left and top; 0 where there is none."""
    x, y = places(mask.shape[-1], mask.device)
    weight = mask.sum((1, 2, 3)).clamp(min=1)
    return torch.stack([(mask * x).sum((1, 2, 3)) / weight, (mask * y).sum((1, 2, 3)) / weight], 1)


def moved(dice: Dice, values: Tensor, centres: Tensor) -> Tensor:
    """Mirror half of the pictures (B, C, S, S), crop and turn some; the part that is left has the centre in it."""
    zoom = torch.where(dice.chance(0.7), dice.uniform(0.55, 1.0), 1.0).flatten()
    stretch = (dice.normal(0.08) * dice.chance(0.3)).exp().flatten()
    turn = (dice.normal(0.1) * dice.chance(0.4)).flatten()
    flip = dice.sign().flatten()
    wide, high = zoom / stretch.clamp(min=1), zoom * stretch.clamp(max=1)
    along, across = torch.cos(turn), torch.sin(turn)
    # Nothing from beyond the picture: what is mirrored there would be called the object's, and no mirror image is.
    reach = along + across.abs()
    beyond = (torch.maximum(wide, high) * reach).clamp(min=1)
    wide, high = wide / beyond, high / beyond
    at = []
    for number, share in enumerate((wide * reach, high * reach)):
        free, centre = 1 - share, centres[:, number]
        place = dice.uniform(-1, 1).flatten() * free
        place = torch.minimum(torch.maximum(place, centre - _NEAR * share), centre + _NEAR * share)
        at.append(torch.minimum(torch.maximum(place, -free), free))
    rows = [wide * flip * along, wide * flip * across, at[0], -high * across, high * along, at[1]]
    theta = torch.stack(rows, 1).reshape(-1, 2, 3)
    return mapped(values, theta, values.shape[-1], "reflection").clamp_(0, 1)


def recoloured(dice: Dice, image: Tensor) -> Tensor:
    """Give pictures (B, 3, S, S) other channels, gamma, contrast, brightness, tint, saturation, and a little noise."""
    bend = (dice.normal(0.3) * dice.chance(0.4)).exp()
    kept = torch.where(dice.chance(0.25), dice.uniform(0, 1.3), 1.0)
    contrast = torch.where(dice.chance(0.4), dice.uniform(0.5, 1.25), 1.0)
    light = torch.where(dice.chance(0.5), dice.uniform(0.65, 1.25), 1.0)
    gain = torch.cat([dice.normal(0.06) for _ in range(3)], 1).exp() * light
    image = mixed(image.clamp(min=1e-4) ** bend, greyed(permutation(dice, 0.25), kept), contrast, gain)
    grain = dice.uniform(0, 5) * dice.chance(0.4) / 255
    return (image + dice.noise(1, *image.shape[-2:]) * grain).clamp_(0, 1)
