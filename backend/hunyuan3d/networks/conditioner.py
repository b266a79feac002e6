"""Pictures to context tokens: DINOv2, one picture or several views of one object.

Formulas: docs/model.md, section 3. Knows nothing of files, backgrounds or denoising; dinov2.py is the network itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backend.hunyuan3d.networks.dinov2 import DinoConfig, DinoV2
from backend.hunyuan3d.networks.layers import sinusoid

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ConditionerConfig:
    """A DINOv2 network and how pictures are brought to it; view_num is None for one picture."""

    dino: DinoConfig
    image_size: int
    use_cls_token: bool = True
    view_num: int | None = None

    def __post_init__(self) -> None:
        if self.image_size < self.dino.patch_size:
            raise ValueError("the conditioner's image_size must hold at least one patch")
        if self.view_num is not None and self.view_num < 1:
            raise ValueError("view_num must be at least 1")


class DinoImageEncoder(nn.Module):
    """x in [-1, 1] to DINOv2's last hidden state."""

    def __init__(self, config: ConditionerConfig) -> None:
        super().__init__()
        self.config = config
        self.model = DinoV2(config.dino)

    def forward(self, image: Tensor) -> Tensor:
        """image : (B, 3, S, S) in [-1, 1] -> (B, T, D)."""
        x = self.normalise(image.float()).to(self.model.layernorm.weight.dtype)
        hidden: Tensor = self.model(x)
        return hidden if self.config.use_cls_token else hidden[:, 1:]

    def normalise(self, image: Tensor) -> Tensor:
        """Resize the shorter side to image_size, crop the centre, subtract and divide by ImageNet's statistics."""
        size = self.config.image_size
        x = (image + 1) / 2
        height, width = x.shape[-2:]
        if min(height, width) != size:
            short = min(height, width)
            target = (round(height * size / short), round(width * size / short))
            x = F.interpolate(x, target, mode="bilinear", align_corners=False, antialias=True)
        top, left = (x.shape[-2] - size) // 2, (x.shape[-1] - size) // 2
        x = x[..., top : top + size, left : left + size]
        mean = torch.tensor(IMAGENET_MEAN, device=x.device).view(3, 1, 1)
        std = torch.tensor(IMAGENET_STD, device=x.device).view(3, 1, 1)
        return (x - mean) / std


class SingleImageEncoder(nn.Module):
    """The checkpoint's `conditioner` section: one picture an object, or several views of it."""

    def __init__(self, config: ConditionerConfig) -> None:
        super().__init__()
        self.config = config
        self.main_image_encoder = DinoImageEncoder(config)

    @property
    def takes_views(self) -> bool:
        """Whether an object is several views rather than one picture."""
        return self.config.view_num is not None

    def forward(self, image: Tensor, view_indices: Sequence[Sequence[int]] | None = None) -> Tensor:
        """Encode pictures, or views with their indices.

        image : (B, 3, S, S), or (B, V, 3, S, S) with view_indices giving V indices for each object, all in [-1, 1].
        Returns cond (B, T, D) or (B, V * T, D).
        """
        if image.dim() == 4:
            encoded: Tensor = self.main_image_encoder(image)
            return encoded if not self.takes_views else encoded + self.view_embedding(encoded, [[0]] * len(encoded))
        b, v = image.shape[:2]
        if view_indices is None:
            view_indices = [range(v)] * b
        encoded = self.main_image_encoder(image.flatten(0, 1))
        embedded = encoded + self.view_embedding(encoded, view_indices)
        return embedded.view(b, v * embedded.shape[1], embedded.shape[2])

    def view_embedding(self, encoded: Tensor, view_indices: Sequence[Sequence[int]]) -> Tensor:
        """Return the sinusoid of each view's index, (B * V, 1, D); encoded : (B * V, T, D)."""
        index = torch.tensor([list(row) for row in view_indices], device=encoded.device).flatten()
        return torch.cat(sinusoid(index, encoded.shape[-1], 10000.0), dim=-1)[:, None].to(encoded.dtype)
