"""What a worker needs of a model that turns images into meshes; a test may put another in the GPU's place.

The real one comes from hunyuan_integration.get_3d_processor. This module imports no model code when it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from PIL import Image

    from backend.hunyuan3d.options import Defaults, ImageOptions
    from backend.hunyuan3d.results import ShapeMetadata, ShapeResult
    from backend.limits import ViewName


ImageToPrepare: TypeAlias = "bytes | Mapping[ViewName, Image.Image]"
"""An image as it is stored, or the views of an object."""


class ShapeProgress(Protocol):
    """How far a device call is: `done` of `total` in a stage, for some of its images."""

    @property
    def stage(self) -> str:
        """preprocess, encode, sample, decode, or mesh."""

    @property
    def done(self) -> int:
        """Units of the stage that are done."""

    @property
    def total(self) -> int:
        """Units of the stage, at least 1."""

    @property
    def indices(self) -> tuple[int, ...]:
        """Which of the given images, from 0."""


class DeviceFacts(Protocol):
    """The device and its memory in bytes."""

    @property
    def type(self) -> str:
        """cpu, cuda or mps."""

    @property
    def name(self) -> str:
        """As its maker calls it."""

    @property
    def memory_total(self) -> int:
        """Bytes there are."""

    @property
    def memory_free(self) -> int:
        """Bytes that are free now."""


class Rehearsal(Protocol):
    """A picture that was taken through all stages before there were jobs."""

    @property
    def metadata(self) -> ShapeMetadata:
        """What was done, with each stage's seconds."""

    @property
    def finish(self) -> float:
        """Seconds that its files took to make, 0 where none were."""


class PendingShape(Protocol):
    """A shape the device is done with; its mesh is still to be made."""

    def build_mesh(self) -> ShapeResult:
        """Return the mesh or the image's error; takes seconds on the CPU, may be called on any thread, once."""


class ShapeProcessor(Protocol):
    """A loaded model on its device; one device call at a time."""

    @property
    def name(self) -> str:
        """The model's name."""

    @property
    def defaults(self) -> Defaults:
        """What the checkpoint says where a request says nothing."""

    @property
    def takes_views(self) -> bool:
        """Whether it takes several views of an object."""

    @property
    def compiled(self) -> bool:
        """Whether batches run compiled: they also run before that, slower."""

    @property
    def rehearsals(self) -> Sequence[Rehearsal]:
        """What was done to warm up, and how long it took, so that the first job's end can be foreseen."""

    def device_state(self) -> DeviceFacts:
        """Return the device as it is now; raises when it no longer answers. Called on any thread, at any time."""

    def batch_capacity(self, octree_resolution: int) -> int:
        """Return how many images fit together at this resolution, at least 1."""

    @property
    def prepares_ahead(self) -> bool:
        """Whether images are better prepared beside a running batch than before their own."""

    def prepare_images(
        self,
        images: Sequence[ImageToPrepare],
        remove_background: Sequence[Literal["auto", "always", "never"]],
        objects: Sequence[Literal["all", "largest"]],
    ) -> Sequence[Any | None]:
        """Return for each image what may take its place in generate_shape_batch, or None: then nothing may.

        Called on any thread, also during a device call. An image's own error is what takes its place, too.
        """

    def draw_image(self, prompt: str, seed: int) -> bytes:
        """Return a picture of a prompt, PNG, the same for the same seed; uses the device. Raises PromptUnavailable."""

    def generate_shape_batch(
        self,
        images: Sequence[Any],
        *,
        options: Sequence[ImageOptions],
        capacity: int,
        on_progress: Callable[[ShapeProgress], None],
        on_refused: Callable[[int, PendingShape], None],
        finish: Literal[False],
    ) -> Sequence[PendingShape]:
        """Return one pending shape for each image, in order; what on_progress raises ends the call and comes out.

        images : as they were sent, or what prepare_images made of them; the first report is made when all are
        prepared. options : one for each image, all with the same generation. capacity : as batch_capacity gave it.
        on_refused : called with the index and the shape of each image that cannot be used, as soon as that is known;
        the same shape is returned in its place.
        """
