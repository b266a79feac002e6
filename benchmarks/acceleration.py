"""Fewer evaluations of the denoiser: each way's meshes against those of all 50 steps, beside the plain sampler's curve.

    python -m training.make_data --out data/heldout --count 200 --first-seed 1000000000 --occupancy
    python -m benchmarks.acceleration --held-out data/heldout --shapes 200

It goes on where it stopped: what is measured is kept, line by line, in --work. Overlap is that of the lattice points
inside the two meshes: marching cubes puts a lattice point inside exactly where the field is positive there. The cost is
counted in rows of the denoiser: guidance takes two rows an evaluation, one of them without the picture.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from backend.errors import ServiceError
from backend.hunyuan3d.acceleration import evaluated_steps, integrate, lagrange_weights, spread
from backend.hunyuan3d.networks.schedulers import FlowMatchEulerDiscreteScheduler, Step
from backend.hunyuan3d.options import GenerationOptions
from backend.hunyuan3d.pipeline import Hunyuan3DShapePipeline, guided
from backend.hunyuan3d.volume.host_copy import to_main_memory
from backend.hunyuan3d.volume.sparse_volume import SparseVolume
from backend.limits import Acceleration
from training.dataset import ShapeDataset
from training.metrics import iou
from training.tasks import shape_tasks

RESULTS = Path(__file__).parent / "results" / "acceleration.md"
CURVE = Path(__file__).parents[1] / "docs" / "acceleration.png"
STEPS = 50
PLAIN = (8, 10, 12, 16, 25)
FORECAST = (8, 10, 12, 16)
AIMS: dict[Acceleration, float] = {"balanced": 0.995, "fast": 0.98}


@dataclass(frozen=True)
class Outcome:
    """One shape made in one way: rows of the denoiser, overlap with the mesh of all steps, relative latent error."""

    shape: int
    way: str
    rows: int
    iou: float
    error: float


class Sampler:
    """One batch of shapes, to be sampled in different ways from the same noise. Counts the rows asked for one image."""

    def __init__(self, pipeline: Hunyuan3DShapePipeline, cond: Tensor, noise: Tensor) -> None:
        self.pipeline, self.noise = pipeline, noise
        self.scale = pipeline.config.defaults.guidance_scale
        self.both = pipeline.denoiser.prepare(cond, classifier_free=True)
        self.conditional = pipeline.denoiser.prepare(cond, classifier_free=False)
        self.rows = 0

    def velocity(self, x: Tensor, t: float, with_guidance: bool = True) -> Tensor:
        """Ask for the velocity (B, N, E) at x, of both branches or of the conditional one alone."""
        both = with_guidance and self.scale != 1
        self.rows += 1 + both
        context = self.both if both else self.conditional
        v = self.pipeline.denoiser.velocity(x, torch.tensor(t, device=x.device), context).float()
        return guided(v, self.scale) if both else v

    def plain(self, count: int) -> Tensor:
        """Take `count` evaluations: one step more, whose last is of no length."""
        steps = self.pipeline.scheduler.steps(count + 1)
        return integrate(self.noise, steps, list(range(count)), lambda x, k: self.velocity(x, steps[k].t))

    def forecast(self, count: int) -> Tensor:
        """Take all steps with `count` evaluations, as the product does."""
        steps = self.pipeline.scheduler.steps(STEPS)
        evaluated = spread(list(range(STEPS - 1)), count)
        return integrate(self.noise, steps, evaluated, lambda x, k: self.velocity(x, steps[k].t))

    def extrapolated(self, count: int, degree: int) -> Tensor:
        """Forecast from the last velocities without ever correcting (TaylorSeer on the velocity; degree 0: reuse)."""
        steps, x = self.pipeline.scheduler.steps(STEPS), self.noise
        known: list[tuple[float, Tensor]] = []
        for here, there in pairwise([*spread(list(range(STEPS - 1)), count), STEPS]):
            known = [*known, (steps[here].t, self.velocity(x, steps[here].t))][-1 - degree :]
            x = _walked(x, steps[here:there], known)
        return x

    def guided_within(self, low: float, high: float) -> Tensor:
        """Take all steps, with guidance only at times from low to high."""
        steps = self.pipeline.scheduler.steps(STEPS)

        def velocity(x: Tensor, index: int) -> Tensor:
            t = steps[index].t
            return self.velocity(x, t, with_guidance=low <= t <= high)

        return integrate(self.noise, steps, list(range(STEPS - 1)), velocity)


def _walked(x: Tensor, steps: Iterable[Step], known: Sequence[tuple[float, Tensor]]) -> Tensor:
    for step in steps:
        weights = lagrange_weights([t for t, _ in known], step.t)
        for weight, (_, v) in zip(weights, known, strict=True):
            x = x + step.dt * weight * v
    return x


Way = Callable[[Sampler], Tensor]
REFERENCE = f"all {STEPS - 1}"


def common_ways() -> dict[str, Way]:
    """Return what is measured on every shape."""
    plain: dict[str, Way] = {f"plain {n}": lambda s, n=n: s.plain(n) for n in PLAIN}  # type: ignore[misc]
    forecast: dict[str, Way] = {f"forecast {n}": lambda s, n=n: s.forecast(n) for n in FORECAST}  # type: ignore[misc]
    return plain | forecast


def other_ways() -> dict[str, Way]:
    """Return what was tried and left out, measured on some shapes."""
    return {
        "velocity reused, 16": lambda s: s.extrapolated(16, 0),
        "Taylor, degree 1, 16": lambda s: s.extrapolated(16, 1),
        "Taylor, degree 2, 16": lambda s: s.extrapolated(16, 2),
    }


def guidance_ways() -> dict[str, Way]:
    """Return what was tried and left out for checkpoints that are guided."""
    return {
        "guidance in 0.1 to 1": lambda s: s.guided_within(0.1, 1),
        "guidance in 0 to 0.9": lambda s: s.guided_within(0, 0.9),
    }


def inside(volume: SparseVolume) -> npt.NDArray[np.bool_]:
    """Tell which lattice points (R+1, R+1, R+1) lie inside: what is not known has the sign of what is before it."""
    dense = volume.to_dense().numpy()
    index = np.where(np.isnan(dense), -1, np.arange(dense.shape[2]))
    last = np.maximum.accumulate(index, axis=2)
    signs = np.take_along_axis(dense, np.maximum(last, 0), axis=2) > 0
    return np.asarray(signs & (last >= 0))


def masks(pipeline: Hunyuan3DShapePipeline, latents: Tensor, resolution: int) -> list[npt.NDArray[np.bool_]]:
    """Tell for each image which lattice points its mesh encloses."""
    found = []
    for volume in to_main_memory(pipeline.decode_volumes(latents, resolution)):
        if isinstance(volume, ServiceError):
            raise volume
        found.append(inside(volume))
    return found


@torch.no_grad()
def measure(
    pipeline: Hunyuan3DShapePipeline, data: ShapeDataset, shapes: list[int], ways: dict[str, Way], resolution: int
) -> list[Outcome]:
    """Make a batch of shapes in every way and hold them against all steps. The shape's number is its seed."""
    images = [task.image for task in shape_tasks(data, shapes, dense=False)]
    cond = pipeline.encode_images(pipeline.preprocess(images).image)
    sampler = Sampler(pipeline, cond, pipeline.initial_noise(len(shapes), shapes))
    target = sampler.plain(STEPS - 1)
    truth = masks(pipeline, target, resolution)
    outcomes = []
    for name, way in ways.items():
        sampler.rows = 0
        latents = way(sampler)
        errors = ((latents - target).pow(2).sum((1, 2)) / target.pow(2).sum((1, 2))).sqrt().tolist()
        for shape, mask, true, error in zip(shapes, masks(pipeline, latents, resolution), truth, errors, strict=True):
            outcomes.append(Outcome(shape, name, sampler.rows, iou(mask, true), error))
    return outcomes


def machine() -> str:
    """Return what it runs on."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {os.cpu_count()} cores"


def run(arguments: argparse.Namespace) -> list[Outcome]:
    """Measure what is not in the work file yet and return all that is."""
    done = read(arguments.work)
    known = {(outcome.shape, outcome.way) for outcome in done}
    if arguments.report_only:
        return done
    pipeline = Hunyuan3DShapePipeline.from_pretrained(arguments.checkpoint, device=arguments.device, dtype="fp32")
    data = ShapeDataset(arguments.held_out)
    for first in range(arguments.first, min(arguments.shapes, len(data)), arguments.batch):
        shapes = list(range(first, min(first + arguments.batch, arguments.shapes, len(data))))
        ways = common_ways() | (other_ways() if first < arguments.others else {})
        if first < arguments.others and pipeline.config.defaults.guidance_scale != 1:
            ways |= guidance_ways()
        left = {name: way for name, way in ways.items() if any((shape, name) not in known for shape in shapes)}
        if left:
            with arguments.work.open("a", encoding="utf-8") as file:
                for outcome in measure(pipeline, data, shapes, left, arguments.octree_resolution):
                    file.write(json.dumps(asdict(outcome)) + "\n")
            print(f"{shapes[-1] + 1} shapes", flush=True)
    return read(arguments.work)


def read(work: Path) -> list[Outcome]:
    """Read what was measured before."""
    if not work.exists():
        return []
    return [Outcome(**json.loads(line)) for line in work.read_text(encoding="utf-8").splitlines()]


@dataclass(frozen=True)
class Row:
    """One way over all shapes that it was measured on."""

    way: str
    rows: int
    shapes: int
    mean: float
    lowest_tenth: float
    worst: float
    error: float


def table(outcomes: Sequence[Outcome]) -> list[Row]:
    """Summarise every way, in the order in which the ways are listed."""
    rows = []
    for way in [*common_ways(), *other_ways(), *guidance_ways()]:
        own = [outcome for outcome in outcomes if outcome.way == way]
        if own:
            overlaps = np.array([outcome.iou for outcome in own])
            error = float(np.mean([outcome.error for outcome in own]))
            tenth = float(np.quantile(overlaps, 0.1))
            rows.append(Row(way, own[0].rows, len(own), overlaps.mean(), tenth, overlaps.min(), error))
    return rows


def report(rows: Sequence[Row], arguments: argparse.Namespace) -> str:
    """Write the table and what follows from it, as markdown."""
    by_way = {row.way: row for row in rows}
    # A guided checkpoint is asked twice an evaluation, with and without the picture.
    each = by_way["plain 8"].rows // 8
    all_rows = each * (STEPS - 1)
    lines = [
        "# Fewer evaluations of the denoiser",
        "",
        f"Checkpoint {Path(arguments.checkpoint).name}, float32, {machine()}, "
        f"torch {torch.__version__}, {datetime.now(UTC):%Y-%m-%d}. Held-out shapes, {STEPS} steps, resolution "
        f"{arguments.octree_resolution}. Each mesh is held against the one of all {STEPS - 1} evaluations (the last of "
        f"{STEPS} steps is of no length): the overlap (IoU) of the lattice points inside, and the latents' relative "
        "difference. `plain n` is the plain sampler with n evaluations; rows are what one image costs"
        + (", two an evaluation because of the guidance." if each == 2 else "; nothing is guided."),
        "",
        "| way | rows | of all | shapes | IoU, mean | IoU, lowest tenth | IoU, worst | latents |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.way} | {r.rows} | {r.rows / all_rows:.0%} | {r.shapes} | {r.mean:.4f} | {r.lowest_tenth:.4f} "
        f"| {r.worst:.4f} | {r.error:.4f} |"
        for r in rows
    ]
    lines += ["", "## What the option does", ""]
    for name, aim in AIMS.items():
        chosen = by_way[f"forecast {evaluations(name)}"]
        plain = by_way[f"plain {evaluations(name)}"]
        lines.append(
            f"- `{name}`: {evaluations(name)} of {STEPS - 1} evaluations; IoU {chosen.mean:.4f} (aim {aim}), with as "
            f"many evaluations of the plain sampler {plain.mean:.4f}."
        )
    lines += [
        "",
        "`forecast` predicts along a line and corrects along a cubic (`backend/hunyuan3d/acceleration.py`). Left out, "
        "with the figures above: reusing a velocity and forecasts without correction (TaylorSeer), which lose more at "
        "as many evaluations, and guidance in an interval of time, which saves few rows and changes the mesh (of four "
        "shapes 0.855 and 0.990 were left, 2026-11-26, when the demo was guided). "
        "Not measured: first-block caching, which decides by an image's residual and evaluates that block at every "
        "step; on a fixed schedule, as batch mates demand, it reuses what lies behind the block, as the first of "
        "these does.",
        "",
        "The demo checkpoint's shapes are smooth: how the released checkpoints fare is not measured. At its own 5 "
        "steps nothing is forecast.",
    ]
    return "\n".join(lines) + "\n"


def evaluations(name: Acceleration) -> int:
    """Return how many evaluations of all 50 steps an acceleration makes."""
    return len(evaluated_steps(FlowMatchEulerDiscreteScheduler(), GenerationOptions(STEPS, 1, 8, name)))


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw overlap lost against rows asked, for the plain sampler and for forecasts."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for kind, colour, label in (("plain", "#888888", "plain sampler"), ("forecast", "#1f5fa8", "forecast")):
        own = [row for row in rows if row.way.split()[0] == kind]
        axes.plot([int(r.way.split()[1]) for r in own], [1 - r.mean for r in own], "o-", color=colour, label=label)
    for name, aim in AIMS.items():
        axes.axhline(1 - aim, color="#c0392b", linewidth=0.8, linestyle="--")
        axes.annotate(f"aim of {name}: {aim}", (25.4, 1 - aim), ha="right", va="bottom", fontsize=8)
        row = next(r for r in rows if r.way == f"forecast {evaluations(name)}")
        axes.annotate(
            name, (evaluations(name), 1 - row.mean), textcoords="offset points", xytext=(6, 6), color="#1f5fa8"
        )
    axes.set_yscale("log")
    axes.set_xlabel(f"evaluations of the denoiser (all: {STEPS - 1})")
    axes.set_ylabel("1 − IoU with the mesh of all evaluations")
    axes.set_title("Demo checkpoint, held-out shapes")
    axes.legend()
    axes.grid(alpha=0.3, which="both")
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="demo")
    parser.add_argument("--held-out", type=Path, default=Path("data/heldout"))
    parser.add_argument("--shapes", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="shape to begin with, a multiple of the batch")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--device", help="the best there is when not given")
    parser.add_argument("--others", type=int, default=16, help="shapes on which the ways left out are measured too")
    parser.add_argument("--octree-resolution", type=int, default=96)
    parser.add_argument("--work", type=Path, default=Path("data/acceleration.jsonl"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--curve", type=Path, default=CURVE)
    parser.add_argument("--report-only", action="store_true", help="write the table of what is measured so far")
    arguments = parser.parse_args()
    rows = table(run(arguments))
    arguments.out.write_text(report(rows, arguments), encoding="utf-8")
    draw(rows, arguments.curve)
    print(arguments.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
