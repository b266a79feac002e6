"""From a form to jobs in the queue: fields read, pictures checked and stored, all submitted or nothing kept.

A request that was answered before under its Idempotency-Key gets that answer again, and nothing is stored for it. This
module does not know HTTP answers, or how jobs are run.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Literal

from backend.api.uploads import UploadedImage, UploadLimits, check_and_store, images_of, parse_form
from backend.auth.agents import AgentConfig
from backend.errors import GpuBusy, InvalidIdempotencyKey, ServiceError, StoreUnavailable
from backend.jobs.models import IdempotencyKey, NewJob, Submitted
from backend.services import AgentServices
from backend.storage.files import FileStore
from backend.validation import GenerateFields, GenerationFields, fingerprint, read_fields, resolve

Operation = Literal["generate", "batch"]

_KEY = re.compile(r"[!-~]{1,128}")
_FIELDS: dict[Operation, type[GenerationFields]] = {"generate": GenerateFields, "batch": GenerationFields}
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Form:
    """A form as it came, its body already verified.

    key : the Idempotency-Key header, None for none
    """

    body: BinaryIO
    content_type: str
    key: str | None


@dataclass(frozen=True)
class Submission:
    """What became of a form; waits : whether its caller wants the mesh and not a promise."""

    submitted: Submitted
    waits: bool


def submit_form(services: AgentServices, agent: AgentConfig, operation: Operation, form: Form) -> Submission:
    """Put a form's pictures into the queue as jobs of an agent.

    Raises InvalidIdempotencyKey, IdempotencyConflict, GpuBusy, QueueFull, TooManyActiveJobs, StoreUnavailable,
    StorageFull, ArtifactStoreUnavailable, and what parse_form, read_fields and check_and_store raise; nothing of the
    form is kept then.
    """
    key = _read_key(form.key)
    limits = UploadLimits.from_settings(services.settings, operation)
    with parse_form(form.body, form.content_type, limits, services.settings.spool_dir) as upload:
        fields = read_fields(_FIELDS[operation], upload.fields)
        uploaded = images_of(upload, limits.image_field, limits.fewest, limits.most)
        idempotency = _idempotency(key, operation, fields, uploaded)
        first = services.store.recall(agent.agent_id, idempotency) if idempotency else None
        waits = isinstance(fields, GenerateFields) and not fields.run_async
        if first is not None:
            return Submission(first, waits)
        _require_worker(services)
        with _stored(uploaded, services.images, limits) as names:
            submitted = services.store.submit(
                agent.agent_id,
                _new_jobs(fields, names, f"{services.settings.model_path} {services.settings.model_subfolder}"),
                queue_limit=services.settings.queue_limit,
                agent_limit=agent.max_active_jobs,
                idempotency=idempotency,
            )
            if submitted.replayed:
                discard_images(names, services.images)
    services.notifier.notify()
    return Submission(submitted, waits)


def _require_worker(services: AgentServices) -> None:
    own_worker = services.worker is not None
    try:
        services.health.read().require_worker(own_worker=own_worker)
    except GpuBusy:
        # One may have come since: nobody is turned away by what was true a second ago.
        services.health.read_anew().require_worker(own_worker=own_worker)


def _read_key(key: str | None) -> str | None:
    if key is not None and not _KEY.fullmatch(key):
        raise InvalidIdempotencyKey
    return key


def _idempotency(
    key: str | None, operation: Operation, fields: GenerationFields, uploaded: Sequence[UploadedImage]
) -> IdempotencyKey | None:
    if key is None:
        return None
    return IdempotencyKey(key, fingerprint(operation, fields, uploaded))


def _new_jobs(fields: GenerationFields, names: Sequence[str], model: str) -> list[NewJob]:
    requests = [resolve(fields, lambda: secrets.randbits(32)) for _ in names]
    return [
        NewJob(request.to_json(), request.batch_key(model), name) for request, name in zip(requests, names, strict=True)
    ]


@contextmanager
def _stored(uploaded: Sequence[UploadedImage], images: FileStore, limits: UploadLimits) -> Iterator[list[str]]:
    """The names that the pictures are stored under; they are removed again when what follows fails."""
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
    """Remove pictures that no job needs any more; what cannot be removed now, the janitor removes later."""
    for name in names:
        try:
            images.delete(name)
        except ServiceError as error:
            logger.warning("A picture that no job needs could not be removed now: %s", error.message)
