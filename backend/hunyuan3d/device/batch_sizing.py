"""How many pictures may run together, from the memory that is free and from what runs were seen to take.

Costs are measured by running small batches of a drawn picture; when memory runs out all the same, the batch size comes
down and goes up again slowly. This module does not know what a processor is, nor how a call that failed is repeated.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from math import inf

from PIL import Image, ImageDraw

from backend.errors import OutOfMemory
from backend.hunyuan3d.device.memory import DeviceMemory
from backend.hunyuan3d.image.image_processor import ImageInput
from backend.hunyuan3d.options import image_options
from backend.hunyuan3d.pipeline import Hunyuan3DShapePipeline
from backend.limits import VIEWS

# What the drawn picture's shape cannot show: other shapes have more surface, and an allocator leaves gaps.
SAFETY = 1.5
# So many calls without trouble before a batch size that was too large once is tried again.
CALLS_BEFORE_GROWTH = 20
# Above this part of the memory a batch went well by luck: the next one is smaller.
TIGHT = 0.85
_IMAGE_SIDE = 256
_FEW_POINTS = 1024


@dataclass(frozen=True)
class StageCost:
    """Bytes that a stage takes at its peak beside what is held anyway: `fixed` once and `per_image` for each."""

    fixed: int
    per_image: int

    def __post_init__(self) -> None:
        if self.fixed < 0 or self.per_image < 0:
            raise ValueError("a cost in bytes cannot be negative")

    def images(self, free: int, most: int) -> int:
        """How many fit into `free` bytes, from 1 (less cannot be tried) to `most`."""
        left = free - self.fixed * SAFETY
        if left < 0:
            return 1
        return max(1, min(most, int(left / (self.per_image * SAFETY)))) if self.per_image else most


@dataclass(frozen=True)
class MemoryCosts:
    """What a model takes. decode : at octree resolution `decoded_at`."""

    sample: StageCost
    decode: StageCost
    decoded_at: int

    def images(self, octree_resolution: int, free: int, most: int) -> int:
        """How many pictures fit in every stage."""
        return min(self.sample.images(free, most), self.decode_cost(octree_resolution).images(free, most))

    def decode_cost(self, octree_resolution: int) -> StageCost:
        """Return decoding's cost: an image's part grows as its surface does, from the measured resolution on."""
        finer = max(octree_resolution / self.decoded_at, 1.0)
        return StageCost(self.decode.fixed, int(self.decode.per_image * finer**2))


class BatchSizer:
    """The batch size of one device, also as experience corrects it. Any thread may ask."""

    def __init__(self, memory: DeviceMemory, most: int) -> None:
        """most : pictures that shall run together at most, whatever the memory."""
        self._memory = memory
        self._most = most
        self._lock = threading.Lock()
        self._ceilings: dict[int, int] = {}
        self._calm = 0
        self.costs: MemoryCosts | None = None

    def capacity(self, octree_resolution: int) -> int:
        """How many pictures may run together now, at least 1. Without measured costs only experience bounds it."""
        with self._lock:
            ceilings = [most for resolution, most in self._ceilings.items() if resolution <= octree_resolution]
        most = min([self._most, *ceilings])
        if self.costs is None:
            return most
        return self.costs.images(octree_resolution, self._memory.state().memory_free, most)

    def ran_out(self, octree_resolution: int, sufficed: int) -> None:
        """Memory ran out at this resolution; `sufficed` pictures at a time went through, or were tried last."""
        with self._lock:
            self._calm = 0
            self._ceilings[octree_resolution] = sufficed

    def ran_close(self, octree_resolution: int, largest: int) -> None:
        """Take in that memory nearly ran out with `largest` (≥ 2) images at a time at this resolution."""
        self.ran_out(octree_resolution, largest - 1)

    def ran_well(self) -> None:
        """Note that a call went through as planned. After enough of them larger batches are tried again."""
        with self._lock:
            self._calm += 1
            if self._calm >= CALLS_BEFORE_GROWTH:
                self._calm = 0
                raised = {resolution: most + 1 for resolution, most in self._ceilings.items()}
                self._ceilings = {resolution: most for resolution, most in raised.items() if most < self._most}


def measure_costs(pipeline: Hunyuan3DShapePipeline, memory: DeviceMemory, octree_resolution: int) -> MemoryCosts:
    """Run one picture, then two, through sampling and through decoding, and look at the peaks.

    The first runs also load what the device compiles or opens on first use. Raises OutOfMemory when not even one
    picture can be sampled.
    """
    options = pipeline.options(2, octree_resolution=octree_resolution)
    blank = _images(2)
    # Of views, what takes most: whoever sends fewer finds room for more objects than is thought.
    images: list[ImageInput] = [dict.fromkeys(VIEWS, image) for image in blank] if pipeline.takes_views else [*blank]
    prepared = pipeline.prepare_shapes(images, image_options(options, 2, seeds=0, remove_background="never"))
    memory.release()
    held = memory.used()
    sampling = _cost(lambda count: pipeline.sample_shapes(prepared[:count], options), memory, held)
    # One by one: what two of them take while they are sampled has been seen above.
    sampled = [pipeline.sample_shapes([item], options)[0] for item in prepared]
    # The points of one call would hide what each image holds; so they are few here, and are seen by themselves below.
    small = replace(pipeline.decode_options, max_points_per_call=_FEW_POINTS)
    held_by_images = _cost(
        lambda count: pipeline.decode_shapes(sampled[:count], options, decode_options=small), memory, held
    )
    usual = _peak(lambda: pipeline.decode_shapes(sampled, options), memory)
    points = max(min(usual - held, memory.state().memory_total), held_by_images.fixed)
    return MemoryCosts(sampling, replace(held_by_images, fixed=int(points)), octree_resolution)


def _cost(run: Callable[[int], object], memory: DeviceMemory, held: int) -> StageCost:
    """Return a stage's cost from its peaks with one picture and with two. held : bytes that are held without it."""
    one, two = (_peak(partial(run, count), memory) for count in (1, 2))
    if two == inf:
        # As much as there is: one picture at a time, and even that may end in OutOfMemory.
        return StageCost(0, memory.state().memory_total)
    per_image = max(two - one, 0)
    return StageCost(int(max(one - held - per_image, 0)), int(per_image))


def _peak(run: Callable[[], object], memory: DeviceMemory) -> float:
    """Return the most bytes held while it runs; infinite when it needs more than there is."""
    memory.restart_peak()
    with suppress(OutOfMemory):
        run()
        return memory.peak()
    memory.release()
    return inf


def _images(count: int) -> list[Image.Image]:
    """Discs on transparency, each of its own shade: identical pictures would be encoded only once."""
    images = []
    for number in range(count):
        image = Image.new("RGBA", (_IMAGE_SIDE, _IMAGE_SIDE))
        ImageDraw.Draw(image).ellipse((32, 32, 224, 224), fill=(200, 120, 40 + 40 * number, 255))
        images.append(image)
    return images
