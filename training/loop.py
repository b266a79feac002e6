"""The loop both networks are trained by: optimisers, learning rates, checkpoints that a run resumes from.

Knows nothing of what is trained: a task gives the modules and a loss for each step.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from training.recipe import Optimisation


class Task(Protocol):
    """What a training run is about."""

    modules: nn.ModuleDict

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of one step, drawn from the step's own seed, and figures for the log."""

    def evaluate(self) -> dict[str, float]:
        """Return figures on held-out data."""


@dataclass(frozen=True)
class LoopOptions:
    """Where a run keeps its state and how often it reports. log_every, save_every, evaluate_every : steps."""

    folder: Path
    log_every: int = 50
    save_every: int = 500
    evaluate_every: int = 1000
    progress: bool = True


def build_optimisers(modules: nn.Module, settings: Optimisation) -> list[torch.optim.Optimizer]:
    """Use Muon for matrices inside the networks; AdamW for norms, biases, tables and the first and last projections."""
    hidden: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in modules.named_parameters():
        edge = any(part in name for part in ("embed", "_proj.weight", "post_kl", "pre_kl", "final", "head", "pos_emb"))
        inner = ("out_proj" in name or "c_proj" in name or ".attention." in name) and "input" not in name
        matrix = parameter.dim() == 2 and (inner or not edge)
        (hidden if matrix else rest).append(parameter)
    muon = torch.optim.Muon(hidden, lr=settings.muon_lr, weight_decay=settings.weight_decay)
    adam = torch.optim.AdamW(rest, lr=settings.adam_lr, betas=(0.9, 0.98), weight_decay=0.0)
    return [muon, adam]


def rate_factor(step: int, settings: Optimisation) -> float:
    """Warm up linearly, then decay linearly to zero at the last step."""
    warm = min(1.0, (step + 1) / settings.warmup)
    return warm * max(0.0, 1.0 - step / settings.steps)


def save_state(path: Path, step: int, modules: nn.ModuleDict, optimisers: list[torch.optim.Optimizer]) -> None:
    """Write a state so that a kill leaves either the old file or the new one."""
    partial = path.with_suffix(".partial")
    state = {"step": step, "modules": modules.state_dict(), "optimisers": [o.state_dict() for o in optimisers]}
    torch.save(state, partial)
    partial.replace(path)


def train(task: Task, settings: Optimisation, options: LoopOptions) -> None:
    """Train to the last step, from the saved state when there is one.

    A step whose gradient is not finite changes nothing.
    """
    options.folder.mkdir(parents=True, exist_ok=True)
    optimisers = build_optimisers(task.modules, settings)
    first = resume(task.modules, optimisers, options.folder / "state.pt")
    steps = range(first, settings.steps)
    started = time.monotonic()
    for step in tqdm(
        steps, initial=first, total=settings.steps, disable=not options.progress, desc=options.folder.name
    ):
        set_rates(optimisers, (settings.muon_lr, settings.adam_lr), rate_factor(step, settings))
        loss, figures = task.loss(step)
        torch.autograd.backward(loss)
        norm = nn.utils.clip_grad_norm_(task.modules.parameters(), settings.clip)
        if torch.isfinite(norm):
            for optimiser in optimisers:
                optimiser.step()
        task.modules.zero_grad(set_to_none=True)
        if step % options.log_every == 0:
            log(options.folder, {"step": step, "seconds": time.monotonic() - started, "norm": float(norm), **figures})
        done = step + 1
        if done % options.save_every == 0 or done == settings.steps:
            save_state(options.folder / "state.pt", done, task.modules, optimisers)
        if done % options.evaluate_every == 0 or done == settings.steps:
            log(options.folder, {"step": done, "seconds": time.monotonic() - started, **task.evaluate()})


def set_rates(optimisers: list[torch.optim.Optimizer], peaks: tuple[float, float], factor: float) -> None:
    """Give each optimiser its peak rate times the schedule's factor."""
    for optimiser, peak in zip(optimisers, peaks, strict=True):
        for group in optimiser.param_groups:
            group["lr"] = peak * factor


def resume(modules: nn.ModuleDict, optimisers: list[torch.optim.Optimizer], path: Path) -> int:
    """Load the saved state if there is one and return the step to go on from."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    modules.load_state_dict(state["modules"])
    for optimiser, saved in zip(optimisers, state["optimisers"], strict=True):
        optimiser.load_state_dict(saved)
    return int(state["step"])


def log(folder: Path, figures: dict[str, float]) -> None:
    """Append one line of figures to the run's log."""
    with (folder / "log.jsonl").open("a") as file:
        file.write(json.dumps({k: round(v, 6) for k, v in figures.items()}) + "\n")
