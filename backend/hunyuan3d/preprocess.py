"""One image, in any form, to a batch of one: opened, its background removed if asked, brought to the model's size.

Images prepared one by one are stacked into batches here too. This module does not know of networks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import torch
from PIL import Image
from torch import Tensor

from backend.errors import InvalidImage, InvalidParameter, ServiceError
from backend.hunyuan3d.device.transfer import Upload
from backend.hunyuan3d.facts import BackgroundFacts, Remark, UnusedOutline, of_several
from backend.hunyuan3d.finishing import in_parallel
from backend.hunyuan3d.image.background import BackgroundResult, remove_background
from backend.hunyuan3d.image.image_processor import ImageBatch, ImageInput, ImageProcessor
from backend.hunyuan3d.image.open_image import open_image
from backend.hunyuan3d.image.outline import Outline, reason_not_to_follow
from backend.hunyuan3d.memory_errors import named_memory_errors, without_frames
from backend.hunyuan3d.options import ImageOptions
from backend.hunyuan3d.results import ShapeMetadata
from backend.limits import DEFAULT_OBJECTS, VIEWS, BackgroundMode, ObjectChoice

ViewIndices = Sequence[int] | Sequence[Sequence[int]] | Tensor


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """A batch of one, how its background was removed, and what should be said of it.

    uploaded : the same image on its way to the device, where that was begun. cutout : RGBA, square, the same frame as
    the batch's image; of several views the first.
    """

    batch: ImageBatch
    background: BackgroundFacts
    uploaded: Upload | None = None
    cutout: Image.Image | None = None
    remarks: tuple[Remark, ...] = ()


MaybePrepared: TypeAlias = "ImageInput | PreparedImage | ServiceError"
"""An image as it was given, or what preparing it has given."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """One image ready for the device, or what is wrong with it.

    metadata : what was done for it so far. outline : where the shape is to end; None where the network says.
    """

    image: PreparedImage | ServiceError
    options: ImageOptions
    metadata: ShapeMetadata
    outline: Outline | None = None


def prepare_image(
    item: ImageInput, processor: ImageProcessor, mode: BackgroundMode, objects: ObjectChoice = DEFAULT_OBJECTS
) -> PreparedImage:
    """Open, cut out, process. Raises InvalidImage, UnsupportedImage, NoForeground, InvalidBackgroundMode."""
    if not isinstance(item, Mapping):
        cut = remove_background(open_image(item), mode, objects)
        cutout = processor.cutout(cut.image)
        return PreparedImage(processor(cut.image), cut.facts, cutout=cutout, remarks=cut.remarks)
    return _prepare_views(
        {name: remove_background(open_image(view), mode, objects) for name, view in item.items()}, processor
    )


def _prepare_views(cut: Mapping[str, BackgroundResult], processor: ImageProcessor) -> PreparedImage:
    views = {name: result.image for name, result in cut.items()}
    batch = processor(views)
    first = next(views[name] for name in VIEWS if name in views)
    remarks = {remark.code: remark for result in cut.values() for remark in result.remarks}
    facts = of_several([result.facts for result in cut.values()])
    return PreparedImage(batch, facts, cutout=processor.cutout(first), remarks=tuple(remarks.values()))


def prepare_or_error(
    item: MaybePrepared, mode: BackgroundMode, objects: ObjectChoice = DEFAULT_OBJECTS, *, processor: ImageProcessor
) -> PreparedImage | ServiceError:
    """Prepare an image, with what is wrong with it as a value: its neighbours go on without it.

    One that was prepared before is returned as it is.
    """
    if isinstance(item, PreparedImage | ServiceError):
        return item
    try:
        with named_memory_errors():
            return prepare_image(item, processor, mode, objects)
    except ServiceError as e:
        return without_frames(e)


def prepare_each(
    images: Sequence[MaybePrepared],
    options: Sequence[ImageOptions],
    processor: ImageProcessor,
    *,
    may_follow: bool,
    bounds: float,
) -> list[tuple[PreparedImage | ServiceError, Outline | None, UnusedOutline | None]]:
    """Prepare images, each with the outline at which its shape is to end, or why that is not relied on.

    may_follow, bounds : as outline_to_follow's. The same object given again with options that differ in the seed alone
    is prepared once.
    """
    kinds = [(id(image), replace(own, seed=0)) for image, own in zip(images, options, strict=True)]
    chosen = list({kind: index for index, kind in enumerate(kinds)}.values())
    own = [options[index] for index in chosen]
    prepare = partial(prepare_or_error, processor=processor)
    modes, objects = [each.remove_background for each in own], [each.objects for each in own]
    opened = in_parallel(prepare, [images[index] for index in chosen], modes, objects)
    outlines = in_parallel(partial(outline_to_follow, possible=may_follow, bounds=bounds), opened, own)
    made = {kinds[index]: (image, *found) for index, image, found in zip(chosen, opened, outlines, strict=True)}
    return [made[kind] for kind in kinds]


def outline_to_follow(
    image: PreparedImage | ServiceError, options: ImageOptions, *, possible: bool, bounds: float
) -> tuple[Outline | None, UnusedOutline | None]:
    """Return the outline at which the shape is to end, or why it is not relied on; neither where it is not wanted.

    possible : whether the shapes lie as the camera saw them. bounds : half the side of the shapes' box.
    """
    wanted = possible and options.outline != "off"
    if not wanted or isinstance(image, ServiceError) or image.cutout is None or image.batch.view_indices is not None:
        return None, None
    unused = reason_not_to_follow(image.cutout, image.background)
    return (Outline.of(image.cutout, bounds) if unused is None else None), unused


def with_background(
    metadata: ShapeMetadata, image: PreparedImage | ServiceError, unused: UnusedOutline | None
) -> ShapeMetadata:
    """Return the metadata with how an image was cut out, and why its outline is not followed."""
    if isinstance(image, ServiceError):
        return metadata
    return replace(metadata, background=image.background, remarks=image.remarks, outline_unused=unused)


def stack(images: Sequence[PreparedImage | ServiceError]) -> ImageBatch:
    """Join batches of one into one batch. Raises the first image's error; InvalidImage when their views differ."""
    batches = [_usable(image).batch for image in images]
    if len({batch.view_indices for batch in batches}) > 1:
        raise InvalidImage("Objects in one batch must have the same views.")
    image, mask = torch.cat([b.image for b in batches]), torch.cat([b.mask for b in batches])
    return ImageBatch(image, mask, batches[0].view_indices)


def batches_of_same_views(prepared: Sequence[Prepared]) -> list[tuple[int, ...]]:
    """Group the usable images' indices into as few batches as can be: one, unless views differ."""
    groups: dict[tuple[int, ...] | None, list[int]] = {}
    for index, item in enumerate(prepared):
        if isinstance(item.image, PreparedImage):
            groups.setdefault(item.image.batch.view_indices, []).append(index)
    return [tuple(group) for group in groups.values()]


def view_rows(view_indices: ViewIndices | None, objects: int, views: int) -> list[list[int]]:
    """Return the views' indices of every object, from one tuple for all, one for each, or none (the first views)."""
    rows = torch.as_tensor(list(range(views)) if view_indices is None else view_indices, device="cpu")
    if rows.shape not in ((views,), (objects, views)) or not ((rows >= 0) & (rows < len(VIEWS))).all():
        raise InvalidParameter(f"{views} views need {views} view indices from 0 to {len(VIEWS) - 1}.")
    return rows.expand(objects, views).tolist()


def unique_rows(image: Tensor, view_rows: Sequence[Sequence[int]] | None = None) -> tuple[list[int], list[int]]:
    """Find which of B images are the first of their kind, and for each image the position of its kind among those.

    image : (B, ...); view_rows : the views' indices of each. Images on a device count as different: comparing them
    would cost more than it saves.
    """
    if image.device.type != "cpu":
        everyone = list(range(len(image)))
        return everyone, everyone
    first: list[int] = []
    kinds: dict[tuple[bytes, tuple[int, ...]], int] = {}
    inverse: list[int] = []
    for index, row in enumerate(image):
        digest = hashlib.blake2b(row.contiguous().numpy().tobytes()).digest()
        key = digest, tuple(view_rows[index]) if view_rows else ()
        if key not in kinds:
            kinds[key] = len(first)
            first.append(index)
        inverse.append(kinds[key])
    return first, inverse


def _usable(image: PreparedImage | ServiceError) -> PreparedImage:
    if isinstance(image, ServiceError):
        raise image
    return image
