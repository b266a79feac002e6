"""The rows between a feed-forward's two products: bias, exact GELU and, for fp8, quantisation, each row read once.

On CUDA one Triton kernel takes a row at a time, in compiled code too; elsewhere, and while gradients are wanted, plain
torch does the same. Shapes: M rows of K values; experts' rows have each its expert's bias.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from backend.hunyuan3d.kernels.launch import WithTwin, kernels_run_on

E4M3_MAX = 448.0
SMALLEST_SCALE = 1e-12
_WIDEST_ROW = 16384


def gelu_rows(x: Tensor, bias: Tensor | None = None, expert: Tensor | None = None) -> Tensor:
    """GELU(x + bias) in x's precision.

    x : (M, K); bias : (experts, K) with expert : (M,) int64 saying which row of it is each row's, or None.
    """
    if _is_for_kernel(x):
        rows: Tensor = gelu_rows_on_device(x, bias, expert)
        return rows
    return gelu_rows_plainly(x, bias, expert)


def gelu_rows_quantised(x: Tensor, bias: Tensor | None = None, expert: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return e4m3 values (M, K) and float32 scales (M,): GELU(x + bias) ~ values * scale. Arguments as `gelu_rows`."""
    if _is_for_kernel(x):
        values, scale = gelu_rows_quantised_on_device(x, bias, expert)
        return values, scale
    return gelu_rows_quantised_plainly(x, bias, expert)


def gelu_rows_plainly(x: Tensor, bias: Tensor | None, expert: Tensor | None) -> Tensor:
    """Do in torch what the kernel does."""
    return F.gelu(x if bias is None else x + bias[expert])


def gelu_rows_quantised_plainly(x: Tensor, bias: Tensor | None, expert: Tensor | None) -> tuple[Tensor, Tensor]:
    """Do in torch what the kernel does."""
    values, scale = quantise(gelu_rows_plainly(x, bias, expert))
    return values, scale.squeeze(-1)


def quantise(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return e4m3 values and the float32 scale of each row: x ~ values * scale.

    x : (..., K) -> values (..., K), scale (..., 1), so that the largest value of a row is 448.
    """
    x = x.float()
    scale = (x.abs().amax(-1, keepdim=True) / E4M3_MAX).clamp_min(SMALLEST_SCALE)
    return (x / scale).clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn), scale


# Operators of their own, so that compiled code calls them as they are.
@torch.library.custom_op("orfeas::gelu_rows", mutates_args=())
def gelu_rows_on_device(x: Tensor, bias: Tensor | None, expert: Tensor | None) -> Tensor:
    """Run the kernel, or its twin where it cannot run."""
    return _GELU_ROWS(kernels_run_on(x), x, bias, expert)


@gelu_rows_on_device.register_fake
def _(x: Tensor, bias: Tensor | None, expert: Tensor | None) -> Tensor:  # noqa: ARG001
    return torch.empty_like(x)


@torch.library.custom_op("orfeas::gelu_rows_quantised", mutates_args=())
def gelu_rows_quantised_on_device(x: Tensor, bias: Tensor | None, expert: Tensor | None) -> tuple[Tensor, Tensor]:
    """Run the kernel, or its twin where it cannot run."""
    return _GELU_ROWS_QUANTISED(kernels_run_on(x), x, bias, expert)


@gelu_rows_quantised_on_device.register_fake
def _(x: Tensor, bias: Tensor | None, expert: Tensor | None) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    return _empty_quantised(x)


def _empty_quantised(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape, dtype=torch.float8_e4m3fn), x.new_empty(x.shape[:1], dtype=torch.float32)


def _is_for_kernel(x: Tensor) -> bool:
    if x.device.type != "cuda" or x.requires_grad or x.dim() != 2 or x.dtype == torch.float32:
        return False
    return x.is_contiguous() and x.shape[1] <= _WIDEST_ROW


def launch(x: Tensor, bias: Tensor | None, expert: Tensor | None, out: Tensor, scale: Tensor | None) -> None:
    """Run the kernel. out : (M, K), in x's precision, or e4m3 with scale (M,). Needs Triton."""
    # Importing a kernel imports Triton, which not every machine has or uses.
    from backend.hunyuan3d.kernels.gelu_rows_triton import gelu_of_rows

    width = x.shape[1]
    block = 1 << (width - 1).bit_length()
    gelu_of_rows[(x.shape[0],)](
        x, x if bias is None else bias, x if expert is None else expert, out, x if scale is None else scale,
        width, E4M3_MAX, SMALLEST_SCALE, BLOCK=block, BIASED=bias is not None, QUANTISED=scale is not None,
        num_warps=8 if block >= 4096 else 4,
    )  # fmt: skip


def _launched(x: Tensor, bias: Tensor | None, expert: Tensor | None) -> Tensor:
    out = torch.empty_like(x)
    launch(x, bias, expert, out, None)
    return out


def _launched_quantised(x: Tensor, bias: Tensor | None, expert: Tensor | None) -> tuple[Tensor, Tensor]:
    out, scale = _empty_quantised(x)
    launch(x, bias, expert, out, scale)
    return out, scale


_GELU_ROWS = WithTwin("gelu_rows", _launched, gelu_rows_plainly)
_GELU_ROWS_QUANTISED = WithTwin("gelu_rows_quantised", _launched_quantised, gelu_rows_quantised_plainly)
