"""From a form to jobs in the queue: fields read, images checked and stored, all submitted or nothing kept.

A request that was answered before under its Idempotency-Key gets that answer again, and nothing is stored for it. This
module does not know HTTP answers, or how jobs are run.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO, Literal

from backend.api.multipart import FormFile, read_form
from backend.api.uploads import UploadLimits, check_and_store, images_of
from backend.auth.agents import AgentConfig
from backend.errors import InvalidIdempotencyKey, ServiceError, StoreUnavailable
from backend.hunyuan3d.image.open_image import ImageLimits
from backend.jobs.models import IdempotencyKey, Job, Submitted
from backend.services import AgentServices
from backend.storage.files import FileStore
from backend.validation import GenerateFields, GenerationFields, fingerprint, new_job, read_fields, require_offered

Operation = Literal["generate", "batch"]

_KEY = re.compile(r"[!-~]{1,128}")
_FIELDS: dict[Operation, type[GenerationFields]] = {"generate": GenerateFields, "batch": GenerationFields}
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.25
logger = logging.getLogger(__name__)


class Submitter:
    """Puts the forms that an app gets into the queue."""

    def __init__(self, services: AgentServices) -> None:
        settings = services.settings
        self._services = services
        self._resources = services.resources
        self._model = f"{settings.model_path} {settings.model_subfolder}"
        self._limits = {operation: UploadLimits.from_settings(settings, operation) for operation in _FIELDS}

    def submit(
        self, agent: AgentConfig, operation: Operation, body: BinaryIO, content_type: str, key: str | None
    ) -> tuple[Submitted, bool]:
        """Put a form's images into the queue as jobs of an agent; return them, and whether the caller wants to wait.

        body : verified; key : the Idempotency-Key header, None for none
        Raises InvalidIdempotencyKey, IdempotencyConflict, GpuBusy, QueueFull, TooManyActiveJobs, StoreUnavailable,
        StorageFull, ArtifactStoreUnavailable, and what read_form, read_fields and check_and_store raise; nothing of the
        form is kept then.
        """
        if key is not None and not _KEY.fullmatch(key):
            raise InvalidIdempotencyKey
        limits = self._limits[operation]
        form = read_form(body, content_type, limits.form)
        fields = read_fields(_FIELDS[operation], form.fields)
        resolutions = self._services.resolutions()
        resolutions.check(fields)
        require_offered(fields)
        uploaded = images_of(form, limits.form.file_field, limits.fewest, limits.form.max_files)
        waits = isinstance(fields, GenerateFields) and not fields.run_async
        idempotency = None
        if key is not None:
            idempotency = IdempotencyKey(key, fingerprint(operation, fields, [image.digest() for image in uploaded]))
            first = self._resources.store.recall(agent.agent_id, idempotency)
            if first is not None:
                return first, waits
        self._services.health.require_worker(own_worker=self._services.worker is not None)
        with _stored(uploaded, self._resources.images, limits.image) as names:
            submitted = self._resources.store.submit(
                agent.agent_id,
                [new_job(fields, name, self._model, secrets.randbits, resolutions) for name in names],
                queue_limit=self._services.settings.queue_limit,
                agent_limit=agent.max_active_jobs,
                idempotency=idempotency,
            )
            if submitted.replayed:
                discard_images(names, self._resources.images)
        self._services.notifier.notify()
        return submitted, waits


def wait_for_job(services: AgentServices, job_id: str, agent_id: str) -> Job | None:
    """Return the job when it has finished, or as it is once nobody may wait any longer; None when it could not be read.

    Waits up to SYNC_WAIT, not at all when half of the web threads are waiting already, and only until the service
    stops: the job goes on by itself. Raises JobNotFound.
    """
    if not services.sync_slots.acquire(blocking=False):
        return _read_job(services, job_id, agent_id)
    try:
        deadline = time.monotonic() + services.settings.sync_wait_seconds
        pause = _FIRST_PAUSE
        while True:
            job = _read_job(services, job_id, agent_id)
            left = deadline - time.monotonic()
            if left <= 0 or services.stopping.is_set() or (job is not None and job.status.finished):
                return job
            services.stopping.wait(min(pause, left))
            pause = min(1.5 * pause, _LONGEST_PAUSE)
    finally:
        services.sync_slots.release()


def _read_job(services: AgentServices, job_id: str, agent_id: str) -> Job | None:
    try:
        return services.store.get(job_id, agent_id)
    except StoreUnavailable:
        # The job was accepted all the same, and the caller must learn its id.
        return None


@contextmanager
def _stored(uploaded: Sequence[FormFile], images: FileStore, limits: ImageLimits) -> Iterator[list[str]]:
    """Give the names that the images are stored under; they are removed again when what follows fails."""
    names: list[str] = []
    try:
        for image in uploaded:
            names.append(check_and_store(image, images, limits))
        yield names
    except StoreUnavailable:
        # The connection may have broken just after the jobs were kept; the janitor knows whether they were.
        raise
    except BaseException:
        discard_images(names, images)
        raise


def discard_images(names: Sequence[str], images: FileStore) -> None:
    """Remove images that no job needs any more; what cannot be removed now, the janitor removes later."""
    for name in names:
        try:
            images.delete(name)
        except ServiceError as error:
            logger.warning("An image that no job needs could not be removed now: %s", error.message)
