"""Pictures that no training run has seen: emoji of Noto Color Emoji and glyphs of DejaVu Sans Bold.

Training draws its shapes and pictures itself and opens no font, so all of these are new to the model. There is no true
shape behind them, only a silhouette. Noto Color Emoji is under the SIL Open Font License 1.1; DejaVu under the
Bitstream Vera licence. Knows nothing of models or measures.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

EMOJI_PACKAGE = "fonts-noto-color-emoji"
EMOJI_FONT = Path("usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
# The font holds bitmaps of one size only.
EMOJI_POINTS = 109
EMOJI_SIDE = 136
GLYPH_FONT = Path("usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf")
GLYPH_POINTS = 128
GLYPH_SIDE = 160

EMOJI: dict[str, dict[str, str]] = {
    "food": {
        "apple": "🍎", "pear": "🍐", "tangerine": "🍊", "banana": "🍌", "strawberry": "🍓", "pineapple": "🍍",
        "aubergine": "🍆", "carrot": "🥕", "egg": "🥚", "doughnut": "🍩", "croissant": "🥐", "ice cream": "🍦",
        "hamburger": "🍔",
    },
    "vessel": {
        "coffee": "☕", "wine glass": "🍷", "baby bottle": "🍼", "amphora": "🏺", "teapot": "🫖", "bucket": "🪣",
        "cup with straw": "🥤",
    },
    "animal": {
        "cat": "🐈", "dog": "🐕", "bear": "🐻", "penguin": "🐧", "owl": "🦉", "duck": "🦆", "turtle": "🐢",
        "fish": "🐟", "dolphin": "🐬", "elephant": "🐘", "octopus": "🐙", "ladybird": "🐞", "dinosaur": "🦕",
        "teddy": "🧸",
    },
    "vehicle": {
        "car": "🚗", "bus": "🚌", "tractor": "🚜", "locomotive": "🚂", "aeroplane": "✈", "sailing boat": "⛵",
        "helicopter": "🚁", "rocket": "🚀",
    },
    "building": {"house": "🏠", "castle": "🏰", "tent": "⛺"},
    "plant": {"spruce": "🌲", "tree": "🌳", "cactus": "🌵", "mushroom": "🍄", "tulip": "🌷", "maple leaf": "🍁"},
    "tool": {
        "key": "🔑", "padlock": "🔒", "hammer": "🔨", "spanner": "🔧", "axe": "🪓", "magnet": "🧲", "pencil": "✏",
        "light bulb": "💡", "anchor": "⚓", "umbrella": "☂",
    },
    "thing": {
        "star": "⭐", "heart": "❤", "moon": "🌙", "cloud": "☁", "drop": "💧", "snowman": "⛄", "pumpkin": "🎃",
        "balloon": "🎈", "basketball": "🏀", "bomb": "💣", "bell": "🔔", "guitar": "🎸", "trophy": "🏆", "crown": "👑",
        "top hat": "🎩", "shoe": "👟", "chair": "🪑", "sofa": "🛋", "hourglass": "⌛", "pawn": "♟",
    },
}  # fmt: skip
ROUND = frozenset(
    {
        "apple", "pear", "tangerine", "egg", "wine glass", "amphora", "teapot", "bucket", "cup with straw", "penguin",
        "owl", "mushroom", "light bulb", "drop", "snowman", "pumpkin", "balloon", "basketball", "bomb", "bell", "pawn",
    }
)  # fmt: skip
GLYPHS = "ABEGKMRSTXag2358&♥♣♠"
_COLOURS = ("#c0392b", "#2e6fb7", "#2f8f4e", "#d98a1f", "#7d4aa3", "#4a5560")


class FontNotFoundError(FileNotFoundError):
    """A font of the held-out pictures is neither installed nor to be had."""


@dataclass(frozen=True, eq=False)
class HeldOutImage:
    """One picture: RGBA, square, one object cut out by the font's own alpha, which is one connected piece.

    kind : what sort of object; turned : whether the object is round about an axis, so that a slab would be wrong.
    """

    name: str
    kind: str
    image: Image.Image
    turned: bool = False


def held_out_images(cache: Path) -> list[HeldOutImage]:
    """Return all pictures, emoji first. cache : where a fetched font is kept. Raises FontNotFoundError."""
    path = emoji_font(cache)
    font = ImageFont.truetype(path, EMOJI_POINTS)
    if font.getname()[0] != "Noto Color Emoji":
        raise FontNotFoundError(f"{path} holds {font.getname()[0]}, not Noto Color Emoji")
    images = [
        HeldOutImage(name, kind, draw_glyph(font, text, EMOJI_SIDE), name in ROUND)
        for kind, group in EMOJI.items()
        for name, text in group.items()
    ]
    return images + glyph_images()


def glyph_images() -> list[HeldOutImage]:
    """Draw letters, digits and signs, each in one plain colour. Raises FontNotFoundError."""
    font = ImageFont.truetype(glyph_font(), GLYPH_POINTS)
    return [
        HeldOutImage(glyph_name(text), "glyph", draw_glyph(font, text, GLYPH_SIDE, _COLOURS[k % len(_COLOURS)]))
        for k, text in enumerate(GLYPHS)
    ]


def glyph_name(text: str) -> str:
    """Name a letter or digit as itself, and a sign as Unicode does, since not every font can show it."""
    return text if text.isascii() else unicodedata.name(text).lower()


def draw_glyph(font: ImageFont.FreeTypeFont, text: str, side: int, colour: str = "black") -> Image.Image:
    """Draw one glyph in the middle of a transparent RGBA square, without what hangs loose from its largest piece.

    Raises FontNotFoundError when the font leaves the picture empty.
    """
    left, top, right, bottom = font.getbbox(text)
    at = ((side - left - right) / 2, (side - top - bottom) / 2)
    image = Image.new("RGBA", (side, side))
    ImageDraw.Draw(image).text(at, text, font=font, fill=colour, embedded_color=True)
    pixels = np.array(image)
    if not pixels[..., 3].any():
        raise FontNotFoundError(f"{font.getname()[0]} has no picture of {text!r}")
    pixels[~largest_piece(pixels[..., 3] > 0)] = 0
    return Image.fromarray(pixels)


def largest_piece(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the largest connected piece (diagonals connect) of a mask (h, w) that has one."""
    labels, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == sizes.argmax())


def emoji_font(cache: Path, root: Path = Path("/")) -> Path:
    """Find the emoji font: installed, kept in the cache, or fetched there with apt-get. Raises FontNotFoundError."""
    for folder in (root, cache):
        if (folder / EMOJI_FONT).is_file():
            return folder / EMOJI_FONT
    reason = _fetch(EMOJI_PACKAGE, cache)
    if not (cache / EMOJI_FONT).is_file():
        raise FontNotFoundError(
            f"Noto Color Emoji is neither installed nor in {cache}, and could not be fetched ({reason}). Install the "
            f"Debian package {EMOJI_PACKAGE}, or put NotoColorEmoji.ttf at {cache / EMOJI_FONT}."
        )
    return cache / EMOJI_FONT


def glyph_font(root: Path = Path("/")) -> Path:
    """Find DejaVu Sans Bold, from matplotlib's own copy (vtk brings it) or installed. Raises FontNotFoundError."""
    found = importlib.util.find_spec("matplotlib")
    candidates = [root / GLYPH_FONT]
    if found is not None and found.origin is not None:
        candidates.insert(0, Path(found.origin).parent / "mpl-data/fonts/ttf" / GLYPH_FONT.name)
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise FontNotFoundError("DejaVu Sans Bold is missing; install matplotlib or the Debian package fonts-dejavu-core.")


def _fetch(package: str, cache: Path) -> str:
    """Unpack a Debian package into the cache without installing it; returns what went wrong, if anything did."""
    apt, dpkg = shutil.which("apt-get"), shutil.which("dpkg")
    if apt is None or dpkg is None:
        return "apt-get is not available"
    cache.mkdir(parents=True, exist_ok=True)
    done = subprocess.run([apt, "download", package], cwd=cache, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        return done.stderr.strip() or f"apt-get ended with {done.returncode}"
    for archive in cache.glob(f"{package}_*.deb"):
        subprocess.run([dpkg, "-x", archive, cache], capture_output=True, check=True)  # noqa: S603
        archive.unlink()
    return "the package does not hold the font"
