"""DINOv2, the image encoder: a picture cut into patches, a transformer over them and one token for the whole picture.

Formulas: docs/model.md, section 3, and the papers: ViT (arXiv 2010.11929), LayerScale (2103.17239), SwiGLU
(2002.05202), DINOv2 (2304.07193). Parameter names are those of the released checkpoints. Knows nothing of how pictures
are resized and normalised, nor of views. Shapes: B images of H x W pixels, patches of P x P, T = 1 + (H // P)(W // P)
tokens, C width.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from math import isqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backend.hunyuan3d.networks.layers import attention

_INITIAL_STD = 0.02


@dataclass(frozen=True)
class DinoConfig:
    """Sizes of a DINOv2 network; image_size is that of its position table."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    image_size: int = 518
    patch_size: int = 14
    mlp_ratio: int = 4
    num_channels: int = 3
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    layerscale_value: float = 1.0
    qkv_bias: bool = True
    use_swiglu_ffn: bool = False

    def __post_init__(self) -> None:
        if min(self.hidden_size, self.num_hidden_layers, self.num_attention_heads, self.patch_size) < 1:
            raise ValueError("DINOv2 sizes must be at least 1")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError("DINOv2 hidden_size must be a multiple of num_attention_heads")


class DinoV2(nn.Module):
    """The whole network: embeddings, blocks, and a last norm."""

    def __init__(self, config: DinoConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        blocks = nn.Sequential(*(Block(config) for _ in range(config.num_hidden_layers)))
        self.encoder = _in_turn(layer=blocks)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.apply(_initialise)

    def forward(self, image: Tensor) -> Tensor:
        """image : (B, 3, H, W), normalised, of the weights' type -> last hidden state (B, T, C), class token first."""
        tokens: Tensor = self.layernorm(self.encoder(self.embeddings(image)))
        return tokens


class Embeddings(nn.Module):
    """A token for the whole picture and one for each patch, each with its position's embedding added."""

    def __init__(self, config: DinoConfig) -> None:
        super().__init__()
        width, patch = config.hidden_size, config.patch_size
        self.patch_size = patch
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        # Only DINOv2's own training hides patches behind it; the checkpoints carry it.
        self.mask_token = nn.Parameter(torch.empty(1, width))
        self.position_embeddings = nn.Parameter(torch.empty(1, 1 + (config.image_size // patch) ** 2, width))
        self.patch_embeddings = _in_turn(projection=nn.Conv2d(config.num_channels, width, patch, stride=patch))

    def forward(self, image: Tensor) -> Tensor:
        """image : (B, 3, H, W) -> tokens (B, T, C). A rest of pixels that fills no patch is left out."""
        patches: Tensor = self.patch_embeddings(image)
        tokens = torch.cat([self.cls_token.expand(len(image), -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
        return tokens + self.positions(*patches.shape[-2:])

    def positions(self, rows: int, columns: int) -> Tensor:
        """Return the positions' embeddings (1, 1 + rows * columns, C), resampled where the table is of another size."""
        table = self.position_embeddings
        side = isqrt(table.shape[1] - 1)
        if rows == columns == side:
            return table
        grid = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2).float()
        grid = F.interpolate(grid, (rows, columns), mode="bicubic", align_corners=False).to(table.dtype)
        return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)


class Block(nn.Module):
    """Attention between tokens, then a feed-forward: x <- x + scale * f(norm x), for both."""

    def __init__(self, config: DinoConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.norm1 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.attention = _in_turn(attention=SelfAttention(config), output=_in_turn(dense=nn.Linear(width, width)))
        self.layer_scale1 = LayerScale(width, config.layerscale_value)
        self.norm2 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        hidden = width * config.mlp_ratio
        self.mlp = (
            SwiGlu(width, hidden)
            if config.use_swiglu_ffn
            else _in_turn(fc1=nn.Linear(width, hidden), gelu=nn.GELU(), fc2=nn.Linear(hidden, width))
        )
        self.layer_scale2 = LayerScale(width, config.layerscale_value)

    def forward(self, x: Tensor) -> Tensor:
        """x : (B, T, C) -> (B, T, C)."""
        x = x + self.layer_scale1(self.attention(self.norm1(x)))
        out: Tensor = x + self.layer_scale2(self.mlp(self.norm2(x)))
        return out


class SelfAttention(nn.Module):
    """Softmax attention of all tokens with all, without the projection that follows."""

    def __init__(self, config: DinoConfig) -> None:
        super().__init__()
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.query, self.key, self.value = (
            nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias) for _ in range(3)
        )

    def forward(self, x: Tensor) -> Tensor:
        """x : (B, T, C) -> (B, T, C), heads side by side."""
        q, k, v = (
            linear(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for linear in (self.query, self.key, self.value)
        )
        return attention(q, k, v)


class LayerScale(nn.Module):
    """One learned factor for each channel."""

    def __init__(self, width: int, value: float) -> None:
        super().__init__()
        self.lambda1 = nn.Parameter(torch.full((width,), float(value)))

    def forward(self, x: Tensor) -> Tensor:
        """x : (..., C) -> (..., C)."""
        return x * self.lambda1


class SwiGlu(nn.Module):
    """A gated feed-forward: W_out (silu(g) * u), where [g, u] = W_in x."""

    def __init__(self, width: int, hidden: int) -> None:
        """hidden : that of a plain feed-forward; two thirds of it, in eights rounded up, cost as much with a gate."""
        super().__init__()
        gated = -(-(hidden * 2 // 3) // 8) * 8
        self.weights_in = nn.Linear(width, 2 * gated)
        self.weights_out = nn.Linear(gated, width)

    def forward(self, x: Tensor) -> Tensor:
        """x : (..., C) -> (..., C)."""
        # As two products: their sums, and so the last bits, are those of an encoder that keeps the halves apart.
        halves = zip(self.weights_in.weight.chunk(2), self.weights_in.bias.chunk(2), strict=True)
        gate, up = (F.linear(x, weight, bias) for weight, bias in halves)
        out: Tensor = self.weights_out(F.silu(gate) * up)
        return out


def _in_turn(**modules: nn.Module) -> nn.Sequential:
    """Return modules that run one after the other, under these names."""
    return nn.Sequential(OrderedDict(modules))


def _initialise(module: nn.Module) -> None:
    """Draw what training starts from: normal weights cut off at 2, no biases."""
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        nn.init.trunc_normal_(module.weight, std=_INITIAL_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, Embeddings):
        nn.init.trunc_normal_(module.cls_token, std=_INITIAL_STD)
        nn.init.trunc_normal_(module.position_embeddings, std=_INITIAL_STD)
        nn.init.zeros_(module.mask_token)
