"""What an agent may do with the files of a finished job: have one more format made, and have all of them deleted.

Another format is encoded here, by the process that answers, from the shape that the worker kept: no device is needed
and the mesh is the same to the last bit. This module does not know HTTP answers.
"""

from __future__ import annotations

import threading
from typing import BinaryIO

from backend.api.forms import read_form
from backend.api.job_answers import job_failure
from backend.api.multipart import FormLimits
from backend.api.parameters import FormatForm
from backend.api.submissions import require_key
from backend.errors import ArtifactNotFound, FilesExpired, JobUnfinished, ServiceError
from backend.hunyuan3d.mesh.offered import require_format
from backend.jobs.cutouts import Cutout
from backend.jobs.idempotency import fingerprint
from backend.jobs.models import IdempotencyKey, Job, JobFile, NewFile, Status
from backend.limits import MeshFormat
from backend.services import AgentServices
from backend.storage.artifacts import Artifact, open_artifact
from backend.storage.files import discard
from backend.validation import read_fields

_encoders = threading.BoundedSemaphore(1)
"""Encoding a mesh of a million faces takes seconds and hundreds of megabytes: however many ask, one is encoded."""

_NO_FILES = FormLimits("", 0)


def read_format(body: BinaryIO, content_type: str) -> FormatForm:
    """Return the form with the one format that it asks for. Raises InvalidForm, UnknownField, InvalidFormat."""
    form = read_fields(FormatForm, read_form(body, content_type, _NO_FILES).fields)
    require_format(form.format)
    return form


def add_format_once(services: AgentServices, job: Job, form: FormatForm, key: str | None) -> None:
    """Give a completed job its mesh in one more format, under the Idempotency-Key of the request, None for none.

    Adding the same format again adds nothing, so that a request that comes again needs no answer that was kept; its key
    says that it is the same request. One that failed leaves its key free. Raises InvalidIdempotencyKey,
    IdempotencyConflict and what add_format raises.
    """
    require_key(key)
    if key is None:
        add_format(services, job, form.format)
        return
    named = IdempotencyKey(key, fingerprint("files", form, [job.id]))
    services.store.recall(job.agent_id, named)
    add_format(services, job, form.format)
    services.store.remember(job.agent_id, named, job.id)


def add_format(services: AgentServices, job: Job, format: MeshFormat) -> None:
    """Give a completed job its mesh in a format that it may not have yet.

    Raises JobUnfinished, the error of a job that has no mesh, FilesExpired, StorageFull, ArtifactStoreUnavailable and
    what encoding raises.
    """
    if not job.status.finished:
        raise JobUnfinished(details={"job_id": job.id})
    if job.status is not Status.COMPLETED:
        raise job_failure(job)
    files = services.store.files.of(job)
    if any(file.kind == "mesh" and file.format == format and file.candidate == 0 for file in files):
        return
    shape = next((file for file in files if file.kind == "shape"), None)
    if shape is None:
        raise _gone(job, files)
    name, size = _encode(services, shape, format)
    try:
        kept = services.store.files.add(job, NewFile("mesh", format, name, size))
    except FilesExpired:
        discard(services.artifacts, name)
        raise
    if not kept:  # somebody else was faster
        discard(services.artifacts, name)


def delete_files(services: AgentServices, job: Job) -> None:
    """Delete the files of a finished job and its picture, now and for good; done twice it is no error.

    What storage does not let go of now, nobody can fetch any more, and the janitor removes it.
    Raises JobUnfinished, JobNotFound, ArtifactStoreUnavailable.
    """
    for file in services.store.files.begin_deletion(job):
        (services.images if file.kind == "image" else services.artifacts).delete(file.name)
        services.store.files.end_deletion([file])


def open_file(services: AgentServices, file: JobFile | Cutout) -> Artifact:
    """Open a file to be sent. Raises ArtifactNotFound, ArtifactStoreUnavailable."""
    if isinstance(file, JobFile) and file.kind == "image":
        return open_artifact(services.images, file.name)
    return services.artifacts.open(file.name)


def _encode(services: AgentServices, shape: JobFile, format: MeshFormat) -> tuple[str, int]:
    """Encode a kept shape and store that; return the file's name and size."""
    from backend.rendering.shape_file import encode, read_shape

    try:
        data = services.artifacts.read(shape.name)
    except ArtifactNotFound as error:
        raise FilesExpired(details={"job_id": shape.job_id}) from error
    with _encoders:
        made = encode(read_shape(data), format)
    return services.artifacts.write(made, format), len(made)


def _gone(job: Job, files: tuple[JobFile, ...]) -> ServiceError:
    """Return why a job's mesh cannot be encoded anew."""
    if files:
        return ArtifactNotFound(
            "This job was made by an earlier version, which kept nothing to make other formats of; send it again."
        )
    return FilesExpired(details={"job_id": job.id})
