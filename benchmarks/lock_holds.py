"""How long the making of files keeps the interpreter's lock, in which time no request of the same process is answered.

    python -m benchmarks.lock_holds --out benchmarks/results/lock_holds.md

One thread makes all files of a mesh of 81,920 faces with colours and a preview; another sleeps a millisecond at a time
and notes, whenever it is late, how much processor time the process took meanwhile: what other programs take of the
cores is left out of that, so that it means the same on a busy machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import trimesh
from PIL import Image

from backend.hunyuan3d.mesh import rays
from backend.hunyuan3d.results import ShapeMetadata, ShapeResult
from backend.limits import MeshFormat
from backend.rendering.outputs import OutputOptions, make_outputs

_FORMATS: tuple[MeshFormat, ...] = ("glb", "3mf", "obj", "stl")
_WHOLE = 1 << 30
_SHOWN = 8
_BACKEND = f"{os.sep}backend{os.sep}"


def shape() -> ShapeResult:
    """Return a large mesh with a cut-out."""
    mesh = trimesh.creation.icosphere(subdivisions=6)
    mesh.vertices *= [1.0, 0.8, 0.9]
    rows, columns = np.mgrid[:512, :512]
    disc = (rows - 256) ** 2 + (columns - 256) ** 2 < 200**2
    image = Image.open("samples/mug.png").convert("RGB").resize((512, 512))
    cutout = Image.fromarray(np.dstack([np.asarray(image), np.uint8(255) * disc]).astype(np.uint8), "RGBA")
    return ShapeResult(mesh, None, ShapeMetadata("none", 1), cutout, view_aligned=True)


def holds(work: Callable[[], object]) -> list[tuple[float, str]]:
    """Return the processor seconds of each time this thread had to wait, and where the others were after it."""
    done = threading.Event()

    def run() -> None:
        work()
        done.set()

    worker = threading.Thread(target=run)
    worker.start()
    found, before = [], time.process_time()
    while not done.is_set():
        time.sleep(0.001)
        now = time.process_time()
        found.append((now - before, " and ".join(_places())))
        before = now
    worker.join()
    return sorted(found, reverse=True)


def _places() -> Iterable[str]:
    for thread, frame in sys._current_frames().items():
        own = [line for line in traceback.extract_stack(frame) if _BACKEND in line.filename]
        if thread != threading.get_ident() and own:
            yield f"`{own[-1].filename.rpartition(_BACKEND)[2]}` {own[-1].name}"


def report(pieces: int) -> str:
    """Return the tables, as markdown; pieces : faces that Embree is given at once."""
    result = shape()

    def make() -> None:
        for format in _FORMATS:
            make_outputs(result, OutputOptions(formats=(format,)))

    make_outputs(result, OutputOptions(formats=("glb",)))
    lines = [
        "# How long the interpreter's lock is kept",
        "",
        f"Files of a mesh of {len(result.unwrap().faces):,} faces with colours and previews ({', '.join(_FORMATS)}), "
        "while another thread wants to run every millisecond: the processor time that the process took each time that "
        f"thread had to wait, longest first. {platform.machine()} CPU, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.0f}, {datetime.now(UTC):%Y-%m-%d}.",
    ]
    for title, faces in (("The mesh handed to Embree whole", _WHOLE), (f"In pieces of {pieces:,} faces", pieces)):
        rays._FACES_AT_ONCE = faces
        found = holds(make)
        share = float(np.percentile([seconds for seconds, _ in found], 99))
        lines += ["", f"## {title}: 99 % within {1000 * share:.0f} ms", "", "| ms | where |", "|---|---|"]
        lines += [f"| {1000 * seconds:.0f} | {where} |" for seconds, where in found[:_SHOWN]]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    text = report(rays._FACES_AT_ONCE)
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
