"""A JSON body as a form: its fields as the texts of a multipart form, its images decoded, or a named error.

What is asked for is read and checked alike, whichever envelope it came in. A long text, which only an image may be,
stays where it lies in the body until it is decoded, piece by piece, to a file: a body of MAX_JSON_BYTES takes little
memory. This module does not know what a field or an image means, and fetches nothing.
"""

from __future__ import annotations

import binascii
import errno
import io
import json
import re
import secrets
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from werkzeug.http import parse_options_header

from backend.api.multipart import Form, FormFile, FormLimits, check_charset, too_many_files
from backend.errors import ConflictingInputs, InvalidForm, InvalidImage, StorageFull, UnknownField
from backend.limits import VIEWS

MEDIA_TYPE = "application/json"

_CHUNK_BYTES = 1 << 16
_SHORT = 4096
"""A longer text stays in the body."""

_MAX_SKELETON = 1 << 18
_IN_MEMORY = 1 << 20
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_IN_STRING = re.compile(rb'["\\]')
_DATA = re.compile(r"data:([^,;]{0,100})(;[^,;]{1,100})*?(;base64)?,", re.IGNORECASE)
_BASE64 = re.compile(rb"[A-Za-z0-9+/]*")
_WHITE = re.compile(rb"\\[nrt/]|[ \t\r\n]")
_HEAD = 300


@dataclass(frozen=True)
class _Long:
    """A long text of the body: where it begins, and how many bytes it has there."""

    start: int
    size: int


def is_json(content_type: str) -> bool:
    """Return whether a Content-Type says that a body is JSON."""
    return parse_options_header(content_type)[0].lower() == MEDIA_TYPE


def read_json_form(stream: BinaryIO, content_type: str, limits: FormLimits, opened: ExitStack) -> Form:
    """Read a body of one object; its members are the fields of the form, and the images under limits' names.

    stream : the body from its start, seekable; limits : file_field says whether it takes `image` or `images`, and its
    lone_fields whether it takes `views`; opened : closes the files that images are decoded to
    Raises InvalidForm, InvalidImage, UnknownField, TooManyImages, ConflictingInputs, StorageFull.
    """
    check_charset(parse_options_header(content_type)[1])
    return form_of(read_object(stream), stream, limits, opened)


def form_of(members: Mapping[str, Any], stream: BinaryIO, limits: FormLimits, opened: ExitStack) -> Form:
    """Return the form that an object's members make, as read_object gave them of this stream.

    Raises what read_json_form raises.
    """
    given = dict(members)
    images = list(_images(given, limits))
    for name in filter(None, (limits.file_field, *(("views",) if limits.lone_fields else ()))):
        given.pop(name, None)
    most = limits.max_fields
    if len(given) > most:
        raise InvalidForm(f"The form has more than {most} fields.", details={"max_fields": most})
    fields = {name: _texts(name, value) for name, value in given.items()}
    files = [_file(stream, *image, number, limits, opened) for number, image in enumerate(images, 1)]
    return Form(fields, tuple(files))


def read_object(stream: BinaryIO) -> dict[str, Any]:
    """Return the object of a body; a long text of its values is where it lies. Raises InvalidForm."""
    mark = secrets.token_hex(16)
    longs: list[_Long] = []
    try:
        text = b"".join(_skeleton(stream, mark, longs)).decode()
        value = json.loads(text, object_pairs_hook=_members, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidForm("The body is not readable JSON.") from error
    if not isinstance(value, dict):
        raise InvalidForm("The body must be one JSON object.")
    return {name: _resolved(member, mark, longs) for name, member in value.items()}


def _skeleton(stream: BinaryIO, mark: str, longs: list[_Long]) -> Iterator[bytes]:
    """Yield a JSON text with the mark and a number in place of each long string, which is added to `longs`."""
    total = 0
    for piece in _pieces(stream):
        if isinstance(piece, _Long):
            longs.append(piece)
            part = f'"{mark}{len(longs) - 1}"'.encode()
        else:
            part = piece
        total += len(part)
        if total > _MAX_SKELETON:
            raise InvalidForm(
                f"The body has more than {_MAX_SKELETON} bytes beside its images.", details={"max_bytes": _MAX_SKELETON}
            )
        yield part


def _pieces(stream: BinaryIO) -> Iterator[bytes | _Long]:
    """Cut a JSON text into what stands between its strings, its short strings, and its long ones."""
    position = 0
    # Of the string at hand: where it began, and its first bytes; None outside of strings.
    start: int | None = None
    kept = bytearray()
    escaped = False
    while chunk := stream.read(_CHUNK_BYTES):
        at = 0
        while at < len(chunk):
            if start is None:
                end = chunk.find(b'"', at)
                yield chunk[at : len(chunk) if end < 0 else end]
                at = len(chunk) if end < 0 else end + 1
                if end >= 0:
                    start, kept = position + at, bytearray()
                continue
            found = None if escaped else _IN_STRING.search(chunk, at)
            end = at + 1 if escaped else found.start() if found else len(chunk)
            kept += chunk[at : min(end, at + _SHORT + 1)]
            escaped = found is not None and found[0] == b"\\"
            at = end
            if escaped:
                kept += b"\\"
                at += 1
            elif found is not None:
                size = position + end - start
                yield _Long(start, size) if size > _SHORT else b'"' + bytes(kept) + b'"'
                start, at = None, end + 1
            if len(kept) > 2 * _SHORT:
                del kept[_SHORT + 1 :]
        position += len(chunk)
    if start is not None:
        raise InvalidForm("The body breaks off inside a text.")


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise InvalidForm("The body has a member twice.")
    return dict(pairs)


def _refuse_constant(name: str) -> object:
    raise ValueError(name)


def _resolved(value: object, mark: str, longs: Sequence[_Long]) -> Any:
    """Return a value with its long texts in the marks' places."""
    if isinstance(value, str) and value.startswith(mark):
        return longs[int(value.removeprefix(mark))]
    if isinstance(value, list):
        return [_resolved(each, mark, longs) for each in value]
    if isinstance(value, dict):
        return {name: _resolved(each, mark, longs) for name, each in value.items()}
    return value


def _texts(name: str, value: object) -> tuple[str, ...]:
    """Return a field's value as the texts that a multipart form would have."""
    if isinstance(value, list):
        return tuple(text for each in value for text in _texts(name, each if not isinstance(each, list) else None))
    if isinstance(value, bool):
        return (str(value).lower(),)
    if isinstance(value, str):
        return (value,)
    if isinstance(value, int | float):
        return (json.dumps(value),)
    kind = "a text longer than is taken here" if isinstance(value, _Long) else f"a JSON {_kind(value)}"
    raise InvalidForm(
        f"The field {name[:40]!r} is {kind}; send a text, a number, true or false, or leave it out.",
        details={"field": name[:40], "max_bytes": _SHORT},
    )


def _kind(value: object) -> str:
    return "null" if value is None else "object"


def _images(given: Mapping[str, Any], limits: FormLimits) -> Iterator[tuple[str, str, Any]]:
    """Yield field, label and value of each image, in order."""
    field = limits.file_field
    if field and field in given:
        several = limits.max_files > 1
        values = given[field] if several else [given[field]]
        if not isinstance(values, list):
            raise InvalidForm(f"{field} must be a list of images.", details={"field": field, "type": "array"})
        if len(values) > limits.max_files:
            raise too_many_files(field, limits.max_files)
        yield from ((field, f"Picture {number}", value) for number, value in enumerate(values, 1))
    if limits.lone_fields and "views" in given:
        views = given["views"]
        allowed = ", ".join(VIEWS)
        if not isinstance(views, dict) or not views:
            raise InvalidForm(f"views must be an object with one or more of {allowed}.", details={"field": "views"})
        if field in given:
            raise ConflictingInputs(details={"fields": [field, "views"]})
        for name, value in views.items():
            if name not in VIEWS:
                raise UnknownField(
                    f"There is no view {name[:40]!r}; the views are {allowed}.",
                    details={"field": "views", "allowed": list(VIEWS)},
                )
            yield f"view_{name}", f"view_{name}", value


def _file(
    stream: BinaryIO,
    field: str,
    label: str,
    value: object,
    number: int,
    limits: FormLimits,
    opened: ExitStack,
) -> FormFile:
    details = {"field": field, "type": 'base64, a data: URL, or {"url": "https://…"}'}
    if isinstance(value, dict) and set(value) == {"url"} and isinstance(value["url"], str):
        return FormFile(field, number, label, io.BytesIO(), 0, url=value["url"])
    if not isinstance(value, str | _Long):
        raise InvalidImage(f"{label}: an image is {details['type']}.", details=details)
    if isinstance(value, str) and re.match(r"https?://", value, re.IGNORECASE):
        raise InvalidImage(f'{label}: an address is sent as {{"url": "https://…"}}.', details=details)
    if isinstance(value, str):
        stream, value = io.BytesIO(value.encode()), _Long(0, len(value.encode()))
    stream.seek(value.start)
    head = stream.read(min(_HEAD, value.size)).decode("latin-1")
    prefix = _DATA.match(head.replace("\\/", "/"))
    if (prefix is None and head[:5].lower() == "data:") or (prefix is not None and prefix[3] is None):
        raise InvalidImage(f"{label}: a data: URL of an image is in base64.", details=details)
    skipped = 0 if prefix is None else head.index(",") + 1
    try:
        decoded, size = _decoded(stream, _Long(value.start + skipped, value.size - skipped), limits, opened)
    except binascii.Error as error:
        raise InvalidImage(f"{label}: it is not base64 ({error}).", details=details) from error
    return FormFile(field, number, label, decoded, size)


def _decoded(stream: BinaryIO, text: _Long, limits: FormLimits, opened: ExitStack) -> tuple[BinaryIO, int]:
    """Return a base64 text decoded, in a file, and its length. Raises binascii.Error, StorageFull."""
    folder = None if limits.spool_dir is None else str(limits.spool_dir)
    spooled = opened.enter_context(tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=folder))  # noqa: SIM115
    file = cast(BinaryIO, spooled)
    stream.seek(text.start)
    left, pending, size, is_over = text.size, b"", 0, False
    try:
        while left:
            chunk = stream.read(min(_CHUNK_BYTES, left))
            left -= len(chunk)
            # An escape may be cut in two.
            while chunk.endswith(b"\\") and left:
                chunk += stream.read(1)
                left -= 1
            clean = _WHITE.sub(lambda found: b"/" if found[0] == b"\\/" else b"", chunk).translate(_URL_SAFE)
            body = clean.rstrip(b"=")
            if (is_over and clean.strip(b"=")) or not _BASE64.fullmatch(body):
                raise binascii.Error("a character that base64 does not have")
            is_over = is_over or len(body) < len(clean)
            pending += body
            whole = len(pending) // 4 * 4
            size += file.write(binascii.a2b_base64(pending[:whole]))
            pending = pending[whole:]
        # What fills the last four up is often left away.
        size += file.write(binascii.a2b_base64(pending + b"=" * (-len(pending) % 4)))
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise StorageFull from error
        raise
    file.seek(0)
    return file, size


_URL_SAFE = bytes.maketrans(b"-_", b"+/")
