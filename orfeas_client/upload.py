"""Bodies that can be sent again and again, of known length and digest: a form, never whole in memory, or JSON.

Nothing but the standard library. This module does not know where a body goes.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from orfeas_client.errors import LocalFileError

_CHUNK_BYTES = 1 << 18


@dataclass(frozen=True)
class ImageUrl:
    """A picture that the service is to fetch, where its `/me` says that it does: `capabilities.image_urls`."""

    url: str

    @property
    def name(self) -> str:
        """The last part of the address's path."""
        return PurePosixPath(unquote(urlsplit(self.url).path)).name

    @property
    def stem(self) -> str:
        """The same without its suffix."""
        return PurePosixPath(self.name).stem


ImageSource = Path | str | bytes | ImageUrl
"""A picture as a caller has it: a file's path, its bytes, or where it is."""


@dataclass(frozen=True)
class _Part:
    """A piece of the body: bytes at hand, or a file of a size that it must keep."""

    content: bytes | Path
    size: int


class JsonBody:
    """A body of JSON text."""

    content_type = "application/json"

    def __init__(self, text: str) -> None:
        self.content = text.encode()
        self.digest = hashlib.sha256(self.content).hexdigest()

    def __len__(self) -> int:
        return len(self.content)

    def __iter__(self) -> Iterator[bytes]:
        """Yield the bytes."""
        yield self.content


class MultipartBody:
    """The bytes of one form: iterating gives them from the start, each time the same.

    digest : lower-case hex SHA-256 of all of them; len() : how many there are
    """

    def __init__(self, fields: Mapping[str, str], images: Sequence[ImageSource], name: str | Sequence[str]) -> None:
        """Measure the form and its digest; every file is read once.

        fields : the form's texts; name : the field that every picture is sent as, or one for each
        Raises LocalFileError.
        """
        boundary = secrets.token_hex(16)
        self.content_type = f"multipart/form-data; boundary={boundary}"
        names = [name] * len(images) if isinstance(name, str) else name
        self._parts = tuple(_parts(boundary, fields, images, names))
        self._size = sum(part.size for part in self._parts)
        digest = hashlib.sha256()
        for chunk in self:
            digest.update(chunk)
        self.digest = digest.hexdigest()

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        """Yield the bytes. Raises LocalFileError when a picture cannot be read, or is no longer as long as it was."""
        for part in self._parts:
            yield from _chunks(part)


Body = MultipartBody | JsonBody


def body_of(fields: Mapping[str, str], images: Sequence[ImageSource], names: Sequence[str]) -> Body:
    """Return the body of a request: a form, or JSON where an image is an address.

    names : the field of each image; `images` is one of several, `view_front` and the like are views of an object
    Raises LocalFileError.
    """
    # None are of what words tell of.
    if not any(isinstance(image, ImageUrl) for image in images):
        return MultipartBody(fields, images, names)
    values = [_json_of(image) for image in images]
    if names[0] == "images":
        return JsonBody(json.dumps({**fields, "images": values}))
    if names[0] == "image":
        return JsonBody(json.dumps({**fields, "image": values[0]}))
    views = {name.removeprefix("view_"): value for name, value in zip(names, values, strict=True)}
    return JsonBody(json.dumps({**fields, "views": views}))


def _json_of(image: ImageSource) -> object:
    if isinstance(image, ImageUrl):
        return {"url": image.url}
    content = image if isinstance(image, bytes) else Path(image)
    part = _Part(content, len(content) if isinstance(content, bytes) else _size_of(content))
    return base64.b64encode(b"".join(_chunks(part))).decode()


def _parts(
    boundary: str, fields: Mapping[str, str], images: Sequence[ImageSource], names: Sequence[str]
) -> Iterator[_Part]:
    for field, value in fields.items():
        yield _text(f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(field)}"\r\n\r\n{value}\r\n')
    for image, name in zip(images, names, strict=True):
        if isinstance(image, ImageUrl):
            raise TypeError("An address goes into JSON.")
        file = image if isinstance(image, bytes) else Path(image)
        label = _quoted("picture" if isinstance(file, bytes) else file.name)
        yield _text(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(name)}"; filename="{label}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        yield _Part(file, len(file) if isinstance(file, bytes) else _size_of(file))
        yield _text("\r\n")
    yield _text(f"--{boundary}--\r\n")


def _text(text: str) -> _Part:
    content = text.encode("utf-8", "replace")
    return _Part(content, len(content))


def _quoted(name: str) -> str:
    """Write a name within quotes as browsers do (WHATWG HTML, multipart/form-data)."""
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _size_of(path: Path) -> int:
    try:
        if not path.is_file():
            raise LocalFileError(f"There is no file {path}.")
        return path.stat().st_size
    except OSError as failure:
        raise _unreadable(path, failure) from failure


def _chunks(part: _Part) -> Iterator[bytes]:
    left = part.size
    with _open(part.content) as stream:
        while chunk := _read(stream, part.content):
            left -= len(chunk)
            if left < 0:
                break
            yield chunk
    if left:
        raise LocalFileError(f"{part.content!s} changed while it was sent.")


def _open(content: bytes | Path) -> BinaryIO:
    if isinstance(content, bytes):
        return io.BytesIO(content)
    try:
        return content.open("rb")
    except OSError as failure:
        raise _unreadable(content, failure) from failure


def _read(stream: BinaryIO, content: bytes | Path) -> bytes:
    try:
        return stream.read(_CHUNK_BYTES)
    except OSError as failure:
        raise _unreadable(content, failure) from failure


def _unreadable(content: bytes | Path, failure: OSError) -> LocalFileError:
    # An OSError here must not be taken for a broken connection, which is tried again.
    return LocalFileError(f"{content!s} cannot be read: {failure.strerror or failure}.")
