"""A sheet of images: what went in beside what came out, one line a mesh, laid out and labelled.

This module does not know of meshes, which `render.py` draws, nor of files.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from backend.errors import InvalidParameter
from backend.rendering.previews import PREVIEW_VIEWS

_PAPER = (255, 255, 255)
_CARD = (244, 245, 246)
_LINE = (222, 224, 227)
_INK = (58, 62, 68)
_FAINT = (128, 133, 141)
_ALARM = (176, 58, 46)
_OVERSAMPLING = 4


@dataclass(frozen=True, eq=False)
class SheetRow:
    """One line of a contact sheet: the image, the views of its mesh (none where there is no mesh), a caption.

    problem : why there is no mesh; shown in the views' place.
    """

    image: Image.Image
    views: Sequence[Image.Image]
    caption: str = ""
    problem: str = ""


def contact_sheet(
    rows: Sequence[SheetRow], *, tile: int = 192, columns: int = 1, labels: Sequence[str] | None = None
) -> Image.Image:
    """Lay many rows of (image, views) out on one sheet, RGB.

    tile : pixels a side of each image. columns : rows of the list that share a line. labels : a word above each
    tile, the same for all rows; default 'picture' and the names of a preview's views.
    Raises InvalidParameter for no rows.
    """
    if not rows or columns < 1 or tile < 16:
        raise InvalidParameter("A contact sheet needs at least one row, one column and tiles of 16 pixels.")
    labels = ["picture", *(view.name for view in PREVIEW_VIEWS)] if labels is None else labels
    columns = min(columns, len(rows))
    lines = -(-len(rows) // columns)
    gap = max(tile // 20, 4)
    head = _text_height(tile) + gap if labels else 0
    foot = _text_height(tile) + gap // 2 if any(row.caption for row in rows) else 0
    across = max(len(labels), *(1 + len(row.views) for row in rows)) * (tile + gap) + gap
    down = tile + gap + foot
    sheet = Image.new("RGB", (columns * across + (columns - 1) * gap, head + lines * down + gap), _PAPER)
    for index, row in enumerate(rows):
        line, column = divmod(index, columns)
        left = column * (across + gap)
        if line == 0:
            _draw_labels(sheet, labels, left + gap, gap, tile, gap)
        _draw_row(sheet, row, (left + gap, head + gap + line * down), tile, gap, across)
    return sheet


def png_bytes(image: Image.Image) -> bytes:
    """Return the image as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _draw_labels(sheet: Image.Image, labels: Sequence[str], left: int, top: int, tile: int, gap: int) -> None:
    pen = ImageDraw.Draw(sheet)
    for index, label in enumerate(labels):
        middle = left + index * (tile + gap) + tile // 2
        pen.text((middle, top), label, font=_font(tile), fill=_FAINT, anchor="ma")


def _draw_row(sheet: Image.Image, row: SheetRow, corner: tuple[int, int], tile: int, gap: int, across: int) -> None:
    left, top = corner
    mask = _rounded(tile)
    pen = ImageDraw.Draw(sheet)
    for index, image in enumerate([_card(row.image, tile), *row.views]):
        fitted = image if image.size == (tile, tile) else image.resize((tile, tile), Image.Resampling.LANCZOS)
        x = left + index * (tile + gap)
        sheet.paste(fitted.convert("RGB"), (x, top), mask)
        box = (x, top, x + tile - 1, top + tile - 1)
        pen.rounded_rectangle(box, radius=tile // 24, outline=_LINE)
    font = _font(tile)
    if row.problem and not row.views:
        start = left + tile + 2 * gap
        words = _wrap(row.problem, font, across - (tile + 4 * gap))
        pen.multiline_text((start, top + tile // 2), words, font=font, fill=_ALARM, anchor="lm", spacing=6)
    if row.caption:
        words = _shorten(row.caption, font, across - 2 * gap)
        pen.text((left, top + tile + gap // 2), words, font=font, fill=_INK, anchor="la")


def _card(image: Image.Image, tile: int) -> Image.Image:
    """Lay the whole image, its sides kept in proportion, on a light card; see-through parts show the card."""
    source = image.convert("RGBA")
    factor = tile / max(source.size)
    size = (max(1, round(source.width * factor)), max(1, round(source.height * factor)))
    # Colour under see-through pixels must not bleed into the edges.
    source = source.convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")
    card = Image.new("RGBA", (tile, tile), (*_CARD, 255))
    card.alpha_composite(source, ((tile - size[0]) // 2, (tile - size[1]) // 2))
    return card.convert("RGB")


def _rounded(tile: int) -> Image.Image:
    large = tile * _OVERSAMPLING
    mask = Image.new("L", (large, large), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, large - 1, large - 1), radius=large // 24, fill=255)
    return mask.resize((tile, tile), Image.Resampling.LANCZOS)


def _font(tile: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(max(12, min(tile // 18, 18)))


def _text_height(tile: int) -> int:
    return int(_font(tile).getbbox("Agjy|")[3])


def _shorten(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)
