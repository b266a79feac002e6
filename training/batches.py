"""What one training step is given of the store's shapes: images, points with their distances, and the images' context.

Knows the store and the image encoder; nothing of latents, losses or denoising.
"""

from __future__ import annotations

import torch
from torch import Tensor

from backend.hunyuan3d.networks.conditioner import IMAGENET_MEAN, IMAGENET_STD, SingleImageEncoder
from training.augment import colour_jitter
from training.store import Store


class Encoding:
    """The image encoder of images that have its own size, so that nothing is resized or read back from the device."""

    def __init__(self, conditioner: SingleImageEncoder, device: str) -> None:
        self._model = conditioner.main_image_encoder.model
        self._mean, self._std = (
            torch.tensor(values, device=device).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD)
        )

    def __call__(self, image: Tensor) -> Tensor:
        """Return the context (B, T, D) of images (B, 3, S, S) in [0, 1]."""
        out: Tensor = self._model((image - self._mean) / self._std)
        return out


def draw_mirrored(rows: Tensor) -> Tensor:
    """Say of each shape (B,) whether it is to be mirrored left to right."""
    return torch.rand(len(rows), device=rows.device) < 0.5


def images_of(store: Store, rows: Tensor, mirrored: Tensor) -> Tensor:
    """Return images (B, 3, S, S) in [0, 1] of shapes, one of each one's pictures, in changed colours."""
    stored = store["picture"]
    choice = torch.randint(stored.shape[1], (len(rows),), device=rows.device)
    drawn = stored[rows, choice].permute(0, 3, 1, 2).float() / 255
    return colour_jitter(torch.where(mirrored[:, None, None, None], drawn.flip(3), drawn))


def held_out_images(store: Store) -> Tensor:
    """Return the first image (n, 3, S, S) in [0, 1] of each shape that is there, as it is."""
    return store["picture"][: store.filled, 0, ..., :3].permute(0, 3, 1, 2).float() / 255


def points_of(store: Store, rows: Tensor, mirrored: Tensor, *, near: int, uniform: int) -> Tensor:
    """Return points with their distances (B, near + uniform, 4), as many near the surface and in the whole box."""
    points = torch.cat([pick(store["near"], rows, near), pick(store["uniform"], rows, uniform)], dim=1)
    sign = 1 - 2 * mirrored.float()[:, None, None]
    return torch.cat([points[..., :1] * sign, points[..., 1:]], dim=-1)


def pick(samples: Tensor, rows: Tensor, count: int) -> Tensor:
    """Return a random `count` of the samples (n, Q, k) of the shapes `rows`, (B, count, k) float32."""
    chosen = torch.randint(samples.shape[1], (count,), device=samples.device)
    return samples[rows[:, None], chosen[None]].float()
