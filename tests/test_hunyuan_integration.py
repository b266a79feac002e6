"""The cached processor: loaded once, bounded, measured, compiled where asked; a failed load has a name."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import backend.hunyuan_integration as integration
from backend.batch_inference_extension import add_batch_inference_to_processor
from backend.config import Settings
from backend.errors import CheckpointError, CheckpointNotFound, ConfigurationError, OutOfMemory
from backend.hunyuan3d import Hunyuan3DShapePipeline
from backend.hunyuan3d.device import compile as compiling
from backend.hunyuan3d.device import rehearsal
from backend.hunyuan3d.device.memory import DeviceState, HostMemory
from backend.hunyuan3d.volume import marching_cubes as surface
from backend.hunyuan_integration import (
    Hunyuan3DProcessor,
    ModelChoice,
    ProcessorCache,
    _offloads,
    get_3d_processor,
    load_processor,
)
from tests.support.compilers import FakeCompiler
from tests.support.device_meter import FakeMemory
from tests.support.golden import load_golden
from tests.support.own_process import printed

SAMPLES = Path(__file__).parents[1] / "samples"
GOLDEN = load_golden("tiny-2.1").folder


@pytest.fixture(autouse=True)
def measured_coarsely(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure coarsely, and once: random weights have surface everywhere, which takes long at the usual resolution."""
    monkeypatch.setattr(integration, "_PROBED_RESOLUTIONS", {"cpu": 16})
    monkeypatch.setattr(rehearsal, "_LONGEST_SECONDS", 0.0)


@pytest.fixture(autouse=True)
def fresh_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integration, "_PROCESSORS", ProcessorCache(load_processor))


def settings(**changes: Any) -> Settings:
    """Return the tiny checkpoint on the CPU."""
    return Settings(**{"model_path": str(GOLDEN), "device": "cpu", **changes})


def choice(**changes: Any) -> ModelChoice:
    return replace(ModelChoice.from_settings(settings()), **changes)


@pytest.fixture
def not_warmed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the warm-up out where it is only asked which processor is given."""
    monkeypatch.setattr(Hunyuan3DProcessor, "warm_up", lambda _: None)


# One processor.


@pytest.mark.usefixtures("not_warmed_up")
def test_the_second_call_gives_the_same_processor() -> None:
    first = get_3d_processor(settings())
    assert get_3d_processor(settings()) is first
    assert get_3d_processor(settings(port=1234, log_level="DEBUG")) is first


@pytest.mark.usefixtures("not_warmed_up")
@pytest.mark.parametrize(
    "change", [{"max_batch_size": 2}, {"dtype": "bf16"}, {"gpu_memory_limit": 0.5}, {"offload": "on"}]
)
def test_settings_that_matter_give_another_processor(change: dict[str, Any]) -> None:
    assert get_3d_processor(settings(**change)) is not get_3d_processor(settings())


@pytest.mark.usefixtures("not_warmed_up")
def test_networks_wait_in_main_memory_on_small_cuda_devices_alone(caplog: pytest.LogCaptureFixture) -> None:
    class Small(HostMemory):
        def state(self) -> DeviceState:
            return DeviceState("cuda", "small", 12 << 30, 10 << 30)

    cuda, cpu, weights = torch.device("cuda"), torch.device("cpu"), 6 << 30
    with caplog.at_level("INFO", "backend.hunyuan_integration"):
        assert _offloads("auto", cuda, weights, Small())
    assert caplog.messages == ["Image encoder and ShapeVAE wait in main memory between their stages (OFFLOAD=auto)."]
    assert not _offloads("auto", cuda, weights // 2, Small())
    assert not _offloads("off", cuda, weights, Small())
    assert not _offloads("on", cpu, weights, Small())
    assert len(get_3d_processor(settings(offload="on")).pipeline.offloading) == 0


@pytest.mark.usefixtures("not_warmed_up")
def test_the_environment_decides_where_no_settings_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name in ("MODEL_PATH", "MODEL_SUBFOLDER", "DTYPE", "TORCH_COMPILE", "OFFLOAD", "MAX_BATCH_SIZE"):
            monkeypatch.delenv(name)
    (folder,) = (path.parent for path in GOLDEN.glob("*/config.yaml"))
    monkeypatch.setenv("MODEL_PATH", str(GOLDEN))
    monkeypatch.setenv("MODEL_SUBFOLDER", folder.name)
    monkeypatch.setenv("DEVICE", "cpu")
    monkeypatch.setenv("DTYPE", "bf16")
    monkeypatch.setenv("MAX_BATCH_SIZE", "3")
    processor = get_3d_processor()
    assert get_3d_processor() is processor
    assert processor.pipeline.dtype == torch.bfloat16
    assert processor.batch_capacity(16) == 3


def test_threads_wait_for_one_load() -> None:
    loads: list[ModelChoice] = []
    begun = threading.Barrier(4)

    def load(asked: ModelChoice) -> Hunyuan3DProcessor:
        loads.append(asked)
        return Hunyuan3DProcessor(load_golden("tiny-2.1").pipeline(), FakeMemory(), 4)

    cache = ProcessorCache(load)
    got: list[Hunyuan3DProcessor] = []

    def ask() -> None:
        begun.wait()
        got.append(cache.get(choice()))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert len(got) == 4
    assert len({id(one) for one in got}) == 1


def test_a_forked_process_loads_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ProcessorCache(lambda _: Hunyuan3DProcessor(load_golden("tiny-2.1").pipeline(), FakeMemory(), 4))
    parents = cache.get(choice())
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert cache.get(choice()) is not parents


# What it tells of itself.


@pytest.mark.usefixtures("not_warmed_up")
def test_the_processor_knows_its_model_and_its_device() -> None:
    processor = get_3d_processor(settings())
    assert processor.name == "tiny-2.1"
    assert processor.defaults == load_golden("tiny-2.1").pipeline().config.defaults
    state = processor.device_state()
    assert state.type == "cpu"
    assert 0 < state.memory_free <= state.memory_total


@pytest.mark.usefixtures("not_warmed_up")
def test_where_the_checkpoint_lies_is_nobodys_business() -> None:
    processor = add_batch_inference_to_processor(get_3d_processor(settings()))
    output_options: dict[str, Any] = {"num_inference_steps": 2, "octree_resolution": 16}
    (result,) = processor.generate_shape_batch([GOLDEN / "image0.png"], seeds=1, **output_options)
    assert result.metadata.model == "tiny-2.1"


def test_a_loaded_processor_has_been_measured() -> None:
    processor = get_3d_processor(settings(max_batch_size=7))
    assert processor.sizer.costs is not None
    assert processor.sizer.costs.decoded_at == 16
    assert processor.batch_capacity(64) == 7


def test_capacity_follows_the_devices_memory() -> None:
    memory = FakeMemory(free=0)
    processor = Hunyuan3DProcessor(load_golden("tiny-2.1").pipeline(), memory, 4)
    assert processor.device_state() == DeviceState("cuda", "Fake", 10_000, 0)
    memory.used_bytes = 100
    processor.warm_up()
    # Nothing was seen to be taken, so nothing stands in the way.
    assert processor.batch_capacity(16) == 4
    assert memory.released > 0


def test_the_first_mesh_finds_what_it_needs_in_place() -> None:
    surface._tables.cache_clear()
    get_3d_processor(settings())
    assert surface._tables.cache_info().currsize == 1


@pytest.mark.slow
def test_the_demo_checkpoint_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integration, "_PROBED_RESOLUTIONS", {"cpu": 64})
    processor = add_batch_inference_to_processor(get_3d_processor(Settings(device="cpu")))
    assert processor.name == "demo"
    assert processor.batch_capacity(processor.defaults.octree_resolution) == 4
    images = [SAMPLES / "mushroom.png", SAMPLES / "star.png"]
    results = processor.generate_shape_batch(images, seeds=[1, 2], octree_resolution=64)
    assert [r.unwrap().is_watertight for r in results] == [True, True]
    assert {r.metadata.batch_size for r in results} == {2}
    assert results[0].metadata.model == "demo"


# Loading.


def test_the_memory_is_bounded_before_the_weights_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[object] = []
    from_pretrained = Hunyuan3DShapePipeline.from_pretrained

    def memory_of(device: torch.device, limit: float) -> FakeMemory:
        order.append((device, limit))
        return FakeMemory()

    def load(*given: Any, **output_options: Any) -> Hunyuan3DShapePipeline:
        order.append("weights")
        return from_pretrained(*given, **output_options)

    monkeypatch.setattr(integration, "memory_of", memory_of)
    monkeypatch.setattr(Hunyuan3DShapePipeline, "from_pretrained", load)
    load_processor(choice(gpu_memory_limit=0.6))
    assert order == [(torch.device("cpu"), 0.6), "weights"]


def test_a_device_that_is_not_here_is_a_setting_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigurationError, match="DEVICE=cuda cannot be used"):
        get_3d_processor(settings(device="cuda"))


@pytest.mark.usefixtures("not_warmed_up")
def test_auto_is_the_best_device_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert get_3d_processor(settings(device="auto")).pipeline.device == torch.device("cpu")


@pytest.mark.usefixtures("not_warmed_up")
@pytest.mark.parametrize(
    ("failure", "named", "says"),
    [
        (CheckpointNotFound(), CheckpointNotFound, "No checkpoint was found"),
        (RuntimeError("CUDA error: invalid device ordinal"), CheckpointError, "invalid device ordinal"),
        (OSError("the disk is gone"), CheckpointError, "the disk is gone"),
        (torch.OutOfMemoryError("CUDA out of memory."), OutOfMemory, "ran out of memory"),
    ],
)
def test_a_failed_load_has_a_name_and_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, named: type[Exception], says: str
) -> None:
    def fails(*_: object, **__: object) -> Hunyuan3DShapePipeline:
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr(Hunyuan3DShapePipeline, "from_pretrained", fails)
        for _ in range(2):
            with pytest.raises(named, match=says) as raised:
                get_3d_processor(settings())
            assert type(raised.value) is named
    assert get_3d_processor(settings()).name == "tiny-2.1"


def test_a_missing_checkpoint_has_a_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound):
        get_3d_processor(settings(model_path=str(tmp_path)))


# Compiling.


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeCompiler:
    """Return a compiler in torch's place, and a cache of the test's own."""
    made = FakeCompiler()
    monkeypatch.setattr(compiling, "compile_rows", made)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    return made


def test_the_model_serves_before_it_is_compiled(compiler: FakeCompiler) -> None:
    compiler.may_go_on.clear()
    processor = add_batch_inference_to_processor(get_3d_processor(settings(torch_compile="on")))
    options: dict[str, Any] = {"num_inference_steps": 2, "octree_resolution": 16, "seeds": 1}
    (eager,) = processor.generate_shape_batch([GOLDEN / "image0.png"], **options)
    assert (processor.compiled, compiler.calls) == (False, 0)
    compiler.may_go_on.set()
    assert processor.compiling is not None
    processor.compiling.join(60)
    assert processor.compiled
    calls = compiler.calls
    (compiled,) = processor.generate_shape_batch([GOLDEN / "image0.png"], **options)
    assert compiler.calls > calls
    assert len(compiled.unwrap().faces) == len(eager.unwrap().faces)


@pytest.mark.usefixtures("not_warmed_up")
@pytest.mark.parametrize("asked", ["auto", "off", False])
def test_on_the_cpu_compiling_must_be_asked_for(compiler: FakeCompiler, asked: Any) -> None:
    processor = get_3d_processor(settings(torch_compile=asked))
    assert processor.compiling is None
    assert (processor.compiled, compiler.calls) == (False, 0)


@pytest.mark.usefixtures("not_warmed_up")
def test_a_compiler_that_is_not_here_is_named(
    compiler: FakeCompiler, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(integration, "compiler_missing", lambda _: "there is no C++ compiler")
    assert not get_3d_processor(settings(torch_compile="on")).compiled
    assert compiler.compiled == 0
    assert "The model is not compiled (TORCH_COMPILE=on): there is no C++ compiler." in caplog.messages


# fp8.


def test_fp8_on_the_cpu_computes_what_a_gpu_would() -> None:
    processor = add_batch_inference_to_processor(get_3d_processor(settings(dtype="fp8")))
    assert processor.pipeline.dtype == torch.float32
    options: dict[str, Any] = {"num_inference_steps": 2, "octree_resolution": 16, "seeds": 1}
    (result,) = processor.generate_shape_batch([GOLDEN / "image0.png"], **options)
    assert len(result.unwrap().faces) > 0


def test_a_device_without_fp8_is_a_setting_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integration, "fp8_missing", lambda _: "NVIDIA A100 is older than Hopper")
    with pytest.raises(ConfigurationError, match=r"DTYPE=fp8 cannot be used: NVIDIA A100 is older than Hopper\."):
        get_3d_processor(settings(dtype="fp8"))


# Imports.


def test_the_meters_need_no_torch() -> None:
    code = "import sys, backend.hunyuan3d.device.memory; print('torch' in sys.modules)"
    assert printed(code).strip() == "False"
