"""Every error code as a table for people: its status, what it means, what to do about it. docs/errors.md is made here.

    python -m backend.api.error_reference > docs/errors.md

This module does not know who raises an error.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

from backend.api.statuses import status_of
from backend.errors import RetryLater, ServiceError, kinds_by_code

_SIGN = "Sign as [signing.md](signing.md) says"
_OPERATOR = "Ask the operator"
_ANOTHER_IMAGE = "Send another picture, or a cut-out with a transparent background"
_LATER = "Try again after `Retry-After` seconds, with the same Idempotency-Key"
_REPORT = "Send the operator the `request_id`"
_CHECKPOINT = "See MODEL_PATH and MODEL_SUBFOLDER; fetch the checkpoint again"
_FIELD = "Correct the field; `details` says what is allowed"

REQUESTS: Mapping[str, str] = {
    "AUTH_MISSING": f"{_SIGN}, and the service's own page (`details.docs`); `details.header` names the header.",
    "AUTH_INVALID": "Compare the text that you signed with `details.canonical_text`, which the service made of your "
    "request (of an RFC 9421 signature `details.components`), and your code with the known answer in "
    f"[signing.md](signing.md). {_OPERATOR} for a new key when it was rotated.",
    "AUTH_EXPIRED": "Set the clock, or add the difference to `details.server_time`; sign each try anew.",
    "AUTH_REPLAYED": "Draw a new nonce for each try.",
    "AUTH_BODY_MISMATCH": "Take the digest of the very bytes that are sent.",
    "AUTH_UNAVAILABLE": f"{_LATER}.",
    "AGENT_DISABLED": f"{_OPERATOR} to enable the agent.",
    "IP_NOT_ALLOWED": f"Call from an address that the agent may use, or: {_OPERATOR.lower()}.",
    "OPERATION_NOT_ALLOWED": f"{_OPERATOR} to grant `details.operation`.",
    "LINK_INVALID": "Take `signed_url` as it is, from a new answer about the job; a link is good for GET and HEAD.",
    "LINK_EXPIRED": "Ask for the job's status: its `signed_url` is a new one.",
    "STUDIO_CODE_INVALID": "Print another with `orfeas studio` on the service's machine: it is good once, for ten "
    "minutes, and ends the one before; or sign in with an agent's id and key.",
    "HTTPS_REQUIRED": f"Call over https, or sign the request. {_OPERATOR}: the proxy that ends TLS belongs into "
    "TRUSTED_PROXIES and sends `X-Forwarded-Proto`.",
    "QUOTA_EXCEEDED": f"Wait `Retry-After` seconds, or: {_OPERATOR.lower()} for a larger `daily_jobs`.",
    "TOO_MANY_JOBS": "Send fewer at once; `details` names the bound.",
    "RATE_LIMITED": "Wait `Retry-After` seconds; send several pictures as one batch. With too many unfinished jobs, "
    "wait for one or cancel one.",
    "QUEUE_FULL": f"{_LATER}.",
    "GPU_BUSY": f"{_LATER}. When it stays: {_OPERATOR.lower()}, no worker is running.",
    "SERVICE_STOPPING": "Wait `Retry-After` seconds and send it again. Status, download and cancel go on.",
    "STORE_UNAVAILABLE": f"{_LATER}.",
    "STORAGE_UNAVAILABLE": f"{_LATER}.",
    "STORAGE_FULL": f"{_OPERATOR} to make room.",
    "UNAVAILABLE": f"{_LATER}.",
    "BAD_REQUEST": "Correct the request; a library for HTTP sends well-formed ones.",
    "BAD_FRAMING": "Send one `Content-Length` that is the body's, or `Transfer-Encoding: chunked`, never both; send "
    "all of the body.",
    "URI_TOO_LONG": "Shorten the query; `details` says how long the line may be.",
    "HEADERS_TOO_LARGE": "Send fewer or shorter headers; `details` says how many.",
    "EXPECTATION_FAILED": "Leave `Expect` out, or send `100-continue`.",
    "UNSUPPORTED_TRANSFER_CODING": "Send the body as it is, with `Content-Length` or in chunks.",
    "REQUEST_TIMEOUT": "Send it again over a faster connection; `details` says how fast it must come.",
    "SERVER_BUSY": f"{_LATER}.",
    "NOT_FOUND": "Compare the path with `/openapi.json`.",
    "METHOD_NOT_ALLOWED": "Use a method that `Allow` names.",
    "LENGTH_REQUIRED": "Send a `Content-Length`.",
    "UNSUPPORTED_MEDIA_TYPE": "Send `multipart/form-data` with its boundary, or `application/json`; `details` says "
    "which field is expected as what, and `details.docs` shows how.",
    "INVALID_FORM": "Build the form with a library, or as the recipes in [signing.md](signing.md) do.",
    "UNKNOWN_FIELD": "Leave it out; `details` names it, and those that there are.",
    "INVALID_PARAMETER": f"{_FIELD}.",
    "INVALID_FORMAT": f"{_FIELD}.",
    "INVALID_QUALITY": f"{_FIELD}.",
    "INVALID_STEPS": f"{_FIELD}.",
    "INVALID_GUIDANCE_SCALE": f"{_FIELD}.",
    "INVALID_ACCELERATION": f"{_FIELD}.",
    "INVALID_SEED": f"{_FIELD}.",
    "INVALID_OCTREE_RESOLUTION": f"{_FIELD}.",
    "INVALID_OBJECTS": f"{_FIELD}.",
    "INVALID_OUTLINE": f"{_FIELD}.",
    "INVALID_CANDIDATES": f"{_FIELD}.",
    "INVALID_KEEP": f"{_FIELD}.",
    "INVALID_PROMPT": f"{_FIELD}.",
    "INVALID_IMAGE_SEED": f"{_FIELD}; without a prompt leave it out.",
    "PROMPT_UNAVAILABLE": "Send a picture; `capabilities.prompt` of `/me` says where words will do.",
    "INVALID_COLOR": f"{_FIELD}.",
    "INVALID_PLACE": f"{_FIELD}.",
    "INVALID_UPRIGHT": f"{_FIELD}.",
    "INVALID_COMPRESS": f"{_FIELD}.",
    "INVALID_PREVIEW": f"{_FIELD}.",
    "INVALID_TURNTABLE": f"{_FIELD}.",
    "INVALID_TARGET_FACES": f"{_FIELD}.",
    "INVALID_REMOVE_BACKGROUND": f"{_FIELD}.",
    "INVALID_SCALE_MM": f"{_FIELD}.",
    "INVALID_ASYNC": f"{_FIELD}.",
    "INVALID_LABEL": f"{_FIELD}.",
    "INVALID_ACCEPT_PARTIAL": f"{_FIELD}.",
    "INVALID_STATUS": f"{_FIELD}.",
    "INVALID_CURSOR": "Use a `next_cursor` as it was given.",
    "INVALID_LIMIT": "Ask for 1 to 100.",
    "UPGRADE_REQUIRED": "Open it with a library for WebSockets, with the signing headers in the handshake; "
    "[events.md](events.md).",
    "STREAMS_UNSUPPORTED": f"Listen to `/status/<id>/events`, or poll with `?wait=`. {_OPERATOR}: `orfeas serve`.",
    "INVALID_WEBHOOK_URL": "Use an address below one of `webhook_prefixes` of `/me`, or: ask the operator for one; "
    "[webhooks.md](webhooks.md).",
    "INVALID_WAIT": "Ask for 1 to 60, or leave it out.",
    "INVALID_IDEMPOTENCY_KEY": "Send one, of 1 to 128 printable ASCII characters without spaces and commas.",
    "IDEMPOTENCY_CONFLICT": "Draw a new key for a new request; keep it for tries of the same one.",
    "MISSING_IMAGE": "Send the picture as a file: `image` for one, `images` for each of a batch, `view_front` and its "
    "like for several views of one object.",
    "CONFLICTING_INPUTS": "Send either `image`, or `view_front` and its like.",
    "VIEWS_UNSUPPORTED": "Send the front alone, as `image`; `capabilities.views` of `/me` says what the model takes.",
    "TOO_FEW_IMAGES": "Send a single picture to `/generate-3d`.",
    "TOO_MANY_IMAGES": "Send up to ten in a batch, and one to `/generate-3d`.",
    "INVALID_IMAGE": "The message says which picture and why: save it again, or scale it down. "
    "`details.images` names every bad one of a batch; with `accept_partial=true` the others run.",
    "UNSUPPORTED_IMAGE": "Save the picture as one of `details.allowed`; its name does not matter, its content does. "
    "HEIC is among them where the service has `orfeas[heic]`.",
    "IMAGE_URL_REFUSED": "Send the picture itself. `capabilities.image_urls` of `/me` says whether addresses are "
    "fetched; which may be is the operator's IMAGE_URLS.",
    "IMAGE_URL_FAILED": "See that the address answers with the picture, whole and within 10 s; or send the picture "
    "itself.",
    "FILE_TOO_LARGE": "Scale the picture down, or compress it; a large one goes as multipart/form-data.",
    "JOB_NOT_FOUND": "See `/jobs`: ids of other agents, and of jobs that expired a week ago, are not found either.",
    "FILE_NOT_FOUND": "Take `download_url` as it is; a file is kept for a day unless the operator chose otherwise.",
    "BATCH_UNFINISHED": "Ask for the zip again once the batch's status is final; each mesh is there as soon as it "
    "is done.",
    "RANGE_NOT_SATISFIABLE": "Begin the download again, without `Range`.",
    "JOB_UNFINISHED": "Wait until its status is completed, failed or cancelled; `DELETE /jobs/<id>` cancels it.",
    "PRECONDITION_FAILED": "Begin the download again, without `If-Match`.",
    "INTERNAL_ERROR": f"{_REPORT}.",
}
"""Codes that a request may be answered with, and what its sender does about them."""

JOBS: Mapping[str, str] = {
    "NO_FOREGROUND": f"{_ANOTHER_IMAGE}.",
    "NO_SURFACE": "Try another `seed`, more `steps`, or a clearer picture.",
    "GENERATION_FAILED": f"Try another `seed` or picture. {_REPORT} when it stays.",
    "NON_FINITE_VALUES": f"Try another `seed`. {_OPERATOR}: with DTYPE=fp32 it may not come.",
    "OUT_OF_MEMORY": "Lower `quality`; the smallest batch and the smallest parts were tried already.",
    "INVALID_MESH": "Try another `seed` or picture.",
    "DECIMATION_FAILED": "Raise `target_faces`, or leave it out.",
    "EXPORT_FAILED": f"{_REPORT}.",
    "DEVICE_LOST": "Send it again once `/health` is well; the operator's process manager starts the worker anew.",
    "CANCELLED": "Its agent cancelled it; send it again if that was not meant.",
    "EXPIRED": "Send it again: its time is over, or it waited too long for a worker.",
    "PICTURE_LOST": "Send it again.",
    "REQUEST_UNREADABLE": "Send it again; the service was changed while it waited.",
    "WORKER_STOPPED": "Nothing: another worker takes it.",
}
"""Codes that a job may fail with (`error.code` in its status), or its waiting sender is answered with."""

OPERATORS: Mapping[str, str] = {
    "CONFIGURATION_ERROR": "Correct the setting that the sentence names.",
    "DATABASE_URL": "Correct DATABASE_URL.",
    "SCHEMA_MISMATCH": "Older: stop every process, then `orfeas migrate`. Newer: run the version that made it.",
    "AGENTS_FILE_ERROR": "The sentence says what: mostly `chmod 600` on the file.",
    "AGENT_EXISTS": "Choose another id, or rotate its key.",
    "AGENT_NOT_FOUND": "See `orfeas agents list`.",
    "CHECKPOINT_ERROR": f"{_CHECKPOINT}.",
    "CHECKPOINT_NOT_FOUND": f"{_CHECKPOINT}.",
    "CHECKPOINT_UNREADABLE": f"{_CHECKPOINT}.",
    "CHECKPOINT_CONFIG": f"{_CHECKPOINT}.",
    "CHECKPOINT_KEYS": f"{_CHECKPOINT}.",
    "CHECKPOINT_VALUES": f"{_CHECKPOINT}.",
    "INVALID_RESOLUTION": "Give the command line 8 to 1024.",
    "PREVIEW_UNAVAILABLE": "Install it, or ask for no preview.",
    "LEASE_LOST": "Nothing: another worker has the job. When it comes often, raise LEASE_SECONDS.",
}
"""Codes that only who runs the service meets: at its start, on its command lines, in its log."""

_HEAD = """\
# Errors

An answer that is not a success looks like this, and its `code` does not change from version to version:

```json
{"success": false, "error": "<a sentence>", "code": "<CODE>", "request_id": "<its name in the service's log>", "details": {}}
```

This page is made from the errors themselves: `python -m backend.api.error_reference > docs/errors.md`.
"""  # noqa: E501  a line of JSON
_SECTIONS = (
    ("Answers to requests", "Those marked *later* may pass by themselves and carry `Retry-After`.", REQUESTS),
    ("Failures of jobs", "In `error.code` of a failed job; a request that waited for its job is answered so.", JOBS),
    ("For who runs the service", "At its start, on its command lines and in its log.", OPERATORS),
)


def document() -> str:
    """Return the text of docs/errors.md."""
    return "".join(_lines())


def _lines() -> Iterator[str]:
    kinds = kinds_by_code()
    yield _HEAD
    for title, text, advice in _SECTIONS:
        yield f"\n## {title}\n\n{text}\n\n| code | status | meaning | what to do |\n|---|---|---|---|\n"
        for code, what_to_do in advice.items():
            yield _row(kinds[code], "" if advice is OPERATORS else str(status_of(kinds[code])), what_to_do)


def _row(kind: type[ServiceError], status: str, what_to_do: str) -> str:
    later = ", *later*" if status and issubclass(kind, RetryLater) else ""
    meaning = (kind.__doc__ or "").strip().replace("|", "\\|")
    return f"| `{kind.code}` | {status}{later} | {meaning} | {what_to_do} |\n"


if __name__ == "__main__":
    sys.stdout.write(document())
