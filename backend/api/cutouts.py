"""A cut-out alone: one image of a form, cut out here and now, stored, and answered with what is to be said of it.

No device is needed, so the process that answers does it, two at a time. This module does not know HTTP answers, or how
an object is found.
"""

from __future__ import annotations

import io
import threading
from contextlib import ExitStack
from dataclasses import asdict
from datetime import datetime
from typing import BinaryIO

from PIL import Image
from pydantic import Field

from backend.api.forms import read_form
from backend.api.image_urls import ImageUrls
from backend.api.parameters import CutoutFields
from backend.api.responses import Answer, Success
from backend.api.submissions import idempotency_key
from backend.api.uploads import UploadLimits, check, images_of
from backend.errors import ArtifactNotFound
from backend.hunyuan3d.image.background import remove_background
from backend.jobs.idempotency import fingerprint
from backend.jobs.metadata import BackgroundOut, WarningOut
from backend.services import AgentServices
from backend.storage.files import discard
from backend.validation import read_fields

_cutters = threading.BoundedSemaphore(2)
"""Cutting takes some tenths of a second of a core and tens of megabytes: however many ask, two are cut at once."""


class CutoutMetadata(Answer):
    """What was really done."""

    background: BackgroundOut


class CutoutAnswer(Success):
    """A cut-out."""

    cutout_url: str = Field(description="The picture with its background transparent, PNG.")
    metadata: CutoutMetadata
    warnings: tuple[WarningOut, ...] = Field(description="What is to be said of it; empty where it looks right.")
    expires_at: datetime = Field(description="When it is removed.")


class _Kept(Answer):
    """What of an answer is kept with a cut-out."""

    background: BackgroundOut
    warnings: tuple[WarningOut, ...]


def cut_out(
    services: AgentServices,
    image_urls: ImageUrls,
    agent_id: str,
    body: BinaryIO,
    content_type: str,
    key: str | None,
) -> str:
    """Cut out a form's image as an agent's; return the stored file's name, the first one's where the key is known.

    body : verified; key : the Idempotency-Key header. Raises NoForeground, what read_form, read_fields, images_of and
    check raise, InvalidIdempotencyKey, IdempotencyConflict, StorageFull, StoreUnavailable, ArtifactStoreUnavailable.
    """
    limits = UploadLimits.from_settings(services.settings, "cutout")
    with ExitStack() as opened:
        form = read_form(body, content_type, limits.form, opened)
        fields = read_fields(CutoutFields, form.fields)
        (uploaded,) = images_of(form, limits.form.file_field, 1, 1)
        named = idempotency_key(key, lambda: fingerprint("cutout", fields, [uploaded.digest()]))
        if named is not None and (first := services.cutouts.recall(agent_id, named)) is not None:
            return first
        (uploaded,) = image_urls.fetched([uploaded], agent_id, opened)
        data, kept = _cut(check(uploaded, limits.image), fields)
        name = services.artifacts.write(data, "png")
        try:
            first = services.cutouts.add(agent_id, name, kept.model_dump_json(), named)
        except BaseException:
            discard(services.artifacts, name)
            raise
        if first != name:  # somebody else was faster under the same key
            discard(services.artifacts, name)
        return first


def answer_cutout(services: AgentServices, agent_id: str, name: str, url: str) -> CutoutAnswer:
    """Return the answer for a stored cut-out. Raises ArtifactNotFound when it is gone."""
    cutout = services.cutouts.find(name, agent_id)
    if cutout is None:
        raise ArtifactNotFound
    kept = _Kept.model_validate_json(cutout.answer)
    return CutoutAnswer(
        cutout_url=url,
        metadata=CutoutMetadata(background=kept.background),
        warnings=kept.warnings,
        expires_at=services.cutouts.expires_at(cutout),
    )


def _cut(png: BinaryIO, fields: CutoutFields) -> tuple[bytes, _Kept]:
    with _cutters, Image.open(png) as image:
        found = remove_background(image, fields.remove_background, fields.objects)
        encoded = io.BytesIO()
        # Quick rather than small.
        found.image.save(encoded, "PNG", compress_level=1)
    warnings = tuple(WarningOut(**asdict(remark)) for remark in found.remarks)
    return encoded.getvalue(), _Kept(background=BackgroundOut(**asdict(found.facts)), warnings=warnings)
