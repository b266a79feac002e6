"""What a caller may ask of the model: checked values with named errors.

This module does not know of networks or files, and does not import torch.
"""

from __future__ import annotations

import math
import operator
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, SupportsIndex, TypeVar

from backend.errors import (
    InvalidAcceleration,
    InvalidBackgroundMode,
    InvalidGuidance,
    InvalidObjects,
    InvalidOutline,
    InvalidResolution,
    InvalidSeed,
    InvalidSteps,
    InvalidTargetFaces,
    ServiceError,
)
from backend.limits import (
    ACCELERATIONS,
    BACKGROUND_MODES,
    DEFAULT_ACCELERATION,
    DEFAULT_BACKGROUND_MODE,
    DEFAULT_OBJECTS,
    DEFAULT_OUTLINE,
    MAX_RESOLUTION,
    MAX_TARGET_FACES,
    MIN_RESOLUTION,
    MIN_TARGET_FACES,
    OBJECT_CHOICES,
    OUTLINE_MODES,
    SEED_LIMIT,
    Acceleration,
    BackgroundMode,
    ObjectChoice,
    OutlineMode,
)

Seeds = int | Iterable[int]
TargetFaces = int | None | Sequence[int | None]
BackgroundModes = BackgroundMode | Sequence[BackgroundMode]
T = TypeVar("T")


@dataclass(frozen=True)
class GenerationOptions:
    """How shapes are made, the same for all of a batch; checked when it is made, and nowhere else.

    num_inference_steps : 1 and up. guidance_scale : 0 and up. octree_resolution : cells a side, 8 to 1024.
    acceleration : none, balanced or fast. Raises InvalidSteps, InvalidGuidance, InvalidResolution, InvalidAcceleration.
    """

    num_inference_steps: int
    guidance_scale: float
    octree_resolution: int
    acceleration: Acceleration = DEFAULT_ACCELERATION

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_inference_steps", check_num_inference_steps(self.num_inference_steps))
        object.__setattr__(self, "guidance_scale", check_guidance_scale(self.guidance_scale))
        object.__setattr__(self, "octree_resolution", check_octree_resolution(self.octree_resolution))
        check_acceleration(self.acceleration)


@dataclass(frozen=True)
class ImageOptions:
    """What is wanted of one image; checked when it is made, and nowhere else.

    generation : the same for all images of a batch. seed : 0 to 2^32 - 1. target_faces : most faces of the mesh, 100
    to 2 000 000; None keeps all. remove_background : auto, always or never. objects : all, or largest: one piece.
    outline : auto, or off: the shape ends where the network says.
    Raises InvalidSeed, InvalidTargetFaces, InvalidBackgroundMode, InvalidObjects, InvalidOutline.
    """

    generation: GenerationOptions
    seed: int
    target_faces: int | None = None
    remove_background: BackgroundMode = DEFAULT_BACKGROUND_MODE
    objects: ObjectChoice = DEFAULT_OBJECTS
    outline: OutlineMode = DEFAULT_OUTLINE

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", _whole(self.seed, 0, SEED_LIMIT - 1, InvalidSeed))
        if self.target_faces is not None:
            most = _whole(self.target_faces, MIN_TARGET_FACES, MAX_TARGET_FACES, InvalidTargetFaces)
            object.__setattr__(self, "target_faces", most)
        if self.remove_background not in BACKGROUND_MODES:
            raise InvalidBackgroundMode(details={"value": repr(self.remove_background)})
        if self.objects not in OBJECT_CHOICES:
            raise InvalidObjects(details={"value": repr(self.objects)})
        if self.outline not in OUTLINE_MODES:
            raise InvalidOutline(details={"value": repr(self.outline)})


class Defaults(Protocol):
    """What a checkpoint says where a caller says nothing."""

    @property
    def num_inference_steps(self) -> int:
        """Denoising steps."""

    @property
    def guidance_scale(self) -> float:
        """Classifier-free guidance."""

    @property
    def octree_resolution(self) -> int:
        """Cells a side."""


def check_num_inference_steps(value: int) -> int:
    """Return the number of steps. Raises InvalidSteps unless it is a whole number of at least 1."""
    return _whole(value, 1, None, InvalidSteps)


def check_octree_resolution(value: int) -> int:
    """Return the cells a side. Raises InvalidResolution unless it is a whole number from 8 to 1024."""
    return _whole(value, MIN_RESOLUTION, MAX_RESOLUTION, InvalidResolution)


def check_guidance_scale(value: float) -> float:
    """Return the guidance scale. Raises InvalidGuidance unless it is finite and at least 0."""
    try:
        number = math.nan if isinstance(value, (bool, str)) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise InvalidGuidance(details={"value": repr(value)})
    return number


def check_acceleration(value: Acceleration) -> Acceleration:
    """Return the acceleration. Raises InvalidAcceleration unless it is none, balanced or fast."""
    if value not in ACCELERATIONS:
        raise InvalidAcceleration(details={"value": repr(value)})
    return value


def check_seeds(seeds: Seeds | None, count: int) -> list[int]:
    """Return one seed for each of `count` images.

    seeds : one for each image; or a single one, which every image then gets, so that its result does not depend on
    its index; or None to draw them. Raises InvalidSeed unless all are whole numbers from 0 to 2^32 - 1.
    """
    return [_whole(seed, 0, SEED_LIMIT - 1, InvalidSeed) for seed in _each_seed(seeds, count)]


def image_options(
    generation: GenerationOptions,
    count: int,
    seeds: Seeds | None = None,
    target_faces: TargetFaces = None,
    remove_background: BackgroundModes = DEFAULT_BACKGROUND_MODE,
    objects: ObjectChoice = DEFAULT_OBJECTS,
    outline: OutlineMode = DEFAULT_OUTLINE,
) -> list[ImageOptions]:
    """Return what is wanted of each of `count` images, from values that are one for all or one for each.

    seeds : drawn when None. objects, outline : one for all.
    Raises InvalidSeed, InvalidTargetFaces, InvalidBackgroundMode, InvalidObjects, InvalidOutline.
    """
    modes = [remove_background] * count if isinstance(remove_background, str) else list(remove_background)
    most = list(target_faces) if isinstance(target_faces, Sequence) else [target_faces] * count
    each = zip(
        _each_seed(seeds, count),
        _of_number(count, most, InvalidTargetFaces),
        _of_number(count, modes, InvalidBackgroundMode),
        strict=True,
    )
    return [ImageOptions(generation, seed, faces, mode, objects, outline) for seed, faces, mode in each]


def _each_seed(seeds: Seeds | None, count: int) -> list[int]:
    if seeds is None:
        return [secrets.randbelow(SEED_LIMIT) for _ in range(count)]
    return _of_number(count, list(seeds) if isinstance(seeds, Iterable) else [seeds] * count, InvalidSeed)


def _of_number(count: int, given: list[T], error: type[ServiceError]) -> list[T]:
    """Return the same values. Raises `error` when there are not `count`."""
    if len(given) != count:
        raise error(f"There are {len(given)} values for {count} images: {error.__doc__}", details={"count": len(given)})
    return given


def _whole(value: SupportsIndex, low: int, high: int | None, error: type[ServiceError]) -> int:
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < low or (high is not None and number > high):
        raise error(details={"value": repr(value)})
    return number
