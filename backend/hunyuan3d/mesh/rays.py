"""Rays at a mesh, by Embree (embreex, which need not be installed).

A large mesh is handed to Embree piece by piece: embreex reads one value after the other and keeps the interpreter's
lock meanwhile, a quarter of a second for a hundred thousand faces, in which no request would be answered. This module
does not know what the rays are for.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

_FACES_AT_ONCE = 4096

Floats32 = NDArray[np.float32]


class RayScene:
    """A mesh that rays are sent at, from many points (N, 3) in as many directions (N, 3), both float32.

    Any number of threads may send them at once.
    """

    def __init__(self, vertices: NDArray[np.floating], faces: NDArray[np.integer]) -> None:
        """Take a mesh. vertices : (V, 3); faces : (F, 3). Raises ImportError where embreex is missing."""
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene

        self._scene = EmbreeScene()
        self._starts = np.arange(0, len(faces), _FACES_AT_ONCE, dtype=np.int32)
        for start in self._starts:
            used, corners = np.unique(faces[start : start + _FACES_AT_ONCE], return_inverse=True)
            # Of Python's own objects it reads four times as many a second as of numpy's.
            points = vertices[used].astype(np.float32).astype(object)
            TriangleMesh(self._scene, points, corners.reshape(-1, 3).astype(object))
        # The first ray has Embree build its tree, which several threads must not do at once.
        self.stops(np.zeros((1, 3), np.float32), np.ones((1, 3), np.float32))

    def hits(self, origins: Floats32, directions: Floats32) -> dict[str, Any]:
        """Return where each ray first meets the mesh.

        primID : the face, negative for none; u, v : the weights of its second and third corner; Ng : its normal, not of
        length 1; tfar : the way to it, in lengths of the direction. Each has N rows.
        """
        found: dict[str, Any] = self._scene.run(origins, directions, query="INTERSECT", output=1)
        face, piece = found["primID"], found["geomID"]
        found["primID"] = np.where(face < 0, face, face + self._starts[np.maximum(piece, 0)])
        return found

    def distances(self, origins: Floats32, directions: Floats32) -> Floats32:
        """Return the way from each origin to the mesh, in lengths of the direction; very large where there is none."""
        return self._run(origins, directions, "DISTANCE")

    def stops(self, origins: Floats32, directions: Floats32) -> NDArray[Any]:
        """Return for each ray 0 where it meets the mesh anywhere, and -1 where it does not."""
        return self._run(origins, directions, "OCCLUDED")

    def _run(self, origins: Floats32, directions: Floats32, query: Literal["DISTANCE", "OCCLUDED"]) -> NDArray[Any]:
        found: NDArray[Any] = self._scene.run(origins, directions, query=query)
        return found
