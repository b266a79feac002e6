"""Opening pictures that strangers send: any source to an upright sRGB picture in RGB or RGBA, or a named error.

Files are recognised by their content, never by their name, and measured before they are decoded. This module does not
know what is in the picture: background.py finds the object, image_processor.py makes the tensor.
"""

from __future__ import annotations

import io
import os
import re
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms

from backend.errors import InvalidImage, InvalidParameter, MissingImage, UnsupportedImage
from backend.hunyuan3d.image.file_formats import HEAD_BYTES, measure, recognise, taken_formats
from backend.hunyuan3d.image.unfit import UnfitFile

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | npt.NDArray[np.generic]

# What Pillow's readers are known to let through on damaged files, beside their own OSError.
_DECODER_ERRORS = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError,
    SyntaxError, TypeError, ValueError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LARGEST_PROFILE = 4 << 20
_ROWS = 64
# catch_warnings swaps a process-wide list: two threads inside it at once would leave each other's filters behind.
_quiet_lock = threading.Lock()


@dataclass(frozen=True)
class ImageLimits:
    """Bounds on what is opened: pixels (w·h), bytes of the file, shortest side in pixels, long side : short side.

    A picture whose long side exceeds shrink_to is averaged down to it, because later work grows with its square.
    """

    max_pixels: int = 64_000_000
    max_bytes: int = 256 << 20
    min_side: int = 8
    max_aspect: float = 64.0
    shrink_to: int = 2048

    def __post_init__(self) -> None:
        if min(self.max_pixels, self.max_bytes, self.min_side) < 1 or self.max_aspect < 1 or self.shrink_to < 64:
            raise InvalidParameter("Picture limits must be at least 1 (shrink_to: 64).")


DEFAULT_LIMITS = ImageLimits()


def open_image(source: Source, *, limits: ImageLimits = DEFAULT_LIMITS, name: str | None = None) -> Image.Image:
    """Open a picture from a path, a file, its bytes, a PIL picture or an array, as a new upright picture in sRGB.

    source : where encoded, of a format that file_formats.taken_formats names (the first frame of an animation is
    taken); a file is read from its start and must be seekable; arrays are (H, W) or (H, W, 1..4) of bool, uint8,
    uint16, or float (0..1, or 0..255 when a value exceeds 1). name : what messages call the picture; else a path's
    last part.
    Returns mode RGBA when it has an alpha channel, else RGB.
    Raises MissingImage (no such file), UnsupportedImage (another format), InvalidImage (anything else).
    """
    label = _label(name, source)
    if isinstance(source, Image.Image):
        image = _decode(source.copy, source.size, limits, label)
    elif isinstance(source, np.ndarray):
        image = _from_array(source, limits, label)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        image = _from_stream(io.BytesIO(source), limits, label)
    elif isinstance(source, (str, os.PathLike)):
        image = _from_stream(io.BytesIO(_read(source, limits, label)), limits, label)
    elif hasattr(source, "read") and hasattr(source, "seek"):
        image = _from_stream(source, limits, label)
    else:
        raise InvalidImage(f"A picture cannot be a {type(source).__name__}.")
    try:
        return _shrink(_to_srgb(_upright(image), label), limits)
    except _DECODER_ERRORS as e:
        raise InvalidImage(f"{label}: its colours cannot be read ({type(e).__name__}).") from e


def require_readable(path: str | os.PathLike[str], *, limits: ImageLimits = DEFAULT_LIMITS) -> None:
    """Look at a file's header; decode nothing. Raises as open_image does for what it would find out before decoding."""
    label = _label(None, path)
    image, _ = _opened(io.BytesIO(_read(path, limits, label)), limits, label)
    _check_size(image.size, limits, label)


def _label(name: str | None, source: object) -> str:
    """Return a short name fit for a message: no directories, no control characters."""
    text = name or (os.fspath(source) if isinstance(source, (str, os.PathLike)) else "")
    last = re.split(r"[/\\]", os.fsdecode(text))[-1]
    shown = "".join(c if c.isprintable() else "?" for c in last)
    return (shown if len(shown) <= 80 else shown[:77] + "...") or "The picture"


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Pillow's warnings: what they warn of is either checked here or harmless."""
    with _quiet_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _read(path: str | os.PathLike[str], limits: ImageLimits, label: str) -> bytes:
    """Read a regular file of bounded size; a device or a pipe could go on for ever."""
    try:
        file = Path(os.fsdecode(path))
        status = file.stat()
        if stat.S_ISDIR(status.st_mode):
            raise InvalidImage(f"{label}: it is a directory, not a picture.")
        if not stat.S_ISREG(status.st_mode):
            raise InvalidImage(f"{label}: it is not a regular file.")
        with file.open("rb") as stream:
            return stream.read(limits.max_bytes + 1)
    except (FileNotFoundError, NotADirectoryError) as e:
        raise MissingImage(f"{label}: there is no such file.") from e
    except (OSError, ValueError) as e:
        reason = os.strerror(e.errno) if isinstance(e, OSError) and e.errno else "the path is not valid"
        raise InvalidImage(f"{label}: it cannot be read ({reason}).") from e


def _from_stream(stream: BinaryIO, limits: ImageLimits, label: str) -> Image.Image:
    image, check = _opened(stream, limits, label)

    def load() -> Image.Image:
        check()
        image.load()
        return image

    return _decode(load, image.size, limits, label)


def _opened(stream: BinaryIO, limits: ImageLimits, label: str) -> tuple[Image.Image, Callable[[], None]]:
    """Return an image with nothing decoded, and what sees that its file is whole."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    head = stream.read(HEAD_BYTES)
    if not size:
        raise InvalidImage(f"{label}: it is empty.")
    if size > limits.max_bytes:
        raise InvalidImage(f"{label}: it is larger than {limits.max_bytes} bytes.")
    form = _recognised(head, label)
    try:
        measured = measure(form, stream, head, size, limits.max_pixels)
        if measured.size is not None:
            _check_size(measured.size, limits, label)
        stream.seek(0)
        with _quiet():
            image = measured.open()
    except UnfitFile as error:
        raise InvalidImage(f"{label}: {error}.") from error
    except _DECODER_ERRORS as error:
        raise InvalidImage(f"{label}: its {form} header is damaged, or of a kind that is not read.") from error
    return image, measured.check


def _recognised(head: bytes, label: str) -> str:
    """Return the format of a file that starts so. Raises UnsupportedImage unless it is read here."""
    form, taken = recognise(head), taken_formats()
    if form in taken:
        return form
    named = f"{', '.join(taken[:-1])} or {taken[-1]}"
    problem = f"{form} is not read here" if form else "its content is not that of a picture that is taken"
    raise UnsupportedImage(f"{label}: {problem}; send {named}.", details={"allowed": list(taken)})


def _check_size(size: tuple[int, int], limits: ImageLimits, label: str) -> None:
    """Raise InvalidImage unless the width and height are within the limits."""
    width, height = size
    if width * height > limits.max_pixels:
        raise InvalidImage(f"{label}: {width}×{height} is more than {limits.max_pixels} pixels.")
    if min(size) < limits.min_side:
        raise InvalidImage(f"{label}: {width}×{height} is too small; the least side is {limits.min_side} pixels.")
    if max(size) > limits.max_aspect * min(size):
        raise InvalidImage(f"{label}: {width}×{height} is too narrow to show an object.")


def _decode(load: Callable[[], Image.Image], size: tuple[int, int], limits: ImageLimits, label: str) -> Image.Image:
    """Check the size, then decode every pixel, so that a truncated file is found out here."""
    _check_size(size, limits, label)
    try:
        return load()
    except UnfitFile as e:
        raise InvalidImage(f"{label}: {e}.", details={"reason": str(e)}) from e
    except _DECODER_ERRORS as e:
        raise InvalidImage(f"{label}: it is damaged or truncated.", details={"reason": str(e)[:120]}) from e


def _from_array(array: npt.NDArray[np.generic], limits: ImageLimits, label: str) -> Image.Image:
    shaped = array[..., None] if array.ndim == 2 else array
    if shaped.ndim != 3 or not 1 <= shaped.shape[2] <= 4:
        raise InvalidImage(f"{label}: an array must be (H, W) or (H, W, 1 to 4), not {array.shape}.")
    _check_size((shaped.shape[1], shaped.shape[0]), limits, label)
    values = _to_bytes(shaped, label)
    mode = ("L", "LA", "RGB", "RGBA")[values.shape[2] - 1]
    return Image.frombytes(mode, (values.shape[1], values.shape[0]), np.ascontiguousarray(values).tobytes())


def _to_bytes(values: npt.NDArray[np.generic], label: str) -> npt.NDArray[np.uint8]:
    """Scale values to 0..255: bool and 16 bits by their range, floats from 0..1 or 0..255. Raises InvalidImage."""
    if values.dtype == np.uint8:
        return values.astype(np.uint8)
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype == np.uint16:
        return _halve_depth(values.astype(np.uint16, copy=False))
    numbers = values.astype(np.float64) if values.dtype.kind in "uif" else np.full(1, np.nan)
    if not np.isfinite(numbers).all():
        raise InvalidImage(f"{label}: its values are not finite numbers.")
    low, high = float(numbers.min()), float(numbers.max())
    if values.dtype.kind == "f":
        top = 1.0 if high <= 1 else 255.0
    else:
        top = 65535.0 if values.dtype.itemsize == 2 or high > 255 else 255.0
    if low < 0 or high > top:
        raise InvalidImage(f"{label}: its values go from {low:g} to {high:g}, outside 0 to {top:g}.")
    return np.rint(numbers * (255 / top)).astype(np.uint8)


def _halve_depth(values: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint8]:
    """Halve 16 bits to 8, rounded; by table and some rows at a time: as floats a large picture takes gigabytes."""
    table = np.rint(np.arange(65536) * (255 / 65535)).astype(np.uint8)
    result = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), _ROWS):
        result[start : start + _ROWS] = table[values[start : start + _ROWS]]
    return result


def _upright(image: Image.Image) -> Image.Image:
    """Apply the orientation that the camera noted; a broken note is no reason to refuse the picture."""
    try:
        with _quiet():
            orientation = image.getexif().get(ExifTags.Base.Orientation)
    except _DECODER_ERRORS:
        return image
    turn = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    if turn is None:
        return image
    turned = image.transpose(turn)
    turned.info = dict(image.info)
    return turned


def _to_srgb(image: Image.Image, label: str) -> Image.Image:
    """Convert any mode to RGB or RGBA in sRGB, transparency kept, without what else the file carried."""
    alpha = None
    if image.mode.startswith("I") or image.mode == "F":
        numbers = np.asarray(image)
        key = image.info.get("transparency")
        if isinstance(key, int):
            alpha = Image.fromarray(np.where(numbers == key, 0, 255).astype(np.uint8))
        profile = image.info.get("icc_profile")
        image = Image.fromarray(_to_bytes(numbers, label))
    else:
        profile = image.info.get("icc_profile")
        if image.has_transparency_data:
            image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
            alpha = image.getchannel("A")
    colour = _apply_profile(image, profile)
    if alpha is not None:
        colour.putalpha(alpha)
    colour.info = {}
    return colour


def _apply_profile(image: Image.Image, profile: object) -> Image.Image:
    """Convert the colours to sRGB (RGB, no alpha); ignore a profile that is broken or of another kind of colour."""
    spaces = {"L": "GRAY", "1": "GRAY", "CMYK": "CMYK"}
    direct = image if image.mode in ("L", "CMYK") else image.convert("RGB")
    if not isinstance(profile, bytes) or not 128 <= len(profile) <= _LARGEST_PROFILE:
        return direct.convert("RGB")
    try:
        known = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        fits = known.profile.xcolor_space.strip() == spaces.get(direct.mode, "RGB")
        if not fits or "sRGB" in ImageCms.getProfileDescription(known):
            return direct.convert("RGB")
        converted = ImageCms.profileToProfile(direct, known, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, *_DECODER_ERRORS):
        return direct.convert("RGB")
    return converted if converted is not None else direct.convert("RGB")


def _shrink(image: Image.Image, limits: ImageLimits) -> Image.Image:
    longest = max(image.size)
    if longest <= limits.shrink_to:
        return image
    scale = limits.shrink_to / longest
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BOX)
