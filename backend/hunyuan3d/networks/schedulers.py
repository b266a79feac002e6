"""The two sampling schedules: at which times the denoiser is asked, and how far each answer carries.

Formulas: docs/model.md, section 6. Noise is at time 0, data at time 1, and the denoiser's velocity points from noise to
data. Knows nothing of networks, guidance or seeds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from backend.hunyuan3d.options import check_num_inference_steps


@dataclass(frozen=True)
class Step:
    """One Euler step: ask at time `t`, walk `dt`. A step of length zero needs no answer."""

    t: float
    dt: float


class Scheduler(ABC):
    """A table of times for any number of steps.

    forecastable : whether velocities change smoothly from step to step, so that some can be told from others.
    """

    forecastable: ClassVar[bool] = True

    @abstractmethod
    def times(self, num_inference_steps: int) -> Tensor:
        """Return the n times at which the denoiser is asked, (n,) float32 in [0, 1], never falling."""

    def sigmas(self, num_inference_steps: int) -> Tensor:
        """Return the times with the final 1 behind them, (n + 1,) float32. Raises InvalidSteps."""
        return self._sigmas(check_num_inference_steps(num_inference_steps))

    def steps(self, num_inference_steps: int) -> list[Step]:
        """Return the n Euler steps from noise to data, for a number that was checked when the options were made."""
        sigmas = self._sigmas(num_inference_steps)
        return [Step(t, dt) for t, dt in zip(sigmas[:-1].tolist(), sigmas.diff().tolist(), strict=True)]

    def _sigmas(self, num_inference_steps: int) -> Tensor:
        return torch.cat([self.times(num_inference_steps), torch.ones(1)])


@dataclass(frozen=True)
class FlowMatchEulerDiscreteScheduler(Scheduler):
    """Evenly spaced times from 0 to 1; `shift` s bends them to s t / (1 + (s - 1) t)."""

    num_train_timesteps: int = 1000
    shift: float = 1.0

    def __post_init__(self) -> None:
        if self.num_train_timesteps < 1 or not self.shift > 0:
            raise ValueError("scheduler: num_train_timesteps must be at least 1 and shift above 0")

    def times(self, num_inference_steps: int) -> Tensor:
        """linspace(0, 1, n), shifted."""
        t = torch.linspace(0, 1, num_inference_steps, dtype=torch.float64)
        return (self.shift * t / (1 + (self.shift - 1) * t)).float()


@dataclass(frozen=True)
class ConsistencyFlowMatchEulerDiscreteScheduler(Scheduler):
    """Times of the `pcm_timesteps` phases that a step-distilled ('turbo') denoiser was trained on."""

    # A step-distilled denoiser points to the end of its phase, not along one smooth path.
    forecastable: ClassVar[bool] = False
    num_train_timesteps: int = 1000
    pcm_timesteps: int = 50

    def __post_init__(self) -> None:
        if not 1 <= self.pcm_timesteps <= self.num_train_timesteps:
            raise ValueError("scheduler: pcm_timesteps must be from 1 to num_train_timesteps")

    def times(self, num_inference_steps: int) -> Tensor:
        """n of the P phase starts, evenly chosen."""
        phases = torch.arange(self.pcm_timesteps) * (self.num_train_timesteps // self.pcm_timesteps) - 1
        table = torch.linspace(0, 1, self.num_train_timesteps, dtype=torch.float64)[phases.clamp(min=0)]
        chosen = torch.arange(num_inference_steps) * self.pcm_timesteps // num_inference_steps
        return table[chosen].float()
