"""How a job or batch is found for its agent, what is known of its future, and when to ask again.

This module does not know what an answer looks like.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from flask import current_app, g, request
from werkzeug.routing import MapAdapter

from backend.api.responses import Links
from backend.auth.agents import AgentConfig
from backend.errors import ArtifactNotFound, Expired, JobNotFound, ServiceError
from backend.jobs.cutouts import Cutout
from backend.jobs.ids import is_job_id
from backend.jobs.models import Batch, Job, JobFile
from backend.jobs.outlook import Outlook
from backend.services import AgentServices
from backend.telemetry.logs import log_jobs

EXTENSION = "agent_services"
"""Under which name an app has its services."""


def find(services: AgentServices, job_id: str, agent_id: str) -> Job | Batch:
    """Return an agent's job or batch of this id. Raises JobNotFound, Expired."""
    log_jobs(job_id)
    if not is_job_id(job_id):
        raise JobNotFound
    try:
        return services.store.find(job_id, agent_id)
    except JobNotFound as error:
        raise missing(services, job_id, agent_id) from error


def find_batch(services: AgentServices, batch_id: str, agent_id: str) -> Batch:
    """Return the agent's batch whose zip is asked for. Raises ArtifactNotFound, Expired."""
    log_jobs(batch_id)
    try:
        return services.store.get_batch(batch_id, agent_id)
    except JobNotFound as error:
        raise missing(services, batch_id, agent_id, ArtifactNotFound) from error


def find_file(services: AgentServices, name: str, agent_id: str) -> JobFile | Cutout:
    """Return the agent's file of this name, a job's or a cut-out. Raises ArtifactNotFound, Expired."""
    try:
        return services.store.files.find(name, agent_id)
    except ArtifactNotFound as error:
        cutout = services.cutouts.find(name, agent_id)
        if cutout is None:
            raise missing(services, name, agent_id, ArtifactNotFound) from error
        return cutout


def why_lost(services: AgentServices, finished_at: datetime | None, lost: ArtifactNotFound) -> ServiceError:
    """Return the error for a file that is gone although its job is there: the janitor removes files first."""
    expires_at = links().expiry(finished_at)
    if expires_at is None or expires_at > services.clock():
        return lost
    return _expired(expires_at)


def missing(
    services: AgentServices, name: str, agent_id: str, unknown: type[ServiceError] = JobNotFound
) -> ServiceError:
    """Return why the agent's job, batch or file of this name is not there: Expired, or the error for a name unknown."""
    expired_at = services.store.expired_at(name, agent_id)
    return unknown() if expired_at is None else _expired(expired_at)


def _expired(at: datetime) -> Expired:
    return Expired(details={"expired_at": at.isoformat()})


def outlook_of(services: AgentServices, job: Job) -> Outlook:
    """Return a job's position in the queue and its ETA; of many jobs services.outlooks knows them at once."""
    return services.outlooks.of([job])[job.id]


def links() -> Links:
    """Return where this app's jobs and files are found, and until when, for the agent of the request at hand."""
    return links_of(current_app.extensions[EXTENSION], g.agent, current_app.create_url_adapter(request))


def links_of(
    services: AgentServices, agent: AgentConfig, urls: MapAdapter | None, until: datetime | None = None
) -> Links:
    """Return where an agent's jobs and files are found, outside of any request, too.

    urls : the app's routes, bound to where it is mounted; until : when links end, in place of LINK_TTL_SECONDS from now
    """
    assert urls is not None  # noqa: S101  only an app with a subdomain to match has none
    kept, origin = timedelta(hours=services.settings.artifact_ttl_hours), services.settings.public_url

    def path_of(name: str) -> str:
        return urls.build("agent_api.download", {"filename": name})

    def sign(name: str) -> str | None:
        link = services.links.sign(path_of(name), agent, until)
        return None if link is None else origin + link

    return Links(
        # Never by the Host header: it says what the caller likes.
        status=lambda job_id: origin + urls.build("agent_api.status", {"job_id": job_id}),
        download=lambda name: origin + path_of(name),
        signed=sign,
        expiry=lambda finished_at: None if finished_at is None else finished_at + kept,
    )
