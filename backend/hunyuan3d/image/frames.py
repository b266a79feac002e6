"""Frames and margins of one colour about a picture: lines, polaroids, bars beside it, the card of an app.

A margin ends in a straight step along the whole of a side; a plain backdrop does not. This module does not know what is
inside.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from backend.hunyuan3d.image.backdrop import Array, Pixels, sum_channels
from backend.hunyuan3d.image.order_statistics import channel_medians

_ALIKE = 7.0
_FLAT = 0.985
_STEP = 0.93
_LEAST_LEFT = 0.3
_LAYERS = 4


@dataclass(frozen=True)
class Window:
    """The part of a picture inside its frames: rows top to bottom, columns left to right, ends excluded."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """The part as indices of rows and columns."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


def peel(rgb: Pixels) -> Window | None:
    """Return the part of a picture (h, w, 3) uint8 inside its frames and margins; None where it has none."""
    lab: Array = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    h, w = rgb.shape[:2]
    whole = Window(0, h, 0, w)
    window = whole
    for _ in range(_LAYERS):
        inner = _one_layer(lab, window)
        if inner is None or (inner.bottom - inner.top) * (inner.right - inner.left) < _LEAST_LEFT * h * w:
            break
        window = inner
    return None if window == whole else window


def _one_layer(lab: Array, window: Window) -> Window | None:
    """Take away the outermost margins that have one colour each; None where there are none."""
    part = lab[window.slices]
    sides = ["top", "bottom", "left", "right"]
    depths = {side: _depth(_from_side(part, side)) for side in sides}
    while True:
        framed = [side for side in sides if depths[side]]
        if not framed:
            return None
        inner = _inside(window, depths)
        if inner.bottom - inner.top < 16 or inner.right - inner.left < 16:
            return None
        weak = [side for side in framed if not _ends_in_step(part, side, depths)]
        if not weak:
            break
        for side in weak:
            depths[side] = 0
    # What the step itself has blurred belongs to neither side.
    worn = {side: depth + 2 if depth else 0 for side, depth in depths.items()}
    return _inside(window, worn)


def _from_side(part: Array, side: str) -> Array:
    """Turn a part so that a side's lines are its rows, the outermost first."""
    turned = part if side in ("top", "bottom") else part.transpose(1, 0, 2)
    return turned if side in ("top", "left") else turned[::-1]


def _depth(lines: Array) -> int:
    """Return how many lines from the outermost on are of its one colour; 0 where it has no one colour."""
    colour = channel_medians(lines[0])
    if not _flat(lines[:1], colour)[0]:
        return 0
    flat = _flat(lines[: len(lines) // 2], colour)
    return 0 if flat.all() else int(flat.argmin())


def _flat(lines: Array, colour: Array) -> npt.NDArray[np.bool_]:
    """Say of each line (n, w, 3) whether all but a few of its pixels have about that colour (3,)."""
    alike = np.sqrt(sum_channels((lines - colour) ** 2)) < _ALIKE
    return np.asarray(alike.mean(axis=1) >= _FLAT)


def _inside(window: Window, depths: dict[str, int]) -> Window:
    return Window(
        window.top + depths["top"],
        window.bottom - depths["bottom"],
        window.left + depths["left"],
        window.right - depths["right"],
    )


def _ends_in_step(part: Array, side: str, depths: dict[str, int]) -> bool:
    """Say whether just inside a margin the colour is another along nearly all of the side that the others leave."""
    lines = _from_side(part, side)
    before, after = ("left", "right") if side in ("top", "bottom") else ("top", "bottom")
    start, end = depths[before] + 3, lines.shape[1] - depths[after] - 3
    depth = depths[side]
    if end - start < 16 or depth + 4 >= len(lines):
        return False
    colour = channel_medians(lines[:depth])
    inner: npt.NDArray[np.float32] = lines[depth + 1 : depth + 4, start:end]
    differs = np.sqrt(sum_channels((inner - colour) ** 2)).max(axis=0) > 0.6 * _ALIKE
    return bool(differs.mean() >= _STEP)
