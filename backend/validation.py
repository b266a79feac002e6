"""What a caller may ask for: form fields in, one frozen GenerationRequest out.

The models are the one schema of these fields: the OpenAPI document is made from them. This module does not know how
fields reach the server (multipart.py reads the form), what an image is, or what the model does with its options.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AliasChoices, BaseModel, BeforeValidator, Field, ValidationError
from pydantic.json_schema import SkipJsonSchema

from backend.errors import (
    InvalidParameter,
    InvalidSteps,
    RequestUnreadable,
    ServiceError,
    UnknownField,
)
from backend.field_errors import FIELD_ERRORS
from backend.field_texts import MOST_SHOWN, NOT_READ, allowed_by, expected_by, read_text, shown
from backend.field_types import (
    STRICT,
    AnySteps,
    Candidates,
    Formats,
    Guidance,
    Label,
    Millimetres,
    Prompt,
    Quality,
    RequestResolution,
    Resolution,
    Seed,
    SeedOrDrawn,
    Steps,
    TargetFaces,
    WebhookUrl,
    scale_of_old,
)
from backend.hunyuan3d.mesh.offered import require_compression, require_format
from backend.hunyuan3d.octree_resolutions import Resolutions
from backend.hunyuan3d.options import Defaults, GenerationOptions, ImageOptions
from backend.jobs.models import NewJob
from backend.jobs.stage_times import Workload
from backend.limits import (
    DEFAULT_ACCELERATION,
    DEFAULT_BACKGROUND_MODE,
    DEFAULT_COLOR,
    DEFAULT_COMPRESSION,
    DEFAULT_FORMAT,
    DEFAULT_KEPT_CANDIDATES,
    DEFAULT_OBJECTS,
    DEFAULT_OUTLINE,
    DEFAULT_PLACE,
    DEFAULT_QUALITY,
    DEFAULT_SCALE_MM,
    DEFAULT_UPRIGHT,
    MAX_SCALE_MM,
    SEED_LIMIT,
    VIEWS,
    Acceleration,
    BackgroundMode,
    ColorMode,
    Compression,
    KeptCandidates,
    MeshFormat,
    ObjectChoice,
    OutlineMode,
    Place,
    Upright,
    ViewName,
    default_target_faces,
)


def without_default(schema: dict[str, Any]) -> None:
    """Take the default out of a schema: null says that a field may be left out, not that null may be sent."""
    schema.pop("default", None)


def _optional(description: str) -> Any:
    return Field(default=None, description=description, json_schema_extra=without_default)


class GenerationFields(BaseModel):
    """The form fields that say what mesh is wanted; each may be left out."""

    model_config = STRICT

    formats: Formats = Field(
        default=(DEFAULT_FORMAT,),
        alias="format",
        description="File formats of the mesh, the main one first; several with commas between, or repeated.",
    )
    quality: Quality = Field(
        default=DEFAULT_QUALITY,
        description="Sets the octree resolution, from a third of the checkpoint's own at 1 to four thirds at 10, and "
        "the default steps and faces.",
    )
    octree_resolution: RequestResolution | SkipJsonSchema[None] = _optional(
        "Cells a side, instead of what quality says; at most the service's MAX_OCTREE_RESOLUTION, 512 as a rule."
    )
    steps: Steps | SkipJsonSchema[None] = _optional("Denoising steps; by default what the checkpoint and quality say.")
    guidance_scale: Guidance | SkipJsonSchema[None] = _optional("Guidance; by default the checkpoint's.")
    acceleration: Acceleration = Field(
        default=DEFAULT_ACCELERATION,
        description="Whether some evaluations of the denoiser are forecast: a faster, slightly different mesh.",
    )
    seed: SeedOrDrawn | SkipJsonSchema[None] = _optional(
        "Makes the same mesh again; drawn, and returned, when left out or -1."
    )
    candidates: Candidates = Field(
        default=1,
        description="Meshes to choose from: of this seed and of those after it. The best one is the job's; "
        "`metadata.candidates` has the scores of all. Each counts as a job.",
    )
    keep: KeptCandidates = Field(
        default=DEFAULT_KEPT_CANDIDATES, description="Whether files are kept of the best candidate alone, or of all."
    )
    target_faces: TargetFaces | Literal["none"] | SkipJsonSchema[None] = _optional(
        "Most faces of the mesh, or none for all; by default 10,000 at quality 1 to 215,443 at 9, and all at 10."
    )
    remove_background: BackgroundMode = Field(
        default=DEFAULT_BACKGROUND_MODE,
        description="Whether the object is cut out of its background; auto finds out whether it needs to be.",
    )
    objects: ObjectChoice = Field(
        default=DEFAULT_OBJECTS, description="Whether all objects of image and mesh are kept, or the largest alone."
    )
    outline: OutlineMode = Field(
        default=DEFAULT_OUTLINE,
        description="Whether the mesh is made to end where the picture's outline does; only models whose shapes lie as "
        "the camera saw them can, as the demo's do.",
    )
    color: ColorMode = Field(
        default=DEFAULT_COLOR,
        description="Colours from the picture: auto is a texture in GLB and USDZ, colours of vertices in OBJ, PLY and "
        "3MF, none in STL.",
    )
    scale_mm: Millimetres = Field(
        default=DEFAULT_SCALE_MM,
        description="Length of the longest side in millimetres; GLB and USDZ say it in metres, the others in mm.",
    )
    place: Place = Field(
        default=DEFAULT_PLACE, description="Whether the mesh stands on the plane, is centred, or lies as it was found."
    )
    upright: Upright = Field(
        default=DEFAULT_UPRIGHT,
        description="Whether a mesh that leans, as its picture was taken from above, is levelled.",
    )
    compress: Compression = Field(
        default=DEFAULT_COMPRESSION, description="How a GLB is compressed; the viewer must know how to read that."
    )
    preview: bool = Field(default=True, description="Whether a picture of the mesh is made as well.")
    turntable: bool = Field(default=False, description="Whether an animation of the turning mesh is made as well.")
    label: Label = Field(default="", description="What you call it: shown with the job, and `/jobs?label=` finds it.")
    webhook_url: WebhookUrl | SkipJsonSchema[None] = _optional(
        "Where the end is posted to, below one of your prefixes."
    )


class GenerateFields(GenerationFields):
    """The form fields of a request with one image."""

    run_async: bool = Field(
        default=False, alias="async", description="Whether to answer at once with 202, before the mesh is made."
    )
    prompt: Prompt | SkipJsonSchema[None] = _optional(
        "Words in place of a picture, which is drawn of them first, where `capabilities.prompt` of `/me` says so."
    )
    image_seed: SeedOrDrawn | SkipJsonSchema[None] = _optional(
        "Draws the same picture of the same prompt again; drawn, and returned, when left out or -1."
    )


class BatchFields(GenerationFields):
    """The form fields of a request with several images; they hold for all of them."""

    accept_partial: bool = Field(
        default=False,
        description="Whether the good images are to run when others are bad: those are failed jobs of the batch then. "
        "Otherwise one bad image keeps all from running.",
    )


Fields = TypeVar("Fields", bound=BaseModel)


class GenerationRequest(BaseModel):
    """What one job is to make; kept with the job as JSON text.

    formats : the first is what download_url names. octree_resolution : cells a side, as quality or the caller said.
    steps, guidance_scale : None = the checkpoint's (see options). target_faces : None = all. views : of an object that
    is shown in several images, in the order in which they are stored; none where there is one image. prompt : what a
    picture is drawn of, by image_seed, when the job runs; None where one came in.
    What has a default is not named by jobs that an earlier version queued.
    """

    model_config = STRICT

    formats: Formats = Field(validation_alias=AliasChoices("formats", "format"))
    quality: Quality
    octree_resolution: Resolution
    steps: AnySteps | None
    guidance_scale: Guidance | None
    seed: Seed
    target_faces: TargetFaces | None
    remove_background: BackgroundMode
    scale_mm: Annotated[float, BeforeValidator(scale_of_old), Field(gt=0, le=MAX_SCALE_MM)]
    acceleration: Acceleration = DEFAULT_ACCELERATION
    objects: ObjectChoice = DEFAULT_OBJECTS
    outline: OutlineMode = DEFAULT_OUTLINE
    color: ColorMode = DEFAULT_COLOR
    place: Place = DEFAULT_PLACE
    upright: Upright = DEFAULT_UPRIGHT
    compress: Compression = DEFAULT_COMPRESSION
    preview: bool = True
    turntable: bool = False
    candidates: Candidates = 1
    keep: KeptCandidates = DEFAULT_KEPT_CANDIDATES
    views: tuple[ViewName, ...] = ()
    prompt: Prompt | None = None
    image_seed: Seed | None = None

    @property
    def format(self) -> MeshFormat:
        """The format of the mesh's main file."""
        return self.formats[0]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each candidate: the one that was asked for, and those after it."""
        return tuple((self.seed + index) % SEED_LIMIT for index in range(self.candidates))

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
        # The front alone is what a single image is taken for.
        seen = "" if self.views in ((), (VIEWS[0],)) else f", views {' '.join(self.views)}"
        drawn = "" if self.prompt is None else ", drawn"
        return (
            f"octree {self.octree_resolution}, steps {steps}, guidance {guidance}{faster}{seen}{drawn}, model {model}"
        )

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
        return ImageOptions(
            generation, self.seed, self.target_faces, self.remove_background, self.objects, self.outline
        )

    def workload(self, steps: int) -> Workload:
        """Return what decides how long the job takes, with so many steps."""
        is_bare = self.color == "none" and not self.preview
        finished = self.candidates if self.keep == "all" else 1
        return Workload(
            steps, self.octree_resolution, self.target_faces, self.acceleration, is_bare, self.candidates, finished
        )

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
                details={"field": name[:MOST_SHOWN], "allowed": list(known)},
            )
    typed = {name: _read(name, texts, known[name]) for name, texts in values.items()}
    try:
        return model.model_validate(typed)
    except ValidationError as error:
        name = str(error.errors(include_url=False)[0]["loc"][0])
        if name not in values:
            allowed = allowed_by(known[name])
            details = {"field": name, "allowed": allowed}
            raise FIELD_ERRORS[name](f"{name} must be given: {allowed}.", details=details) from error
        raise _refusal(name, values[name][0], known[name]) from error


def require_offered(fields: GenerationFields) -> None:
    """Refuse what needs a package that is not installed here. Raises InvalidFormat, InvalidCompress."""
    for format in fields.formats:
        require_format(format)
    require_compression(fields.compress)


def new_job(
    fields: GenerationFields,
    image: str,
    model: str,
    draw_bits: Callable[[int], int],
    resolutions: Resolutions,
    *,
    views: tuple[ViewName, ...] = (),
    filename: str | None = None,
    refusal: ServiceError | None = None,
) -> NewJob:
    """Return the job of one image of a form.

    image : the name that it is stored under; model : what the worker is to run; draw_bits : gives so many random bits
    views : which are stored under that name, where it is not one image
    filename, refusal : as NewJob's
    """
    given: dict[str, object] = {"views": views}
    if isinstance(fields, GenerateFields) and fields.prompt is not None:
        image_seed = draw_bits(32) if fields.image_seed in (None, -1) else fields.image_seed
        given |= {"prompt": fields.prompt, "image_seed": image_seed}
    request = resolve(fields, lambda: draw_bits(32), resolutions).model_copy(update=given)
    label = fields.label or None
    return NewJob(
        request.to_json(),
        request.batch_key(model),
        image,
        filename,
        label,
        fields.webhook_url,
        refusal,
        candidates=request.candidates,
    )


@lru_cache(maxsize=4096)
def workload_of(request: str, default_steps: int) -> Workload | None:
    """Return what decides how long a request takes, on a checkpoint that takes default_steps by itself.

    request : as to_json wrote it; None is for what it did not write.
    """
    try:
        read = GenerationRequest.from_json(request)
        return read.workload(read.inference_steps(default_steps))
    except (RequestUnreadable, InvalidSteps):
        return None


def resolve(
    fields: GenerationFields, draw_seed: Callable[[], int], resolutions: Resolutions | None = None
) -> GenerationRequest:
    """Return the request that the fields make: resolution and faces of the quality, a seed drawn where none is given.

    resolutions : the released checkpoints' when None
    """
    # The fields were checked when they were read.
    return GenerationRequest.model_construct(
        formats=fields.formats,
        quality=fields.quality,
        octree_resolution=fields.octree_resolution or (resolutions or Resolutions()).of_quality(fields.quality),
        steps=fields.steps,
        guidance_scale=fields.guidance_scale,
        seed=draw_seed() if fields.seed in (None, -1) else fields.seed,
        target_faces=_target_faces(fields),
        remove_background=fields.remove_background,
        scale_mm=fields.scale_mm,
        acceleration=fields.acceleration,
        objects=fields.objects,
        outline=fields.outline,
        color=fields.color,
        place=fields.place,
        upright=fields.upright,
        compress=fields.compress,
        preview=fields.preview,
        turntable=fields.turntable,
        candidates=fields.candidates,
        keep=fields.keep,
    )


def _target_faces(fields: GenerationFields) -> int | None:
    asked = fields.target_faces
    if asked is None:
        return default_target_faces(fields.quality)
    return None if asked == "none" else asked


@cache
def _schemas(model: type[BaseModel]) -> dict[str, dict[str, Any]]:
    schemas: dict[str, dict[str, Any]] = model.model_json_schema(by_alias=True)["properties"]
    return schemas


def _read(name: str, texts: Sequence[str], schema: Mapping[str, Any]) -> object:
    several = schema.get("type") == "array"
    if not texts or (len(texts) > 1 and not several):
        raise FIELD_ERRORS[name](
            f"{name} must be given once, not {len(texts)} times.",
            details={"field": name, **expected_by(schema)},
        )
    text = ",".join(texts)
    value = read_text(text, schema)
    if value is NOT_READ:
        raise _refusal(name, text, schema)
    return value


def _refusal(name: str, text: str, schema: Mapping[str, Any]) -> InvalidParameter:
    message = f"{name} must be {allowed_by(schema)}, not {shown(text)}."
    return FIELD_ERRORS[name](message, details={"field": name, **expected_by(schema)})
