"""How large a coded picture really is: the sizes in AV1 and HEVC streams, which a container may understate.

Forms: AV1 Bitstream & Decoding Process Specification, sections 5.3 to 5.5; ITU-T H.265, sections 7.3.1 and 7.3.2.2.
This module does not know of containers, and decodes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

Size = tuple[int, int]

_SEQUENCE_HEADER = 1
_SPS = 33
_HEAD_BYTES = 256
"""Far more than what stands before the size in a header."""

_MOST_UNITS = 4096
"""Units of one picture: encoders make some tens."""


class UnreadableStream(ValueError):
    """A stream that no decoder would follow either."""


class _Bits:
    """Bits of a few bytes, the highest of each byte first; beyond the end, UnreadableStream."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = len(data) * 8

    def take(self, count: int) -> int:
        """Return the next so many bits as a number."""
        self._left -= count
        if self._left < 0:
            raise UnreadableStream("a header breaks off")
        return self._value >> self._left & ((1 << count) - 1)

    def take_golomb(self) -> int:
        """Return the next Exp-Golomb number: HEVC's ue(v), AV1's uvlc()."""
        zeros = 0
        while not self.take(1):
            zeros += 1
            if zeros > 31:
                raise UnreadableStream("a header has a number that is too large")
        return (1 << zeros) - 1 + self.take(zeros)


def av1_sizes(data: bytes) -> Iterator[Size]:
    """Yield the largest frame size that each sequence header of an AV1 stream allows. Raises UnreadableStream."""
    at = 0
    for _ in range(_MOST_UNITS):
        if at == len(data):
            return
        head = data[at]
        at += 1 + (head >> 2 & 1)
        size = len(data) - at
        if head & 2:
            size, at = _leb128(data, at)
        if head & 0x80 or size < 0 or at + size > len(data):
            raise UnreadableStream("its units break off")
        if head >> 3 & 15 == _SEQUENCE_HEADER:
            yield _sequence_size(_Bits(data[at : at + min(size, _HEAD_BYTES)]))
        at += size
    raise UnreadableStream("it has too many units")


def hevc_sizes(data: bytes, length_bytes: int) -> Iterator[Size]:
    """Yield the size in each sequence parameter set of an HEVC stream whose units have their length before them.

    length_bytes : of a length, 1 to 4. Raises UnreadableStream.
    """
    at = 0
    for _ in range(_MOST_UNITS):
        if at == len(data):
            return
        size = int.from_bytes(data[at : at + length_bytes], "big")
        at += length_bytes
        if at + size > len(data):
            raise UnreadableStream("its units break off")
        if size > 2 and data[at] >> 1 & 63 == _SPS:
            yield sps_size(data[at : at + min(size, _HEAD_BYTES)])
        at += size
    raise UnreadableStream("it has too many units")


def sps_size(unit: bytes) -> Size:
    """Return the size that a sequence parameter set of HEVC says. unit : with its head. Raises UnreadableStream."""
    # A 3 after two zeros is not data: it keeps a start code from appearing.
    bits = _Bits(unit[2:].replace(b"\0\0\3", b"\0\0"))
    bits.take(4)
    layers = bits.take(3)
    bits.take(1)
    _skip_profile(bits, layers)
    bits.take_golomb()
    if bits.take_golomb() == 3:
        bits.take(1)
    return bits.take_golomb(), bits.take_golomb()


def _skip_profile(bits: _Bits, layers: int) -> None:
    """Pass over profile_tier_level()."""
    bits.take(88)
    bits.take(8)
    present = [(bits.take(1), bits.take(1)) for _ in range(layers)]
    if layers:
        bits.take(2 * (8 - layers))
    for profile, level in present:
        bits.take(88 * profile)
        bits.take(8 * level)


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    """Return the number that begins there, and where it ends."""
    value = 0
    for index in range(8):
        if at >= len(data):
            break
        value |= (data[at] & 0x7F) << 7 * index
        at += 1
        if not data[at - 1] & 0x80:
            return value, at
    raise UnreadableStream("a length breaks off")


def _sequence_size(bits: _Bits) -> Size:
    """Return max_frame_width and max_frame_height of sequence_header_obu()."""
    bits.take(4)
    if bits.take(1):
        bits.take(5)
    else:
        _skip_operating_points(bits)
    widths, heights = bits.take(4) + 1, bits.take(4) + 1
    return bits.take(widths) + 1, bits.take(heights) + 1


def _skip_operating_points(bits: _Bits) -> None:
    """Pass over what a header that is not reduced says of timing and operating points."""
    model_bits = 0
    if bits.take(1):
        bits.take(64)
        if bits.take(1):
            bits.take_golomb()
        if bits.take(1):
            model_bits = bits.take(5) + 1
            bits.take(42)
    shows_delay = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)
        if model_bits and bits.take(1):
            bits.take(2 * model_bits + 1)
        if shows_delay and bits.take(1):
            bits.take(4)
