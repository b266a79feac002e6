"""How a mesh looks: a colour for each vertex, and a texture with its coordinates.

Both are kept beside the mesh, not in it, so that moving and scaling a mesh leaves them as they are. This module does
not know where colours come from or which file can carry what.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True, eq=False)
class Texture:
    """An image laid on a mesh, whose vertices are split where two neighbouring faces show different parts of it.

    image : RGB, the sRGB base colour. vertex : (W,) int64, which of the mesh's vertices each textured vertex is a copy
    of. faces : (F, 3) int64 into those copies, in the mesh's own order of faces. uv : (W, 2) float32, 0 to 1 from the
    image's upper left corner (as glTF counts; OBJ and USD count from the lower left).
    """

    image: Image.Image
    vertex: NDArray[np.int64]
    faces: NDArray[np.int64]
    uv: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Appearance:
    """The colours of a mesh of V vertices; vertex_colors : (V, 3) uint8 sRGB; texture : None where there is none."""

    vertex_colors: NDArray[np.uint8]
    texture: Texture | None = None
