"""A request's body on disk: hashed while it arrives, never whole in memory, gone with the request.

The file has no name in its folder from the moment it is opened, so that nothing is left of it, whatever kills the
process. This module does not know what a body holds or who sent it.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import io
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from werkzeug.exceptions import ClientDisconnected
from werkzeug.wsgi import get_content_length, get_input_stream

from backend.errors import AuthBodyMismatch, BadFraming, FileTooLarge, LengthRequired, RateLimited, StorageFull

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

MOST_BODIES = 100
"""Of one agent at once, in one process."""

_CHUNK_BYTES = 1 << 18
_RETRY_SECONDS = 10
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class BodySlots:
    """Bounds the bodies that each agent sends at once: what one sends slowly, or in a flood, leaves room for others."""

    def __init__(self, most: int = MOST_BODIES) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._taken: Counter[str] = Counter()

    @contextmanager
    def one(self, agent_id: str) -> Iterator[None]:
        """Take a body within the block. Raises RateLimited when the agent sends too many already."""
        with self._lock:
            if self._taken[agent_id] >= self._most:
                raise RateLimited(
                    "Too many bodies of this agent are on their way at once.",
                    retry_after=_RETRY_SECONDS,
                    details={"limit": self._most},
                )
            self._taken[agent_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._taken[agent_id] -= 1
                if not self._taken[agent_id]:
                    del self._taken[agent_id]


def has_body(environ: Mapping[str, object]) -> bool:
    """Return whether a WSGI request says that a body comes with it."""
    return environ.get("CONTENT_LENGTH") not in (None, "", "0") or "HTTP_TRANSFER_ENCODING" in environ


def spool_body(
    environ: WSGIEnvironment, folder: Path, max_bytes: int, expected_digest: str | None
) -> tuple[BinaryIO, int]:
    """Read a WSGI request's body to the end, into a file of its own; return that, at its start, and its length.

    folder : made, for its owner only, where it is missing
    expected_digest : what the SHA-256 must be, lower-case hex; None = anything
    Raises FileTooLarge, LengthRequired, AuthBodyMismatch, BadFraming when the body breaks off, StorageFull, and what
    the server's stream raises.
    """
    chunks = _chunks(_open_input(environ, max_bytes), max_bytes)
    digest = hashlib.sha256()
    size = 0
    file: BinaryIO = io.BytesIO()
    try:
        for chunk in chunks:
            if not size:
                file = _open_file(folder)
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
        if size < (get_content_length(environ) or 0):
            raise _broken_off()
        if expected_digest is not None and not hmac.compare_digest(digest.hexdigest(), expected_digest):
            raise AuthBodyMismatch
        file.seek(0)
    except OSError as error:
        # Closing writes what is still buffered: on a full disk that fails once more.
        with suppress(OSError):
            file.close()
        if error.errno in _NO_SPACE:
            raise StorageFull from error
        raise
    except BaseException:
        file.close()
        raise
    return file, size


def _open_input(environ: WSGIEnvironment, max_bytes: int) -> BinaryIO:
    length = get_content_length(environ)
    if length is not None and length > max_bytes:
        raise _too_large(max_bytes)
    chunked = "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower()
    # Only a server that ends the stream itself can be asked for a body whose length is not known.
    if length is None and chunked and not environ.get("wsgi.input_terminated"):
        raise LengthRequired
    return cast(BinaryIO, get_input_stream(environ))


def _chunks(stream: BinaryIO, max_bytes: int) -> Iterator[bytes]:
    left = max_bytes
    while True:
        try:
            chunk = stream.read(min(_CHUNK_BYTES, left + 1))
        except (OSError, ClientDisconnected) as error:
            raise _broken_off() from error
        if not chunk:
            return
        left -= len(chunk)
        if left < 0:
            raise _too_large(max_bytes)
        yield chunk


def _open_file(folder: Path) -> BinaryIO:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return cast(BinaryIO, tempfile.TemporaryFile(dir=folder))


def _broken_off() -> BadFraming:
    return BadFraming("The body broke off before its end.")


def _too_large(max_bytes: int) -> FileTooLarge:
    return FileTooLarge(
        f"The request's body is larger than the {max_bytes} bytes that are taken here; what is too large for JSON may "
        "go as multipart/form-data.",
        details={"max_bytes": max_bytes},
    )
