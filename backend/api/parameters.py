"""What each call takes: paths, queries, headers and forms, for the document and for the views.

The models accept any text and only describe the right one, because what is wrong is answered in the API's own form.
This module does not know what a call does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

from backend.api.responses import ID_PATTERN
from backend.field_types import LABEL_PATTERN, STRICT
from backend.jobs.models import Status
from backend.limits import (
    DEFAULT_BACKGROUND_MODE,
    DEFAULT_OBJECTS,
    IMAGE_FORMATS,
    MAX_BATCH_IMAGES,
    MAX_LABEL_CHARACTERS,
    MAX_PAGE_JOBS,
    MAX_WAIT_SECONDS,
    MIN_BATCH_IMAGES,
    VIEWS,
    BackgroundMode,
    MeshFormat,
    ObjectChoice,
)
from backend.validation import BatchFields, GenerateFields, without_default

DEFAULT_PAGE = 20
_STATES = "|".join(state.value for state in Status)
_PICTURES = f"{', '.join(IMAGE_FORMATS[:-1])} or {IMAGE_FORMATS[-1]}; HEIC where the service has the package for it"
STATUSES_PATTERN = f"^({_STATES})(,({_STATES}))*$"

_KEY_SCHEMA = {
    "type": "string",
    "pattern": "^[!-+\\--~]{1,128}$",
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
    """Which page of jobs, and of which."""

    cursor: (
        Annotated[
            str,
            WithJsonSchema(
                {"type": "string", "pattern": ID_PATTERN, "description": "The next_cursor of the page before."}
            ),
        ]
        | SkipJsonSchema[None]
    ) = Field(default=None, json_schema_extra=without_default)
    limit: Annotated[
        str,
        WithJsonSchema(
            {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_JOBS, "description": "The most jobs of a page."}
        ),
    ] = Field(default=str(DEFAULT_PAGE), json_schema_extra={"default": DEFAULT_PAGE})

    status: (
        Annotated[
            str,
            WithJsonSchema(
                {
                    "type": "string",
                    "pattern": STATUSES_PATTERN,
                    "description": "Only jobs in one of these states, with commas between.",
                }
            ),
        ]
        | SkipJsonSchema[None]
    ) = Field(default=None, json_schema_extra=without_default)
    label: (
        Annotated[
            str,
            WithJsonSchema(
                {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": MAX_LABEL_CHARACTERS,
                    "pattern": LABEL_PATTERN,
                    "description": "Only jobs with this text in their label, whether in capitals or not.",
                }
            ),
        ]
        | SkipJsonSchema[None]
    ) = Field(default=None, json_schema_extra=without_default)


class WaitQuery(BaseModel):
    """How long to wait for something new."""

    wait: (
        Annotated[
            str,
            WithJsonSchema(
                {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": MAX_WAIT_SECONDS,
                    "description": "Answer as soon as something changes, at the latest after so many seconds: a change "
                    "of status at once, of progress or step when the agent's minute leaves room for another call.",
                }
            ),
        ]
        | SkipJsonSchema[None]
    ) = Field(default=None, json_schema_extra=without_default)


class LinkParameters(BaseModel):
    """What makes an address a link, as signed_url has it: both or neither."""

    expires: (
        Annotated[
            str,
            WithJsonSchema({"type": "string", "pattern": "^[1-9][0-9]{0,11}$", "description": "Unix seconds."}),
        ]
        | SkipJsonSchema[None]
    ) = Field(default=None, json_schema_extra=without_default)
    signature: (
        Annotated[
            str,
            WithJsonSchema(
                {"type": "string", "pattern": "^[0-9a-f]{64}$", "description": "The service's own, of path and end."}
            ),
        ]
        | SkipJsonSchema[None]
    ) = Field(default=None, json_schema_extra=without_default)


QUERIES: Mapping[str, type[BaseModel]] = {"jobs": PageQuery, "status": WaitQuery, "download": LinkParameters}
"""What each call's query may have, by the name of its view; one that is not named here takes none."""


class SubmitHeaders(BaseModel):
    """Headers of a POST, signing aside."""

    idempotency_key: Annotated[str, WithJsonSchema(_KEY_SCHEMA)] | SkipJsonSchema[None] = Field(
        default=None, alias="Idempotency-Key", json_schema_extra=without_default
    )


class EventHeaders(BaseModel):
    """Headers of a call for events, signing aside."""

    last_event_id: (
        Annotated[
            str,
            WithJsonSchema(
                {
                    "type": "string",
                    "maxLength": 100,
                    "description": "The `id` of the last event that the caller has: it gets what is new since then.",
                }
            ),
        ]
        | SkipJsonSchema[None]
    ) = Field(default=None, alias="Last-Event-ID", json_schema_extra=without_default)


class FormatForm(BaseModel):
    """The form of a request for one more format."""

    model_config = STRICT

    format: MeshFormat = Field(description="The file format in which the mesh is wanted besides.")


class CutoutFields(BaseModel):
    """The form fields of a request for a cut-out alone."""

    model_config = STRICT

    remove_background: BackgroundMode = Field(
        default=DEFAULT_BACKGROUND_MODE,
        description="Whether the object is cut out of its background; auto finds out whether it needs to be.",
    )
    objects: ObjectChoice = Field(
        default=DEFAULT_OBJECTS, description="Whether all objects of the picture are kept, or the largest alone."
    )


class CutoutForm(CutoutFields):
    """The form of a request for a cut-out alone."""

    image: bytes = Field(description=f"A picture: {_PICTURES}.")


def _picture(description: str) -> Any:
    return Field(default=None, description=description, json_schema_extra=without_default)


class GenerateForm(GenerateFields):
    """The form of a request for one mesh: of one image, of several views where the model takes them, or of words."""

    model_config = ConfigDict(
        **STRICT,
        json_schema_extra={
            "oneOf": [
                {"required": ["image"]},
                {"anyOf": [{"required": [f"view_{view}"]} for view in VIEWS]},
                {"required": ["prompt"]},
            ]
        },
    )

    image: bytes | SkipJsonSchema[None] = _picture(f"A picture: {_PICTURES}.")
    view_front: bytes | SkipJsonSchema[None] = _picture("The object from the front, in place of `image`.")
    view_left: bytes | SkipJsonSchema[None] = _picture("The object's left, from 90 degrees beside `view_front`.")
    view_back: bytes | SkipJsonSchema[None] = _picture("The object from behind.")
    view_right: bytes | SkipJsonSchema[None] = _picture("The object's right.")


def _as_they_were(schema: dict[str, Any]) -> None:
    """Take the fields' defaults out of a schema: what is left out is as it was. Only `async` is this request's own."""
    for name, field in schema["properties"].items():
        if name != "async":
            field.pop("default", None)


class AgainForm(GenerateFields):
    """The form of a request for an earlier job's mesh anew; what is left out is as it was."""

    model_config = ConfigDict(json_schema_extra=_as_they_were)


class BatchForm(BatchFields):
    """The form of a request for several meshes; the fields hold for all of them."""

    images: list[bytes] = Field(
        min_length=MIN_BATCH_IMAGES,
        max_length=MAX_BATCH_IMAGES,
        description=f"Pictures, one part of this name for each: {_PICTURES}.",
    )
