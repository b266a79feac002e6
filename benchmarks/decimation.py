"""For how long finishing a mesh keeps every other thread waiting.

Measured are contraction, here and in a child process, and the steps around it. Run `python -m benchmarks.decimation`;
it prints tables and writes them to benchmarks/results/. A thread that sleeps for half a millisecond at a time notes the
longest time between two of its turns. It does not know who holds the interpreter meanwhile.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import fast_simplification
import numpy as np
import torch
import trimesh

from backend.hunyuan3d.mesh import topology
from backend.hunyuan3d.mesh.decimation import ChildRules, contract
from backend.hunyuan3d.mesh.export import export_mesh
from backend.hunyuan3d.mesh.ops import clean_mesh, decimate, mesh_facts, smooth_normals
from backend.hunyuan3d.volume.decode import decode_volume
from backend.hunyuan3d.volume.marching_cubes import extract_surface
from backend.hunyuan3d.volume.sparse_volume import SparseVolume
from backend.limits import FORMATS
from benchmarks.support.fields import AnalyticField, gyroid_in_ball

RESULT = Path(__file__).parent / "results" / "decimation.md"
HERE, CHILD = ChildRules(min_faces=10**9), ChildRules(min_faces=0)
_SLEEP = 0.0005


@dataclass(frozen=True)
class Held:
    """Milliseconds: the longest time for which another thread had no turn, and what the work took."""

    gap: float
    took: float


def held(work: Callable[[], object]) -> Held:
    """Do the work while another thread ticks."""
    over, gaps = threading.Event(), [0.0]

    def tick() -> None:
        last = time.perf_counter()
        while not over.is_set():
            time.sleep(_SLEEP)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    ticking = threading.Thread(target=tick)
    ticking.start()
    time.sleep(20 * _SLEEP)
    gaps.clear()
    started = time.perf_counter()
    work()
    took = time.perf_counter() - started
    time.sleep(2 * _SLEEP)
    over.set()
    ticking.join()
    return Held(1000 * max(gaps), 1000 * took)


def median(work: Callable[[], object], repeats: int) -> Held:
    """Return the medians of several runs, after one that does not count."""
    work()
    runs = [held(work) for _ in range(repeats)]
    return Held(statistics.median(run.gap for run in runs), statistics.median(run.took for run in runs))


def volume_of(resolution: int) -> SparseVolume:
    """Return a ball full of tunnels, whose surface has faces enough at any resolution."""
    volume = decode_volume(AnalyticField([gyroid_in_ball()]), resolution)[0]
    assert isinstance(volume, SparseVolume)
    return volume


def mesh_of(volume: SparseVolume) -> trimesh.Trimesh:
    """Return its surface, as extracted."""
    vertices, faces = extract_surface(volume)
    return trimesh.Trimesh(vertices.double().numpy(), faces.numpy(), process=False)


def contraction_row(mesh: trimesh.Trimesh, repeats: int) -> str:
    """Time contraction to a quarter of the faces, here and in a child; the results must be one."""
    vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces)
    target = len(faces) // 4
    both = [contract(vertices, faces, target, 7.0, rules) for rules in (HERE, CHILD)]
    assert all(np.array_equal(one, other) for one, other in zip(*both, strict=True))
    here, child = (median(partial(contract, vertices, faces, target, 7.0, rules), repeats) for rules in (HERE, CHILD))
    return f"| {len(faces):,} | {here.gap:.0f} | {here.took:.0f} | {child.gap:.0f} | {child.took:.0f} |"


def step_rows(volume: SparseVolume, repeats: int) -> list[str]:
    """Return every step from a volume to a file."""
    mesh = mesh_of(volume)
    vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces)
    steps: dict[str, Callable[[], object]] = {
        "extract_surface": lambda: extract_surface(volume),
        "clean_mesh": lambda: clean_mesh(mesh),
        "decimate to a quarter": lambda: decimate(mesh, len(faces) // 4),
        "separate_sheets": lambda: topology.separate_sheets(vertices, faces),
        "nudge_coincident": lambda: topology.nudge_coincident(vertices, faces),
        "smooth_normals": lambda: smooth_normals(vertices, faces),
        "mesh_facts": lambda: mesh_facts(mesh),
    }
    steps |= {f"export {name}": partial(export_mesh, mesh, name) for name in FORMATS}
    found = {name: median(work, repeats) for name, work in steps.items()}
    return [f"| {name} | {step.gap:.0f} | {step.took:.0f} |" for name, step in found.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resolutions", type=int, nargs="+", default=[30, 42, 60, 84, 146])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--date", default=time.strftime("%Y-%m-%d"))
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    repeats = arguments.repeats
    machine = f"{platform.machine()}, {os.cpu_count()} cores, fast_simplification {fast_simplification.__version__}"
    volumes = [volume_of(resolution) for resolution in arguments.resolutions]
    lines = [
        "# Decimation, and who waits for it",
        "",
        f"{machine}; {arguments.date}. Milliseconds, medians of {repeats} warm runs. 'Gap': the longest time for which "
        "another thread of the process had no turn; a few milliseconds are Python's own.",
        "",
        "## Edge contraction to a quarter of the faces: in the process, and in a child",
        "",
        f"Kept: a child from {ChildRules().min_faces:,} faces on. The results are the same, bit for bit.",
        "",
        "| faces | gap here | total here | gap with a child | total with a child |",
        "|---|---|---|---|---|",
        *(contraction_row(mesh_of(volume), repeats) for volume in volumes),
        "",
        f"## Every step of finishing the last of these, {len(mesh_of(volumes[-1]).faces):,} faces",
        "",
        "| step | gap | total |",
        "|---|---|---|",
        *step_rows(volumes[-1], repeats),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
