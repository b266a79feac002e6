"""Stage times of the full-size designs with random weights: what a GPU makes of batches of 1, 2, 4 and 8 pictures.

Random weights give no shape, so the geo decoder does all its work and its values are then replaced by those of an
analytic shape; search and surface extraction see a realistic surface. Needs CUDA for the full sizes; `--design tiny`
runs anywhere and only shows that the script works.

    python -m benchmarks.full_size --design 2.1 2.0 --batches 1 2 4 8 --out benchmarks/results/full_size.md
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

from backend.hunyuan3d.checkpoint.config import CheckpointConfig
from backend.hunyuan3d.checkpoint.load import Checkpoint, build_denoiser
from backend.hunyuan3d.checkpoint.released import HUNYUAN3D_2_0, HUNYUAN3D_2_1, HUNYUAN3D_2_MINI
from backend.hunyuan3d.networks.conditioner import ConditionerConfig, DinoConfig, SingleImageEncoder
from backend.hunyuan3d.networks.denoiser_v2_0 import DenoiserV20Config
from backend.hunyuan3d.networks.denoiser_v2_1 import DenoiserV21Config, HunYuanDiTPlain
from backend.hunyuan3d.networks.shape_vae import ShapeVAE
from backend.hunyuan3d.pipeline import Hunyuan3DShapePipeline
from backend.hunyuan3d.volume.decode import DecodeOptions, Field, decode_volume
from backend.hunyuan3d.volume.marching_cubes import extract_surface
from backend.hunyuan3d.volume.sparse_volume import SparseVolume

TINY = replace(
    HUNYUAN3D_2_1,
    denoiser=DenoiserV21Config(64, 64, 64, 32, 3, 4, num_moe_layers=1, num_experts=4),
    vae=replace(HUNYUAN3D_2_1.vae, num_latents=64, width=64, heads=4, num_decoder_layers=2),
    conditioner=ConditionerConfig(DinoConfig(32, 2, 2, image_size=56), 56),
)
DESIGNS = {"2.1": HUNYUAN3D_2_1, "2.0": HUNYUAN3D_2_0, "mini": HUNYUAN3D_2_MINI, "tiny": TINY}


@dataclass(frozen=True)
class Row:
    """One batch's figures. Seconds are for the whole batch; memory in GiB; sampling rate in TFLOP/s."""

    design: str
    batch: int
    steps: int
    encode: float
    sample: float
    decode: float
    surface: float
    evaluated: float
    memory: float
    rate: float

    @property
    def total(self) -> float:
        """All stages one after the other."""
        return self.encode + self.sample + self.decode + self.surface


@dataclass(frozen=True)
class DisguisedField:
    """A field that costs what the model's costs and has the values of a box frame with a ball in it."""

    inner: Field

    @property
    def batch_size(self) -> int:
        return self.inner.batch_size

    @property
    def device(self) -> torch.device:
        return self.inner.device

    def __call__(self, points: Tensor, image: int) -> Tensor:
        logits = self.inner(points, image)
        ball = 0.45 - points.norm(dim=-1)
        x, y, z = points.abs().unbind(-1)
        outer = 0.85 - points.abs().amax(-1)
        # The middle one of the three; sorting them would take as long as the search itself.
        hole = torch.maximum(torch.minimum(x, y), torch.minimum(torch.maximum(x, y), z)) - 0.7
        frame = torch.minimum(outer, hole)
        # Adding the model's values at weight zero keeps them from being optimised away.
        return (torch.maximum(ball, frame) / 0.1).clamp(-1, 1) + 0 * logits.nan_to_num()


def random_pipeline(name: str, device: torch.device, dtype: torch.dtype) -> Hunyuan3DShapePipeline:
    """A design at its full size with random weights, made on the device itself."""
    config = DESIGNS[name]
    torch.manual_seed(0)
    with torch.device(device):
        denoiser, vae = build_denoiser(config), ShapeVAE(config.vae)
        conditioner = SingleImageEncoder(config.conditioner)
    for module in (denoiser, vae, conditioner):
        module.to(dtype).requires_grad_(False).eval()
    if isinstance(denoiser, HunYuanDiTPlain):
        denoiser.fuse()
    return Hunyuan3DShapePipeline(Checkpoint(f"random {name}", config, denoiser, vae, conditioner), device, dtype)


def evaluation_flop(config: CheckpointConfig) -> float:
    """Floating-point operations of one denoiser evaluation of one image, a multiply-add being two."""
    n, t = config.vae.num_latents, (config.conditioner.image_size // config.conditioner.dino.patch_size) ** 2 + 1
    c = config.denoiser.hidden_size
    if isinstance(config.denoiser, DenoiserV20Config):
        tokens = n + t
        per_layer = 2 * tokens * 12 * c * c + 4 * tokens * tokens * c
        return per_layer * (config.denoiser.depth + config.denoiser.depth_single_blocks)
    d = config.denoiser
    tokens = n + 1
    attention = 2 * tokens * 6 * c * c + 4 * tokens * c * (tokens + t)
    feed_forward = 2 * tokens * 8 * c * c
    skips = 2 * tokens * 2 * c * c * (d.depth - d.depth // 2 - 1)
    return d.depth * (attention + feed_forward) + d.num_moe_layers * d.moe_top_k * feed_forward + skips


def timed(device: torch.device, work: Callable[[], object]) -> float:
    """Seconds of one call, the device's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """TFLOP/s of a large product of random matrices, the best of five: the ceiling here and now."""
    side = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    timed(device, lambda: a @ b)
    return 2 * side**3 / min(timed(device, lambda: a @ b) for _ in range(5)) / 1e12


def measure(
    pipeline: Hunyuan3DShapePipeline, name: str, batch: int, steps: int, guidance: float, resolution: int
) -> Row:
    """Stage times of one batch: best of two runs after a warm-up of every stage."""
    device = pipeline.device
    size = pipeline.image_processor.size
    image = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(batch)) * 2 - 1
    cond = pipeline.encode_images(image)
    pipeline.sample_latents(cond, 2, guidance, seeds=list(range(batch)))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    encode = min(timed(device, lambda: pipeline.encode_images(image)) for _ in range(2))
    latents = torch.zeros(0)

    def sample() -> None:
        nonlocal latents
        latents = pipeline.sample_latents(cond, steps, guidance, seeds=list(range(batch)))

    sampling = timed(device, sample)
    options = DecodeOptions(max_points_per_call=1 << 17 if device.type == "cuda" else 1 << 15)
    volumes: list[SparseVolume] = []

    def decode() -> None:
        field = DisguisedField(pipeline.shape_vae.field(pipeline.shape_vae.decode(latents)))
        found = decode_volume(field, resolution, options)
        volumes[:] = [volume for volume in found if isinstance(volume, SparseVolume)]

    decode()
    decoding = timed(device, decode)
    surface = timed(device, lambda: [extract_surface(volume) for volume in volumes])
    rows = batch * (1 if pipeline.denoiser.guidance_embed or guidance == 1 else 2)
    flop = evaluation_flop(pipeline.config) * rows * (steps - 1)
    memory = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0
    share = sum(volume.evaluated for volume in volumes) / len(volumes)
    return Row(name, batch, steps, encode, sampling, decoding, surface, share, memory, flop / sampling / 1e12)


def table(rows: list[Row], ceiling: float, resolution: int) -> str:
    """The rows as markdown."""
    lines = [
        f"Octree resolution {resolution}; a large product runs at {ceiling:.1f} TFLOP/s on this device. Seconds are",
        "for the whole batch. The geo decoder's values are replaced by an analytic shape after its work is done.",
        "",
        "| design | batch | steps | encode s | sample s | decode s | surface s | total s | points asked | GiB "
        "| sampling TFLOP/s | of the product |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.design} | {r.batch} | {r.steps} | {r.encode:.3f} | {r.sample:.3f} | {r.decode:.3f} | {r.surface:.3f} "
        f"| {r.total:.3f} | {r.evaluated:.2%} | {r.memory:.1f} | {r.rate:.1f} | {r.rate / ceiling:.0%} |"
        for r in rows
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--design", nargs="+", choices=sorted(DESIGNS), default=["2.1", "2.0"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--guidance-scale", type=float, default=5.0)
    parser.add_argument("--octree-resolution", type=int, default=384)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    on_gpu = torch.cuda.is_available()
    if not on_gpu and set(arguments.design) != {"tiny"}:
        parser.error("the full-size designs need CUDA; --design tiny runs anywhere")
    device = torch.device("cuda" if on_gpu else "cpu")
    dtype = torch.bfloat16 if on_gpu else torch.float32
    ceiling = matmul_rate(device, dtype)
    rows = []
    for name in arguments.design:
        pipeline = random_pipeline(name, device, dtype)
        for batch in arguments.batches:
            rows.append(
                measure(pipeline, name, batch, arguments.steps, arguments.guidance_scale, arguments.octree_resolution)
            )
            print(rows[-1], flush=True)
        del pipeline
    machine = (
        torch.cuda.get_device_name(device) if on_gpu else f"{platform.machine()}, {torch.get_num_threads()} threads"
    )
    text = (
        f"# Full-size designs, random weights\n\n{machine}, torch {torch.__version__}, {datetime.now(UTC):%Y-%m-%d}. "
    )
    text += table(rows, ceiling, arguments.octree_resolution)
    print(text)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
