"""What calls take as JSON: the fields of their forms, and the images in base64 or by address.

These are for the document: json_form.py reads a body. This module does not know what a call does.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from backend.api.parameters import CutoutFields
from backend.field_types import STRICT
from backend.limits import MAX_BATCH_IMAGES, MIN_BATCH_IMAGES
from backend.validation import BatchFields, GenerateFields, without_default


class ImageUrl(BaseModel):
    """An image by its address."""

    model_config = STRICT

    url: str = Field(
        max_length=2048,
        pattern="^https://",
        description="Fetched where the operator's IMAGE_URLS allows it: https on port 443, a public host.",
    )


ImageValue = (
    Annotated[str, Field(min_length=4, description="The picture's bytes in base64, or a data: URL of it.")] | ImageUrl
)


def _optional(description: str) -> Any:
    return Field(default=None, description=description, json_schema_extra=without_default)


class ViewsJson(BaseModel):
    """Several views of one object, one at least."""

    model_config = ConfigDict(**STRICT, json_schema_extra={"minProperties": 1})

    front: ImageValue | SkipJsonSchema[None] = _optional("The object from the front.")
    left: ImageValue | SkipJsonSchema[None] = _optional("The object's left, from 90 degrees beside the front.")
    back: ImageValue | SkipJsonSchema[None] = _optional("The object from behind.")
    right: ImageValue | SkipJsonSchema[None] = _optional("The object's right.")


class GenerateJson(GenerateFields):
    """A request for one mesh in JSON: of one image, of several views where the model takes them, or of words."""

    model_config = ConfigDict(
        **STRICT, json_schema_extra={"oneOf": [{"required": [name]} for name in ("image", "views", "prompt")]}
    )

    image: ImageValue | SkipJsonSchema[None] = _optional("A picture.")
    views: ViewsJson | SkipJsonSchema[None] = _optional("Views of the object, in place of `image`.")


class BatchJson(BatchFields):
    """A request for several meshes in JSON; the fields hold for all of them."""

    images: list[ImageValue] = Field(
        min_length=MIN_BATCH_IMAGES, max_length=MAX_BATCH_IMAGES, description="The pictures."
    )


class CutoutJson(CutoutFields):
    """A request for a cut-out alone, in JSON."""

    image: ImageValue = Field(description="A picture.")
