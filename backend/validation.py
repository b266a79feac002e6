"""What a caller may ask for: form fields in, one frozen GenerationRequest out.

The models are the one schema of these fields: the OpenAPI document is made from them. This module does not know how
fields reach the server (multipart.py reads the form), what an image is, or what the model does with its options.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.json_schema import SkipJsonSchema

from backend.errors import (
    InvalidAcceleration,
    InvalidAcceptPartial,
    InvalidAsync,
    InvalidBackgroundMode,
    InvalidFormat,
    InvalidGuidance,
    InvalidLabel,
    InvalidParameter,
    InvalidQuality,
    InvalidScale,
    InvalidSeed,
    InvalidSteps,
    InvalidTargetFaces,
    RequestUnreadable,
    ServiceError,
    UnknownField,
)
from backend.hunyuan3d.options import Defaults, GenerationOptions, ImageOptions
from backend.jobs.models import NewJob
from backend.jobs.stage_times import Workload
from backend.limits import (
    DEFAULT_ACCELERATION,
    DEFAULT_BACKGROUND_MODE,
    DEFAULT_FORMAT,
    DEFAULT_QUALITY,
    MAX_GUIDANCE_SCALE,
    MAX_LABEL_CHARACTERS,
    MAX_QUALITY,
    MAX_RESOLUTION,
    MAX_SCALE_MM,
    MAX_STEPS,
    MAX_TARGET_FACES,
    MIN_QUALITY,
    MIN_RESOLUTION,
    MIN_STEPS,
    MIN_TARGET_FACES,
    SEED_LIMIT,
    Acceleration,
    BackgroundMode,
    MeshFormat,
)

Quality = Annotated[int, Field(ge=MIN_QUALITY, le=MAX_QUALITY)]
Resolution = Annotated[int, Field(ge=MIN_RESOLUTION, le=MAX_RESOLUTION)]
Steps = Annotated[int, Field(ge=MIN_STEPS, le=MAX_STEPS)]
Guidance = Annotated[float, Field(ge=0, le=MAX_GUIDANCE_SCALE)]
Seed = Annotated[int, Field(ge=0, le=SEED_LIMIT - 1)]
TargetFaces = Annotated[int, Field(ge=MIN_TARGET_FACES, le=MAX_TARGET_FACES)]
LABEL_PATTERN = r"^[^\x00-\x1f\x7f-\x9f]*$"
Label = Annotated[str, Field(max_length=MAX_LABEL_CHARACTERS, pattern=LABEL_PATTERN)]
Millimetres = Annotated[float, Field(gt=0, le=MAX_SCALE_MM)]

_STRICT = ConfigDict(
    frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_by_name=True, validate_by_alias=True
)
_ERRORS: Mapping[str, type[InvalidParameter]] = {
    "format": InvalidFormat,
    "quality": InvalidQuality,
    "steps": InvalidSteps,
    "guidance_scale": InvalidGuidance,
    "acceleration": InvalidAcceleration,
    "seed": InvalidSeed,
    "target_faces": InvalidTargetFaces,
    "remove_background": InvalidBackgroundMode,
    "scale_mm": InvalidScale,
    "async": InvalidAsync,
    "label": InvalidLabel,
    "accept_partial": InvalidAcceptPartial,
}
# Only what JSON would take as a number: int() and float() also take spaces, underscores and other scripts' digits.
_WHOLE = re.compile(r"-?[0-9]{1,15}", re.ASCII)
_NUMBER = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?", re.ASCII)
_NOT_READ = object()


def without_default(schema: dict[str, Any]) -> None:
    """Take the default out of a schema: null says that a field may be left out, not that null may be sent."""
    schema.pop("default", None)


def _optional(description: str) -> Any:
    return Field(default=None, description=description, json_schema_extra=without_default)


class GenerationFields(BaseModel):
    """The form fields that say what mesh is wanted; each may be left out."""

    model_config = _STRICT

    format: MeshFormat = Field(default=DEFAULT_FORMAT, description="File format of the mesh.")
    quality: Quality = Field(
        default=DEFAULT_QUALITY,
        description="Sets the octree resolution, from 128 at 1 to 512 at 10, and the default steps.",
    )
    steps: Steps | SkipJsonSchema[None] = _optional("Denoising steps; by default what the checkpoint and quality say.")
    guidance_scale: Guidance | SkipJsonSchema[None] = _optional("Guidance; by default the checkpoint's.")
    acceleration: Acceleration = Field(
        default=DEFAULT_ACCELERATION,
        description="Whether some evaluations of the denoiser are forecast: a faster, slightly different mesh.",
    )
    seed: Seed | SkipJsonSchema[None] = _optional("Makes the same mesh again; drawn, and returned, when left out.")
    target_faces: TargetFaces | SkipJsonSchema[None] = _optional("Most faces of the mesh; by default as they come.")
    remove_background: BackgroundMode = Field(
        default=DEFAULT_BACKGROUND_MODE,
        description="Whether the object is cut out of its background; auto finds out whether it needs to be.",
    )
    scale_mm: Millimetres | SkipJsonSchema[None] = _optional("Length of the longest side in millimetres, for print.")
    label: Label = Field(default="", description="What you call it: shown with the job, and `/jobs?label=` finds it.")


class GenerateFields(GenerationFields):
    """The form fields of a request with one image."""

    run_async: bool = Field(
        default=False, alias="async", description="Whether to answer at once with 202, before the mesh is made."
    )


class BatchFields(GenerationFields):
    """The form fields of a request with several images; they hold for all of them."""

    accept_partial: bool = Field(
        default=False,
        description="Whether the good images are to run when others are bad: those are failed jobs of the batch then. "
        "Otherwise one bad image keeps all from running.",
    )


Fields = TypeVar("Fields", bound=GenerationFields)


class GenerationRequest(BaseModel):
    """What one job is to make; kept with the job as JSON text.

    octree_resolution : cells a side, 128 to 512
    steps, guidance_scale : None = the checkpoint's (see options); target_faces, scale_mm : None = as it comes
    """

    model_config = _STRICT

    format: MeshFormat
    quality: Quality
    octree_resolution: Resolution
    steps: Steps | None
    guidance_scale: Guidance | None
    seed: Seed
    target_faces: TargetFaces | None
    remove_background: BackgroundMode
    scale_mm: Millimetres | None
    # Jobs that an earlier version queued do not name it.
    acceleration: Acceleration = DEFAULT_ACCELERATION

    def to_json(self) -> str:
        """Return the request as JSON text, for the job table."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str) -> GenerationRequest:
        """Return the request that to_json wrote. Raises RequestUnreadable."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise RequestUnreadable from error

    def batch_key(self, model: str) -> str:
        """Return what jobs must have in common to be batch mates on this model: resolution, steps and so on."""
        steps = f"quality {self.quality}" if self.steps is None else str(self.steps)
        guidance = "default" if self.guidance_scale is None else repr(self.guidance_scale)
        faster = "" if self.acceleration == DEFAULT_ACCELERATION else f", acceleration {self.acceleration}"
        return f"octree {self.octree_resolution}, steps {steps}, guidance {guidance}{faster}, model {model}"

    def options(self, defaults: Defaults) -> ImageOptions:
        """Return what the model is to do; where the request says nothing, what its checkpoint says.

        Raises InvalidSteps and the like where the checkpoint says what cannot be.
        """
        generation = GenerationOptions(
            self.inference_steps(defaults.num_inference_steps),
            defaults.guidance_scale if self.guidance_scale is None else self.guidance_scale,
            self.octree_resolution,
            self.acceleration,
        )
        return ImageOptions(generation, self.seed, self.target_faces, self.remove_background)

    def inference_steps(self, checkpoint_default: int) -> int:
        """Return the steps to take, for a checkpoint that takes checkpoint_default at quality 7. Raises InvalidSteps.

        Without steps asked for: half of the default at quality 1, half more at 10, but never fewer than 10 where the
        default has as many.
        """
        if checkpoint_default < 1:
            raise InvalidSteps
        if self.steps is not None:
            return self.steps
        below, above = (self.quality - 7) / 12, (self.quality - 7) / 6
        scaled = round(checkpoint_default * (1 + (below if self.quality < 7 else above)))
        return min(max(scaled, min(10, checkpoint_default)), max(100, checkpoint_default))


def read_fields(model: type[Fields], values: Mapping[str, Sequence[str]]) -> Fields:
    """Return a form's texts, by name, as the model; each name at most once.

    Raises UnknownField, or the field's own error (InvalidQuality, …), with the name and what is allowed in `details`.
    """
    known = _schemas(model)
    for name in values:
        if name not in known:
            raise UnknownField(
                f"There is no field {shown(name)}; the fields are {', '.join(known)}.",
                details={"field": name[:SHOWN_CHARACTERS], "allowed": list(known)},
            )
    typed = {name: _read(name, texts, known[name]) for name, texts in values.items()}
    try:
        return model.model_validate(typed)
    except ValidationError as error:
        name = str(error.errors(include_url=False)[0]["loc"][0])
        raise _refusal(name, values[name][0], known[name]) from error


def new_job(
    fields: GenerationFields,
    image: str,
    model: str,
    draw_bits: Callable[[int], int],
    *,
    filename: str | None = None,
    refusal: ServiceError | None = None,
) -> NewJob:
    """Return the job of one image of a form.

    image : the name that it is stored under; model : what the worker is to run; draw_bits : gives so many random bits
    filename, refusal : as NewJob's
    """
    request = resolve(fields, lambda: draw_bits(32))
    label = fields.label or None
    return NewJob(request.to_json(), request.batch_key(model), image, filename=filename, label=label, refusal=refusal)


@lru_cache(maxsize=4096)
def workload_of(request: str, default_steps: int) -> Workload | None:
    """Return what decides how long a request takes, on a checkpoint that takes default_steps by itself.

    request : as to_json wrote it; None is for what it did not write.
    """
    try:
        read = GenerationRequest.from_json(request)
        steps = read.inference_steps(default_steps)
    except (RequestUnreadable, InvalidSteps):
        return None
    return Workload(steps, read.octree_resolution, read.target_faces, read.acceleration)


def resolve(fields: GenerationFields, draw_seed: Callable[[], int]) -> GenerationRequest:
    """Return the request that the fields make: quality as octree resolution, a seed drawn where none is given."""
    # The fields were checked when they were read.
    return GenerationRequest.model_construct(
        format=fields.format,
        quality=fields.quality,
        octree_resolution=octree_resolution(fields.quality),
        steps=fields.steps,
        guidance_scale=fields.guidance_scale,
        seed=draw_seed() if fields.seed is None else fields.seed,
        target_faces=fields.target_faces,
        remove_background=fields.remove_background,
        scale_mm=fields.scale_mm,
        acceleration=fields.acceleration,
    )


def octree_resolution(quality: int) -> int:
    """Return the cells a side for a quality from 1 to 10: from 128 to 512 in even steps, as multiples of 16."""
    return 16 * round((128 + 384 * (quality - 1) / 9) / 16)


def fingerprint(operation: str, fields: GenerationFields, digests: Sequence[str]) -> str:
    """Return a digest of all that makes a request, SHA-256 in hex: the same request in another envelope has the same.

    fields : those that were given count; digests : of the images' bytes as they came, in order
    """
    given = fields.model_dump(mode="json", by_alias=True, exclude_unset=True)
    parts = [operation, given, list(digests)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@cache
def _schemas(model: type[GenerationFields]) -> dict[str, dict[str, Any]]:
    schemas: dict[str, dict[str, Any]] = model.model_json_schema(by_alias=True)["properties"]
    return schemas


def _read(name: str, texts: Sequence[str], schema: Mapping[str, Any]) -> object:
    if len(texts) != 1:
        raise _ERRORS[name](
            f"{name} must be given once, not {len(texts)} times.",
            details={"field": name, **_expected(schema)},
        )
    value = _READERS[schema["type"]](texts[0])
    if value is _NOT_READ:
        raise _refusal(name, texts[0], schema)
    return value


def _refusal(name: str, text: str, schema: Mapping[str, Any]) -> InvalidParameter:
    message = f"{name} must be {_allowed(schema)}, not {shown(text)}."
    return _ERRORS[name](message, details={"field": name, **_expected(schema)})


def _expected(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a field takes, for an error's details: in words, and as its schema has it for programs."""
    bounds = {name: schema[name] for name in _BOUNDS if name in schema}
    return {"allowed": _allowed(schema), **bounds}


def _allowed(schema: Mapping[str, Any]) -> str:
    """Return what a field takes, in words, from its schema: a message can't say other than what is checked."""
    if "enum" in schema:
        return f"one of {', '.join(schema['enum'])}"
    if schema["type"] == "boolean":
        return "true or false"
    if schema["type"] == "string":
        return f"at most {schema['maxLength']} characters, none of them a control character"
    kind = "a whole number" if schema["type"] == "integer" else "a number"
    high = f"{schema['maximum']:g}" if schema["type"] == "number" else str(schema["maximum"])
    if "exclusiveMinimum" in schema:
        return f"{kind} above {schema['exclusiveMinimum']:g} and at most {high}"
    return f"{kind} from {schema['minimum']:g} to {high}"


SHOWN_CHARACTERS = 40
_BOUNDS = ("enum", "minimum", "exclusiveMinimum", "maximum", "maxLength")


def shown(text: str) -> str:
    """Return a caller's text, fit for a message: short, and nothing that moves a terminal's cursor."""
    short = text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
    return "'" + "".join(c if c.isprintable() else "?" for c in short) + "'"


def _read_whole(text: str) -> object:
    return int(text) if _WHOLE.fullmatch(text) else _NOT_READ


def _read_number(text: str) -> object:
    # Adding zero makes -0.0 the same as 0.0, in the batch key too.
    return float(text) + 0.0 if _NUMBER.fullmatch(text) else _NOT_READ


def _read_flag(text: str) -> object:
    return {"true": True, "false": False}.get(text.lower(), _NOT_READ)


def _read_text(text: str) -> object:
    return text


_READERS: Mapping[str, Callable[[str], object]] = {
    "integer": _read_whole,
    "number": _read_number,
    "boolean": _read_flag,
    "string": _read_text,
}
