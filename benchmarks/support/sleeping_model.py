"""A model that sleeps in place of working: each stage as long as an H100 took, give or take a few per cent.

For benchmarks of what goes on around a model: what else the machine does plays little part. This module does not know
what is measured.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import trimesh

from backend.errors import PromptUnavailable
from backend.hunyuan3d.options import ImageOptions
from backend.hunyuan3d.results import ShapeMetadata, ShapeResult, StageSeconds

NOISE = 0.06
"""By how much a stage's time is other each time: the standard deviation of its logarithm."""

_STEPS = 30
_NEWEST = 0.3


@dataclass
class Pace:
    """What a stage takes, seconds, each time a little other."""

    chance: random.Random

    def __call__(self, seconds: float) -> float:
        return seconds * self.chance.lognormvariate(0.0, NOISE)

    def stages(self, options: Sequence[ImageOptions]) -> dict[str, float]:
        """Return what a batch takes of a device."""
        made, count = options[0].generation, len(options)
        return {
            "preprocess": self(0.02 + 0.03 * count),
            "encode": self(0.03 + 0.02 * count),
            "sample": self(made.num_inference_steps * (0.006 + 0.05 * count)),
            "decode": self(count * 0.21 * (made.octree_resolution / 384) ** 2),
        }

    def mesh(self, options: ImageOptions) -> float:
        """Return what a mesh takes of a core."""
        size = (options.generation.octree_resolution / 384) ** 2
        return self(0.25 * size + (0.5 * size if options.target_faces else 0.0))


@dataclass(eq=False)
class Pending:
    """A shape whose mesh takes its time."""

    metadata: ShapeMetadata
    seconds: float

    def build_mesh(self) -> ShapeResult:
        entered = time.monotonic()
        time.sleep(self.seconds)
        mesh = trimesh.creation.icosphere(subdivisions=3)
        spent = replace(self.metadata.seconds, mesh=time.monotonic() - entered)
        return ShapeResult(mesh, None, replace(self.metadata, faces=len(mesh.faces), seconds=spent))


@dataclass(eq=False)
class SleepingModel:
    """A processor that sleeps. Notes the mean that was once all that was known."""

    pace: Pace
    name: str = "sleeping"
    compiled: bool = False
    takes_views: bool = False
    prepares_ahead: bool = False
    mean: float | None = None
    defaults: Any = field(
        default_factory=lambda: SimpleNamespace(num_inference_steps=_STEPS, guidance_scale=5.0, octree_resolution=384)
    )

    @property
    def rehearsals(self) -> list[Any]:
        """Measure two steps at a middling and at the default resolution, as the warm-up does."""
        found = []
        for resolution in (256, 384):
            generation = SimpleNamespace(num_inference_steps=2, octree_resolution=resolution)
            options: Any = SimpleNamespace(generation=generation, target_faces=None)
            taken = self._spend(self.pace.stages([options]), 2, lambda *_: None)
            seconds = StageSeconds(**taken, mesh=self.pace.mesh(options))
            metadata = ShapeMetadata(
                self.name, 1, num_inference_steps=2, octree_resolution=resolution, evaluations=2, seconds=seconds
            )
            found.append(SimpleNamespace(metadata=metadata, finish=0.05))
        return found

    def _spend(
        self, seconds: Mapping[str, float], steps: int, report: Callable[[str, int, int], None]
    ) -> dict[str, float]:
        """Sleep through the stages on the device; return what each took."""
        taken, units = {}, {"preprocess": 1, "encode": 1, "sample": steps, "decode": 4}
        for stage, spent in seconds.items():
            entered = time.monotonic()
            for done in range(1, units[stage] + 1):
                # A level of a decoding takes three times as long as the one before.
                time.sleep(spent * (3 ** (done - 1) / 40 if stage == "decode" else 1 / units[stage]))
                report(stage, done, units[stage])
            taken[stage] = time.monotonic() - entered
        return taken

    def device_state(self) -> Any:
        return SimpleNamespace(type="cpu", name="none", memory_total=1, memory_free=1)

    def batch_capacity(self, octree_resolution: int) -> int:  # noqa: ARG002
        return 4

    def draw_image(self, prompt: str, seed: int) -> bytes:
        """Raise PromptUnavailable: it draws nothing."""
        raise PromptUnavailable(details={"prompt": prompt, "seed": seed})

    def prepare_images(
        self,
        images: Sequence[Any],
        remove_background: Sequence[str],  # noqa: ARG002
        objects: Sequence[str],  # noqa: ARG002
    ) -> list[None]:
        return [None for _ in images]

    def generate_shape_batch(
        self,
        images: Sequence[Any],
        *,
        options: Sequence[ImageOptions],
        on_progress: Callable[[Any], None],
        **_: Any,
    ) -> list[Pending]:
        begun = time.monotonic()
        indices, steps = tuple(range(len(images))), options[0].generation.num_inference_steps

        def report(stage: str, done: int, total: int) -> None:
            on_progress(SimpleNamespace(stage=stage, done=done, total=total, indices=indices))

        taken = self._spend(self.pace.stages(options), steps, report)
        took = (time.monotonic() - begun) / len(images)
        self.mean = took if self.mean is None else self.mean + _NEWEST * (took - self.mean)
        return [
            Pending(
                ShapeMetadata(
                    self.name,
                    len(images),
                    seed=own.seed,
                    num_inference_steps=steps,
                    guidance_scale=5.0,
                    octree_resolution=own.generation.octree_resolution,
                    evaluations=steps,
                    target_faces=own.target_faces,
                    seconds=StageSeconds(**taken),
                ),
                self.pace.mesh(own),
            )
            for own in options
        ]
