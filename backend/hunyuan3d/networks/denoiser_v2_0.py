"""The v2.0 denoiser (`Hunyuan3DDiT`): double-stream blocks, then single-stream blocks, modulated by time.

Formulas: docs/model.md, section 5. Attribute names are the keys of the released checkpoints. Knows nothing of sampling
schedules, pictures or files. Shapes: B images, N latent tokens, E latent channels, T context tokens, C width, H heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backend.hunyuan3d.networks.layers import attention

TIME_CHANNELS = 256
TIME_FACTOR = 1000.0
# The releases were trained with a period of 1000 here, not the usual 10000.
TIME_PERIOD = 1000.0


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


@dataclass(frozen=True)
class Modulation:
    """Shift, scale and gate, each (B or 1, 1, C)."""

    shift: Tensor
    scale: Tensor
    gate: Tensor


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """(1 + scale) * LayerNorm(x) + shift, x : (B, T, C)."""
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
    """RMS normalisation of each head's channels, computed in float32."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(head_dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.scale.shape, self.scale, eps=1e-6)


class QKNorm(nn.Module):
    """Head-wise norms of queries and keys."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.query_norm = HeadNorm(head_dim)
        self.key_norm = HeadNorm(head_dim)

    def cut(self, qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
        """qkv : (B, T, 3C), three blocks of C channels and each cut into heads -> q, k, v (B, H, T, d), q, k normed."""
        b, t, _ = qkv.shape
        q, k, v = qkv.view(b, t, 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        return self.query_norm(q), self.key_norm(k), v


class ModulationHead(nn.Module):
    """lin(SiLU(vec)), cut into `count` modulations."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.lin = nn.Linear(width, 3 * count * width)

    def forward(self, vec: Tensor) -> list[Modulation]:
        parts = self.lin(F.silu(vec))[:, None].chunk(3 * self.count, dim=-1)
        return [Modulation(*parts[3 * i : 3 * i + 3]) for i in range(self.count)]


class StreamAttention(nn.Module):
    """One stream's projections into and out of the joint attention."""

    def __init__(self, width: int, heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.norm = QKNorm(width // heads)
        self.proj = nn.Linear(width, width)

    def queries_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x : (B, T, C) -> q, k, v (B, H, T, d)."""
        return self.norm.cut(self.qkv(x), self.heads)


def stream_mlp(width: int, hidden: int) -> nn.Sequential:
    """Linear, GELU (tanh), Linear."""
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width))


class DoubleBlock(nn.Module):
    """Latent ('img') and context ('txt') tokens with weights of their own and one joint attention."""

    def __init__(self, config: DenoiserV20Config) -> None:
        super().__init__()
        width = config.hidden_size
        self.img_mod = ModulationHead(width, 2)
        self.img_attn = StreamAttention(width, config.num_heads, config.qkv_bias)
        self.img_mlp = stream_mlp(width, config.mlp_size)
        self.txt_mod = ModulationHead(width, 2)
        self.txt_attn = StreamAttention(width, config.num_heads, config.qkv_bias)
        self.txt_mlp = stream_mlp(width, config.mlp_size)

    def forward(self, img: Tensor, txt: Tensor, vec: Tensor) -> tuple[Tensor, Tensor]:
        img_mod1, img_mod2 = self.img_mod(vec)
        txt_mod1, txt_mod2 = self.txt_mod(vec)
        txt_qkv = self.txt_attn.queries_keys_values(modulated_norm(txt, txt_mod1.shift, txt_mod1.scale))
        img_qkv = self.img_attn.queries_keys_values(modulated_norm(img, img_mod1.shift, img_mod1.scale))
        q, k, v = (torch.cat(pair, dim=2) for pair in zip(txt_qkv, img_qkv, strict=True))
        txt_out, img_out = attention(q, k, v).tensor_split([txt.shape[1]], dim=1)
        img = torch.addcmul(img, img_mod1.gate, self.img_attn.proj(img_out))
        txt = torch.addcmul(txt, txt_mod1.gate, self.txt_attn.proj(txt_out))
        img = torch.addcmul(img, img_mod2.gate, self.img_mlp(modulated_norm(img, img_mod2.shift, img_mod2.scale)))
        txt = torch.addcmul(txt, txt_mod2.gate, self.txt_mlp(modulated_norm(txt, txt_mod2.shift, txt_mod2.scale)))
        return img, txt


class SingleBlock(nn.Module):
    """All tokens in one stream; attention and MLP side by side, one projection in and one out."""

    def __init__(self, config: DenoiserV20Config) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_heads
        self.sizes = (3 * width, config.mlp_size)
        self.linear1 = nn.Linear(width, sum(self.sizes))
        self.linear2 = nn.Linear(width + config.mlp_size, width)
        self.norm = QKNorm(width // config.num_heads)
        self.modulation = ModulationHead(width, 1)

    def forward(self, x: Tensor, vec: Tensor) -> Tensor:
        (mod,) = self.modulation(vec)
        qkv, mlp = self.linear1(modulated_norm(x, mod.shift, mod.scale)).split(self.sizes, dim=-1)
        attended = attention(*self.norm.cut(qkv, self.heads))
        out = self.linear2(torch.cat([attended, F.gelu(mlp, approximate="tanh")], dim=-1))
        return torch.addcmul(x, mod.gate, out)


class FinalLayer(nn.Module):
    """Modulated norm and projection to latent channels."""

    def __init__(self, config: DenoiserV20Config) -> None:
        super().__init__()
        width = config.hidden_size
        self.linear = nn.Linear(width, config.in_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, vec: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(vec)[:, None].chunk(2, dim=-1)
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
        if classifier_free:
            cond = torch.cat([cond, torch.zeros_like(cond)])
        return ContextV20(self.cond_in(cond.to(self.cond_in.weight.dtype)), classifier_free)

    def velocity(self, x: Tensor, t: Tensor, context: ContextV20, guidance: Tensor | None = None) -> Tensor:
        """Velocity at x.

        x : (B, N, E). t : () or (B,) float in [0, 1]. guidance : () or (B,) float, when `guidance_embed`. Returns
        (B, N, E), or (2B, N, E) for a classifier-free context: first the conditional rows, then the unconditional.
        """
        vec = self._vector(t, guidance)
        if context.classifier_free:
            x = torch.cat([x, x])
            vec = vec if vec.shape[0] == 1 else torch.cat([vec, vec])
        img, txt = self.latent_in(x.to(self.latent_in.weight.dtype)), context.tokens
        for block in self.double_blocks:
            img, txt = block(img, txt, vec)
        tokens = torch.cat([txt, img], dim=1)
        for block in self.single_blocks:
            tokens = block(tokens, vec)
        out: Tensor = self.final_layer(tokens[:, txt.shape[1] :], vec)
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
