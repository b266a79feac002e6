"""What was really done for a job: one schema for the text in the job table and for the API's answer.

This module does not know how a mesh is made, and imports nothing that is heavy.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from backend.errors import ServiceError
from backend.limits import Acceleration, Place

Point = tuple[float, float, float]
Unit = Literal["model", "mm", "m"]


def _background_of_old(value: object) -> object:
    """Read what an earlier version kept: the method's name alone."""
    return {"method": value} if isinstance(value, str) else value


class StageSecondsOut(BaseModel):
    """Seconds of each stage; those of the model count for the whole batch that the job was part of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    queued: float | None = Field(default=None, ge=0, description="From the submission until this run began.")
    preprocess: float | None = Field(default=None, ge=0, description="Background removal and resizing of the picture.")
    encode: float | None = Field(default=None, ge=0, description="The image encoder.")
    sample: float | None = Field(default=None, ge=0, description="Denoising.")
    decode: float | None = Field(default=None, ge=0, description="Evaluating the shape's field.")
    mesh: float | None = Field(default=None, ge=0, description="Surface, cleaning and decimation.")
    finish: float | None = Field(default=None, ge=0, description="Colours, place, encoding in each format, previews.")
    export: float | None = Field(default=None, ge=0, description="Storing the files.")
    total: float | None = Field(
        default=None, ge=0, description="From the beginning of the run until the files were stored."
    )


class AccelerationOut(BaseModel):
    """How many evaluations of the denoiser were made; the rest was forecast."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Acceleration = Field(description="The acceleration that was asked for.")
    evaluations: int | None = Field(default=None, ge=0, description="How often the denoiser was evaluated.")
    without: int | None = Field(default=None, ge=0, description="How often it is without acceleration.")
    measured_on: str = Field(
        default="demo", description="The only checkpoint on which it is measured how far the mesh changes."
    )


class BackgroundOut(BaseModel):
    """How the object was cut out of its picture."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str = Field(description="alpha where the picture's own was used; none where nothing was to be removed.")
    score: float | None = Field(
        default=None, ge=0, le=1, description="How sure the cut-out is; absent where nobody judged it."
    )
    border: float | None = Field(
        default=None, ge=0, le=1, description="Share of the picture's border that the object covers."
    )
    objects: int | None = Field(default=None, ge=0, description="Pieces of the cut-out that do not touch.")


class OutlineOut(BaseModel):
    """How the mesh was made to end where the picture's outline does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    carved: float = Field(ge=0, description="What was taken away beyond the outline, as a share of the silhouette.")
    filled: float = Field(ge=0, le=1, description="What was added within the outline, as a share of the silhouette.")
    joined: int = Field(
        default=0, ge=0, description="Parts that hung together in the outline but not in depth; struts join them."
    )


class PlacementOut(BaseModel):
    """How the mesh was placed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    place: Place = Field(description="Where it lies, as asked.")
    turned_degrees: float = Field(description="By how much it was levelled, about the axis that runs to the right.")
    leveled_by: Literal["under side", "axis"] | None = Field(
        default=None, description="What it was levelled by; absent where it was not."
    )
    pressed: float = Field(
        default=0, ge=0, description="Height under the foot pressed flat, a share of the longest side."
    )
    leans: bool = Field(default=False, description="Whether it should have been levelled and could not.")


class PrintOut(BaseModel):
    """What whoever prints the mesh wants to know, at its size."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    volume_cm3: float | None = Field(default=None, description="Volume; absent where the surface is not closed.")
    thinnest_wall_mm: float | None = Field(default=None, ge=0, description="What 2 % of the surface is thinner than.")
    overhang_share: float = Field(
        ge=0, le=1, description="Share of the surface that faces down by more than 45 degrees."
    )
    footprint_cm2: float = Field(ge=0, description="What it covers, seen from above.")
    fits_mm: tuple[float, float, float] = Field(description="Width, depth and height of the room it takes.")


class WarningOut(BaseModel):
    """Something about the picture or the mesh that the caller should know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str = Field(description="The warning's name, for programs.")
    message: str = Field(description="A sentence that says what to do.")


class CameraOut(BaseModel):
    """Where the picture was taken from, as the mesh's outline explains it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    azimuth: float = Field(description="Degrees about the upright axis; 0 looks at the front, more goes to its right.")
    elevation: float = Field(description="Degrees above the floor.")
    field_of_view: float = Field(ge=0, description="Degrees; 0 is a picture without perspective.")
    silhouette_iou: float = Field(
        ge=0, le=1, description="How far the mesh's outline agrees with the picture's; below 0.8 colours may be off."
    )


class CandidateOut(BaseModel):
    """One of the meshes that were made to choose from, and what it was judged by."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(description="Makes it again, alone.")
    silhouette_iou: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="How far the model's own shape, before it was made to follow the outline, agrees with the picture.",
    )
    parts: int | None = Field(default=None, ge=0, description="Pieces of the mesh that do not touch.")
    watertight: bool | None = Field(default=None, description="Whether every edge has exactly two triangles.")
    thinnest_wall_mm: float | None = Field(default=None, ge=0, description="What 2 % of the surface is thinner than.")
    error: str | None = Field(default=None, description="The code of why there is no mesh; absent where there is one.")


class JobMetadata(BaseModel):
    """What was really done for one picture. Of a failed job, whatever is known."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    format: str = Field(description="The file's format: glb, stl, obj or ply.")
    vertices: int | None = Field(default=None, ge=0, description="Vertices of the mesh.")
    faces: int | None = Field(default=None, ge=0, description="Triangles of the mesh, as in the file.")
    faces_found: int | None = Field(default=None, ge=0, description="Triangles before the mesh was reduced.")
    parts: int | None = Field(default=None, ge=0, description="Pieces of the mesh that do not touch.")
    target_faces: int | None = Field(default=None, description="The number of triangles that was asked for.")
    watertight: bool | None = Field(default=None, description="Whether every edge has exactly two triangles.")
    bounds: tuple[Point, Point] | None = Field(
        default=None, description="Lowest and highest corner, in the file's frame."
    )
    camera: CameraOut | None = Field(default=None, description="Where the picture was taken from.")
    unit: Unit | None = Field(default=None, description="Unit of the file's coordinates.")
    seed: int = Field(description="The seed; the same picture, seed and fields give the same mesh.")
    steps: int | None = Field(default=None, description="Denoising steps.")
    guidance_scale: float | None = Field(default=None, description="Classifier-free guidance.")
    acceleration: AccelerationOut | None = Field(default=None, description="Evaluations of the denoiser.")
    octree_resolution: int = Field(description="Cells along each side of the box in which the surface is found.")
    quality: int = Field(description="The quality that was asked for.")
    model: str | None = Field(default=None, description="The model's name.")
    batch_size: int | None = Field(default=None, description="Pictures that ran together on the device.")
    background: Annotated[BackgroundOut | None, BeforeValidator(_background_of_old)] = Field(
        default=None, description="How the object was cut out of the picture."
    )
    outline: OutlineOut | None = Field(
        default=None, description="What following the picture's outline changed; absent where it was not followed."
    )
    candidates: tuple[CandidateOut, ...] = Field(
        default=(), description="The meshes that were made to choose from, the best one first; absent where it was one."
    )
    fallbacks: tuple[str, ...] = Field(
        default=(), description="What was changed when memory ran short; never the quality."
    )
    placed: PlacementOut | None = Field(default=None, description="How the mesh was placed.")
    print: PrintOut | None = Field(default=None, description="What whoever prints it wants to know.")
    warnings: tuple[WarningOut, ...] = Field(default=(), description="What the caller should know of picture and mesh.")
    notes: tuple[str, ...] = Field(default=(), description="What was left out of the files, and why.")
    seconds: StageSecondsOut = Field(default=StageSecondsOut(), description="Seconds of each stage.")
    file_size: int | None = Field(default=None, ge=0, description="Bytes of the first mesh's file.")

    def to_json(self) -> str:
        """Return the text for the job table."""
        return self.model_dump_json(exclude_none=True)

    @classmethod
    def from_json(cls, text: str) -> JobMetadata:
        """Return the value of a text from the job table. Raises ServiceError when it is not one."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise ServiceError("The job's metadata cannot be read.") from error
