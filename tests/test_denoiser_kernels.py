"""Our own kernels compute what their twins in torch do, run by Triton's interpreter."""

from __future__ import annotations

import os

import pytest
import torch

from backend.hunyuan3d.kernels.gelu_rows import E4M3_MAX, gelu_rows, gelu_rows_quantised, quantise
from backend.hunyuan3d.kernels.launch import TRITON_PRESENT
from tests.support.own_process import printed

# The interpreter is chosen when Triton is imported, so the kernels run in a process of their own.
NORMS = """
import torch
from backend.hunyuan3d.kernels.head_norms import head_norm, launch_norm_kernel
from backend.hunyuan3d.networks.layers import cut_heads
torch.manual_seed(0)
for rows, heads, d in ((37, 3, 48), (20, 4, 64), (1, 2, 16)):
    qkv = torch.randn(rows, 3 * heads * d)
    weights = torch.rand(d) + 0.5, torch.rand(d) + 0.5
    for q, k, _ in (cut_heads(qkv, heads, 3), qkv.view(rows, 3, heads, d).unbind(1)):
        out = launch_norm_kernel(q, k, *weights)
        for own, given, weight in zip(out, (q, k), weights, strict=True):
            torch.testing.assert_close(own, head_norm(given, weight), rtol=0, atol=2e-6)
            assert own.is_contiguous()
"""
GELU = """
import torch
from backend.hunyuan3d.kernels.gelu_rows import gelu_rows_plainly, launch, quantise
torch.manual_seed(0)
x = torch.randn(9, 200) * 3
x[0, :4] = torch.tensor([0.0, -9.0, 9.0, -1e-3])
bias, expert = torch.randn(3, 200), torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])
for given in ((None, None), (bias, expert)):
    exact = gelu_rows_plainly(x.double(), None if given[0] is None else bias.double(), given[1])
    out = torch.full_like(x, torch.nan)
    launch(x, *given, out, None)
    torch.testing.assert_close(out.double(), exact, rtol=2e-5, atol=1e-12)
    out, scale = torch.full_like(x, torch.nan), torch.full((9,), torch.nan)
    launch(x, *given, out, scale)
    torch.testing.assert_close((out * scale[:, None]).double(), exact, rtol=2e-5, atol=1e-12)
    torch.testing.assert_close(out.abs().amax(1), torch.full((9,), 448.0), rtol=1e-5, atol=0)
    torch.testing.assert_close(scale, quantise(exact)[1][:, 0], rtol=2e-5, atol=0)
"""


@pytest.mark.skipif(not TRITON_PRESENT, reason="Triton is not made for this machine")
@pytest.mark.parametrize("code", [NORMS, GELU], ids=["norms", "gelu"])
def test_a_kernel_computes_what_its_twin_does(code: str) -> None:
    printed(code, environment={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"})


def test_a_row_is_quantised_by_its_own_largest_value() -> None:
    x = torch.randn(5, 64) * torch.tensor([1e-6, 1e-2, 1.0, 1e3, 0.0])[:, None]
    values, scale = quantise(x)
    assert values.dtype == torch.float8_e4m3fn
    assert torch.equal(values.float().abs().amax(1), torch.tensor([E4M3_MAX, E4M3_MAX, E4M3_MAX, E4M3_MAX, 0.0]))
    # Three bits of mantissa: a value is off by a sixteenth of itself at most, near zero by a 2^-10 of the scale.
    assert bool(((values.float() * scale - x).abs() <= x.abs() / 16 + scale / 1024).all())


def test_on_the_cpu_torch_does_it() -> None:
    x, bias, expert = torch.randn(4, 32), torch.randn(2, 32), torch.tensor([0, 0, 1, 1])
    expected = torch.nn.functional.gelu(x + bias[expert])
    assert torch.equal(gelu_rows(x, bias, expert), expected)
    values, scale = gelu_rows_quantised(x, bias, expert)
    torch.testing.assert_close(values.float() * scale[:, None], expected, rtol=1 / 16, atol=1e-3)
