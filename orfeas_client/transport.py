"""Signed requests to one service, each tried again while that may help and answered once.

Every try has its own nonce and timestamp; nothing else differs between them, so that the service can tell a second try
from a second request by its Idempotency-Key. Redirects are never followed: a signature is for one service. This module
does not know what the answers mean.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from urllib.parse import SplitResult, urlencode, urlsplit, urlunsplit

import requests
from requests.auth import AuthBase

from orfeas_client.errors import ClientError, ServiceRefused, ServiceUnreachable, UnexpectedAnswer
from orfeas_client.models import Json
from orfeas_client.retries import PassingFailure, RetryPolicy
from orfeas_client.signing import (
    AGENT_ID,
    EMPTY_DIGEST,
    HEADER_AGENT,
    HEADER_DIGEST,
    HEADER_NONCE,
    HEADER_SIGNATURE,
    HEADER_TIMESTAMP,
    sign_request,
)
from orfeas_client.upload import Body, JsonBody

API_PATH = "/api/agent"
PASSING_STATUSES = frozenset({429, 502, 503, 504})
"""Answers that another try may turn into a better one: limits, a full queue, and a proxy whose service restarts."""

_LONGEST_ANSWER = 16 << 20
_FARTHEST_CLOCK = 86400
_BROKEN = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
)


@dataclass(frozen=True)
class Outgoing:
    """A request before it is signed.

    path : below the API's own, percent-encoded, from its '/' on; at_root : it is below the service's own instead
    stream : whether the answer goes on, and its bytes are awaited for so many seconds; None for one that does not
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    signed: bool = True
    at_root: bool = False
    stream: float | None = None


class Transport:
    """One agent's connections to one service; any thread may use it, each with a session of its own."""

    def __init__(
        self,
        base_url: str,
        agent_id: str,
        api_key: str,
        *,
        timeout: tuple[float, float],
        retry_policy: RetryPolicy,
        clock: Callable[[], float],
        session: requests.Session | None,
    ) -> None:
        """Take what AgentClient takes. Raises ClientError for what cannot be an address, an id or a key."""
        self._base = _checked_base(base_url)
        if not AGENT_ID.fullmatch(agent_id) or not api_key:
            raise ClientError("An agent's id (letters, digits, '.', '_', '-') and its API key are needed.")
        self._agent_id = agent_id
        self._api_key = api_key
        self.timeout = timeout
        self.retry_policy = retry_policy
        self._clock = clock
        self._clock_offset = 0.0
        self._given = session
        self._own = threading.local()
        self._opened: list[requests.Session] = []

    @property
    def base(self) -> SplitResult:
        """Where the API is: scheme, host and path."""
        return self._base

    @property
    def _session(self) -> requests.Session:
        """The session of the thread at hand; the one that was given, if one was."""
        if self._given is not None:
            return self._given
        found: requests.Session | None = getattr(self._own, "session", None)
        if found is None:
            found = self._own.session = requests.Session()
            self._opened.append(found)
        return found

    def close(self) -> None:
        """Give the connections back."""
        for session in (*self._opened, *filter(None, [self._given])):
            session.close()

    def call(self, outgoing: Outgoing, retry_policy: RetryPolicy | None = None) -> tuple[Json, float | None]:
        """Send a request, again where that may help, and return the JSON answer and its Retry-After in seconds.

        retry_policy : in place of the transport's own
        Raises ServiceRefused, ServiceUnreachable, UnexpectedAnswer.
        """

        def attempt() -> tuple[Json, float | None]:
            with self.open(outgoing) as response:
                return read_json(response), read_retry_after(response)

        return (retry_policy or self.retry_policy).persist(attempt)

    def open(self, outgoing: Outgoing) -> requests.Response:
        """Send a request once and return the answer, unread; the caller closes it.

        A clock that is off is set right by the service's own, once. Raises PassingFailure, ServiceRefused,
        ServiceUnreachable, UnexpectedAnswer.
        """
        for corrected in (False, True):
            response = self.send(outgoing)
            if response.status_code < 300:
                return response
            with response:
                refusal = read_refusal(response)
            if corrected or not self._correct_clock(refusal):
                break
        # A refusal that names a job is that job's own failure: asked again, it is told again.
        if refusal.status in PASSING_STATUSES and "job_id" not in refusal.details:
            raise PassingFailure(refusal, refusal.retry_after)
        raise refusal

    def send(self, outgoing: Outgoing) -> requests.Response:
        """Sign a request now, send it and return whatever is answered. Raises PassingFailure, ServiceUnreachable."""
        body = outgoing.body
        headers = {"Accept": "application/json", **outgoing.headers}
        if body is not None:
            headers["Content-Type"] = body.content_type
        above = self._base.path.removesuffix(API_PATH) if outgoing.at_root else self._base.path
        request = requests.Request(
            outgoing.method,
            urlunsplit(self._base._replace(path=above + outgoing.path, query=urlencode(outgoing.query))),
            headers=headers,
            data=body.content if isinstance(body, JsonBody) else body,
            auth=_Signature(self, EMPTY_DIGEST if body is None else body.digest) if outgoing.signed else _Unsigned(),
        )
        try:
            session = self._session
            prepared = session.prepare_request(request)
            settings = session.merge_environment_settings(str(prepared.url), {}, True, None, None)
            timeout = self.timeout if outgoing.stream is None else (self.timeout[0], outgoing.stream)
            return session.send(prepared, timeout=timeout, allow_redirects=False, **settings)
        except requests.exceptions.SSLError as failure:
            raise ServiceUnreachable(f"No trusted connection to {self._base.netloc}: {_reason(failure)}") from failure
        except _BROKEN as failure:
            raise self.broken(failure) from failure
        except requests.RequestException as failure:
            raise ServiceUnreachable(f"{self._base.netloc} cannot be asked: {_reason(failure)}") from failure

    def broken(self, failure: Exception) -> PassingFailure:
        """Make a failure that may pass of a connection that failed."""
        return PassingFailure(ServiceUnreachable(f"No answer from {self._base.netloc}: {_reason(failure)}"))

    def sign(self, method: str, target: str, digest: str) -> Mapping[str, str]:
        """Return the signing headers of a request that is sent now. target : path and query as on the wire."""
        path, _, query = target.partition("?")
        timestamp, nonce = int(self._clock() + self._clock_offset), secrets.token_urlsafe(18)
        signature = sign_request(self._api_key, method, path, query, self._agent_id, timestamp, nonce, digest)
        return {
            HEADER_AGENT: self._agent_id,
            HEADER_TIMESTAMP: str(timestamp),
            HEADER_NONCE: nonce,
            HEADER_DIGEST: digest,
            HEADER_SIGNATURE: signature,
        }

    def _correct_clock(self, refusal: ServiceRefused) -> bool:
        """Go by the service's clock when it says that this one is off; return whether another try is worth it."""
        server_time = refusal.details.get("server_time")
        if refusal.code != "AUTH_EXPIRED" or not isinstance(server_time, int):
            return False
        offset = server_time - self._clock()
        # A request signed for a far day would be good on that day for whoever was sent it.
        if abs(offset) > _FARTHEST_CLOCK or abs(offset - self._clock_offset) < 1:
            return False
        self._clock_offset = offset
        return True


class _Unsigned(AuthBase):
    """Leaves a request as it is; requests would look into .netrc if there were nothing here."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


class _Signature(AuthBase):
    """Signs a request once it is prepared: what is signed is then what is sent."""

    def __init__(self, transport: Transport, digest: str) -> None:
        self._transport = transport
        self._digest = digest

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.update(self._transport.sign(str(request.method), request.path_url, self._digest))
        return request


def read_json(response: requests.Response) -> Json:
    """Read an answer's JSON object. Raises UnexpectedAnswer, PassingFailure when it breaks off."""
    content = bytearray()
    try:
        for chunk in response.iter_content(1 << 16):
            content += chunk
            if len(content) > _LONGEST_ANSWER:
                raise UnexpectedAnswer("The answer is far longer than any that an ORFEAS service gives.")
    except _BROKEN as failure:
        broken = ServiceUnreachable(f"The answer broke off: {_reason(failure)}")
        raise PassingFailure(broken) from failure
    try:
        answer = json.loads(bytes(content))
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise UnexpectedAnswer(
            f"{urlsplit(response.url).netloc} answered {response.status_code} with something that is not the API's "
            "JSON: is this the address of an ORFEAS service?"
        )
    return answer


def read_refusal(response: requests.Response) -> ServiceRefused:
    """Read the error that an answer reports; one without the API's JSON is named by its status alone.

    Raises UnexpectedAnswer for a redirect, PassingFailure when the answer breaks off.
    """
    status = response.status_code
    if status < 400:
        raise UnexpectedAnswer(
            f"The service answered {status} and pointed elsewhere; signed requests are not sent on. "
            "Give the address that it serves under."
        )
    try:
        answer = read_json(response)
    except UnexpectedAnswer:
        answer = {}
    return refusal_of(response, answer)


def refusal_of(response: requests.Response, answer: Json) -> ServiceRefused:
    """Make the error that an answer's JSON reports."""
    status, details = response.status_code, answer.get("details")
    return ServiceRefused(
        status,
        str(answer.get("code") or f"HTTP_{status}"),
        str(answer.get("error") or f"The service answered {status} {response.reason or ''}".strip()),
        str(answer.get("request_id") or response.headers.get("X-Request-ID", "")),
        details if isinstance(details, dict) else {},
        read_retry_after(response),
    )


def broken_stream(failure: requests.RequestException) -> ServiceUnreachable:
    """Make the error of an answer that went on and broke off."""
    return ServiceUnreachable(f"The answer broke off: {_reason(failure)}")


def read_retry_after(response: requests.Response) -> float | None:
    """Return the seconds of a Retry-After header, given as such or as a date; None without a usable one."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
        return max(0.0, (moment - datetime.now(moment.tzinfo)).total_seconds())
    except (ValueError, TypeError):
        return None


def _checked_base(base_url: str) -> SplitResult:
    try:
        parts = urlsplit(base_url.strip())
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment or "@" in parts.netloc:
        raise ClientError(f"{base_url!r} is not the address of a service; it looks like http://127.0.0.1:5000")
    path = parts.path.rstrip("/").removesuffix(API_PATH)
    return parts._replace(path=path + API_PATH)


def _reason(failure: Exception) -> str:
    """Return the innermost cause in a few words, without the layers of libraries around it."""
    cause: BaseException = failure
    while inner := _inner(cause):
        cause = inner
    strerror = getattr(cause, "strerror", None)
    return f"{strerror or str(cause) or type(cause).__name__}."


def _inner(failure: BaseException) -> BaseException | None:
    candidates = (getattr(failure, "reason", None), *failure.args, failure.__cause__)
    return next((candidate for candidate in candidates if isinstance(candidate, BaseException)), None)
