"""Many images in one call of a processor, in as large batches as the device's memory allows, and never larger.

`add_batch_inference_to_processor` gives a processor its `generate_shape_batch`. When memory runs out all the same, the
call steps down a ladder: the batch is halved until it is one image, then the field is asked for fewer points at a
time, then that image's result is OutOfMemory. What was done stands in each result's `metadata.fallbacks`; the mesh
does not change. This module does not know of jobs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypedDict, TypeVar, Unpack, cast, overload

from backend.errors import OutOfMemory
from backend.hunyuan3d.batches import Indices, Stage
from backend.hunyuan3d.device.batch_sizing import TIGHT, BatchSizer
from backend.hunyuan3d.device.memory import DeviceMemory
from backend.hunyuan3d.finishing import PendingShape, build_meshes
from backend.hunyuan3d.image.image_processor import as_list
from backend.hunyuan3d.options import BackgroundModes, ImageOptions, Seeds, TargetFaces, image_options
from backend.hunyuan3d.pipeline import Hunyuan3DShapePipeline, refused
from backend.hunyuan3d.preprocess import MaybePrepared
from backend.hunyuan3d.results import ShapeResult
from backend.hunyuan3d.volume.decode import DecodeOptions
from backend.limits import (
    DEFAULT_ACCELERATION,
    DEFAULT_BACKGROUND_MODE,
    DEFAULT_OBJECTS,
    DEFAULT_OUTLINE,
    Acceleration,
    ObjectChoice,
    OutlineMode,
)

Out = TypeVar("Out")


class BatchProcessor(Protocol):
    """What a call needs of a processor: a loaded model, the memory of its device, and how much fits in there."""

    generate_shape_batch: ShapeBatch

    @property
    def pipeline(self) -> Hunyuan3DShapePipeline: ...

    @property
    def memory(self) -> DeviceMemory: ...

    @property
    def sizer(self) -> BatchSizer: ...

    @property
    def device_lock(self) -> threading.Lock: ...

    def batch_capacity(self, octree_resolution: int) -> int: ...


Processor = TypeVar("Processor", bound=BatchProcessor)


@dataclass(frozen=True)
class BatchProgress:
    """How far some of a call's images are within one stage.

    stage : preprocess, encode, sample, decode, mesh, in this order. done : rises to total. indices : which images of
    the call are meant, counted from 0. After memory ran out the same images begin their stage again.
    """

    stage: Literal["preprocess", "mesh"] | Stage
    done: int
    total: int
    indices: Indices


OnProgress = Callable[[BatchProgress], None]
OnRefused = Callable[[int, PendingShape], None]


class BatchOptions(TypedDict, total=False):
    """What a call may say of its images, one by one; see `ShapeBatch.__call__`."""

    seeds: Seeds | None
    num_inference_steps: int | None
    guidance_scale: float | None
    octree_resolution: int | None
    target_faces: TargetFaces
    remove_background: BackgroundModes
    acceleration: Acceleration
    objects: ObjectChoice
    outline: OutlineMode


class BatchCall(BatchOptions, total=False):
    """All that a call may say besides its images."""

    options: Sequence[ImageOptions] | None
    capacity: int | None
    on_progress: OnProgress | None
    on_refused: OnRefused | None


def add_batch_inference_to_processor(processor: Processor) -> Processor:
    """Give the processor its `generate_shape_batch`, unless it has one; return the same processor."""
    if not hasattr(processor, "generate_shape_batch"):
        processor.generate_shape_batch = ShapeBatch(processor)
    return processor


class ShapeBatch:
    """A processor's `generate_shape_batch`. Threads may call it at once; the device is used by one at a time."""

    def __init__(self, processor: BatchProcessor) -> None:
        self._processor = processor
        self._device = processor.device_lock

    @overload
    def __call__(
        self, images: Sequence[MaybePrepared], *, finish: Literal[True] = True, **call: Unpack[BatchCall]
    ) -> list[ShapeResult]: ...

    @overload
    def __call__(
        self, images: Sequence[MaybePrepared], *, finish: Literal[False], **call: Unpack[BatchCall]
    ) -> list[PendingShape]: ...

    def __call__(
        self, images: Sequence[MaybePrepared], *, finish: bool = True, **call: Unpack[BatchCall]
    ) -> list[ShapeResult] | list[PendingShape]:
        """Return one result for each image, in order: its mesh or its error. An image and a seed make the same mesh.

        images : as they were sent, or as the processor's prepare_images has prepared them; that makes the same mesh.
        seeds, target_faces, remove_background : one for all or one for each. Where a value is None the checkpoint's own
        holds. options : in place of all these, what is wanted of each image, with the same generation in each.
        capacity : how many images fit together, when batch_capacity was asked before. on_progress : what it raises
        ends the call and comes out; the processor stays usable. on_refused : called, before the device is used, with
        the index of each image that cannot be used, and with what is returned for it in the end. finish : False returns
        once the device is done, and `PendingShape.build_mesh` makes the meshes later, on any thread.
        Raises InvalidParameter, MissingImage; never OutOfMemory, which is an image's result.
        """
        pending = self._until_meshes(images, **call)
        if not finish:
            return pending
        report = call.get("on_progress") or _ignore
        return build_meshes(pending, lambda index: report(BatchProgress("mesh", 1, 1, (index,))))

    def _options(
        self,
        count: int,
        *,
        seeds: Seeds | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        octree_resolution: int | None = None,
        target_faces: TargetFaces = None,
        remove_background: BackgroundModes = DEFAULT_BACKGROUND_MODE,
        acceleration: Acceleration = DEFAULT_ACCELERATION,
        objects: ObjectChoice = DEFAULT_OBJECTS,
        outline: OutlineMode = DEFAULT_OUTLINE,
    ) -> list[ImageOptions]:
        pipeline = self._processor.pipeline
        generation = pipeline.options(num_inference_steps, guidance_scale, octree_resolution, acceleration)
        return image_options(generation, count, seeds, target_faces, remove_background, objects, outline)

    def _until_meshes(
        self,
        images: Sequence[MaybePrepared],
        *,
        options: Sequence[ImageOptions] | None = None,
        capacity: int | None = None,
        on_progress: OnProgress | None = None,
        on_refused: OnRefused | None = None,
        **loose: Unpack[BatchOptions],
    ) -> list[PendingShape]:
        items = cast(list[MaybePrepared], as_list(images))
        on_progress = on_progress or _ignore
        if options is None:
            options = self._options(len(items), **loose)
        elif loose:
            raise TypeError(f"options are given, and so are {', '.join(loose)}: give one or the other")
        pipeline, generation = self._processor.pipeline, options[0].generation
        prepared = pipeline.prepare_shapes(items, options)
        on_progress(BatchProgress("preprocess", len(prepared), len(prepared), tuple(range(len(prepared)))))
        if on_refused is not None:
            for index, shape in refused(prepared).items():
                on_refused(index, shape)

        def report(stage: Stage, done: int, total: int, indices: Indices) -> None:
            on_progress(BatchProgress(stage, done, total, indices))

        with self._device:
            batches = FittingBatches(self._processor, generation.octree_resolution, capacity)
            pending = pipeline.sample_and_decode(prepared, generation, report, batches)
            batches.note_outcome()
        return pending


class FittingBatches:
    """A call's images in parts that fit into the device's memory, smaller ones when memory runs out all the same."""

    def __init__(self, processor: BatchProcessor, octree_resolution: int, capacity: int | None = None) -> None:
        """capacity : images that fit together; asked of the processor when None."""
        self._memory, self._sizer = processor.memory, processor.sizer
        self._octree_resolution = octree_resolution
        capacity = capacity or processor.batch_capacity(octree_resolution)
        self._ran_out = False
        self._largest = 0
        # Of a batch's own peak only CUDA's meter knows; the others' would be that of the whole process.
        self._sees_peak = self._memory.state().type == "cuda"
        if self._sees_peak:
            self._memory.restart_peak()
        self._fallbacks: list[str] = []
        self._sampling = _Ladder("batch", capacity, self._fallbacks)
        self._decoding = _DecodeLadder("decode batch", capacity, self._fallbacks, processor.pipeline.decode_options)

    @property
    def decode_options(self) -> DecodeOptions:
        """How fields are to be searched now."""
        return self._decoding.decode_options

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """The steps down that were taken so far, in order."""
        return tuple(self._fallbacks)

    def run(
        self, stage: Literal["sample", "decode"], indices: Indices, work: Callable[[Indices], list[Out]]
    ) -> Iterator[tuple[Indices, list[Out] | OutOfMemory]]:
        """Yield the images in parts of the ladder's size, each with what came of it; make parts smaller that don't fit.

        OutOfMemory only comes with a part of one.
        """
        ladder = self._sampling if stage == "sample" else self._decoding
        while indices:
            part = indices[: ladder.size]
            self._largest = max(self._largest, len(part))
            outcome = _attempt(work, part)
            if isinstance(outcome, OutOfMemory):
                self._ran_out = True
                self._memory.release()
                if ladder.step_down(len(part)):
                    continue
            yield part, outcome
            indices = indices[len(part) :]

    def note_outcome(self) -> None:
        """Let later calls begin with what went through."""
        if self._ran_out:
            self._sizer.ran_out(self._octree_resolution, min(self._sampling.size, self._decoding.size))
        elif self._largest > 1 and self._sees_peak and self._is_tight():
            self._sizer.ran_close(self._octree_resolution, self._largest)
        else:
            self._sizer.ran_well()

    def _is_tight(self) -> bool:
        """Return whether the batch came near the limit of the device's memory."""
        limit = self._memory.used() + self._memory.state().memory_free
        return self._memory.peak() > TIGHT * limit


class _Ladder:
    """How much one stage asks of the device at once, which only gets less.

    size : images at a time. fallbacks : the steps down of a whole call, which its ladders share.
    """

    def __init__(self, name: str, size: int, fallbacks: list[str]) -> None:
        self._name = name
        self.size = size
        self._fallbacks = fallbacks

    def step_down(self, ran: int) -> bool:
        """Ask for less than `ran` images at once took; return False when there is no less."""
        self.size = max(ran // 2, 1)
        if ran == 1:
            return False
        self._fallbacks.append(f"{self._name} {ran}→{self.size}")
        return True


class _DecodeLadder(_Ladder):
    """The ladder of decoding, which has further steps below one image: fewer points of the field at a time."""

    def __init__(self, name: str, size: int, fallbacks: list[str], decode_options: DecodeOptions) -> None:
        super().__init__(name, size, fallbacks)
        self.decode_options = decode_options

    def step_down(self, ran: int) -> bool:
        """Ask for fewer images, or else for fewer points of one; return False when there is no less."""
        if super().step_down(ran):
            return True
        options, smaller = self.decode_options, self.decode_options.halved()
        if smaller is options:
            return False
        self._fallbacks.append(f"decode chunk {options.max_points_per_call}→{smaller.max_points_per_call}")
        self.decode_options = smaller
        return True


def _attempt(work: Callable[[Indices], list[Out]], part: Indices) -> list[Out] | OutOfMemory:
    """Return what the work does, or OutOfMemory: an error of its own, since the raised one holds the tensors."""
    try:
        return work(part)
    except OutOfMemory as failure:
        message = failure.message
    return OutOfMemory(message)


def _ignore(_: BatchProgress) -> None:
    """Do nothing: nobody asked for progress."""
