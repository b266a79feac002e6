"""A processor in the GPU's place: it makes spheres, and does at any point what a test wants done."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import trimesh
from PIL import Image, ImageDraw

from backend.errors import ServiceError
from backend.hunyuan3d.facts import BackgroundFacts, OutlineFacts
from backend.hunyuan3d.options import ImageOptions
from backend.hunyuan3d.results import ShapeMetadata, ShapeResult, StageSeconds
from backend.limits import Acceleration
from backend.runner.processor_protocol import ImageToPrepare, Rehearsal, ShapeProgress

GIB = 1 << 30


@dataclass(frozen=True)
class FakeProgress:
    stage: str
    done: int
    total: int
    indices: tuple[int, ...]


@dataclass(frozen=True)
class FakeDevice:
    type: str = "cpu"
    name: str = "fake"
    memory_total: int = 8 * GIB
    memory_free: int = 6 * GIB


@dataclass(frozen=True)
class FakeDefaults:
    num_inference_steps: int = 4
    guidance_scale: float = 5.0
    octree_resolution: int = 384


@dataclass(eq=False)
class FakeCall:
    """One device call as it came in; ended : what raised out of it, None when it went through."""

    images: list[bytes]
    seeds: list[int]
    steps: int
    guidance: float
    resolution: int
    target_faces: list[int | None]
    background: list[str]
    acceleration: Acceleration = "none"
    steps_done: int = 0
    ended: BaseException | None = None


@dataclass(frozen=True)
class FakePrepared:
    """An image that was prepared ahead."""

    image: bytes


@dataclass(eq=False)
class FakePending:
    image: bytes
    metadata: ShapeMetadata
    processor: FakeProcessor

    def build_mesh(self) -> ShapeResult:
        try:
            self.processor.before_finish(self.image)
        except AssertionError as failure:
            self.processor.failed_checks.append(failure)
            raise
        seed = self.metadata.seed or 0
        error = self.processor.errors.get(self.image) or self.processor.seed_errors.get(seed)
        outline = self.processor.outlines.get(seed)
        metadata = replace(self.metadata, fallbacks=self.processor.fallbacks, outline=outline)
        if error is not None:
            return ShapeResult(None, error, metadata)
        mesh = sphere(self.metadata.target_faces)
        counted = replace(metadata, vertices=len(mesh.vertices), faces=len(mesh.faces), watertight=True)
        return ShapeResult(mesh, None, counted, self.processor.cutout, view_aligned=True)


def nothing(*_: object) -> None:
    """Do nothing: what a fake does when a test wants nothing special."""


@dataclass(eq=False)
class FakeProcessor:
    """before_call, at_step, before_finish, before_preparing : what to do then.

    cutout : what every image is taken for. errors : a picture's own failure, by its bytes; bad : one that is known
    before the device is used; seed_errors, outlines : by the seed of what is made. prepared : what was prepared
    ahead; used_prepared : and then run.

    failed_checks : what a test's own assertions raised in there, where the worker takes it for a picture's failure.
    """

    name: str = "fake model"
    defaults: FakeDefaults = field(default_factory=FakeDefaults)
    capacity: int = 8
    calls: list[FakeCall] = field(default_factory=list)
    before_call: Callable[[FakeCall], object] = nothing
    at_step: Callable[[int], object] = nothing
    before_finish: Callable[[bytes], object] = nothing
    errors: dict[bytes, ServiceError] = field(default_factory=dict)
    bad: dict[bytes, ServiceError] = field(default_factory=dict)
    seed_errors: dict[int, ServiceError] = field(default_factory=dict)
    outlines: dict[int, OutlineFacts] = field(default_factory=dict)
    fallbacks: tuple[str, ...] = ()
    cutout: Image.Image | None = None
    lost: bool = False
    prepares_ahead: bool = True
    takes_views: bool = False
    compiled: bool = False
    rehearsals: Sequence[Rehearsal] = ()
    before_preparing: Callable[[list[bytes]], object] = nothing
    prepared: list[bytes] = field(default_factory=list)
    used_prepared: list[bytes] = field(default_factory=list)
    failed_checks: list[AssertionError] = field(default_factory=list)
    drawn: list[tuple[str, int]] = field(default_factory=list)
    undrawable: dict[str, Exception] = field(default_factory=dict)
    _busy: threading.Lock = field(default_factory=threading.Lock)

    def device_state(self) -> FakeDevice:
        if self.lost:
            raise RuntimeError("device-side assert triggered")
        return FakeDevice()

    def batch_capacity(self, octree_resolution: int) -> int:  # noqa: ARG002
        return self.capacity

    def prepare_images(
        self, images: Sequence[ImageToPrepare], remove_background: Sequence[str], objects: Sequence[str]
    ) -> list[FakePrepared | None]:
        assert len(images) == len(remove_background) == len(objects)
        given = [plain(image) for image in images]
        self.before_preparing(given)
        self.prepared += given
        return [FakePrepared(image) for image in given]

    def draw_image(self, prompt: str, seed: int) -> bytes:
        self.drawn.append((prompt, seed))
        if prompt in self.undrawable:
            raise self.undrawable[prompt]
        return f"{prompt} by {seed}".encode()

    def generate_shape_batch(
        self,
        images: Sequence[ImageToPrepare | FakePrepared],
        *,
        options: Sequence[ImageOptions],
        capacity: int,
        on_progress: Callable[[ShapeProgress], None],
        on_refused: Callable[[int, FakePending], None],
        finish: bool,
    ) -> list[FakePending]:
        assert not finish
        assert capacity <= self.capacity
        (generation,) = {own.generation for own in options}
        assert self._busy.acquire(blocking=False), "two device calls at once"
        given = [each.image if isinstance(each, FakePrepared) else plain(each) for each in images]
        self.used_prepared += [each.image for each in images if isinstance(each, FakePrepared)]
        call = FakeCall(
            given, [own.seed for own in options], generation.num_inference_steps, generation.guidance_scale,
            generation.octree_resolution, [own.target_faces for own in options],
            [own.remove_background for own in options], generation.acceleration,
        )  # fmt: skip
        self.calls.append(call)
        pending = [FakePending(image, self._metadata(call, k), self) for k, image in enumerate(given)]
        self.errors |= self.bad
        for k, image in enumerate(given):
            if image in self.bad:
                on_refused(k, pending[k])
        try:
            self._run(call, on_progress)
        except BaseException as error:
            call.ended = error
            if isinstance(error, AssertionError):
                self.failed_checks.append(error)
            raise
        finally:
            self._busy.release()
        return pending

    def _run(self, call: FakeCall, on_progress: Callable[[ShapeProgress], None]) -> None:
        indices = tuple(range(len(call.images)))
        self.before_call(call)
        for stage in ("preprocess", "encode"):
            on_progress(FakeProgress(stage, 1, 1, indices))
        for step in range(1, call.steps + 1):
            self.at_step(step)
            on_progress(FakeProgress("sample", step, call.steps, indices))
            call.steps_done = step
        on_progress(FakeProgress("decode", 1, 1, indices))

    def _metadata(self, call: FakeCall, place: int) -> ShapeMetadata:
        return ShapeMetadata(
            model=self.name,
            batch_size=len(call.images),
            seed=call.seeds[place],
            num_inference_steps=call.steps,
            guidance_scale=call.guidance,
            octree_resolution=call.resolution,
            target_faces=call.target_faces[place],
            background=BackgroundFacts("alpha", 1.0, 0.0, 1),
            acceleration=call.acceleration,
            evaluations=2,
            evaluations_needed=3,
            seconds=StageSeconds(0.01, 0.02, 0.4, 0.1, 0.05),
        )


def plain(image: ImageToPrepare) -> bytes:
    """Return an image as it came; of views the name, size and first pixel of each, with spaces between."""
    if isinstance(image, bytes):
        return image
    seen = (f"{name} {view.width}×{view.height} {view.getpixel((0, 0))}" for name, view in image.items())
    return " ".join(seen).encode()


def sphere(target_faces: int | None) -> trimesh.Trimesh:
    """Return a watertight ball of 320 faces, fewer when that was asked, longer in X than in Y than in Z."""
    ball = trimesh.creation.icosphere(subdivisions=1 if target_faces is not None and target_faces < 320 else 2)
    return trimesh.Trimesh(ball.vertices * (0.9, 0.6, 0.3) + (0.05, 0.1, 0.2), ball.faces, process=False)


def ball_cutout(side: int = 128) -> Image.Image:
    """Return a cut-out of the ball as it is seen from the front: red on the left, blue on the right."""
    image = Image.new("RGBA", (side, side))
    pen = ImageDraw.Draw(image)
    left, top, right, bottom = side * 0.05, side * 0.2, side * 0.95, side * 0.8
    pen.ellipse((left, top, right, bottom), fill=(200, 30, 30, 255))
    pen.pieslice((left, top, right, bottom), -90, 90, fill=(30, 30, 200, 255))
    return image
