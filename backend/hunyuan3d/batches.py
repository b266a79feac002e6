"""How the images of one call are put on the device: which run together, and who is told how far they are.

The pipeline knows one way, every image at once; the batch extension has another, which minds the device's memory. This
module does not know what a stage computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from backend.errors import OutOfMemory
from backend.hunyuan3d.volume.decode import DecodeOptions

Stage = Literal["encode", "sample", "decode"]
Indices = tuple[int, ...]
"""Which images of a call are meant, counted from 0."""
Progress = Callable[[int, int], None]
StageProgress = Callable[[Stage, int, int], None]
"""Called with a stage, what is done of it, and the total to which that rises."""
PartProgress = Callable[[Stage, int, int, Indices], None]
"""The same for a call whose images run in several parts: also called with the images of the part."""
Out = TypeVar("Out")


class Batches(Protocol):
    """A way to put images on the device."""

    @property
    def decode_options(self) -> DecodeOptions:
        """How fields are to be searched now."""
        ...

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """What was done so far because memory was short, for the results' metadata."""
        ...

    def run(
        self, stage: Literal["sample", "decode"], indices: Indices, work: Callable[[Indices], list[Out]]
    ) -> Iterator[tuple[Indices, list[Out] | OutOfMemory]]:
        """Do a stage's work for all the images, in one part or several; yield each part with what came of it.

        Encoding belongs to the stage "sample". OutOfMemory may only come with a part of one image.
        """
        ...


@dataclass(frozen=True)
class WholeBatches:
    """Every stage runs its images as one batch; when memory runs out, that is raised."""

    decode_options: DecodeOptions
    fallbacks: tuple[str, ...] = ()

    def run(
        self, _stage: Literal["sample", "decode"], indices: Indices, work: Callable[[Indices], list[Out]]
    ) -> Iterator[tuple[Indices, list[Out] | OutOfMemory]]:
        """Yield all the images as one part. Raises OutOfMemory."""
        yield indices, work(indices)


def by_stage(on_step: Progress | None, on_progress: Progress | None) -> PartProgress:
    """Make one callback from those of sampling and decoding."""
    callbacks = {"sample": on_step, "decode": on_progress}

    def report(stage: Stage, done: int, total: int, _indices: Indices) -> None:
        callback = callbacks.get(stage)
        if callback is not None:
            callback(done, total)

    return report


def for_images(indices: Indices, report: PartProgress | None) -> StageProgress | None:
    """Make a stage's callback that says which images it is about."""
    return None if report is None else lambda stage, done, total: report(stage, done, total, indices)
