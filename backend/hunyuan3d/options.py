"""What a caller may ask for: checked values with named errors. Knows nothing of networks or files."""

from __future__ import annotations

import math
import operator
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import SupportsIndex

import torch

from backend.errors import (
    InvalidGuidance,
    InvalidParameter,
    InvalidResolution,
    InvalidSeed,
    InvalidSteps,
    InvalidTargetFaces,
    ServiceError,
)

SEED_LIMIT = 2**32
MIN_RESOLUTION, MAX_RESOLUTION = 8, 1024
MIN_TARGET_FACES, MAX_TARGET_FACES = 100, 2_000_000
Seeds = int | Iterable[int]

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
    """How shapes are made.

    num_inference_steps : 1 and up. guidance_scale : 0 and up. octree_resolution : cells a side, 8 to 1024.
    target_faces : 100 to 2 000 000, or None to keep every face.
    Raises InvalidSteps, InvalidGuidance, InvalidResolution, InvalidTargetFaces.
    """

    num_inference_steps: int
    guidance_scale: float
    octree_resolution: int
    target_faces: int | None = None

    def __post_init__(self) -> None:
        check_steps(self.num_inference_steps)
        check_guidance(self.guidance_scale)
        check_resolution(self.octree_resolution)
        if self.target_faces is not None:
            _whole(self.target_faces, MIN_TARGET_FACES, MAX_TARGET_FACES, InvalidTargetFaces)


def check_steps(value: int) -> int:
    """The number of steps. Raises InvalidSteps unless it is a whole number of at least 1."""
    return _whole(value, 1, None, InvalidSteps)


def check_resolution(value: int) -> int:
    """Cells a side. Raises InvalidResolution unless it is a whole number from 8 to 1024."""
    return _whole(value, MIN_RESOLUTION, MAX_RESOLUTION, InvalidResolution)


def check_guidance(value: float) -> float:
    """The guidance scale. Raises InvalidGuidance unless it is finite and at least 0."""
    try:
        number = math.nan if isinstance(value, (bool, str)) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise InvalidGuidance(details={"value": repr(value)})
    return number


def check_seeds(seeds: Seeds | None, count: int) -> list[int]:
    """One seed for each of `count` images.

    seeds : one for each image; or a single one, which every image then gets, so that its result does not depend on
    its place; or None to draw them. Raises InvalidSeed unless all are whole numbers from 0 to 2^32 - 1.
    """
    if seeds is None:
        return [secrets.randbelow(SEED_LIMIT) for _ in range(count)]
    given = list(seeds) if isinstance(seeds, Iterable) else [seeds] * count
    if len(given) != count:
        raise InvalidSeed(f"There are {len(given)} seeds for {count} images.", details={"seeds": len(given)})
    return [_whole(seed, 0, SEED_LIMIT - 1, InvalidSeed) for seed in given]


def resolve_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, or the best one here: CUDA, then MPS, then the CPU. Raises InvalidParameter."""
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
    """The precision asked for, or the device's own: float32 on the CPU, half elsewhere. Raises InvalidParameter."""
    if dtype is None:
        if device.type == "cpu":
            return torch.float32
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float16
    resolved = _DTYPES.get(dtype.removeprefix("torch.")) if isinstance(dtype, str) else dtype
    if resolved is None or resolved not in _DTYPES.values():
        raise InvalidParameter(f"The precision {str(dtype)!r} is not offered; use fp32, fp16 or bf16.")
    return resolved


def _whole(value: SupportsIndex, low: int, high: int | None, error: type[ServiceError]) -> int:
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < low or (high is not None and number > high):
        raise error(details={"value": repr(value)})
    return number
