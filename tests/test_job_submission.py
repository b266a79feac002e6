"""How many jobs an agent and the queue may have: what can never pass, what must wait, and until when."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from backend.api.statuses import status_of
from backend.errors import InvalidImage, QueueFull, QuotaExceeded, TooManyActiveJobs, TooManyJobs
from backend.jobs.models import NewJob, Usage
from backend.jobs.store import JobStore
from tests.support.store_backends import ManualClock, new_jobs

DAY = 24 * 3600


@pytest.mark.parametrize(
    ("bounds", "named"),
    [
        ({"queue_limit": 2, "agent_limit": 9}, {"queue_limit": 2}),
        ({"queue_limit": 9, "agent_limit": 2}, {"max_active_jobs": 2}),
        ({"queue_limit": 9, "agent_limit": 9, "daily_limit": 2}, {"daily_jobs": 2}),
    ],
)
def test_what_can_never_pass_is_refused_for_good(
    store: JobStore, bounds: dict[str, Any], named: dict[str, int]
) -> None:
    with pytest.raises(TooManyJobs) as refused:
        store.submit("ann", new_jobs(3), **bounds)
    assert (status_of(refused.value), refused.value.code) == (400, "TOO_MANY_JOBS")
    assert refused.value.details == {"jobs": 3, **named}
    store.submit("ann", new_jobs(2), **bounds)


def test_what_may_pass_later_is_not_refused_for_good(store: JobStore) -> None:
    store.submit("ann", new_jobs(1), queue_limit=2, agent_limit=2)
    with pytest.raises(TooManyActiveJobs) as refused:
        store.submit("ann", new_jobs(2), queue_limit=9, agent_limit=2)
    assert refused.value.details == {"max_active_jobs": 2, "active_jobs": 1}
    with pytest.raises(QueueFull):
        store.submit("bob", new_jobs(2), queue_limit=2, agent_limit=9)


def submit_within_quota(store: JobStore, count: int, agent: str = "ann") -> None:
    store.submit(agent, new_jobs(count), queue_limit=99, agent_limit=99, daily_limit=3)


def test_a_quota_holds_for_any_24_hours(store: JobStore, clock: ManualClock) -> None:
    submit_within_quota(store, 1)
    clock.advance(3600)
    submit_within_quota(store, 2)
    clock.advance(3600)
    with pytest.raises(QuotaExceeded) as refused:
        submit_within_quota(store, 1)
    assert (status_of(refused.value), refused.value.code) == (429, "QUOTA_EXCEEDED")
    assert refused.value.details == {"daily_jobs": 3, "remaining": 0}
    assert refused.value.retry_after == DAY - 2 * 3600
    submit_within_quota(store, 3, "bob")
    clock.advance(refused.value.retry_after)
    submit_within_quota(store, 1)
    with pytest.raises(QuotaExceeded) as refused:
        submit_within_quota(store, 2)
    # Two of the three must be a day old: those that came an hour later.
    assert refused.value.retry_after == 3600
    clock.advance(refused.value.retry_after)
    submit_within_quota(store, 2)


def test_cancelled_jobs_count_and_images_that_were_refused_do_not(store: JobStore) -> None:
    submit_within_quota(store, 2)
    (page,) = (store.list_jobs("ann", None, 9),)
    store.cancel(page.jobs[0].id, "ann")
    refused = NewJob("{}", "key", "", refusal=InvalidImage())
    store.submit("ann", [*new_jobs(1), refused], queue_limit=99, agent_limit=99, daily_limit=3)
    with pytest.raises(QuotaExceeded):
        submit_within_quota(store, 1)


def test_jobs_that_have_expired_since_count_until_they_are_a_day_old(store: JobStore, clock: ManualClock) -> None:
    refused = NewJob("{}", "key", "", refusal=InvalidImage())
    batch = store.submit("ann", [*new_jobs(2), refused], queue_limit=99, agent_limit=99, daily_limit=3)
    for job_id in batch.job_ids:
        store.cancel(job_id, "ann")
    clock.advance(60)
    assert store.remove(store.expired(clock.now)) == 3
    assert store.usage("ann") == Usage(active=0, daily=2, oldest_ends_in=DAY - 60)
    with pytest.raises(QuotaExceeded) as refused_jobs:
        submit_within_quota(store, 2)
    assert refused_jobs.value.retry_after == DAY - 60
    submit_within_quota(store, 1)
    clock.advance(DAY - 60)
    assert store.usage("ann").daily == 1
    submit_within_quota(store, 2)


def test_usage_is_what_the_bounds_count(store: JobStore, clock: ManualClock) -> None:
    assert store.usage("ann") == Usage(active=0, daily=0, oldest_ends_in=0)
    submit_within_quota(store, 2)
    clock.advance(60)
    submit_within_quota(store, 1)
    store.cancel(store.list_jobs("ann", None, 1).jobs[0].id, "ann")
    assert store.usage("ann") == Usage(active=2, daily=3, oldest_ends_in=DAY - 60)
    clock.advance(timedelta(days=1).total_seconds())
    assert store.usage("ann") == Usage(active=2, daily=0, oldest_ends_in=0)
