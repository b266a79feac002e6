"""What each call takes and answers, for the document: parameters, forms, and every status it may end with.

The models of parameters accept any text and only describe the right one, because what is wrong is answered in the API's
own form. This module does not know what a call does.
"""

from __future__ import annotations

from typing import Annotated, Any

from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, Field, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

from backend import errors
from backend.api import responses as out
from backend.api.openapi import SIGNED, answer_headers, answered, form_body, refusals
from backend.api.responses import ID_PATTERN
from backend.errors import ServiceError
from backend.limits import MAX_BATCH_IMAGES, MAX_PAGE_JOBS, MIN_BATCH_IMAGES
from backend.validation import GenerateFields, GenerationFields, without_default

DEFAULT_PAGE = 20

Call = dict[str, Any]
"""Keyword arguments of APIBlueprint's decorators."""

_ASK = Tag(name="Ask for meshes", description="Pictures in; signed.")
_FOLLOW = Tag(name="Follow jobs", description="What becomes of them; signed.")
_FETCH = Tag(name="Fetch meshes", description="Files out; signed.")
_OPERATE = Tag(name="Operate", description="For whoever runs the service.")

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_MESHES = dict.fromkeys(("model/gltf-binary", "model/stl", "model/obj", "application/octet-stream"), _BINARY)
_KEY_SCHEMA = {
    "type": "string",
    "pattern": "^[!-~]{1,128}$",
    "description": "The caller's name for this request: sent again with the same key, it gets the first answer again "
    "for 24 hours, and nothing is made twice.",
}


class JobPath(BaseModel):
    """A path that names a job or batch."""

    job_id: Annotated[str, WithJsonSchema({"type": "string", "pattern": ID_PATTERN, "description": "The id."})]


class FilePath(BaseModel):
    """A path that names a file."""

    filename: Annotated[
        str,
        WithJsonSchema(
            {"type": "string", "pattern": "^[0-9a-f]{32}\\.[a-z0-9]{3,4}$", "description": "As in download_url."}
        ),
    ]


class PageQuery(BaseModel):
    """Which page of jobs."""

    cursor: Annotated[
        str,
        WithJsonSchema({"type": "string", "pattern": ID_PATTERN, "description": "The next_cursor of the page before."}),
    ] = Field(default="", json_schema_extra=without_default)
    limit: Annotated[
        str,
        WithJsonSchema(
            {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_JOBS, "description": "The most jobs of a page."}
        ),
    ] = Field(default=str(DEFAULT_PAGE), json_schema_extra={"default": DEFAULT_PAGE})


class SubmitHeaders(BaseModel):
    """Headers of a call that makes jobs, signing aside."""

    idempotency_key: Annotated[str, WithJsonSchema(_KEY_SCHEMA)] | SkipJsonSchema[None] = Field(
        default=None, alias="Idempotency-Key", json_schema_extra=without_default
    )


class GenerateForm(GenerateFields):
    """The form of a request for one mesh."""

    image: bytes = Field(description="A PNG, JPEG or WebP.")


class BatchForm(GenerationFields):
    """The form of a request for several meshes; the fields hold for all of them."""

    images: list[bytes] = Field(
        min_length=MIN_BATCH_IMAGES,
        max_length=MAX_BATCH_IMAGES,
        description="PNG, JPEG or WebP, one part of this name for each.",
    )


REQUEST_MODELS = (GenerateForm, BatchForm)
ANSWER_MODELS = (
    out.ErrorAnswer,
    out.JobAnswer,
    out.BatchAnswer,
    out.GeneratedAnswer,
    out.AcceptedAnswer,
    out.BatchAcceptedAnswer,
    out.JobsAnswer,
    out.HealthAnswer,
    out.UnhealthyAnswer,
)

_ANY: tuple[type[ServiceError], ...] = (ServiceError, errors.BadRequest, errors.MethodNotAllowed)
_SIGNED: tuple[type[ServiceError], ...] = (
    *_ANY,
    errors.AuthMissing,
    errors.AuthInvalid,
    errors.AuthExpired,
    errors.AuthReplayed,
    errors.AuthBodyMismatch,
    errors.AgentDisabled,
    errors.IpNotAllowed,
    errors.OperationNotAllowed,
    errors.LengthRequired,
    errors.FileTooLarge,
    errors.RateLimited,
    errors.AuthUnavailable,
    errors.StoreUnavailable,
    errors.StorageFull,
)
_JOB = (*_SIGNED, errors.EndpointNotFound, errors.JobNotFound)
_FORM = (
    *_SIGNED,
    errors.InvalidForm,
    errors.UnknownField,
    errors.InvalidFormat,
    errors.InvalidQuality,
    errors.InvalidSteps,
    errors.InvalidGuidance,
    errors.InvalidAcceleration,
    errors.InvalidSeed,
    errors.InvalidTargetFaces,
    errors.InvalidOctreeResolution,
    errors.InvalidObjects,
    errors.InvalidColor,
    errors.InvalidPlace,
    errors.InvalidUpright,
    errors.InvalidCompress,
    errors.InvalidPreview,
    errors.InvalidTurntable,
    errors.InvalidBackgroundMode,
    errors.InvalidScale,
    errors.InvalidIdempotencyKey,
    errors.MissingImage,
    errors.TooManyImages,
    errors.InvalidImage,
    errors.UnsupportedImage,
    errors.UnsupportedMediaType,
    errors.IdempotencyConflict,
    errors.QueueFull,
    errors.GpuBusy,
    errors.ArtifactStoreUnavailable,
)
# What the job of a caller that waited may end with.
_OUTCOMES = (
    errors.Cancelled,
    errors.JobExpired,
    errors.GenerationError,
    errors.NoForeground,
    errors.NoSurface,
    errors.NonFiniteValues,
    errors.InvalidMesh,
    errors.DecimationFailed,
    errors.OutOfMemory,
)

GENERATE: Call = {
    "tags": [_ASK],
    "responses": {
        **refusals(*_FORM, *_OUTCOMES, errors.InvalidAsync, errors.JobNotFound),
        200: answered(out.GeneratedAnswer, description="The mesh is made.", job_id="job_id"),
        202: answered(
            out.AcceptedAnswer,
            description="The job waits or runs: `async` was true, or it outlasts the server's wait.",
            job_id="job_id",
        ),
    },
    "security": SIGNED,
    "openapi_extensions": form_body(GenerateForm, "image"),
}
BATCH: Call = {
    "tags": [_ASK],
    "responses": {
        **refusals(*_FORM, errors.TooFewImages),
        202: answered(out.BatchAcceptedAnswer, description="The jobs wait or run.", job_id="batch_id"),
    },
    "security": SIGNED,
    "openapi_extensions": form_body(BatchForm, "images"),
}
STATUS: Call = {
    "tags": [_FOLLOW],
    "responses": {
        **refusals(*_JOB),
        200: answered(
            out.JobAnswer,
            out.BatchAnswer,
            description="The job or batch. `Retry-After` while it is unfinished.",
            retry_after=True,
        ),
    },
    "security": SIGNED,
}
CANCEL: Call = {
    "tags": [_FOLLOW],
    "responses": {
        **refusals(*_JOB),
        200: answered(
            out.JobAnswer,
            description="The job as it is now: cancelled if it waited, soon if it runs, else as it was.",
        ),
    },
    "security": SIGNED,
}
JOBS: Call = {
    "tags": [_FOLLOW],
    "responses": {
        **refusals(*_SIGNED, errors.InvalidCursor, errors.InvalidLimit),
        200: answered(out.JobsAnswer, description="A page of jobs."),
    },
    "security": SIGNED,
}
_FILE_HEADERS = {
    "ETag": {"description": "Names the file's content.", "schema": {"type": "string"}},
    "Content-Disposition": {"description": "The file's name.", "schema": {"type": "string"}},
    "Accept-Ranges": {"description": "`bytes`.", "schema": {"type": "string"}},
}
_RANGE_HEADER = {"Content-Range": {"description": "Which bytes of how many.", "schema": {"type": "string"}}}
DOWNLOAD: Call = {
    "tags": [_FETCH],
    "responses": {
        **refusals(
            *_SIGNED,
            errors.EndpointNotFound,
            errors.ArtifactNotFound,
            errors.ArtifactStoreUnavailable,
            errors.PreconditionFailed,
            errors.RangeNotSatisfiable,
        ),
        200: {"description": "The file.", "headers": answer_headers(headers=_FILE_HEADERS), "content": _MESHES},
        206: {
            "description": "The part of the file that `Range` asks for.",
            "headers": answer_headers(headers={**_FILE_HEADERS, **_RANGE_HEADER}),
            "content": _MESHES,
        },
        304: {"description": "The caller has the file: `If-None-Match` names its ETag.", "headers": answer_headers()},
    },
    "security": SIGNED,
}
HEALTH: Call = {
    "tags": [_OPERATE],
    "responses": {
        **refusals(*_ANY),
        200: answered(out.HealthAnswer, description="The service can serve."),
        503: answered(
            out.UnhealthyAnswer,
            out.ErrorAnswer,
            description="No worker can serve (`GPU_BUSY`), or the job table is away (`STORE_UNAVAILABLE`).",
            retry_after=True,
        ),
    },
}
