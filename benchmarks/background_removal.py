"""How well backgrounds are removed: on drawn photographs, and on composites of ordinary surroundings.

    OMP_NUM_THREADS=1 python -m benchmarks.background_removal --cache FOLDER

prints tables and writes them, and a sheet of held-out composites with their cut-outs, to benchmarks/results/. The
composites' objects, surroundings and seeds are those that no tuning looks at; `--part tuning` measures the others, and
`--fit` prints the weights of backend/hunyuan3d/image/judgement.py. FOLDER keeps renders and a fetched font. "First that
answers" is how it was before there were several candidates: the flood, else GrabCut with a central prior.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from backend.errors import NoForeground
from backend.hunyuan3d.image.backdrop import cut_busy, flood_backdrop
from backend.hunyuan3d.image.background import remove_background, working_size
from backend.hunyuan3d.image.doubts import keep_largest
from backend.hunyuan3d.image.matting import cut_with_soft_edge
from benchmarks.support import cutting, score_fit
from benchmarks.support.composites import KINDS, Composite
from benchmarks.support.cutting import Cut, Measured, Part
from benchmarks.support.images import DRAWINGS, Photograph, enlarged, mask_iou

Pixels = npt.NDArray[np.uint8]
Candidate = Callable[[Pixels], Pixels]
RESULTS = Path(__file__).parent / "results"
RESULT = RESULTS / "background_removal.md"
SHEET = RESULTS / "background_removal.jpg"
_TILE, _SHOWN = 150, 48


def flood_tolerance(image: Pixels) -> Pixels:
    """Use OpenCV's floodFill from the four corners with one colour tolerance."""
    mask = np.zeros((image.shape[0] + 2, image.shape[1] + 2), np.uint8)
    flags = 4 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE | (255 << 8)
    for corner in ((0, 0), (image.shape[1] - 1, 0), (0, image.shape[0] - 1), (image.shape[1] - 1, image.shape[0] - 1)):
        cv2.floodFill(image.copy(), mask, corner, (0, 0, 0), (20,) * 3, (20,) * 3, flags)
    return (255 - mask[1:-1, 1:-1]).astype(np.uint8)


def grabcut_alone(image: Pixels) -> Pixels:
    """Use OpenCV's GrabCut from a rectangle 4 % inside the picture, at 512 pixels, five rounds."""
    scale = min(1.0, 512 / max(image.shape[:2]))
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    h, w = small.shape[:2]
    mask = np.zeros((h, w), np.uint8)
    rectangle = (round(0.04 * w), round(0.04 * h), round(0.92 * w), round(0.92 * h))
    cv2.setRNGSeed(0)
    cv2.grabCut(small, mask, rectangle, np.zeros((1, 65)), np.zeros((1, 65)), 5, cv2.GC_INIT_WITH_RECT)
    found = np.where((mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD), 255, 0).astype(np.uint8)
    return np.asarray(cv2.resize(found, (image.shape[1], image.shape[0])), dtype=np.uint8)


def ours(image: Pixels) -> Pixels:
    """Do what the pipeline does without rembg."""
    try:
        return np.asarray(remove_background(Image.fromarray(image), cutter=None).image)[..., 3]
    except NoForeground:
        return np.zeros(image.shape[:2], np.uint8)


CANDIDATES: dict[str, Candidate] = {"flood + tolerance": flood_tolerance, "GrabCut alone": grabcut_alone, "ours": ours}


def spoilt(photograph: Photograph) -> Iterator[Photograph]:
    """Take the same photograph with worse cameras: dark, light, noisy, poor JPEG, mirrored, soft."""
    random = np.random.default_rng(5)
    image, mask = photograph.image, photograph.mask
    dim = image * 0.75 + random.normal(0, 5, image.shape)
    poor = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_COLOR)
    for changed in (255 * (image / 255) ** 1.4, 255 * (image / 255) ** 0.7, dim, poor):
        yield Photograph(photograph.name, np.clip(np.asarray(changed), 0, 255).astype(np.uint8), mask, 0)
    mirrored = np.ascontiguousarray(image[:, ::-1])
    yield Photograph(photograph.name, mirrored, np.ascontiguousarray(mask[:, ::-1]), 0)
    soft = np.asarray(cv2.GaussianBlur(image, (0, 0), 2), dtype=np.uint8)
    yield Photograph(photograph.name, soft, np.asarray(cv2.GaussianBlur(mask, (0, 0), 2), dtype=np.float32), 0)


def measure(candidate: Candidate, photograph: Photograph) -> tuple[float, float]:
    """Return the IoU, and milliseconds of processor time (other work on the machine does not count)."""
    start = time.process_time()
    alpha = candidate(photograph.image)
    return mask_iou(alpha, photograph.mask), 1000 * (time.process_time() - start)


def first_that_answers(composite: Composite) -> Cut:
    """Cut as it was done before: no candidates, no score, not a word."""
    small = working_size(composite.image)
    found = flood_backdrop(small) or cut_busy(small)
    if found is None or not found.foreground.any():
        return Cut(None)
    alpha, _ = cut_with_soft_edge(composite.image, small, found)
    return Cut(keep_largest(alpha) if composite.objects == "largest" else alpha)


def judged(composite: Composite, cutter: Literal["installed"] | None = None) -> Cut:
    """Cut as the pipeline does, without rembg unless it is asked for. Raises RuntimeError where that fails."""
    try:
        found = remove_background(Image.fromarray(composite.image), objects=composite.objects, cutter=cutter)
    except NoForeground:
        return Cut(None)
    if found.fallback:
        raise RuntimeError(found.fallback)
    alpha = np.asarray(found.image)[..., 3]
    return Cut(alpha, tuple(remark.code for remark in found.remarks), found.score)


def on_drawings() -> list[str]:
    """Measure every candidate on every drawn photograph; return the table."""
    lines = ["| picture | " + " | ".join(CANDIDATES) + " | ours, worst of 6 spoilt |"]
    lines += ["|---" * (len(CANDIDATES) + 2) + "|"]
    scores: dict[str, list[tuple[float, float]]] = {name: [] for name in CANDIDATES}
    worst: list[float] = []
    for name, draw in DRAWINGS.items():
        photograph = draw()
        cells = []
        for candidate, cut in CANDIDATES.items():
            scores[candidate].append(measure(cut, photograph))
            cells.append("{:.3f}, {:.0f} ms".format(*scores[candidate][-1]))
        worst.append(min(measure(ours, changed)[0] for changed in spoilt(photograph)))
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {worst[-1]:.3f} |")
    means = ["{:.3f}, {:.0f} ms".format(*np.mean(values, axis=0)) for values in scores.values()]
    lines.append("| **mean** | " + " | ".join(means) + f" | {np.mean(worst):.3f} |")
    lowest = [f"{min(iou for iou, _ in values):.3f}" for values in scores.values()]
    lines.append("| **worst** | " + " | ".join(lowest) + f" | {min(worst):.3f} |")
    large = enlarged(DRAWINGS["mug"](), 4000)
    iou, milliseconds = min((measure(ours, large) for _ in range(3)), key=lambda result: result[1])
    return [*lines, "", f"At 12 megapixels (mug, 4000×3000): IoU {iou:.3f}, {milliseconds:.0f} ms."]


def on_composites(part: Part, cache: Path, each: int) -> list[str]:
    """Measure before and after on composites, and draw the sheet; return the tables."""
    before: list[Measured] = []
    after: list[Measured] = []
    tiles: list[Pixels] = []
    every = max(1, each * len(KINDS[part]) // _SHOWN)
    for number, composite in enumerate(cutting.composites(part, cache, each)):
        before.append(cutting.measure(first_that_answers, composite))
        after.append(cutting.measure(judged, composite))
        if number % every == 0 and len(tiles) < _SHOWN:
            tiles.append(tile(composite, judged(composite)))
    if part == "held out":
        sheet(tiles)
    tables = [each.iou for each in after if "table" in each.kind and not each.refused]
    return [
        f"### {part.capitalize()}: first that answers",
        "",
        *cutting.table(before),
        "",
        f"### {part.capitalize()}: candidates and score",
        "",
        *cutting.table(after),
        "",
        f"Of good cut-outs {100 * cutting.false_alarms(after):.1f} % carry CUTOUT_DOUBTFUL. Tables before walls: mean "
        f"IoU {np.mean(tables) if tables else 0:.3f}.",
    ]


def tile(composite: Composite, cut: Cut) -> Pixels:
    """Return a composite beside what was cut out of it, on a chequer; red where it was refused."""
    alpha = np.zeros(composite.image.shape[:2], np.uint8) if cut.alpha is None else cut.alpha
    rows, columns = np.mgrid[0 : alpha.shape[0], 0 : alpha.shape[1]] // 24
    ground = np.where(((rows + columns) % 2)[..., None], 205, 235) if cut.alpha is not None else (190, 60, 60)
    share = alpha[..., None] / 255
    shown = (composite.image * share + ground * (1 - share)).astype(np.uint8)
    canvas = np.full((_TILE, 2 * _TILE, 3), 255, np.uint8)
    for place, image in enumerate((composite.image, shown)):
        scale = (_TILE - 4) / max(image.shape[:2])
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        top, left = (_TILE - small.shape[0]) // 2, place * _TILE + (_TILE - small.shape[1]) // 2
        canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
    if cut.warnings:
        cv2.circle(canvas, (2 * _TILE - 9, 9), 6, (235, 150, 30), -1, cv2.LINE_AA)
    return canvas


def sheet(tiles: list[Pixels], columns: int = 6) -> None:
    """Write the tiles as one picture."""
    blank = np.full((_TILE, 2 * _TILE, 3), 255, np.uint8)
    filled = tiles + [blank] * (-len(tiles) % columns)
    rows = [np.hstack(filled[k : k + columns]) for k in range(0, len(filled), columns)]
    Image.fromarray(np.vstack(rows)).save(SHEET, quality=82)


def main() -> None:
    """Measure and write the tables, or fit the score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--part", choices=("tuning", "held out"), default="held out")
    parser.add_argument("--each", type=int, default=6, metavar="N", help="pictures of a kind (default: %(default)s)")
    parser.add_argument("--fit", action="store_true", help="print weights for the score instead")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    if options.fit:
        bias, weights = score_fit.fit(list(score_fit.tried(options.cache, options.each)))
        print(round(bias, 2), weights.round(2).tolist())
        return
    composites = on_composites(options.part, options.cache, options.each)
    if options.part == "tuning":
        print("\n".join(composites))
        return
    head = f"{platform.machine()} CPU, one of {os.cpu_count()} cores, {datetime.now(UTC):%Y-%m-%d}."
    lines = ["# Background removal", "", head, "", "## Composites", "", *composites, ""]
    lines += [f"[{SHEET.name}]({SHEET.name}) shows {_SHOWN} of them beside their cut-outs; a dot is a warning.", ""]
    lines += ["## Drawings", "", "IoU against the drawn mask and milliseconds, 640×480.", "", *on_drawings()]
    text = "\n".join(lines) + "\n"
    print(text)
    RESULT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
