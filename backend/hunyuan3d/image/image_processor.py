"""A picture with an alpha channel to the square tensors that the conditioner takes.

Formulas: docs/model.md, section 2. Knows nothing of background removal, networks or devices: every result is on the
CPU.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from backend.errors import InvalidImage, MissingImage, NoForeground, ViewsUnsupported
from backend.hunyuan3d.image.open_image import Source, open_image
from backend.limits import VIEWS

# A mapping is of views; which names it may have is checked.
ImageInput: TypeAlias = "Source | Mapping[Any, Source]"
Item = TypeVar("Item")

CUTOUT_SIDE = 1024


@dataclass(frozen=True)
class ImageBatch:
    """Pictures ready for the conditioner.

    image : (B, 3, S, S) float32 in [-1, 1], or (B, V, 3, S, S) for several views; mask : the same with one channel, 1
    where the object is and -1 elsewhere; view_indices : the V views' indices, the same for all, or None.
    """

    image: Tensor
    mask: Tensor
    view_indices: tuple[int, ...] | None = None


@dataclass(frozen=True)
class ImageProcessor:
    """Cuts the object out, centres it with a border on white and resizes to `size`.

    brightness : what the object's colours are multiplied by, at most 1. Below 1, what is white on the object is not
    what is white around it: a model that sees no alpha takes white dots for holes.
    """

    size: int = 512
    border_ratio: float = 0.15
    brightness: float = 1.0

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 <= self.border_ratio < 1:
            raise ValueError("image processor: size must be at least 1 and border_ratio in [0, 1)")
        if not 0 < self.brightness <= 1:
            raise ValueError(f"image processor: brightness must be above 0 and at most 1, not {self.brightness}")

    def __call__(self, image: ImageInput) -> ImageBatch:
        """Make a batch of one of one object's image.

        Raises ViewsUnsupported, InvalidImage, UnsupportedImage, NoForeground.
        """
        if isinstance(image, Mapping):
            raise ViewsUnsupported
        pixels, mask = self.process(open_image(image))
        return ImageBatch(pixels[None], mask[None])

    def process(self, image: Image.Image) -> tuple[Tensor, Tensor]:
        """Turn one image into tensors (3, S, S) and mask (1, S, S), float32 in [-1, 1]. Raises NoForeground."""
        canvas = self.recentre(np.asarray(image.convert("RGBA")))
        alpha = canvas[..., 3:].astype(np.float32) / 255
        on_white = (canvas[..., :3] * (self.brightness * alpha) + 255 * (1 - alpha)).astype(np.uint8)
        square = (self.size, self.size)
        colours = cv2.resize(on_white, square, interpolation=cv2.INTER_CUBIC)
        mask = cv2.resize(canvas[..., 3], square, interpolation=cv2.INTER_NEAREST)
        return _to_tensor(colours), _to_tensor(mask[..., None])

    def recentre(self, rgba: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Crop (h, w, 4) to its visible part and paste that, centred, on a transparent square. Raises NoForeground."""
        crop, side, (left, top, width, height) = self._place(rgba, whole=False)
        canvas = np.zeros((side, side, 4), np.uint8)
        canvas[top : top + height, left : left + width] = cv2.resize(
            crop, (width, height), interpolation=cv2.INTER_AREA
        )
        return canvas

    def cutout(self, image: Image.Image) -> Image.Image:
        """Return the whole object, framed as by `recentre`, RGBA, as sharp as it is, at most CUTOUT_SIDE pixels a side.

        Colours are straight, and none comes from under a transparent pixel. Raises NoForeground.
        """
        rgba = np.asarray(image.convert("RGBA"))
        crop, frame, (left, top, width, height) = self._place(rgba, whole=True)
        own = max(crop.shape[0] / height, crop.shape[1] / width)
        side = max(1, min(CUTOUT_SIDE, round(frame * own)))
        across, down = width / crop.shape[1] * side / frame, height / crop.shape[0] * side / frame
        size = max(1, round(crop.shape[1] * across)), max(1, round(crop.shape[0] * down))
        alpha = crop[..., 3:].astype(np.float32) / 255
        premultiplied = np.concatenate([crop[..., :3] * alpha, crop[..., 3:]], axis=2).astype(np.float32)
        resized = (
            premultiplied
            if size == crop.shape[1::-1]
            else cv2.resize(premultiplied, size, interpolation=cv2.INTER_AREA)
        )
        straight = resized[..., :3] * (255 / np.maximum(resized[..., 3:], 1e-3))
        x, y = round(left * side / frame), round(top * side / frame)
        x, y = min(x, side - size[0]), min(y, side - size[1])
        canvas = np.zeros((side, side, 4), np.uint8)
        pixels = np.rint(np.concatenate([straight, resized[..., 3:]], axis=2)).clip(0, 255).astype(np.uint8)
        canvas[y : y + size[1], x : x + size[0]] = np.where(pixels[..., 3:] > 0, pixels, 0)
        return Image.fromarray(canvas)

    def _place(
        self, rgba: npt.NDArray[np.uint8], *, whole: bool
    ) -> tuple[npt.NDArray[np.uint8], int, tuple[int, int, int, int]]:
        """Return the visible part of (h, w, 4), the side of its square, and where it goes: left, top, width, height.

        whole : with the last visible row and column. Raises NoForeground.
        """
        visible = rgba[..., 3] != 0
        rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
        if rows.size < 2 or columns.size < 2:
            raise NoForeground
        # The networks were trained on pictures whose last visible row and column are cut, and judge shapes less well by
        # any other; what the mesh is held against wants both.
        beyond = 1 if whole else 0
        crop = rgba[rows[0] : rows[-1] + beyond, columns[0] : columns[-1] + beyond]
        height, width = crop.shape[:2]
        side = max(rgba.shape[:2])
        scale = int(side * (1 - self.border_ratio)) / max(height, width)
        # A hair's breadth must not round to nothing.
        new_height, new_width = max(int(height * scale), 1), max(int(width * scale), 1)
        return crop, side, ((side - new_width) // 2, (side - new_height) // 2, new_width, new_height)


@dataclass(frozen=True)
class MultiViewImageProcessor(ImageProcessor):
    """The same for several views of one object, stacked in the order front, left, back, right."""

    def __call__(self, image: ImageInput) -> ImageBatch:
        """Make a batch of one of one object's views, or of its front alone.

        Raises InvalidImage, UnsupportedImage, MissingImage, NoForeground.
        """
        views = image if isinstance(image, Mapping) else {"front": image}
        unknown = sorted(str(name) for name in views if name not in VIEWS)
        if unknown:
            raise InvalidImage(f"Unknown view {', '.join(unknown)}; the views are {', '.join(VIEWS)}.")
        indices = tuple(index for index, name in enumerate(VIEWS) if name in views)
        if not indices:
            raise MissingImage
        processed = [self.process(open_image(views[VIEWS[index]])) for index in indices]
        images, masks = zip(*processed, strict=True)
        return ImageBatch(torch.stack(images)[None], torch.stack(masks)[None], indices)


def as_list(images: ImageInput | Sequence[Item | ImageInput]) -> list[Item | ImageInput]:
    """Return one image or many, always as a list. Raises MissingImage when there is none."""
    single = isinstance(images, (Image.Image, str, os.PathLike, bytes, bytearray, memoryview, np.ndarray, Mapping))
    items: list[Item | ImageInput] = [images] if single else list(images)  # type: ignore[list-item, arg-type]
    if not items:
        raise MissingImage
    return items


def _to_tensor(pixels: npt.NDArray[np.uint8]) -> Tensor:
    """Turn (S, S, c) uint8 into (c, S, S) float32 in [-1, 1]."""
    return torch.from_numpy(pixels.astype(np.float32) / 255 * 2 - 1).permute(2, 0, 1).contiguous()
