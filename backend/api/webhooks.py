"""Webhooks: where an agent may have them sent, what they say, and how they are signed (Standard Webhooks 1.0).

This module does not know when one is sent, or what came of it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from datetime import datetime

from werkzeug.routing import MapAdapter

from backend.api.describing import describe
from backend.api.following import links_of
from backend.auth.agent_config import SECRET_MARK, AgentConfig
from backend.config import Settings
from backend.errors import InvalidWebhookUrl, JobNotFound
from backend.jobs.models import Batch, Job
from backend.jobs.webhooks import NewDelivery
from backend.outgoing import Destination, OutgoingPolicy, OutgoingRefused
from backend.services import AgentServices

_DOTS = re.compile(r"/(?:\.|%2e){1,2}(?:/|\Z)", re.IGNORECASE)


def require_webhook(agent: AgentConfig, url: str) -> None:
    """See that an agent may have webhooks sent to an address. Raises InvalidWebhookUrl."""
    details = {"field": "webhook_url", "allowed": list(agent.webhook_prefixes)}
    try:
        asked = Destination.of(url)
    except OutgoingRefused as refusal:
        raise InvalidWebhookUrl(f"webhook_url cannot be called. {refusal}", details=details) from refusal
    if not agent.webhook_secret:
        raise InvalidWebhookUrl(
            "This agent has no webhook secret: `orfeas agents update ID --webhook-secret new` makes one.",
            details=details,
        )
    if not any(_is_below(asked, Destination.of(prefix)) for prefix in agent.webhook_prefixes):
        raise InvalidWebhookUrl(details=details)


def _is_below(asked: Destination, prefix: Destination) -> bool:
    """Return whether an address begins with another: the same scheme, host and port, and its path by whole segments."""
    if (asked.scheme, asked.host, asked.port) != (prefix.scheme, prefix.host, prefix.port):
        return False
    path, start = asked.target.partition("?")[0], prefix.target.partition("?")[0].rstrip("/")
    return not _DOTS.search(path) and (path == start or path.startswith(f"{start}/"))


def policy_of(settings: Settings) -> OutgoingPolicy:
    """Return which addresses webhooks may be sent to, beyond what their agents' prefixes say."""
    hosts = frozenset(host.strip().lower() for host in settings.webhook_private_hosts.split(",") if host.strip())
    return OutgoingPolicy(schemes=("https", "http"), ports=None, private_hosts=hosts)


def deliveries_of(services: AgentServices, job: Job, agent: AgentConfig, urls: MapAdapter) -> list[NewDelivery]:
    """Return what is to be sent of a job's end: of the job, and of its batch where that has ended with it.

    urls : the app's routes. Raises StoreUnavailable.
    """
    assert job.webhook_url is not None  # noqa: S101  only such jobs are asked for
    made = [_delivery(services, job, f"job.{job.status.value}", agent, urls, job.webhook_url)]
    if job.batch_id is not None and services.webhooks.is_last_of_batch(job):
        try:
            batch = services.store.get_batch(job.batch_id, job.agent_id)
        except JobNotFound:
            return made
        made.append(_delivery(services, batch, "batch.finished", agent, urls, job.webhook_url))
    return made


def _delivery(
    services: AgentServices, found: Job | Batch, type: str, agent: AgentConfig, urls: MapAdapter, url: str
) -> NewDelivery:
    finished_at = found.finished_at or services.clock()
    until = links_of(services, agent, urls).expiry(finished_at)
    data = describe(services, found, links_of(services, agent, urls, until)).model_dump(mode="json")
    body = {"type": type, "timestamp": finished_at.isoformat(), "data": data}
    return NewDelivery(agent.internal_id, found.id, type, url, json.dumps(body, ensure_ascii=False))


def signing_headers(secret: str, delivery_id: str, body: bytes, now: datetime) -> dict[str, str]:
    """Return the headers that say what a delivery is, when it is sent, and that it comes from here."""
    key = base64.b64decode(secret.removeprefix(SECRET_MARK))
    message_id, timestamp = f"msg_{delivery_id}", str(int(now.timestamp()))
    digest = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
        "Content-Type": "application/json",
    }
