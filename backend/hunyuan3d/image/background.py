"""Background removal: any picture in, the object on transparency out.

An alpha channel that really cuts something out is used as it is. Else rembg does it where it and a model of its are
there (rembg_cutter.py); else the classical method: on a near-uniform border a flood that knows lamps and soft shadows
(backdrop.flood_backdrop), on a busy one GrabCut with a central prior (backdrop.cut_busy), and in both the edge is
solved as a mixture of two colours (matting). benchmarks/results/background_removal.md holds the measurements behind
this choice. This module does not know where pictures come from (open_image.py) or what the model wants of them
(image_processor.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from backend.errors import InvalidBackgroundMode, NoForeground
from backend.hunyuan3d.image.backdrop import WORKING_SIDE, Pixels, cut_busy, flood_backdrop
from backend.hunyuan3d.image.matting import cut_with_soft_edge
from backend.hunyuan3d.image.rembg_cutter import Cutter, installed_cutter
from backend.limits import BACKGROUND_MODES, BackgroundMode

# Alpha up to here is dust: the leftovers of other tools, which would widen the object's bounding box.
_DUST = 12
# Rounded corners of a screenshot are about 1 % of it; a cut-out leaves far more than that empty.
_LEAST_EMPTY = 0.02
_LEAST_SHOWN = 1e-4


@dataclass(frozen=True)
class MaskStats:
    """Shares of the picture's pixels, 0..1: foreground (alpha >= 128), soft (neither 0 nor 255), and of its border."""

    foreground: float
    soft: float
    border: float


@dataclass(frozen=True, eq=False)
class BackgroundResult:
    """A picture in RGBA, how its alpha came about, its mask's numbers, and why a better method was not used."""

    image: Image.Image
    method: Literal["alpha", "rembg", "flood", "grabcut", "none"]
    mask: MaskStats
    fallback: str | None = None


def remove_background(
    image: Image.Image, mode: BackgroundMode = "auto", *, cutter: Cutter | Literal["installed"] | None = "installed"
) -> BackgroundResult:
    """Give the object on transparency, at the picture's own size.

    mode : 'never' leaves alpha as it is; 'auto' uses an alpha channel that cuts something out and else removes the
    background; 'always' removes it even then: the picture is laid on white first, and what its alpha had cut stays
    cut. cutter : replaces rembg; None is the classical method alone.
    Raises NoForeground, InvalidParameter.
    """
    if mode not in BACKGROUND_MODES:
        raise InvalidBackgroundMode(f"remove_background must be auto, always or never, not {str(mode)[:40]!r}.")
    rgba = np.asarray(image.convert("RGBA"))
    alpha = rgba[..., 3]
    if mode == "never":
        return BackgroundResult(Image.fromarray(rgba), "none", _stats(alpha))
    if not (alpha > _DUST).any():
        raise NoForeground("The picture is transparent everywhere.")
    cuts = alpha_cuts(alpha)
    if cuts and mode == "auto":
        return _result(rgba[..., :3], np.where(alpha <= _DUST, 0, alpha), "alpha", None)
    rgb = _flatten(rgba)
    method, colour, mask, fallback = _remove(rgb, cutter)
    return _result(colour, np.minimum(mask, alpha) if cuts else mask, method, fallback)


def alpha_cuts(alpha: npt.NDArray[np.uint8]) -> bool:
    """Say whether an alpha channel (H, W) leaves a good part of the picture empty and shows the rest.

    Opaque or uniform channels, and those that only round a picture's corners, do not.
    """
    empty = float((alpha <= _DUST).mean())
    return _LEAST_EMPTY <= empty <= 1 - _LEAST_SHOWN


def _as_image(answer: object) -> Image.Image:
    if not isinstance(answer, Image.Image):
        raise TypeError(f"the cutter gave a {type(answer).__name__}, not a picture")
    return answer


_Removed = tuple[Literal["rembg", "flood", "grabcut"], Pixels, Pixels, str | None]


def _remove(rgb: Pixels, cutter: Cutter | Literal["installed"] | None) -> _Removed:
    use = installed_cutter() if cutter == "installed" else cutter
    fallback = None
    if use is not None:
        try:
            cut = np.asarray(_as_image(use(Image.fromarray(rgb))).convert("RGBA"))
            if cut.shape[:2] != rgb.shape[:2]:
                raise ValueError("the cutter changed the picture's size")
        except Exception as e:  # noqa: BLE001 - a foreign model that may need a download; recorded in the result
            fallback = f"rembg failed ({type(e).__name__}), the classical method was used"
        else:
            return "rembg", cut[..., :3], np.where(cut[..., 3] <= _DUST, 0, cut[..., 3]).astype(np.uint8), None
    method, colour, mask = _classical(rgb)
    return method, colour, mask, fallback


def _classical(rgb: Pixels) -> tuple[Literal["flood", "grabcut"], Pixels, Pixels]:
    scale = min(WORKING_SIDE / max(rgb.shape[:2]), 4.0)
    size = (max(8, round(rgb.shape[1] * scale)), max(8, round(rgb.shape[0] * scale)))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    method: Literal["flood", "grabcut"] = "flood"
    found = flood_backdrop(small)
    if found is None:
        method, found = "grabcut", cut_busy(small)
    if found is None:
        raise NoForeground(
            "The background is too busy to tell an object from it; send a cut-out or a plain background."
        )
    if not found.foreground.any():
        raise NoForeground
    mask, colour = cut_with_soft_edge(rgb, small, found)
    return method, colour, mask


def _flatten(rgba: Pixels) -> Pixels:
    """Lay a picture on white by its alpha; an alpha that is low everywhere is taken as full."""
    highest = int(rgba[..., 3].max())
    if rgba[..., 3].min() == highest:
        return np.ascontiguousarray(rgba[..., :3])
    alpha = rgba[..., 3:].astype(np.float32) / highest
    return np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def _result(
    colour: Pixels, mask: Pixels, method: Literal["alpha", "rembg", "flood", "grabcut"], fallback: str | None
) -> BackgroundResult:
    if (mask > 127).mean() < _LEAST_SHOWN / 4 and (mask > _DUST).mean() < _LEAST_SHOWN:
        raise NoForeground
    image = Image.fromarray(np.dstack([colour, mask.astype(np.uint8)]))
    return BackgroundResult(image, method, _stats(mask), fallback)


def _stats(mask: Pixels) -> MaskStats:
    shown = mask >= 128
    border = np.concatenate([shown[0], shown[-1], shown[:, 0], shown[:, -1]])
    soft = (mask > 0) & (mask < 255)
    return MaskStats(float(shown.mean()), float(soft.mean()), float(border.mean()))
