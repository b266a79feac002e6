"""docs/errors.md: every code once, with what the errors say of themselves, and as it is made."""

from __future__ import annotations

import ast
from pathlib import Path

from backend import errors
from backend.api.error_reference import JOBS, OPERATORS, REQUESTS, document
from backend.api.statuses import status_of
from backend.errors import ServiceError, kinds_by_code

ROOT = Path(__file__).parents[1]


def test_every_code_has_its_place_and_advice() -> None:
    listed = [*REQUESTS, *JOBS, *OPERATORS]
    assert len(listed) == len(set(listed))
    assert set(listed) == set(kinds_by_code()), "give each code its advice in backend/api/error_reference.py"


def test_every_error_of_the_package_is_counted() -> None:
    defined = {
        node.name
        for path in (ROOT / "backend" / "errors").glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
    }
    assert defined == set(errors.__all__)


def test_errors_with_one_code_are_answered_alike() -> None:
    for name in errors.__all__:
        kind: type[ServiceError] = getattr(errors, name)
        assert (kind.code, status_of(kind)) == (kind.code, status_of(kinds_by_code()[kind.code]))


def test_document_is_as_it_is_made() -> None:
    made = document()
    assert (ROOT / "docs" / "errors.md").read_text() == made, "python -m backend.api.error_reference > docs/errors.md"
    assert "| `QUEUE_FULL` | 503, *later* | The queue is full; try again later. |" in made
    assert "| `NO_FOREGROUND` | 422 | No object was found in the picture;" in made
    assert "| `AGENT_EXISTS` |  | The agents file already has an agent with this id. |" in made
