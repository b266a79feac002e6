"""The answer to /health: what the workers and the job table said of themselves at most a second ago.

Never touches a device. This module does not know who asks.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Any, Literal

from flask import Response

from backend import __version__
from backend.api.error_handlers import error_answer, error_response, json_response
from backend.api.health_answers import DeviceState, HealthAnswer, ModelState, UnhealthyAnswer
from backend.config import Settings
from backend.errors import GpuBusy, RetryLater, ServiceStopping
from backend.jobs.health import Health
from backend.services import AgentServices

_LOADING_RETRY = 5


def answer_health(services: AgentServices) -> Response:
    """200 when a worker takes jobs, else 503 with the same facts. Raises StoreUnavailable."""
    health = services.health.read()
    facts: dict[str, Any] = {
        "version": __version__,
        "model": ModelState(name=_model_name(health, services.settings), loaded=bool(health.ready)),
        "device": _device(health),
        "workers_ready": len(health.ready),
        "queue_size": health.counts.queued,
        "active_jobs": health.counts.processing,
    }
    if health.ready:
        return json_response(HealthAnswer(status="ok", **facts))
    status, error = _trouble(services, health)
    return error_response(error, UnhealthyAnswer(status=status, **facts, **error_answer(error).model_dump()))


def _trouble(
    services: AgentServices, health: Health
) -> tuple[Literal["draining", "loading", "unavailable"], RetryLater]:
    if services.draining.since is not None:
        return "draining", ServiceStopping()
    if health.is_loading(own_worker=services.worker is not None):
        return "loading", GpuBusy("The model is being loaded; try again in a moment.", retry_after=_LOADING_RETRY)
    return "unavailable", GpuBusy("No worker that could serve is running.")


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


def _model_name(health: Health, settings: Settings) -> str:
    """As the workers call it; before they do, as the settings do, without the folders on the way to it."""
    reported = next((state.model for state in health.workers if state.model), None)
    path = PurePath(settings.model_path)
    return reported or (path.name if path.is_absolute() else settings.model_path)
