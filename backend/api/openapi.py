"""The OpenAPI 3.1 document of the API, and a page to browse it: /openapi.json and /docs.

Schemas come from the models that requests are read with and answers are made of; refusals from the errors themselves.
This module does not know which calls there are, or what they do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from flask import Blueprint, Response
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models import OPENAPI3_REF_TEMPLATE, APISpec
from flask_openapi3.models.info import Info
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from backend import __version__
from backend.api.field_tables import field_table
from backend.api.responses import DOCS_PAGE, ErrorAnswer
from backend.api.statuses import status_of
from backend.auth import rfc9421 as message_signatures
from backend.errors import EndpointNotFound, RetryLater, ServiceError, kinds_by_code
from orfeas_client import signing

_DESCRIPTION = """\
Pictures in, 3D meshes out. Every call but `/health` is signed.

The signed text is these eight, joined by line feeds, without one at the end: `v1`, the method, the path, the query
(without `?`, empty when there is none), agent id, timestamp, nonce, and the body's digest. Path and query are the
percent-encoded strings as they are sent. The signature is the lower-case hex HMAC-SHA256 of that text; its key is the
agent's API key as UTF-8.

Requests may be signed by RFC 9421 instead, with `hmac-sha256` and RFC 9530's `Content-Digest`. Where the operator has
set BEARER_TOKENS a token may stand in place of all that, over https. Files are also fetched by links, `signed_url` in
answers, which need no header.
"""
_SIGNING_HEADERS: Mapping[str, str] = {
    signing.HEADER_AGENT: "The agent's id.",
    signing.HEADER_TIMESTAMP: "Unix seconds, a whole number.",
    signing.HEADER_NONCE: "8 to 128 of `A-Za-z0-9._~-`, never used before by this agent.",
    signing.HEADER_DIGEST: "Lower-case hex SHA-256 of the body as it is sent; of the empty string when there is none.",
    signing.HEADER_SIGNATURE: "The signature, 64 lower-case hex digits.",
}
_STANDARD_HEADERS: Mapping[str, str] = {
    message_signatures.HEADER_INPUT: "What the signature covers (RFC 9421).",
    message_signatures.HEADER_SIGNATURE: "The signature by `hmac-sha256` (RFC 9421).",
}
_OTHER_SCHEMES: Mapping[str, Mapping[str, str]] = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "A token of `orfeas agents token`, where BEARER_TOKENS is true; over https, or on one machine.",
    },
    "link": {
        "type": "apiKey",
        "in": "query",
        "name": "signature",
        "description": "With `expires`, as `signed_url` has them.",
    },
}
SIGNED: list[dict[str, list[str]]] = [
    {name: [] for name in names} for names in (_SIGNING_HEADERS, _STANDARD_HEADERS, ("token",))
]
"""Either scheme's headers, all of them, or a token."""

LINKED: list[dict[str, list[str]]] = [*SIGNED, {"link": []}]
"""The same, or a link."""

_HEADERS: Mapping[str, Mapping[str, Any]] = {
    "X-Request-ID": {
        "description": "Names this request in the service's log; a caller may choose it (1 to 64 of `A-Za-z0-9._-`).",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
    },
    "Retry-After": {
        "description": "Seconds to wait before asking again.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "Location": {
        "description": "Where the job or batch is asked for.",
        "schema": {"type": "string", "format": "uri-reference"},
    },
    "RateLimit-Limit": {
        "description": "Calls a minute that are allowed: of several limits, the one of which the least is left.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "RateLimit-Remaining": {
        "description": "How many of them are left.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "RateLimit-Reset": {
        "description": "Seconds until the first of those that were counted leaves the minute.",
        "schema": {"type": "integer", "minimum": 0, "maximum": 60},
    },
}
_IMAGE_TYPES = ", ".join(f"image/{name}" for name in ("png", "jpeg", "webp", "avif", "gif", "bmp", "tiff", "heic"))
_COUNTED = tuple(name for name in _HEADERS if name.startswith("RateLimit-"))
_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>ORFEAS API</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="stylesheet" href="docs/docs.css">
</head>
<body>
<header class="who-signs">
<form id="sign-in" hidden>
<span>To try the calls, sign as</span>
<label>Agent <input id="agent" autocomplete="username" required></label>
<label>Key <input id="key" type="password" autocomplete="off" required></label>
<label><input id="keep" type="checkbox"> Stay signed in</label>
<button>Sign in</button>
</form>
<p id="signed-in" hidden>Calls are signed as <b id="who"></b> <button id="leave" type="button">Sign out</button></p>
<p id="no-signing" hidden>This browser cannot sign over plain http: open this page over https.</p>
</header>
<main id="page"></main>
<script src="docs/swagger-ui-bundle.js"></script>
<script type="module" src="docs/docs.js"></script>
</body>
</html>
"""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_CSS, _JS = "text/css; charset=utf-8", "text/javascript; charset=utf-8"
_SWAGGER: Mapping[str, tuple[str, str]] = {"swagger-ui.css": ("css", _CSS), "swagger-ui-bundle.js": ("js", _JS)}
_OWN: Mapping[str, str] = {
    "docs.css": _CSS,
    **dict.fromkeys(("docs.js", "credentials.js", "form.js", "signing.js"), _JS),
}
"""Files of the studio's page that this one runs, too: it signs as that does."""


def answered(
    *models: type[BaseModel], description: str, retry_after: bool = False, job_id: str = "", accepted: bool = False
) -> dict[str, Any]:
    """Return an answer in JSON, for `responses`; several models are alternatives.

    job_id : the field of the answer that names a job or batch, whose status can be asked for
    accepted : whether that is unfinished, and the answer says where and when it is to be asked for
    """
    headers = ("Retry-After", "Location") if accepted else ("Retry-After",) if retry_after else ()
    schemas: list[dict[str, Any]] = [{"$ref": OPENAPI3_REF_TEMPLATE.format(model=model.__name__)} for model in models]
    return {
        "description": description,
        "headers": answer_headers(*headers),
        "content": {"application/json": {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}},
        "links": {"status": _link("status", job_id)} if job_id else {},
    }


def _link(operation: str, field: str) -> dict[str, Any]:
    return {"operationId": operation, "parameters": {"job_id": f"$response.body#/{field}"}}


def answer_headers(*names: str, headers: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the headers of an answer: X-Request-ID, those of the document that are named, and others as given."""
    shared = {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-ID", *names)}
    return {**shared, **(headers or {})}


def refusals(*kinds: type[ServiceError]) -> dict[str | int, Any]:
    """Return answers for `responses`: the errors that a call may end with, by status, each code with its sentence."""
    found: dict[str | int, Any] = {}
    for status in sorted({status_of(kind) for kind in kinds}):
        alike = {kind.code: kind for kind in kinds if status_of(kind) == status}
        rows = [f"| `{code}` | {(kind.__doc__ or '').strip()} |" for code, kind in alike.items()]
        table = "\n".join(["| code | meaning |", "|---|---|", *rows])
        retry_after = any(issubclass(kind, RetryLater) for kind in alike.values())
        found[status] = answered(ErrorAnswer, description=table, retry_after=retry_after)
        # Each error's example is written once for all calls.
        references = {code: {"$ref": f"#/components/examples/{code}"} for code in alike}
        found[status]["content"]["application/json"]["examples"] = references
    return found


def _error_examples(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the example of each error that a document's calls may end with, by its code."""
    codes = {
        code
        for item in document["paths"].values()
        for operation in item.values()
        for response in operation["responses"].values()
        for code in response.get("content", {}).get("application/json", {}).get("examples", {})
    }
    kinds = kinds_by_code()
    return {code: {"value": _error_example(kinds[code])} for code in sorted(codes)}


def _error_example(kind: type[ServiceError]) -> dict[str, Any]:
    error = kind()
    return ErrorAnswer(
        error=error.message, code=error.code, request_id="5f0c2a9e7b1d4e38", details=error.details
    ).model_dump()


def form_body(
    model: type[BaseModel], *image_fields: str, required: bool = True, in_json: type[BaseModel] | None = None
) -> dict[str, Any]:
    """Return the request body of a call that takes a form, for `openapi_extensions`.

    required : it must be there; in_json : the model of the same in JSON, where that is another
    """
    content: dict[str, Any] = {"schema": {"$ref": OPENAPI3_REF_TEMPLATE.format(model=model.__name__)}}
    if image_fields:
        content["encoding"] = {field: {"contentType": _IMAGE_TYPES} for field in image_fields}
    same = {"schema": {"$ref": OPENAPI3_REF_TEMPLATE.format(model=(in_json or model).__name__)}}
    types = {"multipart/form-data": content, "application/json": same}
    return {"requestBody": {"required": required, "description": field_table(model), "content": types}}


def make_document(
    api: APIBlueprint, requests: Sequence[type[BaseModel]], answers: Sequence[type[BaseModel]], server: str = "/"
) -> bytes:
    """Return the document of an API's calls, as JSON.

    requests, answers : every model that its calls name; server : the address that their paths follow
    """
    info = Info(title="ORFEAS Agent API", version=__version__, description=_DESCRIPTION)
    spec = APISpec(openapi="3.1.0", info=info, paths=api.paths, tags=api.tags)
    document = spec.model_dump(mode="json", by_alias=True, exclude_unset=True, warnings=False)
    _describe_limits(document)
    document["servers"] = [{"url": server}]
    document["components"] = {
        "schemas": _schemas(tuple(requests), tuple(answers)),
        "headers": _HEADERS,
        "examples": _error_examples(document),
        "securitySchemes": {
            name: {"type": "apiKey", "in": "header", "name": name, "description": text}
            for name, text in {**_SIGNING_HEADERS, **_STANDARD_HEADERS}.items()
        }
        | dict(_OTHER_SCHEMES),
    }
    return json.dumps(document, ensure_ascii=False).encode()


def _describe_limits(document: dict[str, Any]) -> None:
    """Add to every answer of a signed call what it says of its limits."""
    counted = answer_headers(*_COUNTED)
    for item in document["paths"].values():
        for operation in item.values():
            if isinstance(operation, dict) and operation.get("security"):
                for response in operation["responses"].values():
                    response["headers"] = {**response.get("headers", {}), **counted}


def document_pages(document: bytes) -> Blueprint:
    """Return /openapi.json and /docs, which needs nothing from other servers, for any Flask app."""
    pages = Blueprint("api_document", __name__)

    def openapi() -> Response:
        return Response(document, content_type="application/json")

    def page() -> Response:
        return Response(_PAGE, content_type="text/html; charset=utf-8", headers={"Content-Security-Policy": _POLICY})

    def asset(name: str) -> Response:
        if name in _OWN:
            own = files("backend.studio").joinpath("page", name).read_bytes()
            return Response(own, content_type=_OWN[name], headers={"Cache-Control": "no-cache"})
        if name not in _SWAGGER:
            raise EndpointNotFound
        folder, content_type = _SWAGGER[name]
        content = files("flask_openapi3_swagger").joinpath("templates", "swagger", folder, name).read_bytes()
        return Response(content, content_type=content_type, headers={"Cache-Control": "max-age=3600"})

    for rule, view in (("/openapi.json", openapi), (DOCS_PAGE, page), (f"{DOCS_PAGE}/<name>", asset)):
        pages.add_url_rule(rule, view_func=view, provide_automatic_options=False)
    return pages


@cache
def _schemas(requests: tuple[type[BaseModel], ...], answers: tuple[type[BaseModel], ...]) -> dict[str, Any]:
    # An answer's schema says what is sent, where fields with a default are always there.
    taken = models_json_schema([(model, "validation") for model in requests], ref_template=OPENAPI3_REF_TEMPLATE)
    given = models_json_schema([(model, "serialization") for model in answers], ref_template=OPENAPI3_REF_TEMPLATE)
    return {**taken[1]["$defs"], **given[1]["$defs"]}
