"""Products in fp8 (e4m3): weights with one scale a row, activations with one scale a token, sums in float32.

`quantise_denoiser` replaces a denoiser's large products, all but those of its first and last block; attention, norms
and everything between stay as they are. Where there is no device for it, the same is computed from dequantised values.
Knows nothing of sampling.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor, nn

from backend.hunyuan3d.kernels.gelu_rows import gelu_rows_quantised, quantise
from backend.hunyuan3d.networks.denoiser_v2_0 import Hunyuan3DDiT
from backend.hunyuan3d.networks.denoiser_v2_1 import Block, HunYuanDiTPlain
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
        return out.view(*x.shape[:-1], -1)

    def product(self, values: Tensor, scale: Tensor) -> Tensor:
        """Rows that are quantised already: values (M, K) with scale (M, 1) -> (M, N)."""
        if values.device.type == "cuda":
            return torch._scaled_mm(
                values, self.weight.t(), scale_a=scale, scale_b=self.scale, bias=self.bias,
                out_dtype=torch.bfloat16, use_fast_accum=True,
            )  # fmt: skip
        out = (values.float() @ self.weight.float().t()) * scale * self.scale
        return out if self.bias is None else out + self.bias


class Fp8ExpertLayers(nn.Module):
    """Both layers of all experts (mixture_of_experts.GroupedLayers)."""

    def __init__(self, first: Fp8Experts, second: Fp8Experts) -> None:
        super().__init__()
        self.first, self.second = first, second


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
    """One layer of all experts in fp8, as grouped products (mixture_of_experts.GroupedLayer)."""

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
        parts = zip(torch.split(values.float(), sizes), self.weight, self.scale, strict=True)
        out = torch.cat([(part @ weight.float().t()) * row for part, weight, row in parts])
        return (out * scale[:, None]).to(rows.dtype)

    def quantise_rows(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """rows : (M, K) -> e4m3 values (M, K) and scale (M,)."""
        values, scale = quantise(rows)
        return values, scale.squeeze(-1)


def quantise_denoiser(denoiser: object) -> None:
    """Put fp8 products in the place of a denoiser's own, except in its first and last block."""
    if isinstance(denoiser, HunYuanDiTPlain):
        for block in denoiser.layers[1:-1]:
            _quantise_v2_1(block)
        return
    if not isinstance(denoiser, Hunyuan3DDiT):
        raise TypeError(f"{type(denoiser).__name__} is no denoiser of this model")
    blocks = [*denoiser.double_blocks, *denoiser.single_blocks]
    for module in blocks[1:-1]:
        _quantise_linears(module)


def _quantise_v2_1(block: Block) -> None:
    joint, crossing = block.attn1, block.attn2
    projections = (joint.to_q, joint.to_k, joint.to_v)
    weight = torch.cat([p.weight.detach() for p in projections])
    biases = [p.bias.detach() for p in projections if p.bias is not None]
    joint.qkv = Fp8Linear(weight, torch.cat(biases) if biases else None)
    # The joint projection is in their place.
    del weight, projections, joint.to_q, joint.to_k, joint.to_v
    joint.fused = None
    _replace(joint, "out_proj")
    _replace(crossing, "to_q")
    _replace(crossing, "out_proj")
    if block.takes_skip:
        _replace(block, "skip_linear")
    if block.uses_moe:
        _replace_feed_forward(block.moe, "shared_experts", "net.0.proj", "net.2")
        _quantise_experts(block.moe)
    else:
        _replace_feed_forward(block, "mlp", "fc1", "fc2")


def _replace(module: nn.Module, name: str) -> None:
    setattr(module, name, _fp8(getattr(module, name)))


def _replace_feed_forward(module: nn.Module, name: str, first: str, second: str) -> None:
    linears = [module.get_submodule(f"{name}.{layer}") for layer in (first, second)]
    if all(isinstance(linear, nn.Linear) and _fits(linear) for linear in linears):
        setattr(module, name, Fp8FeedForward(*linears))  # type: ignore[arg-type]


def _quantise_experts(moe: MixtureOfExperts) -> None:
    layers = []
    for name in ("net.0.proj", "net.2"):
        weights, biases = (
            [expert.get_parameter(f"{name}.{kind}") for expert in moe.experts] for kind in ("weight", "bias")
        )
        layers.append(Fp8Experts(weights, biases))
    del moe.experts
    moe.fused, moe.grouped = None, Fp8ExpertLayers(*layers)


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
    fits = isinstance(linear, nn.Linear) and _fits(linear)
    return Fp8Linear(linear.weight, linear.bias) if fits else linear  # type: ignore[arg-type]


def _fits(linear: nn.Linear) -> bool:
    return linear.in_features % _MULTIPLE == 0 and linear.out_features % _MULTIPLE == 0


def fp8_missing(device: torch.device) -> str | None:
    """Return why this device cannot compute in fp8, None where it can. The CPU emulates it."""
    if device.type == "cpu":
        return None
    if device.type != "cuda":
        return f"{device.type} has no fp8"
    if torch.cuda.get_device_capability(device) < (9, 0):
        return f"{torch.cuda.get_device_name(device)} is older than Hopper (compute capability 9.0)"
    return None
