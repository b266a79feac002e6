"""What a caller may ask for: checked values with named errors.

This module does not know of networks or files.
"""

from __future__ import annotations

import math
import operator
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import SupportsIndex, TypeVar

import torch

from backend.errors import (
    InvalidAcceleration,
    InvalidBackgroundMode,
    InvalidGuidance,
    InvalidParameter,
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
    MAX_RESOLUTION,
    MAX_TARGET_FACES,
    MIN_RESOLUTION,
    MIN_TARGET_FACES,
    SEED_LIMIT,
    Acceleration,
    BackgroundMode,
)

Seeds = int | Iterable[int]
TargetFaces = int | None | Sequence[int | None]
BackgroundModes = BackgroundMode | Sequence[BackgroundMode]
T = TypeVar("T")

_DTYPES = {
    "fp32": torch.float32,
    "float32": torch.float32,
    "float": torch.float32,
    "fp16": torch.float16,
    "float16": torch.float16,
    "half": torch.float16,
    "bf16": torch.bfloat16,
    "bfloat16": torch.bfloat16,
}


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
    if seeds is None:
        return [secrets.randbelow(SEED_LIMIT) for _ in range(count)]
    given = _of_number(count, list(seeds) if isinstance(seeds, Iterable) else [seeds] * count, InvalidSeed)
    return [_whole(seed, 0, SEED_LIMIT - 1, InvalidSeed) for seed in given]


def check_target_faces(target_faces: TargetFaces, count: int) -> list[int | None]:
    """Return the most faces of each of `count` meshes; None keeps all.

    target_faces : one for all or one for each. Raises InvalidTargetFaces unless they are whole numbers, 100 to
    2 000 000.
    """
    each = list(target_faces) if isinstance(target_faces, Sequence) else [target_faces] * count
    low, high = MIN_TARGET_FACES, MAX_TARGET_FACES
    return [
        None if n is None else _whole(n, low, high, InvalidTargetFaces)
        for n in _of_number(count, each, InvalidTargetFaces)
    ]


def check_background_modes(modes: BackgroundModes, count: int) -> list[BackgroundMode]:
    """Return how the background of each of `count` images is removed, from one mode for all or one for each.

    Raises InvalidBackgroundMode unless all are auto, always or never.
    """
    each: list[BackgroundMode] = [modes] * count if isinstance(modes, str) else list(modes)
    for mode in _of_number(count, each, InvalidBackgroundMode):
        if mode not in BACKGROUND_MODES:
            raise InvalidBackgroundMode(details={"value": repr(mode)})
    return each


def resolve_device(device: str | torch.device | None) -> torch.device:
    """Return the device asked for, or the best one here: CUDA, then MPS, then the CPU. Raises InvalidParameter."""
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as e:
        raise InvalidParameter(f"{device!r} is no device; use cuda, mps or cpu.") from e
    available: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
        "cpu": lambda: True,
    }
    if resolved.type not in available or not available[resolved.type]():
        raise InvalidParameter(f"The device {str(device)!r} is not available here.")
    return resolved


def resolve_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """Return the precision asked for, or the device's own: float32 on the CPU, half elsewhere.

    Raises InvalidParameter.
    """
    if dtype is None:
        if device.type == "cpu":
            return torch.float32
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float16
    resolved = _DTYPES.get(dtype.removeprefix("torch.")) if isinstance(dtype, str) else dtype
    if resolved is None or resolved not in _DTYPES.values():
        raise InvalidParameter(f"The precision {str(dtype)!r} is not offered; use fp32, fp16 or bf16.")
    return resolved


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
