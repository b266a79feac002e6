"""A file out of the service, whole or not at all: under a temporary name until its last byte is on the disk.

A download that breaks off goes on where it stopped, as long as the service vouches that the file is the same one. This
module does not know how requests are signed, or what is in the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

import requests

from orfeas_client.atomic_file import atomic_file
from orfeas_client.errors import LocalFileError, UnexpectedAnswer
from orfeas_client.retries import PassingFailure
from orfeas_client.transport import Outgoing, Transport

CHUNK_BYTES = 1 << 15
"""What is taken at once; so much may be fetched twice when a connection breaks."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_FOLDER = "/download/"
_LINK = re.compile(r"expires=[0-9]{1,12}&signature=[0-9a-f]{64}")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


def download_name(source: str, base: SplitResult, *others: SplitResult) -> str:
    """Return the name of a file of this service, given as such, as a download_url or as a signed_url.

    base : where the service's API is; others : where else the service itself says that it is
    Raises UnexpectedAnswer for an address elsewhere: a signed request must not be led to another host.
    """
    if _NAME.fullmatch(source):
        return source
    url = urlsplit(urljoin(urlunsplit(base), source))
    folder, _, name = url.path.rpartition("/")
    address = (url.scheme, url.netloc.lower(), f"{folder}/")
    ours = {(each.scheme, each.netloc.lower(), each.path + _FOLDER) for each in (base, *others)}
    # A request is signed in any case: what makes an address a link is not needed.
    is_plain = not url.query or _LINK.fullmatch(url.query)
    if address not in ours or not is_plain or url.fragment or not _NAME.fullmatch(name):
        raise UnexpectedAnswer(f"{source!r} is not a download of this service; it is not asked for.")
    return name


def download_file(transport: Transport, name: str, target: Path, size: int | None = None) -> Path:
    """Fetch a file by its name to `target`, in the place of an older one there, and return the target.

    size : how many bytes it must have, None = as many as the service says
    Raises LocalFileError, ServiceRefused, ServiceUnreachable, UnexpectedAnswer; nothing is left behind then.
    """
    try:
        with atomic_file(target, folder_flush="skipped") as file:
            transfer = _Transfer(transport, name, file)
            transport.retry_policy.persist(transfer.go_on)
            if size is not None and transfer.received != size:
                raise UnexpectedAnswer(f"{name} has {transfer.received} bytes, not the {size} that it should have.")
    except OSError as failure:
        raise LocalFileError(f"{target} cannot be written: {failure.strerror or failure}.") from failure
    return target


class _Transfer:
    """What has arrived of a file so far, and which version of it."""

    def __init__(self, transport: Transport, name: str, file: BinaryIO) -> None:
        self.received = 0
        self._transport = transport
        self._name = name
        self._file = file
        self._etag = ""
        self._total: int | None = None

    def go_on(self) -> None:
        """Fetch what is missing. Raises PassingFailure when it breaks off."""
        with self._transport.open(Outgoing("GET", _FOLDER + self._name, headers=self._headers())) as response:
            self._begin(response)
            self._take(response)
        if self._total is not None and self.received != self._total:
            raise self._broken_off(ConnectionError(f"{self.received} of {self._total} bytes came"))

    def _headers(self) -> Mapping[str, str]:
        # The bytes are counted as they lie on the service's disk.
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        if self.received and self._etag:
            headers |= {"Range": f"bytes={self.received}-", "If-Range": self._etag}
        return headers

    def _begin(self, response: requests.Response) -> None:
        """Continue where the answer does, or from the start when it brings the whole file."""
        span = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if response.status_code == 206 and span and int(span[1]) == self.received:
            self._total = int(span[3])
            return
        if response.status_code != 200:
            raise UnexpectedAnswer(f"The service answered {response.status_code} with a part that was not asked for.")
        self._file.seek(0)
        self._file.truncate()
        self.received = 0
        etag = response.headers.get("ETag", "")
        # Only a strong validator vouches for every byte (RFC 9110, 13.1.5).
        self._etag = etag if etag.startswith('"') else ""
        length = response.headers.get("Content-Length", "")
        self._total = int(length) if length.isascii() and length.isdigit() else None

    def _take(self, response: requests.Response) -> None:
        chunks = response.iter_content(CHUNK_BYTES)
        while True:
            try:
                chunk = next(chunks, b"")
            except requests.RequestException as failure:
                raise self._broken_off(failure) from failure
            if not chunk:
                return
            self._file.write(chunk)
            self.received += len(chunk)

    def _broken_off(self, failure: Exception) -> PassingFailure:
        return self._transport.broken(failure)
