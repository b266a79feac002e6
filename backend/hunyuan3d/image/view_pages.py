"""The views of one object as one file: a TIFF with a page for each, in the order front, left, back, right.

A job keeps one file, whatever it was made of, and whoever fetches that can look at it. This module does not know which
views there are.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import BinaryIO

from PIL import Image, TiffImagePlugin

from backend.errors import InvalidImage
from backend.limits import ViewName

VIEWS_FORMAT = "tiff"


class ViewPages:
    """A file that is being put together, page by page, so that one view is in memory at a time."""

    def __init__(self) -> None:
        self._file = io.BytesIO()
        self._writer = TiffImagePlugin.AppendingTiffWriter(self._file, new=True)

    def add(self, view: Image.Image) -> None:
        """Append a view, as it is."""
        view.save(self._writer, "TIFF", compression="tiff_deflate")
        self._writer.newFrame()

    def finish(self) -> BinaryIO:
        """Return the file, at its start."""
        self._writer.finalize()
        self._file.seek(0)
        return self._file


def split_views(data: bytes, names: Sequence[ViewName]) -> dict[ViewName, Image.Image]:
    """Return the views in a file of ViewPages, by the names that they were added under. Raises InvalidImage."""
    views: dict[ViewName, Image.Image] = {}
    try:
        with Image.open(io.BytesIO(data), formats=["TIFF"]) as pages:
            for index, name in enumerate(names):
                pages.seek(index)
                views[name] = pages.copy()
    except (OSError, EOFError, ValueError, SyntaxError) as error:
        raise InvalidImage("The stored views cannot be read.") from error
    return views
