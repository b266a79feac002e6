"""A tool's arguments as the form that the same call over HTTP takes, so that both are read by the same reader.

This module does not know what becomes of the form.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from backend.errors import InvalidImage, InvalidParameter, MissingImage

_DATA_URL = re.compile(r"data:[^,]{0,200},", re.IGNORECASE)
_ADDRESS = re.compile(r"https?://", re.IGNORECASE)
_MEMORY_BYTES = 1 << 20


@dataclass(frozen=True)
class Form:
    """A form to be read; close the body when that is done."""

    body: BinaryIO
    content_type: str


def as_form(arguments: Mapping[str, Any], image_field: str) -> Form:
    """Return a tool's arguments as a form. Raises MissingImage, InvalidImage, InvalidParameter.

    image_field : the one that has a picture or a list of pictures, as base64, data: URLs or addresses
    """
    boundary = secrets.token_hex(16)
    # What has an address is fetched by whoever reads the form, and only JSON can name one.
    is_json = any(_ADDRESS.match(picture) for picture in _pictures(arguments, image_field))
    body = tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES)  # noqa: SIM115  the form's
    try:
        if is_json:
            body.write(json.dumps(_as_json(arguments, image_field)).encode())
        else:
            _fill(body, boundary, arguments, image_field)
        body.seek(0)
    except BaseException:
        body.close()
        raise
    kind = "application/json" if is_json else f"multipart/form-data; boundary={boundary}"
    return Form(body, kind)  # type: ignore[arg-type]


def _as_json(arguments: Mapping[str, Any], image_field: str) -> dict[str, Any]:
    """Return the arguments as an object of the same call in JSON."""
    pictures = [{"url": text} if _ADDRESS.match(text) else text for text in _pictures(arguments, image_field)]
    rest = {
        _named(name): _as_text(name, value)
        for name, value in arguments.items()
        if name != image_field and value is not None
    }
    return {**rest, image_field: pictures if isinstance(arguments[image_field], list) else pictures[0]}


def _fill(body: Any, boundary: str, arguments: Mapping[str, Any], image_field: str) -> None:
    for number, text in enumerate(_pictures(arguments, image_field), start=1):
        disposition = f'form-data; name="{image_field}"; filename="picture-{number}"'
        _write(body, boundary, disposition, _decoded(text, image_field, number))
    for name, value in arguments.items():
        if name != image_field and value is not None:
            _write(body, boundary, f'form-data; name="{_named(name)}"', _as_text(name, value).encode())
    body.write(f"--{boundary}--\r\n".encode())


def _write(body: Any, boundary: str, disposition: str, content: bytes) -> None:
    body.write(f"--{boundary}\r\nContent-Disposition: {disposition}\r\n\r\n".encode())
    body.write(content)
    body.write(b"\r\n")


def _pictures(arguments: Mapping[str, Any], field: str) -> list[str]:
    given = arguments.get(field)
    if not given and arguments.get("prompt"):
        return []
    pictures: list[str] = given if isinstance(given, list) else [given] if given else []
    if not pictures:
        raise MissingImage(
            f"{field} is missing: give a picture as base64 text or a data: URL.", details={"field": field}
        )
    if not all(isinstance(picture, str) for picture in pictures):
        raise InvalidImage(f"{field} must be text: base64, or a data: URL.", details={"field": field})
    return pictures


def _decoded(text: str, field: str, number: int) -> bytes:
    match = _DATA_URL.match(text)
    if match is not None and not match[0].lower().endswith(";base64,"):
        raise InvalidImage(f"Picture {number}: a data: URL must be base64.", details={"field": field})
    try:
        return base64.b64decode("".join(text[match.end() if match else 0 :].split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidImage(
            f"Picture {number} is not base64. Give the picture's bytes as base64 text, or a data: URL; a path or an "
            "address of a page means nothing here.",
            details={"field": field},
        ) from error


def _named(name: str) -> str:
    """Return a field's name as a form can carry it; one that it cannot is no field's."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:64]


def _as_text(name: str, value: object) -> str:
    """Return an argument as a form has it: a list with commas between, a flag as a word. Raises InvalidParameter."""
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return ",".join(value)
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise InvalidParameter(f"{_named(name)} must be a text, a number or a flag.", details={"field": _named(name)})
