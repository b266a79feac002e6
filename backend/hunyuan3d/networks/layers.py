"""Pieces that more than one network of the model is built from.

Knows tensors only: no checkpoint, no sampling, no image. Shapes: B batch, T tokens, C width, H heads, d = C / H.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Methods that a compiler may take by themselves, and which of their arguments have a row for each token.
Pieces = Mapping[str, tuple[str, ...]]


def inference() -> AbstractContextManager[object]:
    """Work in inference mode unless gradients are wanted; there a view is a plain tensor, which compiled code asks."""
    return torch.inference_mode(not torch.is_grad_enabled())


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention at scale d^-1/2.

    q : (B, H, T, d); k, v : (B, H, S, d). Returns (B, T, H * d), heads side by side.
    """
    if q.requires_grad and q.device.type == "cpu":
        # The fused kernel's backward pass on the CPU takes about twice the time of these two products.
        weights = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1)
        out = weights @ v
    else:
        out = F.scaled_dot_product_attention(q, k, v)
    return out.transpose(1, 2).flatten(2)


def attention_over_rows(q: Tensor, k: Tensor, v: Tensor, batch: int) -> Tensor:
    """Softmax attention of tokens that are kept as rows, the images one after the other.

    q, k, v : (B, T, H, d) or (B * T, H, d), any strides with whole heads. Returns (B * T, H * d).
    """
    q, k, v = (heads.reshape(batch, -1, *heads.shape[-2:]).transpose(1, 2) for heads in (q, k, v))
    return attention(q, k, v).flatten(0, 1)


def cut_heads(x: Tensor, heads: int, parts: int) -> tuple[Tensor, ...]:
    """Cut channels into heads first and each head into parts, without moving them.

    x : (..., parts * C). Returns `parts` views (..., H, d), cut as `split_heads` cuts.
    """
    return x.reshape(*x.shape[:-1], heads, parts, -1).unbind(-2)


def split_heads(x: Tensor, heads: int, parts: int) -> tuple[Tensor, ...]:
    """Cut channels into heads first and each head into parts (the layout of v2.1 and of the ShapeVAE).

    x : (B, T, parts * C). Returns `parts` tensors (B, H, T, d): head h of every part comes from the channels
    [h * parts * d, (h + 1) * parts * d).
    """
    b, t, _ = x.shape
    return x.view(b, t, heads, parts, -1).permute(3, 0, 2, 1, 4).unbind(0)


def linear_of_two(linear: nn.Module, first: Tensor, second: Tensor) -> Tensor:
    """Return `linear` of the two side by side, (..., K1) and (..., K2) -> (..., N).

    Two products cost less than writing both inputs side by side and reading them again.
    """
    if type(linear) is not nn.Linear or first.requires_grad:
        out: Tensor = linear(torch.cat([first, second], dim=-1))
        return out
    k = first.shape[-1]
    return F.linear(second, linear.weight[:, k:], linear.bias) + F.linear(first, linear.weight[:, :k])


def share_storage(parameters: Sequence[Tensor]) -> Tensor:
    """Concatenate parameters along their rows and make each one a view of the result.

    Returns the concatenation, so that several products become one without a second copy of the weights.
    """
    with torch.no_grad():
        fused = torch.cat([p.detach() for p in parameters])
        start = 0
        for p in parameters:
            p.data = fused[start : start + p.shape[0]]
            start += p.shape[0]
    return fused


def sinusoid(t: Tensor, width: int, period: float) -> tuple[Tensor, Tensor]:
    """Sine and cosine of t at width / 2 frequencies exp(-ln(period) * k / (width / 2)).

    t : (...) float. Returns two tensors (..., width / 2) in float32, since half precision loses the phases.
    """
    half = width // 2
    exponent = torch.arange(half, dtype=torch.float32, device=t.device) / half
    phase = t.float()[..., None] * torch.pow(torch.full((), period, device=t.device), -exponent)
    return phase.sin(), phase.cos()
