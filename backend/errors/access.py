"""Why a request is not let in, and what can be wrong with the list of agents."""

from __future__ import annotations

from backend.errors.base import RetryLater, ServiceError


class AuthMissing(ServiceError):
    """A signing header is missing or malformed."""

    code = "AUTH_MISSING"


class AuthInvalid(ServiceError):
    """The agent is unknown or the signature is wrong."""

    code = "AUTH_INVALID"


class AuthExpired(ServiceError):
    """The timestamp is too far from the server's time; check the clock and sign each request when it is sent."""

    code = "AUTH_EXPIRED"


class AuthReplayed(ServiceError):
    """This nonce was used before; draw a new one for each request."""

    code = "AUTH_REPLAYED"


class AuthBodyMismatch(ServiceError):
    """The body is not the one that was signed: its SHA-256 differs from the signed one."""

    code = "AUTH_BODY_MISMATCH"


class AuthUnavailable(RetryLater):
    """Requests cannot be checked for replays at the moment; try again later."""

    code = "AUTH_UNAVAILABLE"


class AgentDisabled(ServiceError):
    """This agent is disabled; ask the operator to enable it."""

    code = "AGENT_DISABLED"


class IpNotAllowed(ServiceError):
    """This agent may not call from this address."""

    code = "IP_NOT_ALLOWED"


class OperationNotAllowed(ServiceError):
    """This agent was not granted this operation."""

    code = "OPERATION_NOT_ALLOWED"


class LinkInvalid(ServiceError):
    """This link is not one of the service's, was changed, or is no longer honoured; ask for the job's status again."""

    code = "LINK_INVALID"


class LinkExpired(ServiceError):
    """This link's time is over; the job's status has a new one."""

    code = "LINK_EXPIRED"


class StudioCodeInvalid(ServiceError):
    """This code is wrong, was used before, or its ten minutes are over; `orfeas studio` prints another."""

    code = "STUDIO_CODE_INVALID"


class HttpsRequired(ServiceError):
    """Tokens are taken over https alone: whoever listens to plain http could use them."""

    code = "HTTPS_REQUIRED"


class RateLimited(RetryLater):
    """Too many requests; wait before sending the next."""

    code = "RATE_LIMITED"
    retry_after = 60


class TooManyStreams(RateLimited):
    """This agent, or the service, has as many open streams as it may; close one, or poll with `?wait=`."""

    retry_after = 15


class UpgradeRequired(ServiceError):
    """This call is a WebSocket of version 13: send Upgrade, Connection, Sec-WebSocket-Key and Sec-WebSocket-Version."""

    code = "UPGRADE_REQUIRED"


class StreamsUnsupported(ServiceError):
    """This server keeps no WebSockets: serve with `orfeas serve`, or listen by Server-Sent Events."""

    code = "STREAMS_UNSUPPORTED"


class AgentsFileError(ServiceError):
    """The agents file cannot be used."""

    code = "AGENTS_FILE_ERROR"


class AgentNotFound(AgentsFileError):
    """The agents file has no such agent."""

    code = "AGENT_NOT_FOUND"


class AgentExists(AgentsFileError):
    """The agents file already has an agent with this id."""

    code = "AGENT_EXISTS"
