"""Device memory that runs out in one stage of the pipeline, and for no other reason than that a test says so."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from backend.hunyuan3d import Hunyuan3DShapePipeline
from benchmarks.support.fields import FieldAround


class Shortage:
    """Lets a device call through while `fits(size)`; else it is out of memory as torch says it. Keeps the sizes."""

    def __init__(self, fits: Callable[[int], bool]) -> None:
        self.fits = fits
        self.sizes: list[int] = []
        self.held: list[weakref.ref[Tensor]] = []

    def look(self, size: int, tensor: Tensor) -> None:
        self.sizes.append(size)
        if not self.fits(size):
            self.held.append(weakref.ref(tensor))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def while_encoding(self, pipeline: Hunyuan3DShapePipeline) -> None:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            self.look(len(args[0]), args[0])

        assert pipeline.conditioner is not None
        pipeline.conditioner.register_forward_pre_hook(hook)

    def while_sampling(self, pipeline: Hunyuan3DShapePipeline) -> None:
        velocity = pipeline.denoiser.velocity

        def short(x: Tensor, *others: Any) -> Tensor:
            made = x + 0
            self.look(len(made), made)
            return velocity(made, *others)

        pipeline.denoiser.velocity = short  # type: ignore[method-assign, assignment]

    def while_decoding(self, pipeline: Hunyuan3DShapePipeline) -> None:
        decode = pipeline.shape_vae.decode

        def short(latents: Tensor) -> Tensor:
            self.look(len(latents), latents)
            return decode(latents)

        pipeline.shape_vae.decode = short  # type: ignore[method-assign]

    def while_asking(self, pipeline: Hunyuan3DShapePipeline) -> None:
        field_of = pipeline.shape_vae.field

        def short(tokens: Tensor) -> _ShortField:
            return _ShortField(field_of(tokens), self)

        pipeline.shape_vae.field = short  # type: ignore[method-assign, assignment]


@dataclass(frozen=True)
class _ShortField(FieldAround):
    """A field each of whose calls the shortage looks at."""

    shortage: Shortage

    def __call__(self, points: Tensor, image: int) -> Tensor:
        self.shortage.look(len(points), points)
        return super().__call__(points, image)


STAGES = {"encode": Shortage.while_encoding, "sample": Shortage.while_sampling, "decode": Shortage.while_decoding}
