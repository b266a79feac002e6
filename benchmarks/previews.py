"""How long it takes to draw what is kept beside a mesh: preview and thumbnail, and the turntable, on one core.

    python -m benchmarks.previews --before COMMIT

Two meshes of some 100,000 faces are drawn: a ball of clay, and a knotted ring with a texture. This checkout and the one
of a commit before take turns, each in a process of its own that has one core. Seconds are of the processor's time, so
that what else the machine does plays little part.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import trimesh
from PIL import Image

from backend.hunyuan3d.mesh.appearance import Appearance, Texture
from backend.rendering.previews import draw_views, preview_of, thumbnail_of, turntable_bytes, webp_bytes
from backend.rendering.shape_file import FinishedShape

REPOSITORY = Path(__file__).parents[1]
RESULT = REPOSITORY / "benchmarks" / "results" / "previews.md"
_MEASURE = "--measure"
_ASKED = {"preview and thumbnail": 0.5, "turntable": 3.0}


def shapes() -> dict[str, FinishedShape]:
    """Return the shapes that are drawn, by their names."""
    ball = trimesh.creation.icosphere(subdivisions=6)
    return {f"ball, clay, {len(ball.faces):,} faces": FinishedShape(ball, None, {}), **knot(512, 98)}


def knot(along: int, around: int) -> dict[str, FinishedShape]:
    """Return a tube that is knotted like a trefoil, a sample image wound around it."""
    t, s = (2 * np.pi * (np.arange(count) / count) for count in (along, around))
    curve = np.stack([np.sin(t) + 2 * np.sin(2 * t), np.cos(t) - 2 * np.cos(2 * t), -np.sin(3 * t)], axis=1)
    ahead = np.roll(curve, -1, axis=0) - np.roll(curve, 1, axis=0)
    side = np.cross(ahead, curve)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    other = np.cross(ahead / np.linalg.norm(ahead, axis=1, keepdims=True), side)
    ring = np.cos(s)[None, :, None] * side[:, None] + np.sin(s)[None, :, None] * other[:, None]
    vertices = (curve[:, None] + 0.55 * ring).reshape(-1, 3)
    i, j = (grid.reshape(-1) for grid in np.meshgrid(np.arange(along), np.arange(around), indexing="ij"))
    a, b = i * around + j, i * around + (j + 1) % around
    c, d = (i + 1) % along * around + j, (i + 1) % along * around + (j + 1) % around
    faces = np.concatenate([np.stack([a, c, b], axis=1), np.stack([b, c, d], axis=1)])
    image = Image.open(REPOSITORY / "samples" / "mug.png").convert("RGB").resize((1024, 1024))
    # The image there and back again, so that it meets itself.
    uv = np.abs(np.stack([i / along, j / around], axis=1) * 2 - 1).astype(np.float32)
    colors = np.full((len(vertices), 3), 128, np.uint8)
    appearance = Appearance(colors, Texture(image, np.arange(len(vertices)), faces, uv))
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    return {f"knot, textured, {len(faces):,} faces": FinishedShape(mesh, appearance, {})}


def draw(shape: FinishedShape) -> None:
    """Make preview and thumbnail as the service does."""
    views = draw_views(shape)
    webp_bytes(preview_of(views))
    webp_bytes(thumbnail_of(views))


def measure() -> dict[str, float]:
    """Return the seconds of everything, the second time that it is done: a service is warm."""
    cv2.setNumThreads(1)
    works: dict[str, Callable[[FinishedShape], object]] = {
        "preview and thumbnail": draw,
        "turntable": turntable_bytes,
    }
    found = {}
    for work, do in works.items():
        for name, shape in shapes().items():
            do(shape)
            begun = time.process_time()
            do(shape)
            found[f"{work} | {name}"] = time.process_time() - begun
    return found


def measured_in(root: Path) -> dict[str, float]:
    """Measure the backend of a checkout in a process that has one core."""
    environ = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    core = str(max(os.sched_getaffinity(0)))
    # Not with the folder of this file first on the path, whose names others have too.
    command = [sys.executable, "-P", __file__, _MEASURE, core]
    done = subprocess.run(command, cwd=root, env=environ, check=True, capture_output=True, text=True)  # noqa: S603
    seconds: dict[str, float] = json.loads(done.stdout)
    return seconds


def take_out(commit: str, folder: Path) -> None:
    """Write the backend of a commit, and the client, which it uses, into a folder."""
    command = ["git", "archive", commit, "backend", "orfeas_client"]
    archive = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True).stdout  # noqa: S603
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")


def report(before: list[dict[str, float]], after: list[dict[str, float]]) -> str:
    """Return the table as Markdown."""
    lines = [
        "# Previews",
        "",
        f"{platform.machine()}, {os.cpu_count()} cores, one used; {datetime.now(UTC):%Y-%m-%d}, load"
        f" {os.getloadavg()[0]:.0f}. Seconds of the processor's time, the median (and the least) of {len(after)} runs"
        " each, in turns. Made by `python -m benchmarks.previews --before COMMIT`.",
        "",
        "| | mesh | asked | before | now | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for name in after[0]:
        then, now = ([run[name] for run in runs] for runs in (before, after))
        ratio = statistics.median(then) / statistics.median(now)
        asked = _ASKED[name.split(" | ", maxsplit=1)[0]]
        lines.append(f"| {name} | {asked:.1f} | {_seconds(then)} | {_seconds(now)} | {ratio:.2f} |")
    return "\n".join(lines) + "\n"


def _seconds(runs: list[float]) -> str:
    return f"{statistics.median(runs):.2f} ({min(runs):.2f})"


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", default="HEAD", help="the commit to compare with")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument(_MEASURE, type=int, metavar="CORE", help="measure this process alone, on a core; prints JSON")
    options = parser.parse_args()
    if options.measure is not None:
        os.sched_setaffinity(0, {options.measure})
        print(json.dumps(measure()))
        return
    before, after = [], []
    with tempfile.TemporaryDirectory() as folder:
        take_out(options.before, Path(folder))
        for _ in range(options.runs):
            before.append(measured_in(Path(folder)))
            after.append(measured_in(REPOSITORY))
    text = report(before, after)
    print(text)
    options.out.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
