"""How far a run is and how long it still takes, from what its stages are expected to take.

This module does not know who runs a stage, where the expectation comes from, or where the numbers are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

STAGES = ("preprocess", "encode", "sample", "decode", "mesh", "finish", "export")
"""The stages of a run in their order; the names are those of jobs.metadata.StageSecondsOut."""

_UNMEASURED = (1.0, 1.0, 10.0, 5.0, 3.0, 3.0, 0.5)
_FINER = 3.0
_NEARLY = 0.95
"""As far as time alone takes a run towards what it will report next."""


@dataclass(frozen=True)
class StagePlan:
    """How long each of STAGES is expected to take, seconds; measured : whether that is more than proportions."""

    seconds: tuple[float, ...]
    measured: bool

    def __post_init__(self) -> None:
        if len(self.seconds) != len(STAGES) or min(self.seconds) < 0 or sum(self.seconds) <= 0:
            raise ValueError("a plan has one time of at least 0 for each stage, and some above 0")

    @classmethod
    def unmeasured(cls) -> StagePlan:
        """Return the plan that holds until something was measured."""
        return cls(_UNMEASURED, measured=False)

    @property
    def total(self) -> float:
        """All stages together, seconds."""
        return sum(self.seconds)

    @property
    def device(self) -> float:
        """The stages on the device, with the preparing of images before, seconds."""
        return sum(self.seconds[: STAGES.index("mesh")])

    def share(self, done: int, total: int, stage: str, elapsed: float) -> float:
        """Return the part of a stage, 0–1, that is done so many seconds after `done` of `total` were reported.

        Between two reports it grows with time, as planned, and nearly reaches what the next one will say.
        """
        if done >= total:
            return 1.0
        planned = self.seconds[STAGES.index(stage)]
        reached, following = _part(stage, max(0, done), total), _part(stage, max(0, done) + 1, total)
        grown = elapsed / planned if planned > 0 else 1.0
        return reached + min(grown, _NEARLY * (following - reached))

    def progress(self, stage: str, share: float) -> int:
        """Return per cent of the run, 0–99, when this part of a stage is done; 100 is for finished jobs."""
        return min(99, int(100 * self._spent(stage, share) / self.total))

    def remaining(self, stage: str, share: float) -> float | None:
        """Return the seconds until the run ends; None while nothing was measured."""
        return max(0.0, self.total - self._spent(stage, share)) if self.measured else None

    def _spent(self, stage: str, share: float) -> float:
        index = STAGES.index(stage)
        return sum(self.seconds[:index]) + min(1.0, max(0.0, share)) * self.seconds[index]


@dataclass(frozen=True)
class Reached:
    """How far a run was when it last reported: `done` of `total` of a stage, at a moment of a monotonic clock."""

    plan: StagePlan
    stage: str
    done: int
    total: int
    at: float

    @classmethod
    def now(cls, plan: StagePlan, stage: str, done: int, total: int, at: float) -> Reached:
        """Return a report as it is taken in: a stage that is done is the beginning of the next one."""
        if done >= total and stage != STAGES[-1]:
            return cls(plan, STAGES[STAGES.index(stage) + 1], 0, 1, at)
        return cls(plan, stage, done, max(1, total), at)

    @property
    def step(self) -> str:
        """The step as its agent reads it."""
        return f"{self.stage} {self.done}/{self.total}" if self.total > 1 else self.stage

    def progress(self, now: float) -> int:
        """Return per cent of the run by this moment."""
        return self.plan.progress(self.stage, self._share(now))

    def remaining(self, now: float) -> float | None:
        """Return the seconds until the run ends by this moment; None while nothing was measured."""
        return self.plan.remaining(self.stage, self._share(now))

    def _share(self, now: float) -> float:
        return self.plan.share(self.done, self.total, self.stage, max(0.0, now - self.at))


def _part(stage: str, done: int, total: int) -> float:
    """Return the part of a stage's time that `done` of `total` take."""
    if stage != "decode":
        return done / total
    # Its units are levels, each about so many times as fine a surface as the one before.
    return (_FINER**done - 1) / (_FINER**total - 1)


def stage_of(step: str) -> str | None:
    """Return the stage of a step as Reached.step writes it; None where a run has not begun."""
    stage = step.partition(" ")[0]
    return stage if stage in STAGES else None


def batch_eta(etas: Sequence[float | None]) -> float | None:
    """Return the seconds until the last of several unfinished jobs has finished; None when one of them is unknown."""
    known = [eta for eta in etas if eta is not None]
    return max(known) if known and len(known) == len(etas) else None
