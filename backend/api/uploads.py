"""Multipart uploads: a form's fields and its pictures, streamed to unnamed files, checked, and stored re-encoded.

Names that a caller gave are shown in messages and never become paths. This module does not know who sent the form,
what its fields mean (validation.py), or what becomes of a stored picture.
"""

from __future__ import annotations

import errno
import hashlib
import re
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from PIL import Image

from backend.api.multipart import PartBegins, PartData, PartEvent, read_parts
from backend.config import Settings
from backend.errors import (
    FileTooLarge,
    InvalidForm,
    InvalidImage,
    MissingImage,
    ServiceError,
    StorageFull,
    TooFewImages,
    TooManyImages,
    UnknownField,
)
from backend.hunyuan3d.image.open_image import ImageLimits, open_image
from backend.limits import MAX_BATCH_IMAGES, MIN_BATCH_IMAGES
from backend.storage.files import FileStore, new_name

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_LABEL_NAME = 40

_decoders = threading.BoundedSemaphore(2)
"""A decoded picture takes up to a gigabyte: however many requests there are, two are decoded at once."""


@dataclass(frozen=True)
class UploadLimits:
    """Which pictures an operation takes, and bounds on its form.

    picture_field : the field that carries pictures; at least `fewest`, at most `most` of them
    max_file_bytes : of one picture; max_pixels : w·h of one picture, looked at before it is decoded
    max_fields : parts that are not pictures; max_field_bytes : of one's value; max_head_bytes : of one part's head
    """

    image_field: str
    fewest: int
    most: int
    max_file_bytes: int = 50_000_000
    max_pixels: int = 64_000_000
    max_fields: int = 32
    max_field_bytes: int = 4096
    max_head_bytes: int = 8192

    @classmethod
    def from_settings(cls, settings: Settings, operation: str) -> UploadLimits:
        """The limits of `generate` (one picture, `image`) or of `batch` (2 to 10, `images`)."""
        image_field, fewest, most = {
            "generate": ("image", 1, 1),
            "batch": ("images", MIN_BATCH_IMAGES, MAX_BATCH_IMAGES),
        }[operation]
        return cls(image_field, fewest, most, max_file_bytes=settings.max_image_bytes, max_pixels=settings.max_pixels)


@dataclass(frozen=True)
class UploadedImage:
    """One picture as it came, not yet looked into.

    field : the form field it came under; number : its place among the pictures, from 1
    label : what messages call it, short and printable: "Picture 2 (cat.png)"
    stream : its bytes, in a file without a name; size : their number; digest : their SHA-256 in lower-case hex
    """

    field: str
    number: int
    label: str
    stream: BinaryIO
    size: int
    digest: str


@dataclass(frozen=True)
class Upload:
    """A form that arrived whole: its texts by field, in the order given, and its pictures. To be closed."""

    fields: Mapping[str, tuple[str, ...]]
    images: tuple[UploadedImage, ...]

    def close(self) -> None:
        """Lets the pictures' files go; may be called again."""
        for image in self.images:
            image.stream.close()

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def parse_form(stream: BinaryIO, content_type: str, limits: UploadLimits, folder: Path) -> Upload:
    """Reads a multipart/form-data body to its last boundary; what follows that is not read.

    content_type : the request's header, "" when it has none
    folder : where pictures lie, in files without names, until the upload is closed; made where it is missing
    Raises UnsupportedMediaType, InvalidForm, UnknownField (a file under a name other than limits.picture_field),
    TooManyImages, FileTooLarge (naming the picture), StorageFull; nothing is left in the folder then.
    """
    reader = _FormReader(limits, folder)
    try:
        for event in read_parts(stream, content_type, limits.max_head_bytes):
            reader.take(event)
    except OSError as error:
        reader.close()
        if error.errno in _NO_SPACE:
            raise StorageFull from error
        raise
    except BaseException:
        reader.close()
        raise
    return reader.upload()


def images_of(upload: Upload, field: str, least: int, most: int) -> tuple[UploadedImage, ...]:
    """The pictures under a field, in order.

    Raises MissingImage (none), TooFewImages, TooManyImages, InvalidImage (one has no bytes; says which).
    """
    images = tuple(image for image in upload.images if image.field == field)
    if not images:
        raise MissingImage(f"No picture was sent; it belongs under the field {field!r}.", details={"field": field})
    if len(images) < least:
        raise TooFewImages(
            f"{len(images)} picture was sent, but this call takes at least {least}.",
            details={"field": field, "least": least, "most": most},
        )
    if len(images) > most:
        raise _too_many(field, most)
    for image in images:
        if not image.size:
            raise InvalidImage(f"{image.label}: it is empty.", details={"picture": image.number})
    return images


def check_and_store(image: UploadedImage, images: FileStore, limits: UploadLimits) -> str:
    """Decodes a picture whole and stores it anew as an upright sRGB PNG; nothing else of the file is kept.

    The picture's stream is used up. Returns the name it is stored under, made here.
    Raises InvalidImage, UnsupportedImage (both name the picture), StorageFull, ArtifactStoreUnavailable.
    """
    bounds = ImageLimits(max_pixels=limits.max_pixels, max_bytes=limits.max_file_bytes)
    with _decoders:
        try:
            decoded = open_image(image.stream, limits=bounds, name=image.label)
        except ServiceError as error:
            error.details["picture"] = image.number
            raise
        _write_png(decoded, image.stream)
    name = new_name("png")
    images.put(name, image.stream)
    return name


class _Text:
    """A part that is a field: its value, of bounded length."""

    def __init__(self, name: str, most: int) -> None:
        self.name = name
        self._most = most
        self._value = bytearray()

    def write(self, data: bytes) -> None:
        self._value += data
        if len(self._value) > self._most:
            raise InvalidForm(f"A field's value is longer than the {self._most} bytes that are taken here.")

    def finish(self) -> str:
        try:
            return self._value.decode()
        except UnicodeDecodeError as error:
            raise InvalidForm("A field's value is not UTF-8.") from error


class _ImageFile:
    """A part that is a picture: counted and hashed on its way into a file without a name."""

    def __init__(self, number: int, filename: str, most: int, folder: Path) -> None:
        self.stream: BinaryIO = _open(folder)
        self._number = number
        self._label = _label(number, filename)
        self._most = most
        self._size = 0
        self._digest = hashlib.sha256()

    def write(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._most:
            raise FileTooLarge(
                f"{self._label}: it is larger than {self._most} bytes.",
                details={"picture": self._number, "max_bytes": self._most},
            )
        self._digest.update(data)
        self.stream.write(data)

    def finish(self, field: str) -> UploadedImage:
        self.stream.seek(0)
        return UploadedImage(field, self._number, self._label, self.stream, self._size, self._digest.hexdigest())


class _FormReader:
    """Puts a form's parts together to an Upload."""

    def __init__(self, limits: UploadLimits, folder: Path) -> None:
        self._limits = limits
        self._folder = folder
        self._files: list[_ImageFile] = []
        self._texts = 0
        self._part: _Text | _ImageFile = _Text("", 0)
        self._fields: dict[str, tuple[str, ...]] = {}
        self._images: list[UploadedImage] = []

    def take(self, event: PartEvent) -> None:
        """The next event; Raises what parse_form raises."""
        if isinstance(event, PartBegins):
            self._part = self._begin(event.name, event.filename)
        elif isinstance(event, PartData):
            self._part.write(event.data)
        else:
            self._end(self._part)

    def upload(self) -> Upload:
        """What was read, once the last event was taken."""
        return Upload(self._fields, tuple(self._images))

    def close(self) -> None:
        """Lets all files go."""
        for file in self._files:
            # Closing writes what is still buffered: on a full disk that fails once more.
            with suppress(OSError):
                file.stream.close()

    def _begin(self, name: str, filename: str | None) -> _Text | _ImageFile:
        limits = self._limits
        # Whatever comes under the pictures' name is one: some clients leave the file name out.
        if name == limits.image_field:
            if len(self._files) == limits.most:
                raise _too_many(name, limits.most)
            file = _ImageFile(len(self._files) + 1, filename or "", limits.max_file_bytes, self._folder)
            self._files.append(file)
            return file
        if filename is not None:
            raise UnknownField(
                f"A picture belongs under the field {limits.image_field!r}, not under {_shown(name)}.",
                details={"field": name[:_LABEL_NAME], "allowed": [limits.image_field]},
            )
        self._texts += 1
        if self._texts > limits.max_fields:
            raise InvalidForm(f"The form has more than {limits.max_fields} fields.")
        return _Text(name, limits.max_field_bytes)

    def _end(self, part: _Text | _ImageFile) -> None:
        if isinstance(part, _Text):
            self._fields[part.name] = (*self._fields.get(part.name, ()), part.finish())
        else:
            self._images.append(part.finish(self._limits.image_field))


def _open(folder: Path) -> BinaryIO:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return cast(BinaryIO, tempfile.TemporaryFile(dir=folder))


def _label(number: int, filename: str) -> str:
    """A picture's name for messages: its number, and the last part of its file's name as far as it can be shown."""
    last = re.split(r"[/\\]", filename)[-1]
    return f"Picture {number} ({_shown(last)})" if last else f"Picture {number}"


def _shown(text: str) -> str:
    """A caller's text, fit for a message: short, and nothing that moves a cursor or turns the direction of reading."""
    short = text if len(text) <= _LABEL_NAME else text[: _LABEL_NAME - 1] + "…"
    return "".join(c if c.isprintable() else "?" for c in short)


def _too_many(field: str, most: int) -> TooManyImages:
    return TooManyImages(
        f"More pictures were sent than this call takes: at most {most} under the field {field!r}.",
        details={"field": field, "most": most},
    )


def _write_png(image: Image.Image, stream: BinaryIO) -> None:
    """Overwrites a file with a picture, quickly rather than small, and rewinds it. Raises StorageFull."""
    try:
        stream.seek(0)
        stream.truncate()
        image.save(stream, "PNG", compress_level=1)
        stream.seek(0)
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise StorageFull from error
        raise
