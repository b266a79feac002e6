"""The sampling tables against values worked out by hand."""

from __future__ import annotations

import pytest
import torch

from backend.errors import InvalidSteps
from backend.hunyuan3d.networks.schedulers import (
    ConsistencyFlowMatchEulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    Scheduler,
)

SCHEDULERS = [FlowMatchEulerDiscreteScheduler(), ConsistencyFlowMatchEulerDiscreteScheduler(pcm_timesteps=100)]


def test_flow_matching_times_are_even_and_end_twice_at_one() -> None:
    assert FlowMatchEulerDiscreteScheduler().sigmas(5).tolist() == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]


def test_flow_matching_shift_bends_the_times() -> None:
    sigmas = FlowMatchEulerDiscreteScheduler(shift=3.0).sigmas(3)
    assert sigmas.tolist() == pytest.approx([0.0, 1.5 / 2.0, 1.0, 1.0])


def test_flow_matching_last_step_has_no_length() -> None:
    steps = FlowMatchEulerDiscreteScheduler().steps(7)
    assert [step.dt == 0 for step in steps] == [False] * 6 + [True]


def test_flow_matching_with_one_step_goes_all_the_way() -> None:
    (step,) = FlowMatchEulerDiscreteScheduler().steps(1)
    assert (step.t, step.dt) == (0.0, 1.0)


def test_consistency_times_are_phase_starts() -> None:
    sigmas = ConsistencyFlowMatchEulerDiscreteScheduler(pcm_timesteps=100).sigmas(5)
    assert sigmas.tolist() == pytest.approx([0.0, 199 / 999, 399 / 999, 599 / 999, 799 / 999, 1.0])


def test_consistency_with_more_steps_than_phases_repeats_phases() -> None:
    steps = ConsistencyFlowMatchEulerDiscreteScheduler(pcm_timesteps=2).steps(4)
    assert [step.dt > 0 for step in steps] == [False, True, False, True]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("count", [1, 2, 3, 10, 49, 50, 120])
def test_steps_lead_from_zero_to_one(scheduler: Scheduler, count: int) -> None:
    steps = scheduler.steps(count)
    assert len(steps) == count
    assert steps[0].t == 0
    assert min(step.dt for step in steps) >= 0
    assert sum(step.dt for step in steps) == pytest.approx(1, abs=1e-6)
    assert scheduler.sigmas(count).dtype == torch.float32


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("count", [0, -1, 2.5, True, "5", None])
def test_no_other_number_of_steps_is_taken(scheduler: Scheduler, count: object) -> None:
    with pytest.raises(InvalidSteps):
        scheduler.sigmas(count)  # type: ignore[arg-type]


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="shift"):
        FlowMatchEulerDiscreteScheduler(shift=0)
    with pytest.raises(ValueError, match="pcm_timesteps"):
        ConsistencyFlowMatchEulerDiscreteScheduler(pcm_timesteps=1001)
