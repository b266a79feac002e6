"""What others' programs make of our meshes: `make outside`, which installs them, and writes results/outside.md.

The demo checkpoint makes the mug of samples/ as the service does, in color, standing; every format is written at two
sizes and given to gltf-validator, assimp, admesh, PrusaSlicer, Blender and three.js in Chromium. PrusaSlicer also says
how large the first layer is of samples with a flat foot, before they are placed and after. Ends with 1 where a program
finds something other than what was written.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import trimesh
from PIL import Image

from backend.hunyuan3d.mesh.export import export_mesh, exported_bounds
from backend.hunyuan3d.pipeline import Hunyuan3DShapePipeline
from backend.hunyuan3d.results import ShapeResult
from backend.limits import FORMATS, MeshFormat, default_target_faces
from backend.rendering.outputs import OutputOptions, make_outputs
from backend.rendering.shape_file import FinishedShape
from benchmarks.support.programs import require
from benchmarks.support.readers import admesh_repairs, assimp_measures, gltf_issues, run
from benchmarks.support.viewers import INSTALL, ThreeViewer, blender_views, first_layer, sliced

_ROOT = Path(__file__).parents[1]
_RESULT = _ROOT / "benchmarks" / "results" / "outside.md"
_PICTURE = _ROOT / "benchmarks" / "results" / "outside_three.png"
_FLAT_FOOT = ("mug", "car", "teapot", "chair", "rocket")
_SIZES: tuple[float | None, ...] = (None, 80.0)
_SEED = 7
_Z_UP = ("stl", "3mf")
# Of 255: between the picture's object and the mesh drawn from its front without light.
_COLOR_TOLERANCE = 16.0
_FOOT_MM = 5.0


@dataclass
class Table:
    """Rows of what was found, and what of it is wrong."""

    rows: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def add(self, program: str, file: str, said: str, *, right: bool) -> None:
        """Add a row."""
        self.rows.append(f"| {program} | {file} | {said} | {'yes' if right else '**no**'} |")
        print(self.rows[-1], flush=True)
        if not right:
            self.wrong.append(f"{program}: {file}: {said}")


@dataclass(frozen=True, eq=False)
class Made:
    """One file: what is in it, and the bounds that it should have."""

    path: Path
    format: MeshFormat
    shape: FinishedShape
    low: tuple[float, float, float]
    high: tuple[float, float, float]
    compress: str = "none"

    @property
    def faces(self) -> int:
        """Triangles in the file."""
        return len(self.shape.mesh.faces)

    def is_at(self, low: Sequence[float], high: Sequence[float]) -> bool:
        """Return whether these are its bounds, within a thousandth of its size."""
        size = max(b - a for a, b in zip(self.low, self.high, strict=True))
        return bool(np.allclose([low, high], [self.low, self.high], atol=1e-3 * size))


def main() -> int:
    """Make the files, show them to every program, write the table; the exit code."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    require(INSTALL)
    folder = _ROOT / "outputs" / "outside"
    folder.mkdir(parents=True, exist_ok=True)
    pipeline = Hunyuan3DShapePipeline.from_pretrained("demo", device="cpu")
    results = dict(zip(_FLAT_FOOT, _results(pipeline), strict=True))
    mug = results["mug"]
    files = list(_files(mug, folder))
    table = Table()
    _ask_validator(table, files)
    _ask_plain_readers(table, files)
    _ask_blender(table, files)
    _ask_three(table, files, mug)
    layers = [_layer_row(table, name, result, folder) for name, result in results.items()]
    _RESULT.write_text(_report(table, layers))
    for line in table.wrong:
        print("WRONG", line)
    return 1 if table.wrong else 0


def _results(pipeline: Hunyuan3DShapePipeline) -> Iterator[ShapeResult]:
    for name in _FLAT_FOOT:
        path = _ROOT / "samples" / f"{name}.png"
        yield pipeline(path, seeds=_SEED, target_faces=default_target_faces(7))[0]


def _files(result: ShapeResult, folder: Path) -> Iterator[Made]:
    """Write every format with a size and without, and GLB compressed."""
    shape = make_outputs(result, OutputOptions(("glb",), name="mug", preview=False, keep=False)).shape
    for size in _SIZES:
        for format in FORMATS:
            yield _write(shape, format, size, folder)
    for compress in ("meshopt", "draco"):
        yield _write(shape, "glb", 80.0, folder, compress)


def _write(shape: FinishedShape, format: MeshFormat, size: float | None, folder: Path, compress: str = "none") -> Made:
    stem = "mug-usual-size" if size is None else f"mug-{size:g}mm"
    path = folder / f"{stem}{'' if compress == 'none' else '-' + compress}.{format}"
    said = {**shape.export, "compress": compress, **({} if size is None else {"scale_mm": size})}
    path.write_bytes(export_mesh(shape.mesh, format, appearance=shape.appearance, **said))
    low, high = exported_bounds(shape.mesh, format, scale_mm=said["scale_mm"])
    return Made(path, format, shape, low, high, compress)


def _ask_validator(table: Table, files: list[Made]) -> None:
    glbs = [made.path for made in files if made.format == "glb"]
    for path, issues in zip(glbs, gltf_issues(glbs), strict=True):
        counts = [issues[kind] for kind in ("errors", "warnings", "hints")]
        said = "{} errors, {} warnings, {} hints".format(*counts)
        table.add("gltf-validator", path.name, said, right=not any(counts))


def _ask_plain_readers(table: Table, files: list[Made]) -> None:
    for made in files:
        if made.format in ("glb", "stl", "obj", "ply") and made.compress == "none":
            found = assimp_measures(made.path)
            right = found.faces == made.faces and made.is_at(found.low, found.high)
            table.add("assimp", made.path.name, f"{found.faces} faces, {_size(found.low, found.high)}", right=right)
        if made.format == "stl":
            repairs = sum(admesh_repairs(made.path).values())
            table.add("admesh", made.path.name, f"{repairs} repairs", right=repairs == 0)
        if made.format in ("stl", "3mf", "obj"):
            cut = sliced(made.path)
            wanted = tuple(b - a for a, b in zip(made.low, made.high, strict=True))
            sound = cut.manifold and not cut.repaired and cut.parts == 1 and cut.faces == made.faces
            said = f"{'manifold' if cut.manifold else 'open'}, {'repaired' if cut.repaired else '0 repairs'}, "
            said += " × ".join(f"{side:.1f}" for side in cut.size)
            table.add("PrusaSlicer", made.path.name, said, right=sound and np.allclose(cut.size, wanted, rtol=1e-3))


def _ask_blender(table: Table, files: list[Made]) -> None:
    """Blender's module lacks Draco's library, its importer meshopt's; 3MF it does not read."""
    read = [made for made in files if made.format != "3mf" and made.compress == "none"]
    for made, seen in zip(read, blender_views([each.path for each in read]), strict=True):
        if "error" in seen:
            table.add("Blender", made.path.name, seen["error"], right=False)
            continue
        (x0, y0, z0), (x1, y1, z1) = made.low, made.high
        stands = made.format in ("glb", "usdz", "obj")
        low, high = ((x0, -z1, y0), (x1, -z0, y1)) if stands else (made.low, made.high)
        size = max(b - a for a, b in zip(low, high, strict=True))
        colored = bool(seen["images"] if made.format in ("glb", "usdz") else seen["colors"]) or made.format == "stl"
        right = bool(np.allclose([seen["low"], seen["high"]], [low, high], atol=1e-3 * size))
        said = f"{_size(seen['low'], seen['high'])}, normals {'out' if seen['volume'] > 0 else 'in'}, "
        said += ", ".join(f"image {name}" for name in seen["images"]) or ", ".join(
            f"colors {c}" for c in seen["colors"]
        )
        table.add("Blender", made.path.name, said.rstrip(", "), right=right and colored and seen["volume"] > 0)


def _ask_three(table: Table, files: list[Made], result: ShapeResult) -> None:
    wanted = _average(result.cutout) if result.cutout is not None else None
    pictures, farthest = [], 0.0
    with ThreeViewer(files[0].path.parent) as viewer:
        for made in files:
            shown = viewer.show(made.path, z_up=made.format in _Z_UP)
            off = np.inf if wanted is None else float(np.abs(np.subtract(shown["color"], wanted)).max())
            near = off <= _COLOR_TOLERANCE
            farthest = farthest if made.format == "stl" else max(farthest, off)
            color = "sRGB " + ", ".join(f"{each:.0f}" for each in shown["color"])
            right = (near or made.format == "stl") and shown["covered"] > 0.2
            table.add("three.js", made.path.name, f"{color} on {shown['covered']:.0%} of the frame", right=right)
            pictures.append(shown["picture"])
    if wanted is not None:
        color = ", ".join(f"{each:.0f}" for each in wanted)
        said = f"sRGB {color} on average; the files in color are within {farthest:.0f} of 255 of that"
        table.add("the picture", "samples/mug.png", said, right=farthest <= _COLOR_TOLERANCE)
    _PICTURE.write_bytes(pictures[0])


def _average(cutout: Image.Image) -> tuple[float, ...]:
    """Return the average sRGB of what is seen of an RGBA image."""
    pixels = np.asarray(cutout.convert("RGBA"), float).reshape(-1, 4)
    seen = pixels[pixels[:, 3] > 200, :3]
    return tuple(seen.mean(axis=0).tolist())


def _layer_row(table: Table, name: str, result: ShapeResult, folder: Path) -> str:
    """Return a row on the first layer of a sample, as it was found and as it is placed, at 100 mm."""
    found = []
    placed = make_outputs(result, OutputOptions(("stl",), preview=False, keep=False, color="none"))
    lying = make_outputs(
        result, OutputOptions(("stl",), preview=False, keep=False, color="none", place="ground", upright="off")
    )
    for kind, outputs in (("before", lying), ("after", placed)):
        path = folder / f"{name}-{kind}.stl"
        path.write_bytes(outputs.files[0].data)
        found.append(first_layer(path))
    foot = _foot(placed.shape.mesh)
    share = found[1][0] * found[1][1] / (foot[0] * foot[1])
    said = f"first layer {_flat(found[0])} before, {_flat(found[1])} after, of a foot of {_flat(foot)}"
    table.add("PrusaSlicer", f"{name}-after.stl", said, right=share >= 0.5)
    done = placed.placement
    by = f"by its {done.leveled_by}" if done.leveled_by else "not levelled"
    return (
        f"| {name} | {_flat(found[0])} | {_flat(found[1])} | {_flat(foot)} | {share:.0%} | "
        f"{done.turned_degrees:+.1f}° {by} | {100 * done.pressed:.1f} mm |"
    )


def _foot(mesh: trimesh.Trimesh) -> tuple[float, float]:
    """Return width and depth of what is within 5 mm of the ground, of a mesh of 100 mm."""
    points = mesh.vertices * (100.0 / mesh.extents.max())
    low = points[points[:, 1] - points[:, 1].min() <= _FOOT_MM]
    width, depth = np.ptp(low[:, [0, 2]], axis=0).tolist()
    return width, depth


def _size(low: Sequence[float], high: Sequence[float]) -> str:
    return " × ".join(f"{side:.4g}" for side in np.subtract(high, low).tolist())


def _flat(sides: tuple[float, float]) -> str:
    return f"{sides[0]:.0f} × {sides[1]:.0f} mm"


def _report(table: Table, layers: list[str]) -> str:
    stamp = datetime.now(UTC).strftime("%Y-%m-%d")
    return f"""# What others' programs make of our meshes

`make outside`, {stamp}, {platform.machine()}, {platform.system()} {platform.release()}: {_versions()}.
The mug of samples/, made by the demo checkpoint at quality 7 with seed {_SEED}, in every format, at the usual size
(100 mm) and at 80 mm. {len(table.rows)} rows, {len(table.wrong)} of them other than what was written.

Sizes are in the file's unit: metres in GLB and USDZ, millimetres in the others. Blender 4.2's importer does not know
EXT_meshopt_compression, and its Python module lacks the library for Draco; three.js reads both. 3MF is read by
PrusaSlicer and three.js. three.js draws without light, from the front, to be held against the picture;
outside_three.png is the same with light.

| program | file | what it says | as written |
|---|---|---|---|
{chr(10).join(table.rows)}

First layers, by PrusaSlicer at 100 mm, in layers of 0.2 mm. Before: on the ground, not levelled. The foot is what lies
within 5 mm of the ground.

| sample | before | after | foot | share | turned | pressed |
|---|---|---|---|---|---|---|
{chr(10).join(layers)}
"""


def _versions() -> str:
    blender = run(_ROOT / "build/blender/bin/python", "-c", "import bpy; print('V', bpy.app.version_string)")
    chromium = subprocess.run(["chromium", "--version"], check=False, capture_output=True, text=True)  # noqa: S607
    packages = ("assimp-utils", "admesh", "prusa-slicer")
    debian = [f"{name} {run('dpkg-query', '-W', '-f', '${Version}', name)}" for name in packages]
    known = ["gltf-validator 2.0.0-dev.3.10", *debian, f"Blender {blender.split('V ')[-1].split(chr(10))[0]}"]
    return ", ".join([*known, f"three.js 0.187.0 in {chromium.stdout.strip() or 'Chromium'}"])


if __name__ == "__main__":
    sys.exit(main())
