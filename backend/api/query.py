"""Query parameters, as strict as a form's fields: each call knows its own, and each is given once.

This module does not know what a call does with them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from flask import request

from backend.api.parameters import QUERIES, STATUSES_PATTERN
from backend.errors import (
    InvalidCursor,
    InvalidLabel,
    InvalidLimit,
    InvalidParameter,
    InvalidStatus,
    InvalidWait,
    UnknownField,
)
from backend.field_texts import MOST_SHOWN, shown
from backend.field_types import LABEL_PATTERN
from backend.jobs.ids import is_job_id
from backend.jobs.models import JobFilter, Status
from backend.limits import MAX_LABEL_CHARACTERS, MAX_PAGE_JOBS, MAX_WAIT_SECONDS

_ERRORS: Mapping[str, type[InvalidParameter]] = {
    "cursor": InvalidCursor,
    "limit": InvalidLimit,
    "status": InvalidStatus,
    "label": InvalidLabel,
    "wait": InvalidWait,
}
_EXPECTED: Mapping[str, Mapping[str, Any]] = {
    "cursor": {"allowed": "a next_cursor as a page gave it"},
    "limit": {"allowed": f"a whole number from 1 to {MAX_PAGE_JOBS}", "minimum": 1, "maximum": MAX_PAGE_JOBS},
    "wait": {"allowed": f"a whole number from 1 to {MAX_WAIT_SECONDS}", "minimum": 1, "maximum": MAX_WAIT_SECONDS},
    "status": {
        "allowed": "states with commas between, each one of " + ", ".join(state.value for state in Status),
        "enum": [state.value for state in Status],
    },
    "label": {
        "allowed": f"1 to {MAX_LABEL_CHARACTERS} characters, none of them a control character",
        "minLength": 1,
        "maxLength": MAX_LABEL_CHARACTERS,
    },
}


def check_query() -> None:
    """See that the query of the request at hand has only what its call knows, each once; before each view.

    Raises UnknownField, or the error of a parameter that is given twice.
    """
    model = QUERIES.get((request.endpoint or "").rpartition(".")[2])
    known = list(model.model_fields) if model else []
    for name, values in request.args.lists():
        if name not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise UnknownField(
                f"This call does not know the query parameter {shown(name)}; {takes}.",
                details={"field": name[:MOST_SHOWN], "allowed": known},
            )
        if len(values) != 1:
            raise invalid(name, f"{name} must be given once, not {len(values)} times.")


def invalid(name: str, message: str | None = None) -> InvalidParameter:
    """Return the error of a query parameter, with what it takes; message : in place of its error's own sentence."""
    return _ERRORS[name](message, details={"field": name, **_EXPECTED[name]})


def read_cursor(text: str | None) -> str | None:
    """Return where a page begins, None for the newest. Raises InvalidCursor."""
    if text is not None and not is_job_id(text):
        raise invalid("cursor")
    return text


def read_limit(text: str) -> int:
    """Return how many jobs a page may have. Raises InvalidLimit."""
    return _read_whole("limit", text, MAX_PAGE_JOBS)


def read_wait(text: str | None) -> int:
    """Return how many seconds the caller wants to wait, 0 where it does not say. Raises InvalidWait."""
    return 0 if text is None else _read_whole("wait", text, MAX_WAIT_SECONDS)


def read_filter(states: str | None, label: str | None) -> JobFilter:
    """Return which jobs are wanted; None where the query does not say. Raises InvalidStatus, InvalidLabel."""
    if states is not None and not re.fullmatch(STATUSES_PATTERN, states):
        raise invalid("status")
    if label is not None and not (1 <= len(label) <= MAX_LABEL_CHARACTERS and re.fullmatch(LABEL_PATTERN, label)):
        raise invalid("label")
    return JobFilter(tuple(Status(state) for state in states.split(",")) if states else (), label or "")


def _read_whole(name: str, text: str, most: int) -> int:
    """Return a whole number from 1 to `most`, which has three digits at most."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 3 and 1 <= int(text) <= most):
        raise invalid(name)
    return int(text)
