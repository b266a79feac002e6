"""Which device a model runs on, and in which precision."""

from __future__ import annotations

from collections.abc import Callable

import torch

from backend.errors import InvalidParameter

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
