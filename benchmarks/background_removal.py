"""Compares ways of removing a background on drawn photographs with known masks: IoU and milliseconds per picture.

Run `python -m benchmarks.background_removal`; it prints a table and writes it to benchmarks/results/. It does not know
how any of the candidates works inside, and measures none that needs a download.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from backend.errors import NoForeground
from backend.hunyuan3d.image.background import remove_background
from benchmarks.support.images import DRAWINGS, Photograph, enlarged, mask_iou

Pixels = npt.NDArray[np.uint8]
Candidate = Callable[[Pixels], Pixels]
RESULT = Path(__file__).parent / "results" / "background_removal.md"


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


def main() -> None:
    """Measure every candidate on every picture and write the table."""
    cv2.setNumThreads(1)
    lines = ["# Background removal", "", "IoU against the drawn mask and milliseconds on one core, 640×480.", ""]
    lines += ["| picture | " + " | ".join(CANDIDATES) + " | ours, worst of 6 spoilt |"]
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
    lines += ["", f"At 12 megapixels (mug, 4000×3000): IoU {iou:.3f}, {milliseconds:.0f} ms."]
    text = "\n".join(lines) + "\n"
    print(text)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
