"""The full-size designs with random weights on a GPU: stage times of whole batches, and every way to run a denoiser.

Random weights give no shape, so the geo decoder does all its work and its values are then replaced by those of an
analytic shape; search and surface extraction see a realistic surface. Needs CUDA for the full sizes; `tiny` runs
anywhere and shows that every path gives what the eager one gives.

    python -m benchmarks.full_size full --out outputs/full_size
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from backend.hunyuan3d.acceleration import evaluated_steps
from backend.hunyuan3d.checkpoint.config import CheckpointConfig
from backend.hunyuan3d.checkpoint.load import Checkpoint, build_denoiser
from backend.hunyuan3d.checkpoint.released import HUNYUAN3D_2_0, HUNYUAN3D_2_1, HUNYUAN3D_2_MINI, turbo
from backend.hunyuan3d.device.compile import CompiledPieces, keep_compiled_in
from backend.hunyuan3d.device.graphs import GRAPHED_TOKENS, GraphedDenoiser
from backend.hunyuan3d.networks.conditioner import ConditionerConfig, SingleImageEncoder
from backend.hunyuan3d.networks.denoiser_v2_0 import DenoiserV20Config
from backend.hunyuan3d.networks.denoiser_v2_1 import DenoiserV21Config, HunYuanDiTPlain
from backend.hunyuan3d.networks.dinov2 import DinoConfig
from backend.hunyuan3d.networks.fp8 import quantise_denoiser
from backend.hunyuan3d.networks.shape_vae import ShapeVAE
from backend.hunyuan3d.pipeline import Hunyuan3DShapePipeline
from backend.hunyuan3d.volume.decode import DecodeOptions, decode_volume
from backend.hunyuan3d.volume.marching_cubes import extract_surface
from backend.hunyuan3d.volume.sparse_volume import SparseVolume
from backend.limits import Acceleration
from benchmarks import denoise_variants
from benchmarks.support.fields import FieldAround

TINY = replace(
    HUNYUAN3D_2_1,
    denoiser=DenoiserV21Config(64, 64, 64, 32, 3, 4, num_moe_layers=1, num_experts=4),
    vae=replace(HUNYUAN3D_2_1.vae, num_latents=64, width=64, heads=4, num_decoder_layers=2),
    conditioner=ConditionerConfig(DinoConfig(32, 2, 2, image_size=56), 56),
)
TINY_2_0 = replace(
    HUNYUAN3D_2_0,
    denoiser=DenoiserV20Config(64, 32, 64, 4.0, 4, 2, 2),
    vae=TINY.vae,
    conditioner=TINY.conditioner,
)
DESIGNS = {
    "2.1": HUNYUAN3D_2_1,
    "2.0": HUNYUAN3D_2_0,
    "mini": HUNYUAN3D_2_MINI,
    "mini turbo": turbo(HUNYUAN3D_2_MINI),
    "tiny": TINY,
    "tiny 2.0": TINY_2_0,
}


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
class DisguisedField(FieldAround):
    """A field that costs what the model's costs and has the values of a box frame with a ball in it."""

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
    """Return a design at its full size with random weights, made on the device itself."""
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


@dataclass(frozen=True)
class Work:
    """One row of the table: a design, how many images, in how many steps, and with which acceleration."""

    design: str
    batch: int
    steps: int
    fp8: bool = False
    acceleration: Acceleration = "none"

    @property
    def label(self) -> str:
        """The row's name."""
        words = (self.design, "fp8" * self.fp8, self.acceleration if self.acceleration != "none" else "")
        return ", ".join(word for word in words if word)


def measure(pipeline: Hunyuan3DShapePipeline, work: Work, guidance: float, resolution: int) -> Row:
    """Measure the stages of one batch, each after a warm-up."""
    batch = work.batch
    device = pipeline.device
    size = pipeline.image_processor.size
    image = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(batch)) * 2 - 1
    cond = pipeline.encode_images(image)
    pipeline.sample_latents(cond, 2, guidance, seeds=list(range(batch)))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    encode = min(timed(device, lambda: pipeline.encode_images(image)) for _ in range(2))
    latents = torch.zeros(0)

    generation = pipeline.options(work.steps, guidance, resolution, work.acceleration)
    noise = pipeline.initial_noise(batch, list(range(batch)))

    def sample() -> None:
        nonlocal latents
        latents = pipeline.denoise(cond, noise, generation)

    sampling = timed(device, sample)
    options = DecodeOptions(max_points_per_call=1 << 17 if device.type == "cuda" else 1 << 15)
    volumes: list[SparseVolume] = []

    def decode() -> None:
        field = DisguisedField(pipeline.shape_vae.field(pipeline.shape_vae.decode(latents)))
        found = decode_volume(field, resolution, options)
        volumes[:] = [volume for volume in found if isinstance(volume, SparseVolume)]

    decode()
    decoding = timed(device, decode)
    surface = min(timed(device, lambda: [extract_surface(volume) for volume in volumes]) for _ in range(2))
    rows = batch * (1 if pipeline.denoiser.guidance_embed or guidance == 1 else 2)
    flop = evaluation_flop(pipeline.config) * rows * len(evaluated_steps(pipeline.scheduler, generation))
    memory = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0
    share = sum(volume.evaluated for volume in volumes) / len(volumes)
    return Row(
        work.label, batch, work.steps, encode, sampling, decoding, surface, share, memory, flop / sampling / 1e12
    )


def table(rows: list[Row], ceiling: float, resolution: int) -> str:
    """Return the rows as markdown."""
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


def device_and_dtype() -> tuple[torch.device, torch.dtype]:
    """Return the GPU in bf16 where there is one, else the CPU in float32."""
    if torch.cuda.is_available():
        return torch.device("cuda"), torch.bfloat16
    return torch.device("cpu"), torch.float32


def measure_variants(report: denoise_variants.Report, designs: list[str]) -> None:
    """Try every way to run the denoisers."""
    device, dtype = device_and_dtype()
    torch.set_grad_enabled(False)
    report.say("a large product runs at", f"{matmul_rate(device, dtype):.1f} TFLOP/s in {dtype}")
    for name in designs:
        batches = (1,) if name == "mini turbo" else (1, 4)
        profiled = {"2.1": 4, "tiny": 4}.get(name, 1)
        build = partial(random_pipeline, name, device, dtype)
        denoise_variants.measure_design(report, name, build, batches, profiled)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def compiled_pipeline(name: str, device: torch.device, dtype: torch.dtype, *, fp8: bool) -> Hunyuan3DShapePipeline:
    """Return the design as the service runs it on a GPU: compiled, small batches from graphs."""
    pipeline = random_pipeline(name, device, dtype)
    network = pipeline.denoiser
    assert isinstance(network, torch.nn.Module)
    if fp8:
        quantise_denoiser(network)
    CompiledPieces([network, pipeline.shape_vae]).use()
    pipeline.denoiser = GraphedDenoiser(pipeline.denoiser, GRAPHED_TOKENS)
    return pipeline


def measure_stages(report: denoise_variants.Report, works: list[Work], resolution: int) -> list[Row]:
    """Whole batches stage by stage, a design's batches one after the other."""
    device, dtype = device_and_dtype()
    rows: list[Row] = []
    pipeline, built = None, ("", False)
    for work in works:
        with report.attempt(f"stages of {work.label}, {work.batch} images", 60):
            if built != (work.design, work.fp8):
                pipeline = None
                gc.collect()
                pipeline = compiled_pipeline(work.design, device, dtype, fp8=work.fp8)
                built = (work.design, work.fp8)
                assert pipeline is not None
                report.say(f"{work.label}: first batch after", f"{timed(device, partial(first_batch, pipeline)):.1f} s")
            assert pipeline is not None
            rows.append(measure(pipeline, work, 5.0, resolution))
            report.say(rows[-1])
    return rows


def first_batch(pipeline: Hunyuan3DShapePipeline) -> None:
    """One image through everything that is compiled: seconds where the compilers' cache is warm."""
    size = pipeline.image_processor.size
    cond = pipeline.encode_images(torch.rand(1, 3, size, size) * 2 - 1)
    pipeline.decode_volumes(pipeline.sample_latents(cond, 2, 5.0, seeds=0), 32)


FULL_WORK = [
    *(Work("2.1", batch, 30) for batch in (1, 4)),
    *(Work("2.1", 4, 30, acceleration=acceleration) for acceleration in ("balanced", "fast")),
    *(Work("2.1", batch, 30, fp8=True) for batch in (1, 4)),
    Work("2.0", 1, 50),
    Work("2.0", 1, 50, acceleration="balanced"),
    Work("mini turbo", 1, 5),
    Work("2.0", 4, 50),
    *(Work("mini", batch, 50) for batch in (1, 4)),
]
TINY_WORK = [Work("tiny", 1, 3), Work("tiny", 4, 14, acceleration="balanced"), Work("tiny", 2, 3, fp8=True)]


def main() -> None:
    """Measure everything in one run: `full` on a GPU, `tiny` anywhere."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("form", choices=("full", "tiny"))
    parser.add_argument("--out", type=Path, required=True, help="folder for the table, profiles and figures")
    parser.add_argument("--seconds", type=float, default=380, help="time for all of it")
    parser.add_argument("--octree-resolution", type=int, default=384)
    parser.add_argument("--design", nargs="+", choices=sorted(DESIGNS), default=["2.1", "2.0", "mini", "mini turbo"])
    parser.add_argument("--cache", type=Path, help="folder for what the compilers make; in --out when not given")
    parser.add_argument("--only", choices=("variants", "stages"))
    arguments = parser.parse_args()
    if arguments.form == "full" and not torch.cuda.is_available():
        parser.error("the full-size designs need CUDA; `tiny` runs anywhere")
    arguments.out.mkdir(parents=True, exist_ok=True)
    tiny = arguments.form == "tiny"
    report = denoise_variants.Report(arguments.out, arguments.seconds, patience=20 if tiny else 1)
    device, dtype = device_and_dtype()
    keep_compiled_in(arguments.cache or arguments.out / "compiled")
    if arguments.only != "stages":
        measure_variants(report, ["tiny", "tiny 2.0"] if tiny else arguments.design)
        (arguments.out / "variants.json").write_text(json.dumps(report.rows, indent=1), encoding="utf-8")
    if arguments.only != "variants":
        resolution = 32 if tiny else arguments.octree_resolution
        works = TINY_WORK if tiny else [work for work in FULL_WORK if work.design in arguments.design]
        rows = measure_stages(report, works, resolution)
        text = f"{_machine(device)}, torch {torch.__version__}, {datetime.now(UTC):%Y-%m-%d}. "
        text += table(rows, matmul_rate(device, dtype), resolution)
        print(text, flush=True)
        (arguments.out / "stages.md").write_text(text, encoding="utf-8")


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()}, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    main()
