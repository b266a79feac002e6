"""Measure a checkpoint through the public pipeline: held-out procedural shapes, then pictures from fonts never seen.

`python -m training.evaluate --checkpoint DIR --held-out DIR --out training` writes RESULTS.md and contact_sheet.png.
Knows the pipeline's public call only, nothing of networks or training.
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice, product
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from backend.hunyuan3d.pipeline import Hunyuan3DShapePipeline
from backend.hunyuan3d.results import ShapeResult, StageSeconds
from backend.limits import DEFAULT_OUTLINE, OutlineMode
from training.contact_sheet import Exhibit
from training.dataset import ShapeDataset
from training.held_out_images import HeldOutImage, held_out_images
from training.metrics import chamfer
from training.report import Plain, Results, Run, SweepRow, write_results
from training.scoring import Score, score
from training.tasks import Task, evenly, image_tasks, one_of_each, shape_tasks, true_surface

EXHIBITS = 24
SWEEP_STEPS = (3, 5, 10, 20)
SWEEP_GUIDANCE = (1.0, 1.5, 2.0, 3.0)
SWEEP_SHAPES, SWEEP_IMAGES = 64, 32
FLOOR_SHAPES = 16


@dataclass(frozen=True)
class Choices:
    """How meshes are asked for; None leaves the checkpoint's own default. Image k of a set gets the seed `seed` + k."""

    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    octree_resolution: int = 96
    batch_size: int = 16
    seed: int = 0
    outline: OutlineMode = DEFAULT_OUTLINE

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.seed < 0:
            raise ValueError("the batch must be at least 1 and the seed at least 0")


def evaluate(
    pipeline: Hunyuan3DShapePipeline,
    data: ShapeDataset,
    images: Sequence[HeldOutImage],
    choices: Choices,
    *,
    limit: int | None = None,
    with_sweep: bool = False,
    vae_iou: float | None = None,
) -> Results:
    """Measure everything that the report says, on the first `limit` shapes and evenly chosen pictures.

    Raises FileNotFoundError when there are no held-out shapes.
    """
    count = min(len(data), limit or len(data))
    if not count:
        raise FileNotFoundError(f"no held-out shapes in {data.directory}; make them with training.make_data")
    chosen = [images[k] for k in evenly(len(images), limit or len(images))]
    of_images = list(image_tasks(chosen))
    # The first call pays for what later ones find ready; it is not part of the times.
    make(pipeline, of_images[:1], choices, 0)
    kinds = [int(kind) for kind in data.column("kind", np.arange(count))]
    with progress("shapes", count) as bar:
        shapes = run(pipeline, shape_tasks(data, range(count)), choices, set(one_of_each(kinds, EXHIBITS)), bar)
    with progress("pictures", len(of_images)) as bar:
        drawn = run(pipeline, of_images, choices, set(evenly(len(of_images), EXHIBITS)), bar)
    plain = None
    if pipeline.config.defaults.view_aligned and choices.outline != "off":
        without = replace(choices, outline="off")
        with progress("without the outline", count + len(of_images)) as bar:
            plain = Plain(
                run(pipeline, shape_tasks(data, range(count)), without, frozenset(), bar).scores,
                run(pipeline, of_images, without, frozenset(), bar).scores,
            )
    rows: tuple[SweepRow, ...] = ()
    if with_sweep:
        few = list(shape_tasks(data, evenly(count, SWEEP_SHAPES), dense=False))
        rows = sweep(pipeline, few, [of_images[k] for k in evenly(len(of_images), SWEEP_IMAGES)], choices)
    defaults = pipeline.config.defaults
    return Results(
        checkpoint=pipeline.name,
        date=datetime.now(UTC).date(),
        machine=describe_machine(pipeline),
        num_inference_steps=choices.num_inference_steps or defaults.num_inference_steps,
        guidance_scale=defaults.guidance_scale if choices.guidance_scale is None else choices.guidance_scale,
        octree_resolution=choices.octree_resolution,
        batch_size=choices.batch_size,
        first_seed=choices.seed,
        shapes=shapes,
        images=drawn,
        plain=plain,
        sweep=rows,
        chamfer_floor=chamfer_floor(data, evenly(count, FLOOR_SHAPES)),
        vae_iou=vae_iou,
    )


def run(
    pipeline: Hunyuan3DShapePipeline,
    tasks: Iterable[Task],
    choices: Choices,
    shown: AbstractSet[int],
    bar: tqdm[None],
) -> Run:
    """Make and measure every task's mesh, batch by batch. shown : the tasks whose meshes are kept for the sheet."""
    scores: list[Score] = []
    exhibits: list[Exhibit] = []
    stages: list[StageSeconds] = []
    waiting = iter(tasks)
    while batch := list(islice(waiting, choices.batch_size)):
        results = make(pipeline, batch, choices, len(scores))
        stages.append(results[0].metadata.seconds)
        for task, result in zip(batch, results, strict=True):
            if len(scores) in shown:
                exhibits.append(Exhibit(task.name, task.image, result.mesh))
            scores.append(score(task, result, seed=len(scores)))
            bar.update()
    return Run(tuple(scores), tuple(stages), tuple(exhibits))


def make(pipeline: Hunyuan3DShapePipeline, batch: Sequence[Task], choices: Choices, first: int) -> list[ShapeResult]:
    """Call the pipeline once; the batch's first image is number `first`."""
    return pipeline(
        [task.image for task in batch],
        num_inference_steps=choices.num_inference_steps,
        guidance_scale=choices.guidance_scale,
        seeds=[choices.seed + first + k for k in range(len(batch))],
        octree_resolution=choices.octree_resolution,
        remove_background="never",
        outline=choices.outline,
    )


def sweep(
    pipeline: Hunyuan3DShapePipeline, shapes: Sequence[Task], images: Sequence[Task], choices: Choices
) -> tuple[SweepRow, ...]:
    """Run the same tasks with every number of steps and every guidance scale."""
    settings = list(product(SWEEP_STEPS, SWEEP_GUIDANCE))
    rows = []
    with progress("sweep", len(settings) * (len(shapes) + len(images))) as bar:
        for steps, guidance in settings:
            chosen = replace(choices, num_inference_steps=steps, guidance_scale=guidance)
            of_shapes, of_images = (run(pipeline, tasks, chosen, frozenset(), bar) for tasks in (shapes, images))
            rows.append(SweepRow(steps, guidance, of_shapes, of_images))
    return tuple(rows)


def chamfer_floor(data: ShapeDataset, rows: Sequence[int]) -> float:
    """Measure the Chamfer distance of true surfaces from themselves, drawn twice: what a perfect mesh would score."""
    index = np.asarray(rows, np.int64)
    seeds, stored = data.column("seed", index), data.column("surface", index)[..., :3].astype(np.float64)
    distances = [
        chamfer(true_surface(int(seed), points), true_surface(int(seed), points, draw=1))
        for seed, points in zip(seeds, stored, strict=True)
    ]
    return float(np.mean(distances))


def describe_machine(pipeline: Hunyuan3DShapePipeline) -> str:
    """Describe the machine in words: device, precision, cores, torch."""
    device = pipeline.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
    precision = str(pipeline.dtype).removeprefix("torch.")
    threads = f"{os.cpu_count()} cores, {torch.get_num_threads()} torch threads"
    return f"{name}, {precision}, {threads}, torch {torch.__version__}"


def progress(title: str, total: int) -> tqdm[None]:
    """Make a progress bar that counts images."""
    return tqdm(total=total, desc=title, unit="image")


def main(arguments: Sequence[str] | None = None) -> None:
    """Evaluate the checkpoint named on the command line and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", required=True, help="folder or name of the checkpoint")
    parser.add_argument("--held-out", type=Path, required=True, help="shards made with --occupancy")
    parser.add_argument("--out", type=Path, default=Path("training"))
    parser.add_argument("--fonts", type=Path, default=Path("data/fonts"), help="where a fetched emoji font is kept")
    parser.add_argument("--limit", type=int, help="at most so many shapes, and so many pictures")
    parser.add_argument("--sweep", action="store_true", help="also compare steps and guidance scales")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--resolution", type=int, default=Choices.octree_resolution)
    parser.add_argument("--batch", type=int, default=Choices.batch_size)
    parser.add_argument("--seed", type=int, default=Choices.seed)
    parser.add_argument("--device")
    parser.add_argument("--vae-iou", type=float, help="the VAE's own IoU, from its training log")
    given = parser.parse_args(arguments)
    pipeline = Hunyuan3DShapePipeline.from_pretrained(given.checkpoint, device=given.device)
    choices = Choices(given.steps, given.guidance, given.resolution, given.batch, given.seed)
    data, images = ShapeDataset(given.held_out), held_out_images(given.fonts)
    results = evaluate(
        pipeline, data, images, choices, limit=given.limit, with_sweep=given.sweep, vae_iou=given.vae_iou
    )
    write_results(results, given.out)


if __name__ == "__main__":
    main()
