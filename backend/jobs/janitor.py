"""Keeps jobs, files and short-lived rows from piling up: what is over is removed, what was forgotten goes on.

Any number of janitors may work at once, and one may die at any point: what it left undone is due again at the next
sweep. This module does not know how jobs are run or who may read them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from functools import reduce
from itertools import islice
from typing import Protocol

from backend.errors import ArtifactNotFound, ServiceError
from backend.jobs.models import Clock, Job, JobFile
from backend.jobs.store import JobStore

_GRACE = timedelta(hours=1)
"""A file may be this much older than any job is kept before it counts as nobody's."""

_BETWEEN_SEARCHES = timedelta(minutes=10)
"""Listing all files is dear in a bucket, and orphans are rare."""

_logger = logging.getLogger(__name__)


class OldFiles(Protocol):
    """What a janitor needs of a file store: ArtifactStore and FileStore both have it."""

    def delete(self, name: str) -> None:
        """Remove a file; one that is gone is no error."""
        ...

    def older_than(self, time: datetime) -> Iterator[str]:
        """Return the names of files written before a time, half-written ones too."""
        ...


class Prunable(Protocol):
    """A store of things that are kept for a time, such as SqlNonceStore."""

    def prune(self, now: datetime, limit: int) -> int:
        """Remove up to limit things whose time is over; return how many it were."""
        ...


@dataclass(frozen=True)
class Swept:
    """What one sweep did.

    requeued : dead runs whose jobs wait again; died : dead runs that ended their job; overdue : jobs that waited too
    long; expired : finished jobs removed with their files; deleted : files removed whose agent had asked for that;
    orphans : files removed that belonged to no job; forgotten : nonces, idempotency keys and names of long expired jobs
    that were removed; more : some work was left for the next sweep; failures : what could not be done
    """

    requeued: int = 0
    died: int = 0
    overdue: int = 0
    expired: int = 0
    deleted: int = 0
    orphans: int = 0
    forgotten: int = 0
    more: bool = False
    failures: tuple[ServiceError, ...] = ()

    def __add__(self, other: Swept) -> Swept:
        """Return what both sweeps did together."""
        sums = {field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(self)}
        return Swept(**{**sums, "more": self.more or other.more})


class Janitor:
    """Sweep one job table and its two file stores; one thread at a time."""

    _reported: frozenset[str] = frozenset()

    def __init__(
        self,
        store: JobStore,
        artifacts: OldFiles,
        images: OldFiles,
        clock: Clock,
        ttl: timedelta,
        *,
        prunables: Sequence[Prunable] = (),
        limit: int = 500,
    ) -> None:
        """Keep what is to be swept.

        ttl : how long a finished job is kept, and how long one may wait; limit : things of a kind in one sweep
        """
        self._store = store
        self._artifacts = artifacts
        self._images = images
        self._clock = clock
        self._ttl = ttl
        self._prunables = prunables
        self._limit = limit
        self._search: Iterator[tuple[OldFiles, str]] | None = None
        self._next_search = datetime.min.replace(tzinfo=UTC)

    def sweep(self) -> Swept:
        """Do one round of bounded length; a part that fails is named in the answer and keeps no other from its work."""
        parts = (
            self._end_dead_runs,
            self._fail_overdue,
            self._remove_expired,
            self._remove_deleted,
            self._remove_orphans,
            self._forget,
        )
        return reduce(Swept.__add__, map(_attempt, parts))

    def run_once(self) -> bool:
        """Sweep, and log what fails when that changes; return whether work was left that should follow at once."""
        try:
            swept = self.sweep()
        except Exception as error:  # noqa: BLE001 - the thread's edge: a fault in one sweep must not end them all
            self._report([error])
            return False
        self._report(swept.failures)
        return swept.more and not swept.failures

    def _report(self, failures: Sequence[Exception]) -> None:
        now = {f"{type(failure).__name__}: {failure}": failure for failure in failures}
        for text in now.keys() - self._reported:
            _logger.error("The janitor could not do all of its work: %s", text, exc_info=now[text])
        if self._reported and not now:
            _logger.info("The janitor can do all of its work again.")
        self._reported = frozenset(now)

    def _end_dead_runs(self) -> Swept:
        ended = self._store.reclaim()
        died = [job for job in ended if job.status.finished]
        return Swept(requeued=len(ended) - len(died), died=len(died)) + self._drop_images(died)

    def _fail_overdue(self) -> Swept:
        overdue = self._store.expire_queued(self._clock() - self._ttl, self._limit)
        return Swept(overdue=len(overdue), more=len(overdue) == self._limit) + self._drop_images(overdue)

    def _remove_expired(self) -> Swept:
        """Remove the files first: whoever dies in between leaves a row, which is found again, not a lone file."""
        due = self._store.expired(self._clock() - self._ttl, self._limit)
        theirs = self._store.files.of_all(due)
        gone: list[Job] = []
        failures: tuple[ServiceError, ...] = ()
        for job in due:
            try:
                for file in theirs[job.id]:
                    self._delete(file)
                _delete(self._images, job.image_name)
            except ServiceError as failure:  # the storage is away: the next file would fare no better
                failures = (failure,)
                break
            gone.append(job)
        return Swept(expired=self._store.remove(gone), more=len(gone) == self._limit, failures=failures)

    def _remove_deleted(self) -> Swept:
        """Remove what an agent had deleted and what storage, or whoever was to do it, did not let go of then."""
        due = self._store.files.deleting(self._limit)
        gone: list[JobFile] = []
        failures: tuple[ServiceError, ...] = ()
        for file in due:
            try:
                self._delete(file)
            except ServiceError as failure:
                failures = (failure,)
                break
            gone.append(file)
        self._store.files.end_deletion(gone)
        return Swept(deleted=len(gone), more=len(gone) == self._limit, failures=failures)

    def _remove_orphans(self) -> Swept:
        """Remove the next few old files that no row names; a search of all files goes on from sweep to sweep."""
        now = self._clock()
        if self._search is None and now < self._next_search:
            return Swept()
        search = self._search or self._old_files(now - self._ttl - _GRACE)
        self._search, self._next_search = None, now + _BETWEEN_SEARCHES
        found = list(islice(search, self._limit))
        if len(found) == self._limit:
            self._search = search
        kept = self._store.named([name for _, name in found])
        orphans = [(files, name) for files, name in found if name not in kept]
        for files, name in orphans:
            files.delete(name)
        return Swept(orphans=len(orphans), more=self._search is not None)

    def _old_files(self, time: datetime) -> Iterator[tuple[OldFiles, str]]:
        for files in (self._artifacts, self._images):
            for name in files.older_than(time):
                yield files, name

    def _forget(self) -> Swept:
        counts = [self._store.forget_keys(self._limit), self._store.forget_expired(self._limit)]
        counts += [prunable.prune(self._clock(), self._limit) for prunable in self._prunables]
        return Swept(forgotten=sum(counts), more=self._limit in counts)

    def _drop_images(self, ended: Sequence[Job]) -> Swept:
        """Remove images that no run will need; one that can't be removed now goes with its job's row."""
        try:
            for job in ended:
                _delete(self._images, job.image_name)
        except ServiceError as failure:
            return Swept(failures=(failure,))
        return Swept()

    def _delete(self, file: JobFile) -> None:
        _delete(self._images if file.kind == "image" else self._artifacts, file.name)


def _attempt(part: Callable[[], Swept]) -> Swept:
    try:
        return part()
    except ServiceError as failure:
        return Swept(failures=(failure,))


def _delete(files: OldFiles, name: str) -> None:
    with suppress(ArtifactNotFound):  # a row may name what no store of ours ever held
        files.delete(name)
