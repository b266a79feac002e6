"""What every failure of the product is made of.

A class carries the code that names it to programs; its docstring is the default message. This module does not know
which failures there are, or how one is answered.
"""

from __future__ import annotations

from collections.abc import Mapping


class ServiceError(Exception):
    """The service could not do what was asked."""

    code: str = "INTERNAL_ERROR"

    def __init__(self, message: str | None = None, *, details: Mapping[str, object] | None = None) -> None:
        self.message = message or (type(self).__doc__ or "").strip()
        self.details: dict[str, object] = dict(details or {})
        super().__init__(self.message)


class RetryLater(ServiceError):
    """The service cannot do this now; try again later."""

    code = "UNAVAILABLE"
    retry_after: int = 5
    """Seconds to wait before the next try; the answer's Retry-After."""

    def __init__(
        self,
        message: str | None = None,
        *,
        retry_after: int | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message, details=details)
        self.retry_after = self.retry_after if retry_after is None else retry_after
