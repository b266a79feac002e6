"""From a form to jobs in the queue: fields read, images checked and stored, all submitted or nothing kept.

A request that was answered before under its Idempotency-Key gets that answer again, and nothing is stored for it. This
module does not know HTTP answers, or how jobs are run.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import BinaryIO, Literal

from backend.api.forms import read_form
from backend.api.image_urls import ImageUrls
from backend.api.intake import TakenImage, taken, taken_views
from backend.api.multipart import Form, FormFile
from backend.api.request_context import waiting
from backend.api.uploads import UploadLimits, images_of, views_of
from backend.api.webhooks import require_webhook
from backend.auth.agents import AgentConfig
from backend.config import Settings
from backend.errors import (
    ConflictingInputs,
    InvalidIdempotencyKey,
    InvalidImageSeed,
    PromptUnavailable,
    StoreUnavailable,
    TooManyJobs,
    ViewsUnsupported,
)
from backend.hunyuan3d.octree_resolutions import Resolutions
from backend.jobs.idempotency import fingerprint
from backend.jobs.models import IdempotencyKey, Job, NewJob, Submitted
from backend.jobs.submission import Bounds
from backend.limits import MAX_BATCH_MESHES, ViewName
from backend.services import AgentServices
from backend.storage.files import discard, new_name
from backend.telemetry.tracing import current_trace
from backend.validation import (
    BatchFields,
    GenerateFields,
    GenerationFields,
    new_job,
    read_fields,
    require_offered,
)

Operation = Literal["generate", "batch"]

# Without a comma: a server joins two headers of one name with it.
_KEY = re.compile(r"[!-+\--~]{1,128}")
_FIELDS: dict[Operation, type[GenerationFields]] = {"generate": GenerateFields, "batch": BatchFields}
_LOOK_SECONDS, _AWAY_SECONDS = 1.0, 0.25


@dataclass(frozen=True)
class Submission:
    """What became of a form: its jobs, whether its caller wants to wait, and whether bad images became jobs, too."""

    submitted: Submitted
    waits: bool
    is_partial: bool


class Submitter:
    """Puts the forms that an app gets into the queue."""

    def __init__(self, services: AgentServices, image_urls: ImageUrls) -> None:
        settings = services.settings
        self._image_urls = image_urls
        self._services = services
        self._resources = services.resources
        self._model = model_of(settings)
        self._limits = {operation: UploadLimits.from_settings(settings, operation) for operation in _FIELDS}

    def submit(
        self,
        agent: AgentConfig,
        operation: Operation,
        body: BinaryIO,
        content_type: str,
        key: str | None,
        began: float,
    ) -> Submission:
        """Put a form's images into the queue as jobs of an agent.

        body : verified; key : the Idempotency-Key header, None for none; began : time.monotonic() when the request came
        Raises InvalidIdempotencyKey, IdempotencyConflict, InvalidWebhookUrl, TooManyJobs, GpuBusy, ServiceStopping,
        QueueFull, TooManyActiveJobs, QuotaExceeded, ViewsUnsupported, StoreUnavailable, StorageFull,
        ArtifactStoreUnavailable, and what read_form, read_fields, views_of, images_of and taken raise; nothing of the
        form is kept then.
        """
        require_key(key)
        with ExitStack() as opened:
            form = read_form(body, content_type, self._limits[operation].form, opened)
            return self.submit_form(agent, operation, form, key, began, opened)

    def submit_form(
        self,
        agent: AgentConfig,
        operation: Operation,
        form: Form,
        key: str | None,
        began: float,
        opened: ExitStack,
        steps: int | None = None,
    ) -> Submission:
        """Put a form that was read into the queue, as submit does.

        opened : closes the files that are made; steps : in place of the form's, and fewer than a form may ask for
        """
        limits = self._limits[operation]
        fields = read_fields(_FIELDS[operation], form.fields)
        fields = fields if steps is None else fields.model_copy(update={"steps": steps})
        resolutions = self._services.resolutions()
        resolutions.check(fields.octree_resolution)
        require_offered(fields)
        if fields.webhook_url is not None:
            require_webhook(agent, fields.webhook_url)
        views = views_of(form)
        require_views_taken(self._services, tuple(views))
        prompt = read_prompt(self._services, fields, form)
        uploaded = () if prompt else _sent_images(form, views, limits)
        _require_meshes_possible(len(uploaded), fields)
        waits = isinstance(fields, GenerateFields) and not fields.run_async
        is_partial = isinstance(fields, BatchFields) and fields.accept_partial
        idempotency = idempotency_key(key, lambda: fingerprint(operation, fields, _digests(uploaded, views)))
        if idempotency is not None:
            first = self._resources.store.recall(agent.internal_id, idempotency)
            if first is not None:
                return Submission(first, waits, is_partial)
        if not is_partial:  # of a partial batch nobody knows yet how many jobs it makes
            bounds = Bounds(self._services.settings.queue_limit, agent.max_active_jobs, agent.daily_jobs)
            bounds.require_possible(fields.candidates * (1 if views or prompt else len(uploaded)))
        self._services.require_worker(began)
        if prompt:
            job = new_job(fields, new_name("png"), self._model, secrets.randbits, resolutions)
            return put_in_queue(self._services, agent, [job], idempotency, waits=waits)
        uploaded = self._image_urls.fetched(uploaded, agent.internal_id, opened)
        stored = (
            taken_views(uploaded, self._resources.images, limits)
            if views
            else taken(uploaded, self._resources.images, limits, accept_partial=is_partial)
        )
        with stored as images:
            jobs = [self._job_of(fields, image, resolutions, tuple(views)) for image in images]
            return put_in_queue(self._services, agent, jobs, idempotency, waits=waits, is_partial=is_partial)

    def _job_of(
        self, fields: GenerationFields, image: TakenImage, resolutions: Resolutions, views: tuple[ViewName, ...]
    ) -> NewJob:
        return new_job(
            fields,
            image.name,
            self._model,
            secrets.randbits,
            resolutions,
            views=views,
            filename=image.file.filename,
            refusal=image.refusal,
        )


def put_in_queue(
    services: AgentServices,
    agent: AgentConfig,
    jobs: Sequence[NewJob],
    idempotency: IdempotencyKey | None,
    *,
    waits: bool,
    is_partial: bool = False,
) -> Submission:
    """Put an agent's new jobs into the queue, all or none, and wake a worker.

    jobs : their images are stored; those of a request that was answered before are discarded
    Raises what JobStore.submit raises; the images stay then.
    """
    trace = current_trace()
    submitted = services.store.submit(
        agent.internal_id,
        [replace(job, trace=trace) for job in jobs],
        queue_limit=services.settings.queue_limit,
        agent_limit=agent.max_active_jobs,
        daily_limit=agent.daily_jobs,
        idempotency=idempotency,
    )
    if submitted.replayed:
        discard(services.images, *(job.image_name for job in jobs))
    services.notifier.notify()
    return Submission(submitted, waits, is_partial)


def read_prompt(services: AgentServices, fields: GenerationFields, form: Form) -> str | None:
    """Return the words that a picture is to be drawn of, None where there are none.

    Raises PromptUnavailable where nothing draws pictures, ConflictingInputs where there is one beside the words,
    InvalidImageSeed for one without words.
    """
    if not isinstance(fields, GenerateFields):
        return None
    if fields.prompt is None:
        if fields.image_seed is not None:
            raise InvalidImageSeed(details={"field": "image_seed"})
        return None
    if form.files:
        raise ConflictingInputs(details={"fields": ["prompt", *dict.fromkeys(file.field for file in form.files)]})
    require_drawing(services)
    return fields.prompt


def require_drawing(services: AgentServices) -> None:
    """Raise PromptUnavailable where nothing draws pictures of words."""
    if not services.settings.text_to_image_model:
        raise PromptUnavailable(details={"field": "prompt"})


def _sent_images(form: Form, views: Mapping[ViewName, FormFile], limits: UploadLimits) -> tuple[FormFile, ...]:
    """Return the views of one object, or the images."""
    return tuple(views.values()) or images_of(form, limits.form.file_field, limits.fewest, limits.form.max_files)


def _require_meshes_possible(images: int, fields: GenerationFields) -> None:
    """Raise TooManyJobs for a batch of more meshes than one may have."""
    meshes = images * fields.candidates
    if isinstance(fields, BatchFields) and meshes > MAX_BATCH_MESHES:
        details = {"images": images, "candidates": fields.candidates, "most": MAX_BATCH_MESHES}
        raise TooManyJobs(f"A batch makes at most {MAX_BATCH_MESHES} meshes, candidates among them.", details=details)


def _digests(uploaded: Sequence[FormFile], views: Mapping[ViewName, FormFile]) -> list[str]:
    """Return what stands for each image in a request's fingerprint."""
    if views:
        return [f"{view} {file.digest()}" for view, file in views.items()]
    return [file.digest() for file in uploaded]


def require_views_taken(services: AgentServices, views: Sequence[ViewName]) -> None:
    """Raise ViewsUnsupported where there are views and the model takes none, StoreUnavailable."""
    if views and not services.takes_views():
        raise ViewsUnsupported(details={"fields": [f"view_{view}" for view in views]})


def require_key(key: str | None) -> None:
    """Raise InvalidIdempotencyKey for a header that is there and is no Idempotency-Key."""
    if key is not None and not _KEY.fullmatch(key):
        raise InvalidIdempotencyKey(details={"header": "Idempotency-Key", "pattern": _KEY.pattern})


def idempotency_key(key: str | None, digest: Callable[[], str]) -> IdempotencyKey | None:
    """Return a request's key with its fingerprint, which is only made where there is a key. Raises as require_key."""
    require_key(key)
    return None if key is None else IdempotencyKey(key, digest())


def model_of(settings: Settings) -> str:
    """Return what the settings have workers run: jobs for one model are no batch mates of another's."""
    return f"{settings.model_path} {settings.model_subfolder}"


def wait_for_job(services: AgentServices, job_id: str, agent_id: str) -> Job | None:
    """Return the job when it has finished, or as it is once nobody may wait any longer; None when it could not be read.

    Waits up to SYNC_WAIT, not at all when as many calls wait already as may, and only until the service stops: the job
    goes on by itself. Raises JobNotFound.
    """
    with services.wait_slots.one_of(agent_id) as is_free:
        deadline = time.monotonic() + (services.settings.sync_wait_seconds if is_free else 0.0)
        while True:
            job = _read_job(services, job_id, agent_id)
            left = deadline - time.monotonic()
            if left <= 0 or services.stopping.is_set() or (job is not None and job.status.finished):
                return job
            with waiting():
                if job is None:
                    services.stopping.wait(min(_AWAY_SECONDS, left))
                else:
                    # Its steps are nothing to this caller.
                    services.watch.wait([job], min(_LOOK_SECONDS, left), calm_seconds=left)


def _read_job(services: AgentServices, job_id: str, agent_id: str) -> Job | None:
    try:
        return services.store.get(job_id, agent_id)
    except StoreUnavailable:
        # The job was accepted all the same, and the caller must learn its id.
        return None
