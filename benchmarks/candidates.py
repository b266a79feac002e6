"""Whether candidates find the better mesh: IoU in space of the one that is kept against the mean of all, and the cost.

    python -m training.make_data --out DIR --count 200 --first-seed 1000000000 --occupancy
    python -m benchmarks.candidates DIR

Held-out shapes, whose solids are known, with the bundled checkpoint and outlines followed, as by default. Each shape's
candidates are of seeds that follow one another, and of n the first n are looked at. Beside the service's own order
stand the order by the silhouette first, and the best that anyone could choose.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from backend.hunyuan3d.pipeline import Hunyuan3DShapePipeline
from backend.limits import DEFAULT_SCALE_MM, MAX_CANDIDATES
from backend.rendering.candidates import Candidate, judge
from training.dataset import ShapeDataset
from training.evaluate import describe_machine, progress
from training.metrics import iou, occupancy
from training.tasks import Task, evenly, shape_tasks

RESULT = Path(__file__).parent / "results" / "candidates.md"
COUNTS = (1, 2, 4, MAX_CANDIDATES)
_COSTED = 4


@dataclass(frozen=True)
class Judged:
    """A candidate as it was judged, and how much of space it shares with the true solid."""

    candidate: Candidate
    iou: float


@dataclass(frozen=True)
class Cost:
    """Processor seconds of one image with so many candidates: until the meshes are there, and of judging them."""

    meshes: float
    judging: float


ORDERS: Mapping[str, Callable[[Judged], tuple[float, ...]]] = {
    "as the service orders": lambda judged: judged.candidate.rank,
    "by the silhouette first": lambda judged: (judged.candidate.rank[0], *judged.candidate.rank[:0:-1]),
    "the best there is": lambda judged: (-judged.iou,),
}


def judged_candidates(pipeline: Hunyuan3DShapePipeline, task: Task, resolution: int, seed: int) -> list[Judged]:
    """Make and judge all candidates of one shape."""
    found = []
    for candidate in make(pipeline, task, MAX_CANDIDATES, resolution, seed):
        mesh = candidate.result.mesh
        shared = 0.0
        if mesh is not None and task.solid is not None:
            inside = occupancy(mesh.vertices, mesh.faces, len(task.solid.inside))
            shared = iou(inside, task.solid.inside)
        found.append(Judged(candidate, shared))
    return found


def make(pipeline: Hunyuan3DShapePipeline, task: Task, count: int, resolution: int, seed: int) -> list[Candidate]:
    """Make and judge candidates of one shape, in their seeds' order."""
    seeds = [seed + k for k in range(count)]
    results = pipeline(
        [task.image] * count, seeds=seeds, octree_resolution=resolution, remove_background="never", outline="auto"
    )
    return [judge(result, DEFAULT_SCALE_MM) for result in results]


def costs(pipeline: Hunyuan3DShapePipeline, tasks: Sequence[Task], resolution: int) -> dict[int, Cost]:
    """Return what each number of candidates takes, the mean over some shapes."""
    taken: dict[int, list[Cost]] = {count: [] for count in COUNTS}
    for task in tasks:
        for count in COUNTS:
            begun = time.process_time()
            results = pipeline(
                [task.image] * count, seeds=list(range(count)), octree_resolution=resolution, remove_background="never"
            )
            made = time.process_time()
            for result in results if count > 1 else []:
                judge(result, DEFAULT_SCALE_MM)
            taken[count].append(Cost(made - begun, time.process_time() - made))
    return {
        count: Cost(statistics.fmean(each.meshes for each in all), statistics.fmean(each.judging for each in all))
        for count, all in taken.items()
    }


def report(shapes: Sequence[Sequence[Judged]], cost: Mapping[int, Cost], resolution: int, machine: str) -> str:
    """Return the tables, as markdown."""
    lines = [
        "# Candidates: the one that is kept against the mean of all",
        "",
        f"{len(shapes)} held-out shapes at resolution {resolution}, the demo checkpoint, outlines followed; IoU in "
        "space with the true solid, 64 cells a side, mean over the shapes. Behind ± is the standard error of the gain "
        f"over the mean of the same n candidates. {machine}, {datetime.now(UTC):%Y-%m-%d}. Made by "
        "`python -m benchmarks.candidates`.",
        "",
        f"| n | mean of n | {' | '.join(f'{name} | gain' for name in ORDERS)} | cost | of which judging |",
        "|" + "---|" * (4 + 2 * len(ORDERS)),
    ]
    for count in COUNTS:
        means = [statistics.fmean(judged.iou for judged in shape[:count]) for shape in shapes]
        cells = [str(count), f"{statistics.fmean(means):.4f}"]
        for order in ORDERS.values():
            kept = [min(shape[:count], key=order).iou for shape in shapes]
            gains = [own - mean for own, mean in zip(kept, means, strict=True)]
            error = statistics.stdev(gains) / len(gains) ** 0.5
            cells += [f"{statistics.fmean(kept):.4f}", f"{statistics.fmean(gains):+.4f} ± {error:.4f}"]
        whole = cost[count].meshes + cost[count].judging
        cells += [f"{whole / cost[1].meshes:.2f}", f"{cost[count].judging / whole:.0%}"]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *_silhouettes(shapes)]
    return "\n".join(lines) + "\n"


def _silhouettes(shapes: Sequence[Sequence[Judged]]) -> list[str]:
    """Say how a silhouette and the overlap in space go together among the candidates of one shape."""
    signs = [
        _agreement([judged.candidate.silhouette_iou or 0.0 for judged in shape], [judged.iou for judged in shape])
        for shape in shapes
    ]
    spread = statistics.fmean(statistics.stdev(judged.iou for judged in shape) for shape in shapes)
    unsound = sum((judged.candidate.result.metadata.parts or 0) != 1 for shape in shapes for judged in shape)
    return [
        f"Cost is processor time against one mesh, mean of {_COSTED} shapes. Among the {MAX_CANDIDATES} candidates of "
        f"a shape the IoU in space varies by {spread:.4f} (standard deviation, mean over shapes). Of two of them the "
        f"one whose silhouette fits better fits better in space, too, in {statistics.fmean(signs):.0%} of all pairs. "
        f"{unsound} of {sum(map(len, shapes))} candidates are in more than one part."
    ]


def _agreement(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the share of pairs that two rows of numbers order alike; a tie counts as half."""
    pairs = [(i, j) for i in range(len(first)) for j in range(i)]
    turns = [(first[i] - first[j]) * (second[i] - second[j]) for i, j in pairs]
    return statistics.fmean(1.0 if turn > 0 else 0.5 if turn == 0 else 0.0 for turn in turns)


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("held_out", type=Path, help="shards made with --occupancy")
    parser.add_argument("--shapes", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=600, help="begin no further shape after so many")
    parser.add_argument("--resolution", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.manual_seed(0)
    pipeline = Hunyuan3DShapePipeline.from_pretrained("demo", device="cpu")
    data = ShapeDataset(options.held_out)
    tasks = list(shape_tasks(data, evenly(len(data), options.shapes), dense=False))
    make(pipeline, tasks[0], 1, options.resolution, 0)
    shapes, until = [], time.monotonic() + 60 * options.minutes
    with progress("candidates", len(tasks)) as bar:
        for task in tasks:
            if time.monotonic() >= until:
                break
            shapes.append(judged_candidates(pipeline, task, options.resolution, options.seed))
            bar.update()
    cost = costs(pipeline, tasks[:_COSTED], options.resolution)
    text = report(shapes, cost, options.resolution, describe_machine(pipeline))
    print(text)
    options.out.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
