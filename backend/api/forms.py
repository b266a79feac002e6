"""A body as a form, in either envelope that a call takes: multipart/form-data or JSON.

This module does not know how either is read.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import BinaryIO

from backend.api.json_form import MEDIA_TYPE as JSON_TYPE
from backend.api.json_form import is_json, read_json_form
from backend.api.multipart import MEDIA_TYPE as FORM_TYPE
from backend.api.multipart import Form, FormLimits, is_form, read_multipart
from backend.errors import UnsupportedMediaType


def read_form(stream: BinaryIO, content_type: str, limits: FormLimits, opened: ExitStack | None = None) -> Form:
    """Read a body of whichever type it says it is.

    stream : the body from its start, seekable, to be kept open for as long as its files are read
    content_type : the request's header, "" when it has none
    opened : closes the files that are made, needed where limits allow any
    Raises UnsupportedMediaType, and what read_multipart and read_json_form raise.
    """
    if is_json(content_type):
        return read_json_form(stream, content_type, limits, opened or ExitStack())
    if is_form(content_type):
        return read_multipart(stream, content_type, limits)
    details: dict[str, object] = {"header": "Content-Type", "allowed": [FORM_TYPE, JSON_TYPE]}
    if limits.file_field:
        image = f'base64, a data: URL or {{"url": …}} in {JSON_TYPE}'
        type = f"a file in {FORM_TYPE}, or {image if limits.max_files == 1 else f'a list of {image}'}"
        details |= {"field": limits.file_field, "type": type}
    raise UnsupportedMediaType(details=details)
