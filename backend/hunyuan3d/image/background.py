"""Background removal: any picture in, the object on transparency out.

An alpha channel that really cuts something out is used as it is. Else rembg does it where it and a model of its are
there (rembg_cutter.py); else the best of several candidates (candidates.best_cut), whose edge is solved as a mixture of
two colours (matting). benchmarks/results/background_removal.md holds the measurements behind this choice. This module
does not know where pictures come from (open_image.py) or what the model wants of them (image_processor.py).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from backend.errors import InvalidBackgroundMode, NoForeground
from backend.hunyuan3d.facts import BackgroundFacts, Remark
from backend.hunyuan3d.image.backdrop import WORKING_SIDE, Found, Pixels
from backend.hunyuan3d.image.candidates import Candidate, best_cut, is_seen_plainly
from backend.hunyuan3d.image.doubts import HOPELESS, UNSEEN, keep_largest, pieces_of, remarks_on, why_hopeless
from backend.hunyuan3d.image.judgement import Scene, Signs, measure, overlap, score
from backend.hunyuan3d.image.matting import cut_with_soft_edge
from backend.hunyuan3d.image.regions import Box, border_share, box_of
from backend.hunyuan3d.image.rembg_cutter import Cutter, installed_cutter
from backend.hunyuan3d.image.shadows import without_baked_shadow
from backend.limits import BACKGROUND_MODES, DEFAULT_OBJECTS, BackgroundMode, ObjectChoice

logger = logging.getLogger(__name__)

Method = Literal["alpha", "rembg", "flood", "grabcut", "network", "none"]
# Alpha up to here is dust: the leftovers of other tools, which would widen the object's bounding box.
_DUST = 12
# Rounded corners of a screenshot are about 1 % of it; a cut-out leaves far more than that empty.
_LEAST_EMPTY = 0.02
_LEAST_SHOWN = 1e-4
# An object that spans less of both sides is looked at again with so much of its size around it.
_SMALL_SPAN, _MARGIN = 0.35, 0.6
_SURELY_LESS, _MUCH_THE_SAME = 0.1, 0.45


@dataclass(frozen=True)
class MaskStats:
    """Shares of the picture's pixels, 0..1: foreground (alpha >= 128), soft (neither 0 nor 255), and of its border."""

    foreground: float
    soft: float
    border: float


@dataclass(frozen=True, eq=False)
class BackgroundResult:
    """A picture in RGBA, how its alpha came about, its mask's numbers, and why a better method was not used.

    score : how sure the cut-out is, 0..1, None where nobody judged it; objects : pieces of it that do not touch
    remarks : what should be said of it
    """

    image: Image.Image
    method: Method
    mask: MaskStats
    fallback: str | None = None
    score: float | None = None
    objects: int = 0
    remarks: tuple[Remark, ...] = ()

    @property
    def facts(self) -> BackgroundFacts:
        """What a caller hears of it."""
        rounded = None if self.score is None else round(self.score, 3)
        return BackgroundFacts(self.method, rounded, round(self.mask.border, 4), self.objects)


def remove_background(
    image: Image.Image,
    mode: BackgroundMode = "auto",
    objects: ObjectChoice = DEFAULT_OBJECTS,
    *,
    cutter: Cutter | Literal["installed"] | None = "installed",
) -> BackgroundResult:
    """Give the object on transparency, at the picture's own size.

    mode : 'never' leaves alpha as it is; 'auto' uses an alpha channel that cuts something out and else removes the
    background; 'always' removes it even then: the picture is laid on white first, and what its alpha had cut stays
    cut. objects : all, or the largest piece alone. cutter : replaces rembg; None is the service's own way alone.
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
        kept = without_baked_shadow(rgba)
        return _result(_Removed("alpha", rgba[..., :3], np.where(kept <= _DUST, 0, kept).astype(np.uint8)), objects)
    removed = _remove(_flatten(rgba), cutter)
    return _result(replace(removed, mask=np.minimum(removed.mask, alpha)) if cuts else removed, objects)


def alpha_cuts(alpha: npt.NDArray[np.uint8]) -> bool:
    """Say whether an alpha channel (H, W) leaves a good part of the picture empty and shows the rest.

    Opaque or uniform channels, and those that only round a picture's corners, do not.
    """
    empty = float((alpha <= _DUST).mean())
    return _LEAST_EMPTY <= empty <= 1 - _LEAST_SHOWN


@dataclass(frozen=True, eq=False)
class _Removed:
    """Colours (H, W, 3) and mask (H, W) of a cut-out, how it was made, and what is seen of it."""

    method: Method
    colour: Pixels
    mask: Pixels
    fallback: str | None = None
    signs: Signs | None = None


def _remove(rgb: Pixels, cutter: Cutter | Literal["installed"] | None) -> _Removed:
    try:
        proposed, fallback = _proposed(rgb, cutter), None
    except Exception as e:  # noqa: BLE001 - a foreign model that may be broken; recorded in the result
        proposed, fallback = None, f"rembg failed ({type(e).__name__}), the service's own way was used"
        logger.warning("%s: %s", fallback, e)
    return replace(_classical(rgb) if proposed is None else _as_proposed(rgb, proposed), fallback=fallback)


def _proposed(rgb: Pixels, cutter: Cutter | Literal["installed"] | None) -> Pixels | None:
    """Return rembg's mask (H, W) of a picture (H, W, 3), None where rembg is not there.

    Raises whatever rembg does, and TypeError and ValueError for what is no mask of the picture.
    """
    use = installed_cutter() if cutter == "installed" else cutter
    if use is None:
        return None
    mask = use(Image.fromarray(rgb))
    if not isinstance(mask, Image.Image):
        raise TypeError(f"the cutter gave a {type(mask).__name__}, not a picture")
    if (mask.mode, mask.size) != ("L", (rgb.shape[1], rgb.shape[0])):
        raise ValueError(f"the cutter gave {mask.mode} of {mask.size}, not a mask of the picture's size")
    return np.asarray(mask)


def _as_proposed(rgb: Pixels, proposed: Pixels) -> _Removed:
    """Cut along a mask (H, W), whose soft edge is kept: the model that made it may see hair that the candidates do not.

    The colours of the edge are unmixed as along any other outline.
    """
    mask = np.where(proposed <= _DUST, 0, proposed).astype(np.uint8)
    shown = mask >= 128
    if not shown.any():
        return _Removed("rembg", rgb, mask)
    small = working_size(rgb)
    inside = cv2.resize(mask, (small.shape[1], small.shape[0]), interpolation=cv2.INTER_AREA) >= 128
    colour = cut_with_soft_edge(rgb, small, Found(inside, ~inside))[1] if inside.any() else rgb
    return _Removed("rembg", colour, mask, None, measure(Scene.of(rgb), Found(shown, ~shown)))


def _classical(rgb: Pixels) -> _Removed:
    small = working_size(rgb)
    best = best_cut(small)
    if best is None:
        raise NoForeground(
            "No object stands out from the background; send a cut-out, or one before a plain background."
        )
    hopeless = best.score < HOPELESS and not is_seen_plainly(best)
    if hopeless or best.signs.contrast < UNSEEN:
        raise NoForeground(why_hopeless(best.signs))
    closer = _from_nearer(rgb, best)
    if closer is not None:
        return closer
    mask, colour = cut_with_soft_edge(rgb, small, best.found)
    return _Removed(best.method, colour, mask, None, best.signs)


def _from_nearer(rgb: Pixels, best: Candidate) -> _Removed | None:
    """Cut an object again that is small in its picture (H, W, 3), out of its surroundings alone; None where that fails.

    At working size little more than an outline is seen of it: no gaps between its parts. What is found from nearer must
    be much the same object, and about as sure.
    """
    around = _surroundings(best.found.foreground, rgb.shape[:2])
    if around is None:
        return None
    near = np.ascontiguousarray(rgb[around])
    small = working_size(near)
    again = best_cut(small)
    if again is None or again.score < best.score - _SURELY_LESS:
        return None
    mask = np.zeros(rgb.shape[:2], np.uint8)
    mask[around], tinted = cut_with_soft_edge(near, small, again.found)
    h, w = best.found.foreground.shape
    seen = cv2.resize(mask, (w, h), interpolation=cv2.INTER_AREA) >= 128
    if overlap(seen, best.found.foreground) < _MUCH_THE_SAME:
        return None
    colour = rgb.copy()
    colour[around] = tinted
    return _Removed(again.method, colour, mask, None, again.signs)


def _surroundings(shown: npt.NDArray[np.bool_], size: tuple[int, int]) -> Box | None:
    """Return rows and columns, of a picture of a size (H, W), of an object (h, w) and what is next to it.

    None where it is not small.
    """
    box = box_of(shown)
    if max((span.stop - span.start) / side for span, side in zip(box, shown.shape, strict=True)) > _SMALL_SPAN:
        return None
    margin = _MARGIN * max(span.stop - span.start for span in box)
    rows, columns = (
        slice(max(0, int((span.start - margin) * full / side)), int((span.stop + margin) * full / side) + 1)
        for span, side, full in zip(box, shown.shape, size, strict=True)
    )
    return rows, columns


def working_size(rgb: Pixels) -> Pixels:
    """Return a picture (H, W, 3) at the size at which objects are looked for: WORKING_SIDE on the longer side."""
    scale = min(WORKING_SIDE / max(rgb.shape[:2]), 4.0)
    size = (max(8, round(rgb.shape[1] * scale)), max(8, round(rgb.shape[0] * scale)))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    return np.asarray(small, dtype=np.uint8)


def _flatten(rgba: Pixels) -> Pixels:
    """Lay a picture on white by its alpha; an alpha that is low everywhere is taken as full."""
    highest = int(rgba[..., 3].max())
    if rgba[..., 3].min() == highest:
        return np.ascontiguousarray(rgba[..., :3])
    alpha = rgba[..., 3:].astype(np.float32) / highest
    return np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def _result(removed: _Removed, objects: ObjectChoice) -> BackgroundResult:
    mask = keep_largest(removed.mask) if objects == "largest" else removed.mask
    if (mask > 127).mean() < _LEAST_SHOWN / 4 and (mask > _DUST).mean() < _LEAST_SHOWN:
        raise NoForeground
    count, _ = pieces_of(mask)
    stats = _stats(mask)
    sure = None if removed.signs is None else score(removed.signs)
    remarks = remarks_on(count, stats.border, removed.signs, sure)
    image = Image.fromarray(np.dstack([removed.colour, mask]))
    return BackgroundResult(image, removed.method, stats, removed.fallback, sure, count, remarks)


def _stats(mask: Pixels) -> MaskStats:
    shown = mask >= 128
    soft = (mask > 0) & (mask < 255)
    return MaskStats(float(shown.mean()), float(soft.mean()), border_share(shown))
