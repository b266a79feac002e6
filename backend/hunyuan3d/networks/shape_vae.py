"""The ShapeVAE: latents to a scalar field in space, and, for training, surface points to latents.

Formulas: docs/model.md, section 7. Knows nothing of images, sampling, grids or meshes. The field is
positive inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backend.hunyuan3d.kernels.embedding import Embedding
from backend.hunyuan3d.kernels.norm_dot import NormDotWeights
from backend.hunyuan3d.networks.field_decoder import FieldDecoder, fold_query, with_bias
from backend.hunyuan3d.networks.layers import (
    Pieces,
    attention,
    attention_over_rows,
    cut_heads,
    inference,
    split_heads,
)


@dataclass(frozen=True)
class ShapeVAEConfig:
    """Sizes of a ShapeVAE; the names are those of the released config.yaml files."""

    num_latents: int
    embed_dim: int
    width: int
    heads: int
    num_decoder_layers: int
    num_encoder_layers: int = 8
    num_freqs: int = 8
    include_pi: bool = False
    qkv_bias: bool = False
    qk_norm: bool = True
    scale_factor: float = 1.0
    geo_decoder_mlp_expand_ratio: int = 4
    geo_decoder_downsample_ratio: int = 1
    geo_decoder_ln_post: bool = True
    point_feats: int = 3
    use_latent_pos_emb: bool = False

    def __post_init__(self) -> None:
        sizes = (self.num_latents, self.embed_dim, self.width, self.heads, self.num_decoder_layers, self.num_freqs)
        if min(sizes) < 1 or self.num_encoder_layers < 0:
            raise ValueError("ShapeVAE sizes must be at least 1")
        if self.width % (self.heads * self.geo_decoder_downsample_ratio):
            raise ValueError("ShapeVAE width must be a multiple of heads x geo_decoder_downsample_ratio")
        if self.heads % self.geo_decoder_downsample_ratio:
            raise ValueError("ShapeVAE heads must be a multiple of geo_decoder_downsample_ratio")
        if not self.scale_factor > 0:
            raise ValueError("ShapeVAE scale_factor must be above zero")


class FourierEmbedder(nn.Module):
    """phi(p) = [p, sin(p_i f_j), cos(p_i f_j)], f_j = 2^j (times pi when include_pi), coordinate-major."""

    def __init__(self, num_freqs: int, include_pi: bool) -> None:
        super().__init__()
        self.embedding = Embedding(num_freqs, torch.pi if include_pi else 1.0)
        self.out_dim = self.embedding.channels

    def forward(self, points: Tensor) -> Tensor:
        """Embed points (..., 3) as (..., out_dim) float32."""
        return self.embedding(points)


class QKNorm(nn.Module):
    """LayerNorm over each head's queries and keys, or nothing when the checkpoint has none."""

    def __init__(self, head_dim: int, enabled: bool) -> None:
        super().__init__()
        self.q_norm: nn.Module = nn.LayerNorm(head_dim, eps=1e-6) if enabled else nn.Identity()
        self.k_norm: nn.Module = nn.LayerNorm(head_dim, eps=1e-6) if enabled else nn.Identity()


class SelfAttention(nn.Module):
    """Attention of tokens to each other."""

    def __init__(self, width: int, heads: int, qkv_bias: bool, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.c_qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.c_proj = nn.Linear(width, width)
        self.attention = QKNorm(width // heads, qk_norm)

    def queries_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project rows (M, C) to q, k, v : (M, H, d)."""
        q, k, v = cut_heads(self.c_qkv(x), self.heads, 3)
        return self.attention.q_norm(q), self.attention.k_norm(k), v


class CrossAttention(nn.Module):
    """Attention of queries to data, with the data's keys and values reusable over many calls."""

    def __init__(self, width: int, heads: int, qkv_bias: bool, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.c_q = nn.Linear(width, width, bias=qkv_bias)
        self.c_kv = nn.Linear(width, 2 * width, bias=qkv_bias)
        self.c_proj = nn.Linear(width, width)
        self.attention = QKNorm(width // heads, qk_norm)

    def keys_values(self, data: Tensor) -> tuple[Tensor, Tensor]:
        """Project data (B, S, C) to k, v : (B, H, S, d)."""
        k, v = split_heads(self.c_kv(data), self.heads, 2)
        return self.attention.k_norm(k), v

    def forward(self, x: Tensor, k: Tensor, v: Tensor) -> Tensor:
        (q,) = split_heads(self.c_q(x), self.heads, 1)
        out: Tensor = self.c_proj(attention(self.attention.q_norm(q), k, v))
        return out


class MLP(nn.Module):
    """Linear, GELU, Linear."""

    def __init__(self, width: int, expand_ratio: int = 4) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, width * expand_ratio)
        self.c_proj = nn.Linear(width * expand_ratio, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.c_proj(F.gelu(self.c_fc(x)))
        return out


class SelfAttentionBlock(nn.Module):
    """x += attn(ln_1 x); x += mlp(ln_2 x).

    `pieces` are what a compiler takes, each by itself; attention lies between them.
    """

    pieces: ClassVar[Pieces] = {"enter": ("x",), "leave": ("x", "attended")}

    def __init__(self, width: int, heads: int, qkv_bias: bool, qk_norm: bool) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = SelfAttention(width, heads, qkv_bias, qk_norm)
        self.ln_2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = MLP(width)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, 1)
        out: Tensor = self.leave(rows, attention_over_rows(*self.enter(rows), len(x)))
        return out.view_as(x)

    def enter(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Norm and project the tokens of all images, (M, C), to q, k, v : (M, H, d)."""
        return self.attn.queries_keys_values(self.ln_1(x))

    def leave(self, x: Tensor, attended: Tensor) -> Tensor:
        """Add the projection of attention's outcome, then the MLP's; all (M, C)."""
        x = x + self.attn.c_proj(attended)
        out: Tensor = x + self.mlp(self.ln_2(x))
        return out


class CrossAttentionBlock(nn.Module):
    """x += attn(ln_1 x, ln_2 data); x += mlp(ln_3 x)."""

    def __init__(self, width: int, heads: int, qkv_bias: bool, qk_norm: bool, expand_ratio: int = 4) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=1e-6)
        self.ln_2 = nn.LayerNorm(width, eps=1e-6)
        self.attn = CrossAttention(width, heads, qkv_bias, qk_norm)
        self.ln_3 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = MLP(width, expand_ratio)

    def keys_values(self, data: Tensor) -> tuple[Tensor, Tensor]:
        return self.attn.keys_values(self.ln_2(data))

    def forward(self, x: Tensor, k: Tensor, v: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x), k, v)
        out: Tensor = x + self.mlp(self.ln_3(x))
        return out


class Transformer(nn.Module):
    """A stack of self-attention blocks."""

    def __init__(self, layers: int, width: int, heads: int, qkv_bias: bool, qk_norm: bool) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(SelfAttentionBlock(width, heads, qkv_bias, qk_norm) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.resblocks:
            x = block(x)
        return x


class PointEncoder(nn.Module):
    """Surface points to token features: query points attend to all points, then to each other."""

    def __init__(self, config: ShapeVAEConfig) -> None:
        super().__init__()
        width, heads = config.width, config.heads
        self.fourier = FourierEmbedder(config.num_freqs, config.include_pi)
        self.input_proj = nn.Linear(self.fourier.out_dim + config.point_feats, width)
        self.cross_attn = CrossAttentionBlock(width, heads, config.qkv_bias, config.qk_norm)
        self.self_attn = Transformer(config.num_encoder_layers, width, heads, config.qkv_bias, config.qk_norm)
        self.ln_post = nn.LayerNorm(width, eps=1e-6)

    def embed(self, points: Tensor, feats: Tensor) -> Tensor:
        x = torch.cat([self.fourier(points), feats.float()], dim=-1)
        out: Tensor = self.input_proj(x.to(self.input_proj.weight.dtype))
        return out

    def forward(self, query_points: Tensor, query_feats: Tensor, points: Tensor, feats: Tensor) -> Tensor:
        k, v = self.cross_attn.keys_values(self.embed(points, feats))
        x = self.cross_attn(self.embed(query_points, query_feats), k, v)
        out: Tensor = self.ln_post(self.self_attn(x))
        return out


class GeoDecoder(nn.Module):
    """Tokens and points to logits: one cross-attention block from points to tokens."""

    def __init__(self, config: ShapeVAEConfig) -> None:
        super().__init__()
        ratio = config.geo_decoder_downsample_ratio
        width, heads = config.width // ratio, config.heads // ratio
        # Checkpoints without ln_post were trained without the norms of queries and keys in this block as well.
        qk_norm = config.qk_norm and config.geo_decoder_ln_post
        self.fourier = FourierEmbedder(config.num_freqs, config.include_pi)
        self.query_proj = nn.Linear(self.fourier.out_dim, width)
        self.latents_proj: nn.Module = nn.Linear(config.width, width) if ratio != 1 else nn.Identity()
        self.cross_attn_decoder = CrossAttentionBlock(
            width, heads, config.qkv_bias, qk_norm, config.geo_decoder_mlp_expand_ratio
        )
        self.ln_post: nn.Module = nn.LayerNorm(width, eps=1e-5) if config.geo_decoder_ln_post else nn.Identity()
        self.output_proj = nn.Linear(width, 1)

    def keys_values(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Project tokens (B, N, C) to k, v : (B, H, N, d), the same for every point."""
        return self.cross_attn_decoder.keys_values(self.latents_proj(tokens))

    def forward(self, points: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Evaluate at points (B, Q, 3) float32: logits (B, Q) float32."""
        x = self.query_proj(self.fourier(points).to(self.query_proj.weight.dtype))
        x = self.ln_post(self.cross_attn_decoder(x, k, v))
        logits: Tensor = self.output_proj(x)
        return logits.squeeze(-1).float()

    def folded(self, *, kernels: bool = True) -> FieldDecoder:
        """Return the same function of points in fewer passes, from the weights as they are now; without gradients."""
        block = self.cross_attn_decoder
        post = self.ln_post if isinstance(self.ln_post, nn.LayerNorm) else None
        with torch.inference_mode():
            carried = with_bias(self.query_proj.weight, self.query_proj.bias + block.attn.c_proj.bias)
            return FieldDecoder(
                embedding=self.fourier.embedding,
                query=fold_query(
                    self.query_proj, block.ln_1, block.attn.c_q, block.attn.attention.q_norm, block.attn.heads
                ),
                carried=carried.to(self.query_proj.weight.dtype),
                attention_out=block.attn.c_proj.weight,
                ln_3=block.ln_3,
                fc=block.mlp.c_fc,
                fc_out=block.mlp.c_proj.weight,
                last=NormDotWeights(
                    before=block.mlp.c_proj.bias,
                    gain=None if post is None else post.weight,
                    offset=None if post is None else post.bias,
                    eps=0.0 if post is None else post.eps,
                    vector=self.output_proj.weight[0],
                    bias=self.output_proj.bias,
                ),
                kernels=kernels,
            )


@dataclass(frozen=True, eq=False)
class ShapeField:
    """The fields of a batch of shapes, ready to be evaluated anywhere (volume.decode.Field).

    keys, values : (B, H, N, d).
    """

    decoder: FieldDecoder
    keys: Tensor
    values: Tensor

    @property
    def batch_size(self) -> int:
        return self.keys.shape[0]

    @property
    def device(self) -> torch.device:
        return self.keys.device

    def __call__(self, points: Tensor, image: int) -> Tensor:
        """Evaluate the field of that image of the batch at points (Q, 3) float32, world: logits (Q,) float32.

        The image's keys and values are read where they lie. A call sees one image only, so the same points give the
        same logits to the bit, whichever images are in the batch.
        """
        own = slice(image, image + 1)
        with torch.inference_mode():
            return self.decoder(points, self.keys[own], self.values[own])


class ShapeVAE(nn.Module):
    """Latents (B, N, E) to tokens (B, N, C) to logits at points; with the encoder also surface to latents."""

    def __init__(self, config: ShapeVAEConfig, *, with_encoder: bool = False) -> None:
        super().__init__()
        self.config = config
        width = config.width
        if with_encoder:
            self.encoder = PointEncoder(config)
            self.pre_kl = nn.Linear(width, 2 * config.embed_dim)
        self.post_kl = nn.Linear(config.embed_dim, width)
        if config.use_latent_pos_emb:
            self.latent_pos_emb = nn.Parameter(torch.zeros(config.num_latents, width))
        self.transformer = Transformer(config.num_decoder_layers, width, config.heads, config.qkv_bias, config.qk_norm)
        self.geo_decoder = GeoDecoder(config)

    @property
    def latent_shape(self) -> tuple[int, int]:
        """Return (N, E) of one image's latents."""
        return self.config.num_latents, self.config.embed_dim

    def decode(self, latents: Tensor) -> Tensor:
        """Turn latents (B, N, E), before division by the scale factor, into tokens (B, N, C)."""
        return self.decode_tokens(latents / self.config.scale_factor)

    def decode_tokens(self, z: Tensor) -> Tensor:
        """Turn the VAE's own latents (B, N, E), already divided by the scale factor, into tokens (B, N, C)."""
        with inference():
            x = self.post_kl(z.to(self.post_kl.weight.dtype))
            if self.config.use_latent_pos_emb:
                x = x + self.latent_pos_emb
            out: Tensor = self.transformer(x)
        return out

    def query(self, tokens: Tensor, points: Tensor) -> Tensor:
        """Evaluate the fields of tokens (B, N, C) at world points (B, Q, 3) float32: logits (B, Q), positive inside."""
        logits: Tensor = self.geo_decoder(points, *self.geo_decoder.keys_values(tokens))
        return logits

    def field(self, tokens: Tensor, *, kernels: bool = True) -> ShapeField:
        """Return the batch's fields, with the tokens' keys and values projected once.

        tokens : (B, N, C). kernels : whether Triton kernels are used where they run.
        """
        with torch.inference_mode():
            k, v = self.geo_decoder.keys_values(tokens)
            return ShapeField(self.geo_decoder.folded(kernels=kernels), k.contiguous(), v.contiguous())

    def encode(self, query_points: Tensor, query_feats: Tensor, points: Tensor, feats: Tensor) -> tuple[Tensor, Tensor]:
        """Return the moments of the latents of surfaces.

        query_points : (B, N, 3), query_feats : (B, N, F), where the tokens stand; points : (B, P, 3), feats :
        (B, P, F): the surface, F = point_feats channels of normal (and sharp flag). Returns mean and logvar, each
        (B, N, E), before multiplication by the scale factor. Raises AttributeError when there is no encoder.
        """
        moments: Tensor = self.pre_kl(self.encoder(query_points, query_feats, points, feats))
        mean, logvar = moments.chunk(2, dim=-1)
        return mean, logvar
