"""What lies in a HEIF container, AVIF or HEIC: the sizes of its pictures, stated and coded, before anything is decoded.

Forms: ISO/IEC 14496-12, section 8.11 (items), and ISO/IEC 23008-12 (their properties). This module does not know how
pictures are decoded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from backend.hunyuan3d.image.coded_sizes import Size, UnreadableStream, av1_sizes, hevc_sizes, sps_size
from backend.hunyuan3d.image.unfit import UnfitFile

_MOST_ITEMS = 4096
"""A photograph of 48 megapixels has 200 tiles; the largest grids that phones make, some more."""

_BLOCK = 64
"""Coders work in blocks of up to so many pixels a side: what is coded may be larger by that."""

_MOST_BRANDS = 64
_AVIF_BRANDS = (b"avif", b"avis")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")
_AVIF_ITEM, _HEIC_ITEM, _GRID = b"av01", b"hvc1", b"grid"
_WITHOUT_PIXELS = (b"Exif", b"mime", b"uri ", b"tmap", b"iden")
"""Notes, and pictures that are made of others without a canvas of their own."""


@dataclass(frozen=True)
class _Item:
    """A part of a picture, with its bytes."""

    kind: bytes
    stream: bytes


@dataclass(frozen=True)
class _Property:
    kind: bytes
    body: bytes


def recognise_brands(head: bytes) -> str | None:
    """Return AVIF or HEIC for the start of a container that says so; None for anything else."""
    if head[4:8] != b"ftyp":
        return None
    end = min(int.from_bytes(head[:4], "big"), len(head), 4 * _MOST_BRANDS)
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))]
    if any(brand in _AVIF_BRANDS for brand in brands):
        return "AVIF"
    return "HEIC" if any(brand in _HEIC_BRANDS for brand in brands) else None


def as_still(data: bytes) -> bytes:
    """Return a container under the brand of still pictures, so that its still is decoded and not its animation."""
    return data[:8] + b"avif" + data[12:] if data[8:12] == b"avis" else data


def check_container(data: bytes, most_pixels: int) -> None:
    """See that no picture in a container is larger than it may be, nor all of them together than three of the largest.

    A photograph comes with its alpha channel, thumbnails and maps. Raises UnfitFile.
    """
    meta = next((body for kind, body in _boxes(data, lenient=True) if kind == b"meta"), None)
    if meta is None:
        raise UnfitFile("it has no still picture")
    boxes = dict(_boxes(meta[4:]))
    if not {b"iinf", b"iloc", b"iprp"} <= boxes.keys():
        raise UnfitFile("it has no still picture")
    try:
        properties, owned = _properties(boxes[b"iprp"])
        for found in properties:
            if found.kind == b"ispe":
                _check_size(
                    int.from_bytes(found.body[4:8], "big"), int.from_bytes(found.body[8:12], "big"), most_pixels
                )
        coded = list(_coded_sizes(data, boxes, properties, owned))
    except (UnreadableStream, IndexError) as error:
        raise UnfitFile("it is damaged or truncated") from error
    for width, height in coded:
        _check_size(width, height, most_pixels, _BLOCK)
    if sum(width * height for width, height in coded) > 3 * most_pixels:
        raise UnfitFile(f"its pictures have more than {3 * most_pixels} pixels together")


def _check_size(width: int, height: int, most_pixels: int, spare: int = 0) -> None:
    if max(0, width - spare) * max(0, height - spare) > most_pixels:
        raise UnfitFile(f"{width}×{height} is more than {most_pixels} pixels")


def _coded_sizes(
    data: bytes,
    boxes: Mapping[bytes, bytes],
    properties: Sequence[_Property],
    owned: Mapping[int, Sequence[int]],
) -> Iterator[Size]:
    """Yield for each coded item the largest size that its stream says."""
    sources = {0: data, 1: boxes.get(b"idat", b"")}
    for number, item in _items(boxes[b"iloc"], _kinds(boxes[b"iinf"]), sources).items():
        own = [properties[index - 1] for index in owned.get(number, ()) if 0 < index <= len(properties)]
        sizes = list(_sizes_of(item.kind, item.stream, own))
        if not sizes:
            raise UnfitFile("it is damaged: a picture does not say how large it is")
        yield max(sizes, key=math.prod)


def _sizes_of(kind: bytes, stream: bytes, properties: Sequence[_Property]) -> Iterator[Size]:
    if kind == _GRID:
        wide = 4 if stream[1] & 1 else 2
        yield int.from_bytes(stream[4 : 4 + wide], "big"), int.from_bytes(stream[4 + wide : 4 + 2 * wide], "big")
    if kind == _AVIF_ITEM:
        yield from av1_sizes(stream)
    for found in properties:
        if kind == _HEIC_ITEM and found.kind == b"hvcC":
            yield from _configured(found.body)
            yield from hevc_sizes(stream, (found.body[21] & 3) + 1)


def _configured(body: bytes) -> Iterator[Size]:
    """Yield the sizes in the parameter sets of an HEVCDecoderConfigurationRecord."""
    at = 23
    for _ in range(body[22]):
        kind, count = body[at] & 63, int.from_bytes(body[at + 1 : at + 3], "big")
        at += 3
        for _ in range(count):
            size = int.from_bytes(body[at : at + 2], "big")
            if at + 2 + size > len(body):
                raise UnreadableStream("its parameter sets break off")
            if kind == 33:
                yield sps_size(body[at + 2 : at + 2 + size])
            at += 2 + size


def _boxes(data: bytes, *, lenient: bool = False) -> Iterator[tuple[bytes, bytes]]:
    """Yield each box's kind and body. lenient : what follows the last sound box is passed over."""
    at = 0
    while at + 8 <= len(data):
        size, kind, head = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        elif size == 0:
            size = len(data) - at
        if size < head or at + size > len(data):
            if lenient:
                return
            raise UnfitFile("it is damaged or truncated")
        yield kind, data[at + head : at + size] if kind != b"mdat" else b""
        at += size


class _Fields:
    """Numbers of given widths, one after the other."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data = data
        self._at = at

    def take(self, size: int) -> int:
        end = self._at + size
        if end > len(self._data):
            raise UnfitFile("it is damaged or truncated")
        value = int.from_bytes(self._data[self._at : end], "big")
        self._at = end
        return value


def _kinds(iinf: bytes) -> Mapping[int, bytes]:
    """Return the kinds of what has pixels, by number. Raises UnfitFile for what is of no known kind."""
    kinds: dict[int, bytes] = {}
    for count, (_, body) in enumerate(_boxes(iinf[6 if iinf[0] == 0 else 8 :])):
        if count >= _MOST_ITEMS:
            raise UnfitFile("it has more parts than a photograph needs")
        width = 2 if body[0] == 2 else 4
        kind = body[6 + width : 10 + width]
        if body[0] not in (2, 3) or kind not in (_AVIF_ITEM, _HEIC_ITEM, _GRID, *_WITHOUT_PIXELS):
            raise UnfitFile("a part of it is of a kind that is not read")
        if kind not in _WITHOUT_PIXELS:
            kinds[int.from_bytes(body[4 : 4 + width], "big")] = kind
    return kinds


def _items(iloc: bytes, kinds: Mapping[int, bytes], sources: Mapping[int, bytes]) -> Mapping[int, _Item]:
    """Return the items of these kinds by number. sources : where their bytes may lie: 0 the file, 1 idat."""
    version = iloc[0]
    fields = _Fields(iloc, 4)
    widths = fields.take(1)
    offset_bytes, length_bytes = widths >> 4, widths & 15
    widths = fields.take(1)
    base_bytes, index_bytes = widths >> 4, widths & 15 if version else 0
    wide = 4 if version == 2 else 2
    count = fields.take(wide)
    if count > _MOST_ITEMS or not {offset_bytes, length_bytes, base_bytes, index_bytes} <= {0, 4, 8}:
        raise UnfitFile("it has more parts than a photograph needs")
    items: dict[int, _Item] = {}
    whole = 0
    for _ in range(count):
        number = fields.take(wide)
        method = fields.take(2) & 15 if version else 0
        fields.take(2)
        base = fields.take(base_bytes)
        pieces = []
        for _ in range(fields.take(2)):
            fields.take(index_bytes)
            start = base + fields.take(offset_bytes)
            pieces.append((start, start + fields.take(length_bytes)))
        if number in kinds:
            source = sources.get(method, b"")
            whole += sum(end - start for start, end in pieces)
            if whole > len(sources[0]) or any(end > len(source) for _, end in pieces):
                raise UnfitFile("it is damaged or truncated")
            items[number] = _Item(kinds[number], b"".join(source[start:end] for start, end in pieces))
    return items


def _properties(iprp: bytes) -> tuple[list[_Property], Mapping[int, list[int]]]:
    """Return all properties in order, and the places of each item's, from 1."""
    boxes = list(_boxes(iprp))
    shared = next((body for kind, body in boxes if kind == b"ipco"), b"")
    properties = [_Property(kind, body) for kind, body in _boxes(shared)]
    owned: dict[int, list[int]] = {}
    for kind, body in boxes:
        if kind == b"ipma":
            fields = _Fields(body, 4)
            number_bytes, index_bytes = (4 if body[0] else 2), (2 if body[3] & 1 else 1)
            mask = 0x7FFF if index_bytes == 2 else 0x7F
            for _ in range(min(fields.take(4), _MOST_ITEMS)):
                number = fields.take(number_bytes)
                owned.setdefault(number, []).extend(fields.take(index_bytes) & mask for _ in range(fields.take(1)))
    return properties, owned
