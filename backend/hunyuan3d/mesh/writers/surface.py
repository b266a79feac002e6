"""What every kind of mesh file is written from, and how a color's numbers are turned for it.

This module does not know which file will be written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from backend import __version__
from backend.hunyuan3d.mesh.appearance import Texture
from backend.hunyuan3d.mesh.ops import smooth_normals
from backend.hunyuan3d.mesh.topology import Faces, Vertices

GENERATOR = f"ORFEAS {__version__}"
CLAY = (204, 200, 194)
"""sRGB of a mesh without colors of its own."""

_LONGEST_NAME = 64


@dataclass(frozen=True, eq=False)
class Surface:
    """A mesh in the frame and unit of its file.

    vertices : (V, 3). faces : (F, 3). colors : (V, 3) uint8 sRGB, or None. texture : takes the place of colors where it
    is there. name : of one line. extras : what is JSON and worth keeping with the mesh.
    """

    vertices: Vertices
    faces: Faces
    colors: NDArray[np.uint8] | None = None
    texture: Texture | None = None
    name: str = "mesh"
    extras: Mapping[str, object] = field(default_factory=dict)

    @cached_property
    def normals(self) -> Vertices:
        """Smooth normals of the vertices, (V, 3)."""
        return smooth_normals(self.vertices, self.faces)


def plain_name(name: str) -> str:
    """Return a name on one line, short, without what no file format takes; "mesh" where nothing is left."""
    kept = "".join(c if c.isprintable() and c not in "\\/\"<>&'" else " " for c in name)
    return " ".join(kept.split())[:_LONGEST_NAME].strip() or "mesh"


def ascii_name(name: str) -> str:
    """Return a name for files that take ASCII without blanks."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name)


def linear(srgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return sRGB values, 0 to 255, as linear light, 0 to 1. Source: IEC 61966-2-1."""
    return _LINEAR[srgb]


_STEPS = np.arange(256) / 255
_LINEAR = np.where(_STEPS <= 0.04045, _STEPS / 12.92, ((_STEPS + 0.055) / 1.055) ** 2.4)
