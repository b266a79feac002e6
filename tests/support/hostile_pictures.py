"""What hostile uploads carry: pictures that are bombs, cut, damaged, something else, or odd but sound.

Everything is made here, from fixed numbers, and small. This module does not know how it is sent (hostile.py).
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
from PIL import Image, ImageCms, ImageDraw

from tests.support.picture_files import bmp, encode, gif, tiff

ACCEPTED = (202, "")
INVALID = (400, "INVALID_IMAGE")
UNSUPPORTED = (415, "UNSUPPORTED_IMAGE")

Case = tuple[str, Callable[[], bytes], tuple[int, str]]


def hostile_pictures() -> Iterator[Case]:
    """Name, maker of the file's bytes, and the status and code that the file must be answered with."""
    kinds = {"bomb": _bombs, "cut": _cut, "damaged": _damaged, "foreign": _foreign, "odd": _odd}
    for kind, cases in kinds.items():
        for name, content, answer in cases():
            yield f"{kind}: {name}", content, answer


def png_chunk(kind: bytes, body: bytes = b"") -> bytes:
    """Return a PNG's chunk with its checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    width: int, height: int, *, pixels: bytes | None = None, depth: int = 8, colour: int = 0, more: bytes = b""
) -> bytes:
    """Return a PNG put together by hand; pixels : rows with their filter bytes; more : chunks before the pixels."""
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress(pixels)) if pixels is not None else b""
    return b"\x89PNG\r\n\x1a\n" + head + more + body + png_chunk(b"IEND")


@cache
def good_png() -> bytes:
    """Return a small sound picture."""
    return encode(_ramp(), "PNG")


def object_png() -> bytes:
    """Return a small picture of a thing before white, which can be cut out."""
    image = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(image).ellipse((14, 18, 50, 52), fill=(190, 40, 30))
    return encode(image, "PNG")


def _ramp(mode: str = "RGB") -> Image.Image:
    rows, columns = np.mgrid[0:24, 0:32]
    values = np.stack([rows * 10, columns * 8, rows + columns], axis=-1).astype(np.uint8)
    return Image.fromarray(values).convert(mode)


@cache
def _noise(form: str) -> bytes:
    values = np.random.default_rng(5).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    return encode(Image.fromarray(values), form)


def _bombs() -> Iterator[Case]:
    rows = bytes(17 * 16)
    yield "PNG of 900 million pixels", _png_bomb, INVALID
    yield "PNG that says 2^31-1 a side", lambda: png(2**31 - 1, 2**31 - 1, pixels=b""), INVALID
    yield "PNG that says more than a side can be", lambda: png(2**32 - 1, 16, pixels=b""), INVALID
    yield "PNG one pixel wide and 60 million high", lambda: png(1, 60_000_000, pixels=b""), INVALID
    yield "PNG whose data go on for 40 MB", lambda: png(16, 16, pixels=rows + bytes(40_000_000)), ACCEPTED
    yield "PNG text that inflates to 80 MB", lambda: png(16, 16, pixels=rows, more=_text_bomb(b"zTXt")), INVALID
    yield "PNG international text that inflates", lambda: png(16, 16, pixels=rows, more=_text_bomb(b"iTXt")), INVALID
    yield "PNG profile that inflates to 80 MB", lambda: png(16, 16, pixels=rows, more=_text_bomb(b"iCCP")), INVALID
    yield "PNG animation of 2^31-1 frames", lambda: png(16, 16, pixels=rows, more=_animation(16, 2**31 - 1)), ACCEPTED
    yield "PNG animation whose frame is larger", lambda: png(16, 16, pixels=rows, more=_animation(60_000, 2)), INVALID
    yield "PNG chunk that says it is 2 GB", lambda: good_png()[:33] + struct.pack(">I", 2**31 - 1) + b"IDAT", INVALID
    yield "JPEG that says 65535 a side", _wide_jpeg, INVALID
    yield "JPEG of endless scans", _many_scans, INVALID
    yield "WebP canvas of 16384 a side", lambda: _webp_canvas(16384, 16384), INVALID
    yield "WebP canvas of 2^24 a side", lambda: _webp_canvas(2**24, 2**24), INVALID
    yield "WebP lossless of 16384 a side", _wide_lossless, INVALID
    yield "WebP animation of 200 frames", _webp_animation, ACCEPTED
    yield "GIF canvas of 60000 a side", lambda: gif(screen=(60_000, 60_000)), INVALID
    yield "GIF frame beyond its canvas", lambda: gif(frame=(60_000, 60_000)), INVALID
    yield "GIF of endless notes", lambda: gif(notes=b"!\xfe" + b"\x01a" * 300_000 + b"\0"), INVALID
    yield "BMP of 60000 a side", lambda: bmp(60_000, 60_000), INVALID
    yield "TIFF of 60000 a side", lambda: tiff(60_000, 60_000), INVALID
    yield "TIFF in tiles of 60000 a side", lambda: tiff(40, 24, tile=(60_000, 60_000)), INVALID
    yield "TIFF of 2000 tags", lambda: tiff(40, 24, more=[(tag, 1, 1, 0) for tag in range(40_000, 42_000)]), INVALID
    yield "AVIF that says it is small", _understated_avif, INVALID


@cache
def _png_bomb() -> bytes:
    packer, row = zlib.compressobj(1), bytes(30_000 // 8 + 1)
    data = b"".join(packer.compress(row * 1000) for _ in range(30)) + packer.flush()
    head = struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", head) + png_chunk(b"IDAT", data) + png_chunk(b"IEND")


@cache
def _text_bomb(kind: bytes) -> bytes:
    starts = {b"zTXt": b"a\0\0", b"iTXt": b"a\0\1\0\0\0", b"iCCP": b"a\0\0"}
    return png_chunk(kind, starts[kind] + zlib.compress(bytes(80_000_000)))


@cache
def _understated_avif() -> bytes:
    """Return an AVIF of 81 million pixels, whose container says that it is 64 a side."""
    small = encode(Image.new("L", (64, 64)), "AVIF")
    header = small.rindex(b"\x0a", 0, small.rindex(b"mdat") + 16)
    # Widths of 16 bits each, then 9000 a side: profile 0, still and reduced, level 0.
    bits = f"{0:03b}11{0:05b}{15:04b}{15:04b}{8999:016b}{8999:016b}"
    sequence = int(bits.ljust(56, "0"), 2).to_bytes(7, "big")
    return small[:header] + b"\x0a\x07" + sequence + small[header + 9 :]


def _animation(side: int, frames: int) -> bytes:
    return png_chunk(b"acTL", struct.pack(">II", frames, 0)) + png_chunk(
        b"fcTL", struct.pack(">IIIIIHHBB", 0, side, side, 0, 0, 1, 10, 0, 0)
    )


def _wide_jpeg() -> bytes:
    data = bytearray(_noise("JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 65535, 65535)
    return bytes(data)


def _many_scans() -> bytes:
    data = encode(_ramp(), "JPEG", progressive=True)
    at = data.index(b"\xff\xda")
    return data[:at] + data[at:-2] * 60 + data[-2:]


def _webp_canvas(width: int, height: int) -> bytes:
    canvas = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + canvas
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _wide_lossless() -> bytes:
    body = b"WEBPVP8L" + struct.pack("<IBI", 14, 0x2F, 16383 | 16383 << 14) + bytes(9)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _webp_animation() -> bytes:
    frames = [Image.new("RGB", (16, 16), (k, 255 - k, 0)) for k in range(200)]
    return encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)


def _cut() -> Iterator[Case]:
    yield "PNG after its signature", lambda: good_png()[:8], INVALID
    yield "PNG inside its header", lambda: good_png()[:20], INVALID
    yield "PNG before its pixels", lambda: good_png()[:33], INVALID
    yield "PNG inside its signature", lambda: good_png()[:6], UNSUPPORTED
    for share in (30, 60, 95):
        for form in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"):
            yield f"{form} at {share} %", _cut_at(form, share), INVALID
    yield "JPEG after its marker", lambda: b"\xff\xd8\xff", INVALID
    yield "WebP after its name", lambda: _noise("WEBP")[:12], INVALID


def _cut_at(form: str, share: int) -> Callable[[], bytes]:
    return lambda: _noise(form)[: len(_noise(form)) * share // 100]


def _damaged() -> Iterator[Case]:
    sound = good_png()
    yield "PNG header checksum", lambda: sound[:30] + b"\0\0\0" + sound[33:], INVALID
    yield "PNG pixels overwritten", lambda: sound[:45] + b"\xa5" * 40 + sound[85:], INVALID
    yield "PNG without pixels", lambda: png(16, 16), INVALID
    yield "PNG with no side", lambda: png(0, 0, pixels=b""), INVALID
    yield "PNG of a depth there is not", lambda: png(16, 16, pixels=bytes(272), depth=3), INVALID
    yield "PNG palette without a palette", lambda: png(16, 16, pixels=bytes(272), colour=3), INVALID
    yield "PNG header twice", lambda: sound[:33] + sound[8:], ACCEPTED
    yield "PNG filter there is not", lambda: png(16, 16, pixels=(b"\x09" + bytes(16)) * 16), INVALID
    yield "PNG profile of rubbish", lambda: encode(_ramp(), "PNG", icc_profile=b"\xde\xad" * 200), ACCEPTED
    yield "JPEG profile of rubbish", lambda: encode(_ramp(), "JPEG", icc_profile=b"\xde\xad" * 200), ACCEPTED
    yield "JPEG notes of rubbish", lambda: encode(_ramp(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" * 9), ACCEPTED
    yield "JPEG notes that point at themselves", lambda: encode(_ramp(), "JPEG", exif=_looped_notes()), ACCEPTED
    yield "JPEG tables missing", _without_tables, INVALID
    yield "WebP length beyond its end", _longer_webp, INVALID
    yield "WebP chunk of rubbish", lambda: _noise("WEBP")[:20] + b"\xff" * 200, INVALID


def _looped_notes() -> bytes:
    entry = struct.pack("<HHII", 0x8769, 4, 1, 8)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 8)


def _without_tables() -> bytes:
    data = _noise("JPEG")
    start, end = data.index(b"\xff\xdb"), data.index(b"\xff\xc0")
    return data[:start] + data[end:]


def _longer_webp() -> bytes:
    data = _noise("WEBP")
    return data[:4] + struct.pack("<I", 2**31) + data[8:]


def _foreign() -> Iterator[Case]:
    ramp = _ramp()
    for form in ("ICO", "PPM", "TGA", "EPS", "PDF", "JPEG2000", "DDS", "SGI", "PCX", "ICNS"):
        yield form, _encoded(ramp, form), UNSUPPORTED
    texts = {
        "HTML": b"<!doctype html><script>alert(1)</script>",
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "XML that grows": b'<!DOCTYPE a [<!ENTITY b "cc"><!ENTITY d "&b;&b;">]><a>&d;</a>',
        "PostScript": b"%!PS-Adobe-3.0\n(/etc/passwd) (r) file\n",
        "ImageMagick script": b"push graphic-context\nviewbox 0 0 640 480\nfill 'url(https://127.0.0.1/x)'\n",
        "shell script": b"#!/bin/sh\ntouch /tmp/orfeas\n",
        "MP4": b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(64),
        "QuickTime": b"\0\0\0\x14ftypqt  \0\0\0\0qt  " + bytes(64),
        "AVI": b"RIFF\x24\0\0\0AVI LIST" + bytes(64),
        "ELF": b"\x7fELF\2\1\1" + bytes(64),
        "pickle": b"\x80\x04cposix\nsystem\n(S'true'\ntR.",
        "NumPy": b"\x93NUMPY\1\0v\0{'descr': '|O'}" + bytes(64),
        "zeros": bytes(1000),
        "one byte": b"\x89",
        "PNG after an empty line": b"\r\n" + good_png(),
    }
    for name, content in texts.items():
        yield name, _constant(content), UNSUPPORTED
    yield "ZIP", lambda: _zip({"../../evil": b"x"}), UNSUPPORTED
    yield "gzip", lambda: b"\x1f\x8b\x08" + bytes(60), UNSUPPORTED
    yield "text that begins like a bitmap", lambda: b"BM, or: how to name a file" + bytes(64), UNSUPPORTED


def _encoded(image: Image.Image, form: str) -> Callable[[], bytes]:
    return lambda: encode(image, form)


def _constant(content: bytes) -> Callable[[], bytes]:
    return lambda: content


def _zip(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return file.getvalue()


def _odd() -> Iterator[Case]:
    rgb16 = np.random.default_rng(1).bytes(16 * 96)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    grey16 = Image.fromarray(np.linspace(0, 65535, 768).reshape(24, 32).astype(np.uint16))
    yield "PNG with a ZIP behind it", lambda: good_png() + _zip({"a.php": b"<?php evil(); ?>"}), ACCEPTED
    yield "JPEG with a page in its comment", lambda: encode(_ramp(), "JPEG", comment=b"<script>x</script>"), ACCEPTED
    yield "CMYK JPEG", lambda: encode(_ramp("CMYK"), "JPEG"), ACCEPTED
    yield "grey 16-bit PNG", lambda: encode(grey16, "PNG"), ACCEPTED
    yield "colour 16-bit PNG", lambda: png(16, 16, pixels=_rows16(rgb16), depth=16, colour=2), ACCEPTED
    yield "one-bit PNG", lambda: encode(_ramp("1"), "PNG"), ACCEPTED
    yield "palette PNG", lambda: encode(_ramp("P"), "PNG", transparency=3), ACCEPTED
    yield "grey PNG with alpha", lambda: encode(_ramp("LA"), "PNG"), ACCEPTED
    yield "RGBA WebP", lambda: encode(_ramp("RGBA"), "WEBP"), ACCEPTED
    yield "PNG with a profile of another kind", lambda: encode(_ramp(), "PNG", icc_profile=profile), ACCEPTED
    yield "turned JPEG", _turned, ACCEPTED
    yield "animated PNG", _png_animation, ACCEPTED
    for form in ("GIF", "BMP", "TIFF", "AVIF"):
        yield form, _encoded(_ramp(), form), ACCEPTED
    yield "GIF that is a JPEG too", lambda: encode(_ramp(), "GIF") + _noise("JPEG"), ACCEPTED
    yield "CMYK TIFF", lambda: encode(_ramp("CMYK"), "TIFF"), ACCEPTED
    yield "1×1 PNG", lambda: encode(Image.new("RGB", (1, 1)), "PNG"), INVALID
    yield "7×7 PNG", lambda: encode(Image.new("RGB", (7, 7)), "PNG"), INVALID
    yield "8×8 PNG", lambda: encode(Image.new("RGB", (8, 8)), "PNG"), ACCEPTED
    yield "PNG of 8×4000", lambda: encode(Image.new("1", (8, 4000)), "PNG"), INVALID
    yield "empty file", lambda: b"", INVALID


def _rows16(values: bytes) -> bytes:
    return b"".join(b"\0" + values[96 * k : 96 * (k + 1)] for k in range(16))


def _turned() -> bytes:
    notes = Image.Exif()
    notes[0x0112] = 6
    return encode(_ramp(), "JPEG", exif=notes)


def _png_animation() -> bytes:
    frames = [Image.new("RGB", (16, 16), (k, 0, 255)) for k in range(3)]
    return encode(frames[0], "PNG", save_all=True, append_images=frames[1:])
