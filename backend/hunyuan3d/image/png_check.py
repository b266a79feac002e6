"""Whether a PNG is as its encoder left it: the checksum of every critical chunk, and that of the pixels themselves.

Readers of pictures pass over the checksums of pixels, and a bit that fell over on the way becomes another picture, and
a wrong mesh. The form of the file is W3C's PNG specification (third edition), sections 5 and 10. This module does not
know how pixels are decoded, and keeps none.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

_SIGNATURE_BYTES = 8
_PIECE_BYTES = 1 << 16
_INFLATED_BYTES = 1 << 20
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


class DamagedPng(ValueError):
    """Says what is damaged."""


def check_png(stream: BinaryIO) -> None:
    """Read a PNG from its start to its end. Raises DamagedPng.

    What follows the last chunk is not regarded, nor are data beyond the pixels, nor chunks that a reader may leave out.
    """
    stream.seek(_SIGNATURE_BYTES)
    pixels: _Pixels | None = None
    while True:
        length, kind = struct.unpack(">I4s", _exactly(stream, 8, "between two chunks"))
        name = kind.decode("ascii", "replace") if kind.isalpha() else "without a name"
        # The fifth bit of the first letter says that a chunk may be left out.
        if kind[0] & 0x20:
            _pass_over(stream, length + 4, name)
            continue
        for piece in _checked(stream, length, kind, name):
            if kind == b"IHDR":
                pixels = _Pixels(piece)
            elif kind == b"IDAT" and pixels is not None:
                pixels.take(piece)
        if kind == b"IEND":
            if pixels is not None:
                pixels.end()
            return


class _Pixels:
    """The compressed pixels, inflated as far as the picture goes and thrown away."""

    def __init__(self, header: bytes) -> None:
        """header : what IHDR has; one that makes no sense is for the decoder to refuse."""
        width, height, depth, colour = struct.unpack(">IIBB", header[:10].ljust(10, b"\0"))
        row = (width * depth * _CHANNELS.get(colour, 4) + 7) // 8 + 1
        # An interlaced picture has a few more rows, shorter ones, each with its filter and its last bits.
        self._most = row * height + 4 * (row + 2 * height) + _PIECE_BYTES
        self._inflater = zlib.decompressobj()
        self._inflated = 0
        self._seen = False

    def take(self, piece: bytes) -> None:
        """Inflate what comes next. Raises DamagedPng."""
        self._seen = True
        while piece and not self._is_over():
            self._inflate(piece)
            piece = self._inflater.unconsumed_tail

    def end(self) -> None:
        """See that nothing is missing. Raises DamagedPng."""
        while self._seen and not self._is_over():
            before = self._inflated
            self._inflate(b"")
            if self._inflated == before and not self._inflater.eof:
                raise DamagedPng("its pixels break off")

    def _is_over(self) -> bool:
        return self._inflater.eof or self._inflated > self._most

    def _inflate(self, piece: bytes) -> None:
        try:
            self._inflated += len(self._inflater.decompress(piece, _INFLATED_BYTES))
        except zlib.error as error:
            raise DamagedPng("its pixels are damaged, the compressed data or their checksum") from error


def _checked(stream: BinaryIO, length: int, kind: bytes, name: str) -> Iterator[bytes]:
    """Yield a chunk's data in pieces. Raises DamagedPng, at the end where the checksum is wrong."""
    found = zlib.crc32(kind)
    left = length
    while left:
        piece = _exactly(stream, min(left, _PIECE_BYTES), f"in its chunk {name}")
        found = zlib.crc32(piece, found)
        left -= len(piece)
        yield piece
    (noted,) = struct.unpack(">I", _exactly(stream, 4, f"in its chunk {name}"))
    if noted != found:
        raise DamagedPng(f"the checksum of its chunk {name} is wrong")


def _pass_over(stream: BinaryIO, size: int, name: str) -> None:
    while size:
        size -= len(_exactly(stream, min(size, _INFLATED_BYTES), f"in its chunk {name}"))


def _exactly(stream: BinaryIO, size: int, place: str) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise DamagedPng(f"it breaks off {place}")
    return data
