"""A mesh's colours from the image that it was made of.

What the camera sees gets the image's own colours, at the image's own sharpness. Flanks get the colours a little inside
the outline, softened, so that no edge is drawn out into streaks. The far side is the image mirrored, or without what
does not reach the outline (far_side.py), except behind an opening. What was taken from aslant has its other side
mirrored through the object's own plane where that agrees (color_mirror.py). What neither side shows takes the colours
of the surface nearby. Where layers meet they fade into one another.

The texture is these layers side by side, its coordinates are projections, and vertices are split where the layer
changes: nothing is unwrapped, whatever the number of faces.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image

from backend.hunyuan3d.mesh.appearance import Appearance
from backend.hunyuan3d.mesh.ops import require_usable
from backend.rendering.camera_model import Camera
from backend.rendering.color_atlas import paint_texture, splat
from backend.rendering.color_fill import Floats, fill_points
from backend.rendering.color_layers import FLANK, SHEER, Layer, Seen, extent_of, see
from backend.rendering.color_mirror import aslant, with_mirrored
from backend.rendering.color_sources import color_sources
from backend.rendering.far_side import far_side
from backend.rendering.surface_colors import sample

_LEAST_SIDE, _MOST_SIDE = 384, 1024
_MAP_SIDE = 336
_WITHIN = 0.98
_PADDING = 0.015
# An opening: how far from the plane of symmetry, how recessed, and its wall's thickness, in shares of the mesh's depth;
# and its lip's breadth, in shares of the image.
_OPENING, _RECESS, _WALL, _LIP = 0.05, 0.15, 0.25, 0.025
_NORMAL_WEIGHT = 0.15
_CELLS = 40


@dataclass(frozen=True, eq=False)
class _Images:
    """The colours of the layers that are images, (n, n, 3) float32 0 to 255; flank at half the size.

    far_known : (n, n), 0 to 1, where the far side is known to be as `far` says.
    """

    near: Floats
    flank: Floats
    far: Floats
    far_known: Floats


def color_mesh(mesh: trimesh.Trimesh, cutout: Image.Image, camera: Camera, *, texture: bool) -> Appearance:
    """Return the mesh's colours, with a texture too where asked.

    cutout : RGBA, square, the frame of the camera. Raises InvalidMesh for an empty or non-finite mesh.
    """
    window = _window(mesh, cutout, camera)
    rgba = _through(cutout, window)
    left, top, extent = (edge / cutout.width for edge in window)
    seen = see(mesh, camera, (left, top, extent), min(_MAP_SIDE, len(rgba)))
    images = _images(rgba, seen, aslant=aslant(camera))
    if aslant(camera):
        seen = with_mirrored(seen, camera, (left, top, extent), images.near)
    colors, guessed = _vertex_colors(seen, images)
    painted = None
    if texture:
        far = _far_image(seen, images, colors, guessed)
        painted = paint_texture(seen, (images.near, images.flank, far), colors)
    return Appearance(colors.clip(0, 255).round().astype(np.uint8), painted)


def _window(mesh: trimesh.Trimesh, cutout: Image.Image, camera: Camera) -> tuple[int, int, int]:
    """Return the square that holds mesh and object: left, top and side, in the cut-out's pixels."""
    vertices, faces = require_usable(mesh)
    size = cutout.width
    used = np.zeros(len(vertices), np.bool_)
    used[faces] = True
    pixels, _ = camera.project(vertices[used], size)
    shown = np.array(cutout.getchannel("A").getbbox() or (0, 0, size, size), np.float64).reshape(2, 2)
    # A camera that is far off must not ask for an endless image.
    least, most = (np.array([edge(axis) for axis in pixels.T]) for edge in (np.min, np.max))
    low = np.clip(np.minimum(least, shown[0]), -size / 2, size) - _PADDING * size
    high = np.clip(np.maximum(most, shown[1]), 0.0, 1.5 * size) + _PADDING * size
    extent = math.ceil(float((high - low).max())) + 1
    left, top = np.floor((low + high - extent) / 2).astype(int).tolist()
    return left, top, extent


def _through(cutout: Image.Image, window: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return what the window shows of the cut-out (n, n, 4), at its own sharpness within bounds."""
    left, top, extent = window
    rgba = np.asarray(cutout.convert("RGBA").crop((left, top, left + extent, top + extent)))
    side = min(max(extent, _LEAST_SIDE), _MOST_SIDE)
    if side == extent:
        return rgba
    alpha = rgba[..., 3:].astype(np.float32) / 255
    premultiplied = np.concatenate([rgba[..., :3] * alpha, alpha], axis=2)
    how = cv2.INTER_CUBIC if side > extent else cv2.INTER_AREA
    resized = cv2.resize(premultiplied, (side, side), interpolation=how)
    # Divided by the alpha as it overshoots, colours do not at the outline; within it they are held to what lies around.
    straight = resized[..., :3] / np.maximum(resized[..., 3:], 1e-3)
    if side > extent:
        least, most = _bounds(rgba, side)
        # A soft edge stays as it is: what is shadow and what is sole is told by it.
        within = resized[..., 3:] > _WITHIN
        straight = np.where(within, np.minimum(np.maximum(straight, least), most), straight)
    whole = np.concatenate([straight, resized[..., 3:] * 255], axis=2)
    return np.asarray(np.rint(whole).clip(0, 255), np.uint8)


def _bounds(rgba: NDArray[np.uint8], side: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the least and the greatest of each channel (side, side, 3) among a pixel's neighbours that are shown."""
    there, size, kernel = rgba[..., 3:] > 0, (side, side), np.ones((3, 3), np.uint8)
    least = cv2.erode(np.where(there, rgba[..., :3], 255).astype(np.uint8), kernel)
    most = cv2.dilate(np.where(there, rgba[..., :3], 0).astype(np.uint8), kernel)
    return (
        np.asarray(cv2.resize(least, size, interpolation=cv2.INTER_NEAREST), np.uint8),
        np.asarray(cv2.resize(most, size, interpolation=cv2.INTER_NEAREST), np.uint8),
    )


def _images(rgba: NDArray[np.uint8], seen: Seen, *, aslant: bool) -> _Images:
    """Make the layers' images and let near and far fade into the flanks where the surface turns away."""
    sources = color_sources(rgba)
    whole = (rgba.shape[1], rgba.shape[0])
    flank = cv2.resize(sources.flank, whole, interpolation=cv2.INTER_LINEAR)
    proposal = far_side(sources.seen, sources.known, aslant=aslant, details=sources.details)
    known = cv2.resize(_counterpart(seen), whole, interpolation=cv2.INTER_LINEAR)
    near = _faded(sources.seen, flank, seen.facing_front, seen.front.covered)
    far = _faded(proposal.image, flank, seen.facing_back, seen.back.covered)
    return _Images(near, sources.flank, far, known)


def _far_image(seen: Seen, images: _Images, colors: Floats, guessed: NDArray[np.bool_]) -> Floats:
    """Return the far side (n, n, 3), with the vertices' own colours where the image does not know it."""
    if not guessed.any():
        return images.far
    n = len(images.far)
    rest = cv2.resize(splat(seen, colors, guessed, n // 4), (n, n), interpolation=cv2.INTER_LINEAR)
    return np.asarray(rest + images.far_known[..., None] * (images.far - rest), dtype=np.float32)


def _faded(image: Floats, flank: Floats, facing: Floats, covered: NDArray[np.bool_]) -> Floats:
    """Return the image, and the flank's in its place where the surface is steep."""
    share = np.clip((facing - FLANK) / (SHEER - FLANK), 0, 1)
    share = np.where(covered, share, 0).astype(np.float32)
    weight = cv2.resize(share, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(flank + weight[..., None] * (image - flank), dtype=np.float32)


def _counterpart(seen: Seen) -> Floats:
    """Return where (side, side) the last surface along a ray may look as the first one does, 0 to 1.

    Not behind an opening: inside a mug that is seen from above, the wall behind the opening has the mug's outer colour.
    An opening is recessed, lower than what lies left and right of it, and ends at a thin wall so low that the middle
    between first and last surface is far from the plane through the middles elsewhere.
    """
    both = seen.front.covered & seen.back.covered
    if both.sum() < 16:
        return both.astype(np.float32)
    near = np.where(both, seen.front.near, np.float32(-1e9))
    walls = np.minimum(np.maximum.accumulate(near, axis=1), np.maximum.accumulate(near[:, ::-1], axis=1)[:, ::-1])
    first, last = seen.front.near[both], -seen.back.near[both]
    depth = float(np.percentile(first, 98) - np.percentile(last, 2))
    recess = np.where(both, walls - near, 0) / max(depth, 1e-9)
    low = np.zeros_like(both)
    low[both] = (_off_the_plane(np.asarray((first + last) / 2, np.float32), both) > _OPENING * depth) & (
        first - last < _WALL * depth
    )
    _, labels = cv2.connectedComponents((recess > _RECESS / 4).astype(np.uint8))
    deep = np.bincount(labels[low & (recess > _RECESS)], minlength=int(labels.max()) + 1)
    whole = np.bincount(labels.ravel(), minlength=len(deep))
    opening = (deep > np.maximum(0.002 * both.sum(), 0.3 * whole))[labels] & (labels > 0)
    # Its lip is seen around it.
    lip = int(_LIP * len(both)) * 2 + 1
    beyond = cv2.dilate(opening.astype(np.uint8), np.ones((lip, lip), np.uint8)) > 0
    return np.asarray(cv2.GaussianBlur((~beyond).astype(np.float32), (0, 0), 1.2), np.float32)


def _off_the_plane(middle: Floats, both: NDArray[np.bool_]) -> Floats:
    """Return how far (n,) each middle of first and last surface is from one plane through all.

    both : the n pixels that they are at.
    """
    rows, columns = np.nonzero(both)
    plane = np.stack([columns, rows, np.full(len(rows), len(both))], axis=1).astype(np.float32) / len(both)
    weight: Floats = np.ones(len(middle), np.float32)
    off = weight
    for _ in range(5):
        squared = (weight**2)[:, None] * plane
        fit = np.linalg.solve(plane.T @ squared + 1e-6 * np.eye(3, dtype=np.float32), squared.T @ middle)
        off = np.asarray(np.abs(middle - plane @ fit), np.float32)
        weight = np.asarray(1 / (1 + (off / max(float(np.median(off)), 1e-6)) ** 2), np.float32)
    return off


def _vertex_colors(seen: Seen, images: _Images) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the colours (V, 3) of all vertices, and which (V,) of the far side got theirs from the surface nearby.

    The others have their layer's colour; those that are hidden have the surface's nearby, too.
    """
    colors = np.zeros((len(seen.vertices), 3), np.float32)
    uv = seen.pixels / len(seen.facing_front)
    for layer, image in ((Layer.NEAR, images.near), (Layer.FLANK, images.flank), (Layer.FAR, images.far)):
        mine = seen.vertex_layer == layer
        colors[mine] = sample(image, uv[mine])
    if seen.mirrored is not None:
        mine = seen.vertex_layer == Layer.MIRRORED
        colors[mine] = sample(images.near, seen.mirrored[mine] / len(seen.facing_front))
    far = seen.vertex_layer == Layer.FAR
    guessed = far.copy()
    guessed[far] = sample(images.far_known, uv[far])[:, 0] < 0.9
    hidden = (seen.vertex_layer == Layer.HIDDEN_NEAR) | (seen.vertex_layer == Layer.HIDDEN_FAR)
    turned = far & ~guessed
    if guessed.any() and turned.any():
        found = _from_nearby(seen, colors, turned, guessed)
        colors[guessed] = found + sample(images.far_known, uv[guessed]) * (colors[guessed] - found)
    if hidden.any() and not hidden.all():
        colors[hidden] = _from_nearby(seen, colors, ~hidden, hidden)
    return colors, guessed


def _from_nearby(seen: Seen, colors: Floats, sources: NDArray[np.bool_], unknown: NDArray[np.bool_]) -> Floats:
    """Return the colours of the unknown vertices, from sources that lie near and look the same way."""
    size = extent_of(seen.vertices)
    features = np.concatenate([seen.vertices / size, _NORMAL_WEIGHT * seen.normals], axis=1).astype(np.float32)
    wanted = features[unknown]
    # Neighbours share an answer: a cell of the grid has one for each side that it looks to.
    cell = np.floor((wanted[:, :3] - wanted[:, :3].min(axis=0)) * _CELLS).astype(np.int64)
    side = np.abs(wanted[:, 3:]).argmax(axis=1)
    side = side * 2 + (np.take_along_axis(wanted[:, 3:], side[:, None], axis=1)[:, 0] > 0)
    key = ((cell[:, 0] * (_CELLS + 1) + cell[:, 1]) * (_CELLS + 1) + cell[:, 2]) * 6 + side
    _, own = np.unique(key, return_inverse=True)
    count = np.bincount(own)
    means = np.stack([np.bincount(own, column) / count for column in wanted.T], axis=1).astype(np.float32)
    return fill_points(features[sources], colors[sources], means)[own]
