"""How true a mesh's colours are to its image, how long they take, and how well a camera is found.

Run `python -m benchmarks.color --cache FOLDER`; it makes the meshes of the samples and of 40 held-out emoji with the
demo checkpoint (minutes; kept in the folder), prints tables, and writes them and a sheet of all to benchmarks/results/.
It does not judge what only an eye can: look at the sheet.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import cKDTree
from skimage.metrics import structural_similarity

from backend.hunyuan3d import Hunyuan3DShapePipeline
from backend.hunyuan3d.image.background import remove_background
from backend.hunyuan3d.image.image_processor import ImageProcessor
from backend.hunyuan3d.mesh.appearance import Appearance
from backend.rendering.camera import find_camera, silhouette
from backend.rendering.camera_model import Camera
from backend.rendering.colors import color_mesh
from backend.rendering.contact_sheet import SheetRow, contact_sheet
from backend.rendering.raster import rasterize
from backend.rendering.render import BACK, FRONT, THREE_QUARTER, RenderOptions, render_views
from backend.rendering.surface_colors import surface_colors
from benchmarks.support.demo_pictures import SAMPLES, held_out_emoji, sample_images

RESULTS = Path(__file__).parent / "results"
SEED = 7
_SIDE = 256
_VIVID = ((255, 0, 255), (0, 255, 0), (0, 255, 255), (255, 255, 0), (255, 0, 0), (0, 0, 255))
_GLASSY, _ENLARGED = 0.05, 4
_TILE = 104

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Shape:
    """A mesh, the cut-out that it was made of, the colour behind the object, and whether that had to be removed.

    image : as it was given
    """

    name: str
    mesh: trimesh.Trimesh
    cutout: Image.Image
    background: tuple[int, int, int]
    removed: bool
    image: Image.Image


@dataclass(frozen=True)
class Truth:
    """What was measured of one shape.

    similarity : SSIM of the coloured front view with the image, inside both silhouettes. strange : of the back view's
    pixels, the share that is nearer to the background's colour than to any of the object's. vivid : the same of the
    object on a backdrop of a colour far from all of its own, cut out by its own alpha, and by us; None where it has no
    alpha of its own, or is half transparent.
    """

    name: str
    silhouette: float
    similarity: float
    strange: float
    seconds: float
    vivid: tuple[float, float] | None = None


def shapes(cache: Path) -> Iterator[Shape]:
    """Make, or take from the cache, the meshes of all samples and of 40 held-out emoji."""
    cache.mkdir(parents=True, exist_ok=True)
    pipeline: Hunyuan3DShapePipeline | None = None
    aside = [(f"e_{each.name.replace(' ', '_')}", each.image) for each in held_out_emoji(cache / "fonts")]
    for name, image in sample_images() + aside:
        file = cache / f"{name}.npz"
        if not file.is_file():
            pipeline = pipeline or Hunyuan3DShapePipeline.from_pretrained("demo", device="cpu")
            result = pipeline(image, seeds=SEED, octree_resolution=128)[0]
            made = result.unwrap()
            np.savez(
                file, v=made.vertices.astype(np.float32), f=made.faces.astype(np.int32), cut=np.asarray(result.cutout)
            )
        kept = np.load(file)
        mesh = trimesh.Trimesh(kept["v"], kept["f"], process=False)
        yield Shape(name, mesh, Image.fromarray(kept["cut"]), *_behind(image), image)


def _behind(image: Image.Image) -> tuple[tuple[int, int, int], bool]:
    """Return the colour of an image's border, and True; white, as the network sees it, where that is transparent."""
    pixels = np.asarray(image.convert("RGBA"))
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    if np.median(border[:, 3]) < 255:
        return (255, 255, 255), False
    red, green, blue = np.median(border[:, :3], axis=0).astype(int).tolist()
    return (red, green, blue), True


def through(
    camera: Camera, mesh: trimesh.Trimesh, appearance: Appearance, side: int
) -> tuple[Pixels, NDArray[np.bool_]]:
    """Return the colours (side, side, 3), without any light, that a camera sees, and where it sees the mesh."""
    faces = np.asarray(mesh.faces)
    pixels, near = camera.project(np.asarray(mesh.vertices), side)
    raster = rasterize(pixels, near, faces, side)
    image = np.zeros((side, side, 3), np.uint8)
    weights = raster.weights[raster.covered]
    linear = surface_colors(appearance, faces).at(raster.face[raster.covered], weights[:, 1:2], weights[:, 2:3])
    image[raster.covered] = np.rint(linear ** (1 / 2.2) * 255).clip(0, 255).astype(np.uint8)
    return image, raster.covered


def measure(shape: Shape) -> tuple[Truth, Appearance]:
    """Colour a shape and compare it with its image."""
    alpha = np.asarray(shape.cutout)[..., 3]
    started = time.process_time()
    camera = find_camera(shape.mesh, alpha, view_aligned=True)
    appearance = color_mesh(shape.mesh, shape.cutout, camera, texture=True)
    seconds = time.process_time() - started
    image, covered = through(camera, shape.mesh, appearance, _SIDE)
    given = np.asarray(shape.cutout.convert("RGBa").resize((_SIDE, _SIDE), Image.Resampling.BOX).convert("RGBA"))
    both = covered & (given[..., 3] > 240)
    grey = given[both][:, :3].mean(axis=0)
    pair = [np.where(both[..., None], one, grey).astype(np.uint8) for one in (image, given[..., :3])]
    _, similar = structural_similarity(*pair, channel_axis=2, full=True)
    strange = _strange(
        shape.mesh, camera, appearance, own_colors(shape.cutout, removed=shape.removed), shape.background
    )
    vivid = None if shape.removed else on_vivid(shape)
    return Truth(shape.name, camera.score, float(similar[both].mean()), strange, seconds, vivid), appearance


def own_colors(cutout: Image.Image, *, removed: bool) -> Floats:
    """Return all colours (n, 3) of an object, and the means of neighbours, which resampling makes of them.

    removed : whether something of the background may be left at its edge.
    """
    pixels = np.asarray(cutout)
    inner = pixels[..., 3] == 255
    if removed:
        inner = cv2.erode(inner.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    colors, weight = pixels[..., :3].astype(np.float32), inner.astype(np.float32)
    means = cv2.blur(colors * weight[..., None], (3, 3)) / np.maximum(cv2.blur(weight, (3, 3)), 1e-6)[..., None]
    return np.unique(np.concatenate([colors[inner], np.rint(means[inner])]), axis=0)


def _strange(
    mesh: trimesh.Trimesh, camera: Camera, appearance: Appearance, own: Floats, background: tuple[int, int, int]
) -> float:
    """Return the share of the back view's pixels that is nearer to the background's colour than to any of `own`."""
    back = Camera(azimuth=180.0, scale=camera.scale, shift=camera.shift)
    image, there = through(back, mesh, appearance, _SIDE)
    pixels = image[there].astype(np.float32)
    distance, _ = cKDTree(own).query(pixels)
    other = np.sqrt(((pixels - np.array(background, np.float32)) ** 2).sum(axis=1))
    return float((other < distance).mean())


def on_vivid(shape: Shape) -> tuple[float, float] | None:
    """Return what is strange of a shape whose image lay on a vivid backdrop: cut out by its own alpha, and by us.

    None of one that is half transparent: it truly has the backdrop's colour.
    """
    alpha = np.asarray(shape.image)[..., 3]
    solid = cv2.erode((alpha > 0).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    if (alpha[solid] < 255).mean() > _GLASSY:
        return None
    own = own_colors(shape.image, removed=False)
    distance, _ = cKDTree(own).query(np.array(_VIVID, np.float32))
    backdrop = _VIVID[int(np.argmax(distance))]
    image = _laid_on(shape.image, backdrop)
    own_alpha = Image.fromarray(np.dstack([np.asarray(image.convert("RGB")), np.asarray(image)[..., 3]]))
    processor = ImageProcessor()
    shares = []
    for cut in (own_alpha, remove_background(image.convert("RGB"), "always").image):
        cutout = processor.cutout(cut)
        camera = find_camera(shape.mesh, np.asarray(cutout)[..., 3], view_aligned=True)
        appearance = color_mesh(shape.mesh, cutout, camera, texture=True)
        shares.append(_strange(shape.mesh, camera, appearance, own, backdrop))
    return shares[0], shares[1]


def _laid_on(image: Image.Image, backdrop: tuple[int, int, int]) -> Image.Image:
    """Return the image four times as large, with a margin, on a backdrop; its alpha is the object's own still."""
    size = (image.width * _ENLARGED, image.height * _ENLARGED)
    large = image.convert("RGBa").resize(size, Image.Resampling.BICUBIC).convert("RGBA")
    margin = _ENLARGED * 10
    whole = Image.new("RGBA", (size[0] + 2 * margin, size[1] + 2 * margin))
    whole.paste(large, (margin, margin))
    flat = Image.new("RGBA", whole.size, (*backdrop, 255))
    flat.alpha_composite(whole)
    flat.putalpha(whole.getchannel("A"))
    return flat


def cameras(all_shapes: list[Shape], count: int) -> list[tuple[float, float, float]]:
    """Search cameras of silhouettes from random places: degrees off, overlap reached and seconds of each."""
    rng = np.random.default_rng(3)
    found = []
    for shape in all_shapes[:: max(1, len(all_shapes) // count)]:
        low, high = shape.mesh.vertices.min(axis=0), shape.mesh.vertices.max(axis=0)
        middle = (low + high) / 2
        true = Camera(
            azimuth=float(rng.uniform(-60, 60)),
            elevation=float(rng.uniform(-10, 45)),
            field_of_view=float(rng.choice([0.0, rng.uniform(20, 60)])),
            scale=0.8,
            centre=(float(middle[0]), float(middle[1]), float(middle[2])),
            radius=float(np.linalg.norm(high - low)) / 2,
        )
        alpha = silhouette(shape.mesh, true, 256).astype(np.uint8) * 255
        started = time.process_time()
        got = find_camera(shape.mesh, alpha, view_aligned=False)
        seconds = time.process_time() - started
        off = np.degrees(np.arccos(np.clip(got.axes()[2] @ true.axes()[2], -1, 1)))
        found.append((float(off), got.score, seconds))
    return found


def large(cache: Path) -> Shape:
    """Return a mug of some 300,000 faces with a cut-out of 1024 pixels."""
    file = cache / "large" / "mug.npz"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        image = Image.open(SAMPLES / "mug.png").resize((1300, 1300), Image.Resampling.LANCZOS)
        result = Hunyuan3DShapePipeline.from_pretrained("demo", device="cpu")(image, seeds=SEED, octree_resolution=182)[
            0
        ]
        made = result.unwrap()
        np.savez(file, v=made.vertices.astype(np.float32), f=made.faces.astype(np.int32), cut=np.asarray(result.cutout))
    kept = np.load(file)
    mesh = trimesh.Trimesh(kept["v"], kept["f"], process=False)
    cutout = Image.fromarray(kept["cut"])
    return Shape("mug", mesh, cutout, (255, 255, 255), True, cutout)


def sheet(rows: list[tuple[Shape, Appearance]]) -> Image.Image:
    """Draw image, coloured front, three-quarter and back of all."""
    options = RenderOptions(size=_TILE, samples=3)
    lines = [
        SheetRow(
            shape.cutout,
            render_views(shape.mesh, (FRONT, THREE_QUARTER, BACK), options, appearance=appearance),
            shape.name.removeprefix("e_").replace("_", " "),
        )
        for shape, appearance in rows
    ]
    return contact_sheet(lines, tile=_TILE, columns=3, labels=["picture", "front", "three-quarter", "back"])


def report(truths: list[Truth], found: list[tuple[float, float, float]], shape: Shape, seconds: list[float]) -> str:
    """Return the tables as Markdown."""
    samples, emoji = (
        [truth for truth in truths if truth.name.startswith("e_") == held_out] for held_out in (False, True)
    )
    off, overlap, took = zip(*found, strict=True)
    lines = [
        "# Colours",
        "",
        f"{platform.machine()}, {os.cpu_count()} cores, one used; {datetime.now(UTC):%Y-%m-%d}. Seconds are of the"
        " processor's time. Made by `python -m benchmarks.color`; [the sheet](color.jpg) shows all of them.",
        "",
        "## True to the image",
        "",
        "SSIM of the front view, without light, with the image, 256 pixels a side, inside both silhouettes."
        " Strange: the share of the back view's pixels that are nearer to the background's colour than to any that the"
        " object has (or the mean of neighbours).",
        "",
        "| | silhouette IoU | SSIM | worst SSIM | strange, mean | strange, worst | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, group in ((f"{len(samples)} samples", samples), (f"{len(emoji)} held-out emoji", emoji)):
        worst, strangest = min(group, key=lambda t: t.similarity), max(group, key=lambda t: t.strange)
        where = f" ({_plain(strangest)})" if strangest.strange else ""
        lines.append(
            f"| {name} | {_mean([t.silhouette for t in group]):.3f} | {_mean([t.similarity for t in group]):.3f}"
            f" | {worst.similarity:.3f} ({_plain(worst)}) | {_mean([t.strange for t in group]):.2%}"
            f" | {strangest.strange:.2%}{where} | {_mean([t.seconds for t in group]):.2f} |"
        )
    lines += _vivid_report(emoji)
    lines += [
        "",
        "## How long it takes",
        "",
        f"{len(shape.mesh.faces):,} faces, a cut-out of {shape.cutout.width} pixels, the known camera's score, colours"
        f" and texture: {min(seconds):.2f} s at best, {statistics.median(seconds):.2f} s in the middle of"
        f" {len(seconds)}; asked were 0.7 s.",
        "",
        "## The camera's search",
        "",
        f"{len(found)} silhouettes of these meshes from random places (azimuth ±60°, elevation -10° to 45°,"
        " orthographic or 20° to 60° wide).",
        "",
        "| degrees off, median | worst | within 10° | silhouette IoU, mean | seconds |",
        "|---|---|---|---|---|",
        f"| {statistics.median(off):.1f} | {max(off):.1f} | {np.mean(np.array(off) < 10):.0%}"
        f" | {_mean(list(overlap)):.3f} | {_mean(list(took)):.2f} |",
        "",
    ]
    return "\n".join(lines)


def _vivid_report(emoji: list[Truth]) -> list[str]:
    vivid = [(truth, *truth.vivid) for truth in emoji if truth.vivid is not None]
    left = sorted((by_us, _plain(truth)) for truth, _, by_us in vivid if by_us > 0)[::-1]
    own = [by_alpha for _, by_alpha, _ in vivid]
    return [
        "",
        "Where the object is as bright as its background, that says little. So each emoji, four times as large, lay"
        " on a backdrop of a colour far from all of its own, mixed into its soft edge, and the same mesh coloured by"
        f" that; of {len(emoji)}, {len(vivid)} count: the rest is half transparent.",
        "",
        "| cut out by | strange, mean | strange, worst | backs without any |",
        "|---|---|---|---|",
        f"| its own alpha | {_mean(own):.3%} | {max(own):.2%} | {sum(not share for share in own)} of {len(vivid)} |",
        f"| us | {_mean([by_us for *_, by_us in vivid]):.3%} | {max(by_us for *_, by_us in vivid):.2%}"
        f" | {len(vivid) - len(left)} of {len(vivid)} |",
        "",
        "What is left is the cut-out's, which shows a piece of the backdrop on the front, too: "
        + (", ".join(f"{name} {share:.2%}" for share, name in left) or "nothing")
        + ".",
    ]


def _plain(truth: Truth) -> str:
    return truth.name.removeprefix("e_").replace("_", " ")


def _mean(values: list[float]) -> float:
    return statistics.fmean(values)


def main() -> None:
    """Measure, print, and write the tables and the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="folder for meshes and the emoji font")
    cache = parser.parse_args().cache
    cv2.setNumThreads(1)
    all_shapes = list(shapes(cache))
    measured = [measure(shape) for shape in all_shapes]
    for truth, _ in measured:
        print(truth)
    big = large(cache)
    seconds = [measure_time(big) for _ in range(7)]
    text = report([truth for truth, _ in measured], cameras(all_shapes, 24), big, seconds)
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "color.md").write_text(text, "utf-8")
    rows = [(shape, appearance) for shape, (_, appearance) in zip(all_shapes, measured, strict=True)]
    sheet(rows).save(RESULTS / "color.jpg", quality=88)


def measure_time(shape: Shape) -> float:
    """Return the seconds that a known camera and colours with a texture take."""
    started = time.process_time()
    camera = find_camera(shape.mesh, np.asarray(shape.cutout)[..., 3], view_aligned=True)
    color_mesh(shape.mesh, shape.cutout, camera, texture=True)
    return time.process_time() - started


if __name__ == "__main__":
    main()
