"""The evaluation as a page of tables, RESULTS.md, and a sheet of pictures beside their meshes, contact_sheet.png.

Knows scores and meshes; measures nothing itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path

from backend.hunyuan3d.mesh.ops import CleanOptions
from backend.hunyuan3d.results import StageSeconds
from training.contact_sheet import Exhibit, write_sheet
from training.held_out_images import ROUND
from training.metrics import STEEP_WITHIN
from training.scoring import SLAB_BELOW, Score, Summary, summarise
from training.tasks import ROUND_FROM, SURFACE_POINTS

AIM_IOU, AIM_SILHOUETTE, AIM_IMAGES, AIM_WORST, AIM_ONE_PIECE = 0.85, 0.98, 0.95, 0.85, 0.96
WORST = 8


@dataclass(frozen=True, eq=False)
class Run:
    """The scores of a set, the stage times of each batch, and what is kept for the sheet."""

    scores: tuple[Score, ...]
    stages: tuple[StageSeconds, ...]
    exhibits: tuple[Exhibit, ...] = ()

    @property
    def seconds_per_image(self) -> float:
        """Wall time of the pipeline's calls, without the measuring, over the number of images."""
        return sum(stage.total for stage in self.stages) / len(self.scores)


@dataclass(frozen=True, eq=False)
class SweepRow:
    """One number of steps with one guidance scale."""

    num_inference_steps: int
    guidance_scale: float
    shapes: Run
    images: Run


@dataclass(frozen=True, eq=False)
class Plain:
    """The scores of the same tasks where the outline was not followed."""

    shapes: tuple[Score, ...]
    images: tuple[Score, ...]


@dataclass(frozen=True, eq=False)
class Results:
    """A whole evaluation.

    plain : None where the checkpoint's shapes do not follow outlines. chamfer_floor : what a perfect mesh would score;
    vae_iou : if it is known.
    """

    checkpoint: str
    date: date
    machine: str
    num_inference_steps: int
    guidance_scale: float
    octree_resolution: int
    batch_size: int
    first_seed: int
    shapes: Run
    images: Run
    sweep: tuple[SweepRow, ...]
    chamfer_floor: float
    vae_iou: float | None
    plain: Plain | None = None


def write_results(results: Results, folder: Path) -> None:
    """Write RESULTS.md and contact_sheet.png into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_sheet([*results.shapes.exhibits, *results.images.exhibits], folder / "contact_sheet.png")
    (folder / "RESULTS.md").write_text(page(results), encoding="utf-8")


def page(results: Results) -> str:
    """Write out RESULTS.md."""
    sections = [
        introduction(results),
        "## What was aimed at\n\n" + aims(results),
        "## Held-out shapes\n\n" + shapes_section(results),
        "## Held-out pictures\n\n" + images_section(results.images.scores),
    ]
    if results.plain is not None:
        sections.insert(2, "## With the outline and without\n\n" + outline_section(results, results.plain))
    if results.sweep:
        sections.append("## Steps and guidance\n\n" + sweep_section(results.sweep))
    sections += ["## Seconds\n\n" + times(results), "## How it was measured\n\n" + definitions(results)]
    return "\n\n".join(sections) + "\n"


def introduction(results: Results) -> str:
    """Say what was measured, with what, when and where."""
    return (
        "# What the checkpoint reaches\n\n"
        "Written by `python -m training.evaluate`. Every mesh came out of one call of the public pipeline, from a "
        "picture that no training run has seen.\n\n"
        f"- Checkpoint: `{results.checkpoint}`\n"
        f"- Date: {results.date.isoformat()}\n"
        f"- Machine: {results.machine}\n"
        f"- Steps {results.num_inference_steps}, "
        f"guidance {results.guidance_scale:g}, resolution {results.octree_resolution}, "
        f"batches of {results.batch_size}, seeds from {results.first_seed} on\n"
        f"- {len(results.shapes.scores)} held-out shapes, {len(results.images.scores)} held-out pictures\n\n"
        "![Picture, then the mesh from the front, at three quarters and from the side](contact_sheet.png)"
    )


def aims(results: Results) -> str:
    """Return the table of aims and what was reached."""
    shapes, images = summarise(results.shapes.scores), summarise(results.images.scores)
    both = summarise([*results.shapes.scores, *results.images.scores])
    overlaps = [
        ("IoU, held-out shapes", AIM_IOU, shapes.iou),
        ("Silhouette IoU, held-out shapes", AIM_SILHOUETTE, shapes.silhouette),
        ("Silhouette IoU, held-out pictures", AIM_IMAGES, images.silhouette),
        ("Silhouette IoU, the poorest picture", AIM_WORST, images.worst),
    ]
    rows = [[name, f"≥ {aim:g}", number(found), met(found >= aim)] for name, aim, found in overlaps]
    one_piece = met(both.one_piece >= AIM_ONE_PIECE)
    rows += [
        ["Meshes in one piece, all", f"≥ {AIM_ONE_PIECE * 100:g} %", share(both.one_piece), one_piece],
        ["Round things that came out as slabs", "none", slabs(both), met(both.slabs == 0)],
        ["Watertight meshes, all", "all", share(both.watertight), met(both.watertight == 1)],
    ]
    if results.vae_iou is not None:
        rows.append(["IoU of the VAE alone, given the true surface", "—", number(results.vae_iou), ""])
    return table(["", "aim", "reached", ""], rows)


def outline_section(results: Results, plain: Plain) -> str:
    """Compare the same tasks with the outline followed and not, and with the truth where it is known."""
    head = ["", "outline", "IoU", "silhouette", "worst", "side view", "steep", "one piece", "watertight", "depth error"]
    runs = [
        ("shapes", results.shapes.scores, plain.shapes),
        ("pictures", results.images.scores, plain.images),
    ]
    rows = [
        [
            f"{len(scores)} {name}", mode, number(s.iou), number(s.silhouette), number(s.worst), number(s.side),
            share(s.steep), share(s.one_piece), share(s.watertight), number(s.depth_error, 3),
        ]
        for name, with_it, without in runs
        for mode, scores in (("auto", with_it), ("off", without))
        for s in [summarise(scores)]
    ]  # fmt: skip
    truth = summarise(results.shapes.scores).true_steep
    words = (
        "Side view: the overlap of the silhouettes seen along x, in 64 × 64 cells. Steep: the share of surface that "
        f"stands within {STEEP_WITHIN:g}° of the viewing direction; {share(truth)} of the true shapes'. "
        "Following the outline must not make walls where there are none."
    )
    return table(head, rows) + "\n\n" + words


def shapes_section(results: Results) -> str:
    """Report every family of procedural shapes, the total, and the poorest shapes."""
    scores = results.shapes.scores
    head = [
        "family", "shapes", "IoU", "silhouette", "Chamfer", "watertight", "one piece", "depth", "true depth",
        "depth error", "round: fullness", "round: slabs", "no mesh",
    ]  # fmt: skip
    rows = [
        [
            name, str(s.count), number(s.iou), number(s.silhouette), number(s.chamfer), share(s.watertight),
            share(s.one_piece), number(s.depth, 2), number(s.true_depth, 2), number(s.depth_error, 2),
            number(s.fullness, 2), slabs(s), str(s.failed),
        ]
        for name, s in grouped(scores)
    ]  # fmt: skip
    worst = sorted(scores, key=lambda s: s.iou or 0)[:WORST]
    floor = f"A perfect mesh would have a Chamfer distance of about {number(results.chamfer_floor)}: points are random."
    poorest = "Poorest by IoU: " + ", ".join(f"{s.name} {number(s.iou)}" for s in worst) + "."
    return "\n\n".join([table(head, rows), floor, poorest])


def images_section(scores: Sequence[Score]) -> str:
    """Report every kind of held-out picture, the total, and the poorest pictures."""
    head = [
        "kind",
        "pictures",
        "silhouette",
        "watertight",
        "one piece",
        "depth",
        "round: fullness",
        "round: slabs",
        "no mesh",
    ]
    rows = [
        [
            name, str(s.count), number(s.silhouette), share(s.watertight), share(s.one_piece), number(s.depth, 2),
            number(s.fullness, 2), slabs(s), str(s.failed),
        ]
        for name, s in grouped(scores)
    ]  # fmt: skip
    worst = sorted(scores, key=lambda s: s.silhouette)[:WORST]
    poorest = "Poorest by silhouette: " + ", ".join(f"{s.name} {number(s.silhouette)}" for s in worst) + "."
    origin = (
        "Emoji are from Noto Color Emoji (SIL Open Font License 1.1), glyphs from DejaVu Sans Bold (Bitstream Vera "
        "licence). Nobody knows their true shapes: judged are the silhouette, the mesh's soundness and, for things "
        "that are round about an axis, the depth."
    )
    return "\n\n".join([table(head, rows), poorest, origin])


def sweep_section(rows: Sequence[SweepRow]) -> str:
    """Report overlaps and times for each number of steps and guidance scale, on fewer shapes and pictures."""
    cells = []
    for row in rows:
        shapes, images = summarise(row.shapes.scores), summarise(row.images.scores)
        settings = [str(row.num_inference_steps), f"{row.guidance_scale:g}"]
        cells.append([*settings, number(shapes.iou), number(shapes.silhouette),
                      share(shapes.one_piece), number(images.silhouette), share(images.one_piece), slabs(images),
                      number(row.shapes.seconds_per_image)])  # fmt: skip
    counts = f"On {len(rows[0].shapes.scores)} of the shapes and {len(rows[0].images.scores)} of the pictures."
    head = ["steps", "guidance", "IoU", "silhouette", "one piece", "pictures: silhouette", "pictures: one piece",
            "pictures: slabs", "s an image"]  # fmt: skip
    return counts + "\n\n" + table(head, cells)


def times(results: Results) -> str:
    """Report the seconds an image of each stage, within the batches."""
    names = [field.name for field in fields(StageSeconds)]
    rows = [
        [title, *(number(sum(getattr(s, name) for s in run.stages) / len(run.scores)) for name in names),
         number(run.seconds_per_image)]
        for title, run in (("shapes", results.shapes), ("pictures", results.images))
    ]  # fmt: skip
    return table(["s an image", *names, "total"], rows) + "\n\nAfter one call to warm up; the measuring is not counted."


def definitions(results: Results) -> str:
    """Say what each figure means."""
    return f"""\
- World frame: box ±1.01, picture right +X, up +Y, viewer on +Z; the silhouette's larger side is 1.8.
- IoU: the finished mesh's occupancy at the cell centres of a 64³ grid of the box, found exactly from where lines along
  z cross its faces, against the true shape's. The mean over shapes; no mesh counts as 0.
- Silhouette IoU: the mesh's shadow along z, without perspective, at the picture's pixel centres, against the picture's
  alpha of one half and more, where the mesh should lie: the outline's longer side 1.8 long, about the origin.
- Chamfer: half of (mean distance of the mesh's points to the nearest true point + the reverse), not squared, in world
  units, {SURFACE_POINTS} points each, uniform by area.
- Watertight: every edge has exactly two faces, wound consistently. One piece: one connected mesh after the pipeline's
  own finishing, which removes floaters below {CleanOptions().min_share * 100:g} % of the largest piece's area and joins
  by struts what hangs together in the outline, where that is followed.
- Depth: z extent over the larger side of the silhouette; depth error: the mean absolute difference from the truth.
- Span: the distance from a shape's front to its back under a pixel, its mean over the silhouette; a tilt or a hollow
  inside does not change it. Fullness: the mesh's span over the true one, for round things only: shapes with at least
  {ROUND_FROM:g} of the span that their silhouette would have if turned about an axis, and the emoji listed as round
  ({len(ROUND)} in all), whose true span is taken to be that of the turned silhouette. Slab: a fullness below
  {SLAB_BELOW:g}.
- Image k of a set is made with seed {results.first_seed} + k. The sheet shows the first shape of each family and evenly
  spaced pictures; none was chosen by its result."""


def grouped(scores: Sequence[Score]) -> list[tuple[str, Summary]]:
    """Return the summary of every group, in alphabetical order, then of all."""
    names = sorted({s.group for s in scores})
    groups = [(name, summarise([s for s in scores if s.group == name])) for name in names]
    return [*groups, ("**all**", summarise(scores))]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a Markdown table."""
    lines = [list(head), ["---"] * len(head), *(list(row) for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def number(value: float | None, digits: int = 3) -> str:
    """Write a figure, or a dash where there is none."""
    return "—" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def share(value: float) -> str:
    """Write a share in percent, or a dash; one that is not whole is never shown as 100 %."""
    if math.isnan(value):
        return "—"
    return "100 %" if value == 1 else f"{min(value, 0.999) * 100:.1f} %"


def slabs(summary: Summary) -> str:
    """Count how many round things came out flat."""
    return f"{summary.slabs} of {summary.round_count}" if summary.round_count else "—"


def met(reached: bool) -> str:
    """Return a word for whether an aim was reached."""
    return "reached" if reached else "**missed**"
