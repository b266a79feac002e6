"""The loop both networks are trained by: a budget of seconds, rates that fall with it, states that a run resumes from.

On CUDA the whole step (drawing, losses, gradients, optimiser) is recorded once and replayed, since launching its
kernels one by one takes longer than they do. Knows nothing of what is trained.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from training.muon import Optimiser
from training.recipe import Optimisation

_AVERAGED_SHARE = 0.05
_WARM_STEPS = 3
_STEPS_AT_ONCE = 8


class Task(Protocol):
    """What a training run is about."""

    modules: nn.ModuleDict

    def loss(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of one step, drawn by the device's own generator, and figures for the log."""

    def refresh(self) -> None:
        """Take in what has come since, between steps."""

    def evaluate(self) -> dict[str, float]:
        """Return figures on held-out data."""


@dataclass(frozen=True)
class LoopOptions:
    """Where a run keeps its state, how long it trains and how often it reports.

    seconds : of training, what an earlier part of the same run has used included. report_every, save_every,
    evaluate_every : seconds; the first report of a second is that of the first step. on_save : called after each save.
    """

    folder: Path
    seconds: float
    report_every: float = 10.0
    save_every: float = 30.0
    evaluate_every: float = 60.0
    on_save: Callable[[], None] | None = None


class Average:
    """The running average of the trained weights over the last twentieth of the steps, which is what leaves the run.

    A share of the steps, since a fixed number of them, a thousand say, may be half of a short run: its average is then
    far behind. T. Karras et al., https://arxiv.org/abs/2312.02696, section 3.1.
    """

    def __init__(self, modules: nn.Module) -> None:
        self.own = list(modules.parameters())
        self.mean = [p.detach().clone() for p in self.own]
        self.weight = torch.ones((), device=self.own[0].device)

    def set_weight(self, step: int) -> None:
        """Say how much of the average the weights after that step, from 0 on, are."""
        self.weight.fill_(min(1.0, 1 / (_AVERAGED_SHARE * (step + 1))))

    @torch.no_grad()
    def follow(self) -> None:
        """Take one step's share of the weights."""
        away = list(torch._foreach_sub([p.detach() for p in self.own], self.mean))
        torch._foreach_mul_(away, self.weight)
        torch._foreach_add_(self.mean, away)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the weights and their average; twice is as before."""
        kept = [p.detach().clone() for p in self.own]
        torch._foreach_copy_([p.detach() for p in self.own], self.mean)
        torch._foreach_copy_(self.mean, kept)


class Step:
    """One training step, as plain calls or, on CUDA, as a recording."""

    def __init__(self, task: Task, optimiser: Optimiser, average: Average) -> None:
        self.task, self.optimiser, self.average = task, optimiser, average
        self.figures: dict[str, Tensor] = {}
        self.graph: torch.cuda.CUDAGraph | None = None
        self.taken = 0

    def __call__(self) -> None:
        cuda = next(self.task.modules.parameters()).device.type == "cuda"
        if self.graph is not None:
            self.graph.replay()
        elif cuda and self.taken == _WARM_STEPS:
            self.record()
        elif cuda and self.taken < _WARM_STEPS:
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                self.plain()
            torch.cuda.current_stream().wait_stream(side)
        else:
            self.plain()
        self.taken += 1

    def plain(self) -> None:
        """Draw, differentiate, step."""
        self.task.modules.zero_grad(set_to_none=True)
        loss, self.figures = self.task.loss()
        torch.autograd.backward(loss)
        self.optimiser.step()
        self.average.follow()

    def record(self) -> None:
        """Record a step and replay it from now on; where that fails, go on with plain calls."""
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            self.task.modules.zero_grad(set_to_none=True)
            with torch.cuda.graph(graph):
                self.plain()
            torch.cuda.synchronize()
        except RuntimeError as error:
            print(f"the step is not recorded: {str(error)[:300]}", flush=True)
            self.task.modules.zero_grad(set_to_none=True)
            torch.cuda.synchronize()
            return
        self.graph = graph
        graph.replay()


def rate_factor(share: float, step: int, settings: Optimisation) -> float:
    """Warm up linearly over the first steps; decay linearly to zero where the share of the budget is 1."""
    return min(1.0, (step + 1) / settings.warmup) * max(0.0, 1.0 - share)


def save_state(path: Path, step: int, used: float, task: Task, optimiser: Optimiser, average: Average) -> None:
    """Write a state so that a kill leaves either the old file or the new one."""
    partial = path.with_suffix(".partial")
    state = {
        "step": step,
        "seconds": used,
        "modules": task.modules.state_dict(),
        "average": average.mean,
        "optimiser": optimiser.state_dict(),
    }
    torch.save(state, partial)
    partial.replace(path)


def train(task: Task, settings: Optimisation, options: LoopOptions) -> None:
    """Train until the seconds are used, from the saved state when there is one; leave the average in the modules."""
    options.folder.mkdir(parents=True, exist_ok=True)
    path = options.folder / "state.pt"
    average, optimiser = Average(task.modules), Optimiser(task.modules.named_parameters(), settings)
    step, before = resume(task, optimiser, average, path)
    take = Step(task, optimiser, average)
    started = time.monotonic()
    reported, saved, evaluated, counted = started - options.report_every, started, started, step
    used = before
    while used < options.seconds:
        optimiser.set_rates(rate_factor(used / options.seconds, step, settings))
        average.set_weight(step)
        take()
        step += 1
        on_card = optimiser.norm.is_cuda
        if on_card and step % _STEPS_AT_ONCE:
            continue
        if on_card:
            torch.cuda.synchronize()
        task.refresh()
        now = time.monotonic()
        used = before + now - started
        if now - reported >= options.report_every:
            figures = {name: float(value) for name, value in take.figures.items()}
            rate = (step - counted) * settings.batch / max(now - reported, 1e-3)
            log(
                options.folder,
                {"step": step, "seconds": used, "a_second": rate, "norm": float(optimiser.norm), **figures},
            )
            reported, counted = now, step
        if now - saved >= options.save_every:
            save_state(path, step, used, task, optimiser, average)
            if options.on_save is not None:
                average.swap()
                options.on_save()
                average.swap()
            saved = now
        if now - evaluated >= options.evaluate_every and used < options.seconds:
            log(options.folder, {"step": step, "seconds": used, **evaluation(task, average)})
            evaluated = now
    if step and before < options.seconds:
        save_state(path, step, used, task, optimiser, average)
        log(options.folder, {"step": step, "seconds": used, **evaluation(task, average)})
    average.swap()


def evaluation(task: Task, average: Average) -> dict[str, float]:
    """Return the figures of the averaged weights."""
    average.swap()
    try:
        return task.evaluate()
    except Exception as error:  # noqa: BLE001 - figures by the way are not worth a run
        print(f"no figures: {error!r}"[:500], flush=True)
        return {}
    finally:
        average.swap()


def resume(task: Task, optimiser: Optimiser, average: Average, path: Path) -> tuple[int, float]:
    """Load the saved state if there is one; return the step to go on from and the seconds that were used."""
    if not path.exists():
        return 0, 0.0
    state = torch.load(path, weights_only=True, map_location="cpu")
    task.modules.load_state_dict(state["modules"])
    optimiser.load_state_dict(state["optimiser"])
    for mine, theirs in zip(average.mean, state["average"], strict=True):
        mine.copy_(theirs)
    return int(state["step"]), float(state["seconds"])


def log(folder: Path, figures: dict[str, float]) -> None:
    """Append one line of figures to the run's log and print it."""
    line = json.dumps({k: round(v, 5) for k, v in figures.items()})
    with (folder / "log.jsonl").open("a") as file:
        file.write(line + "\n")
    print(folder.name, line, flush=True)
