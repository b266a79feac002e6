"""The denoiser's section of `benchmarks.full_size`: one evaluation, eager, compiled, from graphs and in fp8.

Every variant is tried by itself within a time of its own, so that one that fails costs the others nothing. Said of
each: milliseconds of an evaluation, what compiling took, its difference to the eager network, and whether an image has
the same latents to the bit alone and in a batch.
"""

from __future__ import annotations

import gc
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch._dynamo.utils
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from backend.hunyuan3d.device.compile import CompiledPieces
from backend.hunyuan3d.device.graphs import GraphedDenoiser
from backend.hunyuan3d.kernels import gelu_rows, head_norms
from backend.hunyuan3d.networks.fp8 import quantise_denoiser
from backend.hunyuan3d.pipeline import Hunyuan3DShapePipeline

_REPEATS = 5
_EQUALITY_STEPS = 6
_GRAPHED_TOKENS = 1 << 20


@dataclass
class Report:
    """Where lines and files go, and how long there still is.

    rows : what was measured, for the table. patience : what each attempt's time is multiplied by on a slow machine.
    """

    out: Path
    seconds: float
    patience: float = 1.0
    started: float = field(default_factory=time.perf_counter)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def say(self, *words: object) -> None:
        """Print a line at once, with the seconds since the start before it."""
        print(f"FULL {time.perf_counter() - self.started:6.1f}s", *words, flush=True)

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.seconds - (time.perf_counter() - self.started)

    @contextmanager
    def attempt(self, name: str, seconds: float) -> Iterator[None]:
        """Run the block for at most so long; say what went wrong with it, and go on."""
        if self.left < 5:
            self.say("SKIPPED", name, "no time left")
            return_early = True
        else:
            return_early = False
        previous = signal.signal(signal.SIGALRM, _out_of_time)
        signal.setitimer(signal.ITIMER_REAL, 0.01 if return_early else min(seconds * self.patience, self.left))
        try:
            if return_early:
                time.sleep(1)
            yield
        except Exception as failure:  # noqa: BLE001 (said, and the next is tried)
            self.say("FAILED", name, type(failure).__name__, " ".join(str(failure).split())[:600])
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)


def _out_of_time(*_: object) -> None:
    raise TimeoutError


def synchronize() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def milliseconds(work: Callable[[], object], repeats: int = _REPEATS) -> float:
    """Return the median of several calls, the device's work included."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        synchronize()
        times.append(time.perf_counter() - started)
    return sorted(times)[repeats // 2] * 1e3


def relative(a: Tensor, b: Tensor) -> float:
    """Return |a - b| / |b|."""
    return float((a.float() - b.float()).norm() / b.float().norm())


class Bench:
    """One design: its pipeline, and inputs of one evaluation for each batch size."""

    def __init__(self, report: Report, name: str, pipeline: Hunyuan3DShapePipeline, batches: tuple[int, ...]) -> None:
        self.report, self.name, self.pipeline, self.batches = report, name, pipeline, batches
        size = pipeline.image_processor.size
        generator = torch.Generator().manual_seed(7)
        image = torch.rand(max(batches), 3, size, size, generator=generator) * 2 - 1
        self.cond = pipeline.encode_images(image)
        self.noise = pipeline.initial_noise(max(batches), list(range(max(batches))))
        self.t = torch.tensor(0.3, device=pipeline.device)
        self.guidance = torch.tensor([5.0], device=pipeline.device)
        self.reference: dict[int, Tensor] = {}
        self.eager: dict[int, float] = {}

    def context(self, batch: int) -> Any:
        """Return what the denoiser prepares once for all steps."""
        denoiser = self.pipeline.denoiser
        cond = self.cond[:batch].to(self.pipeline.device, self.pipeline.dtype)
        return denoiser.prepare(cond, classifier_free=not denoiser.guidance_embed)

    def measure(self, variant: str, batches: tuple[int, ...] | None = None) -> None:
        """Time an evaluation at every batch size and compare it; the first variant measured is the reference."""
        denoiser = self.pipeline.denoiser
        for batch in batches or self.batches:
            context, x = self.context(batch), self.noise[:batch]

            def evaluate(x: Tensor = x, context: Any = context) -> Tensor:
                return denoiser.velocity(x, self.t, context, self.guidance)

            started = time.perf_counter()
            out = evaluate()
            synchronize()
            first = time.perf_counter() - started
            evaluate()
            ms = milliseconds(evaluate)
            host = self.host_milliseconds(evaluate)
            self.reference.setdefault(batch, out.clone())
            self.eager.setdefault(batch, ms)
            error = relative(out, self.reference[batch])
            row = {"design": self.name, "batch": batch, "variant": variant, "ms": ms, "host": host, "first": first}
            row |= {"error": error, "gain": self.eager[batch] / ms}
            self.report.rows.append(row)
            self.report.say(
                f"{self.name} b{batch} {variant}: {ms:.2f} ms ({row['gain']:.2f}x), host {host:.2f} ms, first call "
                f"{first:.1f} s, relative difference {error:.1e}"
            )

    def host_milliseconds(self, evaluate: Callable[[], object]) -> float:
        """How long the host takes to ask for an evaluation."""
        synchronize()
        started = time.perf_counter()
        evaluate()
        spent = time.perf_counter() - started
        synchronize()
        return spent * 1e3

    def say_equality(self, variant: str) -> None:
        """Say whether the last image's latents are the same alone and in the largest batch."""
        batch = max(self.batches)
        together = self.pipeline.sample_latents(self.cond, _EQUALITY_STEPS, 5.0, noise=self.noise)
        last = slice(batch - 1, batch)
        alone = self.pipeline.sample_latents(self.cond[last], _EQUALITY_STEPS, 5.0, noise=self.noise[last])
        same = torch.equal(together[batch - 1], alone[0])
        self.report.rows.append({"design": self.name, "variant": variant, "same": same})
        self.report.say(f"{self.name} {variant}: alone = in a batch of {batch}, to the bit: {same} "
                        f"(relative difference {relative(alone[0], together[batch - 1]):.1e})")  # fmt: skip

    def say_against(self, variant: str, other: Tensor) -> Tensor:
        """Say whether the latents of a few steps are those given, and return them."""
        latents = self.pipeline.sample_latents(self.cond, _EQUALITY_STEPS, 5.0, noise=self.noise)
        self.report.say(f"{self.name} {variant}: latents as without: {torch.equal(latents, other)} "
                        f"(relative difference {relative(latents, other):.1e})")  # fmt: skip
        return latents

    def latents(self) -> Tensor:
        """Latents of the largest batch after a few steps."""
        return self.pipeline.sample_latents(self.cond, _EQUALITY_STEPS, 5.0, noise=self.noise)

    def profile(self, batch: int, file: str) -> None:
        """Write which kernels one evaluation spends its time in."""
        context, cuda = self.context(batch), torch.cuda.is_available()
        activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if cuda else [])
        with profile(activities=activities) as profiler:
            self.pipeline.denoiser.velocity(self.noise[:batch], self.t, context, self.guidance)
            synchronize()
        device_time = "self_device_time_total" if cuda else "self_cpu_time_total"
        kernels = [event for event in profiler.key_averages() if not (cuda and event.key.startswith("aten::"))]
        kernels.sort(key=lambda event: getattr(event, device_time), reverse=True)
        whole = sum(getattr(event, device_time) for event in kernels)
        lines = [f"# {file}: {whole / 1e3:.2f} ms"]
        for event in kernels[:32]:
            spent = getattr(event, device_time)
            lines.append(f"{spent / 1e3:9.3f} ms {event.count:5d} x {spent / event.count:9.1f} us  {event.key[-110:]}")
        with (self.report.out / "profiles.txt").open("a") as out:
            out.write("\n".join(lines) + "\n\n")

    @contextmanager
    def graphs(self) -> Iterator[None]:
        """Run with CUDA graphs for every batch."""
        plain = self.pipeline.denoiser
        graphed = GraphedDenoiser(plain, _GRAPHED_TOKENS)
        self.pipeline.denoiser = graphed
        try:
            yield
            if graphed._failed:
                self.report.say("FAILED", self.name, "graphs were given up")
        finally:
            self.pipeline.denoiser = plain
            graphed.forget()


@torch.no_grad()
def measure_design(
    report: Report, name: str, build: Callable[[], Hunyuan3DShapePipeline], batches: tuple[int, ...], profiled: int
) -> None:
    """Try every variant on one design. profiled : the batch whose kernels are written down."""
    made: list[Bench] = []
    with report.attempt(f"{name} eager", 60):
        bench = Bench(report, name, build(), batches)
        made.append(bench)
        with patch.object(head_norms, "_is_for_kernel", _never), patch.object(gelu_rows, "_is_for_kernel", _never):
            bench.measure("eager")
    if not made:
        return
    bench = made[0]
    network = bench.pipeline.denoiser
    assert isinstance(network, nn.Module)
    with report.attempt(f"{name} compiled", 90):
        _compiled(bench, network, "compiled", profiled)
    with report.attempt(f"{name} fp8", 90):
        _plain(network)
        quantise_denoiser(network)
        _collect()
        report.say(f"{name} weights in fp8: {sum(p.nbytes for p in network.parameters()) / 2**30:.2f} GiB")
        _compiled(bench, network, "fp8 compiled", profiled)


def _never(*_: object) -> bool:
    return False


def _compiled(bench: Bench, network: nn.Module, variant: str, profiled: int) -> None:
    """Compile anew and measure, then the same from graphs."""
    _plain(network)
    torch._dynamo.reset()
    pieces = CompiledPieces([network])
    pieces.use()
    bench.measure(variant)
    bench.report.say(f"{bench.name} {variant}: {torch._dynamo.utils.counters['stats']['unique_graphs']} graphs so far")
    if pieces.failed:
        bench.report.say("FAILED", bench.name, variant, "was given up")
        return
    bench.say_equality(variant)
    if bench.pipeline.device.type == "cuda":
        without = bench.latents()
        with bench.graphs():
            bench.measure(f"{variant} + graphs", (min(bench.batches),))
            bench.say_against(f"{variant} + graphs", without)
    bench.profile(profiled, f"{bench.name} b{profiled} {variant}")


def _plain(network: nn.Module) -> None:
    """Take compiled pieces off a network."""
    for module in network.modules():
        for name in getattr(type(module), "pieces", ()):
            module.__dict__.pop(name, None)


def _collect() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
