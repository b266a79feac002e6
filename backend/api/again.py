"""A new job from the picture of an earlier one: what is asked for is as it was, but for the fields that are given.

The picture is copied, so that neither job's end takes it from the other. This module does not know HTTP answers, or how
a job is run.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, BinaryIO

from backend.api.following import find
from backend.api.forms import read_form
from backend.api.job_answers import job_failure
from backend.api.multipart import FormLimits
from backend.api.parameters import AgainForm
from backend.api.submissions import (
    Submission,
    idempotency_key,
    model_of,
    put_in_queue,
    require_drawing,
    require_key,
    require_views_taken,
)
from backend.api.webhooks import require_webhook
from backend.auth.agents import AgentConfig
from backend.errors import (
    ArtifactNotFound,
    ConflictingInputs,
    FilesExpired,
    JobNotFound,
    RequestUnreadable,
    StoreUnavailable,
)
from backend.hunyuan3d.octree_resolutions import Resolutions
from backend.jobs.idempotency import fingerprint
from backend.jobs.models import Batch, Job, Status
from backend.limits import default_target_faces
from backend.services import AgentServices
from backend.storage.files import discard, new_name, put_new
from backend.validation import (
    GenerateFields,
    GenerationRequest,
    new_job,
    read_fields,
    require_offered,
)

_NO_FILES = FormLimits("", 0)
_GONE = "The picture of this job is no longer kept; send it again."


def submit_again(
    services: AgentServices,
    agent: AgentConfig,
    job_id: str,
    body: BinaryIO,
    content_type: str,
    key: str | None,
    began: float,
) -> Submission:
    """Put a job into the queue that is an agent's earlier one again, with the fields of a form changed.

    body : verified, empty where nothing is changed; key, began : as Submitter.submit has them
    Raises JobNotFound, Expired, FilesExpired when the picture is gone or the request is another version's, the error of
    a picture that was refused, and what Submitter.submit raises but for images.
    """
    require_key(key)
    given = _read(body, content_type)
    waits, idempotency = not given.run_async, idempotency_key(key, lambda: fingerprint("again", given, [job_id]))
    if idempotency is not None:
        first = services.store.recall(agent.internal_id, idempotency)
        if first is not None:
            return Submission(first, waits, is_partial=False)
    job, resolutions = _find(services, job_id, agent), services.resolutions()
    request = _request_of(job)
    fields = changed(request, job.label, given, resolutions)
    resolutions.check(fields.octree_resolution)
    require_offered(fields)
    if fields.webhook_url is not None:
        require_webhook(agent, fields.webhook_url)
    require_views_taken(services, request.views)
    services.require_worker(began)
    require_prompt_possible(services, request, given)
    with _new_image(services, job, given) as image:
        new = new_job(
            fields,
            image,
            model_of(services.settings),
            secrets.randbits,
            resolutions,
            views=request.views,
            filename=job.filename,
        )
        return put_in_queue(services, agent, [new], idempotency, waits=waits)


def changed(
    request: GenerationRequest, label: str | None, given: GenerateFields, resolutions: Resolutions
) -> GenerateFields:
    """Return the fields that a job was asked for with, and its label, with those that are given in their place.

    Where quality is given, what the quality before it had set goes with it: octree resolution and faces.
    """
    fields: dict[str, Any] = {
        name: getattr(request, name) for name in GenerateFields.model_fields if name in GenerationRequest.model_fields
    }
    fields |= {"target_faces": request.target_faces or "none", "label": label or "", "webhook_url": None}
    if "quality" in given.model_fields_set:
        if request.octree_resolution == resolutions.of_quality(request.quality):
            fields["octree_resolution"] = None
        if request.target_faces == default_target_faces(request.quality):
            fields["target_faces"] = None
    # All were checked when they were read.
    return given.model_construct(**fields | {name: getattr(given, name) for name in given.model_fields_set})


def _read(body: BinaryIO, content_type: str) -> AgainForm:
    is_empty = not body.read(1)
    body.seek(0)
    return read_fields(AgainForm, {} if is_empty else read_form(body, content_type, _NO_FILES).fields)


def _find(services: AgentServices, job_id: str, agent: AgentConfig) -> Job:
    found = find(services, job_id, agent.internal_id)
    if isinstance(found, Batch):
        raise JobNotFound("A batch is not made again as one; its status names its jobs, each of which can be.")
    return found


def _request_of(job: Job) -> GenerationRequest:
    try:
        return GenerationRequest.from_json(job.request)
    except RequestUnreadable as error:
        raise FilesExpired("Another version took this job on; send its picture again.") from error


def require_prompt_possible(services: AgentServices, request: GenerationRequest, given: AgainForm) -> None:
    """Raise ConflictingInputs for other words where there was a picture, PromptUnavailable where nothing draws."""
    if _draws_anew(given):
        if request.prompt is None:
            raise ConflictingInputs("This job is of a picture, which words do not change.")
        require_drawing(services)


def _draws_anew(given: AgainForm) -> bool:
    return not given.model_fields_set.isdisjoint(("prompt", "image_seed"))


def _new_image(services: AgentServices, job: Job, given: AgainForm) -> AbstractContextManager[str]:
    """Give the name of a new job's picture: a copy of the old one's, or one that is drawn when it runs."""
    return nullcontext(new_name("png")) if _draws_anew(given) else _copied(services, job)


@contextmanager
def _copied(services: AgentServices, job: Job) -> Iterator[str]:
    """Give the name of a copy of a job's picture; it is removed again when what follows fails."""
    name = _copy(services, job)
    try:
        yield name
    except StoreUnavailable:
        # The connection may have broken just after the job was kept; the janitor knows whether it was.
        raise
    except BaseException:
        discard(services.images, name)
        raise


def _copy(services: AgentServices, job: Job) -> str:
    if job.refused:
        raise job_failure(job)
    # Of a completed job the picture is one of its files; its agent may have deleted those a moment ago.
    if job.status is Status.COMPLETED and all(file.kind != "image" for file in services.store.files.of(job)):
        raise FilesExpired(_GONE, details={"job_id": job.id})
    try:
        with services.images.open(job.image_name) as stream:
            return put_new(services.images, job.image_name.rpartition(".")[2], stream)
    except ArtifactNotFound as error:
        raise FilesExpired(_GONE, details={"job_id": job.id}) from error
