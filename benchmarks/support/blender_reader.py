"""What Blender makes of mesh files, as JSON: run by the Python that has bpy, `python blender_reader.py FILE…`.

Of each file: the lowest and highest corner in Blender's world (Z up), faces, the signed volume, the names of color
attributes, and of images in materials; or the error. It imports nothing of this repository.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import bpy
import numpy as np


def main() -> None:
    """Read every file that is named."""
    importers = {
        ".glb": bpy.ops.import_scene.gltf,
        ".usdz": bpy.ops.wm.usd_import,
        ".stl": bpy.ops.wm.stl_import,
        ".obj": bpy.ops.wm.obj_import,
        ".ply": bpy.ops.wm.ply_import,
    }
    found = []
    for name in sys.argv[1:]:
        bpy.ops.wm.read_factory_settings(use_empty=True)
        try:
            importers[Path(name).suffix](filepath=name)
            found.append(describe())
        except RuntimeError as failure:
            found.append({"error": str(failure).strip().splitlines()[-1][:200]})
    print("JSON" + json.dumps(found))


def describe() -> dict[str, Any]:
    """Describe the one mesh of the scene."""
    # It is there only once bpy is.
    import bmesh

    (thing,) = [each for each in bpy.context.scene.objects if each.type == "MESH"]
    mesh = thing.data
    points = np.empty(len(mesh.vertices) * 3)
    mesh.vertices.foreach_get("co", points)
    world = np.array(thing.matrix_world)
    placed = points.reshape(-1, 3) @ world[:3, :3].T + world[:3, 3]
    solid = bmesh.new()
    solid.from_mesh(mesh)
    volume = solid.calc_volume(signed=True) * float(np.linalg.det(world[:3, :3]))
    nodes = [node for each in mesh.materials if each and each.use_nodes for node in each.node_tree.nodes]
    return {
        "name": thing.name,
        "low": placed.min(axis=0).tolist(),
        "high": placed.max(axis=0).tolist(),
        "faces": len(mesh.polygons),
        "volume": volume,
        "colors": [each.name for each in mesh.color_attributes],
        "images": [node.image.name for node in nodes if node.type == "TEX_IMAGE" and node.image],
    }


main()
