"""What only a GPU can tell of single kernels: that they compute what their twins in torch do, and how fast.

python -m benchmarks.gpu_kernels
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from backend.hunyuan3d.kernels import head_norms
from backend.hunyuan3d.kernels.gelu_rows import (
    gelu_rows_on_device,
    gelu_rows_plainly,
    gelu_rows_quantised_on_device,
    quantise,
)
from backend.hunyuan3d.kernels.head_norms import _norms_plainly, head_norm, launch_norm_kernel
from backend.hunyuan3d.networks.conditioner import SingleImageEncoder
from backend.hunyuan3d.networks.fp8 import Fp8Experts, Fp8Linear
from backend.hunyuan3d.networks.layers import cut_heads
from benchmarks.denoise_variants import milliseconds, relative
from benchmarks.full_size import TINY


def check_norm_kernel() -> None:
    """Compare the norm kernel with float64, in both layouts of the projections, and time it."""
    for rows, heads, d in ((8 * 4097, 16, 128), (8884, 16, 64), (1000, 6, 32), (77, 3, 48)):
        qkv = torch.randn(rows, 3 * heads * d, device="cuda", dtype=torch.bfloat16)
        weights = [torch.rand(d, device="cuda", dtype=torch.bfloat16) + 0.5 for _ in range(2)]
        by_head = cut_heads(qkv, heads, 3)
        by_part = qkv.view(-1, 3, heads, d).unbind(-3)
        for layout, (q, k, _) in (("heads first", by_head), ("parts first", by_part)):
            out = launch_norm_kernel(q, k, *weights)
            exact = [head_norm(x.double(), w.double()) for x, w in zip((q, k), weights, strict=True)]
            errors = [relative(a, b) for a, b in zip(out, exact, strict=True)]
            kernel = milliseconds(partial(launch_norm_kernel, q, k, *weights), 20)
            twin = milliseconds(partial(_norms_plainly, q, k, *weights), 20)
            floor = 4 * q.numel() * 2 / 3e12 * 1e3
            print(f"FULL norm kernel {rows}x{heads}x{d} {layout}: errors {errors[0]:.1e} {errors[1]:.1e}; "
                  f"{kernel:.3f} ms, torch {twin:.3f} ms, bytes alone {floor:.3f} ms")  # fmt: skip


def check_norm_choices() -> None:
    """Time the norm kernel for other numbers of heads at once, and what the compiler makes of the same."""
    for rows, heads, d in ((8 * 4097, 16, 128), (8884, 16, 64)):
        qkv = torch.randn(rows, 3 * heads * d, device="cuda", dtype=torch.bfloat16)
        w = torch.ones(d, device="cuda", dtype=torch.bfloat16)
        q, k, _ = cut_heads(qkv, heads, 3)
        times = {}
        for at_once in (4, 8, 16, 32, 64):
            head_norms._HEADS_AT_ONCE = at_once
            times[at_once] = round(milliseconds(partial(launch_norm_kernel, q, k, w, w), 20), 3)
        head_norms._HEADS_AT_ONCE = 16

        def both(qkv: Tensor, w: Tensor, heads: int = heads) -> tuple[Tensor, Tensor]:
            q, k, _ = cut_heads(qkv, heads, 3)
            return head_norm(q, w), head_norm(k, w)

        compiled = torch.compile(both)
        compiled(qkv, w)
        ms = milliseconds(partial(compiled, qkv, w), 20)
        print(f"FULL norm kernel {rows}x{heads}x{d}: ms for heads at once {times}; by the compiler {ms:.3f}")


def check_gelu_rows() -> None:
    """Compare the GELU kernel with torch in float64, with and without experts' bias, plain and quantised; time it."""
    for rows, width, experts in ((32776, 8192, 0), (65552, 8192, 8), (1001, 200, 3)):
        x = torch.randn(rows, width, device="cuda", dtype=torch.bfloat16) * 2
        bias = torch.randn(experts, width, device="cuda", dtype=torch.bfloat16) if experts else None
        expert = torch.randint(experts, (rows,), device="cuda").sort().values if experts else None
        few = slice(rows - 500, rows)
        exact = gelu_rows_plainly(x[few].double(), None if bias is None else bias.double(),
                                  None if expert is None else expert[few])  # fmt: skip
        out = gelu_rows_on_device(x, bias, expert)
        values, scale = gelu_rows_quantised_on_device(x, bias, expert)
        plain, plain_scale = quantise(exact.to(x.dtype))
        differing = float((values[few].float() != plain.float()).float().mean())
        times = [milliseconds(partial(f, x, bias, expert), 10)
                 for f in (gelu_rows_on_device, gelu_rows_quantised_on_device, gelu_rows_plainly)]  # fmt: skip
        floor = 2 * x.numel() * 2 / 3e12 * 1e3
        error, scales = relative(out[few], exact), relative(scale[few], plain_scale.squeeze(-1))
        quantised = relative(values[few].float() * scale[few, None], exact)
        print(
            f"FULL gelu kernel {rows}x{width}, {experts} experts: error {error:.1e}; quantised {quantised:.1e}, "
            f"{differing:.2%} other values than torch's, scales {scales:.1e}; {times[0]:.3f} ms, quantised "
            f"{times[1]:.3f}, torch {times[2]:.3f}, bytes alone {floor:.3f}"
        )
    compiled = torch.compile(torch.nn.functional.gelu)
    x = torch.randn(32776, 8192, device="cuda", dtype=torch.bfloat16)
    compiled(x)
    print(f"FULL gelu by the compiler: {milliseconds(lambda: compiled(x), 10):.3f} ms")


def check_position_table() -> None:
    """Bicubic interpolation of a position table: the GPU's against the CPU's."""
    table = torch.randn(1, 32, 4, 4, generator=torch.Generator().manual_seed(0))
    resize = partial(torch.nn.functional.interpolate, size=(5, 5), mode="bicubic", align_corners=False)
    error = float((resize(table.cuda()).cpu() - resize(table)).abs().max())
    print(f"FULL bicubic 4x4 to 5x5: the GPU's differs from the CPU's by {error:.1e}")


def check_fp8() -> None:
    """Products in fp8 against the same arithmetic on dequantised values, and their rates."""
    for rows, width, hidden in ((32776, 2048, 8192), (8884, 1024, 4096)):
        x = torch.randn(rows, width, device="cuda", dtype=torch.bfloat16)
        bias = torch.randn(hidden, device="cuda", dtype=torch.bfloat16)
        linear = Fp8Linear(
            torch.randn(hidden, width, device="cuda", dtype=torch.bfloat16) * 0.02,
            bias,
        )
        values, scale = quantise(x[:512])
        expected = (values.float() @ linear.weight.float().t()) * scale * linear.scale + bias.float()
        exact = x[:512].float() @ (linear.weight.float() * linear.scale.t()).t() + bias.float()
        out = linear(x)
        ms = milliseconds(partial(linear, x), 10)
        values, scale = quantise(x)
        product = milliseconds(partial(_product, linear, values, scale), 10)
        rate = 2 * rows * width * hidden / product / 1e9
        print(f"FULL fp8 {rows}x{width}x{hidden}: to its emulation {relative(out[:512], expected):.1e}, to unquantised "
              f"activations {relative(out[:512], exact):.1e}; {ms:.3f} ms eager, product {product:.3f} ms "
              f"{rate:.0f} TFLOP/s")  # fmt: skip


def _product(linear: Fp8Linear, values: Tensor, scale: Tensor) -> Tensor:
    return torch._scaled_mm(
        values, linear.weight.t(), scale_a=scale, scale_b=linear.scale, bias=linear.bias, out_dtype=torch.bfloat16,
        use_fast_accum=True,
    )  # fmt: skip


def check_fp8_experts() -> None:
    """Compare grouped products in fp8 with bf16, with groups of any size, an empty one too."""
    sizes = [13107, 0, 4001, 9000, 20000, 7, 12000, 7437]
    ends = torch.tensor(sizes, device="cuda").cumsum(0).to(torch.int32)
    rows = torch.randn(sum(sizes), 2048, device="cuda", dtype=torch.bfloat16)
    weights = [torch.randn(8192, 2048, device="cuda", dtype=torch.bfloat16) * 0.02 for _ in sizes]
    experts = Fp8Experts(weights, [torch.zeros(8192, device="cuda", dtype=torch.bfloat16) for _ in sizes])
    out = experts(rows, ends)
    exact = torch.cat([part @ weight.t() for part, weight in zip(torch.split(rows, sizes), weights, strict=True)])
    ms = milliseconds(lambda: experts(rows, ends), 10)
    print(f"FULL fp8 experts: to bf16 {relative(out, exact):.1e}; {ms:.3f} ms, "
          f"{2 * len(rows) * 2048 * 8192 / ms / 1e9:.0f} TFLOP/s with quantising")  # fmt: skip


def check_conditioner() -> None:
    """Compare a small DINOv2 in float32 with the CPU's, under each setting that may round its products."""
    torch.manual_seed(0)
    encoder = SingleImageEncoder(TINY.conditioner).eval()
    image = torch.rand(2, 3, 56, 56) * 2 - 1
    exact = encoder(image)
    encoder = encoder.cuda()
    print("FULL float32 settings:", torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    for tf32 in (True, False):
        torch.backends.cudnn.allow_tf32 = tf32
        error = float((encoder(image.cuda()).cpu() - exact).abs().max())
        print(f"FULL cond in float32, convolutions in TF32 {tf32}: largest difference {error:.1e}")
    torch.backends.cudnn.allow_tf32 = True


def main() -> None:
    """Run every check; one that fails says so and stops no other."""
    checks: list[Callable[[], None]] = [
        check_norm_kernel,
        check_norm_choices,
        check_gelu_rows,
        check_fp8,
        check_fp8_experts,
        check_position_table,
        check_conditioner,
    ]
    if not torch.cuda.is_available():
        print("SKIPPED: no CUDA here")
        return
    torch.set_grad_enabled(False)
    for check in checks:
        try:
            check()
        except Exception:  # noqa: BLE001 (said, and the next is tried)
            print("FAILED", check.__name__, traceback.format_exc()[-1500:])


if __name__ == "__main__":
    main()
