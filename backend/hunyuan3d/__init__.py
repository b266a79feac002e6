"""The Hunyuan3D shape model: pictures in, meshes out. Knows nothing of jobs or HTTP.

Names are loaded on first use, so that importing this package does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backend.hunyuan3d.image.image_processor import ImageBatch, ImageInput
    from backend.hunyuan3d.pipeline import Hunyuan3DShapePipeline
    from backend.hunyuan3d.results import ShapeMetadata, ShapeResult

__all__ = ["Hunyuan3DShapePipeline", "ImageBatch", "ImageInput", "ShapeMetadata", "ShapeResult"]

_HOMES = {
    "Hunyuan3DShapePipeline": "pipeline",
    "ImageBatch": "image.image_processor",
    "ImageInput": "image.image_processor",
    "ShapeMetadata": "results",
    "ShapeResult": "results",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
