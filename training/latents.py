"""The latents of the store's shapes, by the trained ShapeVAE: each shape as it is and mirrored in x.

Knows the VAE and the store's surfaces.
"""

from __future__ import annotations

import torch
from torch import Tensor

from backend.hunyuan3d.networks.shape_vae import ShapeVAE
from training.precision import halved
from training.store import Store
from training.train_vae import encode_surface


class Latents:
    """Scaled latents (2, n, N, E) float16 of the shapes that are there, [1] mirrored; grows with the store.

    scale_factor : what the VAE's own latents are multiplied by; 0 means such that those of the first shapes have a
    standard deviation of one.
    """

    def __init__(self, store: Store, vae: ShapeVAE, scale_factor: float = 0.0, batch: int = 256) -> None:
        self.store, self.vae, self.batch = store, vae, batch
        shape = (2, store.capacity, *vae.latent_shape)
        self.values = torch.zeros(shape, dtype=torch.float16, device=store.device)
        self.filled = 0
        self.count = torch.zeros((), device=store.device, dtype=torch.float64)
        self.scale_factor = scale_factor or self._measure()

    def _measure(self) -> float:
        return 1.0 / float(self.encode(0, min(self.store.filled, 4096), 1.0).std())

    def grow(self) -> None:
        """Encode the shapes that have come since."""
        first, last = self.filled, self.store.filled
        if first == last:
            return
        for start in range(first, last, self.batch):
            stop = min(start + self.batch, last)
            for mirrored, sign in enumerate((1.0, -1.0)):
                latents = self.encode(start, stop, sign) * self.scale_factor
                self.values[mirrored, start:stop] = latents.half()
        self.filled = last
        self.count.fill_(last)

    def encode(self, start: int, stop: int, sign: float) -> Tensor:
        """Return the mean latents (n, N, E) of a range of shapes, mirrored in x when sign is -1."""
        out = []
        with torch.no_grad(), halved(self.store.device):
            for first in range(start, stop, self.batch):
                surface = self.store["surface"][first : min(first + self.batch, stop)].float()
                surface = surface * torch.tensor([sign, 1, 1, sign, 1, 1], device=surface.device)
                out.append(encode_surface(self.vae, surface)[0].float())
        return torch.cat(out)

    def draw(self, batch: int) -> Tensor:
        """Return the rows (B,) of shapes drawn at random among those that have latents."""
        return (torch.rand(batch, device=self.values.device, dtype=torch.float64) * self.count).long()
