"""Products in fp8 (e4m3): weights with one scale a row, activations with one scale a token, sums in float32.

`quantise_denoiser` replaces a denoiser's large products, all but those of its first and last block; attention, norms and
everything between stay as they are. Where no device for it is there, the same arithmetic is done on the dequantised
values. Knows nothing of sampling.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor, nn

from backend.hunyuan3d.networks.denoiser_v2_0 import Hunyuan3DDiT
from backend.hunyuan3d.networks.denoiser_v2_1 import Block, HunYuanDiTPlain
from backend.hunyuan3d.networks.gelu_rows import gelu_rows_quantised, quantise
from backend.hunyuan3d.networks.layers import Pieces
from backend.hunyuan3d.networks.mixture_of_experts import MixtureOfExperts

# cuBLAS and CUTLASS take fp8 operands whose rows are multiples of 16 bytes.
_MULTIPLE = 16


class Fp8Linear(nn.Module):
    """A linear layer in fp8, made from the weights of one in another precision."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """weight : (N, K); bias : (N,)."""
        super().__init__()
        values, scale = quantise(weight)
        self.weight = nn.Parameter(values, requires_grad=False)
        self.scale = nn.Parameter(scale.t().contiguous(), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """x : (..., K) -> (..., N) in x's precision."""
        rows = x.flatten(0, -2) if x.dim() != 2 else x
        values, scale = quantise(rows)
        out = self.product(values, scale).to(x.dtype)
        return out.unflatten(0, x.shape[:-1]) if x.dim() != 2 else out

    def product(self, values: Tensor, scale: Tensor) -> Tensor:
        """Rows that are quantised already: values (M, K) with scale (M, 1) -> (M, N)."""
        if values.device.type == "cuda":
            return torch._scaled_mm(
                values, self.weight.t(), scale_a=scale, scale_b=self.scale, bias=self.bias,
                out_dtype=torch.bfloat16, use_fast_accum=True,
            )  # fmt: skip
        out = (values.float() @ self.weight.float().t()) * scale * self.scale
        return out if self.bias is None else out + self.bias


class Fp8FeedForward(nn.Module):
    """Linear, exact GELU, Linear in fp8, the values between them quantised as they are made."""

    def __init__(self, first: nn.Linear, second: nn.Linear) -> None:
        super().__init__()
        self.first, self.second = Fp8Linear(first.weight, first.bias), Fp8Linear(second.weight, second.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x : (M, C) -> (M, C)."""
        values, scale = gelu_rows_quantised(self.first(x))
        return self.second.product(values, scale[:, None]).to(x.dtype)


class Fp8Experts(nn.Module):
    """One layer of all experts in fp8, as grouped products (mixture_of_experts.GroupedProduct)."""

    pieces: ClassVar[Pieces] = {"quantise_rows": ("rows",)}
    bias: nn.Parameter

    def __init__(self, weights: Iterable[Tensor], biases: Iterable[Tensor]) -> None:
        """weights : (N, K) of each expert; biases : (N,) of each."""
        super().__init__()
        quantised = [quantise(weight) for weight in weights]
        self.weight = nn.Parameter(torch.stack([values for values, _ in quantised]), requires_grad=False)
        self.scale = nn.Parameter(torch.stack([scale[:, 0] for _, scale in quantised]), requires_grad=False)
        self.bias = nn.Parameter(torch.stack([bias.detach() for bias in biases]), requires_grad=False)

    def forward(self, rows: Tensor, ends: Tensor, bias: Tensor | None = None, expert: Tensor | None = None) -> Tensor:
        """rows : (M, K) sorted by expert; ends : (experts,) int32 -> (M, N), without this layer's bias.

        bias, expert : the bias of the layer before and each row's expert, where the rows are still to go through GELU.
        """
        values, scale = self.quantise_rows(rows) if bias is None else gelu_rows_quantised(rows, bias, expert)
        if rows.device.type == "cuda":
            return torch._scaled_grouped_mm(
                values, self.weight.transpose(-2, -1), scale_a=scale, scale_b=self.scale, offs=ends,
                out_dtype=torch.bfloat16, use_fast_accum=True,
            )  # fmt: skip
        sizes = torch.diff(ends, prepend=ends.new_zeros(1)).tolist()
        parts = zip(values.float().split(sizes), self.weight, self.scale, strict=True)
        out = torch.cat([(part @ weight.float().t()) * row for part, weight, row in parts])
        return (out * scale[:, None]).to(rows.dtype)

    def quantise_rows(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """rows : (M, K) -> e4m3 values (M, K) and scale (M,)."""
        values, scale = quantise(rows)
        return values, scale.squeeze(-1)


def quantise_denoiser(denoiser: Hunyuan3DDiT | HunYuanDiTPlain) -> None:
    """Put fp8 products in the place of a denoiser's own, except in its first and last block."""
    if isinstance(denoiser, HunYuanDiTPlain):
        for block in denoiser.layers[1:-1]:
            _quantise_v2_1(block)
        return
    blocks = [*denoiser.double_blocks, *denoiser.single_blocks]
    for module in blocks[1:-1]:
        _quantise_linears(module)


def _quantise_v2_1(block: Block) -> None:
    joint = block.attn1
    weight = torch.cat([p.weight for p in (joint.to_q, joint.to_k, joint.to_v)])
    biases = [p.bias for p in (joint.to_q, joint.to_k, joint.to_v)]
    joint.qkv = Fp8Linear(weight, None if biases[0] is None else torch.cat(biases))
    del weight, joint.to_q, joint.to_k, joint.to_v
    joint.fused = None
    joint.out_proj = _fp8(joint.out_proj)
    block.attn2.to_q, block.attn2.out_proj = _fp8(block.attn2.to_q), _fp8(block.attn2.out_proj)
    if block.takes_skip:
        block.skip_linear = _fp8(block.skip_linear)
    if block.uses_moe:
        shared = block.moe.shared_experts
        block.moe.shared_experts = _feed_forward(shared, "net.0.proj", "net.2")
        _quantise_experts(block.moe)
    else:
        block.mlp = _feed_forward(block.mlp, "fc1", "fc2")


def _feed_forward(module: nn.Module, first: str, second: str) -> nn.Module:
    linears = [module.get_submodule(name) for name in (first, second)]
    fits = all(isinstance(_fp8(linear), Fp8Linear) for linear in linears)
    return Fp8FeedForward(*linears) if fits else module  # type: ignore[arg-type]


def _quantise_experts(moe: MixtureOfExperts) -> None:
    layers = []
    for name in ("net.0.proj", "net.2"):
        linears = [expert.get_submodule(name) for expert in moe.experts]
        layers.append(Fp8Experts([linear.weight for linear in linears], [linear.bias for linear in linears]))
    del moe.experts
    moe.fused, moe.grouped = None, nn.ModuleList(layers)


def _quantise_linears(module: nn.Module) -> None:
    """Replace the large linear layers inside a module; modulations, of one row, stay."""
    for name, child in list(module.named_children()):
        if name.endswith(("_mod", "modulation")):
            continue
        if isinstance(child, nn.Linear):
            setattr(module, name, _fp8(child))
        else:
            _quantise_linears(child)


def _fp8(linear: nn.Module) -> nn.Module:
    if not isinstance(linear, nn.Linear) or linear.in_features % _MULTIPLE or linear.out_features % _MULTIPLE:
        return linear
    return Fp8Linear(linear.weight, linear.bias)


def fp8_missing(device: torch.device) -> str | None:
    """Return why this device cannot compute in fp8, None where it can. The CPU emulates it."""
    if device.type == "cpu":
        return None
    if device.type != "cuda":
        return f"{device.type} has no fp8"
    if torch.cuda.get_device_capability(device) < (9, 0):
        return f"{torch.cuda.get_device_name(device)} is older than Hopper (compute capability 9.0)"
    return None
