"""How far from level held-out shapes of known lean stand after they are placed.

    python -m benchmarks.leveling --out benchmarks/results/leveling.md

The shapes are the training generator's own, exact and not as a model makes them: each leans by the pitch that its
camera had.
"""

from __future__ import annotations

import argparse
import math
import platform
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
import trimesh

from backend.hunyuan3d.finishing import closed_mesh
from backend.hunyuan3d.mesh.place import place_mesh
from backend.hunyuan3d.volume.sparse_volume import SparseVolume
from training.shapes.generator import HELD_OUT_FIRST_SEED, ProceduralShape, make_shape

_BY = {"under side": "its under side", "axis": "its axis (`LEANS`)", None: "nothing: it leans as before (`LEANS`)"}


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", type=int, default=400)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    left: dict[str | None, list[float]] = defaultdict(list)
    pressed: dict[str | None, int] = defaultdict(int)
    for seed in range(HELD_OUT_FIRST_SEED, HELD_OUT_FIRST_SEED + options.shapes):
        shape = make_shape(seed)
        up = shape.placement.rotation[:, 1]
        _, done = place_mesh(surface(shape), "ground", "auto", view_aligned=True)
        left[done.leveled_by].append(abs(math.degrees(math.atan2(up[2], up[1])) + done.turned_degrees))
        pressed[done.leveled_by] += done.pressed > 0
    lines = [
        "# Level",
        "",
        f"{options.shapes} held-out shapes of the training generator, exact, that lean by their camera's pitch: how "
        f"many degrees from level they are once placed. {platform.machine()}, {datetime.now(UTC):%Y-%m-%d}.",
        "",
        "| levelled by | shapes | pressed | median | nine in ten | most |",
        "|---|---|---|---|---|---|",
    ]
    for by, name in _BY.items():
        off = np.asarray(left[by])
        figures = f"{np.median(off):.1f}° | {np.percentile(off, 90):.1f}° | {off.max():.1f}°" if len(off) else "| |"
        lines.append(f"| {name} | {len(off)} | {pressed[by]} | {figures} |")
    text = "\n".join([*lines, ""])
    print(text)
    if options.out:
        options.out.write_text(text, "utf-8")


def surface(shape: ProceduralShape) -> trimesh.Trimesh:
    """Return a shape's surface."""
    values, axis = shape.field.values.astype(np.float32), shape.field.axis
    return closed_mesh(SparseVolume.from_dense(torch.from_numpy(-values), float(axis[-1])))


if __name__ == "__main__":
    main()
