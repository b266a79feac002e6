"""The guard in front of every agent's request: who sent it, whether it may be sent, and what its body really is.

`guard.init_app(app)` once, `@require_agent_token("generate")` on a view. The checks and their order are api.md's. This
module does not know what a request asks for, or how an error is rendered.
"""

from __future__ import annotations

import os
import secrets
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import wraps
from http import HTTPStatus
from typing import ParamSpec, TypeVar

from flask import Flask, Response, current_app, g, request

from backend.auth.agents import MAX_KEYS, OPERATIONS, AgentConfig, AgentDefaults, AgentRegistry
from backend.auth.audit_log import AuditEntry, AuditLog
from backend.auth.bearer_tokens import CHALLENGE, HEADER, TOKEN_MARK, has_token, hash_of, read_token, require_safe_way
from backend.auth.client_address import IPAddress, client_address, is_allowed
from backend.auth.clock_jumps import SignedAt
from backend.auth.hmac_signing import Signed, sign_request, signature_matches, split_target
from backend.auth.links import EXPIRES, SIGNATURE, LinkQuery, SignedLinks
from backend.auth.loopback import Caller, is_from_here
from backend.auth.nonces import NonceStore
from backend.auth.rate_limits import RateState, RequestLimits
from backend.auth.request_body import BodySlots, has_body, spool_body
from backend.auth.rfc9421 import HEADER_INPUT
from backend.auth.rfc9421 import HEADER_SIGNATURE as HEADER_MESSAGE_SIGNATURE
from backend.auth.signed_request import read_signed, target_of
from backend.config import Settings
from backend.errors import (
    AgentDisabled,
    AuthExpired,
    AuthInvalid,
    AuthMissing,
    AuthReplayed,
    ConfigurationError,
    IpNotAllowed,
    OperationNotAllowed,
    RetryLater,
    ServiceError,
)
from backend.jobs.models import Clock
from backend.telemetry.logs import logged_jobs
from orfeas_client.signing import HEADER_AGENT, HEADER_SIGNATURE

__all__ = ["AgentConfig", "AgentGuard", "AgentRegistry", "require_agent_token", "sign_request", "verify"]

LOCAL_AGENT_ID = "local"
"""Who calls when AGENT_AUTH_ENABLED is false."""

ANY_OPERATION = "any"
"""What a view asks for that every agent may call."""

TOOL_CALL = "mcp"
"""What /mcp asks for, which every agent may call: each of its tools asks for an operation of its own."""

_GRANTED_TO_ALL = (ANY_OPERATION, TOOL_CALL)
SIGNED, TOKEN, LINK = "signature", "token", "link"
"""By what a request may be admitted."""

_SIGNING_HEADERS = (HEADER_AGENT, HEADER_SIGNATURE, HEADER_INPUT, HEADER_MESSAGE_SIGNATURE)
_FOLLOWING_METHODS = ("GET", "HEAD", "DELETE")
"""Methods that make nothing: they follow, fetch or cancel."""

_EXTENSION = "agent_guard"
_MARK, _LINK_MARK = "agent_operation", "agent_link"
_Arguments = ParamSpec("_Arguments")
_Answer = TypeVar("_Answer")


def require_agent_token(
    operation: str, *, link: str = ""
) -> Callable[[Callable[_Arguments, _Answer]], Callable[_Arguments, _Answer]]:
    """Let a view be called only by agents that were granted the operation; ANY_OPERATION is granted to all.

    link : the view's argument that names a file, where a signed link to that does in place of the agent's headers

    The view finds the agent in `g.agent` and the verified body in `g.body` (a binary file, at its start);
    `request.stream` reads the same file. The guard runs before any other decorator of the view, as long as those keep
    its attributes (functools.wraps does).
    """
    if operation not in (*OPERATIONS, *_GRANTED_TO_ALL):
        raise ConfigurationError(f"There is no operation {operation!r}; there are {', '.join(OPERATIONS)}.")

    def decorate(view: Callable[_Arguments, _Answer]) -> Callable[_Arguments, _Answer]:
        @wraps(view)
        def guarded(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Answer:
            # A view that is called otherwise than by its route was not seen before the request.
            if g.get("agent_operation") != operation:
                _current_guard().admit(operation, link)
            return view(*args, **kwargs)

        setattr(guarded, _MARK, operation)
        setattr(guarded, _LINK_MARK, link)
        return guarded

    return decorate


def verify(
    signed: Signed, agent: AgentConfig | None, now: datetime, tolerance: int, dummy_keys: Sequence[str]
) -> AgentConfig:
    """Return the agent, when its key made the signature and the signature's time is neither over nor far away.

    tolerance : seconds that the timestamp may be from now, either way; an end that the signature names holds besides
    agent : the one of the claimed id, None when there is none; dummy_keys : MAX_KEYS keys that nobody has
    Raises AuthInvalid alike for an unknown agent and a wrong signature, after as much work; AuthExpired.
    """
    keys = agent.api_keys if agent else ()
    if not signature_matches(signed, keys, dummy_keys[len(keys) :]) or agent is None:
        raise AuthInvalid(details=signed.evidence)
    if abs(now.timestamp() - int(signed.timestamp)) > tolerance:
        raise AuthExpired(details={"server_time": int(now.timestamp()), "tolerance_seconds": tolerance})
    if signed.expires is not None and now.timestamp() > signed.expires:
        raise AuthExpired("The signature's own end is over.", details={"server_time": int(now.timestamp())})
    return agent


@dataclass
class Visit:
    """Collects what the audit log will say of the request at hand."""

    operation: str
    address: IPAddress | None
    credential: str
    agent_id: str = ""
    verified: bool = False
    outcome: str = ServiceError.code
    status: int = 500


class AgentGuard:
    """Checks requests, keeps their bodies while they last, and writes the audit log."""

    def __init__(
        self,
        settings: Settings,
        registry: AgentRegistry | None,
        nonces: NonceStore,
        limits: RequestLimits,
        audit: AuditLog,
        clock: Clock,
        links: SignedLinks | None = None,
    ) -> None:
        if settings.auth_enabled and registry is None:
            raise ConfigurationError("A guard that checks signatures needs a registry of agents.")
        self._settings = settings
        self._registry = registry
        self._nonces = nonces
        self._limits = limits
        self._audit = audit
        self._clock = clock
        self._links = links
        self._spool_dir = settings.spool_dir
        self._bodies = BodySlots()
        self._max_body_bytes = {name: settings.max_body_bytes(name) for name in (*OPERATIONS, *_GRANTED_TO_ALL)}
        self._tolerance = timedelta(seconds=settings.timestamp_tolerance)
        self._nonce_ttl = timedelta(seconds=settings.nonce_ttl)
        self._dummy_keys = tuple(secrets.token_urlsafe(32) for _ in range(MAX_KEYS))
        self._local = AgentConfig(
            LOCAL_AGENT_ID, self._dummy_keys, operations=frozenset(OPERATIONS), max_active_jobs=settings.max_active_jobs
        )

    @classmethod
    def from_settings(
        cls, settings: Settings, nonces: NonceStore, clock: Clock, links: SignedLinks | None = None
    ) -> AgentGuard:
        """Return the guard that the settings describe; links : what makes those that are honoured, None for none.

        Raises AgentsFileError without a usable agents file.
        """
        defaults = AgentDefaults(settings.rate_limit, settings.batch_rate_limit, settings.max_active_jobs)
        registry = AgentRegistry(settings.agents_file, defaults) if settings.auth_enabled else None
        audit = AuditLog(settings.audit_log, clock)
        return cls(settings, registry, nonces, RequestLimits(settings), audit, clock, links)

    def removed_agents(self) -> frozenset[str]:
        """Return the internal ids of agents that were removed, as AgentRegistry does; none without signatures."""
        return self._registry.removed() if self._registry else frozenset()

    def agent_of(self, internal_id: str) -> AgentConfig | None:
        """Return the agent whose jobs belong to this id; None where there is none, or no agents file."""
        return self._registry.get_by_internal_id(internal_id) if self._registry else None

    def count_batch(self, agent: AgentConfig) -> None:
        """Count a batch that comes in otherwise than by the call for it. Raises RateLimited."""
        if self._settings.auth_enabled:
            self._limits.admit_batch(agent)

    def may_still(self, agent: AgentConfig, operation: str) -> bool:
        """Return whether an agent that was let in a while ago would be let in now, by what the agents file says."""
        now = self.agent_of(agent.internal_id)
        return self._registry is None or (now is not None and now.enabled and operation in now.operations)

    def is_signed(self) -> bool:
        """Return whether the request at hand is meant to be an agent's, by either scheme or a token, to be checked."""
        signed = any(name in request.headers for name in (HEADER_AGENT, HEADER_INPUT))
        # Others have tokens of their own.
        is_ours = self._settings.bearer_tokens and f" {TOKEN_MARK}" in request.headers.get(HEADER, "")
        return self._settings.auth_enabled and (signed or is_ours)

    def rate_states(self, agent: AgentConfig) -> dict[str, RateState]:
        """Return what is left of an agent's rate limits, by their names; nothing of the local agent, which has none."""
        return {} if agent is self._local else self._limits.states(agent)

    def write_audit_sums(self, *, all_of_them: bool = False) -> None:
        """Write what the audit log has summed, as AuditLog.write_sums does."""
        self._audit.write_sums(all_of_them=all_of_them)

    def init_app(self, app: Flask) -> None:
        """Guard an app's marked views: needed once, after the app's own before_request hooks."""
        app.extensions[_EXTENSION] = self
        self._limits.init_app(app)
        app.before_request(self._admit_marked)
        app.after_request(self._note_answer)
        app.teardown_request(self._leave)

    def admit(self, operation: str, link: str = "") -> None:
        """Check the request at hand in api.md's order and fill `g`; later calls check the operation alone.

        link : as require_agent_token's. Raises the error of the first check that fails.
        """
        if "agent" in g:
            _require_operation(g.agent, operation)
            return
        with self.visit(operation, self._credential(link)) as visit:
            agent = self._check(visit, link) if self._settings.auth_enabled else self._check_local(visit, link)
        g.agent, g.agent_operation = agent, operation

    @contextmanager
    def visit(self, operation: str, credential: str) -> Iterator[Visit]:
        """Have the audit log tell of the request at hand, which the block lets in, or refuses with a ServiceError.

        credential : by what it is to be let in; the block says whose it was
        """
        peer, proxies = request.environ.get("REMOTE_ADDR", ""), self._settings.trusted_proxies
        address = client_address(peer, request.headers.get("X-Forwarded-For", ""), proxies)
        visit = g.agent_visit = Visit(operation, address, credential)
        try:
            yield visit
        except ServiceError as error:
            visit.outcome = error.code
            raise
        visit.outcome = "admitted"

    def admit_from_here(self, agent_id: str, operation: str) -> None:
        """Let the request at hand, which has no credential, act for an agent: this machine's own alone, past no proxy.

        Raises IpNotAllowed, AuthInvalid for an agent that is not there, and what `admit` raises of an agent's rights.
        """
        with self.visit(operation, "") as visit:
            if not is_from_here(Caller.of(request.environ, request.headers.get), self._settings.trusted_proxies):
                raise IpNotAllowed("Without a token only this machine itself may call, at localhost and past no proxy.")
            agent = self._registry.get(agent_id) if self._registry else self._local
            if agent is None:
                raise AuthInvalid("There is no such agent as COMPAT_AGENT names.")
            visit.agent_id = agent.agent_id
            self._require_admissible(visit, agent)
            if agent is not self._local:
                self._limits.admit_agent(agent, operation, follows=request.method in _FOLLOWING_METHODS)
            self._take_body(operation, None)
        g.agent, g.agent_operation = agent, operation

    def _credential(self, link: str) -> str:
        """Return by what the request at hand is to be admitted: one thing alone."""
        if link and self._links is not None and _link_query().is_one:
            return LINK
        if not self._settings.auth_enabled:
            return ""
        by_token = self._settings.bearer_tokens and has_token(request.headers.get(HEADER))
        return TOKEN if by_token else SIGNED

    def _check(self, visit: Visit, link: str) -> AgentConfig:
        digest: str | None = None
        try:
            if visit.credential == LINK:
                agent = self._vouch_for_link(visit, link, self._registered)
            elif visit.credential == TOKEN:
                agent = self._vouch_for_token(visit)
            else:
                signed, agent = self._vouch(visit)
                digest = signed.body_digest
        except RetryLater:
            raise
        except ServiceError:
            self._limits.admit_refusal(str(visit.address or ""))
            raise
        if visit.credential == LINK:
            self._limits.admit_link(agent, str(visit.address or ""))
        else:
            self._limits.admit_agent(agent, visit.operation, follows=request.method in _FOLLOWING_METHODS)
        with self._bodies.one(agent.agent_id) if has_body(request.environ) else nullcontext():
            self._take_body(visit.operation, digest)
        return agent

    def _vouch(self, visit: Visit) -> tuple[Signed, AgentConfig]:
        signed = read_signed(request.environ, request.headers.get, self._settings.trusted_proxies)
        now = self._clock()
        known = self._registry.get(signed.agent_id) if self._registry else None
        # An id that nobody has is not written down: it may be a key in the wrong header.
        visit.agent_id = known.agent_id if known else ""
        agent = verify(signed, known, now, self._settings.timestamp_tolerance, self._dummy_keys)
        self._require_admissible(visit, agent)
        signed_at = SignedAt(datetime.fromtimestamp(int(signed.timestamp), UTC), self._tolerance)
        if not self._nonces.remember(agent.agent_id, signed.nonce, now, self._nonce_ttl, signed_at):
            raise AuthReplayed
        return signed, agent

    def _vouch_for_token(self, visit: Visit) -> AgentConfig:
        header, environ, proxies = request.headers.get, request.environ, self._settings.trusted_proxies
        require_safe_way(environ["wsgi.url_scheme"], Caller.of(environ, header), header, proxies)
        signed = next((name for name in _SIGNING_HEADERS if header(name) is not None), None)
        if signed is not None:
            raise AuthMissing(
                f"Send a token or a signature, not both: {HEADER} or {signed}.", details={"header": signed}
            )
        token = read_token(header(HEADER, ""))
        agent = self._registry.get_by_token(hash_of(token)) if self._registry else None
        if agent is None:
            raise AuthInvalid("This token is not an agent's: it was mistyped, or revoked.")
        visit.agent_id = agent.agent_id
        self._require_admissible(visit, agent)
        return agent

    def _vouch_for_link(self, visit: Visit, link: str, agent_of: Callable[[str], AgentConfig | None]) -> AgentConfig:
        assert self._links is not None  # noqa: S101
        path, _ = split_target(target_of(request.environ))
        filename = str((request.view_args or {}).get(link, ""))
        agent = self._links.check(path, filename, _link_query(), agent_of)
        visit.agent_id = agent.agent_id
        self._require_admissible(visit, agent)
        return agent

    def _registered(self, internal_id: str) -> AgentConfig | None:
        return self._registry.get_by_internal_id(internal_id) if self._registry else None

    def _require_admissible(self, visit: Visit, agent: AgentConfig) -> None:
        """See that an agent that was made out may do what is asked, from where it is."""
        visit.verified = True
        if not agent.enabled:
            raise AgentDisabled
        if agent.allowed_ips and not is_allowed(visit.address, agent.allowed_ips):
            raise IpNotAllowed
        _require_operation(agent, visit.operation)

    def _check_local(self, visit: Visit, link: str) -> AgentConfig:
        if visit.credential == LINK:
            self._vouch_for_link(visit, link, {self._local.internal_id: self._local}.get)
        visit.agent_id = LOCAL_AGENT_ID
        # A server may have been bound elsewhere than the settings say.
        if not is_from_here(Caller.of(request.environ, request.headers.get), self._settings.trusted_proxies):
            raise IpNotAllowed("Without signatures only this machine itself may call, at localhost and past no proxy.")
        self._take_body(visit.operation, None)
        return self._local

    def _take_body(self, operation: str, digest: str | None) -> None:
        environ = request.environ
        most = self._settings.max_json_bytes if request.is_json else sys.maxsize
        g.body, size = spool_body(environ, self._spool_dir, min(most, self._max_body_bytes[operation]), digest)
        # Whatever parses the request from here on reads the bytes that were verified.
        environ["wsgi.input"], environ["wsgi.input_terminated"] = g.body, True
        environ["CONTENT_LENGTH"] = str(size)
        environ.pop("HTTP_TRANSFER_ENCODING", None)

    def _admit_marked(self) -> None:
        if request.routing_exception is not None or request.endpoint is None:
            return
        # Flask answers OPTIONS by itself, without the view.
        if request.method == "OPTIONS" and getattr(request.url_rule, "provide_automatic_options", False):
            return
        view = current_app.view_functions[request.endpoint]
        operation = getattr(view, _MARK, None)
        if operation is not None:
            self.admit(operation, getattr(view, _LINK_MARK, ""))

    def _note_answer(self, response: Response) -> Response:
        if "agent_visit" in g:
            g.agent_visit.status = response.status_code
            if response.status_code == HTTPStatus.UNAUTHORIZED and self._settings.bearer_tokens:
                response.headers.add("WWW-Authenticate", CHALLENGE)
        return response

    def _leave(self, _error: BaseException | None) -> None:
        visit: Visit | None = g.pop("agent_visit", None)
        body = g.pop("body", None)
        # Requests made inside one app context share `g`: nothing of an agent may outlive its request.
        g.pop("agent", None)
        g.pop("agent_operation", None)
        if body is not None:
            body.close()
        if visit is not None:
            self._audit.write(
                AuditEntry(
                    request_id=g.get("request_id") or uuid.uuid4().hex,
                    agent=visit.agent_id,
                    verified=visit.verified,
                    operation=visit.operation,
                    outcome=visit.outcome,
                    status=visit.status,
                    address=str(visit.address or ""),
                    method=request.method,
                    path=request.path,
                    job_ids=logged_jobs(),
                    credential=visit.credential,
                )
            )


def _current_guard() -> AgentGuard:
    guard = current_app.extensions.get(_EXTENSION)
    if not isinstance(guard, AgentGuard):
        raise ConfigurationError("This app has no guard: call AgentGuard.init_app(app) when it is made.")
    return guard


def _require_operation(agent: AgentConfig, operation: str) -> None:
    if operation not in (*_GRANTED_TO_ALL, *agent.operations):
        raise OperationNotAllowed(details={"operation": operation})


def _link_query() -> LinkQuery:
    return LinkQuery(request.args.getlist(EXPIRES), request.args.getlist(SIGNATURE))


def main() -> int:
    """Run the command line of `orfeas agents`."""
    from backend.auth.cli import run

    return run(sys.argv[1:], os.environ, sys.stdout)


if __name__ == "__main__":
    sys.exit(main())
