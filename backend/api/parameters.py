"""What each call takes: paths, queries, headers and forms, for the document and for the views.

The models accept any text and only describe the right one, because what is wrong is answered in the API's own form.
This module does not know what a call does.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

from backend.api.responses import ID_PATTERN
from backend.limits import MAX_BATCH_IMAGES, MAX_PAGE_JOBS, MIN_BATCH_IMAGES
from backend.validation import GenerateFields, GenerationFields, without_default

DEFAULT_PAGE = 20

_KEY_SCHEMA = {
    "type": "string",
    "pattern": "^[!-~]{1,128}$",
    "description": "The caller's name for this request: sent again with the same key, it gets the first answer again "
    "for 24 hours, and nothing is made twice.",
}


class JobPath(BaseModel):
    """A path that names a job or batch."""

    job_id: Annotated[str, WithJsonSchema({"type": "string", "pattern": ID_PATTERN, "description": "The id."})]


class FilePath(BaseModel):
    """A path that names a file."""

    filename: Annotated[
        str,
        WithJsonSchema(
            {"type": "string", "pattern": "^[0-9a-f]{32}\\.[a-z0-9]{3,4}$", "description": "As in download_url."}
        ),
    ]


class PageQuery(BaseModel):
    """Which page of jobs."""

    cursor: Annotated[
        str,
        WithJsonSchema({"type": "string", "pattern": ID_PATTERN, "description": "The next_cursor of the page before."}),
    ] = Field(default="", json_schema_extra=without_default)
    limit: Annotated[
        str,
        WithJsonSchema(
            {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_JOBS, "description": "The most jobs of a page."}
        ),
    ] = Field(default=str(DEFAULT_PAGE), json_schema_extra={"default": DEFAULT_PAGE})


class SubmitHeaders(BaseModel):
    """Headers of a call that makes jobs, signing aside."""

    idempotency_key: Annotated[str, WithJsonSchema(_KEY_SCHEMA)] | SkipJsonSchema[None] = Field(
        default=None, alias="Idempotency-Key", json_schema_extra=without_default
    )


class GenerateForm(GenerateFields):
    """The form of a request for one mesh."""

    image: bytes = Field(description="A PNG, JPEG or WebP.")


class BatchForm(GenerationFields):
    """The form of a request for several meshes; the fields hold for all of them."""

    images: list[bytes] = Field(
        min_length=MIN_BATCH_IMAGES,
        max_length=MAX_BATCH_IMAGES,
        description="PNG, JPEG or WebP, one part of this name for each.",
    )
