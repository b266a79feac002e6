"""A form's texts as values, by a field's JSON schema, and what the schema allows, in words.

What is read is only the right kind; whether it lies in its range is for whoever owns the schema. This module does not
know which fields there are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

NOT_READ: Final = object()
"""In place of a value: the text is none of the field's kind."""

MOST_SHOWN: Final = 40
"""Characters of a caller's text in a message."""

_BOUNDS = ("enum", "minimum", "maximum", "maxLength")
# Only what JSON would take as a number: int() and float() also take spaces, underscores and other scripts' digits.
_WHOLE = re.compile(r"-?[0-9]{1,15}", re.ASCII)
_NUMBER = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?", re.ASCII)


def read_text(text: str, schema: Mapping[str, Any]) -> object:
    """Return a text as the kind of value that the schema names, or NOT_READ; a list is a text with commas."""
    if text in _words(schema):
        return text
    kind = next(each["type"] for each in schema.get("anyOf", [schema]))
    return _READERS[kind](text)


def allowed_by(schema: Mapping[str, Any]) -> str:
    """Return what a field takes, in words, from its schema: a message can't say other than what is checked."""
    if "anyOf" in schema:
        others = [each for each in schema["anyOf"] if "const" not in each]
        return " or ".join([*map(allowed_by, others), *_words(schema)])
    if schema["type"] == "array":
        return f"{allowed_by(schema['items'])}, or several with commas between"
    if "enum" in schema:
        return f"one of {', '.join(schema['enum'])}"
    if schema["type"] == "boolean":
        return "true or false"
    if schema["type"] == "string":
        return f"at most {schema['maxLength']} characters, none of them a control character"
    kind = "a whole number" if schema["type"] == "integer" else "a number"
    high = f"{schema['maximum']:g}" if schema["type"] == "number" else str(schema["maximum"])
    return f"{kind} from {schema['minimum']:g} to {high}"


def expected_by(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a field takes, for an error's details: in words, and as its schema has it for programs."""
    bounds = {name: schema[name] for name in _BOUNDS if name in schema}
    return {"allowed": allowed_by(schema), **bounds}


def shown(text: str) -> str:
    """Return a caller's text, fit for a message: short, and nothing that moves a terminal's cursor."""
    short = text if len(text) <= MOST_SHOWN else text[: MOST_SHOWN - 1] + "…"
    return "'" + "".join(c if c.isprintable() else "?" for c in short) + "'"


def _words(schema: Mapping[str, Any]) -> list[str]:
    """Return the texts that a field takes in place of a number."""
    return [each["const"] for each in schema.get("anyOf", ()) if "const" in each]


def _read_whole(text: str) -> object:
    return int(text) if _WHOLE.fullmatch(text) else NOT_READ


def _read_number(text: str) -> object:
    # Adding zero makes -0.0 the same as 0.0, in the batch key too.
    return float(text) + 0.0 if _NUMBER.fullmatch(text) else NOT_READ


def _read_flag(text: str) -> object:
    return {"true": True, "false": False}.get(text.lower(), NOT_READ)


def _read_as_it_is(text: str) -> object:
    return text


_READERS: Mapping[str, Callable[[str], object]] = {
    "integer": _read_whole,
    "number": _read_number,
    "boolean": _read_flag,
    "string": _read_as_it_is,
    "array": _read_as_it_is,
}
