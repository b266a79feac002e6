"""One picture, in any form, to a batch of one: opened, its background removed if asked, brought to the model's size.

Knows nothing of networks. Pictures prepared one by one are stacked into batches here too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from PIL import Image
from torch import Tensor

from backend.errors import InvalidImage, InvalidParameter, ServiceError
from backend.hunyuan3d.background import BackgroundMode, remove_background
from backend.hunyuan3d.image_processor import ImageBatch, ImageInput, ImageProcessor
from backend.hunyuan3d.picture import open_picture


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """A batch of one, and how its background went: the method's name, or 'none'."""

    batch: ImageBatch
    background: str


def check_background_mode(mode: str) -> None:
    """Raises InvalidParameter unless the mode is auto, always or never."""
    if mode not in get_args(BackgroundMode):
        raise InvalidParameter(f"remove_background must be one of {', '.join(get_args(BackgroundMode))}, not {mode!r}.")


def prepare_image(item: ImageInput, processor: ImageProcessor, mode: BackgroundMode) -> PreparedImage:
    """Open, cut out, process. Raises InvalidImage, UnsupportedImage, NoForeground, InvalidParameter."""
    check_background_mode(mode)
    if not isinstance(item, Mapping):
        image, method = _cut_out(open_picture(item), mode)
        return PreparedImage(processor(image), method)
    cut = {name: _cut_out(open_picture(picture), mode) for name, picture in item.items()}
    methods = sorted({method for _, method in cut.values()})
    return PreparedImage(processor({name: image for name, (image, _) in cut.items()}), ", ".join(methods))


def prepare_or_error(
    item: ImageInput, *, processor: ImageProcessor, mode: BackgroundMode
) -> PreparedImage | ServiceError:
    """`prepare_image`, with what is wrong with the picture as a value: its neighbours go on without it."""
    try:
        return prepare_image(item, processor, mode)
    except ServiceError as e:
        return e


def stack(prepared: Sequence[PreparedImage]) -> ImageBatch:
    """Batches of one as one batch. Raises InvalidImage when their views differ."""
    batches = [p.batch for p in prepared]
    if len({batch.view_indices for batch in batches}) > 1:
        raise InvalidImage("Objects in one batch must have the same views.")
    image, mask = torch.cat([b.image for b in batches]), torch.cat([b.mask for b in batches])
    return ImageBatch(image, mask, batches[0].view_indices)


def batches_of_same_views(prepared: Sequence[PreparedImage | ServiceError]) -> list[tuple[list[int], ImageBatch]]:
    """The usable pictures as few batches as can be (one, unless views differ), each with its pictures' places."""
    groups: dict[tuple[int, ...] | None, dict[int, PreparedImage]] = {}
    for place, item in enumerate(prepared):
        if isinstance(item, PreparedImage):
            groups.setdefault(item.batch.view_indices, {})[place] = item
    return [(list(group), stack(list(group.values()))) for group in groups.values()]


def unique_rows(image: Tensor, view_rows: Sequence[Sequence[int]] | None = None) -> tuple[list[int], list[int]]:
    """Which of B pictures are the first of their kind, and for each picture the place of its kind among those.

    image : (B, ...); view_rows : the views' indices of each. Pictures on a device count as different: looking would
    cost more than it saves.
    """
    if image.device.type != "cpu":
        everyone = list(range(len(image)))
        return everyone, everyone
    first: list[int] = []
    kinds: dict[tuple[bytes, tuple[int, ...]], int] = {}
    inverse: list[int] = []
    for place, row in enumerate(image):
        digest = hashlib.blake2b(row.contiguous().numpy().tobytes()).digest()
        key = digest, tuple(view_rows[place]) if view_rows else ()
        if key not in kinds:
            kinds[key] = len(first)
            first.append(place)
        inverse.append(kinds[key])
    return first, inverse


def _cut_out(image: Image.Image, mode: BackgroundMode) -> tuple[Image.Image, str]:
    result = remove_background(image, mode)
    return result.image, result.method
