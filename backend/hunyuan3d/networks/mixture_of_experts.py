"""Mixture of experts: each token runs through its top-k experts, all tokens of an expert in one product.

Knows tokens only. No step waits for the host: on CUDA the tokens are sorted by expert and multiplied in grouped
products whose group borders stay on the device.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backend.hunyuan3d.kernels.gelu_rows import gelu_rows
from backend.hunyuan3d.networks.layers import Pieces, share_storage


class GroupedLayer(Protocol):
    """One layer of all experts, its bias left to whoever reads what comes out."""

    @property
    def bias(self) -> Tensor: ...

    def __call__(self, rows: Tensor, ends: Tensor, bias: Tensor | None = None, expert: Tensor | None = None) -> Tensor:
        """rows : (M, K) sorted by expert; ends : (experts,) int32 -> (M, N).

        bias, expert : the bias of the layer before and each row's expert, where the rows are still to go through GELU.
        """
        ...


class GroupedLayers(Protocol):
    """Both layers of all experts."""

    @property
    def first(self) -> GroupedLayer: ...

    @property
    def second(self) -> GroupedLayer: ...


class MixtureOfExperts(nn.Module):
    """shared(x) + sum over the top-k experts of p_e(x) expert_e(x), p a softmax over all experts, not renormalised."""

    pieces: ClassVar[Pieces] = {"combine": ("x", "shared", "by_expert", "index", "chosen", "weights")}

    def __init__(self, width: int, num_experts: int, top_k: int) -> None:
        super().__init__()
        self.width, self.num_experts, self.top_k = width, num_experts, top_k
        self.experts = nn.ModuleList(self.feed_forward() for _ in range(num_experts))
        self.gate = nn.Linear(width, num_experts, bias=False)
        self.shared_experts = self.feed_forward()
        self.fused: tuple[Tensor, Tensor, Tensor, Tensor] | None = None
        # Both layers' products in another precision (fp8.py).
        self.grouped: GroupedLayers | None = None

    def feed_forward(self) -> nn.Module:
        """Linear(C, 4C), GELU, Linear(4C, C) under the released names net.0.proj and net.2."""
        # Here, because a checkpoint without experts need not wait for diffusers.
        from diffusers.models.attention import FeedForward

        feed_forward: nn.Module = FeedForward(self.width, activation_fn="gelu", inner_dim=4 * self.width)
        return feed_forward

    def fuse(self) -> None:
        """Stack the experts' weights for grouped products; the parameters stay views of the stacks."""
        e, c = self.num_experts, self.width
        self.fused = (
            self.stack("net.0.proj.weight").view(e, 4 * c, c),
            self.stack("net.0.proj.bias").view(e, 4 * c),
            self.stack("net.2.weight").view(e, c, 4 * c),
            self.stack("net.2.bias").view(e, c),
        )

    def stack(self, name: str) -> Tensor:
        """One parameter of every expert, joined along its rows."""
        return share_storage([expert.get_parameter(name) for expert in self.experts])

    def forward(self, x: Tensor) -> Tensor:
        """x : (B, T, C) -> (B, T, C)."""
        tokens = x.flatten(0, 1)
        return self.add_routed(torch.zeros_like(tokens), self.shared(tokens), tokens).view_as(x)

    def shared(self, tokens: Tensor) -> Tensor:
        """Return the expert's outcome that every token gets; (M, C) -> (M, C)."""
        # What stands in its place in another precision (fp8.py) has no `net`.
        if hasattr(self.shared_experts, "net"):
            first, second = (self.shared_experts.get_submodule(name) for name in ("net.0.proj", "net.2"))
            out: Tensor = second(gelu_rows(first(tokens)))
        else:
            out = self.shared_experts(tokens)
        return out

    def add_routed(self, x: Tensor, shared: Tensor, tokens: Tensor) -> Tensor:
        """x + (shared + the chosen experts' outcome for `tokens`), each (M, C)."""
        weights, chosen = torch.softmax(self.gate(tokens), dim=-1).topk(self.top_k, dim=-1)
        expert, order = chosen.flatten().sort(stable=True)
        by_expert, bias = self.run_experts(tokens[order // self.top_k], expert)
        # Where each (token, choice) went: undoing the sort by a gather keeps the sum's order fixed.
        index = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        return self.combine(x, shared, by_expert, bias, index.view(chosen.shape), chosen, weights)

    def combine(
        self, x: Tensor, shared: Tensor, by_expert: Tensor, bias: Tensor, index: Tensor, chosen: Tensor, weights: Tensor
    ) -> Tensor:
        """Sum each token's experts, their bias added, with its weights.

        by_expert : (M * k, C); bias : (experts, C); index, chosen, weights : (M, k).
        """
        routed = torch.zeros_like(shared)
        for choice in range(self.top_k):
            outcome = by_expert[index[:, choice]] + bias[chosen[:, choice]]
            routed = routed + outcome * weights[:, choice, None]
        out: Tensor = x + (shared + routed)
        return out

    def run_experts(self, rows: Tensor, expert: Tensor) -> tuple[Tensor, Tensor]:
        """rows : (M, C) sorted by expert; expert : (M,) int64, rising -> (M, C) and the bias (experts, C) they lack."""
        if self.grouped is not None:
            ends = self.ends_of(expert)
            hidden = self.grouped.first(rows, ends)
            return self.grouped.second(hidden, ends, self.grouped.first.bias, expert), self.grouped.second.bias
        if self.fused is not None and rows.device.type == "cuda" and rows.dtype == torch.bfloat16:
            w1, b1, w2, b2 = self.fused
            ends = self.ends_of(expert)
            hidden = gelu_rows(F.grouped_mm(rows, w1.transpose(-2, -1), offs=ends), b1, expert)
            return F.grouped_mm(hidden, w2.transpose(-2, -1), offs=ends), b2
        counts = torch.bincount(expert, minlength=self.num_experts).tolist()
        parts = torch.split(rows, counts)
        done = torch.cat([module(part) for module, part in zip(self.experts, parts, strict=True)])
        return done, done.new_zeros(self.num_experts, self.width)

    def ends_of(self, expert: Tensor) -> Tensor:
        """expert : (M,) rising -> where each expert's rows end, (num_experts,) int32, on the device."""
        experts = torch.arange(self.num_experts, device=expert.device)
        return torch.searchsorted(expert, experts, right=True).to(torch.int32)
