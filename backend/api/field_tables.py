"""What the fields of a request may hold, as a table for people: choices, ranges and defaults, from the models' schemas.

A page that shows a form has a line for each field's meaning, and seldom one for what may stand there. This module does
not know which call a form belongs to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

Schema = Mapping[str, Any]


def field_table(model: type[BaseModel]) -> str:
    """Return a Markdown table of a form's fields, in the form's order."""
    fields: Mapping[str, Schema] = model.model_json_schema().get("properties", {})
    rows = [f"| `{name}` | {_values(schema)} | {_default(schema)} |" for name, schema in fields.items()]
    return "\n".join(["| field | values | when left out |", "|---|---|---|", *rows])


def _values(schema: Schema) -> str:
    if "anyOf" in schema:
        return " or ".join(map(_values, schema["anyOf"]))
    if "const" in schema or "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    kinds = {"boolean": "`true`, `false`", "integer": "a whole number", "number": "a number", "object": "an object"}
    kind = schema.get("type", "")
    if kind in ("integer", "number") and "minimum" in schema and "maximum" in schema:
        whole = "" if kind == "integer" else ", fractions too"
        return f"{_number(schema['minimum'])} to {_number(schema['maximum'])}{whole}"
    if kind == "array":
        return _several(schema)
    return kinds.get(kind) or _text(schema)


def _several(schema: Schema) -> str:
    least, most = schema.get("minItems"), schema.get("maxItems")
    count = f"{least} to {most} of: " if least and most else "one or several of: "
    return f"{count}{_values(schema['items'])}"


def _text(schema: Schema) -> str:
    if schema.get("format") == "binary":
        return "a file"
    least, most = schema.get("minLength"), schema.get("maxLength")
    if most is None:
        return "text"
    return f"text, {least} to {most} characters" if least else f"text, up to {most} characters"


def _default(schema: Schema) -> str:
    if "default" not in schema:
        return "as said below"
    default = schema["default"]
    if isinstance(default, list):
        return ", ".join(f"`{value}`" for value in default)
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, (int, float)):
        return f"`{_number(default)}`"
    return f"`{default}`" if default else "none"


def _number(value: float) -> str:
    return f"{value:.10g}"
