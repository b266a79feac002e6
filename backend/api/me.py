"""The answer to /me: what the agent that asks may do, what is left of it, and what this service can do for it.

This module does not know how anything is counted.
"""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from backend.api.health import model_name
from backend.api.responses import Answer, Success
from backend.auth.agents import AgentConfig
from backend.auth.rate_limits import RateState
from backend.hunyuan3d.mesh.offered import offered_formats
from backend.jobs.models import Usage
from backend.limits import DEFAULT_QUALITY, MAX_CANDIDATES, MeshFormat
from backend.services import AgentServices

Operation = Literal["generate", "batch", "status", "download", "admin"]
_OPERATIONS: tuple[Operation, ...] = get_args(Operation)


class LimitState(Answer):
    """A limit, and what is left of it."""

    limit: int = Field(ge=1)
    remaining: int = Field(ge=0)
    reset: int = Field(ge=0, description="Seconds until the first of what was counted counts no longer; 0 for none.")


class Limits(Answer):
    """The agent's limits; null where it has no such limit, or where it cannot be read at the moment."""

    rate_limit: LimitState | None = Field(description="Requests a minute.")
    batch_rate_limit: LimitState | None = Field(description="Batches a minute, which are requests, too.")
    status_rate_limit: LimitState | None = Field(
        description="GET, HEAD and DELETE requests a minute; with it they don't count towards `rate_limit`."
    )
    max_active_jobs: LimitState = Field(description="Unfinished jobs at once.")
    daily_jobs: LimitState | None = Field(description="Jobs in any 24 hours.")


class Capabilities(Answer):
    """What this service can do."""

    formats: tuple[MeshFormat, ...] = Field(description="File formats of meshes.")
    prompt: bool = Field(description="Whether a mesh can be made of words.")
    views: bool = Field(description="Whether a mesh can be made of several views of one object.")
    image_urls: bool = Field(description="Whether images may be sent as addresses.")
    candidates: int = Field(ge=1, description="Meshes of one image that a job may make to choose from.")
    model: str
    default_resolution: int = Field(ge=1, description="Octree resolution of the default quality, cells a side.")
    max_octree_resolution: int = Field(ge=1, description="The finest octree resolution that may be asked for.")


class MeAnswer(Success):
    """The agent that asks, and what it may expect."""

    agent_id: str
    name: str
    operations: tuple[Operation, ...]
    limits: Limits
    active_jobs: int = Field(ge=0, description="Its unfinished jobs.")
    webhook_prefixes: tuple[str, ...] = Field(description="What a webhook's address must begin with.")
    capabilities: Capabilities


def answer_me(services: AgentServices, agent: AgentConfig) -> MeAnswer:
    """Return what there is to know for an agent. Raises StoreUnavailable."""
    usage = services.store.usage(agent.internal_id)
    rates = {name: _rate(state) for name, state in services.guard.rate_states(agent).items()}
    return MeAnswer(
        agent_id=agent.agent_id,
        name=agent.name,
        operations=tuple(operation for operation in _OPERATIONS if operation in agent.operations),
        limits=Limits(
            rate_limit=rates.get("rate_limit"),
            batch_rate_limit=rates.get("batch_rate_limit"),
            status_rate_limit=rates.get("status_rate_limit"),
            max_active_jobs=_bound(agent.max_active_jobs, usage.active, 0),
            daily_jobs=_daily(agent, usage),
        ),
        active_jobs=usage.active,
        webhook_prefixes=agent.webhook_prefixes,
        capabilities=_capabilities(services),
    )


def _capabilities(services: AgentServices) -> Capabilities:
    return Capabilities(
        formats=offered_formats(),
        prompt=bool(services.settings.text_to_image_model),
        views=services.takes_views(),
        image_urls=services.settings.image_urls != "off",
        candidates=MAX_CANDIDATES,
        model=model_name(services.health.read(), services.settings),
        default_resolution=services.resolutions().of_quality(DEFAULT_QUALITY),
        max_octree_resolution=services.settings.max_octree_resolution,
    )


def _daily(agent: AgentConfig, usage: Usage) -> LimitState | None:
    return None if agent.daily_jobs is None else _bound(agent.daily_jobs, usage.daily, usage.oldest_ends_in)


def _bound(limit: int, used: int, reset: int) -> LimitState:
    return LimitState(limit=limit, remaining=max(0, limit - used), reset=reset)


def _rate(state: RateState) -> LimitState:
    return LimitState(limit=state.limit, remaining=state.remaining, reset=state.reset_seconds)
