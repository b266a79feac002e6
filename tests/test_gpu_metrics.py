"""What /metrics says of GPUs: read from NVIDIA's library as it is called, with a fake driver below it."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pynvml  # type: ignore[import-untyped]
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from backend.telemetry.gpu_metrics import GpuCollector
from backend.telemetry.worker_metrics import PrometheusMetrics
from benchmarks.support.fake_nvml import pynvml as fake
from tests.support.exposition import metric

CALLS = [name for name in vars(fake) if name.startswith("nvml")]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Put the fake's calls into NVIDIA's own module; provides the file in which the GPU's state stands."""
    for name in (*CALLS, "NVMLError"):
        monkeypatch.setattr(pynvml, name, vars(fake)[name])
    state = tmp_path / "gpu.json"
    monkeypatch.setenv("FAKE_GPU", str(state))
    return state


def shown() -> bytes:
    registry = CollectorRegistry()
    registry.register(GpuCollector())
    return generate_latest(registry)


@pytest.mark.parametrize("name", CALLS)
def test_the_fake_is_called_as_the_real_library_is(name: str) -> None:
    real, ours = inspect.signature(vars(pynvml)[name]), inspect.signature(vars(fake)[name])
    required = [each for each in real.parameters.values() if each.default is inspect.Parameter.empty]
    assert len(required) == len(ours.parameters)


@pytest.mark.usefixtures("driver")
def test_a_gpu_is_told_in_plain_units() -> None:
    text = shown()
    gpu = {"gpu": "0", "uuid": "GPU-0000-0", "model": "NVIDIA H100 80GB HBM3"}
    assert metric(text, "orfeas_gpu_utilization_ratio", **gpu) == 0.62
    assert metric(text, "orfeas_gpu_memory_bytes", kind="total", **gpu) == 80 << 30
    assert metric(text, "orfeas_gpu_memory_bytes", kind="used", **gpu) == 31 << 30
    assert metric(text, "orfeas_gpu_power_watts", kind="drawn", **gpu) == 412
    assert metric(text, "orfeas_gpu_power_watts", kind="limit", **gpu) == 700
    assert metric(text, "orfeas_gpu_temperature_celsius", **gpu) == 61
    assert metric(text, "orfeas_gpu_clock_hertz", clock="sm", **gpu) == 1755e6
    assert metric(text, "orfeas_gpu_clock_hertz", clock="memory", **gpu) == 2619e6


def test_a_number_that_a_gpu_does_not_tell_is_left_out(driver: Path) -> None:
    driver.write_text(json.dumps({"load": None, "power": None}))
    text = shown()
    assert metric(text, "orfeas_gpu_utilization_ratio") is None
    assert metric(text, "orfeas_gpu_power_watts", kind="drawn") is None
    assert metric(text, "orfeas_gpu_power_watts", kind="limit") == 700
    assert metric(text, "orfeas_gpu_temperature_celsius") == 61


def test_without_a_driver_there_is_nothing_and_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVIDIA's real library, on this machine or with its driver hidden."""

    def no_driver(*_: object) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)

    monkeypatch.setattr(pynvml, "nvmlInit", no_driver)
    metrics = PrometheusMetrics()
    metrics.watch_gpus()
    text = metrics.exposition()
    assert b"orfeas_gpu" not in text
    assert metric(text, "orfeas_batch_capacity_total") == 0
