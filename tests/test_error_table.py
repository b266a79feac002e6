"""docs/errors.md: every code once, with what the errors say of themselves, and as it is made."""

from __future__ import annotations

import ast
from pathlib import Path

from backend import errors
from backend.errors import ServiceError
from backend.errors.reference import JOBS, OPERATORS, REQUESTS, codes, document

ROOT = Path(__file__).parents[1]


def test_every_code_has_its_place_and_advice() -> None:
    listed = [*REQUESTS, *JOBS, *OPERATORS]
    assert len(listed) == len(set(listed))
    assert set(listed) == set(codes()), "give each code its advice in backend/errors/reference.py"


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
        assert (kind.code, kind.status) == (kind.code, codes()[kind.code].status)


def test_document_is_as_it_is_made() -> None:
    made = document()
    assert (ROOT / "docs" / "errors.md").read_text() == made, "python -m backend.errors.reference > docs/errors.md"
    assert "| `QUEUE_FULL` | 503, *later* | The queue is full; try again later. |" in made
    assert "| `NO_FOREGROUND` | 422 | No object was found in the picture;" in made
    assert "| `AGENT_EXISTS` |  | The agents file already has an agent with this id. |" in made
