"""The queue played forward: which worker takes which jobs together, and when each will have finished.

A calculation on values, which reads nothing. This module does not know where they come from, or what was said before.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from backend.jobs.models import ISOLATE_AFTER_DEATHS, Job, Line
from backend.jobs.progress import STAGES, StagePlan, stage_of
from backend.jobs.stage_times import StageTimes, Workload
from backend.jobs.worker_registry import WorkerState, WorkerStatus

WorkloadOf = Callable[[str, int], Workload | None]
"""Reads a request's JSON text, for a checkpoint that takes so many steps by itself; None when it cannot be read."""

_ON_DEVICE = STAGES[: STAGES.index("mesh")]


@dataclass(frozen=True)
class Forecast:
    """What is foreseen.

    positions : of the waiting jobs, from 1; remaining : seconds until a job has finished, of those known
    newest_before : of each waiting job the largest id of all that run before it or beside it; newest : of all there are
    """

    positions: Mapping[str, int]
    remaining: Mapping[str, float]
    newest_before: Mapping[str, str]
    newest: str

    def beyond(self, position: int) -> float | None:
        """Return the seconds for a position past those that were played, at the pace of the last of them."""
        last = max(self.positions, key=self.positions.__getitem__, default=None)
        if last is None or last not in self.remaining:
            return None
        return self.remaining[last] * position / self.positions[last]


@dataclass
class _Device:
    """A worker's device, and in how many seconds it is free."""

    times: StageTimes
    free_in: float


def foresee(line: Line, workers: Sequence[WorkerState], workload_of: WorkloadOf, now: datetime) -> Forecast:
    """Play the queue forward from now. workers : those that are alive."""
    known = {state.owner: times for state in workers if (times := StageTimes.from_json(state.stage_times))}
    remaining: dict[str, float] = {}
    busy: dict[str, float] = defaultdict(float)
    for owner, held in _by_owner(line.running).items():
        for index, job in enumerate(held):
            plan = _plan(job, known.get(owner), workload_of, len(held), index)
            left = run_left(job, now, plan)
            if left is not None:
                remaining[job.id] = left
                busy[owner] = max(busy[owner], _device_left(job, left, plan))
    devices = [
        _Device(known[state.owner], busy[state.owner])
        for state in workers
        if state.status is WorkerStatus.READY and state.owner in known
    ]
    ends, batches = _play(line.waiting, devices, workload_of)
    running = max((job.id for job in line.running), default="")
    newest_before, newest = {}, running
    for batch in batches:
        newest = max(newest, *batch)
        newest_before.update(dict.fromkeys(batch, newest))
    return Forecast(
        positions={job.id: index for index, job in enumerate(line.waiting, start=1)},
        remaining=remaining | ends,
        newest_before=newest_before,
        newest=max((job.id for job in line.waiting), default=running),
    )


def run_left(job: Job, now: datetime, plan: StagePlan | None = None) -> float | None:
    """Return the seconds that a running job still needs: what its worker reported, less the time since then.

    plan : for a run that has not reported yet
    """
    if job.eta_seconds is not None:
        return max(0.0, job.eta_seconds - (now - job.updated_at).total_seconds())
    if plan is None or not plan.measured or job.started_at is None:
        return None
    return max(0.0, plan.total - max(0.0, (now - job.started_at).total_seconds()))


def _device_left(job: Job, left: float, plan: StagePlan | None) -> float:
    stage = stage_of(job.current_step)
    if plan is None or (stage is not None and stage not in _ON_DEVICE):
        return 0.0
    return max(0.0, left - (plan.total - plan.device))


def _play(
    waiting: Sequence[Job], devices: Sequence[_Device], workload_of: WorkloadOf
) -> tuple[dict[str, float], list[list[str]]]:
    """Return the seconds until each job has finished, and the ids of those that run together, in order.

    The device that is free first takes whose turn it is.
    """
    ends: dict[str, float] = {}
    batches: list[list[str]] = []
    if not devices:
        return ends, batches
    mates: dict[str, deque[Job]] = defaultdict(deque)
    for job in waiting:
        if job.attempts < ISOLATE_AFTER_DEATHS:
            mates[job.batch_key].append(job)
    taken: set[str] = set()
    for first in waiting:
        if first.id in taken:
            continue
        device = min(devices, key=lambda each: each.free_in)
        batch = [first]
        alike = mates[first.batch_key]
        while not first.isolated and alike and len(batch) < device.times.batch_size:
            mate = alike.popleft()
            if mate.id not in taken and mate.id != first.id:
                batch.append(mate)
        taken.update(job.id for job in batch)
        batches.append([job.id for job in batch])
        plans = [_plan(job, device.times, workload_of, len(batch), index) for index, job in enumerate(batch)]
        for job, plan in zip(batch, plans, strict=True):
            if plan is not None and plan.measured:
                ends[job.id] = device.free_in + plan.total
        device.free_in += max((plan.device for plan in plans if plan is not None and plan.measured), default=0.0)
    return ends, batches


def _plan(job: Job, times: StageTimes | None, workload_of: WorkloadOf, together: int, index: int) -> StagePlan | None:
    work = None if times is None else workload_of(job.request, times.default_steps)
    return None if times is None or work is None else times.plan(work, together, index)


def _by_owner(running: Sequence[Job]) -> Mapping[str, list[Job]]:
    held: dict[str, list[Job]] = defaultdict(list)
    for job in running:
        held[job.lease_owner or ""].append(job)
    return held
