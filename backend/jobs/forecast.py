"""The queue played forward: which worker takes which jobs together, and when each will have finished.

A calculation on values, which reads nothing. This module does not know where they come from, or what was said before.
"""

from __future__ import annotations

from bisect import insort
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from heapq import heapreplace, nsmallest

from backend.jobs.models import ISOLATE_AFTER_DEATHS, Job, Line
from backend.jobs.progress import STAGES, StagePlan, stage_of
from backend.jobs.stage_times import MESHES_BEHIND, StageTimes, Workload
from backend.jobs.worker_registry import WorkerState, WorkerStatus

WorkloadOf = Callable[[str, int], Workload | None]
"""Reads a request's JSON text, for a checkpoint that takes so many steps by itself; None when it cannot be read."""

_NEVER = float("-inf")
_LATER = 0.001
"""Seconds after the first of a batch that its mates are leased: whoever was first has its next turn before theirs."""
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


class _Device:
    """A worker's device, and the threads that make meshes of what it found."""

    def __init__(self, times: StageTimes, free_in: float, running: Iterable[float]) -> None:
        """Begin with what runs. free_in : seconds; running : in how many seconds each job there will have finished."""
        self.times = times
        self.free_in = free_in
        self._unfinished = sorted(running)
        # In how many seconds each thread is free.
        self._threads = [0.0] * max(1, times.threads)
        for end in self._unfinished:
            heapreplace(self._threads, end)

    def run(self, plans: Sequence[StagePlan | None]) -> list[float | None]:
        """Run some together, once it is free; return in how many seconds each has finished. None : nobody knows."""
        known = [plan if plan is not None and plan.measured else None for plan in plans]
        self.free_in += max((plan.device for plan in known if plan is not None), default=0.0)
        return [None if plan is None else self._make_mesh(plan.total - plan.device) for plan in known]

    def _make_mesh(self, seconds: float) -> float:
        """Hand a shape over as soon as it is taken, and then go on; return in how many seconds its files are there."""
        most = MESHES_BEHIND * max(1, self.times.batch_size)
        if len(self._unfinished) >= most:
            self.free_in = max(self.free_in, self._unfinished[-most])
        end = max(self.free_in, self._threads[0]) + seconds
        heapreplace(self._threads, end)
        insort(self._unfinished, end)
        return end


def foresee(line: Line, workers: Sequence[WorkerState], workload_of: WorkloadOf, now: datetime) -> Forecast:
    """Play the queue forward from now. workers : those that are alive."""
    known = {state.owner: times for state in workers if (times := StageTimes.from_json(state.stage_times))}
    remaining: dict[str, float] = {}
    busy: dict[str, float] = defaultdict(float)
    held_by: dict[str, list[float]] = defaultdict(list)
    for owner, held in _by_owner(line.running).items():
        # Of two batches only one is on the device; of the other meshes are made.
        on_device = [job for job in held if _is_on_device(job)]
        for job in held:
            index = on_device.index(job) if job in on_device else 0
            plan = _plan(job, known.get(owner), workload_of, len(on_device) or 1, index)
            left = run_left(job, now, plan)
            if left is not None:
                remaining[job.id] = left
                busy[owner] = max(busy[owner], _device_left(job, left, plan))
                held_by[owner].append(left)
    devices = [
        _Device(known[state.owner], busy[state.owner], held_by[state.owner])
        for state in workers
        if state.status is WorkerStatus.READY and state.owner in known
    ]
    ends, batches = _play(line, devices, workload_of, now)
    running = max((job.id for job in line.running), default="")
    newest_before, newest = {}, running
    for batch in batches:
        newest = max(newest, *batch)
        newest_before.update(dict.fromkeys(batch, newest))
    return Forecast(
        positions={job.id: index for index, job in enumerate(line.waiting, start=1)},
        remaining=remaining | ends,
        newest_before=newest_before,
        newest=max((running, *(job.id for job in line.waiting))),
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
    return max(0.0, left - (plan.total - plan.device)) if plan is not None and _is_on_device(job) else 0.0


def _is_on_device(job: Job) -> bool:
    """Return whether a running job waits for the device or is on it."""
    stage = stage_of(job.current_step)
    return stage is None or stage in _ON_DEVICE


class _Waiting:
    """Those who wait, taken as jobs/leases.py takes them: agents in turn, each with its oldest job."""

    def __init__(self, line: Line) -> None:
        self._turns = {agent: _NEVER if at is None else at.timestamp() for agent, at in line.turns.items()}
        self._by_agent: dict[str, list[Job]] = defaultdict(list)
        for job in line.waiting:
            self._by_agent[job.agent_id].append(job)

    def take(self, most: int, at: float) -> list[Job]:
        """Take whose turn it is and, up to `most` together, who may run with it, at a time; [] when all are gone."""
        if not self._by_agent:
            return []
        first = min((held[0] for held in self._by_agent.values()), key=lambda job: (self._turn(job), job.id))
        mates = [] if first.isolated else nsmallest(most - 1, self._mates_of(first))
        taken = [first, *(job for *_, job in mates)]
        for job in taken:
            held = self._by_agent[job.agent_id]
            held.remove(job)
            self._turns[job.agent_id] = at if job is first else at + _LATER
            if not held:
                del self._by_agent[job.agent_id]
        return taken

    def _mates_of(self, first: Job) -> Iterator[tuple[int, float, str, Job]]:
        for held in self._by_agent.values():
            alike = (job for job in held if job.batch_key == first.batch_key)
            for round, job in enumerate(alike):
                if job.id != first.id and job.attempts < ISOLATE_AFTER_DEATHS:
                    yield round, self._turn(job), job.id, job

    def _turn(self, job: Job) -> float:
        return self._turns.get(job.agent_id, _NEVER)


def _play(
    line: Line, devices: Sequence[_Device], workload_of: WorkloadOf, now: datetime
) -> tuple[dict[str, float], list[list[str]]]:
    """Return the seconds until each job has finished, and the ids of those that run together, in order.

    The device that is free first takes whose turn it is.
    """
    ends: dict[str, float] = {}
    batches: list[list[str]] = []
    waiting = _Waiting(line)
    while devices:
        device = min(devices, key=lambda each: each.free_in)
        batch = waiting.take(device.times.batch_size, now.timestamp() + device.free_in)
        if not batch:
            break
        batches.append([job.id for job in batch])
        # Who waits for a thread is found by playing: each is planned as if it were the first to get one.
        plans = [_plan(job, device.times, workload_of, len(batch), 0) for job in batch]
        found = zip(batch, device.run(plans), strict=True)
        ends.update((job.id, end) for job, end in found if end is not None)
    return ends, batches


def _plan(job: Job, times: StageTimes | None, workload_of: WorkloadOf, together: int, index: int) -> StagePlan | None:
    work = None if times is None else workload_of(job.request, times.default_steps)
    return None if times is None or work is None else times.plan(work, together, index)


def _by_owner(running: Sequence[Job]) -> Mapping[str, list[Job]]:
    held: dict[str, list[Job]] = defaultdict(list)
    for job in running:
        held[job.lease_owner or ""].append(job)
    return held
