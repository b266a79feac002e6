"""A sheet for the eye: the samples and 40 held-out emoji, coloured, without and with following their outlines.

    python -m benchmarks.outline_sheet --cache FOLDER

makes every mesh twice with the demo checkpoint at resolution 128 and writes benchmarks/results/outline.jpg: picture,
then front and three-quarter with outline=off, then the same with auto. FOLDER keeps a fetched font. Nothing is
measured.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from backend.hunyuan3d import Hunyuan3DShapePipeline
from backend.limits import OutlineMode
from backend.rendering.camera import find_camera
from backend.rendering.colors import color_mesh
from backend.rendering.contact_sheet import SheetRow, contact_sheet
from backend.rendering.render import FRONT, THREE_QUARTER, RenderOptions, render_views
from benchmarks.support.demo_pictures import held_out_emoji, sample_images

SHEET = Path(__file__).parent / "results" / "outline.jpg"
_TILE, _SEED, _RESOLUTION = 112, 7, 128
_MODES: tuple[OutlineMode, OutlineMode] = ("off", "auto")
_LABELS = ["picture", "off", "", "auto", ""]


def row(pipeline: Hunyuan3DShapePipeline, name: str, image: Image.Image) -> SheetRow:
    """Make a picture's mesh both ways and return its line of the sheet."""
    views: list[Image.Image] = []
    for mode in _MODES:
        (result,) = pipeline(image, seeds=_SEED, octree_resolution=_RESOLUTION, outline=mode)
        mesh, cutout = result.unwrap(), result.cutout
        if cutout is None:
            raise RuntimeError(f"{name}: no cut-out was kept")
        camera = find_camera(mesh, np.asarray(cutout)[..., 3], view_aligned=True)
        appearance = color_mesh(mesh, cutout, camera, texture=True)
        options = RenderOptions(size=_TILE, samples=2)
        views += render_views(mesh, (FRONT, THREE_QUARTER), options, appearance=appearance)
    return SheetRow(image, views, name)


def main() -> None:
    """Make the meshes and write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=SHEET)
    options = parser.parse_args()
    pipeline = Hunyuan3DShapePipeline.from_pretrained("demo", device="cpu")
    rows = []
    for name, image in sample_images() + [(each.name, each.image) for each in held_out_emoji(options.cache)]:
        rows.append(row(pipeline, name, image))
        print(name, flush=True)
    contact_sheet(rows, tile=_TILE, columns=3, labels=_LABELS).save(options.out, quality=85)


if __name__ == "__main__":
    main()
