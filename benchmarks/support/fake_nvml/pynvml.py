"""NVIDIA's library as far as the service asks it, on a machine without a GPU: put this folder first on PYTHONPATH.

What the one GPU says stands in the JSON file that FAKE_GPU names, and may change while it is read. This module does not
know who asks.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

NVML_TEMPERATURE_GPU, NVML_CLOCK_SM, NVML_CLOCK_MEM = 0, 1, 2
USUAL = {
    "load": 62, "total": 80 << 30, "used": 31 << 30, "power": 412_000, "limit": 700_000, "celsius": 61,
    "clocks": {"1": 1755, "2": 2619},
}  # fmt: skip


class NVMLError(Exception):
    """As the real one: no driver, or a number that this GPU does not tell."""


def _now() -> dict[str, object]:
    path = Path(os.environ.get("FAKE_GPU", ""))
    return {**USUAL, **(json.loads(path.read_text()) if path.is_file() else {})}


def _told(name: str) -> object:
    found = _now()[name]
    if found is None:
        raise NVMLError("Not Supported")
    return found


def nvmlInit() -> None:  # noqa: N802
    if "FAKE_GPU" not in os.environ:
        raise NVMLError("Driver Not Loaded")


def nvmlDeviceGetCount() -> int:  # noqa: N802
    return 1


def nvmlDeviceGetHandleByIndex(number: int) -> int:  # noqa: N802
    return number


def nvmlDeviceGetUUID(gpu: int) -> str:  # noqa: N802
    return f"GPU-0000-{gpu}"


def nvmlDeviceGetName(_gpu: int) -> str:  # noqa: N802
    return "NVIDIA H100 80GB HBM3"


def nvmlDeviceGetUtilizationRates(_gpu: int) -> SimpleNamespace:  # noqa: N802
    return SimpleNamespace(gpu=_told("load"), memory=0)


def nvmlDeviceGetMemoryInfo(_gpu: int) -> SimpleNamespace:  # noqa: N802
    return SimpleNamespace(total=_told("total"), used=_told("used"))


def nvmlDeviceGetPowerUsage(_gpu: int) -> object:  # noqa: N802
    return _told("power")


def nvmlDeviceGetEnforcedPowerLimit(_gpu: int) -> object:  # noqa: N802
    return _told("limit")


def nvmlDeviceGetTemperature(_gpu: int, sensor: int) -> object:  # noqa: N802
    assert sensor == NVML_TEMPERATURE_GPU
    return _told("celsius")


def nvmlDeviceGetClockInfo(_gpu: int, clock: int) -> object:  # noqa: N802
    clocks = _told("clocks")
    assert isinstance(clocks, dict)
    return clocks[str(clock)]
