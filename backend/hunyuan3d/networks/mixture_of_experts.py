"""Mixture of experts: each token runs through its top-k experts, all tokens of an expert in one product.

Knows tokens only. No step waits for the host: on CUDA the tokens are sorted by expert and multiplied in grouped
products whose group borders stay on the device.
"""

from __future__ import annotations

import torch
from diffusers.models.attention import FeedForward
from torch import Tensor, nn
from torch.nn import functional as F

from backend.hunyuan3d.networks.layers import share_storage


class MixtureOfExperts(nn.Module):
    """shared(x) + sum over the top-k experts of p_e(x) expert_e(x), p a softmax over all experts, not renormalised."""

    def __init__(self, width: int, num_experts: int, top_k: int) -> None:
        super().__init__()
        self.width, self.num_experts, self.top_k = width, num_experts, top_k
        self.experts = nn.ModuleList(self.feed_forward() for _ in range(num_experts))
        self.gate = nn.Linear(width, num_experts, bias=False)
        self.shared_experts = self.feed_forward()
        self.fused: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    def feed_forward(self) -> FeedForward:
        """Linear(C, 4C), GELU, Linear(4C, C) under the released names net.0.proj and net.2."""
        return FeedForward(self.width, activation_fn="gelu", inner_dim=4 * self.width)

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
        weights, chosen = torch.softmax(self.gate(tokens), dim=-1).topk(self.top_k, dim=-1)
        expert, order = chosen.flatten().sort(stable=True)
        by_expert = self.run_experts(tokens[order // self.top_k], expert)
        # Undoing the sort by a gather keeps the sum's order fixed; scattered additions on CUDA would not.
        by_token = by_expert[order.argsort()].view(*chosen.shape, -1)
        out: Tensor = self.shared_experts(tokens) + (by_token * weights[..., None]).sum(1).to(x.dtype)
        return out.view_as(x)

    def run_experts(self, rows: Tensor, expert: Tensor) -> Tensor:
        """rows : (M, C) sorted by expert; expert : (M,) int64, rising -> (M, C)."""
        if self.fused is not None and rows.device.type == "cuda" and rows.dtype == torch.bfloat16:
            return self.run_grouped(rows, expert, self.fused)
        counts = torch.bincount(expert, minlength=self.num_experts).tolist()
        parts = torch.split(rows, counts)
        return torch.cat([module(part) for module, part in zip(self.experts, parts, strict=True)])

    def run_grouped(self, rows: Tensor, expert: Tensor, fused: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
        """The experts as two grouped products, without asking the device how many rows each one has."""
        w1, b1, w2, b2 = fused
        ends = torch.searchsorted(expert, torch.arange(self.num_experts, device=rows.device), right=True)
        ends = ends.to(torch.int32)
        hidden = F.gelu(F.grouped_mm(rows, w1.transpose(-2, -1), offs=ends) + b1[expert])
        out: Tensor = F.grouped_mm(hidden, w2.transpose(-2, -1), offs=ends) + b2[expert]
        return out
