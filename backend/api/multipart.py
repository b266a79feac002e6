"""A multipart/form-data body (RFC 7578) as a form: its fields, and where in the body its files lie, or a named error.

Strict, so that a body reads the same however it is cut on its way: a line ends in CR LF, a header is not folded, and a
form that could be read in two ways is refused. The body is read once, in little memory, and its files stay where they
are. Names that a caller gave are shown in messages and never become paths. This module does not know what a field or a
file means.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from werkzeug.http import parse_options_header

from backend.errors import InvalidForm, ServiceError, TooManyImages, UnknownField, UnsupportedMediaType

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_CHUNK_BYTES = 1 << 16
_FILE_BUFFER_BYTES = 1 << 18
MEDIA_TYPE = "multipart/form-data"
_MAX_BOUNDARY = 70
# Blanks that may follow a boundary on its line (RFC 2046, 5.1.1).
_MAX_PADDING = 64
_CHARSETS = ("utf-8", "utf8", "us-ascii", "ascii")
_PLAIN_ENCODINGS = ("binary", "8bit", "7bit")
_BOUNDARY = re.compile(r"[!-~]([ -~]*[!-~])?")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\0\r\n]*)")
_SHOWN_NAME = 40
_KEPT_NAME = 255


@dataclass(frozen=True)
class FormLimits:
    """Bounds on a form.

    file_field : the field that carries files, at most `max_files` of them; lone_fields : others, each with one at most
    max_fields : parts that are not files; max_field_bytes : of one's value; max_head_bytes : of one part's head
    spool_dir : where files are decoded to, the system's own folder when None
    """

    file_field: str
    max_files: int
    lone_fields: tuple[str, ...] = ()
    max_fields: int = 32
    max_field_bytes: int = 4096
    max_head_bytes: int = 8192
    spool_dir: Path | None = None


@dataclass(frozen=True)
class FormFile:
    """A file of a form as it came, not yet opened.

    field : the form field it came under; number : its index among the files, from 1
    label : what messages call it, short and printable: "Picture 2 (cat.png)", "view_left (cat.png)"
    filename : what its sender calls it: the last part of a path, printable, at most 255 characters; None for nothing
    stream : its bytes, in the body; size : their number
    url : where it is, when it did not come itself and has not been fetched yet; failure : why it could not be fetched
    """

    field: str
    number: int
    label: str
    stream: BinaryIO
    size: int
    filename: str | None = None
    url: str | None = None
    failure: ServiceError | None = None

    def digest(self) -> str:
        """Return the SHA-256 of its bytes, or of its address, in lower-case hex."""
        if self.url is not None:
            return hashlib.sha256(f"url {self.url}".encode()).hexdigest()
        digest = hashlib.sha256()
        self.stream.seek(0)
        while data := self.stream.read(_CHUNK_BYTES):
            digest.update(data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Form:
    """A form that arrived whole: its texts by field, in the order given, and its files."""

    fields: Mapping[str, tuple[str, ...]]
    files: tuple[FormFile, ...]


@dataclass
class Part:
    """A part of a form: its field, and the name of its file, None where it has none.

    start : where its bytes begin in the stream; size : their number, once the next part was asked for
    max_bytes : set by the reader of parts; a part that has more is the last one that is read, and its size is too large
    """

    name: str
    filename: str | None
    start: int
    size: int = 0
    max_bytes: int | None = field(default=None, compare=False)


def read_multipart(stream: BinaryIO, content_type: str, limits: FormLimits) -> Form:
    """Read a body to its last boundary; what follows that is not read.

    stream : the body from its start, seekable, to be kept open for as long as the files are read
    content_type : the request's header, "" when it has none
    Raises UnsupportedMediaType, InvalidForm, UnknownField (a file under a name that limits don't have),
    TooManyImages. How large a file may be is for others to say, who may want to name several.
    """
    files: list[Part] = []
    texts: list[Part] = []
    for part in read_parts(stream, content_type, limits.max_head_bytes):
        # Whatever comes under the files' name is one: some clients leave the file name out.
        if part.name == limits.file_field or part.name in limits.lone_fields:
            most = limits.max_files if part.name == limits.file_field else 1
            if sum(other.name == part.name for other in files) == most:
                raise too_many_files(part.name, most)
            files.append(part)
        elif part.filename is not None:
            raise _misplaced(part, limits)
        else:
            part.max_bytes = limits.max_field_bytes
            texts.append(part)
            if len(texts) > limits.max_fields:
                raise InvalidForm(
                    f"The form has more than {limits.max_fields} fields.", details={"max_fields": limits.max_fields}
                )
    fields: dict[str, tuple[str, ...]] = {}
    for part in texts:
        fields[part.name] = (*fields.get(part.name, ()), _text(stream, part, limits.max_field_bytes))
    return Form(fields, tuple(_file(stream, part, number, limits) for number, part in enumerate(files, 1)))


def too_many_files(name: str, most: int) -> TooManyImages:
    """Return the error for a form with more files under a field than a call takes."""
    return TooManyImages(
        f"More pictures were sent than this call takes: at most {most} under the field {name!r}.",
        details={"field": name, "most": most},
    )


def read_parts(stream: BinaryIO, content_type: str, max_head_bytes: int) -> Iterator[Part]:
    """Yield the parts of a form, up to its last boundary, each before its bytes are read.

    content_type : the request's header, "" when it has none
    max_head_bytes : of one part's head, and of what stands before the first part
    Raises UnsupportedMediaType, InvalidForm.
    """
    source = _Source(stream, b"\r\n--" + _boundary(content_type))
    if source.skip_content(max_head_bytes) > max_head_bytes:
        raise InvalidForm("The body does not start with the boundary that its Content-Type names.")
    while (lines := source.take_head(max_head_bytes)) is not None:
        part = _part(lines, source.position)
        yield part
        part.size = source.skip_content(part.max_bytes)
        if part.max_bytes is not None and part.size > part.max_bytes:
            return


class _Source:
    """A stream cut at its boundaries; it holds a chunk and a boundary at most, or a part's head.

    position : where in the stream the first byte that it holds was
    """

    def __init__(self, stream: BinaryIO, delimiter: bytes) -> None:
        self._stream = stream
        self._delimiter = delimiter
        # A boundary that opens the body has no line's end before it.
        self._buffer = bytearray(b"\r\n")
        self.position = -2

    def skip_content(self, most: int | None) -> int:
        """Pass over what stands before the next boundary, and over the boundary; return how many bytes stood there.

        Gives up, and returns so many more, once they are more than `most`.
        """
        skipped = 0
        while (end := self._buffer.find(self._delimiter)) < 0:
            # The end of what is here may be the start of a boundary.
            ready = max(0, len(self._buffer) - len(self._delimiter) + 1)
            del self._buffer[:ready]
            self.position += ready
            skipped += ready
            if most is not None and skipped > most:
                return skipped
            self._fill()
        passed = end + len(self._delimiter)
        del self._buffer[:passed]
        self.position += passed
        return skipped + end

    def take_head(self, most: int) -> list[bytes] | None:
        """Return the lines of the next part's head, at most so many bytes; None after the last boundary."""
        while len(self._buffer) < 2:
            self._fill()
        if self._buffer.startswith(b"--"):
            return None
        # A line has a byte at least, so its end makes it three times as long at most.
        bound = _MAX_PADDING + 3 * most + 8
        while (end := self._buffer.find(b"\r\n\r\n", 0, bound)) < 0:
            if len(self._buffer) >= bound:
                raise InvalidForm(_LONG_HEAD)
            self._fill()
        padding, *lines = bytes(self._buffer[:end]).split(b"\r\n")
        del self._buffer[: end + 4]
        self.position += end + 4
        if padding.strip(b" \t"):
            raise InvalidForm("A line starts with the boundary and goes on with something else.")
        if len(padding) > _MAX_PADDING or sum(map(len, lines)) > most:
            raise InvalidForm(_LONG_HEAD)
        return lines

    def _fill(self) -> None:
        chunk = self._stream.read(_CHUNK_BYTES)
        if not chunk:
            raise InvalidForm("The form breaks off before its last boundary.")
        self._buffer += chunk


_LONG_HEAD = "A part's head is longer than is taken here."


class _Section(io.RawIOBase):
    """Some bytes of a stream as a stream of its own; one thread reads both."""

    def __init__(self, stream: BinaryIO, start: int, size: int) -> None:
        self._stream = stream
        self._start = start
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move, as io.IOBase says."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, target: WriteableBuffer) -> int:
        """Read, as io.RawIOBase says."""
        view = memoryview(target).cast("B")
        self._stream.seek(self._start + self._position)
        data = self._stream.read(max(0, min(len(view), self._size - self._position)))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)


def _text(stream: BinaryIO, part: Part, most: int) -> str:
    if part.size > most:
        raise InvalidForm(
            f"The value of the field {_shown(part.name)!r} is longer than the {most} bytes that are taken here.",
            details={"field": part.name[:_SHOWN_NAME], "max_bytes": most},
        )
    stream.seek(part.start)
    try:
        return stream.read(part.size).decode()
    except UnicodeDecodeError as error:
        raise InvalidForm(
            f"The value of the field {_shown(part.name)!r} is not UTF-8.", details={"field": part.name[:_SHOWN_NAME]}
        ) from error


def _misplaced(part: Part, limits: FormLimits) -> UnknownField:
    """Return why a file is refused that has another name than the files'."""
    file_field = limits.file_field
    details = {"field": part.name[:_SHOWN_NAME], "allowed": [*filter(None, (file_field, *limits.lone_fields))]}
    if not file_field:
        return UnknownField("This call takes no files.", details=details)
    belongs = f"A picture belongs under the field {file_field!r}, not under {_shown(part.name)}."
    return UnknownField(belongs, details=details)


def _file(stream: BinaryIO, part: Part, number: int, limits: FormLimits) -> FormFile:
    # The last part of its file's name, as far as it can be shown.
    last = re.split(r"[/\\]", part.filename or "")[-1]
    called = part.name if part.name in limits.lone_fields else f"Picture {number}"
    label = f"{called} ({_shown(last)})" if last else called
    filename = _printable(last[:_KEPT_NAME]) or None
    if part.size <= _CHUNK_BYTES:
        stream.seek(part.start)
        return FormFile(part.name, number, label, io.BytesIO(stream.read(part.size)), part.size, filename)
    section = io.BufferedReader(_Section(stream, part.start, part.size), _FILE_BUFFER_BYTES)
    return FormFile(part.name, number, label, cast(BinaryIO, section), part.size, filename)


def _shown(text: str) -> str:
    """Return a caller's text, fit for a message: short, and nothing that moves a cursor or turns the reading round."""
    return _printable(text if len(text) <= _SHOWN_NAME else text[: _SHOWN_NAME - 1] + "…")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def is_form(content_type: str) -> bool:
    """Return whether a Content-Type says that a body is a form of this kind."""
    return parse_options_header(content_type)[0].lower() == MEDIA_TYPE


def _boundary(content_type: str) -> bytes:
    if not is_form(content_type):
        raise UnsupportedMediaType
    options = parse_options_header(content_type)[1]
    boundary = options.get("boundary", "")
    if len(boundary) > _MAX_BOUNDARY or not _BOUNDARY.fullmatch(boundary):
        raise InvalidForm(f"The Content-Type must name a boundary of 1 to {_MAX_BOUNDARY} printable characters.")
    check_charset(options)
    return boundary.encode("ascii")


def _part(lines: Sequence[bytes], start: int) -> Part:
    headers = _headers(lines)
    kind, options = parse_options_header(headers.get("content-disposition", ""))
    if kind.lower() != "form-data" or "name" not in options:
        raise InvalidForm("Each part needs a Content-Disposition: form-data with a name.")
    if headers.get("content-transfer-encoding", "binary").lower() not in _PLAIN_ENCODINGS:
        raise InvalidForm("Parts must be sent as they are, without a Content-Transfer-Encoding.")
    if "content-type" in headers:
        media_type, type_options = parse_options_header(headers["content-type"])
        if media_type.lower().startswith("multipart/"):
            raise InvalidForm("A part must not be a form again: repeat the field for each file.")
        check_charset(type_options)
    return Part(options["name"], options.get("filename"), start)


def _headers(lines: Sequence[bytes]) -> dict[str, str]:
    """Return a part's headers by name in small letters.

    Raises InvalidForm for a line that is no header, or a name given twice.
    """
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


def check_charset(options: Mapping[str, str]) -> None:
    """Raise InvalidForm where the options of a Content-Type name another charset than UTF-8."""
    if options.get("charset", "utf-8").lower() not in _CHARSETS:
        raise InvalidForm("The form must be in UTF-8.")
