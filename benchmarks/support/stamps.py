"""Objects that others photographed and cut out: the stamps of Tux Paint, Debian's package tuxpaint-stamps-default.

Animals, plants, vehicles, food, things. Their licences differ (the package's copyright file tells), so they are read
where the package is unpacked and never kept here. This module does not know what is put behind them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.support.cutouts import Cutout, cropped, enlarged

FOLDER = "usr/share/tuxpaint/stamps"
_SIDE = 420
_LEAST_SIDE, _LEAST_SHOWN = 120, 2000
_EMPTY = (0.02, 0.9)
# Drawn stamps have few colours; of photographs 20,000 pixels have thousands, at 64 levels a channel.
_LEVELS, _LOOKED_AT, _MANY = 4, 20_000, 1500
_LEFT_OUT = ("_mirror", "space/planets/")


def photographed(unpacked: Path) -> list[tuple[str, Cutout]]:
    """Return the photographs among the stamps, each with its group: animals, food, vehicles and so on.

    unpacked : where the package lies. Mirrored copies and planets, which are discs, are left out. Raises
    FileNotFoundError where there are no stamps.
    """
    stamps = unpacked / FOLDER
    found = list(_photographs(stamps))
    if not found:
        raise FileNotFoundError(f"{stamps} holds no stamps of photographs")
    return found


def _photographs(stamps: Path) -> Iterator[tuple[str, Cutout]]:
    for path in sorted(stamps.rglob("*.png")):
        name = path.relative_to(stamps).as_posix()
        if any(part in name for part in _LEFT_OUT):
            continue
        with Image.open(path) as image:
            if image.mode not in ("RGBA", "LA", "P") or min(image.size) < _LEAST_SIDE:
                continue
            rgba = np.asarray(image.convert("RGBA"))
        if _is_photograph(rgba):
            times = max(1, round(_SIDE / max(rgba.shape[:2])))
            yield name.split("/")[0], Cutout(path.stem, cropped(enlarged(rgba, times) if times > 1 else rgba))


def _is_photograph(rgba: npt.NDArray[np.uint8]) -> bool:
    """Say whether an image (h, w, 4) is of something cut out, in as many colours as photographs have."""
    empty = float((rgba[..., 3] < 12).mean())
    shown = rgba[..., :3][rgba[..., 3] > 200]
    if not _EMPTY[0] < empty < _EMPTY[1] or len(shown) < _LEAST_SHOWN:
        return False
    some = shown[:: max(1, len(shown) // _LOOKED_AT)] // _LEVELS
    return len(np.unique(some, axis=0)) > _MANY
