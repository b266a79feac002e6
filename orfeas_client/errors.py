"""What a client's caller may have to handle: one base error, a few kinds, each with its evidence.

Nothing but the standard library. This module does not know how a request travels.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType


class ClientError(Exception):
    """A call could not be done; the message is a sentence for a person.

    job_id : the job or batch that it is about and that may go on at the service; "" where there is none
    """

    job_id: str = ""

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text} Job: {self.job_id}." if self.job_id and self.job_id not in text else text


class ServiceRefused(ClientError):
    """The service answered with an error.

    status : HTTP status; code : the name that docs/errors.md explains; details : the answer's own
    retry_after : seconds, None when it named none
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        request_id: str = "",
        details: Mapping[str, object] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{message} ({status} {code}{f', request {request_id}' if request_id else ''})")
        self.status = status
        self.code = code
        self.message = message
        self.request_id = request_id
        self.details: Mapping[str, object] = MappingProxyType(dict(details or {}))
        self.retry_after = retry_after
        self.job_id = str(self.details.get("job_id") or "")


class ServiceUnreachable(ClientError):
    """No whole answer came, however often it was tried."""


class UnexpectedAnswer(ClientError):
    """An answer came that this service does not give: a redirect, another site's page, an address elsewhere."""


class LocalFileError(ClientError):
    """A file on this machine cannot be read or written."""


class NothingToLink(ClientError):
    """There is no file to give a link to: the work has not finished, or made none, or the agent may fetch none."""


class NoEvents(ClientError):
    """There is no stream of events to listen to: the service is older, or something on the way keeps them back."""


class WaitedTooLong(ClientError):
    """The work had not finished when the waiting was to end; it goes on at the service."""
