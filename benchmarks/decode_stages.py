"""Where decoding spends its time: the field, its parts and the search, with and without the kernels of our own.

    python -m benchmarks.decode_stages full --out OUT
    python -m benchmarks.decode_stages tiny --out OUT

`full` is the VAE of 2.1 with random weights at 384 and needs CUDA; `tiny` runs anywhere and only shows that the script
works. Values are replaced by an analytic shape's, as in benchmarks.full_size. OUT gets decode_stages.md and profiles.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from backend.hunyuan3d.kernels.norm_dot import norm_dot
from backend.hunyuan3d.kernels.query_norm import query_heads
from backend.hunyuan3d.networks.shape_vae import ShapeField, ShapeVAE
from backend.hunyuan3d.volume.decode import DecodeOptions, Field, decode_volume
from backend.hunyuan3d.volume.host_copy import to_main_memory
from backend.hunyuan3d.volume.marching_cubes import extract_surface
from backend.hunyuan3d.volume.sparse_volume import SparseVolume
from benchmarks.full_size import DESIGNS, DisguisedField


@dataclass(frozen=True)
class Setting:
    """What is measured on. chunk : points in one call of the field."""

    design: str
    resolution: int
    chunk: int
    device: torch.device
    dtype: torch.dtype


@dataclass(frozen=True)
class FreeField:
    """A field that costs nothing: what is left is the search."""

    batch_size: int
    device: torch.device

    def __call__(self, points: Tensor, image: int) -> Tensor:
        del image
        return points[:, 0]


@dataclass(frozen=True)
class PlainField:
    """A field by the geometry decoder as it was trained, nothing folded."""

    vae: ShapeVAE
    folded: ShapeField

    @property
    def batch_size(self) -> int:
        return self.folded.batch_size

    @property
    def device(self) -> torch.device:
        return self.folded.device

    def __call__(self, points: Tensor, image: int) -> Tensor:
        own = slice(image, image + 1)
        logits: Tensor = self.vae.geo_decoder(points[None], self.folded.keys[own], self.folded.values[own])
        return logits[0]


def setting(size: str) -> Setting:
    if size == "full":
        return Setting("2.1", 384, 1 << 17, torch.device("cuda"), torch.bfloat16)
    cuda = torch.cuda.is_available()
    device, dtype = torch.device("cuda" if cuda else "cpu"), torch.bfloat16 if cuda else torch.float32
    return Setting("tiny", 32, 1 << 13, device, dtype)


def milliseconds(device: torch.device, work: Callable[[], object], runs: int = 3) -> float:
    """Return the median of some runs after one, the device's work included."""
    times = []
    for _ in range(runs + 1):
        _wait(device)
        started = time.perf_counter()
        work()
        _wait(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:]) * 1e3


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def relative(value: Tensor, reference: Tensor) -> float:
    """Return ||value - reference|| / ||reference||."""
    return float((value.double() - reference.double()).norm() / reference.double().norm())


def write_profile(out: Path, name: str, device: torch.device, work: Callable[[], object]) -> int:
    """Profile one run into a file; returns how many operators the host started."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities) as profiler:
        work()
        _wait(device)
    averages = profiler.key_averages()
    order = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    text = averages.table(sort_by=order, row_limit=45, max_name_column_width=90)
    (out / f"profile_{name}.txt").write_text(text, encoding="utf-8")
    return sum(event.count for event in averages if event.key.startswith("aten::"))


def measure_parts(field: ShapeField, at: Setting) -> list[str]:
    """Return rows for the parts of one call of the field, `chunk` points."""
    decoder, k, v = field.decoder, field.keys[:1], field.values[:1]
    points = torch.rand(at.chunk, 3, device=at.device) * 2 - 1
    f = decoder.embedded(points)
    q = query_heads(f, decoder.query)
    heads = q.transpose(0, 1)[None]
    attended = F.scaled_dot_product_attention(heads, k, v)[0].transpose(0, 1).flatten(1)
    x = F.linear(f, decoder.carried)
    h = decoder.fc(x)
    parts: dict[str, Callable[[], object]] = {
        "embedding, kernel": lambda: decoder.embedded(points),
        "embedding, torch": lambda: replace(decoder, kernels=False).embedded(points),
        "queries, kernel": lambda: query_heads(f, decoder.query),
        "queries, torch": lambda: query_heads(f, decoder.query, kernels=False),
        "attention": lambda: F.scaled_dot_product_attention(heads, k, v),
        "attention, heads together": lambda: F.scaled_dot_product_attention(heads, k, v)[0].transpose(0, 1).flatten(1),
        "carried": lambda: F.linear(f, decoder.carried),
        "attention out, added": lambda: x.addmm_(attended, decoder.attention_out.t()),
        "ln_3": lambda: decoder.ln_3(x),
        "fc": lambda: decoder.fc(x),
        "gelu": lambda: F.gelu(h),
        "fc with gelu by tanh": lambda: torch._addmm_activation(
            decoder.fc.bias, x, decoder.fc.weight.t(), use_gelu=True
        ),
        "fc out, added": lambda: x.addmm_(h, decoder.fc_out.t()),
        "last, kernel": lambda: norm_dot(x, decoder.last),
        "last, torch": lambda: norm_dot(x, decoder.last, kernels=False),
        "whole call": lambda: decoder(points, k, v),
    }
    rows = []
    for name, work in parts.items():
        torch.nn.init.normal_(x)
        rows.append(f"| {name} | {milliseconds(at.device, work, 5):.3f} |")
        print(rows[-1], flush=True)
    return rows


def fields_of(vae: ShapeVAE, tokens: Tensor) -> dict[str, PlainField | ShapeField]:
    """Return the same fields, evaluated in the ways that are compared."""
    ours, without = vae.field(tokens), vae.field(tokens, kernels=False)
    return {"as trained": PlainField(vae, without), "folded, torch": without, "folded, kernels": ours}


def decoded(field: Field, at: Setting) -> list[SparseVolume]:
    """Return the volumes of fields that are disguised as a shape's."""
    options = DecodeOptions(max_points_per_call=at.chunk)
    found = decode_volume(DisguisedField(field), at.resolution, options)
    return [volume for volume in found if isinstance(volume, SparseVolume)]


def measure(at: Setting, out: Path) -> list[str]:
    """Return the whole report's lines."""
    torch.manual_seed(0)
    with torch.device(at.device):
        vae = ShapeVAE(DESIGNS[at.design].vae).to(at.dtype).requires_grad_(False).eval()
    latents = torch.randn(4, *vae.latent_shape, device=at.device)
    tokens = vae.decode(latents)
    names = list(fields_of(vae, tokens))
    works: dict[str, Callable[[int], object]] = {
        "tokens": lambda b: vae.decode(latents[:b]),
        "keys, values, folding": lambda b: vae.field(tokens[:b]),
        "search, field for nothing": lambda b: decoded(FreeField(b, at.device), at),
        **{name: partial(_decoded_by, vae, tokens, at, name) for name in names},
    }
    lines = ["| decoding | 1 image, ms | 4 images, ms |", "|---|---|---|"]
    for name, work in works.items():
        times = [milliseconds(at.device, partial(work, b)) for b in (1, 4)]
        lines.append(f"| {name} | {times[0]:.1f} | {times[1]:.1f} |")
        print(lines[-1], flush=True)
    field = vae.field(tokens)
    lines += measure_surfaces(field, at)
    lines += ["", f"| part of one call, {at.chunk} points | ms |", "|---|---|", *measure_parts(field, at), ""]
    lines += check(vae, tokens, at)
    for b in (1, 4):
        count = write_profile(out, f"search_{b}", at.device, partial(decoded, FreeField(b, at.device), at))
        lines.append(f"operators started by the search of {b}: {count}")
    write_profile(out, "decode_1", at.device, partial(decoded, vae.field(tokens[:1]), at))
    write_profile(out, "decode_4", at.device, partial(decoded, field, at))
    return lines


def _decoded_by(vae: ShapeVAE, tokens: Tensor, at: Setting, name: str, batch: int) -> object:
    return decoded(fields_of(vae, tokens[:batch])[name], at)


def measure_surfaces(field: ShapeField, at: Setting) -> list[str]:
    """Return rows for what follows decoding: surfaces here or there, and fields copied off."""
    volumes = decoded(field, at)
    on_cpu = [volume.cpu() for volume in volumes]
    works: dict[str, Callable[[], object]] = {
        "surfaces on the device": lambda: [extract_surface(volume) for volume in volumes],
        "surfaces on the CPU": lambda: [extract_surface(volume) for volume in on_cpu],
        "fields copied off plainly": lambda: [volume.cpu() for volume in volumes],
        "fields copied off": lambda: to_main_memory(volumes),
    }
    rows = [f"| {name} | | {milliseconds(at.device, work, 2):.1f} |" for name, work in works.items()]
    print("\n".join(rows), flush=True)
    return rows


def check(vae: ShapeVAE, tokens: Tensor, at: Setting) -> list[str]:
    """Compare with float32, and one image alone with the same in a batch."""
    points = torch.rand(4096, 3, device=at.device) * 2 - 1
    fields = fields_of(vae, tokens)
    values = {name: field(points, 1) for name, field in fields.items()}
    exact = ShapeVAE(vae.config).to(at.device).requires_grad_(False).eval()
    exact.load_state_dict(vae.state_dict())
    reference = exact.query(tokens[1:2].float(), points[None])[0]
    lines = [
        f"{name}: relative difference to float32 {relative(value, reference):.2e}" for name, value in values.items()
    ]
    small = replace(at, resolution=at.resolution // 4)
    alone, together = decoded(vae.field(tokens[1:2]), small)[0], decoded(vae.field(tokens), small)[1]
    same = torch.equal(alone.to_dense().nan_to_num(7.0), together.to_dense().nan_to_num(7.0))
    lines.append(f"an image's volume alone and in a batch of four: {'the same to the bit' if same else 'DIFFERENT'}")
    for line in lines:
        print(line, flush=True)
    return lines


@torch.no_grad()
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=["full", "tiny"])
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    at = setting(given.size)
    machine = torch.cuda.get_device_name(at.device) if at.device.type == "cuda" else "CPU"
    lines = [
        f"# Decoding, design {at.design} at {at.resolution}, random weights",
        "",
        f"{machine}, torch {torch.__version__}.",
        "",
    ]
    lines += measure(at, given.out)
    (given.out / "decode_stages.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
