"""The images of one request, each checked and stored or refused; those of a batch that are bad are all named at once.

This module does not know what is made of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from backend.api.multipart import FormFile
from backend.api.uploads import UploadLimits, add_view, check, check_and_store
from backend.errors import (
    FileTooLarge,
    ImageUrlFailed,
    ImageUrlRefused,
    InvalidImage,
    ServiceError,
    StoreUnavailable,
    UnsupportedImage,
)
from backend.hunyuan3d.image.view_pages import VIEWS_FORMAT, ViewPages
from backend.storage.files import FileStore, discard, put_new

_BAD = (InvalidImage, UnsupportedImage, FileTooLarge, ImageUrlRefused, ImageUrlFailed)


@dataclass(frozen=True)
class TakenImage:
    """An image of a form.

    name : what it is stored under, "" where it was refused; refusal : why, None where it was not
    """

    file: FormFile
    name: str = ""
    refusal: ServiceError | None = None


@contextmanager
def taken(
    files: Sequence[FormFile], images: FileStore, limits: UploadLimits, *, accept_partial: bool
) -> Iterator[list[TakenImage]]:
    """Check and store the images of a form; they are removed again when what follows fails.

    accept_partial : whether bad ones are given beside good ones instead of keeping all from being taken
    Raises InvalidImage, UnsupportedImage, FileTooLarge, StorageFull, ArtifactStoreUnavailable; then nothing is stored.
    """
    found: list[TakenImage] = []
    try:
        for file in files:
            needed = accept_partial or all(image.refusal is None for image in found)
            found.append(_take(file, images, limits, store=needed))
        refused = [image for image in found if image.refusal is not None]
        if refused and (not accept_partial or len(refused) == len(found)):
            raise _refusal_of(refused, is_batch=limits.form.max_files > 1)
        yield found
    except StoreUnavailable:
        # The connection may have broken just after the jobs were kept; the janitor knows whether they were.
        raise
    except BaseException:
        discard(images, *(image.name for image in found))
        raise


@contextmanager
def taken_views(files: Sequence[FormFile], images: FileStore, limits: UploadLimits) -> Iterator[list[TakenImage]]:
    """Check the views of one object and store them as one file, which counts as one image, called as the first is.

    Raises what taken raises, for all bad views at once; then nothing is stored.
    """
    pages, refused = ViewPages(), list[TakenImage]()
    for file in files:
        try:
            add_view(file, pages, limits.image)
        except _BAD as error:
            refused.append(TakenImage(file, refusal=error))
    if refused:
        raise _refusal_of(refused, is_batch=len(files) > 1)
    name = put_new(images, VIEWS_FORMAT, pages.finish())
    try:
        yield [TakenImage(files[0], name)]
    except StoreUnavailable:
        raise
    except BaseException:
        discard(images, name)
        raise


def describe_refusal(index: int, filename: str | None, code: str, error: str) -> dict[str, object]:
    """Return a bad image of a batch as answers name it; index : among the images, from 0."""
    return {"index": index, "filename": filename, "code": code, "error": error}


def _take(file: FormFile, images: FileStore, limits: UploadLimits, *, store: bool) -> TakenImage:
    try:
        if store:
            return TakenImage(file, check_and_store(file, images, limits.image))
        check(file, limits.image)
    except _BAD as error:
        return TakenImage(file, refusal=error)
    return TakenImage(file)


def _refusal_of(refused: Sequence[TakenImage], *, is_batch: bool) -> ServiceError:
    """Return the one error for all bad images: theirs where they have one code, else INVALID_IMAGE."""
    errors = [(image.file, image.refusal) for image in refused if image.refusal is not None]
    first = errors[0][1]
    if not is_batch:
        return first
    alike = all(error.code == first.code for _, error in errors)
    named = [describe_refusal(file.number - 1, file.filename, error.code, error.message) for file, error in errors]
    kind = type(first) if alike else InvalidImage
    details = {"field": errors[0][0].field, "images": named}
    return kind(" ".join(error.message for _, error in errors), details={**_common(errors), **details})


def _common(errors: Sequence[tuple[FormFile, ServiceError]]) -> dict[str, object]:
    """Return the details that hold for every one of several errors."""
    first = errors[0][1].details
    return {
        name: value for name, value in first.items() if all(error.details.get(name) == value for _, error in errors)
    }
