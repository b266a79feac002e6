"""When callers are to ask again: whoever does as it is told is never refused."""

from __future__ import annotations

import heapq
import random
from collections import deque

import pytest

from backend.api.pacing import poll_after
from backend.auth.rate_limits import RateState

FULL = RateState(limit=100, remaining=90, reset_seconds=60)


@pytest.mark.parametrize(("eta", "seconds"), [(None, 2), (0.0, 2), (1.0, 2), (8.0, 4), (9.0, 5), (60.0, 20), (1e6, 20)])
def test_it_is_half_of_what_is_left_within_bounds(eta: float | None, seconds: int) -> None:
    assert poll_after(eta, 2, FULL) == seconds


@pytest.mark.parametrize(("eta", "seconds"), [(None, 1), (0.4, 1), (7.0, 4), (600.0, 20)])
def test_without_a_limit_only_the_job_decides(eta: float | None, seconds: int) -> None:
    assert poll_after(eta, 50, None) == seconds


@pytest.mark.parametrize(
    ("jobs", "limit", "seconds"), [(8, 100, 8), (20, 100, 20), (1, 100, 1), (8, 30, 27), (0, 100, 1)]
)
def test_more_jobs_are_asked_for_less_often(jobs: int, limit: int, seconds: int) -> None:
    assert poll_after(None, jobs, RateState(limit, limit, 60)) == seconds


def test_when_little_is_left_of_the_minute_it_is_waited_for() -> None:
    assert poll_after(None, 4, RateState(100, 8, 10)) == 4
    assert poll_after(None, 4, RateState(100, 2, 10)) == 14
    assert poll_after(None, 4, RateState(100, 0, 60)) == 60


class Minute:
    """A moving window of a minute, as the limits' storage has it."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.counted: deque[float] = deque()
        self.refused = 0

    def count(self, now: float) -> RateState:
        while self.counted and self.counted[0] <= now - 60:
            self.counted.popleft()
        if len(self.counted) >= self.limit:
            self.refused += 1
        else:
            self.counted.append(now)
        return RateState(self.limit, self.limit - len(self.counted), int(self.counted[0] + 60 - now) + 1)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("jobs", "limit"), [(1, 100), (3, 100), (8, 100), (20, 100), (40, 200), (4, 20), (100, 1000)])
def test_an_agent_that_follows_is_never_refused(jobs: int, limit: int, seed: int) -> None:
    """Each of its jobs is sent by itself, asked for as told until it is done, and fetched at once."""
    chance = random.Random(seed)
    minute = Minute(limit)
    ends = {job: chance.uniform(1, 150) for job in range(jobs)}
    calls: list[tuple[float, int]] = []
    for job in ends:
        now = 0.05 * job
        heapq.heappush(calls, (now + poll_after(None, job + 1, minute.count(now)), job))
    unfinished = set(ends)
    while calls:
        now, job = heapq.heappop(calls)
        state = minute.count(now)
        if ends[job] <= now:
            unfinished.discard(job)
            minute.count(now + 0.01)
        else:
            waiting = sum(end > now for end in ends.values())
            eta = (ends[job] - now) * chance.uniform(0.5, 1.5)
            heapq.heappush(calls, (now + poll_after(eta, waiting, state), job))
    assert unfinished == set()
    assert minute.refused == 0
