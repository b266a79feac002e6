"""What each call answers, for the document: every status it may end with, and the schemas of these.

This module does not know what a call does.
"""

from __future__ import annotations

from typing import Any

from flask_openapi3.models.tag import Tag

from backend import errors
from backend.api import batch_answers, cutouts, file_answers, health_answers, job_answers, me
from backend.api.json_models import BatchJson, CutoutJson, GenerateJson
from backend.api.openapi import LINKED, SIGNED, answer_headers, answered, form_body, refusals
from backend.api.parameters import AgainForm, BatchForm, CutoutForm, FormatForm, GenerateForm
from backend.api.responses import ErrorAnswer
from backend.api.uploads import VIEW_FIELDS
from backend.errors import ServiceError
from backend.storage.artifacts import MEDIA_TYPES

Call = dict[str, Any]
"""Keyword arguments of APIBlueprint's decorators."""

_ASK = Tag(name="Ask for meshes", description="Pictures in; signed.")
_FOLLOW = Tag(name="Follow jobs", description="What becomes of them; signed.")
_FETCH = Tag(name="Fetch meshes", description="Files out; signed, or by a link.")
_OPERATE = Tag(name="Operate", description="For whoever runs the service.")

_EVENT = {"type": "object", "properties": {name: {"type": "string"} for name in ("id", "event", "data")}}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FILES = dict.fromkeys(sorted({*MEDIA_TYPES.values(), "application/zip"}), _BINARY)

REQUEST_MODELS = (GenerateForm, BatchForm, CutoutForm, FormatForm, AgainForm, GenerateJson, BatchJson, CutoutJson)
ANSWER_MODELS = (
    ErrorAnswer,
    job_answers.JobAnswer,
    batch_answers.BatchAnswer,
    job_answers.GeneratedAnswer,
    job_answers.AcceptedAnswer,
    batch_answers.BatchAcceptedAnswer,
    job_answers.JobsAnswer,
    me.MeAnswer,
    file_answers.FilesAnswer,
    cutouts.CutoutAnswer,
    health_answers.HealthAnswer,
    health_answers.LiveAnswer,
    health_answers.ReadyAnswer,
    health_answers.UnhealthyAnswer,
)

_ANY: tuple[type[ServiceError], ...] = (
    ServiceError,
    errors.BadRequest,
    errors.UnknownField,
    errors.MethodNotAllowed,
)
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
    errors.HttpsRequired,
    errors.BadFraming,
    errors.RequestTooSlow,
    errors.LengthRequired,
    errors.FileTooLarge,
    errors.RateLimited,
    errors.AuthUnavailable,
    errors.StoreUnavailable,
    errors.StorageFull,
)
_JOB = (*_SIGNED, errors.EndpointNotFound, errors.JobNotFound, errors.Expired)
_FORM = (
    *_SIGNED,
    errors.InvalidForm,
    errors.InvalidFormat,
    errors.InvalidQuality,
    errors.InvalidSteps,
    errors.InvalidGuidance,
    errors.InvalidAcceleration,
    errors.InvalidSeed,
    errors.InvalidTargetFaces,
    errors.InvalidOctreeResolution,
    errors.InvalidObjects,
    errors.InvalidOutline,
    errors.InvalidCandidates,
    errors.InvalidKeep,
    errors.InvalidColor,
    errors.InvalidPlace,
    errors.InvalidUpright,
    errors.InvalidCompress,
    errors.InvalidPreview,
    errors.InvalidTurntable,
    errors.InvalidBackgroundMode,
    errors.InvalidScale,
    errors.InvalidLabel,
    errors.InvalidWebhookUrl,
    errors.InvalidIdempotencyKey,
    errors.MissingImage,
    errors.TooManyImages,
    errors.InvalidImage,
    errors.UnsupportedImage,
    errors.ImageUrlRefused,
    errors.ImageUrlFailed,
    errors.UnsupportedMediaType,
    errors.IdempotencyConflict,
    errors.TooManyJobs,
    errors.QuotaExceeded,
    errors.QueueFull,
    errors.GpuBusy,
    errors.ServiceStopping,
    errors.ArtifactStoreUnavailable,
)
_VIEWS = (
    errors.ConflictingInputs,
    errors.ViewsUnsupported,
    errors.InvalidPrompt,
    errors.InvalidImageSeed,
    errors.PromptUnavailable,
)
# What the job of a caller that waited may end with.
_OUTCOMES = (
    errors.Cancelled,
    errors.Expired,
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
        **refusals(*_FORM, *_OUTCOMES, *_VIEWS, errors.InvalidAsync, errors.JobNotFound),
        200: answered(job_answers.GeneratedAnswer, description="The mesh is made.", job_id="job_id"),
        202: answered(
            job_answers.AcceptedAnswer,
            description="The job waits or runs: `async` was true, or it outlasts the server's wait.",
            job_id="job_id",
            accepted=True,
        ),
    },
    "security": SIGNED,
    "openapi_extensions": form_body(GenerateForm, "image", *VIEW_FIELDS, in_json=GenerateJson),
}
BATCH: Call = {
    "tags": [_ASK],
    "responses": {
        **refusals(*_FORM, errors.InvalidAcceptPartial, errors.TooFewImages, errors.Expired, errors.JobNotFound),
        202: answered(
            batch_answers.BatchAcceptedAnswer,
            description="The jobs wait or run.",
            job_id="batch_id",
            accepted=True,
        ),
    },
    "security": SIGNED,
    "openapi_extensions": form_body(BatchForm, "images", in_json=BatchJson),
}
CUTOUT: Call = {
    "tags": [_ASK],
    "responses": {
        **refusals(
            *_SIGNED,
            errors.InvalidForm,
            errors.InvalidBackgroundMode,
            errors.InvalidObjects,
            errors.InvalidIdempotencyKey,
            errors.MissingImage,
            errors.TooManyImages,
            errors.InvalidImage,
            errors.UnsupportedImage,
            errors.ImageUrlRefused,
            errors.ImageUrlFailed,
            errors.UnsupportedMediaType,
            errors.IdempotencyConflict,
            errors.NoForeground,
            errors.ArtifactNotFound,
            errors.Expired,
            errors.ArtifactStoreUnavailable,
        ),
        200: answered(cutouts.CutoutAnswer, description="The cut-out, and what is to be said of it."),
    },
    "security": SIGNED,
    "openapi_extensions": form_body(CutoutForm, "image", in_json=CutoutJson),
}
AGAIN: Call = {
    "tags": [_ASK],
    "responses": {
        **refusals(*_FORM, *_OUTCOMES, errors.InvalidAsync, errors.EndpointNotFound, errors.JobNotFound),
        200: answered(job_answers.GeneratedAnswer, description="The mesh is made.", job_id="job_id"),
        202: answered(
            job_answers.AcceptedAnswer,
            description="The new job waits or runs: `async` was true, or it outlasts the server's wait.",
            job_id="job_id",
            accepted=True,
        ),
    },
    "security": SIGNED,
    "openapi_extensions": form_body(AgainForm, required=False),
}
STATUS: Call = {
    "tags": [_FOLLOW],
    "responses": {
        **refusals(*_JOB, errors.InvalidWait),
        200: answered(
            job_answers.JobAnswer,
            batch_answers.BatchAnswer,
            description="The job or batch. `Retry-After` while it is unfinished.",
            retry_after=True,
        ),
    },
    "security": SIGNED,
}
EVENTS: Call = {
    "tags": [_FOLLOW],
    "responses": {
        **refusals(*_JOB, errors.TooManyStreams),
        200: {
            "description": "Server-Sent Events, until the job or batch is finished: `progress`, then one of"
            " `completed`, `failed`, `cancelled`, each with the JSON of the status as its data, and an id for"
            " `Last-Event-ID`; a comment every 15 seconds.",
            "headers": answer_headers(),
            "content": {"text/event-stream": {"schema": _EVENT}},
        },
        204: {
            "description": "It is finished, and the caller has its last event: there is nothing to come back for.",
            "headers": answer_headers(),
        },
    },
    "security": SIGNED,
}
SOCKET: Call = {
    "tags": [_FOLLOW],
    "responses": {
        **refusals(*_SIGNED, errors.TooManyStreams, errors.UpgradeRequired, errors.StreamsUnsupported),
        101: {
            "description": "A WebSocket, with the events of all the agent's jobs, or, once it has sent"
            ' `{"watch": [id, …]}`, of those: each a text `{"event", "id", "data"}`, as Server-Sent Events have them.',
            "headers": answer_headers(),
        },
    },
    "security": SIGNED,
}
CANCEL: Call = {
    "tags": [_FOLLOW],
    "responses": {
        **refusals(*_JOB),
        200: answered(
            job_answers.JobAnswer,
            batch_answers.BatchAnswer,
            description="The job or batch as it is now: what waited is cancelled, what runs will be soon, the rest is"
            " as it was.",
        ),
    },
    "security": SIGNED,
}
JOBS: Call = {
    "tags": [_FOLLOW],
    "responses": {
        **refusals(*_SIGNED, errors.InvalidCursor, errors.InvalidLimit, errors.InvalidStatus, errors.InvalidLabel),
        200: answered(job_answers.JobsAnswer, description="A page of jobs."),
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
            errors.LinkInvalid,
            errors.LinkExpired,
            errors.EndpointNotFound,
            errors.ArtifactNotFound,
            errors.Expired,
            errors.BatchUnfinished,
            errors.ArtifactStoreUnavailable,
            errors.PreconditionFailed,
            errors.RangeNotSatisfiable,
        ),
        200: {"description": "The file.", "headers": answer_headers(headers=_FILE_HEADERS), "content": _FILES},
        206: {
            "description": "The part of the file that `Range` asks for.",
            "headers": answer_headers(headers={**_FILE_HEADERS, **_RANGE_HEADER}),
            "content": _FILES,
        },
        304: {"description": "The caller has the file: `If-None-Match` names its ETag.", "headers": answer_headers()},
    },
    "security": LINKED,
}
ADD_FILE: Call = {
    "tags": [_FETCH],
    "responses": {
        **refusals(
            *_JOB,
            *_OUTCOMES,
            errors.InvalidForm,
            errors.UnsupportedMediaType,
            errors.UnknownField,
            errors.InvalidFormat,
            errors.InvalidIdempotencyKey,
            errors.IdempotencyConflict,
            errors.JobUnfinished,
            errors.Expired,
            errors.ArtifactNotFound,
            errors.ExportError,
            errors.ArtifactStoreUnavailable,
        ),
        200: answered(file_answers.FilesAnswer, description="The job's files, the one that was asked for among them."),
    },
    "security": SIGNED,
    "openapi_extensions": form_body(FormatForm),
}
DELETE_FILES: Call = {
    "tags": [_FETCH],
    "responses": {
        **refusals(*_JOB, errors.JobUnfinished, errors.Expired, errors.ArtifactStoreUnavailable),
        200: answered(
            file_answers.FilesAnswer,
            description="The files are gone, the picture too; the job itself is listed until it expires.",
        ),
    },
    "security": SIGNED,
}
_UNHEALTHY = (
    "No worker can serve (`GPU_BUSY`), the disk is full (`STORAGE_FULL`), or the job table is away"
    " (`STORE_UNAVAILABLE`)."
)
ME: Call = {
    "tags": [_FOLLOW],
    "responses": {
        **refusals(*_SIGNED),
        200: answered(me.MeAnswer, description="The agent's operations, limits and what is left of them."),
    },
    "security": SIGNED,
}
HEALTH: Call = {
    "tags": [_OPERATE],
    "responses": {
        **refusals(*_ANY),
        200: answered(health_answers.HealthAnswer, description="The service can serve."),
        503: answered(health_answers.UnhealthyAnswer, ErrorAnswer, description=_UNHEALTHY, retry_after=True),
    },
}
LIVE: Call = {
    "tags": [_OPERATE],
    "responses": {**refusals(*_ANY), 200: answered(health_answers.LiveAnswer, description="This process answers.")},
}
READY: Call = {
    "tags": [_OPERATE],
    "responses": {
        **refusals(*_ANY),
        200: answered(health_answers.ReadyAnswer, description="A model serves, compiled or not."),
        503: answered(ErrorAnswer, description=_UNHEALTHY, retry_after=True),
    },
}
