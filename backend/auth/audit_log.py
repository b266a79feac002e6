"""The audit log: one JSON line for each guarded request, in a file that only its owner may read.

Never a key, a signature or a body. This module does not know why a request was refused.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from filelock import FileLock

MAX_BYTES = 64 << 20
KEPT_FILES = 5

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AuditEntry:
    """What one guarded request asked and got.

    agent : the id it claimed, empty when nobody has it; verified : whether its signature proved that
    outcome : "admitted", or the code it was refused with; status : of the whole answer
    address : the client's, or that of the last proxy that is believed
    """

    request_id: str
    agent: str
    verified: bool
    operation: str
    outcome: str
    status: int
    address: str


class AuditLog:
    """A file that grows by one line per entry, from any number of threads and processes.

    Past max_bytes it is renamed to NAME.1, older ones to NAME.2 …, and the oldest is dropped, so that a flood of
    requests cannot fill the disk.
    """

    def __init__(
        self, path: Path, clock: Callable[[], datetime], *, max_bytes: int = MAX_BYTES, kept_files: int = KEPT_FILES
    ) -> None:
        self._path = path
        self._clock = clock
        self._max_bytes = max_bytes
        self._kept_files = kept_files

    def write(self, entry: AuditEntry) -> None:
        """Add an entry. A log that cannot be written is an error in the service's own log, not one of the request's."""
        values = {"time": self._clock().isoformat(timespec="milliseconds"), **dataclasses.asdict(entry)}
        line = json.dumps(values, ensure_ascii=True) + "\n"
        try:
            self._append(line.encode("ascii"))
        except OSError:
            logger.exception("The audit log %s cannot be written.", self._path)

    def _append(self, line: bytes) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # One write call: lines of several processes don't mix.
            os.write(descriptor, line)
            full = os.fstat(descriptor).st_size >= self._max_bytes
        finally:
            os.close(descriptor)
        if full:
            self._rotate()

    def _rotate(self) -> None:
        with FileLock(f"{self._path}.lock", timeout=5, mode=0o600):
            # Another process may have been here since.
            if not self._path.exists() or self._path.stat().st_size < self._max_bytes:
                return
            files = [self._path, *(self._path.with_name(f"{self._path.name}.{k}") for k in range(1, self._kept_files))]
            for older, newer in zip(reversed(files), reversed(files[:-1]), strict=False):
                if newer.exists():
                    newer.replace(older)
