"""What NVIDIA's own library says of the GPUs that this process can see: load, memory, power, heat, clocks.

Read when Prometheus asks, from the driver and never from a running batch. Without an NVIDIA driver there is nothing to
read, and /metrics goes without. Two workers of one machine show the same GPUs: take `max by (uuid)`. This module does
not know which of them a worker uses.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

Read = Callable[[Any, Any], float]
"""Returns a number of a GPU; takes the library and the GPU's handle."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gauge:
    """A family of numbers, and how each is read; labels : beside the GPU's own; reads : by their values."""

    name: str
    text: str
    reads: dict[tuple[str, ...], Read]
    labels: tuple[str, ...] = ()


_GAUGES = (
    Gauge(
        "orfeas_gpu_utilization_ratio",
        "Part of the last moment in which a kernel ran, 0 to 1.",
        {(): lambda nvml, gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100},
    ),
    Gauge(
        "orfeas_gpu_memory_bytes",
        "The GPU's memory, of all who use it.",
        {
            ("total",): lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).total,
            ("used",): lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used,
        },
        ("kind",),
    ),
    Gauge(
        "orfeas_gpu_power_watts",
        "What the GPU draws now, and what it may draw at most.",
        {
            ("drawn",): lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
            ("limit",): lambda nvml, gpu: nvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1000,
        },
        ("kind",),
    ),
    Gauge(
        "orfeas_gpu_temperature_celsius",
        "How hot the GPU is.",
        {(): lambda nvml, gpu: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)},
    ),
    Gauge(
        "orfeas_gpu_clock_hertz",
        "How fast its processors and its memory run now.",
        {
            ("sm",): lambda nvml, gpu: 1e6 * nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM),
            ("memory",): lambda nvml, gpu: 1e6 * nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM),
        },
        ("clock",),
    ),
)


class GpuCollector(Collector):
    """The GPUs, read when Prometheus asks; the library is opened at the first reading, in the process that reads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._nvml: Any = None
        self._opened = False

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Return nothing: what is described beforehand would have to be read beforehand."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the families; none without an NVIDIA driver. A number that a GPU does not tell is left out."""
        with self._lock:
            if not self._opened:
                self._nvml, self._opened = _opened_library(), True
        if self._nvml is None:
            return
        gpus = list(_gpus(self._nvml))
        for gauge in _GAUGES:
            yield _exported(gauge, self._nvml, gpus)


def _opened_library() -> Any:
    """Return NVIDIA's library, None where there is no driver that it could ask."""
    import pynvml  # type: ignore[import-untyped]

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        logger.info("No GPU is shown in /metrics: %s.", error)
        return None
    return pynvml


def _gpus(nvml: Any) -> Iterator[tuple[tuple[str, str, str], Any]]:
    """Yield each GPU's labels (number, uuid, model) and handle; one that has fallen off the bus is left out."""
    for number in range(nvml.nvmlDeviceGetCount()):
        with suppress(nvml.NVMLError):
            gpu = nvml.nvmlDeviceGetHandleByIndex(number)
            yield (str(number), str(nvml.nvmlDeviceGetUUID(gpu)), str(nvml.nvmlDeviceGetName(gpu))), gpu


def _exported(gauge: Gauge, nvml: Any, gpus: list[tuple[tuple[str, str, str], Any]]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(gauge.name, gauge.text, labels=("gpu", "uuid", "model", *gauge.labels))
    for labels, gpu in gpus:
        for values, read in gauge.reads.items():
            # Parts of a GPU (MIG) tell no load, and passively cooled ones no power.
            with suppress(nvml.NVMLError):
                family.add_metric((*labels, *values), read(nvml, gpu))
    return family
