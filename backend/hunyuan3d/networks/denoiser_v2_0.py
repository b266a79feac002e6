"""The v2.0 denoiser (`Hunyuan3DDiT`): double-stream blocks, then single-stream blocks, modulated by time.

Formulas: docs/model.md, section 5. Attribute names are the keys of the released checkpoints. Knows nothing of sampling
schedules, pictures or files. Shapes: B images, N latent tokens, E latent channels, T context tokens, C width, H heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backend.hunyuan3d.kernels.head_norms import normed_queries_keys
from backend.hunyuan3d.networks.layers import Pieces, attention_over_rows, inference, linear_of_two

TIME_CHANNELS = 256
TIME_FACTOR = 1000.0
# The releases were trained with a period of 1000 here, not the usual 10000.
TIME_PERIOD = 1000.0


Heads = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class DenoiserV20Config:
    """Sizes of a v2.0 denoiser; the names are those of the released config.yaml files."""

    in_channels: int = 64
    context_in_dim: int = 1536
    hidden_size: int = 1024
    mlp_ratio: float = 4.0
    num_heads: int = 16
    depth: int = 16
    depth_single_blocks: int = 32
    qkv_bias: bool = True
    guidance_embed: bool = False

    def __post_init__(self) -> None:
        if min(self.in_channels, self.context_in_dim, self.hidden_size, self.num_heads) < 1:
            raise ValueError("denoiser sizes must be at least 1")
        if min(self.depth, self.depth_single_blocks) < 0 or not self.mlp_ratio > 0:
            raise ValueError("denoiser depths must be at least 0 and mlp_ratio above 0")
        if self.hidden_size % self.num_heads:
            raise ValueError("denoiser hidden_size must be a multiple of num_heads")

    @property
    def mlp_size(self) -> int:
        """Hidden width of every MLP."""
        return int(self.hidden_size * self.mlp_ratio)


@dataclass(frozen=True)
class ContextV20:
    """What stays the same over the denoising steps: the projected condition, (B or 2B, T, C)."""

    tokens: Tensor
    classifier_free: bool


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """(1 + scale) * LayerNorm(x) + shift, x : (..., C)."""
    return torch.addcmul(shift, 1 + scale, F.layer_norm(x, x.shape[-1:], eps=1e-6))


def time_embedding(s: Tensor) -> Tensor:
    """s : (...) float32 -> (..., 256) float32, [cos, sin] of 1000 s f, f_k = exp(-ln(1000) k / 128).

    A guidance scale of 5 is a phase of 5000, where another rounding of f already moves the result by 1e-4.
    """
    half = TIME_CHANNELS // 2
    k = torch.arange(half, dtype=torch.float32, device=s.device)
    phase = (TIME_FACTOR * s.float())[..., None] * torch.exp(-math.log(TIME_PERIOD) * k / half)
    return torch.cat([phase.cos(), phase.sin()], dim=-1)


class VectorMLP(nn.Module):
    """The embedding of one number (time or guidance) to the modulation vector."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_layer = nn.Linear(TIME_CHANNELS, width)
        self.out_layer = nn.Linear(width, width)

    def forward(self, s: Tensor) -> Tensor:
        x = time_embedding(s).to(self.in_layer.weight.dtype)
        out: Tensor = self.out_layer(F.silu(self.in_layer(x)))
        return out


class HeadNorm(nn.Module):
    """The weight of an RMS normalisation of each head's channels, which is computed in float32."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(head_dim))


class QKNorm(nn.Module):
    """Head-wise norms of queries and keys."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.query_norm = HeadNorm(head_dim)
        self.key_norm = HeadNorm(head_dim)

    def cut(self, qkv: Tensor, heads: int) -> Heads:
        """qkv : (..., 3C), three blocks of C channels and each cut into heads -> q, k, v (..., H, d), q, k normed."""
        q, k, v = qkv.reshape(*qkv.shape[:-1], 3, heads, -1).unbind(-3)
        return *normed_queries_keys(q, k, self.query_norm.scale, self.key_norm.scale), v


class ModulationHead(nn.Module):
    """lin(SiLU(vec)): shift, scale and gate of `count` modulations side by side."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.lin = nn.Linear(width, 3 * count * width)

    def forward(self, vec: Tensor) -> Tensor:
        """vec : (1, C) or (B, 1, C) -> (1, 3C count) or (B, 1, 3C count)."""
        out: Tensor = self.lin(F.silu(vec))
        return out

    def cut(self, mods: Tensor) -> tuple[Tensor, ...]:
        """mods : what `forward` returns -> shift, scale and gate of each modulation in turn."""
        return mods.chunk(3 * self.count, dim=-1)


class StreamAttention(nn.Module):
    """One stream's projections into and out of the joint attention."""

    def __init__(self, width: int, heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.norm = QKNorm(width // heads)
        self.proj = nn.Linear(width, width)

    def queries_keys_values(self, x: Tensor) -> Heads:
        """x : (..., C) -> q, k, v (..., H, d)."""
        return self.norm.cut(self.qkv(x), self.heads)


class StreamMLP(nn.Sequential):
    """Linear, GELU (tanh), Linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        """x : (..., C) -> (..., C)."""
        first = self[0]
        out: Tensor = self[2](
            linear_gelu(x, first.weight, first.bias) if type(first) is nn.Linear else self[1](first(x))
        )
        return out


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """GELU (tanh) of x W^T + b; x : (..., K), W : (N, K).

    On CUDA cuBLAS applies this very formula to its sums before they are rounded and written.
    """
    if x.device.type == "cuda" and x.dtype in (torch.bfloat16, torch.float16) and x.dim() == 2 and not x.requires_grad:
        return torch._addmm_activation(bias, x, weight.t(), use_gelu=True)
    return F.gelu(F.linear(x, weight, bias), approximate="tanh")


class DoubleBlock(nn.Module):
    """Latent ('img') and context ('txt') tokens with weights of their own and one joint attention.

    `pieces` are what a compiler takes, each by itself; attention lies between them.
    """

    pieces: ClassVar[Pieces] = {"enter": ("img", "txt"), "leave": ("img", "txt", "img_out", "txt_out")}

    def __init__(self, config: DenoiserV20Config) -> None:
        super().__init__()
        width = config.hidden_size
        self.img_mod = ModulationHead(width, 2)
        self.img_attn = StreamAttention(width, config.num_heads, config.qkv_bias)
        self.img_mlp = StreamMLP(width, config.mlp_size)
        self.txt_mod = ModulationHead(width, 2)
        self.txt_attn = StreamAttention(width, config.num_heads, config.qkv_bias)
        self.txt_mlp = StreamMLP(width, config.mlp_size)

    def forward(self, img: Tensor, txt: Tensor, vec: Tensor, batch: int) -> tuple[Tensor, Tensor]:
        """img, txt : (M, C) with vec (1, C), or (B, T, C) with vec (B, 1, C), T each stream's own."""
        img_mods, txt_mods, img_qkv, txt_qkv = self.enter(img, txt, vec)
        q, k, v = (join_tokens(a, b, batch) for a, b in zip(txt_qkv, img_qkv, strict=True))
        attended = attention_over_rows(q, k, v, batch).view(batch, -1, txt.shape[-1])
        parts = attended.tensor_split([txt.numel() // (batch * txt.shape[-1])], dim=1)
        # Copied also where a view would do, so that what is compiled always gets the same kind of tensor.
        txt_out, img_out = (part.clone(memory_format=torch.contiguous_format) for part in parts)
        return self.leave(img, txt, img_out.view(img.shape), txt_out.view(txt.shape), img_mods, txt_mods)

    def enter(self, img: Tensor, txt: Tensor, vec: Tensor) -> tuple[Tensor, Tensor, Heads, Heads]:
        """Both streams' modulations (for `leave`), and queries, keys and values (..., H, d)."""
        img_mods, txt_mods = self.img_mod(vec), self.txt_mod(vec)
        img_qkv = self.img_attn.queries_keys_values(modulated_norm(img, *self.img_mod.cut(img_mods)[:2]))
        txt_qkv = self.txt_attn.queries_keys_values(modulated_norm(txt, *self.txt_mod.cut(txt_mods)[:2]))
        return img_mods, txt_mods, img_qkv, txt_qkv

    def leave(
        self, img: Tensor, txt: Tensor, img_out: Tensor, txt_out: Tensor, img_mods: Tensor, txt_mods: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Add attention's and the MLP's outcome to both streams. img_mods, txt_mods : as `enter` returned them."""
        _, _, gate1, shift, scale, gate2 = self.img_mod.cut(img_mods)
        img = torch.addcmul(img, gate1, self.img_attn.proj(img_out))
        img = torch.addcmul(img, gate2, self.img_mlp(modulated_norm(img, shift, scale)))
        _, _, gate1, shift, scale, gate2 = self.txt_mod.cut(txt_mods)
        txt = torch.addcmul(txt, gate1, self.txt_attn.proj(txt_out))
        txt = torch.addcmul(txt, gate2, self.txt_mlp(modulated_norm(txt, shift, scale)))
        return img, txt


def join_tokens(first: Tensor, second: Tensor, batch: int) -> Tensor:
    """Put each image's tokens of `first` before those of `second`; (..., H, d) each -> (B, T, H, d)."""
    shape = (batch, -1, *first.shape[-2:])
    return torch.cat([first.reshape(shape), second.reshape(shape)], dim=1)


class SingleBlock(nn.Module):
    """All tokens in one stream; attention and MLP side by side, one projection in and one out.

    `pieces` are what a compiler takes, each by itself; attention lies between them.
    """

    pieces: ClassVar[Pieces] = {"enter": ("x",), "leave": ("x", "attended", "hidden")}

    def __init__(self, config: DenoiserV20Config) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_heads
        self.sizes = [3 * width, config.mlp_size]
        self.linear1 = nn.Linear(width, sum(self.sizes))
        self.linear2 = nn.Linear(width + config.mlp_size, width)
        self.norm = QKNorm(width // config.num_heads)
        self.modulation = ModulationHead(width, 1)

    def forward(self, x: Tensor, vec: Tensor, batch: int) -> Tensor:
        """x : (M, C) with vec (1, C), or (B, T, C) with vec (B, 1, C)."""
        mods, hidden, qkv = self.enter(x, vec)
        attended = attention_over_rows(*qkv, batch).view_as(x)
        out: Tensor = self.leave(x, attended, hidden, mods)
        return out

    def enter(self, x: Tensor, vec: Tensor) -> tuple[Tensor, Tensor, Heads]:
        """Return the modulation (for `leave`), the MLP's hidden values (..., 4C), and q, k, v (..., H, d)."""
        mods = self.modulation(vec)
        shift, scale, _ = self.modulation.cut(mods)
        normed = modulated_norm(x, shift, scale)
        if type(self.linear1) is nn.Linear:
            weights, biases = (torch.split(p, self.sizes) for p in (self.linear1.weight, self.linear1.bias))
            qkv, hidden = F.linear(normed, weights[0], biases[0]), linear_gelu(normed, weights[1], biases[1])
        else:
            qkv, hidden = torch.split(self.linear1(normed), self.sizes, dim=-1)
            hidden = F.gelu(hidden, approximate="tanh")
        return mods, hidden, self.norm.cut(qkv, self.heads)

    def leave(self, x: Tensor, attended: Tensor, hidden: Tensor, mods: Tensor) -> Tensor:
        """Add the gated projection of attention's outcome and the hidden values."""
        gate = self.modulation.cut(mods)[2]
        return torch.addcmul(x, gate, linear_of_two(self.linear2, attended, hidden))


class FinalLayer(nn.Module):
    """Modulated norm and projection to latent channels."""

    def __init__(self, config: DenoiserV20Config) -> None:
        super().__init__()
        width = config.hidden_size
        self.linear = nn.Linear(width, config.in_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, vec: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(vec).chunk(2, dim=-1)
        out: Tensor = self.linear(modulated_norm(x, shift, scale))
        return out


class Hunyuan3DDiT(nn.Module):
    """Velocity of the latents at time t, given a picture's tokens."""

    def __init__(self, config: DenoiserV20Config) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.latent_in = nn.Linear(config.in_channels, width)
        self.time_in = VectorMLP(width)
        self.cond_in = nn.Linear(config.context_in_dim, width)
        if config.guidance_embed:
            self.guidance_in = VectorMLP(width)
        self.double_blocks = nn.ModuleList(DoubleBlock(config) for _ in range(config.depth))
        self.single_blocks = nn.ModuleList(SingleBlock(config) for _ in range(config.depth_single_blocks))
        self.final_layer = FinalLayer(config)

    @property
    def guidance_embed(self) -> bool:
        """Whether the guidance scale is an input of the network, so that one pass does."""
        return self.config.guidance_embed

    @property
    def in_channels(self) -> int:
        """E, the latent channels."""
        return self.config.in_channels

    def prepare(self, cond: Tensor, *, classifier_free: bool) -> ContextV20:
        """Project the condition once for all steps.

        cond : (B, T, D). With `classifier_free` the unconditional rows (a context of zeros) follow the B given ones.
        """
        with inference():
            if classifier_free:
                cond = torch.cat([cond, torch.zeros_like(cond)])
            return ContextV20(self.cond_in(cond.to(self.cond_in.weight.dtype)), classifier_free)

    def velocity(self, x: Tensor, t: Tensor, context: ContextV20, guidance: Tensor | None = None) -> Tensor:
        """Velocity at x.

        x : (B, N, E). t : () or (B,) float in [0, 1]. guidance : () or (B,) float, when `guidance_embed`. Returns
        (B, N, E), or (2B, N, E) for a classifier-free context: first the conditional rows, then the unconditional.
        """
        with inference():
            return self._velocity(x, self._vector(t, guidance), context)

    def _velocity(self, x: Tensor, vec: Tensor, context: ContextV20) -> Tensor:
        if context.classifier_free:
            x = torch.cat([x, x])
            vec = vec if vec.shape[0] == 1 else torch.cat([vec, vec])
        batch, before = x.shape[0], context.tokens.shape[1]
        img, txt = self.latent_in(x.to(self.latent_in.weight.dtype)), context.tokens
        if vec.shape[0] == 1:
            # One modulation for all images: then all but attention is one and the same computation for each row.
            img, txt = img.flatten(0, 1), txt.flatten(0, 1)
        else:
            vec = vec[:, None]
        for block in self.double_blocks:
            img, txt = block(img, txt, vec, batch)
        shape = (batch, -1, self.config.hidden_size)
        tokens = torch.cat([txt.view(shape), img.view(shape)], dim=1)
        tokens = tokens if vec.dim() == 3 else tokens.flatten(0, 1)
        for block in self.single_blocks:
            tokens = block(tokens, vec, batch)
        out: Tensor = self.final_layer(tokens.view(shape)[:, before:], vec)
        return out

    def forward(self, x: Tensor, t: Tensor, cond: Tensor, guidance: Tensor | None = None) -> Tensor:
        """x : (B, N, E), t : () or (B,), cond : (B, T, D) -> velocity (B, N, E)."""
        return self.velocity(x, t, self.prepare(cond, classifier_free=False), guidance)

    def _vector(self, t: Tensor, guidance: Tensor | None) -> Tensor:
        vec: Tensor = self.time_in(t.reshape(-1))
        if self.guidance_embed:
            if guidance is None:
                raise ValueError("this denoiser has a guidance embedding and needs the guidance scale")
            vec = vec + self.guidance_in(guidance.reshape(-1))
        return vec
