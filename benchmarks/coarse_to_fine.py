"""Compares coarse-to-fine decoding with asking everywhere: points, seconds, and whether the mesh is the same.

    python -m benchmarks.coarse_to_fine
    python -m benchmarks.coarse_to_fine --checkpoint tests/golden/tiny-2.1 --pictures tests/golden/tiny-2.1/image0.png

It prints a table and writes it to benchmarks/results/. Fields are closed forms, or with --checkpoint those that a model
makes of pictures. Above 384 only coarse-to-fine is run.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from backend.errors import NoSurface, ServiceError
from backend.hunyuan3d.pipeline import Hunyuan3DShapePipeline
from backend.hunyuan3d.volume.decode import Field, decode_volume, dense_volume
from backend.hunyuan3d.volume.marching_cubes import extract_surface
from backend.hunyuan3d.volume.sparse_volume import SparseVolume
from benchmarks.support.fields import (
    AnalyticField,
    Topology,
    bumps,
    gyroid_in_ball,
    hausdorff,
    required_shapes,
    topology,
    truncated,
    waves,
)

RESULTS = Path(__file__).parent / "results"
COLUMNS = ["field", "R", "points, share", "coarse to fine, s", "dense, s", "ratio", "Hausdorff, cells"]
TOPOLOGY_COLUMNS = ["components, genus", "dense"]
Decode = Callable[[Field, int], list[SparseVolume | ServiceError]]


@dataclass(frozen=True)
class Found:
    """One field's mesh, vertices (V,3) and faces (F,3), and what it took."""

    volume: SparseVolume
    vertices: Tensor
    faces: Tensor
    seconds: float

    @property
    def topology(self) -> Topology:
        return topology(self.vertices, self.faces)


@dataclass(frozen=True)
class One:
    """One image of a batch of fields as a batch of its own."""

    batch: Field
    image: int
    batch_size: int = 1

    @property
    def device(self) -> torch.device:
        return self.batch.device

    def __call__(self, points: Tensor, image: int) -> Tensor:
        return self.batch(points, image + self.image)


def found(decode: Decode, field: Field, resolution: int) -> Found | None:
    """Decode and extract one field; None when it has no surface."""
    started = time.process_time() if field.device.type == "cpu" else time.perf_counter()
    volume = decode(field, resolution)[0]
    if isinstance(volume, ServiceError):
        raise volume
    try:
        vertices, faces = extract_surface(volume)
    except NoSurface:
        return None
    ended = time.process_time() if field.device.type == "cpu" else time.perf_counter()
    return Found(volume, vertices.cpu(), faces.cpu(), ended - started)


def row(name: str, field: Field, resolution: int, dense_up_to: int) -> str:
    """Return one row of the table."""
    sparse = found(decode_volume, field, resolution)
    dense = found(dense_volume, field, resolution) if resolution <= dense_up_to else None
    if sparse is None:
        return f"| {name} | {resolution} | no surface{' where dense finds one' if dense else ''} | | | | | | |"
    mine = sparse.topology
    points = f"{sparse.volume.points_evaluated:,}, {100 * sparse.volume.evaluated:.2f} %"
    start = f"| {name} | {resolution} | {points} | {sparse.seconds:.2f} |"
    if dense is None:
        return f"{start} | | | {mine.components}, {mine.genus} | |"
    other = dense.topology
    cells = hausdorff(sparse.vertices, dense.vertices) / (2 * dense.volume.bounds / resolution)
    return (
        f"{start} {dense.seconds:.2f} | {dense.seconds / sparse.seconds:.1f} | {cells:.3f} "
        f"| {mine.components}, {mine.genus} | {other.components}, {other.genus} |"
    )


def closed_forms(resolution: int) -> dict[str, Field]:
    """Return the fields with thin parts that have to come out, and some that are no distances."""
    shapes = required_shapes(resolution) | {
        "gyroid in a ball": gyroid_in_ball(),
        "gyroid in a ball, truncated": truncated(gyroid_in_ball()),
        "gaussians": bumps(1, 0.08),
        "waves": waves(1, 4.0),
    }
    return {name: AnalyticField([shape]) for name, shape in shapes.items()}


@torch.no_grad()
def model_fields(checkpoint: str, paths: list[Path], steps: int | None, device: str | None) -> dict[str, Field]:
    """Return what a model makes of pictures, each a field of its own."""
    pipeline = Hunyuan3DShapePipeline.from_pretrained(checkpoint, device=device)
    images = [Image.open(path) for path in paths]
    batch = pipeline.preprocess(images, remove_background="auto")
    latents = pipeline.sample_latents(pipeline.encode_images(batch.image), steps, seeds=list(range(len(images))))
    field = pipeline.shape_vae.field(pipeline.shape_vae.decode(latents))
    return {path.stem: One(field, index) for index, path in enumerate(paths)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resolutions", type=int, nargs="+", default=[64, 128, 256, 384, 512, 1024])
    parser.add_argument("--dense-up-to", type=int, default=384)
    parser.add_argument("--checkpoint", help="a checkpoint's folder or name, in place of closed forms")
    parser.add_argument("--pictures", type=Path, nargs="+", default=[])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--device")
    parser.add_argument("--date", default=time.strftime("%Y-%m-%d"))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    made = (
        model_fields(arguments.checkpoint, arguments.pictures, arguments.steps, arguments.device)
        if (arguments.checkpoint)
        else None
    )
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    lines = [
        f"# Coarse to fine against dense{f', checkpoint {Path(arguments.checkpoint).name}' if made else ''}",
        "",
        f"{machine}; {arguments.date}. One thread, processor seconds for decoding and extraction (on a GPU: wall "
        "clock). Points are those of all levels together, relative to (R+1)³. The ratio is dense to coarse-to-fine. "
        "Hausdorff distance is symmetric, between vertices."
        + ("" if made else " Thin parts are 2 cells thick, the balls 1 cell apart, at each R; truncation is at 0.05."),
        "",
        f"| {' | '.join(COLUMNS + TOPOLOGY_COLUMNS)} |",
        "|---" * len(COLUMNS + TOPOLOGY_COLUMNS) + "|",
    ]
    print("\n".join(lines), flush=True)
    for resolution in arguments.resolutions:
        for name, field in (made or closed_forms(resolution)).items():
            lines.append(row(name, field, resolution, arguments.dense_up_to))
            print(lines[-1], flush=True)
    out = arguments.out or RESULTS / ("coarse_to_fine_model.md" if made else "coarse_to_fine.md")
    out.parent.mkdir(exist_ok=True)
    out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
