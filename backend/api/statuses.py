"""Which HTTP status each error is answered with: the one table of it.

An error that is not listed is answered as the kind that it is of. This module does not know who raises an error.
"""

from __future__ import annotations

from collections.abc import Mapping

from backend import errors
from backend.errors import ServiceError

_STATUSES: Mapping[type[ServiceError], int] = {
    ServiceError: 500,
    errors.RetryLater: 503,
    errors.InvalidParameter: 400,
    errors.ImageUrlFailed: 502,
    errors.UnsupportedImage: 415,
    errors.UnsupportedMediaType: 415,
    errors.FileTooLarge: 413,
    errors.LengthRequired: 411,
    errors.AuthMissing: 401,
    errors.AuthInvalid: 401,
    errors.AuthExpired: 401,
    errors.AuthReplayed: 401,
    errors.AuthBodyMismatch: 401,
    errors.AgentDisabled: 403,
    errors.IpNotAllowed: 403,
    errors.OperationNotAllowed: 403,
    errors.HttpsRequired: 403,
    errors.UpgradeRequired: 426,
    errors.StreamsUnsupported: 501,
    errors.LinkInvalid: 403,
    errors.LinkExpired: 403,
    errors.StudioCodeInvalid: 403,
    errors.RateLimited: 429,
    errors.QuotaExceeded: 429,
    errors.BadRequest: 400,
    errors.BadFraming: 400,
    errors.RequestTooSlow: 408,
    errors.TargetTooLong: 414,
    errors.ExpectationFailed: 417,
    errors.HeadersTooLarge: 431,
    errors.UnsupportedCoding: 501,
    errors.EndpointNotFound: 404,
    errors.MethodNotAllowed: 405,
    errors.PreconditionFailed: 412,
    errors.RangeNotSatisfiable: 416,
    errors.JobNotFound: 404,
    errors.ArtifactNotFound: 404,
    errors.ImageLost: 410,
    errors.IdempotencyConflict: 409,
    errors.LeaseLost: 409,
    errors.Expired: 410,
    errors.BatchUnfinished: 409,
    errors.JobUnfinished: 409,
    errors.StorageFull: 507,
    errors.GenerationError: 422,
    errors.OutOfMemory: 503,
    errors.DeviceLost: 503,
    errors.Cancelled: 409,
    errors.PreviewUnavailable: 501,
}


def status_of(error: ServiceError | type[ServiceError]) -> int:
    """Return the status that an error, or any error of a class, is answered with."""
    kind = error if isinstance(error, type) else type(error)
    return next(_STATUSES[ancestor] for ancestor in kind.__mro__ if ancestor in _STATUSES)
