"""What a tool answers: numbers as structured content and as text, the preview as an image, the mesh as a link.

This module does not know how a tool was carried out.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.api.batch_answers import BatchAnswer
from backend.api.error_reference import JOBS, REQUESTS
from backend.api.job_answers import JobItem
from backend.errors import ServiceError
from backend.storage.artifacts import MEDIA_TYPES

MOST_PICTURE_BYTES = 700_000
"""Of a picture in a result: clients take events of up to a megabyte."""

WARNING_ADVICE: Mapping[str, str] = {
    "CUTOUT_DOUBTFUL": "Look at the preview; if parts are missing or background is left, send a picture with "
    "a plain background or a transparent cut-out.",
    "OBJECT_TOUCHES_BORDER": "The object is cut by the edge of the picture; send one that shows all of it.",
    "SEVERAL_OBJECTS": "Call again with objects=largest, or crop the picture, unless all of them are wanted.",
    "LOW_CONTRAST": "Object and background are alike; send a picture on a background of another colour.",
    "MANY_PARTS": "The mesh is in several pieces; objects=largest keeps the largest, another seed may join them.",
    "LEANS": "The mesh stands askew; tell the user, or send a picture from less high above.",
    "THIN_WALLS": "For printing, raise scale_mm; otherwise it does not matter.",
}
"""What a model does about each warning."""


@dataclass(frozen=True)
class Picture:
    """A picture for a result; format : as its file's name ends."""

    content: bytes
    format: str


def job_result(answer: JobItem | BatchAnswer, origin: str | None, pictures: Sequence[Picture]) -> dict[str, Any]:
    """Return the result that tells of a job or batch.

    origin : what an address without a host is to begin with, None where nobody knows; pictures : of finished meshes
    """
    items = answer.items if isinstance(answer, BatchAnswer) else (answer,)
    told = _batch(answer) if isinstance(answer, BatchAnswer) else _job(answer)
    links = [link for item in items if (link := _mesh_link(item, origin)) is not None]
    return {
        "content": [_text(told), *map(_image, pictures), *links],
        "structuredContent": told,
        "isError": told["status"] == "failed",
    }


def plain_result(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result of numbers and texts alone."""
    return {"content": [_text(told)], "structuredContent": dict(told), "isError": False}


def picture_result(job_id: str, picture: Picture) -> dict[str, Any]:
    """Return a result that is a picture."""
    return {"content": [_image(picture), _text({"job_id": job_id})], "isError": False}


def error_result(error: ServiceError) -> dict[str, Any]:
    """Return the result of a call that was refused or failed: what is wrong, and what to do about it."""
    told = {
        "code": error.code,
        "error": error.message,
        "advice": advice_of(error.code),
        "details": error.details,
        **({"retry_after": error.retry_after} if hasattr(error, "retry_after") else {}),
    }
    return {"content": [_text(told)], "isError": True}


def advice_of(code: str) -> str | None:
    """Return what to do about an error, None where nobody knows."""
    return {**REQUESTS, **JOBS}.get(code)


def _job(item: JobItem) -> dict[str, Any]:
    made = item.metadata.model_dump(mode="json", exclude_none=True) if item.metadata else {}
    warnings = [{**warning, "advice": WARNING_ADVICE.get(warning["code"])} for warning in made.pop("warnings", [])]
    shown = ("job_id", "batch_id", "label", "filename", "status", "progress", "current_step", "eta_seconds")
    links = ("queue_position", "download_url", "signed_url", "preview_url", "contact_sheet_url", "expires_at")
    told = {name: getattr(item, name) for name in (*shown, *links)}
    told["expires_at"] = item.expires_at.isoformat() if item.expires_at else None
    told |= {"files": [file.model_dump(mode="json") for file in item.files], "mesh": made, "warnings": warnings}
    if item.error is not None:
        told["error"] = {**item.error.model_dump(mode="json"), "advice": advice_of(item.error.code)}
    if item.status in ("queued", "processing"):
        told["next"] = "Call wait_for_job with this job_id."
    return {name: value for name, value in told.items() if value not in (None, [], {})}


def _batch(answer: BatchAnswer) -> dict[str, Any]:
    told = {
        "batch_id": answer.batch_id,
        "status": answer.status,
        "progress": answer.progress,
        "eta_seconds": answer.eta_seconds,
        "counts": answer.counts.model_dump(),
        "download_url": answer.download_url,
        "signed_url": answer.signed_url,
        "items": [_job(item) for item in answer.items],
    }
    if answer.status in ("queued", "processing"):
        told["next"] = "Call wait_for_job with this batch_id as job_id."
    return {name: value for name, value in told.items() if value is not None}


def _mesh_link(item: JobItem, origin: str | None) -> dict[str, Any] | None:
    """Return where the mesh is, for whoever fetches it for the model; None where there is no whole address."""
    url = item.signed_url or item.download_url
    if url is None or (url.startswith("/") and origin is None):
        return None
    format = item.files[0].format
    size = item.files[0].bytes
    return {
        "type": "resource_link",
        "uri": f"{origin}{url}" if url.startswith("/") else url,
        "name": f"{item.job_id}.{format}",
        "mimeType": MEDIA_TYPES[format],
        **({"size": size} if size is not None else {}),
    }


def _text(told: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "text", "text": json.dumps(told, ensure_ascii=False)}


def _image(picture: Picture) -> dict[str, Any]:
    data = base64.b64encode(picture.content).decode()
    return {"type": "image", "data": data, "mimeType": MEDIA_TYPES[picture.format]}
