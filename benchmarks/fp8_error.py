"""What fp8 costs in accuracy: the demo checkpoint's meshes in fp8 against float32, and bf16 beside it.

    python -m benchmarks.fp8_error --shapes 50 --out benchmarks/results/fp8_error.md

Latents are compared by |a - b| / |b|, shapes by the overlap of their insides (intersection over union) on a grid of
points. The images are the samples, each with several seeds; fp8 on a CPU is the same arithmetic on dequantised values.
"""

from __future__ import annotations

import argparse
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

from backend.hunyuan3d.networks.fp8 import quantise_denoiser
from backend.hunyuan3d.pipeline import Hunyuan3DShapePipeline

_SAMPLES = Path(__file__).parents[1] / "samples"
_GRID = 32
_BATCH = 10


@dataclass(frozen=True)
class Errors:
    """One precision's differences to float32, one value for each shape."""

    latents: Tensor
    overlap: Tensor


def load(precision: str, device: str) -> Hunyuan3DShapePipeline:
    """Return the demo model. precision : fp32, bf16 or fp8, the last with everything else in float32 on a CPU."""
    whole = "fp32" if device == "cpu" and precision == "fp8" else precision.replace("fp8", "bf16")
    pipeline = Hunyuan3DShapePipeline.from_pretrained("demo", device=device, dtype=whole)
    if precision == "fp8":
        quantise_denoiser(pipeline.denoiser)
    return pipeline


@torch.no_grad()
def insides(pipeline: Hunyuan3DShapePipeline, latents: Tensor) -> Tensor:
    """Return which of a grid's points are inside: (B, N, E) -> (B, points) bool."""
    side = torch.linspace(-1.01, 1.01, _GRID)
    points = torch.cartesian_prod(side, side, side).to(pipeline.device)
    vae = pipeline.shape_vae
    tokens = vae.decode(latents)
    return torch.cat([vae.query(own[None], points[None]) > 0 for own in tokens])


def compare(reference: Hunyuan3DShapePipeline, other: Hunyuan3DShapePipeline, cond: Tensor, seeds: list[int]) -> Errors:
    """Sample the same images with both; fields are decoded in float32, so that only sampling differs."""
    latents, overlaps = [], []
    for start in range(0, len(seeds), _BATCH):
        part = slice(start, start + _BATCH)
        exact, own = (pipeline.sample_latents(cond[part], seeds=seeds[part]) for pipeline in (reference, other))
        inside, claimed = insides(reference, exact), insides(reference, own)
        latents.append((own - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1))
        overlaps.append((inside & claimed).sum(1) / (inside | claimed).sum(1).clamp_min(1))
    return Errors(torch.cat(latents), torch.cat(overlaps))


def table(rows: dict[str, Errors], shapes: int, device: str) -> str:
    """Return the report."""
    lines = [
        "# What fp8 costs in accuracy",
        "",
        f"The demo checkpoint, {shapes} shapes (samples with several seeds), its own number of steps and guidance, on "
        f"{platform.machine()} ({device}), torch {torch.__version__}, {datetime.now(UTC):%Y-%m-%d}. Against float32.",
        "",
        "| precision of the denoiser | latents: mean | worst | IoU: mean | median | worst |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {errors.latents.mean():.1e} | {errors.latents.max():.1e} | {errors.overlap.mean():.4f} "
        f"| {errors.overlap.median():.4f} | {errors.overlap.min():.4f} |"
        for name, errors in rows.items()
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Compare and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", type=int, default=50)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    reference = load("fp32", arguments.device)
    images = sorted(_SAMPLES.glob("*.png"))
    batch = reference.preprocess(list(images), "auto")
    cond = reference.encode_images(batch.image)
    which = [k % len(images) for k in range(arguments.shapes)]
    seeds = [k // len(images) for k in range(arguments.shapes)]
    rows = {name: compare(reference, load(name, arguments.device), cond[which], seeds) for name in ("bf16", "fp8")}
    text = table(rows, arguments.shapes, arguments.device)
    print(text)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
