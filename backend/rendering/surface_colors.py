"""The colour of any point of a mesh, from its appearance: what the renderer asks for where a ray strikes.

Does not know of rays, light or files.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from backend.hunyuan3d.mesh.appearance import Appearance
from backend.hunyuan3d.mesh.topology import Faces

Floats = NDArray[np.float32]

# The renderer develops its light with this exponent, so colours come in by the same.
GAMMA = 2.2
_ROW = 4096


@dataclass(frozen=True, eq=False)
class SurfaceColors:
    """Colours at points given by face and barycentric coordinates.

    corners : (F, 3, k) float32: a colour 0 to 255 (k = 3) or a texture coordinate (k = 2) for each face's corners.
    texture : (h, w, 3) uint8, sRGB, or None.
    """

    corners: Floats
    texture: NDArray[np.uint8] | None

    def at(self, face: NDArray[np.integer], u: Floats, v: Floats) -> Floats:
        """Return the linear base colour (n, 3), 0 to 1, at u, v (n, 1) of the second and third corner."""
        corners = np.take(self.corners, face, axis=0)
        value = (1 - u - v) * corners[:, 0] + u * corners[:, 1] + v * corners[:, 2]
        srgb = value if self.texture is None else sample(self.texture, value)
        return np.asarray((srgb / 255) ** GAMMA, dtype=np.float32)


def surface_colors(appearance: Appearance, faces: Faces) -> SurfaceColors:
    """Return the colours of a mesh with the faces (F, 3): of the texture where there is one."""
    texture = appearance.texture
    if texture is None:
        return SurfaceColors(appearance.vertex_colors[faces].astype(np.float32), None)
    return SurfaceColors(np.take(texture.uv, texture.faces, axis=0), np.asarray(texture.image.convert("RGB")))


def sample(image: NDArray[np.uint8] | Floats, uv: Floats) -> Floats:
    """Return an image's values (n, c) at uv (n, 2), 0 to 1 from the upper left corner, bilinear, as float32."""
    height, width = image.shape[:2]
    count = len(uv)
    # OpenCV limits the length of a row.
    padded = np.zeros((-(-max(count, 1) // _ROW) * _ROW, 2), np.float32)
    padded[:count] = uv * np.array([width, height], np.float32) - 0.5
    across, down = (np.ascontiguousarray(padded[:, k]).reshape(-1, _ROW) for k in range(2))
    values = cv2.remap(image, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    channels = 1 if image.ndim == 2 else image.shape[2]
    return np.asarray(values.reshape(-1, channels)[:count], dtype=np.float32)
