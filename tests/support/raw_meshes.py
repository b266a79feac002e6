"""The surface as it is extracted, before it is closed and cleaned: what the reference's meshes can be held against."""

from __future__ import annotations

import torch
from torch import Tensor

from backend.errors import ServiceError
from backend.hunyuan3d.finishing import Outcome, inside_box, to_mesh
from backend.hunyuan3d.pipeline import Hunyuan3DShapePipeline
from backend.hunyuan3d.results import ShapeMetadata, ShapeResult
from backend.hunyuan3d.volume.marching_cubes import extract_surface


def raw_meshes(pipeline: Hunyuan3DShapePipeline, latents: Tensor, octree_resolution: int) -> list[ShapeResult]:
    """Decode latents (B, N, E) to one mesh each, open where the field is positive at the box's wall; or its error."""
    metadata = ShapeMetadata(pipeline.name, len(latents), octree_resolution=octree_resolution)
    return [_raw_mesh(volume, metadata) for volume in pipeline.decode_volumes(latents, octree_resolution)]


def _raw_mesh(volume: Outcome, metadata: ShapeMetadata) -> ShapeResult:
    try:
        if isinstance(volume, ServiceError):
            raise volume
        vertices, faces = extract_surface(volume)
        used, numbers = torch.unique(faces[inside_box(vertices, faces, volume.bounds)], return_inverse=True)
        return ShapeResult(to_mesh(vertices[used], numbers), None, metadata)
    except ServiceError as error:
        return ShapeResult(None, error, metadata)
