"""The API's calls: each takes a request apart, hands it over, and renders what comes back.

`register_agent_api(app)` puts them into any Flask app, with /openapi.json, /docs and /metrics beside them. This module
does not know how a mesh is made, where jobs are kept, or how a request is verified.
"""

from __future__ import annotations

import os
import re

from flask import Flask, Response, current_app, g, request
from flask_openapi3.blueprint import APIBlueprint

from backend.agent_auth import require_agent_token
from backend.api import operations as calls
from backend.api.batch_answers import BatchAcceptedAnswer, BatchAnswer, answer_batch
from backend.api.downloads import send_artifact
from backend.api.error_handlers import error_response, json_response, register_error_handlers
from backend.api.following import find, links, outlook_of, poll_after, require_id
from backend.api.health import answer_health
from backend.api.job_answers import (
    AcceptedAnswer,
    JobAnswer,
    JobsAnswer,
    answer_generated,
    answer_job,
    describe_job,
    job_failure,
)
from backend.api.openapi import document_pages, make_document
from backend.api.parameters import FilePath, JobPath, PageQuery, SubmitHeaders
from backend.api.request_context import give_requests_context
from backend.api.submissions import Operation, Submitter, discard_images, wait_for_job
from backend.auth.loopback import Caller, MetricsReaders
from backend.config import Settings
from backend.errors import InvalidLimit, IpNotAllowed, JobNotFound
from backend.jobs.models import Batch, Job, Status, Submitted
from backend.jobs.outlook import Outlook
from backend.limits import MAX_PAGE_JOBS
from backend.services import AgentServices
from backend.telemetry.logs import log_jobs
from backend.telemetry.worker_metrics import CONTENT_TYPE

PREFIX = "/api/agent"
_EXTENSION = "agent_services"
_SUBMITTER = "agent_submitter"
_OWN_PAGES = ("/openapi.json", "/docs", "/metrics")

api = APIBlueprint(
    "agent_api",
    __name__,
    url_prefix=PREFIX,
    operation_id_callback=lambda *, name, path, method: name,  # noqa: ARG005
)


def register_agent_api(app: Flask, services: AgentServices | None = None, *, whole_app: bool = False) -> AgentServices:
    """Put the API into an app, with /openapi.json, /docs and /metrics; return the services, not yet started.

    services : those that the environment describes when absent
    whole_app : whether request ids, security headers and errors in JSON are for every path and not for the API's alone
    Raises what AgentServices.from_settings raises.
    """
    services = services or AgentServices.from_settings(Settings.from_environment(os.environ))
    app.extensions[_EXTENSION] = services
    app.extensions[_SUBMITTER] = Submitter(services)
    covered = re.compile("" if whole_app else rf"(?:{'|'.join(map(re.escape, (PREFIX, *_OWN_PAGES)))})(?:/|$)")
    give_requests_context(app, services.metrics, covered)
    services.guard.init_app(app)
    register_error_handlers(app, covered)
    app.register_blueprint(api)
    app.register_blueprint(document_pages(make_document(api, calls.REQUEST_MODELS, calls.ANSWER_MODELS)))
    app.add_url_rule("/metrics", "service_metrics", metrics, provide_automatic_options=False)
    return services


def metrics() -> Response:
    """Answer /metrics: to METRICS_TOKEN, and to those addresses that METRICS_ALLOWED names."""
    services = _services()
    caller = Caller.of(request.environ, request.headers.get)
    if not MetricsReaders.from_settings(services.settings).admit(caller):
        raise IpNotAllowed("Metrics may not be read from this address.")
    return Response(services.metrics.exposition(), content_type=CONTENT_TYPE)


def services_of(app: Flask) -> AgentServices:
    """Return the services of an app that has the API."""
    services: AgentServices = app.extensions[_EXTENSION]
    return services


@api.post("/generate-3d", provide_automatic_options=False, **calls.GENERATE)
@require_agent_token("generate")
def generate(header: SubmitHeaders) -> Response:
    """Make a mesh of one image."""
    submitted, waits = _submit("generate", header)
    (job_id,) = submitted.job_ids
    job = _follow(job_id, waits) if waits or submitted.replayed else None
    if not waits or job is None or not job.status.finished:
        status = job.status if job else Status.QUEUED
        answer = AcceptedAnswer(job_id=job_id, status=status.value, status_url=links().status(job_id))
        return json_response(answer, 202)
    if job.status is Status.COMPLETED:
        return json_response(answer_generated(job, links()))
    return error_response(job_failure(job))


@api.post("/batch", provide_automatic_options=False, **calls.BATCH)
@require_agent_token("batch")
def batch(header: SubmitHeaders) -> Response:
    """Make a mesh of each of several images."""
    submitted, _ = _submit("batch", header)
    batch_id = submitted.batch_id or ""
    answer = BatchAcceptedAnswer(
        batch_id=batch_id,
        job_ids=submitted.job_ids,
        total_images=len(submitted.job_ids),
        status_url=links().status(batch_id),
    )
    return json_response(answer, 202)


@api.get("/status/<job_id>", provide_automatic_options=False, **calls.STATUS)
@require_agent_token("status")
def status(path: JobPath) -> Response:
    """Report how far a job or batch is."""
    found = find(_services(), path.job_id, g.agent.agent_id)
    if isinstance(found, Batch):
        outlooks = _services().outlooks.of(found.jobs)
        answer: JobAnswer | BatchAnswer = answer_batch(found, links(), outlooks)
    else:
        answer = answer_job(found, links(), outlook_of(_services(), found))
    response = json_response(answer)
    if not found.status.finished:
        response.headers["Retry-After"] = str(poll_after(answer.eta_seconds))
    return response


@api.get("/jobs", provide_automatic_options=False, **calls.JOBS)
@require_agent_token("status")
def jobs(query: PageQuery) -> Response:
    """List the agent's jobs, newest first; their positions in the queue are reported by /status alone."""
    page = _services().store.list_jobs(g.agent.agent_id, request.args.get("cursor"), _read_limit(query.limit))
    items = tuple(describe_job(job, links(), Outlook(eta_seconds=job.eta_seconds)) for job in page.jobs)
    return json_response(JobsAnswer(jobs=items, next_cursor=page.next_cursor))


@api.delete("/jobs/<job_id>", provide_automatic_options=False, **calls.CANCEL)
@require_agent_token("generate")
def cancel(path: JobPath) -> Response:
    """Cancel a job: at once while it waits, between two denoising steps while it runs."""
    log_jobs(path.job_id)
    job = _services().store.cancel(require_id(path.job_id), g.agent.agent_id)
    if job.status is Status.CANCELLED:
        discard_images([job.image_name], _services().images)
    return json_response(answer_job(job, links(), outlook_of(_services(), job)))


@api.get("/download/<filename>", provide_automatic_options=False, **calls.DOWNLOAD)
@require_agent_token("download")
def download(path: FilePath) -> Response:
    """Send the file of a mesh, with ETag and ranges."""
    services = _services()
    job = services.store.get_by_artifact(path.filename, g.agent.agent_id)
    log_jobs(job.id)
    return send_artifact(services.artifacts.open(path.filename))


@api.get("/health", provide_automatic_options=False, **calls.HEALTH)
def health() -> Response:
    """Report whether the service can serve; not signed."""
    return answer_health(_services())


def _services() -> AgentServices:
    return services_of(current_app)


def _submit(operation: Operation, header: SubmitHeaders) -> tuple[Submitted, bool]:
    submitter: Submitter = current_app.extensions[_SUBMITTER]
    content_type = request.headers.get("Content-Type", "")
    submitted, waits = submitter.submit(g.agent, operation, g.body, content_type, header.idempotency_key)
    log_jobs(*submitted.job_ids)
    return submitted, waits


def _follow(job_id: str, waits: bool) -> Job | None:
    """Return a job, finished where its caller waits and may; None when nobody can say how it is."""
    try:
        if waits:
            return wait_for_job(_services(), job_id, g.agent.agent_id)
        return _services().store.get(job_id, g.agent.agent_id)
    except JobNotFound as error:
        raise JobNotFound("The job that this Idempotency-Key made is over and removed; send a new key.") from error


def _read_limit(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 3 and 1 <= int(text) <= MAX_PAGE_JOBS):
        raise InvalidLimit
    return int(text)
