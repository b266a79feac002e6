"""The denoiser of Hunyuan3D-2.1 (`HunYuanDiTPlain`): a transformer with U-shaped skips and a mixture of experts.

Formulas: docs/model.md, section 4. Predicts the flow's velocity; knows nothing of schedules, guidance scales, images or
shapes. B images, N latent tokens, E latent channels, C width, T context tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backend.hunyuan3d.kernels.gelu_rows import gelu_rows
from backend.hunyuan3d.kernels.head_norms import head_norm, normed_queries_keys
from backend.hunyuan3d.networks.layers import (
    Pieces,
    attention_over_rows,
    cut_heads,
    inference,
    linear_of_two,
    share_storage,
    sinusoid,
)
from backend.hunyuan3d.networks.mixture_of_experts import MixtureOfExperts

KeysValues = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class DenoiserV21Config:
    """Sizes of a v2.1 denoiser; the names are those of the released config.yaml files."""

    input_size: int
    in_channels: int
    hidden_size: int
    context_dim: int
    depth: int
    num_heads: int
    qkv_bias: bool = False
    qk_norm: bool = True
    use_pos_emb: bool = False
    num_moe_layers: int = 6
    num_experts: int = 8
    moe_top_k: int = 2

    def __post_init__(self) -> None:
        sizes = (self.input_size, self.in_channels, self.hidden_size, self.context_dim, self.depth, self.num_heads)
        if min(sizes) < 1:
            raise ValueError("denoiser sizes must be at least 1")
        if self.hidden_size % (2 * self.num_heads):
            raise ValueError("denoiser hidden_size must be a multiple of 2 x num_heads")
        if not 0 <= self.num_moe_layers <= self.depth:
            raise ValueError("num_moe_layers must lie between 0 and depth")
        if self.num_moe_layers and not 1 <= self.moe_top_k <= self.num_experts:
            raise ValueError("moe_top_k must lie between 1 and num_experts")


@dataclass(frozen=True)
class V21Context:
    """What the context contributes to every step, computed once.

    keys_values : per layer, k and v (B, T, H, d). unconditional : per layer, the constant (C,) that attn2 adds where
    the context is zero; None when guidance needs no unconditional pass.
    """

    keys_values: tuple[KeysValues, ...]
    unconditional: tuple[Tensor, ...] | None


class TimeEmbedder(nn.Module):
    """t in [0, 1] to one token of width C."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, t: Tensor) -> Tensor:
        """t : (B,) -> (B, C)."""
        e = torch.cat(sinusoid(t, self.width, 10000.0), dim=-1)
        out: Tensor = self.mlp(e.to(next(self.mlp.parameters()).dtype))
        return out


class SelfAttention(nn.Module):
    """attn1: tokens to each other. Heads are cut across the joined q, k, v channels."""

    def __init__(self, config: DenoiserV21Config) -> None:
        super().__init__()
        width, self.heads = config.hidden_size, config.num_heads
        self.to_q = nn.Linear(width, width, bias=config.qkv_bias)
        self.to_k = nn.Linear(width, width, bias=config.qkv_bias)
        self.to_v = nn.Linear(width, width, bias=config.qkv_bias)
        self.q_norm, self.k_norm = head_norms(config)
        self.out_proj = nn.Linear(width, width)
        self.fused: tuple[Tensor, Tensor | None] | None = None
        # One product in another precision in the three projections' place (fp8.py).
        self.qkv: nn.Module | None = None

    def fuse(self) -> None:
        """Make the three projections one product; the parameters stay views of the joined weights."""
        projections = (self.to_q, self.to_k, self.to_v)
        weight = share_storage([p.weight for p in projections])
        bias = share_storage([p.bias for p in projections]) if self.to_q.bias is not None else None
        self.fused = weight, bias

    def queries_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x : (M, C) -> q, k, v : (M, H, d), q and k normed."""
        q, k, v = cut_heads(self.project(x), self.heads, 3)
        if isinstance(self.q_norm, nn.RMSNorm) and isinstance(self.k_norm, nn.RMSNorm):
            q, k = normed_queries_keys(q, k, self.q_norm.weight, self.k_norm.weight)
        return q, k, v

    def project(self, x: Tensor) -> Tensor:
        """x : (M, C) -> (M, 3C), the three projections side by side."""
        if self.qkv is not None:
            joint: Tensor = self.qkv(x)
            return joint
        if self.fused is not None:
            return F.linear(x, *self.fused)
        return torch.cat([self.to_q(x), self.to_k(x), self.to_v(x)], dim=-1)


class ContextAttention(nn.Module):
    """attn2: tokens to the picture's tokens."""

    def __init__(self, config: DenoiserV21Config) -> None:
        super().__init__()
        width, self.heads = config.hidden_size, config.num_heads
        self.to_q = nn.Linear(width, width, bias=config.qkv_bias)
        self.to_k = nn.Linear(config.context_dim, width, bias=config.qkv_bias)
        self.to_v = nn.Linear(config.context_dim, width, bias=config.qkv_bias)
        self.q_norm, self.k_norm = head_norms(config)
        self.out_proj = nn.Linear(width, width)

    def keys_values(self, cond: Tensor) -> KeysValues:
        """cond : (B, T, D) -> k, v : (B, T, H, d), the same at every step."""
        kv = torch.cat([self.to_k(cond), self.to_v(cond)], dim=-1)
        k, v = cut_heads(kv, self.heads, 2)
        # Read at every step, so they are laid out once as attention reads them best.
        normed = head_norm(k, self.k_norm.weight) if isinstance(self.k_norm, nn.RMSNorm) else k
        return normed, v.contiguous()

    def without_context(self) -> Tensor:
        """Return the output (C,) where the context is zero: its tokens are alike, so attention returns their value."""
        zero = self.to_k.weight.new_zeros(1, 1, self.to_k.in_features)
        _, v = self.keys_values(zero)
        out: Tensor = self.out_proj(v.flatten(2))
        return out[0, 0]

    def queries(self, x: Tensor) -> Tensor:
        """x : (M, C) -> q : (M, H, d), normed."""
        (q,) = cut_heads(self.to_q(x), self.heads, 1)
        return head_norm(q, self.q_norm.weight) if isinstance(self.q_norm, nn.RMSNorm) else q


class FeedForward(nn.Module):
    """Linear, GELU, Linear."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(gelu_rows(self.fc1(x)))
        return out


def head_norms(config: DenoiserV21Config) -> tuple[nn.Module, nn.Module]:
    """RMS norms over each head's queries and keys, or nothing when the checkpoint has none."""
    if not config.qk_norm:
        return nn.Identity(), nn.Identity()
    width = config.hidden_size // config.num_heads
    return nn.RMSNorm(width, eps=1e-6), nn.RMSNorm(width, eps=1e-6)


class Block(nn.Module):
    """One layer: skip, self-attention, context attention, feed-forward or experts.

    Tokens are rows (M, C), the images one after the other: whatever the batch, all but attention is one and the same
    computation for each row. `pieces` are what a compiler takes, each by itself; attention and the experts' grouped
    products lie between them.
    """

    pieces: ClassVar[Pieces] = {"enter": ("x", "skip"), "between": ("x", "attended"), "leave": ("x", "crossed")}

    def __init__(self, config: DenoiserV21Config, layer: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.takes_skip = layer > config.depth // 2
        if self.takes_skip:
            self.skip_linear = nn.Linear(2 * width, width)
            self.skip_norm = nn.LayerNorm(width, eps=1e-6)
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn1 = SelfAttention(config)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.attn2 = ContextAttention(config)
        self.norm3 = nn.LayerNorm(width, eps=1e-6)
        self.uses_moe = config.depth - layer <= config.num_moe_layers
        if self.uses_moe:
            self.moe = MixtureOfExperts(width, config.num_experts, config.moe_top_k)
        else:
            self.mlp = FeedForward(width)

    def forward(
        self, x: Tensor, kv: KeysValues, unconditional: Tensor | None, skip: Tensor | None, batch: int
    ) -> Tensor:
        """x, skip : (M, C), M = batch * T; unconditional : (C,), what attn2 adds to the rows that have no context.

        With `unconditional` the second half of the rows has none, and so has what is returned; the first block is given
        the first half alone, since the two are the same until attn2.
        """
        with_context = kv[0].shape[0]
        x, q, k, v = self.enter(x, skip)
        attended = attention_over_rows(q, k, v, batch)
        x, q = self.between(x, attended, batch > with_context)
        crossed = attention_over_rows(q, *kv, with_context)
        if unconditional is not None and batch == with_context:
            x = torch.cat([x, x])
        left = self.leave(x, crossed, unconditional)
        if isinstance(left, Tensor):
            return left
        x, normed, shared = left
        return self.moe.add_routed(x, shared, normed)

    def enter(self, x: Tensor, skip: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Join the skip; return x (M, C) and its normed rows' queries, keys and values (M, H, d)."""
        if skip is not None:
            x = self.skip_norm(linear_of_two(self.skip_linear, skip, x))
        return x, *self.attn1.queries_keys_values(self.norm1(x))

    def between(self, x: Tensor, attended: Tensor, has_unconditional: bool) -> tuple[Tensor, Tensor]:
        """Add self-attention's outcome; return x (M, C) and the queries of the rows that have a context."""
        x = x + self.attn1.out_proj(attended)
        rows = x[: x.shape[0] // 2] if has_unconditional else x
        return x, self.attn2.queries(self.norm2(rows))

    def leave(self, x: Tensor, crossed: Tensor, unconditional: Tensor | None) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Add attn2's outcome, or its constant where there is no context, and the feed-forward's.

        Before experts: x, its normed rows, and the shared expert's outcome, each (M, C).
        """
        crossed = self.attn2.out_proj(crossed)
        if unconditional is not None:
            crossed = torch.cat([crossed, unconditional.expand_as(crossed)])
        x = x + crossed
        normed = self.norm3(x)
        if self.uses_moe:
            return x, normed, self.moe.shared(normed)
        out: Tensor = x + self.mlp(normed)
        return out


class FinalLayer(nn.Module):
    """Norm, drop the time token, project to the latent channels."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, eps=1e-6)
        self.linear = nn.Linear(width, channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(self.norm_final(x)[:, 1:])
        return out


class HunYuanDiTPlain(nn.Module):
    """The v2.1 denoiser."""

    guidance_embed = False

    def __init__(self, config: DenoiserV21Config) -> None:
        super().__init__()
        self.config = config
        self.in_channels = config.in_channels
        self.x_embedder = nn.Linear(config.in_channels, config.hidden_size)
        self.t_embedder = TimeEmbedder(config.hidden_size)
        self.layers = tuple(Block(config, layer) for layer in range(config.depth))
        self.blocks = nn.ModuleList(self.layers)
        self.final_layer = FinalLayer(config.hidden_size, config.in_channels)

    def fuse(self) -> None:
        """Join weights that are used together; call once after loading and moving."""
        for block in self.layers:
            block.attn1.fuse()
            if block.uses_moe:
                block.moe.fuse()

    def prepare(self, cond: Tensor, *, classifier_free: bool) -> V21Context:
        """Compute what does not change over the steps.

        cond : (B, T, D). classifier_free : whether `velocity` shall also return the unconditional rows.
        """
        with inference():
            cond = cond.to(self.x_embedder.weight.dtype)
            keys_values = tuple(block.attn2.keys_values(cond) for block in self.layers)
            unconditional = tuple(block.attn2.without_context() for block in self.layers) if classifier_free else None
            return V21Context(keys_values, unconditional)

    def velocity(self, x: Tensor, t: Tensor, context: V21Context, guidance: Tensor | None = None) -> Tensor:
        """Return the velocity at x, for both branches of guidance in one pass.

        x : (B, N, E); t : () or (B,) in [0, 1]; guidance is not used by this design. Returns (B, N, E), or (2B, N, E)
        with the unconditional rows last when the context was prepared with classifier_free.
        """
        del guidance
        with inference():
            return self._velocity(x, t, context)

    def _velocity(self, x: Tensor, t: Tensor, context: V21Context) -> Tensor:
        x = x.to(self.x_embedder.weight.dtype)
        unconditional: tuple[Tensor | None, ...] = (None,) * len(self.layers)
        if context.unconditional is not None:
            unconditional = context.unconditional
        given = batch = x.shape[0]
        # A time that all images share is one row: a product of a few rows sums in an order that depends on how many.
        time = self.t_embedder(t.reshape(-1))[:, None].expand(given, 1, -1)
        h = torch.cat([time, self.embed(x)], dim=1).flatten(0, 1)
        skips: list[Tensor] = []
        for layer, (block, kv, constant) in enumerate(
            zip(self.layers, context.keys_values, unconditional, strict=True)
        ):
            h = block(h, kv, constant, skips.pop() if block.takes_skip else None, batch)
            batch = given if context.unconditional is None else 2 * given
            if layer < self.config.depth // 2:
                skips.append(h)
        out: Tensor = self.final_layer(h.view(batch, -1, self.config.hidden_size))
        return out

    def embed(self, x: Tensor) -> Tensor:
        """x : (B, N, E) -> (B, N, C), with a fixed sin-cos of the token's index when use_pos_emb is on."""
        h: Tensor = self.x_embedder(x)
        if self.config.use_pos_emb:
            index = torch.arange(h.shape[1], device=h.device)
            h = h + torch.cat(sinusoid(index, h.shape[2], 10000.0), dim=-1).to(h.dtype)
        return h

    def forward(self, x: Tensor, t: Tensor, cond: Tensor, guidance: Tensor | None = None) -> Tensor:
        """x : (B, N, E); t : (B,) in [0, 1]; cond : (B, T, D), zeros for the unconditional -> velocity (B, N, E)."""
        return self.velocity(x, t, self.prepare(cond, classifier_free=False), guidance)
