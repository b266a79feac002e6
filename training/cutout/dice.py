"""Random numbers for a batch: every call draws a value for each picture, on the device where the pictures are.

All numbers of a batch are drawn in two calls and handed out one after the other, because a device is slow at many
small drawings. Knows nothing of what is drawn with them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_POOL = 256


class Dice:
    """A function of its seed. Values have the shape (B, 1, 1, 1), to go with pictures (B, C, H, W)."""

    def __init__(self, seed: int, batch: int, device: torch.device) -> None:
        """batch : B, for how many pictures each value is drawn."""
        self.batch, self.device = batch, device
        self.generator = torch.Generator(device).manual_seed(seed)
        # What every picture of a batch shares, such as how many of them get a caption, is drawn without the device.
        self._shared = torch.Generator().manual_seed(seed)
        self._uniform = torch.rand((_POOL, batch, 1, 1, 1), generator=self.generator, device=device)
        self._normal = torch.randn((_POOL, batch, 1, 1, 1), generator=self.generator, device=device)
        self._uniforms, self._normals = 0, 0

    def uniform(self, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Return values between two bounds."""
        self._uniforms += 1
        value = self._uniform[(self._uniforms - 1) % _POOL]
        return value if (low, high) == (0, 1) else value * (high - low) + low

    def log_uniform(self, low: float, high: float) -> Tensor:
        """Return values between two positive bounds whose logarithms are uniform."""
        return self.uniform(math.log(low), math.log(high)).exp()

    def normal(self, deviation: float = 1.0) -> Tensor:
        """Return normal values around 0."""
        self._normals += 1
        value = self._normal[(self._normals - 1) % _POOL]
        return value if deviation == 1 else value * deviation

    def chance(self, share: float) -> Tensor:
        """Return, as a boolean, whether something happens that does so in a share of the pictures."""
        return self.uniform() < share

    def sign(self) -> Tensor:
        """Return 1 or -1."""
        return torch.where(self.chance(0.5), 1.0, -1.0)

    def numbers(self, count: Tensor | int) -> Tensor:
        """Return an index below count, (B,)."""
        return (self.uniform().flatten() * count).long()

    def noise(self, *shape: int) -> Tensor:
        """Return normal values of the shape (B, *shape)."""
        return torch.randn((self.batch, *shape), generator=self.generator, device=self.device)

    def some(self, share: float) -> Tensor:
        """Return indices (k,) of about a share of the batch's pictures, chosen at random."""
        expected = share * self.batch
        count = int(expected) + int(self.shared() < expected - int(expected))
        return torch.randperm(self.batch, generator=self.generator, device=self.device)[:count]

    def shared(self) -> float:
        """Return one value in 0..1 for the whole batch."""
        return float(torch.rand((), generator=self._shared))

    def for_some(self, number: int) -> Dice:
        """Return dice for so many of the pictures."""
        seed = int(torch.randint(2**62, (), generator=self._shared))
        return Dice(seed, number, self.device)
