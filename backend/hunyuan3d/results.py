"""What comes out of the pipeline: a mesh or a named error for every image, and what was done.

Knows nothing of networks or of how a mesh is written, and imports no torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field, replace
from typing import TYPE_CHECKING

import trimesh
from PIL import Image

from backend.errors import ServiceError
from backend.hunyuan3d.facts import BackgroundFacts, OutlineFacts, Remark, UnusedOutline
from backend.limits import DEFAULT_OBJECTS, Acceleration, ObjectChoice

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class StageSeconds:
    """Wall time of each stage, seconds, for the whole batch that an image was part of.

    On the device (encode, sample, decode) that may be a part of what was prepared or finished together.
    """

    preprocess: float = 0.0
    encode: float = 0.0
    sample: float = 0.0
    decode: float = 0.0
    mesh: float = 0.0

    @property
    def total(self) -> float:
        """All stages together."""
        return self.preprocess + self.encode + self.sample + self.decode + self.mesh

    def __add__(self, later: StageSeconds) -> StageSeconds:
        """Add stage by stage."""
        mine, more = astuple(self), astuple(later)
        return StageSeconds(*(a + b for a, b in zip(mine, more, strict=True)))


@dataclass(frozen=True)
class ShapeMetadata:
    """What was done for one image; None where a stage did not take place or does not know.

    evaluated : share of the (R+1)^3 lattice points at which the field was evaluated. background : how the object was
    cut out; remarks : what should be said of the image. batch_size : images that ran together on the device, 0 for one
    that never got there. fallbacks : what was done because memory was short, in order; none of it changes the mesh.
    acceleration, objects : as asked. outline : what following the image's outline changed; outline_unused : why it was
    not followed, where it could have been and was wanted.
    faces_found : before decimation. parts : pieces of the mesh that hang together.
    evaluations : how often the denoiser was asked, of the evaluations_needed without acceleration.
    """

    model: str
    batch_size: int
    seed: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    octree_resolution: int | None = None
    acceleration: Acceleration | None = None
    evaluations: int | None = None
    evaluations_needed: int | None = None
    target_faces: int | None = None
    objects: ObjectChoice = DEFAULT_OBJECTS
    background: BackgroundFacts | None = None
    remarks: tuple[Remark, ...] = ()
    outline: OutlineFacts | None = None
    outline_unused: UnusedOutline | None = None
    vertices: int | None = None
    faces: int | None = None
    faces_found: int | None = None
    parts: int | None = None
    watertight: bool | None = None
    evaluated: float | None = None
    fallbacks: tuple[str, ...] = ()
    seconds: StageSeconds = field(default_factory=StageSeconds)

    def after(self, watch: Stopwatch) -> ShapeMetadata:
        """Return the same with the stages added that the watch has timed."""
        return replace(self, seconds=self.seconds + watch.seconds())


@dataclass(frozen=True, eq=False)
class ShapeResult:
    """One image's mesh, or the error that took its place.

    cutout : RGBA, square, the object in the frame in which the network saw it, but as sharp as its source (at most 1024
    pixels a side); of several views the first. view_aligned : whether the mesh is turned as the object in the image
    is (`rendering/camera.py` says what follows from it).
    """

    mesh: trimesh.Trimesh | None
    error: ServiceError | None
    metadata: ShapeMetadata
    cutout: Image.Image | None = None
    view_aligned: bool = False

    def __post_init__(self) -> None:
        if (self.mesh is None) == (self.error is None):
            raise ValueError("a result is either a mesh or an error")

    @property
    def ok(self) -> bool:
        """Whether there is a mesh."""
        return self.mesh is not None

    def unwrap(self) -> trimesh.Trimesh:
        """Return the mesh. Raises this image's error when there is none."""
        if self.mesh is None:
            raise self.error or ServiceError()
        return self.mesh


class Stopwatch:
    """Seconds of each stage; waits for this thread's work on the device, which goes on after a call returns."""

    def __init__(self, device: torch.device, clock: Callable[[], float] = time.perf_counter) -> None:
        self._device = device
        self._clock = clock
        self._seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block as stage `name` of StageSeconds; a stage entered twice adds up."""
        started = self._clock()
        yield
        if self._device.type == "cuda":
            # Here, because results are read where no model is: torch takes seconds to import.
            import torch

            torch.cuda.current_stream(self._device).synchronize()
        self._seconds[name] = self._seconds.get(name, 0.0) + self._clock() - started

    def seconds(self) -> StageSeconds:
        """Return the stages timed so far."""
        return StageSeconds(**self._seconds)
