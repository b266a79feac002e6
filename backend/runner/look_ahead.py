"""Images of the jobs whose turn is next, read and prepared on a thread while the device runs the batch before them.

The thread only looks at the queue: it leases nothing, so a worker that dies here loses nothing, a job that is cancelled
is simply not leased, and who runs next is decided as if nothing had been prepared. What was prepared for a job that
another worker took is thrown away. This module does not know how an image is prepared.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from backend.errors import ServiceError
from backend.jobs.models import Job
from backend.jobs.store import JobStore
from backend.runner.heartbeat import Run
from backend.runner.processor_protocol import ImageToPrepare, ShapeProcessor
from backend.runner.stored_images import read_stored
from backend.storage.files import FileStore
from backend.telemetry.logs import log_context
from backend.validation import GenerationRequest

_log = logging.getLogger(__name__)
_PAUSE_SECONDS = 0.5
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class _Readable:
    """A job's image as it is stored, and how its background is to be removed."""

    job: Job
    image: ImageToPrepare
    request: GenerationRequest


class LookAhead:
    """Prepare at most `most` images ahead, for one worker whose batches run one at a time."""

    def __init__(self, store: JobStore, images: FileStore, most: int, given_up: Callable[[], bool]) -> None:
        """Look at nothing yet; the thread starts with the first batch.

        given_up : whether nothing more is to be prepared, because no more jobs will be leased
        """
        self._store = store
        self._images = images
        self._most = most
        self._given_up = given_up
        self._changed = threading.Condition()
        self._prepared: dict[str, Future[Any]] = {}
        self._processor: ShapeProcessor | None = None
        self._round = 0
        self._preparing = False
        self._stopped = False
        self._thread: threading.Thread | None = None

    @contextmanager
    def beside(self, processor: ShapeProcessor) -> Iterator[None]:
        """Look ahead while the block runs a batch; what is being prepared at its end is still prepared."""
        with self._changed:
            self._processor, self._round = processor, self._round + 1
            self._changed.notify_all()
            if self._thread is None and not self._stopped:
                self._thread = threading.Thread(target=self._run, name="look-ahead", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._changed:
                self._processor = None

    def has(self, job: Job) -> bool:
        """Return whether a job's image was or is being prepared."""
        with self._changed:
            return job.id in self._prepared

    def take(self, run: Run) -> Any | None:
        """Return a leased job's prepared image, once, and wait while it is being prepared.

        None when there is none: the image is then to be prepared with its batch, as if nobody had tried before.
        """
        with self._changed:
            prepared = self._prepared.pop(run.job.id, None)
        while prepared is not None and not run.over:
            with suppress(TimeoutError):
                return prepared.result(_POLL_SECONDS)
        return None

    def settle(self, seconds: float) -> bool:
        """Wait until nothing is being prepared; return whether that came to be in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._preparing, seconds)

    def stop(self) -> None:
        """End the thread after what it does now, and forget what was prepared."""
        with self._changed:
            self._stopped, self._processor = True, None
            self._prepared.clear()
            self._changed.notify_all()

    def _run(self) -> None:
        seen = 0
        while not self._stopped:
            with self._changed:
                if self._round == seen:
                    # Jobs may come while the batch still runs.
                    self._changed.wait(_PAUSE_SECONDS)
                while self._processor is None and not self._stopped:
                    self._changed.wait()
                seen, processor = self._round, self._processor
            if processor is not None and not self._given_up():
                self._look(processor, seen)

    def _look(self, processor: ShapeProcessor, seen: int) -> None:
        """Prepare what is new among the jobs whose turn is next; an error here is met again by the job's own run."""
        try:
            chosen = self._choose(self._store.upcoming(self._most), seen)
        except ServiceError as error:
            _log.debug("the queue cannot be looked at: %s", error)
            return
        if not chosen:
            return
        results: Sequence[Any | None] = ()
        readable: list[_Readable] = []
        try:
            with log_context(*(job.id for job in chosen)):
                readable = [found for job in chosen if (found := self._read(job)) is not None]
                results = processor.prepare_images(
                    [each.image for each in readable],
                    [each.request.remove_background for each in readable],
                    [each.request.objects for each in readable],
                )
        except Exception:  # noqa: BLE001 - the thread's edge; the run itself meets the same again, and records it
            _log.debug("images could not be prepared ahead", exc_info=True)
        finally:
            by_job = {each.job.id: result for each, result in zip(readable, results, strict=False)}
            with self._changed:
                self._preparing = False
                self._changed.notify_all()
            for job, prepared in chosen.items():
                prepared.set_result(by_job.get(job.id))

    def _choose(self, upcoming: Sequence[Job], seen: int) -> dict[Job, Future[Any]]:
        """Enter the jobs that are new, and forget those whose turn is no longer next."""
        with self._changed:
            if self._processor is None or self._round != seen:
                return {}
            known = {job.id: self._prepared.get(job.id) for job in upcoming}
            chosen: dict[Job, Future[Any]] = {job: Future() for job in upcoming if known[job.id] is None}
            kept = {job_id: prepared for job_id, prepared in known.items() if prepared is not None}
            self._prepared = {**kept, **{job.id: prepared for job, prepared in chosen.items()}}
            self._preparing = bool(chosen)
            return chosen

    def _read(self, job: Job) -> _Readable | None:
        """Return what is needed of a job; None when it cannot be read now."""
        try:
            request = GenerationRequest.from_json(job.request)
            return _Readable(job, read_stored(self._images, job, request), request)
        except ServiceError:
            return None
