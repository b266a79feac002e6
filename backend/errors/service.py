"""What can go wrong with jobs, files, storage, settings and the requests as such."""

from __future__ import annotations

from backend.errors.access import RateLimited
from backend.errors.base import RetryLater, ServiceError
from backend.errors.parameters import InvalidParameter


class BadRequest(ServiceError):
    """The request cannot be understood."""

    code = "BAD_REQUEST"


class BadFraming(BadRequest):
    """Where the request's body ends cannot be told, or it broke off before its end."""

    code = "BAD_FRAMING"


class TargetTooLong(BadRequest):
    """The request line is longer than what is taken here."""

    code = "URI_TOO_LONG"


class HeadersTooLarge(BadRequest):
    """The request's headers are more, or longer, than what is taken here."""

    code = "HEADERS_TOO_LARGE"


class ExpectationFailed(BadRequest):
    """Of all that Expect may ask for, only 100-continue is understood."""

    code = "EXPECTATION_FAILED"


class UnsupportedCoding(BadRequest):
    """Of transfer codings only chunked, alone, is understood; compress nothing."""

    code = "UNSUPPORTED_TRANSFER_CODING"


class RequestTooSlow(BadRequest):
    """The request came so slowly that nobody waits for the rest of it."""

    code = "REQUEST_TIMEOUT"


class TooManyRequestsAtOnce(RetryLater):
    """The service has as many slow requests under way as it can; try again later."""

    code = "SERVER_BUSY"


class EndpointNotFound(ServiceError):
    """There is no such endpoint."""

    code = "NOT_FOUND"


class MethodNotAllowed(ServiceError):
    """This endpoint does not take this method."""

    code = "METHOD_NOT_ALLOWED"


class PreconditionFailed(ServiceError):
    """The file is not the one that If-Match names."""

    code = "PRECONDITION_FAILED"


class RangeNotSatisfiable(ServiceError):
    """The file has no such range of bytes."""

    code = "RANGE_NOT_SATISFIABLE"


class JobNotFound(ServiceError):
    """There is no such job or batch."""

    code = "JOB_NOT_FOUND"


class ArtifactNotFound(ServiceError):
    """There is no such file."""

    code = "FILE_NOT_FOUND"


class ImageLost(ServiceError):
    """The job's stored picture is gone; send it again."""

    code = "PICTURE_LOST"


class IdempotencyConflict(ServiceError):
    """This Idempotency-Key was used for another request within the last 24 hours; send a new key."""

    code = "IDEMPOTENCY_CONFLICT"


class QueueFull(RetryLater):
    """The queue is full; try again later."""

    code = "QUEUE_FULL"
    retry_after = 10


class GpuBusy(RetryLater):
    """No worker can take this job at the moment; try again later."""

    code = "GPU_BUSY"
    retry_after = 10


class ServiceStopping(RetryLater):
    """The service is stopping and takes no new jobs; send this again in a moment."""

    code = "SERVICE_STOPPING"
    retry_after = 10


class TooManyActiveJobs(RateLimited):
    """This agent has as many unfinished jobs as it may have; wait for one to finish or cancel one."""


class QuotaExceeded(RetryLater):
    """This agent has submitted as many jobs within 24 hours as it may; wait until the oldest is a day old."""

    code = "QUOTA_EXCEEDED"


class TooManyJobs(InvalidParameter):
    """The request asks for more jobs at once than this agent, or the queue, may ever have; send fewer."""

    code = "TOO_MANY_JOBS"


class LeaseLost(ServiceError):
    """The job is no longer this worker's: its lease ended, or the job has finished."""

    code = "LEASE_LOST"


class WorkerStopped(RetryLater):
    """The worker is stopping and handed this job back."""

    code = "WORKER_STOPPED"


class Expired(ServiceError):
    """Its time is over, and its files are removed; send the picture again."""

    code = "EXPIRED"


class JobExpired(Expired):
    """The job waited too long without being run."""


class BatchUnfinished(RetryLater):
    """The batch is not finished yet; its zip is there once no job of it waits or runs."""

    code = "BATCH_UNFINISHED"


class FilesExpired(Expired):
    """The job's files were deleted; they are gone."""


class JobUnfinished(ServiceError):
    """The job has not finished; wait for it, or cancel it first."""

    code = "JOB_UNFINISHED"


class StorageFull(ServiceError):
    """The server's disk is full; try again later."""

    code = "STORAGE_FULL"


class StoreUnavailable(RetryLater):
    """The job store cannot be reached; try again later."""

    code = "STORE_UNAVAILABLE"


class DatabaseDamaged(StoreUnavailable):
    """The job store is damaged, and whoever runs the service has to put it right."""


class ArtifactStoreUnavailable(RetryLater):
    """The file storage cannot be reached; try again later."""

    code = "STORAGE_UNAVAILABLE"


class RequestUnreadable(ServiceError):
    """The job's stored request cannot be read; another version of ORFEAS may have written it."""

    code = "REQUEST_UNREADABLE"


class SchemaMismatch(ServiceError):
    """The database was made by another version of ORFEAS."""

    code = "SCHEMA_MISMATCH"


class ConfigurationError(ServiceError):
    """A setting is wrong."""

    code = "CONFIGURATION_ERROR"


class DatabaseUrlError(ConfigurationError):
    """DATABASE_URL must be sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME."""

    code = "DATABASE_URL"
