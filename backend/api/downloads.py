"""A mesh as an HTTP answer: whole, in part, or not at all when the caller has it already.

This module does not know whose file it is.
"""

from __future__ import annotations

import re
from typing import cast

from flask import Response, request
from werkzeug.wsgi import FileWrapper

from backend.errors import PreconditionFailed
from backend.storage.artifacts import Artifact

_CHUNK_BYTES = 1 << 16
_ONE_RANGE = re.compile(r"bytes=(?:[0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18})")

_LAST_BYTES = re.compile(r"bytes=-([0-9]{1,18})")


def send_artifact(artifact: Artifact) -> Response:
    """Return the file as a download, with ETag and ranges; it is closed when the answer has been sent.

    Raises PreconditionFailed, Werkzeug's RequestedRangeNotSatisfiable.
    """
    try:
        return _response(artifact)
    except BaseException:
        artifact.stream.close()
        raise


def _response(artifact: Artifact) -> Response:
    if request.if_match and not request.if_match.contains(artifact.etag):
        raise PreconditionFailed
    if not _wants_part(artifact.etag):
        request.environ.pop("HTTP_RANGE", None)
    elif (last := _LAST_BYTES.fullmatch(request.headers["Range"])) and int(last[1]) > artifact.size:
        # The last bytes of a file that has fewer are all of it (RFC 9110, 14.1.2); Werkzeug would refuse.
        request.environ["HTTP_RANGE"] = "bytes=0-"
    response = Response(
        FileWrapper(artifact.stream, _CHUNK_BYTES), content_type=artifact.media_type, direct_passthrough=True
    )
    response.content_length = artifact.size
    response.set_etag(artifact.etag)
    response.headers["Content-Disposition"] = f'attachment; filename="{artifact.name}"'
    # Only who signs may have it, and no cache between may keep it.
    response.headers["Cache-Control"] = "private, no-cache"
    return cast(Response, response.make_conditional(request, accept_ranges=True, complete_length=artifact.size))


def _wants_part(etag: str) -> bool:
    """Return whether the request asks for one range; several, or what is none, may be ignored (RFC 9110, 14.2)."""
    has_it = request.if_none_match.contains(etag)
    return request.method == "GET" and not has_it and bool(_ONE_RANGE.fullmatch(request.headers.get("Range", "")))
