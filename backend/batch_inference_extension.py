"""Many pictures in one call of a processor, in as large batches as the device's memory allows, and never larger.

`add_batch_inference_to_processor` gives a processor its `generate_shape_batch`. When memory runs out all the same, the
call steps down a ladder: the batch is halved until it is one picture, then the field is asked for fewer points at a
time, then that picture's result is OutOfMemory. What was done stands in each result's `metadata.fallbacks`; the mesh
does not change. Knows nothing of jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar, overload

from backend.errors import OutOfMemory
from backend.hunyuan3d.finishing import PendingShape, finish_together
from backend.hunyuan3d.image.image_processor import ImageInput
from backend.hunyuan3d.options import BackgroundModes, GenerationOptions, Seeds, TargetFaces
from backend.hunyuan3d.pipeline import Sampled, refused
from backend.hunyuan3d.preprocess import Prepared, batches_of_same_views
from backend.hunyuan3d.results import ShapeMetadata, ShapeResult
from backend.hunyuan3d.volume.decode import DecodeOptions

if TYPE_CHECKING:
    from backend.hunyuan_integration import Hunyuan3DProcessor

Stage = Literal["preprocess", "encode", "sample", "decode", "mesh"]
Places = tuple[int, ...]
Out = TypeVar("Out")


@dataclass(frozen=True)
class BatchProgress:
    """How far some of a call's pictures are within one stage.

    stage : preprocess, encode, sample, decode, mesh, in this order. done : rises to total. places : which pictures of
    the call are meant, counted from 0. After memory ran out the same pictures begin their stage again.
    """

    stage: Stage
    done: int
    total: int
    places: Places


OnProgress = Callable[[BatchProgress], None]


def add_batch_inference_to_processor(processor: Hunyuan3DProcessor) -> Hunyuan3DProcessor:
    """Give the processor its `generate_shape_batch`, unless it has one; returns the same processor."""
    if not hasattr(processor, "generate_shape_batch"):
        processor.generate_shape_batch = ShapeBatch(processor)
    return processor


class ShapeBatch:
    """A processor's `generate_shape_batch`. Threads may call it at once; the device is used by one at a time."""

    def __init__(self, processor: Hunyuan3DProcessor) -> None:
        self._processor = processor
        self._device = processor.device_lock

    @overload
    def __call__(
        self,
        images: Sequence[ImageInput],
        *,
        seeds: Seeds | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        octree_resolution: int | None = None,
        target_faces: TargetFaces = None,
        remove_background: BackgroundModes = "auto",
        on_progress: OnProgress | None = None,
        finish: Literal[True] = True,
    ) -> list[ShapeResult]: ...

    @overload
    def __call__(
        self,
        images: Sequence[ImageInput],
        *,
        seeds: Seeds | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        octree_resolution: int | None = None,
        target_faces: TargetFaces = None,
        remove_background: BackgroundModes = "auto",
        on_progress: OnProgress | None = None,
        finish: Literal[False],
    ) -> list[PendingShape]: ...

    def __call__(
        self,
        images: Sequence[ImageInput],
        *,
        seeds: Seeds | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        octree_resolution: int | None = None,
        target_faces: TargetFaces = None,
        remove_background: BackgroundModes = "auto",
        on_progress: OnProgress | None = None,
        finish: bool = True,
    ) -> list[ShapeResult] | list[PendingShape]:
        """One result for each picture, in order: its mesh or its error. The same picture and seed give the same mesh.

        seeds, target_faces, remove_background : one for all or one for each. Where a value is None the checkpoint's own
        holds. on_progress : what it raises ends the call and comes out; the processor stays usable. finish : False
        returns once the device is done, and `PendingShape.finish` draws the meshes later, on any thread.
        Raises InvalidParameter, MissingImage; never OutOfMemory, which is a picture's result.
        """
        pipeline, report = self._processor.pipeline, on_progress or _ignore
        options = pipeline.options(num_inference_steps, guidance_scale, octree_resolution)
        prepared = pipeline.prepare_shapes(images, options, seeds, target_faces, remove_background)
        report(BatchProgress("preprocess", len(prepared), len(prepared), tuple(range(len(prepared)))))
        with self._device:
            pending = _DeviceRun(self._processor, prepared, options, report).shapes()
        if not finish:
            return pending
        return finish_together(pending, lambda place: report(BatchProgress("mesh", 1, 1, (place,))))


class _Ladder:
    """How much one stage asks of the device at once, which only gets less.

    size : pictures at a time. search : how fields are searched, for the stage that does. taken : the steps down of a
    whole call, which its ladders share.
    """

    def __init__(self, name: str, size: int, taken: list[str], search: DecodeOptions | None = None) -> None:
        self._name = name
        self.size = size
        self.search = search
        self.taken = taken

    def step_down(self, ran: int) -> bool:
        """Ask for less than `ran` pictures at once took; False when there is no less."""
        self.size = max(ran // 2, 1)
        if ran > 1:
            self.taken.append(f"{self._name} {ran}→{self.size}")
            return True
        if self.search is None or (smaller := self.search.halved()) is self.search:
            return False
        self.taken.append(f"decode chunk {self.search.max_points_per_call}→{smaller.max_points_per_call}")
        self.search = smaller
        return True


class _DeviceRun:
    """The device's part of one call: sampling and decoding, each in parts that fit."""

    def __init__(
        self,
        processor: Hunyuan3DProcessor,
        prepared: Sequence[Prepared],
        options: GenerationOptions,
        report: OnProgress,
    ) -> None:
        self._pipeline, self._memory, self._sizer = processor.pipeline, processor.memory, processor.sizer
        self._prepared = prepared
        self._options = options
        self._report = report
        capacity = processor.batch_capacity(options.octree_resolution)
        self._ran_out = False
        self._taken: list[str] = []
        self._sampling = _Ladder("batch", capacity, self._taken)
        self._decoding = _Ladder("decode batch", capacity, self._taken, self._pipeline.search)

    def shapes(self) -> list[PendingShape]:
        """Every picture's field or error, in order."""
        pending = refused(self._prepared)
        for places in batches_of_same_views(self._prepared):
            for part, sampled in self._in_parts(self._sampling, tuple(places), self._sample):
                if isinstance(sampled, OutOfMemory):
                    pending.update(self._lost(sampled, part, self._prepared))
                else:
                    pending.update(self._fields(dict(zip(part, sampled, strict=True))))
        if self._ran_out:
            self._sizer.ran_out(self._options.octree_resolution, min(self._sampling.size, self._decoding.size))
        else:
            self._sizer.ran_well()
        return [pending[place] for place in range(len(self._prepared))]

    def _fields(self, sampled: Mapping[int, Sampled]) -> dict[int, PendingShape]:
        """The fields of pictures that were sampled, by their places; latents are kept, so no step is taken twice."""
        found: dict[int, PendingShape] = {}
        for part, shapes in self._in_parts(self._decoding, tuple(sampled), partial(self._decode, sampled)):
            if isinstance(shapes, OutOfMemory):
                found.update(self._lost(shapes, part, sampled))
            else:
                told = [replace(shape, metadata=self._told(shape.metadata)) for shape in shapes]
                found.update(zip(part, told, strict=True))
        return found

    def _sample(self, part: Places) -> list[Sampled]:
        return self._pipeline.sample_shapes([self._prepared[k] for k in part], self._options, self._stages(part))

    def _decode(self, sampled: Mapping[int, Sampled], part: Places) -> list[PendingShape]:
        own = [sampled[k] for k in part]
        return self._pipeline.decode_shapes(own, self._options, self._stages(part), self._decoding.search)

    def _in_parts(
        self, ladder: _Ladder, places: Places, work: Callable[[Places], list[Out]]
    ) -> Iterator[tuple[Places, list[Out] | OutOfMemory]]:
        """The places in parts of the ladder's size, each with what came of it; a part that does not fit gets smaller.

        OutOfMemory only comes with a part of one.
        """
        while places:
            part = places[: ladder.size]
            outcome = _attempt(work, part)
            if isinstance(outcome, OutOfMemory):
                self._ran_out = True
                self._memory.release()
                if ladder.step_down(len(part)):
                    continue
            yield part, outcome
            places = places[len(part) :]

    def _lost(
        self, error: OutOfMemory, part: Places, known: Sequence[Prepared] | Mapping[int, Sampled]
    ) -> dict[int, PendingShape]:
        return {place: PendingShape(error, self._told(known[place].metadata)) for place in part}

    def _told(self, metadata: ShapeMetadata) -> ShapeMetadata:
        return replace(metadata, fallbacks=tuple(self._taken))

    def _stages(self, part: Places) -> Callable[[Literal["encode", "sample", "decode"], int, int], None]:
        return lambda stage, done, total: self._report(BatchProgress(stage, done, total, part))


def _attempt(work: Callable[[Places], list[Out]], part: Places) -> list[Out] | OutOfMemory:
    """What the work returns, or that memory ran out: an error of its own, since the raised one holds the tensors."""
    try:
        return work(part)
    except OutOfMemory as failure:
        message = failure.message
    return OutOfMemory(message)


def _ignore(_: BatchProgress) -> None:
    """Nobody listens."""
