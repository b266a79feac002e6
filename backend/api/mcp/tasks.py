"""Long calls as tasks, for clients that know the protocol's extension for them: a handle at once, the result later.

A task is the job or batch that the call made, under its own id. So it is kept where jobs are, outlives whoever made it,
and any process answers for it. This module does not know what a call's result looks like, or how a message is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from backend.api.describing import describe, jobs_of
from backend.api.following import find
from backend.api.mcp import protocol
from backend.api.mcp.calls import ToolCaller
from backend.api.pacing import poll_after
from backend.auth.rate_limits import rate_state
from backend.errors import Expired, JobNotFound, ServiceError
from backend.jobs.ids import is_job_id
from backend.jobs.models import Batch, Job, Status

EXTENSION = "io.modelcontextprotocol/tasks"
GET, UPDATE, CANCEL = "tasks/get", "tasks/update", "tasks/cancel"
METHODS: Mapping[str, frozenset[str]] = {
    # Who may make a job is told what became of it, by the plain call, too.
    GET: frozenset({"generate", "batch", "status"}),
    UPDATE: frozenset({"generate", "batch", "status"}),
    CANCEL: frozenset({"generate"}),
}
"""Which of an agent's operations lets it call each method: any one of these."""

_MAKERS = ("generate_3d", "generate_batch")
_STATUSES = {
    Status.QUEUED: "working",
    Status.PROCESSING: "working",
    Status.COMPLETED: "completed",
    # `failed` is for calls that ended as an error of the protocol; a tool's own failure is a result.
    Status.FAILED: "completed",
    Status.CANCELLED: "cancelled",
}
_UNKNOWN = "There is no such task."
_MILLISECOND = timedelta(milliseconds=1)

Tell = Callable[[Job | Batch], Mapping[str, Any]]
"""Returns the result that a plain call would have ended with. Raises StoreUnavailable, ArtifactStoreUnavailable."""


def are_wanted(message: protocol.Message) -> bool:
    """Return whether a call of a tool that has begun a job is to be answered with a task.

    A tool that only waits for a job is not: to cancel its task would be to cancel a job that it did not begin.
    """
    return message.params.get("name") in _MAKERS and message.declares(EXTENSION)


def created(caller: ToolCaller, found: Job | Batch) -> dict[str, Any]:
    """Return the result that stands in place of a call's own. Raises StoreUnavailable.

    found : the unfinished job or batch that the call made, which is in the table by now
    """
    return {"resultType": "task", **_state(caller, found), **_outlook(caller, found)}


def answer(caller: ToolCaller, message: protocol.Message, tell: Tell) -> dict[str, Any]:
    """Return the result of a method that is about a task. Raises ProtocolError.

    There is nothing that a task could ask its client for, so tasks/update changes nothing.
    """
    _require_allowed(caller, message)
    params, id = message.params, message.id
    task_id = params.get("taskId")
    if not isinstance(task_id, str) or not is_job_id(task_id):
        raise protocol.ProtocolError(protocol.INVALID_PARAMS, _UNKNOWN, id=id)
    if message.method == UPDATE and not isinstance(params.get("inputResponses"), dict):
        raise protocol.ProtocolError(protocol.INVALID_PARAMS, "`inputResponses` must be an object.", id=id)
    try:
        found = find(caller.services, task_id, caller.agent.internal_id)
        if message.method == GET:
            return _task(caller, found, tell)
        if message.method == CANCEL:
            caller.cancel(found)
        return {}
    except Expired as error:
        raise protocol.ProtocolError(protocol.INVALID_PARAMS, f"The task is over: {error.message}", id=id) from error
    except JobNotFound as error:
        raise protocol.ProtocolError(protocol.INVALID_PARAMS, _UNKNOWN, id=id) from error
    except ServiceError as error:
        data = {"code": error.code, "retry_after": getattr(error, "retry_after", None)}
        raise protocol.ProtocolError(protocol.INTERNAL_ERROR, error.message, data, id) from error


def _require_allowed(caller: ToolCaller, message: protocol.Message) -> None:
    """Raise ProtocolError for a client that did not declare the extension, and an agent without the right."""
    if not message.declares(EXTENSION):
        data: dict[str, object] = {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
        text = f"The client has to declare {EXTENSION} in each request about a task."
        raise protocol.ProtocolError(protocol.MISSING_CAPABILITY, text, data, message.id)
    needed = METHODS[message.method]
    if needed.isdisjoint(caller.agent.operations):
        text = f"This agent was not granted what {message.method} needs: {' or '.join(sorted(needed))}."
        raise protocol.ProtocolError(protocol.INVALID_PARAMS, text, id=message.id)


def _task(caller: ToolCaller, found: Job | Batch, tell: Tell) -> dict[str, Any]:
    """Return a job or batch as a task: its state; of one that has ended with a result that; else when to ask again."""
    state = _state(caller, found)
    if not found.status.finished:
        return {**state, **_outlook(caller, found)}
    state["statusMessage"] = found.status.value
    if found.status is Status.CANCELLED:
        return state
    return {**state, "result": {"resultType": "complete", **tell(found)}}


def _state(caller: ToolCaller, found: Job | Batch) -> dict[str, Any]:
    """Return what every task has: its id, its status, its times."""
    jobs = jobs_of(found)
    begun = min(job.created_at for job in jobs)
    # Its time begins with its end; until then it is kept for so long from now, at least.
    kept_until = caller.links.expiry(found.finished_at or caller.services.clock())
    return {
        "taskId": found.id,
        "status": _STATUSES[found.status],
        "createdAt": begun.isoformat(),
        "lastUpdatedAt": max(job.updated_at for job in jobs).isoformat(),
        "ttlMs": None if kept_until is None else (kept_until - begun) // _MILLISECOND,
    }


def _outlook(caller: ToolCaller, found: Job | Batch) -> dict[str, Any]:
    """Return how far a job or batch is, in words, and in how many milliseconds to ask again."""
    services = caller.services
    told = describe(services, found, caller.links)
    words = [told.current_step, f"{told.progress} %"]
    if told.queue_position is not None:
        words.append(f"position {told.queue_position} in the queue")
    if told.eta_seconds is not None:
        words.append(f"about {math.ceil(told.eta_seconds)} s left")
    seconds = poll_after(told.eta_seconds, services.store.unfinished(caller.agent.internal_id), rate_state())
    return {"statusMessage": ", ".join(words), "pollIntervalMs": 1000 * seconds}
