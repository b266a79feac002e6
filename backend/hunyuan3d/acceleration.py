"""From noise to latents with fewer evaluations of the denoiser, and without training: the rest is forecast.

A denoiser's velocity changes smoothly along the path, so it is asked at some steps only. To the next of these the path
goes on along a polynomial through the last velocities (TaylorSeer, arXiv:2503.06923, forecasts from differences in the
same way); once the velocity there is known, the way since the last evaluation is walked again, along a polynomial
through both its ends (the corrector of UniPC, arXiv:2302.04867), at no further evaluation. Measured in
benchmarks/results/acceleration.md.

Which steps are evaluated depends on the schedule alone, never on an image, so that an image's mesh does not depend on
its batch mates. This module knows times and velocities; it does not know networks, guidance or images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

from torch import Tensor

from backend.hunyuan3d.networks.schedulers import Scheduler, Step
from backend.hunyuan3d.options import GenerationOptions
from backend.limits import Acceleration

Velocity = Callable[[Tensor, int], Tensor]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Saving:
    """How many of the evaluations that matter are made: a share of them, but at least so many."""

    share: float
    least: int


SAVINGS: dict[Acceleration, Saving] = {"balanced": Saving(1 / 3, 12), "fast": Saving(1 / 5, 8)}
FORECAST_DEGREE = 1
CORRECTION_DEGREE = 3


def needed_steps(scheduler: Scheduler, num_inference_steps: int) -> list[int]:
    """Return the indices of the steps of some length, rising: those at which the denoiser is asked by itself."""
    return [index for index, step in enumerate(scheduler.steps(num_inference_steps)) if step.dt]


def evaluated_steps(scheduler: Scheduler, options: GenerationOptions) -> list[int]:
    """Return the indices of the steps at which the denoiser is asked, rising.

    Without acceleration these are all steps of some length.
    """
    useful = needed_steps(scheduler, options.num_inference_steps)
    saving = SAVINGS.get(options.acceleration)
    if saving is None or not scheduler.forecastable:
        return useful
    count = max(saving.least, round(saving.share * len(useful)))
    return useful if count >= len(useful) else spread(useful, count)


def spread(useful: Sequence[int], count: int) -> list[int]:
    """Choose `count` of more steps, evenly, the first among them.

    What lies behind the last one is half as long as the ways between, since no later evaluation corrects it.
    """
    return [useful[round(k * len(useful) / (count - 0.5))] for k in range(count)]


def integrate(
    noise: Tensor,
    steps: Sequence[Step],
    evaluated: Sequence[int],
    velocity: Velocity,
    on_step: Progress | None = None,
) -> Tensor:
    """Walk all Euler steps from noise to latents, asking for the velocity at the evaluated ones.

    noise : (B, N, E) float32. velocity(x, index) : (B, N, E) float32 at x, where step `index` begins.
    Returns latents (B, N, E). With every step evaluated this is Euler's method, to the bit.
    """
    x = start = noise
    known: list[tuple[int, Tensor]] = []
    _report(on_step, 0, evaluated[0], len(steps))
    for here, there in pairwise([*evaluated, len(steps)]):
        known = [*known[-CORRECTION_DEGREE:], (here, velocity(x, here))]
        if len(known) > 1 and here - known[-2][0] > 1:
            x = start + _displacement(steps[known[-2][0] : here], steps, known)
        start = x
        x = start + _displacement(steps[here:there], steps, known[-1 - FORECAST_DEGREE :])
        _report(on_step, here, there, len(steps))
    return x


def lagrange_weights(nodes: Sequence[float], t: float) -> list[float]:
    """Return the weight of each node's value in the polynomial through all of them, at t."""
    return [prod((t - other) / (node - other) for other in nodes if other != node) for node in nodes]


def _displacement(walked: Sequence[Step], steps: Sequence[Step], known: Sequence[tuple[int, Tensor]]) -> Tensor:
    """Sum dt v over the steps walked, v being the polynomial through the known velocities; (B, N, E).

    known : (index of a step, its velocity), at least one. A weight of zero brings nothing in, not even a NaN.
    """
    nodes = [steps[index].t for index, _ in known]
    weights = [0.0] * len(nodes)
    for step in walked:
        if step.dt:
            weights = [w + step.dt * share for w, share in zip(weights, lagrange_weights(nodes, step.t), strict=True)]
    terms = [weight * v for weight, (_, v) in zip(weights, known, strict=True) if weight]
    return sum(terms[1:], start=terms[0])


def _report(on_step: Progress | None, after: int, up_to: int, total: int) -> None:
    if on_step is not None:
        for done in range(after + 1, up_to + 1):
            on_step(done, total)
