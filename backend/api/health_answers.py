"""The service's state as the API shows it. The OpenAPI document is made from these.

This module does not know HTTP, nor where the state comes from.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from backend.api.responses import Answer, ErrorAnswer, Success


class ModelState(Answer):
    """The model that is served."""

    name: str
    loaded: bool
    compiled: bool | None = Field(
        description="Whether all of it runs compiled; it serves before that, slower. Null while none is loaded."
    )


class DeviceState(Answer):
    """The device of a worker that is ready."""

    type: str = Field(description="cpu, cuda or mps.")
    name: str
    memory_total: int = Field(ge=0, description="Bytes.")
    memory_free: int = Field(ge=0, description="Bytes.")


class LiveAnswer(Success):
    """The state of a process that answers."""

    status: Literal["alive"] = "alive"
    version: str


class ReadyAnswer(Success):
    """The state of a service that takes jobs."""

    status: Literal["ready"] = "ready"


class HealthFacts(Answer):
    """What there is to know of the service's state."""

    status: Literal["ok", "loading", "draining", "unavailable"]
    version: str
    model: ModelState
    device: DeviceState | None = Field(description="Null when no worker has reported one.")
    workers_ready: int = Field(ge=0)
    queue_size: int = Field(ge=0, description="Jobs that wait.")
    active_jobs: int = Field(ge=0, description="Jobs that run.")


class HealthAnswer(HealthFacts, Success):
    """The state of a service that can serve."""


class UnhealthyAnswer(HealthFacts, ErrorAnswer):
    """The state of a service that cannot serve now."""
