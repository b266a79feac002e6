"""The images of a form: as many as a call takes, decoded once, and stored anew as plain PNGs.

This module does not know who sent a form, what its fields mean (validation.py), or what becomes of a stored image.
"""

from __future__ import annotations

import base64
import binascii
import io
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from PIL import Image

from backend.api.multipart import Form, FormFile, FormLimits, too_many_files
from backend.config import Settings
from backend.errors import (
    ConflictingInputs,
    FileTooLarge,
    InvalidImage,
    MissingImage,
    ServiceError,
    TooFewImages,
    UnsupportedImage,
)
from backend.hunyuan3d.image.open_image import ImageLimits, open_image
from backend.hunyuan3d.image.view_pages import ViewPages
from backend.limits import MAX_BATCH_IMAGES, MIN_BATCH_IMAGES, VIEWS, ViewName
from backend.storage.files import FileStore, put_new

VIEW_FIELDS: Mapping[str, ViewName] = {f"view_{view}": view for view in VIEWS}
"""The fields of several views of one object."""

_HINT_BYTES = 400
_SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")

_decoders = threading.BoundedSemaphore(2)
"""A decoded image takes up to a gigabyte: however many requests there are, two are decoded at once."""


@dataclass(frozen=True)
class UploadLimits:
    """Which images an operation takes: at least `fewest` of them, and bounds on the form and on each image."""

    form: FormLimits
    fewest: int
    image: ImageLimits

    @classmethod
    def from_settings(cls, settings: Settings, operation: str) -> UploadLimits:
        """Return the limits of `generate` and `cutout` (one image, `image`) or of `batch` (2 to 10, `images`)."""
        field, fewest, most = {
            "generate": ("image", 1, 1),
            "cutout": ("image", 1, 1),
            "batch": ("images", MIN_BATCH_IMAGES, MAX_BATCH_IMAGES),
        }[operation]
        return cls(
            FormLimits(
                field, most, tuple(VIEW_FIELDS) if operation == "generate" else (), spool_dir=settings.spool_dir
            ),
            fewest,
            ImageLimits(max_pixels=settings.max_pixels, max_bytes=settings.max_image_bytes),
        )


def images_of(form: Form, field: str, least: int, most: int) -> tuple[FormFile, ...]:
    """Return the images under a field, in order.

    Raises MissingImage (none), TooFewImages, TooManyImages.
    """
    images = tuple(image for image in form.files if image.field == field)
    if not images:
        raise MissingImage(
            f"No picture was sent; it belongs under the field {field!r}.",
            details={"field": field, "least": least, "most": most},
        )
    if len(images) < least:
        raise TooFewImages(
            f"{len(images)} picture was sent, but this call takes at least {least}.",
            details={"field": field, "least": least, "most": most},
        )
    if len(images) > most:
        raise too_many_files(field, most)
    return images


def views_of(form: Form) -> Mapping[ViewName, FormFile]:
    """Return the views of one object, in the order of VIEWS; none where there are none.

    Raises ConflictingInputs where there is an image beside them.
    """
    views = {VIEW_FIELDS[file.field]: file for file in form.files if file.field in VIEW_FIELDS}
    if views and len(views) < len(form.files):
        sent = list(dict.fromkeys(file.field for file in form.files))
        raise ConflictingInputs(details={"fields": sent})
    return {view: views[view] for view in VIEWS if view in views}


def check_and_store(image: FormFile, images: FileStore, limits: ImageLimits) -> str:
    """Decode an image whole and store it anew as an upright sRGB PNG; nothing else of the file is kept.

    Returns the name it is stored under, made here. Raises what check raises, StorageFull, ArtifactStoreUnavailable.
    """
    return put_new(images, "png", check(image, limits))


def check(image: FormFile, limits: ImageLimits) -> BinaryIO:
    """Decode an image whole; return it as an upright sRGB PNG, at its start.

    The PNG is held in memory: its sides are at most limits.shrink_to, so that it is never larger than four bytes for
    each of their pixels. Raises InvalidImage, UnsupportedImage, FileTooLarge; each names the image.
    """
    png = io.BytesIO()
    with _decoded(image, limits) as decoded:
        # Quick rather than small.
        decoded.save(png, "PNG", compress_level=1)
    png.seek(0)
    return png


def add_view(image: FormFile, pages: ViewPages, limits: ImageLimits) -> None:
    """Decode a view whole, and add it upright and in sRGB to the others. Raises as check does."""
    with _decoded(image, limits) as decoded:
        pages.add(decoded)


@contextmanager
def _decoded(image: FormFile, limits: ImageLimits) -> Iterator[Image.Image]:
    """Give a decoded image while the block encodes it anew."""
    if image.failure is not None:
        image.failure.details.update(field=image.field, image=image.number)
        raise image.failure
    try:
        if image.size > limits.max_bytes:
            raise FileTooLarge(
                f"{image.label}: it is larger than {limits.max_bytes} bytes.", details={"max_bytes": limits.max_bytes}
            )
        with _decoders:
            yield open_image(image.stream, limits=limits, name=image.label)
    except ServiceError as error:
        error.details.update(field=image.field, image=image.number)
        if isinstance(error, InvalidImage | UnsupportedImage) and (hint := _hint(image)):
            error.message = f"{error.message} {hint}"
            error.details["hint"] = hint
        raise


def _hint(image: FormFile) -> str:
    """Return what to do where an image is the text of one, or its address; "" where it is neither."""
    image.stream.seek(0)
    head = image.stream.read(_HINT_BYTES).lstrip()
    if head[:8].lower().startswith((b"http://", b"https:/")):
        return 'It is an address: send application/json with {"url": "https://…"} where the service fetches such.'
    text = head.partition(b"base64,")[2] if head[:5].lower() == b"data:" else head
    clean = b"".join(text.split())
    try:
        start = base64.b64decode(clean[: len(clean) // 4 * 4], validate=True)
    except binascii.Error:
        return ""
    if not start.startswith(_SIGNATURES) and start[4:8] != b"ftyp":
        return ""
    return "It is base64: send the bytes themselves as a file, or base64 in application/json."
