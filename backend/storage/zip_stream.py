"""A zip of files as a stream that is made while it is read: nothing is packed beforehand, and no file lies in memory.

The files are stored, not deflated, so that the zip's size and every place in it are known from the files' sizes alone,
and any part of it can be read by itself. Each file is read once for its checksum and once for its bytes: a checksum
that only follows a file is what some readers of streams refuse. The form is PKWARE's APPNOTE.TXT 6.3, sections 4.3 and
4.5.3. This module does not know whose files these are.
"""

from __future__ import annotations

import bisect
import io
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_FULL = 0xFFFFFFFF
_UTF8 = 1 << 11
_PLAIN, _LARGE = 20, 45
_UNIX = 3 << 8
_READABLE_FILE = 0o100644 << 16
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class ZipMember:
    """A file of a zip.

    name : in the zip, as it is to be unpacked; size : bytes; open : gives its bytes from their start, to be closed
    modified : shown as it is, without its zone, for zips know none
    """

    name: str
    size: int
    open: Callable[[], BinaryIO]
    modified: datetime


class ZipStream(io.RawIOBase):
    """A zip to read and seek in; one thread reads it. What opening a file raises comes out when its turn comes."""

    def __init__(self, members: Sequence[ZipMember]) -> None:
        """Lay out the zip; no file is opened yet."""
        super().__init__()
        self._members = members
        self._checksums: dict[int, int] = {}
        self._open: tuple[int, BinaryIO] | None = None
        self._built = b""
        self._position = 0
        self._starts: list[int] = []
        position = 0
        for member in members:
            self._starts.append(position)
            position += len(_local(member, 0)) + member.size
        self._directory_at = position
        self.size = position + len(self._directory([0] * len(members)))

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move, as io.IOBase says."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, target: WriteableBuffer) -> int:
        """Read, as io.RawIOBase says."""
        view = memoryview(target).cast("B")
        data = self._at(self._position, len(view))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        """Close the file that is open."""
        if self._open is not None:
            self._open[1].close()
            self._open = None
        super().close()

    def _at(self, position: int, most: int) -> bytes:
        """Return up to so many bytes of the zip, at least one unless it is over."""
        if position >= self._directory_at:
            start = position - self._directory_at
            if not self._built:
                self._built = self._directory([self._checksum(k) for k in range(len(self._members))])
            return self._built[start : start + most]
        index = bisect.bisect_right(self._starts, position) - 1
        member, inside = self._members[index], position - self._starts[index]
        head = len(_local(member, 0))
        if inside < head:
            return _local(member, self._checksum(index))[inside : inside + most]
        return self._read(index, inside - head, min(most, head + member.size - inside))

    def _read(self, index: int, start: int, size: int) -> bytes:
        stream = self._stream(index)
        stream.seek(start)
        data = stream.read(size)
        if not data:
            raise EOFError(f"{self._members[index].name} is shorter than it was")
        return data

    def _checksum(self, index: int) -> int:
        if index not in self._checksums:
            stream, found = self._stream(index), 0
            stream.seek(0)
            while piece := stream.read(_PIECE_BYTES):
                found = zlib.crc32(piece, found)
            self._checksums[index] = found
        return self._checksums[index]

    def _stream(self, index: int) -> BinaryIO:
        if self._open is None or self._open[0] != index:
            if self._open is not None:
                self._open[1].close()
                self._open = None
            self._open = index, self._members[index].open()
        return self._open[1]

    def _directory(self, checksums: Sequence[int]) -> bytes:
        """Return what stands behind the files: an entry for each, and where the entries are."""
        entries = b"".join(
            _central(member, checksum, start)
            for member, checksum, start in zip(self._members, checksums, self._starts, strict=True)
        )
        count, size, start = len(self._members), len(entries), self._directory_at
        end = b""
        if start >= _FULL or size >= _FULL or count >= 0xFFFF:
            end = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, _UNIX | _LARGE, _LARGE, 0, 0, count, count, size, start)
            end += struct.pack("<4sIQI", b"PK\6\7", 0, start + size, 1)
        few = min(count, 0xFFFF)
        end += struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, few, few, min(size, _FULL), min(start, _FULL), 0)
        return entries + end


def _local(member: ZipMember, checksum: int) -> bytes:
    """Return what stands in front of a file."""
    name = member.name.encode()
    large = member.size >= _FULL
    extra = struct.pack("<HHQQ", 1, 16, member.size, member.size) if large else b""
    size = min(member.size, _FULL)
    needed = _LARGE if large else _PLAIN
    day, time = _dos_time(member.modified)
    fixed = struct.pack(
        "<4sHHHHHIIIHH", b"PK\3\4", needed, _UTF8, 0, time, day, checksum, size, size, len(name), len(extra)
    )
    return fixed + name + extra


def _central(member: ZipMember, checksum: int, start: int) -> bytes:
    """Return a file's entry in the directory; start : where its local header is."""
    name = member.name.encode()
    sizes = [member.size, member.size] if member.size >= _FULL else []
    large = [*sizes, start] if start >= _FULL else sizes
    extra = struct.pack(f"<HH{len(large)}Q", 1, 8 * len(large), *large) if large else b""
    needed = _LARGE if large else _PLAIN
    size = min(member.size, _FULL)
    day, time = _dos_time(member.modified)
    return (
        struct.pack("<4sHHHHHHIII", b"PK\1\2", _UNIX | needed, needed, _UTF8, 0, time, day, checksum, size, size)
        + struct.pack("<HHHHHII", len(name), len(extra), 0, 0, 0, _READABLE_FILE, min(start, _FULL))
        + name
        + extra
    )


def _dos_time(moment: datetime) -> tuple[int, int]:
    """Return day and time as a zip has them: to two seconds, and from 1980."""
    day = max(moment.year - 1980, 0) << 9 | moment.month << 5 | moment.day
    return day, moment.hour << 11 | moment.minute << 5 | moment.second // 2
