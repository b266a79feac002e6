"""A small mesh in colors, of which every corner is known: for what files and viewers make of it."""

from __future__ import annotations

import numpy as np
import trimesh
from PIL import Image

from backend.hunyuan3d.mesh.appearance import Appearance, Texture

FRONT, BACK = (200, 40, 20), (20, 60, 180)
"""sRGB of the side that faces +Z, and of the other."""


def two_sided_ball(subdivisions: int = 4) -> tuple[trimesh.Trimesh, Appearance]:
    """Return a ball 2 units across, stretched upwards by half, red in front and blue behind."""
    ball = trimesh.creation.icosphere(subdivisions=subdivisions)
    mesh = trimesh.Trimesh(ball.vertices * [1, 1.5, 1], ball.faces, process=False)
    in_front = mesh.vertices[:, 2] >= 0
    colors = np.where(in_front[:, None], FRONT, BACK).astype(np.uint8)
    return mesh, Appearance(colors, _texture(mesh))


def _texture(mesh: trimesh.Trimesh) -> Texture:
    """Show the left half of an image in front and its right half behind; vertices on the rim are split."""
    image = Image.new("RGB", (64, 32), FRONT)
    image.paste(BACK, (32, 0, 64, 32))
    count = len(mesh.vertices)
    behind = mesh.triangles_center[:, 2] < 0
    split = np.asarray(mesh.faces) + np.where(behind, count, 0)[:, None]
    used, faces = np.unique(split, return_inverse=True)
    x, y, _ = mesh.vertices[used % count].T
    u = 0.25 + 0.2 * x + np.where(used >= count, 0.5, 0.0)
    uv = np.stack([u, 0.5 - 0.3 * y], axis=1).astype(np.float32)
    return Texture(image, (used % count).astype(np.int64), faces.reshape(-1, 3).astype(np.int64), uv)
