"""The one list of mesh formats, background modes and bounds of what may be asked for.

Every package may import it. This module does not know who checks a value, or with which error.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

MeshFormat = Literal["glb", "stl", "obj", "ply"]
FORMATS: Final[tuple[MeshFormat, ...]] = get_args(MeshFormat)
"""File formats of a mesh, in the order in which people read them."""

DEFAULT_FORMAT: Final[MeshFormat] = "glb"

BackgroundMode = Literal["auto", "always", "never"]
BACKGROUND_MODES: Final[tuple[BackgroundMode, ...]] = get_args(BackgroundMode)
"""Whether the object is cut out of its background; auto finds out whether it needs to be."""

DEFAULT_BACKGROUND_MODE: Final[BackgroundMode] = "auto"

Acceleration = Literal["none", "balanced", "fast"]
ACCELERATIONS: Final[tuple[Acceleration, ...]] = get_args(Acceleration)
"""How many evaluations of the denoiser are forecast instead of made; with none, no evaluation is."""

DEFAULT_ACCELERATION: Final[Acceleration] = "none"

MIN_QUALITY: Final = 1
MAX_QUALITY: Final = 10
DEFAULT_QUALITY: Final = 7

MIN_RESOLUTION: Final = 8
MAX_RESOLUTION: Final = 1024
"""Cells a side of the octree, for the model; the API's qualities ask for 128 to 512 of them."""

MIN_STEPS: Final = 10
MAX_STEPS: Final = 100
"""Denoising steps that a request may ask for; the model itself takes any whole number from 1."""

MAX_GUIDANCE_SCALE: Final = 20
"""Of a request; the model itself takes any finite number from 0."""

SEED_LIMIT: Final = 2**32
"""Seeds are whole numbers from 0 to one below this."""

MIN_TARGET_FACES: Final = 100
MAX_TARGET_FACES: Final = 2_000_000

MAX_SCALE_MM: Final = 10_000
"""Longest side of a mesh in millimetres; the smallest is anything above zero."""

MIN_BATCH_IMAGES: Final = 2
MAX_BATCH_IMAGES: Final = 10

MAX_PAGE_JOBS: Final = 100
"""Jobs that one page of a listing may have."""

FileKind = Literal["mesh", "preview", "thumbnail", "turntable", "image", "cutout", "shape"]
FILE_KINDS: Final[tuple[FileKind, ...]] = get_args(FileKind)
"""What a file of a job is. The shape is what its meshes are encoded from, for one more format later; it is not sent."""

PREVIEW_FORMAT: Final = "webp"
"""Of previews, thumbnails and turntables: the one format of images that is both small and animated."""
