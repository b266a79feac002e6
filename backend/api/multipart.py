"""The outer shape of a multipart/form-data body (RFC 7578): part after part, in little memory, or a named error.

Strict, so that a body reads the same however it is cut on its way: a line ends in CR LF, a header is not folded, and a
form that could be read in two ways is refused. This module does not know what a part means or where its bytes go.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from werkzeug.http import parse_options_header

from backend.errors import InvalidForm, UnsupportedMediaType

_CHUNK_BYTES = 1 << 16
_MAX_BOUNDARY = 70
# Blanks that may follow a boundary on its line (RFC 2046, 5.1.1).
_MAX_PADDING = 64
_CHARSETS = ("utf-8", "utf8", "us-ascii", "ascii")
_PLAIN_ENCODINGS = ("binary", "8bit", "7bit")
_BOUNDARY = re.compile(r"[!-~]([ -~]*[!-~])?")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\0\r\n]*)")


@dataclass(frozen=True)
class PartBegins:
    """A part's head: its field, and the name of its file, None where it has none."""

    name: str
    filename: str | None


@dataclass(frozen=True)
class PartData:
    """Some bytes of the part that began last."""

    data: bytes


@dataclass(frozen=True)
class PartEnds:
    """The part that began last is whole."""


PartEvent = PartBegins | PartData | PartEnds


def read_parts(stream: BinaryIO, content_type: str, max_head_bytes: int) -> Iterator[PartEvent]:
    """The parts of a form, up to its last boundary; what follows that is not read.

    content_type : the request's header, "" when it has none
    max_head_bytes : of one part's head, and of what stands before the first part
    Raises UnsupportedMediaType, InvalidForm.
    """
    boundary = _boundary(content_type)
    source = _Source(stream, b"\r\n--" + boundary)
    source.skip_to_part(max_head_bytes)
    while source.another_part():
        yield _part_begins(source.head(max_head_bytes))
        for data in source.data():
            yield PartData(data)
        yield PartEnds()


class _Source:
    """A stream cut at its boundaries; it holds a chunk and a boundary at most, or a part's head."""

    def __init__(self, stream: BinaryIO, delimiter: bytes) -> None:
        self._stream = stream
        self._delimiter = delimiter
        # A boundary that opens the body has no line's end before it.
        self._buffer = bytearray(b"\r\n")

    def skip_to_part(self, most: int) -> None:
        """Passes over what stands before the first boundary, and over the boundary."""
        skipped = 0
        for piece in self.data():
            skipped += len(piece)
            if skipped > most:
                raise InvalidForm("The body does not start with the boundary that its Content-Type names.")

    def another_part(self) -> bool:
        """Passes over the rest of a boundary's line; False when it was the last boundary."""
        while len(self._buffer) < 2:
            self._fill()
        if self._buffer.startswith(b"--"):
            return False
        if self._line(_MAX_PADDING).strip(b" \t"):
            raise InvalidForm("A line starts with the boundary and goes on with something else.")
        return True

    def head(self, most: int) -> list[bytes]:
        """The lines of a part's head, at most so many bytes; passes over the empty line after them."""
        lines = []
        while line := self._line(most):
            lines.append(line)
            most -= len(line)
        return lines

    def data(self) -> Iterator[bytes]:
        """What stands before the next boundary, in pieces; passes over the boundary."""
        while (end := self._buffer.find(self._delimiter)) < 0:
            # The end of what is here may be the start of a boundary.
            ready = len(self._buffer) - len(self._delimiter) + 1
            if ready > 0:
                yield self._take(ready)
            self._fill()
        if end:
            yield self._take(end)
        del self._buffer[: len(self._delimiter)]

    def _line(self, most: int) -> bytes:
        while (end := self._buffer.find(b"\r\n", 0, most + 2)) < 0:
            if len(self._buffer) >= most + 2:
                raise InvalidForm("A part's head is longer than is taken here.")
            self._fill()
        line = self._take(end)
        del self._buffer[:2]
        return line

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _fill(self) -> None:
        chunk = self._stream.read(_CHUNK_BYTES)
        if not chunk:
            raise InvalidForm("The form breaks off before its last boundary.")
        self._buffer += chunk


def _boundary(content_type: str) -> bytes:
    media_type, options = parse_options_header(content_type)
    if media_type.lower() != "multipart/form-data":
        raise UnsupportedMediaType
    boundary = options.get("boundary", "")
    if len(boundary) > _MAX_BOUNDARY or not _BOUNDARY.fullmatch(boundary):
        raise InvalidForm(f"The Content-Type must name a boundary of 1 to {_MAX_BOUNDARY} printable characters.")
    _check_charset(options)
    return boundary.encode("ascii")


def _part_begins(lines: list[bytes]) -> PartBegins:
    headers = _headers(lines)
    kind, options = parse_options_header(headers.get("content-disposition", ""))
    if kind.lower() != "form-data" or "name" not in options:
        raise InvalidForm("Each part needs a Content-Disposition: form-data with a name.")
    if headers.get("content-transfer-encoding", "binary").lower() not in _PLAIN_ENCODINGS:
        raise InvalidForm("Parts must be sent as they are, without a Content-Transfer-Encoding.")
    media_type, type_options = parse_options_header(headers.get("content-type", ""))
    if media_type.lower().startswith("multipart/"):
        raise InvalidForm("A part must not be a form again: repeat the field for each file.")
    _check_charset(type_options)
    return PartBegins(options["name"], options.get("filename"))


def _headers(lines: list[bytes]) -> dict[str, str]:
    """A part's headers by name in small letters. Raises InvalidForm for a line that is none, or a name given twice."""
    headers: dict[str, str] = {}
    for line in lines:
        try:
            match = _HEADER.fullmatch(line.decode())
        except UnicodeDecodeError as error:
            raise InvalidForm("A part's head is not UTF-8.") from error
        if match is None or match[1].lower() in headers:
            raise InvalidForm("A part's head has a line that is not a header, or a header twice.")
        headers[match[1].lower()] = match[2].rstrip(" \t")
    return headers


def _check_charset(options: Mapping[str, str]) -> None:
    if options.get("charset", "utf-8").lower() not in _CHARSETS:
        raise InvalidForm("The form must be in UTF-8.")
