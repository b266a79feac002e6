"""Every failure of the product, as a tree of named errors.

Each class carries the HTTP status and the code it is answered with; its docstring is the default message. This module
does not know who raises an error or how it is rendered.
"""

from __future__ import annotations

from collections.abc import Mapping


class ServiceError(Exception):
    """The service could not do what was asked."""

    status: int = 500
    code: str = "INTERNAL_ERROR"

    def __init__(self, message: str | None = None, *, details: Mapping[str, object] | None = None) -> None:
        self.message = message or (type(self).__doc__ or "").strip()
        self.details: dict[str, object] = dict(details or {})
        super().__init__(self.message)


class InvalidParameter(ServiceError):
    """A parameter is outside its allowed range."""

    status = 400
    code = "INVALID_PARAMETER"


class InvalidResolution(InvalidParameter):
    """The octree resolution must be a whole number from 8 to 1024."""

    code = "INVALID_RESOLUTION"


class InvalidSteps(InvalidParameter):
    """The number of inference steps must be a whole number of at least 1."""

    code = "INVALID_STEPS"


class InvalidGuidance(InvalidParameter):
    """The guidance scale must be a finite number of at least 0."""

    code = "INVALID_GUIDANCE_SCALE"


class InvalidSeed(InvalidParameter):
    """A seed must be a whole number from 0 to 2^32 - 1, one for each image."""

    code = "INVALID_SEED"


class InvalidTargetFaces(InvalidParameter):
    """The target face count must be a whole number from 100 to 2 000 000."""

    code = "INVALID_TARGET_FACES"


class InvalidScale(InvalidParameter):
    """The scale must be a finite number of millimetres above zero."""

    code = "INVALID_SCALE_MM"


class InvalidFormat(InvalidParameter):
    """The format must be one of glb, stl, obj, ply."""

    code = "INVALID_FORMAT"


class MissingImage(InvalidParameter):
    """At least one image is needed."""

    code = "MISSING_IMAGE"


class InvalidImage(InvalidParameter):
    """The file is not a readable picture."""

    code = "INVALID_IMAGE"


class UnsupportedImage(ServiceError):
    """The picture's format is not supported; send PNG, JPEG or WebP."""

    status = 415
    code = "UNSUPPORTED_IMAGE"


class GenerationError(ServiceError):
    """The shape could not be generated."""

    status = 422
    code = "GENERATION_FAILED"


class NoForeground(GenerationError):
    """No object was found in the picture; send one with a clear subject or a transparent background."""

    code = "NO_FOREGROUND"


class NoSurface(GenerationError):
    """The model's field has no surface; try another seed, more steps or a clearer picture."""

    code = "NO_SURFACE"


class NonFiniteValues(GenerationError):
    """The model produced values that are not finite; its weights or precision are unfit."""

    code = "NON_FINITE_VALUES"


class OutOfMemory(GenerationError):
    """The device ran out of memory; lower the octree resolution or the batch size."""

    status = 503
    code = "OUT_OF_MEMORY"


class Cancelled(ServiceError):
    """The work was cancelled."""

    status = 409
    code = "CANCELLED"


class CheckpointError(ServiceError):
    """The checkpoint cannot be used."""

    code = "CHECKPOINT_ERROR"


class CheckpointNotFound(CheckpointError):
    """No checkpoint was found at that path or repository."""

    code = "CHECKPOINT_NOT_FOUND"


class CheckpointUnreadable(CheckpointError):
    """The checkpoint's weight file is damaged or holds more than plain tensors."""

    code = "CHECKPOINT_UNREADABLE"


class CheckpointConfigError(CheckpointError):
    """The checkpoint's config.yaml names something this code does not offer."""

    code = "CHECKPOINT_CONFIG"


class CheckpointKeyError(CheckpointError):
    """A weight is missing from the checkpoint or has the wrong shape."""

    code = "CHECKPOINT_KEYS"


class CheckpointValueError(CheckpointError):
    """A weight of the checkpoint holds values that are not finite."""

    code = "CHECKPOINT_VALUES"


class InvalidMesh(GenerationError):
    """The mesh is empty or has coordinates that are not finite."""

    code = "INVALID_MESH"


class DecimationFailed(GenerationError):
    """The mesh could not be reduced to the face count asked for."""

    code = "DECIMATION_FAILED"


class ExportError(ServiceError):
    """The mesh could not be written."""

    code = "EXPORT_FAILED"


class PreviewUnavailable(ServiceError):
    """No preview can be drawn: embreex, the ray caster, is not installed here."""

    status = 501
    code = "PREVIEW_UNAVAILABLE"


class ConfigurationError(ServiceError):
    """A setting is wrong."""

    code = "CONFIGURATION_ERROR"


class AgentsFileError(ServiceError):
    """The agents file cannot be used."""

    code = "AGENTS_FILE_ERROR"


class AgentNotFound(AgentsFileError):
    """The agents file has no such agent."""

    code = "AGENT_NOT_FOUND"


class AgentExists(AgentsFileError):
    """The agents file already has an agent with this id."""

    code = "AGENT_EXISTS"


class AuthMissing(ServiceError):
    """A signing header is missing or malformed."""

    status = 401
    code = "AUTH_MISSING"


class AuthInvalid(ServiceError):
    """The agent is unknown or the signature is wrong."""

    status = 401
    code = "AUTH_INVALID"


class AuthExpired(ServiceError):
    """The timestamp is too far from the server's time; check the clock and sign each request when it is sent."""

    status = 401
    code = "AUTH_EXPIRED"


class AgentDisabled(ServiceError):
    """This agent is disabled; ask the operator to enable it."""

    status = 403
    code = "AGENT_DISABLED"


class IpNotAllowed(ServiceError):
    """This agent may not call from this address."""

    status = 403
    code = "IP_NOT_ALLOWED"


class OperationNotAllowed(ServiceError):
    """This agent was not granted this operation."""

    status = 403
    code = "OPERATION_NOT_ALLOWED"


class AuthReplayed(ServiceError):
    """This nonce was used before; draw a new one for each request."""

    status = 401
    code = "AUTH_REPLAYED"


class AuthUnavailable(ServiceError):
    """Requests cannot be checked for replays at the moment; try again later."""

    status = 503
    code = "AUTH_UNAVAILABLE"

    def __init__(self, retry_after: int = 5, *, details: Mapping[str, object] | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(details=details)


class RateLimited(ServiceError):
    """Too many requests; wait before sending the next."""

    status = 429
    code = "RATE_LIMITED"

    def __init__(
        self, retry_after: int = 60, message: str | None = None, *, details: Mapping[str, object] | None = None
    ) -> None:
        self.retry_after = retry_after
        super().__init__(message, details=details)


class AuthBodyMismatch(ServiceError):
    """The body is not the one that was signed: its SHA-256 differs from X-Agent-Content-SHA256."""

    status = 401
    code = "AUTH_BODY_MISMATCH"


class LengthRequired(ServiceError):
    """This server cannot read a body without a length; send it with a Content-Length."""

    status = 411
    code = "LENGTH_REQUIRED"


class FileTooLarge(ServiceError):
    """The upload is larger than the service takes."""

    status = 413
    code = "FILE_TOO_LARGE"


class StorageFull(ServiceError):
    """The server's disk is full; try again later."""

    status = 507
    code = "STORAGE_FULL"


class JobNotFound(ServiceError):
    """There is no such job or batch."""

    status = 404
    code = "JOB_NOT_FOUND"


class ArtifactNotFound(ServiceError):
    """There is no such file."""

    status = 404
    code = "FILE_NOT_FOUND"


class InvalidCursor(InvalidParameter):
    """The cursor is not one that a page of jobs gave."""

    code = "INVALID_CURSOR"


class IdempotencyConflict(ServiceError):
    """This Idempotency-Key was used for another request within the last 24 hours; send a new key."""

    status = 409
    code = "IDEMPOTENCY_CONFLICT"


class QueueFull(ServiceError):
    """The queue is full; try again later."""

    status = 503
    code = "QUEUE_FULL"

    def __init__(self, retry_after: int = 10, *, details: Mapping[str, object] | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(details=details)


class TooManyActiveJobs(RateLimited):
    """This agent has as many unfinished jobs as it may have; wait for one to finish or cancel one."""


class LeaseLost(ServiceError):
    """The job is no longer this worker's: its lease ended, or the job has finished."""

    status = 409
    code = "LEASE_LOST"


class WorkerDied(GenerationError):
    """The worker died each time it ran this job."""


class JobExpired(ServiceError):
    """The job waited too long without being run."""

    status = 410
    code = "EXPIRED"


class StoreUnavailable(ServiceError):
    """The job store cannot be reached; try again later."""

    status = 503
    code = "STORE_UNAVAILABLE"

    def __init__(self, retry_after: int = 5, *, details: Mapping[str, object] | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(details=details)


class DatabaseUrlError(ConfigurationError):
    """DATABASE_URL must be sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME."""

    code = "DATABASE_URL"


class SchemaMismatch(ServiceError):
    """The database was made by another version of ORFEAS."""

    code = "SCHEMA_MISMATCH"
