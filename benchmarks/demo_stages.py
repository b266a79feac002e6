"""What the demo checkpoint takes on this machine: stage times, and a batch of pictures against the same ones singly.

    python -m benchmarks.demo_stages --out benchmarks/results/demo_stages.md

Every figure is the median of several runs after a warm-up; batches and singles alternate within one run, since machines
are noisy. The batch and the singles are also compared: the same picture with the same seed must give the same latents.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path

import torch
from PIL import Image

from backend.hunyuan3d.device.malloc import prepare_malloc
from backend.hunyuan3d.pipeline import Hunyuan3DShapePipeline
from backend.hunyuan3d.results import ShapeResult, StageSeconds

STAGES = ("preprocess", "encode", "sample", "decode", "mesh")


def generate(
    pipeline: Hunyuan3DShapePipeline, images: list[Image.Image], seeds: list[int], r: int
) -> list[ShapeResult]:
    """Make the pipeline's public call with the checkpoint's own steps and guidance."""
    return pipeline(images, seeds=seeds, octree_resolution=r)


def timed(
    pipeline: Hunyuan3DShapePipeline, images: list[Image.Image], r: int, batch: int
) -> tuple[float, list[StageSeconds]]:
    """Return the seconds for all pictures in batches of `batch`, and each batch's stages."""
    started = time.perf_counter()
    stages = []
    for first in range(0, len(images), batch):
        part = images[first : first + batch]
        stages.append(generate(pipeline, part, list(range(first, first + len(part))), r)[0].metadata.seconds)
    return time.perf_counter() - started, stages


def largest_difference(pipeline: Hunyuan3DShapePipeline, images: list[Image.Image]) -> float:
    """Return how far latents made in one batch lie from those made one by one."""
    image = pipeline.preprocess(images, remove_background="auto").image
    seeds = list(range(len(images)))
    together = pipeline.sample_latents(pipeline.encode_images(image), seeds=seeds)
    alone = [pipeline.sample_latents(pipeline.encode_images(image[k : k + 1]), seeds=[k]) for k in seeds]
    return float((together - torch.cat(alone)).abs().max())


def report(pipeline: Hunyuan3DShapePipeline, images: list[Image.Image], repeats: int, resolutions: list[int]) -> str:
    """Return all tables, as markdown."""
    threads, defaults = torch.get_num_threads(), pipeline.config.defaults
    lines = [
        "# The demo checkpoint on this machine",
        "",
        f"{platform.machine()} CPU, {os.cpu_count()} cores, {threads} torch threads, float32, torch "
        f"{torch.__version__}, {datetime.now(UTC):%Y-%m-%d}. Medians of {repeats} warm runs, {len(images)} pictures, "
        f"{defaults.num_inference_steps} steps, guidance {defaults.guidance_scale:g}.",
        "",
        "## Seconds a picture, by stage (pictures one at a time)",
        "",
        "| resolution | " + " | ".join(STAGES) + " | total |",
        "|---|" + "---|" * (len(STAGES) + 1),
    ]
    comparison = []
    for r in resolutions:
        timed(pipeline, images, r, 1)
        singles, batches, stages = [], [], []
        for _ in range(repeats):
            seconds, each = timed(pipeline, images, r, 1)
            singles.append(seconds)
            stages += each
            batches.append(timed(pipeline, images, r, len(images))[0])
        medians = [statistics.median(getattr(stage, name) for stage in stages) for name in STAGES]
        total = statistics.median(stage.total for stage in stages)
        lines.append(f"| {r} | " + " | ".join(f"{m:.3f}" for m in medians) + f" | {total:.3f} |")
        comparison.append((r, statistics.median(singles), statistics.median(batches)))
    n = len(images)
    lines += [
        "",
        f"## A batch of {n} against {n} singles",
        "",
        "| resolution | singles s | batch s | ratio |",
        "|---|---|---|---|",
    ]
    lines += [f"| {r} | {one:.2f} | {many:.2f} | {one / many:.2f} |" for r, one, many in comparison]
    lines += ["", f"Largest difference of latents, batch against alone: {largest_difference(pipeline, images):.1e}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="demo")
    parser.add_argument("--images", type=Path, default=Path("samples"))
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--octree-resolution", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    prepare_malloc()
    pipeline = Hunyuan3DShapePipeline.from_pretrained(arguments.checkpoint)
    paths = sorted(arguments.images.glob("*.png"))[: arguments.count]
    images = [Image.open(path).convert("RGBA") for path in paths]
    text = report(pipeline, images, arguments.repeats, arguments.octree_resolution)
    print(text)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
