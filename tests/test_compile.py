"""Compiled pieces: used together, given up together, the same for every batch; compiling while the model serves."""

from __future__ import annotations

import logging
import threading
from functools import partial
from pathlib import Path

import pytest
import torch
import torch._dynamo
from torch import Tensor, nn
from torch._dynamo.utils import counters

from backend.errors import OutOfMemory
from backend.hunyuan3d import Hunyuan3DShapePipeline
from backend.hunyuan3d.device import compile as compiling
from backend.hunyuan3d.device.background_compile import BackgroundCompile
from backend.hunyuan3d.device.compile import (
    CompiledPieces,
    Compiler,
    compile_rows,
    compiler_missing,
    keep_compiled_in,
    pieces_of,
)
from backend.hunyuan3d.kernels import gelu_rows, head_norms
from backend.hunyuan3d.networks.fp8 import quantise_denoiser
from tests.support.compilers import FakeCompiler
from tests.support.golden import load_golden
from tests.support.own_process import printed

WARNING = "TORCH_COMPILE does not work here; going on without it (RuntimeError)"


def pieces_with(pipeline: Hunyuan3DShapePipeline, compiler: Compiler) -> CompiledPieces:
    assert isinstance(pipeline.denoiser, nn.Module)
    return CompiledPieces([pipeline.denoiser], compiler)


def sampled(pipeline: Hunyuan3DShapePipeline, name: str = "tiny-2.1", images: slice = slice(None)) -> Tensor:
    golden = load_golden(name)
    cond, noise = golden.arrays["cond"][images], golden.arrays["noise"][images]
    return pipeline.sample_latents(cond, golden.steps, golden.guidance_scale, noise=noise)


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# Pieces.


@pytest.mark.parametrize(
    ("name", "owners"), [("tiny-2.1", {"Block", "MixtureOfExperts"}), ("tiny-2.0", {"DoubleBlock", "SingleBlock"})]
)
def test_every_block_has_pieces(name: str, owners: set[str]) -> None:
    denoiser = load_golden(name).pipeline().denoiser
    assert isinstance(denoiser, nn.Module)
    assert {type(module).__name__ for module, _ in pieces_of(denoiser)} == owners


def test_pieces_run_compiled_once_they_are_used(caplog: pytest.LogCaptureFixture) -> None:
    pipeline, compiler = load_golden("tiny-2.1").pipeline(), FakeCompiler()
    pieces = pieces_with(pipeline, compiler)
    eager = sampled(pipeline)
    assert compiler.compiled == compiler.calls == 0
    pieces.use()
    assert torch.equal(sampled(pipeline), eager)
    assert compiler.compiled == len(pieces)
    assert compiler.calls % len(pieces) == 0
    assert warnings_in(caplog) == []


def test_a_thread_that_compiles_leaves_the_others_eager() -> None:
    pipeline, compiler = load_golden("tiny-2.1").pipeline(), FakeCompiler()
    pieces = pieces_with(pipeline, compiler)
    with pieces.compiled():
        thread = threading.Thread(target=sampled, args=(pipeline,))
        thread.start()
        thread.join()
        assert compiler.calls == 0
        sampled(pipeline)
    assert compiler.compiled == len(pieces)
    calls = compiler.calls
    sampled(pipeline)
    assert compiler.calls == calls


@pytest.mark.parametrize("when", [0, 1, 3])
def test_a_compiler_that_fails_is_reported_once_and_done_without(caplog: pytest.LogCaptureFixture, when: int) -> None:
    pipeline, compiler = load_golden("tiny-2.1").pipeline(), FakeCompiler(RuntimeError("no C++ compiler"), when)
    eager = sampled(pipeline)
    pieces = pieces_with(pipeline, compiler)
    pieces.use()
    assert torch.equal(sampled(pipeline), eager)
    assert torch.equal(sampled(pipeline), eager)
    assert (compiler.calls, pieces.active, pieces.failed) == (when, False, True)
    pieces.use()
    assert not pieces.active
    assert warnings_in(caplog) == [WARNING]


def test_memory_running_out_is_not_the_compilers_fault(caplog: pytest.LogCaptureFixture) -> None:
    pipeline = load_golden("tiny-2.1").pipeline()
    pieces = pieces_with(pipeline, FakeCompiler(torch.OutOfMemoryError("CUDA out of memory."), when=2))
    pieces.use()
    with pytest.raises(OutOfMemory):
        sampled(pipeline)
    assert pieces.active
    assert warnings_in(caplog) == []


# Torch's own compiler.


@pytest.fixture
def fresh_compiler() -> None:
    torch._dynamo.reset()
    counters.clear()


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize(("name", "graphs"), [("tiny-2.1", 7), ("tiny-2.0", 4)])
def test_one_set_of_graphs_serves_every_batch(monkeypatch: pytest.MonkeyPatch, name: str, graphs: int) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    pipeline = load_golden(name).pipeline()
    eager = sampled(pipeline, name)
    pieces = pieces_with(pipeline, compile_rows)
    pieces.use()
    for images in (slice(0, 1), slice(None), slice(0, 2)):
        torch.testing.assert_close(sampled(pipeline, name, images), eager[images], rtol=0, atol=1e-5)
        assert counters["stats"]["unique_graphs"] == graphs
    assert pieces.active


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
def test_kernels_of_our_own_and_fp8_compile_as_one_graph_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    monkeypatch.setattr(head_norms, "_is_for_kernel", lambda q, _k: q.dim() == 3)
    monkeypatch.setattr(gelu_rows, "_is_for_kernel", lambda _x: True)
    pipeline = load_golden("tiny-2.1").pipeline()
    quantise_denoiser(pipeline.denoiser)
    eager = sampled(pipeline)
    pieces = pieces_with(pipeline, compile_rows)
    pieces.use()
    torch.testing.assert_close(sampled(pipeline), eager, rtol=0, atol=1e-2)
    assert pieces.active


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
# Torch's compiler imports what torch itself has deprecated.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.skipif(compiler_missing(torch.device("cpu")) is not None, reason="no C++ compiler on this machine")
def test_compiled_latents_are_the_golden_ones_alone_and_in_a_batch() -> None:
    golden = load_golden("tiny-2.1")
    pipeline = golden.pipeline()
    pieces = pieces_with(pipeline, compile_rows)
    pieces.use()
    together = sampled(pipeline)
    assert pieces.active
    assert float((together - golden.arrays["latents"]).abs().max()) <= 1e-4
    for k in range(len(together)):
        # To the bit on a GPU; the CPU's products pick their order of summing by the number of rows.
        torch.testing.assert_close(sampled(pipeline, images=slice(k, k + 1))[0], together[k], rtol=0, atol=1e-5)


# In the background.


def background(
    pipeline: Hunyuan3DShapePipeline, compiler: FakeCompiler, used: list[str] | None = None
) -> tuple[BackgroundCompile, threading.Lock]:
    lock = threading.Lock()
    report = (used if used is not None else []).append
    return BackgroundCompile(pipeline, pieces_with(pipeline, compiler), lock, lambda: report("used")), lock


def test_the_eager_model_serves_until_everything_is_compiled() -> None:
    pipeline, compiler, used = load_golden("tiny-2.1").pipeline(), FakeCompiler(), list[str]()
    eager = sampled(pipeline)
    task, _ = background(pipeline, compiler, used)
    compiler.may_go_on.clear()
    task.start()
    assert torch.equal(sampled(pipeline), eager)
    assert (task.is_used, compiler.calls, used) == (False, 0, [])
    compiler.may_go_on.set()
    task.join(60)
    assert (task.is_used, used) == (True, ["used"])
    calls = compiler.calls
    assert torch.equal(sampled(pipeline), eager)
    assert compiler.calls > calls


def test_compiled_code_takes_over_between_two_batches() -> None:
    pipeline = load_golden("tiny-2.1").pipeline()
    task, lock = background(pipeline, FakeCompiler())
    with lock:
        task.start()
        task.join(1)
        assert not task.is_used
    task.join(60)
    assert task.is_used


def test_a_compilation_that_fails_leaves_the_model_eager(caplog: pytest.LogCaptureFixture) -> None:
    pipeline, used = load_golden("tiny-2.1").pipeline(), list[str]()
    eager = sampled(pipeline)
    task, _ = background(pipeline, FakeCompiler(RuntimeError("no C++ compiler")), used)
    task.start()
    task.join(60)
    assert (task.is_used, used) == (False, [])
    assert torch.equal(sampled(pipeline), eager)
    assert warnings_in(caplog) == [WARNING]


def test_memory_that_a_batch_takes_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    pipeline = load_golden("tiny-2.1").pipeline()
    task, _ = background(pipeline, FakeCompiler(torch.OutOfMemoryError("CUDA out of memory."), when=1))
    task.start()
    task.join(60)
    assert task.is_used
    assert warnings_in(caplog) == []


# What compiling needs.


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "find_spec", lambda _: None)
    assert compiler_missing(torch.device("cuda")) == "Triton is not installed"
    monkeypatch.setattr(compiling, "find_spec", lambda _: "here")
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert compiler_missing(torch.device("cuda")) == "there is no C compiler"
    assert compiler_missing(torch.device("cpu")) == "there is no C++ compiler"
    assert compiler_missing(torch.device("mps")) == "torch does not compile for mps"
    monkeypatch.setattr("shutil.which", lambda name: name)
    assert compiler_missing(torch.device("cuda")) is None


def test_what_is_compiled_is_kept_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", "/elsewhere")
    keep_compiled_in(tmp_path)
    code = "import os; print(os.environ['TORCHINDUCTOR_CACHE_DIR'], os.environ['TRITON_CACHE_DIR'])"
    assert printed(code).split() == [str(tmp_path / "inductor"), "/elsewhere"]
