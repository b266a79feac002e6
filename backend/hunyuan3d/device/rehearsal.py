"""What each stage takes here, from one drawn picture that is taken through all of them: what the first job will take.

This module does not know who asks, or how long a job's other parts take.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from PIL import Image, ImageDraw

from backend.errors import ServiceError
from backend.hunyuan3d.options import image_options
from backend.hunyuan3d.pipeline import Hunyuan3DShapePipeline
from backend.hunyuan3d.results import ShapeMetadata, ShapeResult

_STEPS = 2
_LONGEST_SECONDS = 2.0
"""A resolution whose decoding is expected to take longer is left to the first job that asks for it."""
_SIZE = (640, 480)


def rehearse(pipeline: Hunyuan3DShapePipeline, resolutions: Sequence[int]) -> list[ShapeResult]:
    """Return what comes of the picture at each of these octree resolutions; its metadata have each stage's seconds.

    What comes before decoding is the same for all of them, and done once. resolutions : from coarse to fine; the run
    ends before one that would take long, or at the first that cannot be
    """
    done: list[ShapeResult] = []
    with suppress(ServiceError):
        options = pipeline.options(_STEPS, octree_resolution=resolutions[0])
        asked = image_options(options, 1, seeds=0, remove_background="always")
        (sampled,) = pipeline.sample_shapes(pipeline.prepare_shapes([_photograph()], asked), options)
        for resolution in resolutions:
            if done and _expected(done[-1].metadata, resolution) > _LONGEST_SECONDS:
                break
            wanted = replace(sampled, metadata=replace(sampled.metadata, octree_resolution=resolution))
            (pending,) = pipeline.decode_shapes([wanted], replace(options, octree_resolution=resolution))
            done.append(pending.build_mesh())
    return done


def _expected(before: ShapeMetadata, resolution: int) -> float:
    finer = resolution / (before.octree_resolution or resolution)
    return (before.seconds.decode + before.seconds.mesh) * finer**2


def _photograph() -> Image.Image:
    """Draw a disc on a plain ground, in the size of a small photograph: its background has to be found."""
    image = Image.new("RGB", _SIZE, (225, 228, 230))
    ImageDraw.Draw(image).ellipse((180, 100, 460, 380), fill=(200, 120, 60))
    return image
