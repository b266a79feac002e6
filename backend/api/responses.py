"""What every answer of the API has in common, as frozen schemas, and the form of an error.

The OpenAPI document is made from these. This module does not know HTTP, nor what an answer is about.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

ID_PATTERN = "^[0-9a-f]{32}$"
DOCS_PAGE = "/docs"
"""The page that shows how each call is made and signed."""

JobId = Annotated[str, Field(pattern=ID_PATTERN)]
JobState = Literal["queued", "processing", "completed", "failed", "cancelled"]


@dataclass(frozen=True)
class Links:
    """Where a job's or batch's status and a file are found, by id and by file name, and until when.

    signed : gives the address at which anybody may fetch a file for a while; None where its agent may not fetch either
    expiry : gives when a job is removed that finished at some time; None for one that has not finished
    """

    status: Callable[[str], str]
    download: Callable[[str], str]
    signed: Callable[[str], str | None]
    expiry: Callable[[datetime | None], datetime | None]


SIGNED_URL = (
    "Where the same may be fetched for a while without any header, by whoever has the address; null for an agent that "
    "may not fetch files itself."
)


class Answer(BaseModel):
    """Any answer's or part's common ground: frozen, and nothing beside what is declared."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Success(Answer):
    """An answer to a request that was carried out."""

    success: Literal[True] = True


class ErrorAnswer(Answer):
    """The answer to a request that was not carried out."""

    success: Literal[False] = False
    error: str = Field(description="What is wrong, in a sentence.")
    code: str = Field(description="The same for programs: a name that does not change.")
    request_id: str = Field(description="X-Request-ID again; the service's log knows it.")
    details: dict[str, Any] = Field(description="What a program may want to know besides.")
    docs: str = Field(default=DOCS_PAGE, description="The page that shows how each call is made.")
