"""The one list of mesh formats, background modes and bounds of what may be asked for.

Every package may import it. This module does not know who checks a value, or with which error.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

MeshFormat = Literal["glb", "stl", "obj", "ply", "3mf", "usdz"]
FORMATS: Final[tuple[MeshFormat, ...]] = get_args(MeshFormat)
"""File formats of a mesh, in the order in which people read them; usdz only where its package is installed."""

DEFAULT_FORMAT: Final[MeshFormat] = "glb"

BackgroundMode = Literal["auto", "always", "never"]
BACKGROUND_MODES: Final[tuple[BackgroundMode, ...]] = get_args(BackgroundMode)
"""Whether the object is cut out of its background; auto finds out whether it needs to be."""

DEFAULT_BACKGROUND_MODE: Final[BackgroundMode] = "auto"

Acceleration = Literal["none", "balanced", "fast"]
ACCELERATIONS: Final[tuple[Acceleration, ...]] = get_args(Acceleration)
"""How many evaluations of the denoiser are forecast instead of made; with none, no evaluation is."""

DEFAULT_ACCELERATION: Final[Acceleration] = "none"

ObjectChoice = Literal["all", "largest"]
OBJECT_CHOICES: Final[tuple[ObjectChoice, ...]] = get_args(ObjectChoice)
"""Whether everything found is kept, or the largest piece alone."""

DEFAULT_OBJECTS: Final[ObjectChoice] = "all"

OutlineMode = Literal["auto", "off"]
OUTLINE_MODES: Final[tuple[OutlineMode, ...]] = get_args(OutlineMode)
"""Whether a shape that lies as the camera saw it is made to end where the image's outline says."""

DEFAULT_OUTLINE: Final[OutlineMode] = "auto"

KeptCandidates = Literal["best", "all"]
KEPT_CANDIDATES: Final[tuple[KeptCandidates, ...]] = get_args(KeptCandidates)
"""Which meshes of a job with several candidates have files: the best one's alone, or all."""

DEFAULT_KEPT_CANDIDATES: Final[KeptCandidates] = "best"

ColorMode = Literal["auto", "none", "vertex", "texture"]
COLOR_MODES: Final[tuple[ColorMode, ...]] = get_args(ColorMode)
"""Where colours lie; auto is what the format carries best: a texture, colours of vertices, or none."""

DEFAULT_COLOR: Final[ColorMode] = "auto"

Place = Literal["ground", "center", "as_is"]
PLACES: Final[tuple[Place, ...]] = get_args(Place)
"""Where a mesh lies: standing on the plane and centred, centred in all three directions, or as it was found."""

DEFAULT_PLACE: Final[Place] = "ground"

Upright = Literal["auto", "off"]
UPRIGHTS: Final[tuple[Upright, ...]] = get_args(Upright)
"""Whether a mesh that leans, because the image was taken from above, is levelled."""

DEFAULT_UPRIGHT: Final[Upright] = "auto"

Compression = Literal["none", "meshopt", "draco"]
COMPRESSIONS: Final[tuple[Compression, ...]] = get_args(Compression)
"""How a GLB is made smaller, for viewers that know how to read that."""

DEFAULT_COMPRESSION: Final[Compression] = "none"

MIN_QUALITY: Final = 1
MAX_QUALITY: Final = 10
DEFAULT_QUALITY: Final = 7

MIN_RESOLUTION: Final = 8
MAX_RESOLUTION: Final = 1024
"""Cells a side of the octree, for the model; a request may ask for MIN_REQUEST_RESOLUTION to MAX_OCTREE_RESOLUTION."""

MIN_REQUEST_RESOLUTION: Final = 16

CHECKPOINT_RESOLUTION: Final = 384
"""Cells a side that a checkpoint is for where its configuration does not say."""

MIN_STEPS: Final = 10
MAX_STEPS: Final = 100
"""Denoising steps that a request may ask for; the model itself takes any whole number from 1."""

MAX_GUIDANCE_SCALE: Final = 20
"""Of a request; the model itself takes any finite number from 0."""

SEED_LIMIT: Final = 2**32
"""Seeds are whole numbers from 0 to one below this."""

MIN_TARGET_FACES: Final = 100
MAX_TARGET_FACES: Final = 2_000_000

MIN_SCALE_MM: Final = 0.1
MAX_SCALE_MM: Final = 10_000
DEFAULT_SCALE_MM: Final = 100.0
"""Longest side of a mesh, in millimetres."""

MIN_BATCH_IMAGES: Final = 2
MAX_BATCH_IMAGES: Final = 10

MAX_CANDIDATES: Final = 8
"""Meshes of one image, each with a seed of its own, that one job may make to choose from."""

MAX_BATCH_MESHES: Final = 16
"""Images times candidates of one batch."""

MAX_LABEL_CHARACTERS: Final = 200

MAX_PROMPT_CHARACTERS: Final = 1000

MAX_WAIT_SECONDS: Final = 60
"""How long a call may wait for its job to change."""

MAX_PAGE_JOBS: Final = 100
"""Jobs that one page of a listing may have."""

ViewName = Literal["front", "left", "back", "right"]
VIEWS: Final[tuple[ViewName, ...]] = get_args(ViewName)
"""From where an object may be shown in a picture of its own, in the order of the model's view indices."""

IMAGE_FORMATS: Final = ("PNG", "JPEG", "MPO", "WebP", "AVIF", "GIF", "BMP", "TIFF")
"""File formats of images that are taken; an MPO is read as the JPEG that it starts with."""

OPTIONAL_IMAGE_FORMATS: Final = ("HEIC",)
"""Those that are taken where the package that reads them is installed."""

FileKind = Literal["mesh", "preview", "thumbnail", "turntable", "contact_sheet", "image", "cutout", "shape"]
FILE_KINDS: Final[tuple[FileKind, ...]] = get_args(FileKind)
"""What a file of a job is. The shape is what its meshes are encoded from, for one more format later; it is not sent."""

PREVIEW_FORMAT: Final = "webp"
"""Of previews, thumbnails, turntables and contact sheets: the one format of images that is both small and animated."""


def default_target_faces(quality: int) -> int | None:
    """Return the most faces of a mesh of a quality from 1 to 10: 10,000 to 215,443, and all at 10."""
    return None if quality == MAX_QUALITY else round(10_000 * 10 ** ((quality - 1) / 6))
