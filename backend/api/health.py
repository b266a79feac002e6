"""The answer to /health: what the workers and the job table said of themselves at most a second ago.

Never touches a device. This module does not know who asks.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Any, Literal

from flask import Response

from backend import __version__
from backend.api.error_handlers import error_answer, error_response, json_response
from backend.api.health_answers import (
    DeviceState,
    HealthAnswer,
    LiveAnswer,
    ModelState,
    ReadyAnswer,
    UnhealthyAnswer,
)
from backend.config import Settings
from backend.errors import GpuBusy, ServiceError, ServiceStopping, StorageFull
from backend.jobs.health import Health
from backend.services import AgentServices

_LOADING_RETRY = 5
_FULL_RETRY = 60


def answer_live() -> Response:
    """200 from a process that answers, whatever is behind it."""
    return json_response(LiveAnswer(version=__version__))


def answer_ready(services: AgentServices) -> Response:
    """200 as soon as a worker takes jobs, compiled or not, else 503. Raises StoreUnavailable."""
    error = _trouble(services.health.read(), services)
    return json_response(ReadyAnswer()) if error is None else _unable(error)


def answer_health(services: AgentServices) -> Response:
    """200 when jobs are taken, else 503 with the same facts. Raises StoreUnavailable.

    They are taken when a worker is ready, or one is started when jobs wait, and the disk has room.
    """
    health = services.health.read()
    facts: dict[str, Any] = {
        "version": __version__,
        "model": ModelState(
            name=model_name(health, services.settings), loaded=bool(health.ready), compiled=_compiled(health)
        ),
        "device": _device(health),
        "workers_ready": len(health.ready),
        "queue_size": health.counts.queued,
        "active_jobs": health.counts.processing,
    }
    error = _trouble(health, services)
    on_demand = services.settings.workers_on_demand and services.draining.since is None and not health.disk_full
    if error is None or on_demand:
        return json_response(HealthAnswer(status="ok", **facts))
    answer = UnhealthyAnswer(status=_state(health, services), **facts, **error_answer(error).model_dump())
    return _unable(error, answer)


def _unable(error: ServiceError, answer: UnhealthyAnswer | None = None) -> Response:
    response = error_response(error, answer, status=503)
    response.headers.setdefault("Retry-After", str(_FULL_RETRY))
    return response


def _trouble(health: Health, services: AgentServices) -> ServiceError | None:
    """Return why no jobs are run; None when they are."""
    if health.disk_full:
        return StorageFull("The service's disk is full.")
    if health.ready:
        return None
    errors: dict[str, ServiceError] = {
        "draining": ServiceStopping(),
        "loading": GpuBusy("The model is being loaded; try again in a moment.", retry_after=_LOADING_RETRY),
    }
    return errors.get(_state(health, services)) or GpuBusy("No worker that could serve is running.")


def _state(health: Health, services: AgentServices) -> Literal["draining", "loading", "unavailable"]:
    """Return how it is with a service that takes no jobs."""
    if health.disk_full:
        return "unavailable"
    if services.draining.since is not None:
        return "draining"
    return "loading" if health.is_loading(own_worker=services.worker is not None) else "unavailable"


def _compiled(health: Health) -> bool | None:
    known = [state.compiled for state in health.ready if state.compiled is not None]
    return all(known) if known else None


def _device(health: Health) -> DeviceState | None:
    for state in (*health.ready, *health.workers):
        if state.device_type is not None and state.memory_total is not None:
            return DeviceState(
                type=state.device_type,
                name=state.device_name or "",
                memory_total=state.memory_total,
                memory_free=state.memory_free or 0,
            )
    return None


def model_name(health: Health, settings: Settings) -> str:
    """Return what the workers call the model; before they do, what the settings do, without the folders above it."""
    reported = next((state.model for state in health.workers if state.model), None)
    path = PurePath(settings.model_path)
    return reported or (path.name if path.is_absolute() else settings.model_path)
