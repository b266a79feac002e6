"""The calls that existing Hunyuan3D clients make, where the operator has named an agent for them (COMPAT_AGENT).

`/generate`, `/send` and `/status/<uid>`: JSON in, a mesh or its base64 out. Their jobs are that agent's, who is let in
without a credential from this machine alone, and from elsewhere by its token. This module does not know how a job is
run.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from flask import Blueprint, Response, g, jsonify

from backend.api.downloads import send_artifact
from backend.api.following import find
from backend.api.job_answers import job_failure
from backend.api.job_files import open_file
from backend.api.json_form import form_of, read_object
from backend.api.multipart import Form, FormLimits
from backend.api.submissions import Submitter, wait_for_job
from backend.errors import (
    ArtifactNotFound,
    Expired,
    FileTooLarge,
    GpuBusy,
    InvalidForm,
    InvalidSteps,
    JobNotFound,
    MissingImage,
    OperationNotAllowed,
    ServiceError,
)
from backend.jobs.models import Batch, Job, JobFile, Status
from backend.limits import MAX_STEPS
from backend.services import AgentServices
from backend.telemetry.logs import log_jobs

_MAX_ANSWER = 64_000_000
"""Bytes of a mesh in base64."""

_NAMES: Mapping[str, str] = {
    "seed": "seed",
    "octree_resolution": "octree_resolution",
    "guidance_scale": "guidance_scale",
    "type": "format",
}
"""The fields that are ours under another name, or the same."""

_KNOWN = frozenset({*_NAMES, "image", "num_inference_steps", "texture", "face_count", "remove_background"})


def compat_routes(services: AgentServices, submitter: Submitter) -> Blueprint:
    """Return the calls as a blueprint for the root of an app."""
    routes = Blueprint("compat", __name__)
    agent_id = services.settings.compat_agent

    def admit(operation: str) -> None:
        if services.guard.is_signed():
            services.guard.admit(operation)
            if g.agent.agent_id != agent_id:
                raise OperationNotAllowed("These calls are for the agent that COMPAT_AGENT names.")
        else:
            services.guard.admit_from_here(agent_id, operation)

    def submitted() -> str:
        admit("generate")
        with ExitStack() as opened:
            form, steps = _read(services, opened)
            made = submitter.submit_form(g.agent, "generate", form, None, g.request_began, opened, steps)
        (job_id,) = made.submitted.job_ids
        log_jobs(job_id)
        return job_id

    def generate() -> Response:
        job = wait_for_job(services, submitted(), g.agent.internal_id)
        if job is None or not job.status.finished:
            raise GpuBusy("The mesh is not done yet: use /send and /status, which need not wait.")
        if job.status is not Status.COMPLETED:
            raise job_failure(job)
        return send_artifact(open_file(services, _mesh_of(services, job)))

    def send() -> Response:
        return jsonify(uid=str(uuid.UUID(submitted())))

    def status(uid: str) -> Response:
        admit("status")
        return jsonify(_state_of(services, uid))

    routes.add_url_rule("/generate", view_func=generate, methods=["POST"], provide_automatic_options=False)
    routes.add_url_rule("/send", view_func=send, methods=["POST"], provide_automatic_options=False)
    routes.add_url_rule("/status/<uid>", view_func=status, methods=["GET"], provide_automatic_options=False)
    routes.register_error_handler(ServiceError, _refusal)
    return routes


def _refusal(error: ServiceError) -> tuple[Response, int]:
    """Answer any failure as those clients know it."""
    return jsonify(text=error.message, error_code=1), 404


def _read(services: AgentServices, opened: ExitStack) -> tuple[Form, int | None]:
    """Return the request at hand as a form of /generate-3d, and its steps. Raises InvalidForm, MissingImage, …."""
    given = {name: value for name, value in read_object(g.body).items() if value is not None}
    if "mesh" in given:
        raise InvalidForm("A mesh is not textured here: colours are taken from a picture. Send it as `image`.")
    if "image" not in given:
        what = "Words alone make no mesh here" if "text" in given else "There is no picture"
        raise MissingImage(f"{what}: send a picture in base64 as `image`.")
    known = {name: value for name, value in given.items() if name in _KNOWN}
    steps = _steps(known.pop("num_inference_steps", None))
    limits = FormLimits("image", 1, spool_dir=services.settings.spool_dir)
    form = form_of(known, g.body, limits, opened)
    return Form(_fields(form.fields), form.files), steps


def _fields(texts: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Return the fields of /generate-3d that stand for those of these clients."""
    fields = {ours: texts[theirs] for theirs, ours in _NAMES.items() if theirs in texts}
    is_coloured = texts.get("texture") == ("true",)
    faces = texts.get("face_count", ("40000",)) if is_coloured else ("none",)
    keeps = texts.get("remove_background") == ("false",)
    return {
        **fields,
        "color": ("auto" if is_coloured else "none",),
        "target_faces": faces,
        "remove_background": ("never" if keeps else "auto",),
        "preview": ("false",),
    }


def _steps(value: object) -> int | None:
    """Return the steps that are asked for, of which turbo checkpoints need few; None for the checkpoint's own."""
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_STEPS:
        raise InvalidSteps(f"num_inference_steps must be a whole number from 1 to {MAX_STEPS}.")
    return value


def _state_of(services: AgentServices, uid: str) -> dict[str, Any]:
    try:
        job = find(services, uuid.UUID(uid).hex, g.agent.internal_id)
    except (ValueError, JobNotFound):
        # As the servers that these clients know answer what they never heard of.
        return {"status": "processing"}
    except Expired as error:
        return {"status": "error", "message": error.message}
    if isinstance(job, Batch) or not job.status.finished:
        return {"status": "processing"}
    if job.status is not Status.COMPLETED:
        return {"status": "error", "message": job_failure(job).message}
    try:
        return {"status": "completed", "model_base64": _base64_of(services, _mesh_of(services, job))}
    except (ArtifactNotFound, FileTooLarge) as error:
        return {"status": "error", "message": error.message}


def _mesh_of(services: AgentServices, job: Job) -> JobFile:
    """Return a completed job's mesh. Raises ArtifactNotFound when it was deleted."""
    found = next((file for file in services.store.files.of(job) if file.kind == "mesh"), None)
    if found is None:
        raise ArtifactNotFound
    return found


def _base64_of(services: AgentServices, file: JobFile) -> str:
    artifact = open_file(services, file)
    with artifact.stream as stream:
        if artifact.size * 4 // 3 > _MAX_ANSWER:
            raise FileTooLarge("The mesh is too large for an answer in base64: ask /generate, or for fewer faces.")
        return base64.b64encode(stream.read()).decode()
