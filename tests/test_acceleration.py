"""Velocities that are forecast in place of evaluations: which steps are evaluated, and where the path then ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from backend.errors import InvalidAcceleration
from backend.hunyuan3d.acceleration import evaluated_steps, integrate, lagrange_weights
from backend.hunyuan3d.networks.schedulers import (
    ConsistencyFlowMatchEulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    Scheduler,
)
from backend.hunyuan3d.options import GenerationOptions
from backend.hunyuan3d.pipeline import Hunyuan3DShapePipeline
from backend.limits import ACCELERATIONS, Acceleration
from tests.support.golden import load_golden

EVEN = FlowMatchEulerDiscreteScheduler()
BENT = FlowMatchEulerDiscreteScheduler(shift=3.0)
TURBO = ConsistencyFlowMatchEulerDiscreteScheduler(pcm_timesteps=100)


def options(steps: int, acceleration: Acceleration) -> GenerationOptions:
    return GenerationOptions(steps, 5.0, 16, acceleration)


def walked(
    scheduler: Scheduler, acceleration: Acceleration, count: int, field: Callable[[Tensor, float], Tensor], x: Tensor
) -> Tensor:
    """Integrate a velocity field(x, t) in `count` steps."""
    steps = scheduler.steps(count)
    evaluated = evaluated_steps(scheduler, options(count, acceleration))
    return integrate(x, steps, evaluated, lambda x, index: field(x, steps[index].t))


def euler(scheduler: Scheduler, count: int, field: Callable[[Tensor, float], Tensor], x: Tensor) -> Tensor:
    """Integrate in the plainest way."""
    for step in scheduler.steps(count):
        x = x + step.dt * field(x, step.t) if step.dt else x
    return x


def swirl(x: Tensor, t: float) -> Tensor:
    """Return a smooth field in which errors would grow: it depends on place and time."""
    return torch.sin(3 * t + x.roll(1, -1)) + 0.5 * x * (1 - t)


@pytest.mark.parametrize("count", [1, 2, 10, 50])
@pytest.mark.parametrize("scheduler", [EVEN, BENT, TURBO])
def test_without_acceleration_it_is_eulers_method_to_the_bit(scheduler: Scheduler, count: int) -> None:
    x = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(walked(scheduler, "none", count, swirl, x), euler(scheduler, count, swirl, x))


@pytest.mark.parametrize("count", [1, 2, 5, 9])
@pytest.mark.parametrize("acceleration", ["balanced", "fast"])
def test_few_steps_are_all_evaluated(acceleration: Acceleration, count: int) -> None:
    assert evaluated_steps(EVEN, options(count, acceleration)) == evaluated_steps(EVEN, options(count, "none"))


@pytest.mark.parametrize("count", [10, 20, 30, 50, 100])
def test_evaluations_are_spread_from_the_first_step_on_and_the_faster_makes_fewer(count: int) -> None:
    none, balanced, fast = (evaluated_steps(EVEN, options(count, name)) for name in ACCELERATIONS)
    assert none == list(range(count - 1))
    assert len(fast) < len(balanced) <= len(none)
    for chosen in (balanced, fast):
        gaps = [there - here for here, there in pairwise(chosen)]
        assert chosen[0] == 0
        assert set(chosen) <= set(none)
        assert max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize("acceleration", ["balanced", "fast"])
def test_a_step_distilled_denoiser_is_asked_at_every_step(acceleration: Acceleration) -> None:
    assert evaluated_steps(TURBO, options(50, acceleration)) == list(range(50))


@pytest.mark.parametrize("scheduler", [EVEN, BENT])
@pytest.mark.parametrize("acceleration", ["balanced", "fast"])
def test_a_velocity_that_changes_evenly_in_time_is_forecast_exactly(
    acceleration: Acceleration, scheduler: Scheduler
) -> None:
    x = torch.zeros(1, 1, 2)
    slope = torch.tensor([[[1.0, -2.0]]])

    def line(_: Tensor, t: float) -> Tensor:
        return 3 - slope * t

    # The first forecast knows one velocity only; the correction makes up for it.
    torch.testing.assert_close(walked(scheduler, acceleration, 50, line, x), euler(scheduler, 50, line, x))


@pytest.mark.parametrize("acceleration", ["balanced", "fast"])
def test_forecasts_end_nearer_to_all_steps_than_as_many_plain_steps_do(acceleration: Acceleration) -> None:
    x = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(1))
    target = euler(EVEN, 50, swirl, x)
    evaluations = len(evaluated_steps(EVEN, options(50, acceleration)))
    forecast = (walked(EVEN, acceleration, 50, swirl, x) - target).abs().max()
    plain = (euler(EVEN, evaluations + 1, swirl, x) - target).abs().max()
    assert forecast < plain / 5


def test_weights_of_a_polynomial_through_three_points() -> None:
    nodes = [0.0, 0.5, 2.0]
    weights = lagrange_weights(nodes, 3.0)
    assert sum(w * (1 - 2 * t + 3 * t * t) for w, t in zip(weights, nodes, strict=True)) == pytest.approx(22.0)
    assert lagrange_weights(nodes, 0.5) == [0.0, 1.0, 0.0]


def test_every_step_is_reported_in_order() -> None:
    told: list[tuple[int, int]] = []
    steps = EVEN.steps(20)
    x = torch.zeros(1, 1, 1)
    integrate(x, steps, [0, 7, 15], lambda x, _: x, lambda done, total: told.append((done, total)))
    assert told == [(done, 20) for done in range(1, 21)]


@pytest.mark.parametrize("acceleration", ["balanced", "fast"])
def test_an_image_that_overflows_leaves_its_batch_mates_as_they_are(acceleration: Acceleration) -> None:
    x = torch.randn(3, 4, 3, generator=torch.Generator().manual_seed(2))
    broken = x.clone()
    broken[1, 0, 0] = torch.inf
    found = walked(EVEN, acceleration, 50, swirl, broken)
    expected = walked(EVEN, acceleration, 50, swirl, x)
    assert torch.equal(found[[0, 2]], expected[[0, 2]])
    assert not found[1].isfinite().all()


# Through the pipeline.


@pytest.fixture(scope="module")
def tiny() -> Hunyuan3DShapePipeline:
    return load_golden("tiny-2.1").pipeline()


@pytest.fixture(scope="module")
def image() -> Path:
    return load_golden("tiny-2.1").folder / "image0.png"


@pytest.mark.parametrize(("acceleration", "made"), [("none", 29), ("balanced", 12), ("fast", 8)])
def test_metadata_says_how_many_evaluations_were_made(
    tiny: Hunyuan3DShapePipeline,
    image: Path,
    acceleration: Acceleration,
    made: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[Any] = []
    velocity = tiny.denoiser.velocity

    def counted(*given: Any) -> Tensor:
        calls.append(given)
        return velocity(*given)

    monkeypatch.setattr(tiny.denoiser, "velocity", counted)
    (result,) = tiny(image, 30, seeds=1, octree_resolution=16, acceleration=acceleration)
    facts = result.metadata
    assert (facts.acceleration, facts.evaluations, facts.evaluations_needed) == (acceleration, made, 29)
    assert len(calls) == made


@pytest.mark.parametrize("acceleration", ["balanced", "fast"])
def test_latents_are_the_same_alone_and_in_company(tiny: Hunyuan3DShapePipeline, acceleration: Acceleration) -> None:
    cond = load_golden("tiny-2.1").arrays["cond"]
    asked = replace(tiny.options(30), acceleration=acceleration)
    noise = tiny.initial_noise(len(cond), range(len(cond)))
    together = tiny.denoise(cond, noise, asked)
    for index in range(len(cond)):
        alone = tiny.denoise(cond[index : index + 1], noise[index : index + 1], asked)
        torch.testing.assert_close(alone[0], together[index], atol=1e-4, rtol=0)


def test_only_known_accelerations_are_taken(tiny: Hunyuan3DShapePipeline, image: Path) -> None:
    assert get_args(Acceleration) == ("none", "balanced", "fast")
    for wrong in ("", "Fast", "turbo", None, 1, True):
        with pytest.raises(InvalidAcceleration) as raised:
            tiny(image, 2, acceleration=wrong)  # type: ignore[arg-type]
        assert raised.value.details == {"value": repr(wrong)}
