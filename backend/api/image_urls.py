"""Images that a request names by their addresses, fetched where the operator allows it, by the guard of all calls.

This module does not know what an image is, or how an address is checked.
"""

from __future__ import annotations

import errno
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

from backend.api.multipart import FormFile
from backend.api.request_context import waiting
from backend.config import Settings
from backend.errors import ImageUrlFailed, ImageUrlRefused, RateLimited, StorageFull
from backend.limits import MAX_BATCH_IMAGES
from backend.outgoing import Outgoing, OutgoingFailed, OutgoingPolicy, OutgoingRefused

SECONDS = 10.0
_MAX_REDIRECTS = 5
_FETCHERS = 32
_PER_AGENT = 2 * MAX_BATCH_IMAGES
_IN_MEMORY = 1 << 20
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class ImageUrls:
    """Fetches images for one process; any thread may use it.

    Addresses are fetched on threads of its own, a bounded number of each agent's at once.
    """

    def __init__(self, settings: Settings, outgoing: Outgoing) -> None:
        self._policy = policy_of(settings)
        self._max_bytes = settings.max_image_bytes
        self._folder = settings.spool_dir
        self._outgoing = outgoing
        self._threads = ThreadPoolExecutor(_FETCHERS, "image-url")
        self._lock = threading.Lock()
        self._taken: Counter[str] = Counter()

    def fetched(self, files: Sequence[FormFile], agent_id: str, opened: ExitStack) -> tuple[FormFile, ...]:
        """Return a form's images, with those that have an address fetched, or with why they could not be.

        opened : closes the files that are made. Raises RateLimited when too many of the agent's are fetched already.
        """
        named = [file for file in files if file.url is not None]
        if not named:
            return tuple(files)
        with self._places(agent_id, len(named)), waiting():
            sinks = [opened.enter_context(_open_sink(self._folder)) for _ in named]
            got = dict(zip(map(id, named), self._threads.map(self._fetch, named, sinks), strict=True))
        return tuple(got.get(id(file), file) for file in files)

    @contextmanager
    def _places(self, agent_id: str, count: int) -> Iterator[None]:
        with self._lock:
            if self._taken[agent_id] + count > _PER_AGENT:
                raise RateLimited(
                    "Too many image URLs of this agent are being fetched.",
                    retry_after=int(SECONDS),
                    details={"limit": _PER_AGENT},
                )
            self._taken[agent_id] += count
        try:
            yield
        finally:
            with self._lock:
                self._taken[agent_id] -= count
                if not self._taken[agent_id]:
                    del self._taken[agent_id]

    def _fetch(self, file: FormFile, sink: BinaryIO) -> FormFile:
        if self._policy is None:
            return replace(file, failure=ImageUrlRefused(f"{file.label}: {_REFUSED}"))
        try:
            reply = self._outgoing.send(
                "GET",
                file.url or "",
                self._policy,
                seconds=SECONDS,
                headers={"Accept": "image/*"},
                sink=sink,
                max_bytes=self._max_bytes,
                max_redirects=_MAX_REDIRECTS,
            )
            if reply.status != 200:
                raise OutgoingFailed(f"The answer's status is {reply.status}.")
            sink.seek(0)
        except OutgoingRefused:
            return replace(file, failure=ImageUrlRefused(f"{file.label}: {_REFUSED}"))
        except OutgoingFailed as failure:
            return replace(file, failure=ImageUrlFailed(f"{file.label}: {_FAILED} {failure}"))
        except OSError as error:
            if error.errno in _NO_SPACE:
                raise StorageFull from error
            raise
        return replace(file, stream=sink, size=reply.size)


def policy_of(settings: Settings) -> OutgoingPolicy | None:
    """Return which addresses images may have; None for none at all."""
    if settings.image_urls == "off":
        return None
    if settings.image_urls == "public":
        return OutgoingPolicy()
    return OutgoingPolicy(hosts=frozenset(host.strip() for host in settings.image_urls.split(",")))


_REFUSED = (ImageUrlRefused.__doc__ or "").strip()
_FAILED = (ImageUrlFailed.__doc__ or "").strip()


def _open_sink(folder: Path) -> BinaryIO:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return cast(BinaryIO, tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=str(folder)))
