"""The API's calls: each takes a request apart, hands it over, and renders what comes back.

`register_agent_api(app)` puts them into any Flask app, with /openapi.json, /docs and /metrics beside them. This module
does not know how a mesh is made, where jobs are kept, or how a request is verified.
"""

from __future__ import annotations

import os
import re

from flask import Flask, Response, current_app, g, request
from flask_openapi3.blueprint import APIBlueprint

from backend.agent_auth import ANY_OPERATION, require_agent_token
from backend.api import operations as calls
from backend.api.again import submit_again
from backend.api.batch_answers import BatchAcceptedAnswer, answer_accepted_batch
from backend.api.batch_zip import batch_id_of, open_batch_zip
from backend.api.compat import compat_routes
from backend.api.cutouts import answer_cutout, cut_out
from backend.api.describing import describe
from backend.api.downloads import send_artifact
from backend.api.error_handlers import error_response, json_response, known_failures, register_error_handlers
from backend.api.event_hub import EventHub
from backend.api.event_streams import stream_events
from backend.api.file_answers import answer_files
from backend.api.following import (
    EXTENSION,
    find,
    find_batch,
    find_file,
    links,
    missing,
    outlook_of,
    why_lost,
)
from backend.api.guide import PATH as GUIDE_PATH
from backend.api.guide import guide_page
from backend.api.health import answer_health, answer_live, answer_ready
from backend.api.image_urls import ImageUrls
from backend.api.job_answers import (
    AcceptedAnswer,
    JobsAnswer,
    answer_generated,
    describe_job,
    job_failure,
)
from backend.api.job_files import add_format_once, delete_files, open_file, read_format
from backend.api.mcp.endpoint import PATH as MCP_PATH
from backend.api.mcp.endpoint import mcp_blueprint
from backend.api.me import answer_me
from backend.api.openapi import document_pages, make_document
from backend.api.pacing import tell_when
from backend.api.parameters import EventHeaders, FilePath, JobPath, LinkParameters, PageQuery, SubmitHeaders, WaitQuery
from backend.api.query import check_query, read_cursor, read_filter, read_limit, read_wait
from backend.api.request_context import give_requests_context
from backend.api.responses import DOCS_PAGE
from backend.api.submissions import Operation, Submission, Submitter, wait_for_job
from backend.api.waiting import when_changed
from backend.api.web_sockets import open_socket
from backend.api.webhook_sender import WebhookSender
from backend.auth.loopback import Caller, MetricsReaders
from backend.config import Settings
from backend.errors import ArtifactNotFound, IpNotAllowed, JobNotFound
from backend.jobs.models import Batch, Job, JobFile, Status
from backend.services import AgentServices
from backend.storage.files import discard
from backend.telemetry.logs import log_jobs
from backend.telemetry.worker_metrics import CONTENT_TYPE

PREFIX = "/api/agent"
_SUBMITTER, _IMAGE_URLS, _HUB = "agent_submitter", "agent_image_urls", "agent_events"
_OWN_PAGES = ("/openapi.json", DOCS_PAGE, "/metrics", MCP_PATH, GUIDE_PATH)

api = APIBlueprint(
    "agent_api",
    __name__,
    url_prefix=PREFIX,
    operation_id_callback=lambda *, name, path, method: name,  # noqa: ARG005
)
api.before_request(check_query)


def register_agent_api(app: Flask, services: AgentServices | None = None, *, whole_app: bool = False) -> AgentServices:
    """Put the API into an app, with /openapi.json, /docs and /metrics; return the services, not yet started.

    services : those that the environment describes when absent
    whole_app : whether request ids, security headers and errors in JSON are for every path and not for the API's alone
    Raises what AgentServices.from_settings raises.
    """
    services = services or AgentServices.from_settings(Settings.from_environment(os.environ))
    app.extensions[EXTENSION] = services
    app.extensions[_IMAGE_URLS] = image_urls = ImageUrls(services.settings, services.outgoing)
    app.extensions[_SUBMITTER] = submitter = Submitter(services, image_urls)
    app.extensions[_HUB] = hub = EventHub(services)
    services.at_end.append(hub.stop)
    covered = re.compile("" if whole_app else rf"(?:{'|'.join(map(re.escape, (PREFIX, *_OWN_PAGES)))})(?:/|$)")
    proxies = services.settings.trusted_proxies
    give_requests_context(app, services.metrics, services.resources.traces, covered, proxies)
    services.guard.init_app(app)
    register_error_handlers(app, covered)
    app.register_blueprint(api)
    sender = WebhookSender(services, app.url_map.bind(""))
    services.at_start.append(sender.start)
    services.at_end.append(sender.stop)
    app.register_blueprint(guide_page(services.settings.public_url))
    app.register_blueprint(mcp_blueprint(services, submitter, hub))
    if services.settings.compat_agent:
        app.register_blueprint(compat_routes(services, submitter))
    server = services.settings.public_url or "/"
    document = make_document(api, calls.REQUEST_MODELS, calls.ANSWER_MODELS, server)
    app.register_blueprint(document_pages(document))
    app.add_url_rule("/metrics", "service_metrics", metrics, provide_automatic_options=False)
    services.metrics.expect_requests(known_failures(app, PREFIX))
    return services


def metrics() -> Response:
    """Answer /metrics: to METRICS_TOKEN, to those addresses that METRICS_ALLOWED names, and to agents with `admin`."""
    services = _services()
    if services.guard.is_signed():
        services.guard.admit("admin")
        return Response(services.metrics.exposition(), content_type=CONTENT_TYPE)
    caller = Caller.of(request.environ, request.headers.get)
    if not MetricsReaders.from_settings(services.settings).admit(caller):
        raise IpNotAllowed("Metrics may not be read from this address.")
    return Response(services.metrics.exposition(), content_type=CONTENT_TYPE)


def services_of(app: Flask) -> AgentServices:
    """Return the services of an app that has the API."""
    services: AgentServices = app.extensions[EXTENSION]
    return services


@api.post("/generate-3d", provide_automatic_options=False, **calls.GENERATE)
@require_agent_token("generate")
def generate(header: SubmitHeaders) -> Response:
    """Make a mesh of one image."""
    return _generated(_submit("generate", header))


@api.post("/jobs/<job_id>/again", provide_automatic_options=False, **calls.AGAIN)
@require_agent_token("generate")
def again(path: JobPath, header: SubmitHeaders) -> Response:
    """Make a mesh of an earlier job's picture, with the fields that are given changed."""
    content_type, key = request.headers.get("Content-Type", ""), header.idempotency_key
    submission = submit_again(_services(), g.agent, path.job_id, g.body, content_type, key, g.request_began)
    log_jobs(*submission.submitted.job_ids)
    return _generated(submission)


def _generated(submission: Submission) -> Response:
    """Return the answer for the one job of a submission: its mesh, or that it was taken on."""
    waits, (job_id,) = submission.waits, submission.submitted.job_ids
    job = _follow(job_id, waits) if waits or submission.submitted.replayed else None
    if not waits or job is None or not job.status.finished:
        status = job.status if job else Status.QUEUED
        answer = AcceptedAnswer(job_id=job_id, status=status.value, status_url=links().status(job_id))
        return _accepted(answer)
    if job.status is Status.COMPLETED:
        return json_response(answer_generated(job, links(), outlook_of(_services(), job)))
    return error_response(job_failure(job))


@api.post("/batch", provide_automatic_options=False, **calls.BATCH)
@require_agent_token("batch")
def batch(header: SubmitHeaders) -> Response:
    """Make a mesh of each of several images."""
    submission = _submit("batch", header)
    batch_id, job_ids = submission.submitted.batch_id or "", submission.submitted.job_ids
    refused = _refused_of(batch_id) if submission.is_partial else []
    return _accepted(answer_accepted_batch(batch_id, job_ids, refused, links()))


@api.post("/cutout", provide_automatic_options=False, **calls.CUTOUT)
@require_agent_token("generate")
def cutout(header: SubmitHeaders) -> Response:
    """Cut the object out of one image, at once and without the device."""
    services, agent_id = _services(), g.agent.internal_id
    content_type = request.headers.get("Content-Type", "")
    name = cut_out(
        services, current_app.extensions[_IMAGE_URLS], agent_id, g.body, content_type, header.idempotency_key
    )
    try:
        return json_response(answer_cutout(services, agent_id, name, links().download(name)))
    except ArtifactNotFound as error:
        raise missing(services, name, agent_id, ArtifactNotFound) from error


@api.get("/status/<job_id>", provide_automatic_options=False, **calls.STATUS)
@require_agent_token("status")
def status(path: JobPath, query: WaitQuery) -> Response:
    """Report how far a job or batch is: now, or as soon as that changes."""
    seconds = read_wait(query.wait)
    found = find(_services(), path.job_id, g.agent.internal_id)
    found, waited = when_changed(_services(), found, g.agent.internal_id, seconds)
    answer = describe(_services(), found, links())
    response = json_response(answer)
    if not found.status.finished:
        tell_when(response, _services(), g.agent.internal_id, answer.eta_seconds, waited)
    return response


@api.get("/status/<job_id>/events", provide_automatic_options=False, **calls.EVENTS)
@require_agent_token("status")
def job_events(path: JobPath, header: EventHeaders) -> Response:
    """Tell of every change of a job or batch as it comes, until it is finished."""
    found = find(_services(), path.job_id, g.agent.internal_id)
    hub: EventHub = current_app.extensions[_HUB]
    return stream_events(_services(), hub, g.agent, links(), found, header.last_event_id or "")


@api.get("/events", provide_automatic_options=False, **calls.SOCKET)
@require_agent_token("status")
def events() -> Response:
    """Tell of every change of the agent's jobs as it comes, over a WebSocket."""
    hub: EventHub = current_app.extensions[_HUB]
    return open_socket(_services(), hub, g.agent, links())


# Routes tell a request for a WebSocket from others.
api.add_url_rule("/events", "events", methods=["GET"], websocket=True, provide_automatic_options=False)


@api.get("/jobs", provide_automatic_options=False, **calls.JOBS)
@require_agent_token("status")
def jobs(query: PageQuery) -> Response:
    """List the agent's jobs, newest first."""
    services, wanted = _services(), read_filter(query.status, query.label)
    page = services.store.list_jobs(g.agent.internal_id, read_cursor(query.cursor), read_limit(query.limit), wanted)
    outlooks, addresses = services.outlooks.of(page.jobs), links()
    items = tuple(describe_job(job, addresses, outlooks[job.id]) for job in page.jobs)
    return json_response(JobsAnswer(jobs=items, next_cursor=page.next_cursor))


@api.delete("/jobs/<job_id>", provide_automatic_options=False, **calls.CANCEL)
@require_agent_token("generate")
def cancel(path: JobPath) -> Response:
    """Cancel a job, or what is left of a batch: at once what waits, between two denoising steps what runs."""
    found = find(_services(), path.job_id, g.agent.internal_id)
    store = _services().store
    cancelled = store.cancel_batch if isinstance(found, Batch) else store.cancel
    now: Job | Batch = cancelled(found.id, g.agent.internal_id)
    jobs = now.jobs if isinstance(now, Batch) else [now]
    discard(_services().images, *(job.image_name for job in jobs if job.status is Status.CANCELLED))
    return json_response(describe(_services(), now, links()))


@api.get("/download/<filename>", provide_automatic_options=False, **calls.DOWNLOAD)
@require_agent_token("download", link="filename")
def download(path: FilePath, query: LinkParameters) -> Response:  # noqa: ARG001  the guard has read it
    """Send a file of a job, or all of a batch as a zip, with ETag and ranges."""
    services = _services()
    batch_id = batch_id_of(path.filename)
    return _send_file(services, path.filename) if batch_id is None else _send_zip(services, batch_id)


@api.post("/jobs/<job_id>/files", provide_automatic_options=False, **calls.ADD_FILE)
@require_agent_token("download")
def add_file(path: JobPath, header: SubmitHeaders) -> Response:
    """Make one more format of a finished mesh."""
    form = read_format(g.body, request.headers.get("Content-Type", ""))
    job = _find_job(path.job_id)
    add_format_once(_services(), job, form, header.idempotency_key)
    return json_response(answer_files(job, _services().store.files.of(job), links()))


@api.delete("/jobs/<job_id>/files", provide_automatic_options=False, **calls.DELETE_FILES)
@require_agent_token("generate")
def remove_files(path: JobPath) -> Response:
    """Delete a finished job's files and picture."""
    job = _find_job(path.job_id)
    delete_files(_services(), job)
    return json_response(answer_files(job, (), links()))


@api.get("/me", provide_automatic_options=False, **calls.ME)
@require_agent_token(ANY_OPERATION)
def me() -> Response:
    """Tell the agent what it may do, what is left of its limits, and what the service can do."""
    return json_response(answer_me(_services(), g.agent))


@api.get("/health", provide_automatic_options=False, **calls.HEALTH)
def health() -> Response:
    """Report whether the service can serve; not signed."""
    return answer_health(_services())


def _accepted(answer: AcceptedAnswer | BatchAcceptedAnswer) -> Response:
    """Return the answer for what goes on by itself: where to ask for it, and when."""
    response = json_response(answer, 202)
    response.headers["Location"] = answer.status_url
    return tell_when(response, _services(), g.agent.internal_id, None)


@api.get("/health/live", provide_automatic_options=False, **calls.LIVE)
def live() -> Response:
    """Report that this process answers; not signed."""
    return answer_live()


@api.get("/health/ready", provide_automatic_options=False, **calls.READY)
def ready() -> Response:
    """Report whether a model serves, compiled or not; not signed."""
    return answer_ready(_services())


def _services() -> AgentServices:
    return services_of(current_app)


def _send_file(services: AgentServices, name: str) -> Response:
    """Send a file of a job, or a cut-out. Raises ArtifactNotFound, Expired, ArtifactStoreUnavailable."""
    agent_id = g.agent.internal_id
    file = find_file(services, name, agent_id)
    if isinstance(file, JobFile):
        log_jobs(file.job_id)
    try:
        return send_artifact(open_file(services, file))
    except ArtifactNotFound as lost:
        made_at = (
            services.store.get(file.job_id, agent_id).finished_at if isinstance(file, JobFile) else file.created_at
        )
        raise why_lost(services, made_at, lost) from lost


def _send_zip(services: AgentServices, batch_id: str) -> Response:
    """Send the zip of a batch. Raises ArtifactNotFound, Expired, BatchUnfinished, ArtifactStoreUnavailable."""
    batch = find_batch(services, batch_id, g.agent.internal_id)
    log_jobs(batch_id)
    try:
        return send_artifact(open_batch_zip(services, batch))
    except ArtifactNotFound as lost:
        raise why_lost(services, batch.finished_at, lost) from lost


def _find_job(job_id: str) -> Job:
    """Return the agent's job of this id. Raises JobNotFound, also for a batch, and Expired."""
    found = find(_services(), job_id, g.agent.internal_id)
    if isinstance(found, Batch):
        raise JobNotFound("Files are a job's; the status of a batch names its jobs.")
    return found


def _refused_of(batch_id: str) -> list[Job]:
    """Return a batch's jobs whose images were bad when it came in. Raises JobNotFound, Expired."""
    found = find(_services(), batch_id, g.agent.internal_id)
    return [job for job in found.jobs if job.refused] if isinstance(found, Batch) else []


def _submit(operation: Operation, header: SubmitHeaders) -> Submission:
    submitter: Submitter = current_app.extensions[_SUBMITTER]
    content_type = request.headers.get("Content-Type", "")
    submission = submitter.submit(g.agent, operation, g.body, content_type, header.idempotency_key, g.request_began)
    log_jobs(*submission.submitted.job_ids)
    return submission


def _follow(job_id: str, waits: bool) -> Job | None:
    """Return a job, finished where its caller waits and may; None when nobody can say how it is."""
    try:
        if waits:
            return wait_for_job(_services(), job_id, g.agent.internal_id)
        return _services().store.get(job_id, g.agent.internal_id)
    except JobNotFound as error:
        gone = missing(_services(), job_id, g.agent.internal_id)
        gone.message = "The job that this Idempotency-Key made is over and removed; send a new key."
        raise gone from error
