"""The types of a request's fields: what each may hold, for the documents and for the reading of a request alike."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, Field

from backend.limits import (
    DEFAULT_SCALE_MM,
    MAX_CANDIDATES,
    MAX_GUIDANCE_SCALE,
    MAX_LABEL_CHARACTERS,
    MAX_PROMPT_CHARACTERS,
    MAX_QUALITY,
    MAX_RESOLUTION,
    MAX_SCALE_MM,
    MAX_STEPS,
    MAX_TARGET_FACES,
    MIN_QUALITY,
    MIN_REQUEST_RESOLUTION,
    MIN_RESOLUTION,
    MIN_SCALE_MM,
    MIN_STEPS,
    MIN_TARGET_FACES,
    SEED_LIMIT,
    MeshFormat,
)


def _separate_formats(value: object) -> object:
    """Take a text of formats apart at its commas, name each once, and leave what is neither text nor list alone."""
    parts = value.split(",") if isinstance(value, str) else value
    return tuple(dict.fromkeys(parts)) if isinstance(parts, (list, tuple)) else value


def scale_of_old(value: object) -> object:
    """Give a mesh that was asked for without a size, which earlier versions took, the size that is usual now."""
    return DEFAULT_SCALE_MM if value is None else value


Formats = Annotated[tuple[MeshFormat, ...], BeforeValidator(_separate_formats), Field(min_length=1)]

Quality = Annotated[int, Field(ge=MIN_QUALITY, le=MAX_QUALITY)]
Resolution = Annotated[int, Field(ge=MIN_RESOLUTION, le=MAX_RESOLUTION)]
Steps = Annotated[int, Field(ge=MIN_STEPS, le=MAX_STEPS)]
AnySteps = Annotated[int, Field(ge=1, le=MAX_STEPS)]
"""Steps of a job: turbo checkpoints' clients ask for fewer than ours may."""

Guidance = Annotated[float, Field(ge=0, le=MAX_GUIDANCE_SCALE)]
RequestResolution = Annotated[int, Field(ge=MIN_REQUEST_RESOLUTION, le=MAX_RESOLUTION)]
Candidates = Annotated[int, Field(ge=1, le=MAX_CANDIDATES)]
Seed = Annotated[int, Field(ge=0, le=SEED_LIMIT - 1)]
SeedOrDrawn = Annotated[int, Field(ge=-1, le=SEED_LIMIT - 1)]
TargetFaces = Annotated[int, Field(ge=MIN_TARGET_FACES, le=MAX_TARGET_FACES)]
LABEL_PATTERN = r"^[^\x00-\x1f\x7f-\x9f]*$"
Label = Annotated[str, Field(max_length=MAX_LABEL_CHARACTERS, pattern=LABEL_PATTERN)]
Prompt = Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_CHARACTERS, pattern=LABEL_PATTERN)]
WebhookUrl = Annotated[str, Field(min_length=8, max_length=2048, pattern=r"^https?://[^\x00-\x20\x7f]+$")]
Millimetres = Annotated[float, Field(ge=MIN_SCALE_MM, le=MAX_SCALE_MM)]

STRICT = ConfigDict(
    frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_by_name=True, validate_by_alias=True
)
