"""The audit log: one JSON line for each guarded request, in a file that only its owner may read.

Requests beyond a limit are summed: a flood would turn the file over and take a day's lines with it. Never a key, a
signature, a query or a body. This module does not know why a request was refused.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from filelock import FileLock

from backend.errors import RateLimited
from backend.telemetry.sums import MANY, Sums

MAX_BYTES = 64 << 20
KEPT_FILES = 5
SUM_SECONDS = 60.0
_MOST_SUMS = 1000
_MAX_PATH = 300
_SUMMED = RateLimited.code

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AuditEntry:
    """What one guarded request asked and got.

    agent : the id it claimed, empty when nobody has it; verified : whether its signature proved that
    credential : what it was to be admitted by: a signature, a token, a link or a code; empty where none is needed
    outcome : "admitted", or the code it was refused with; status : of the whole answer
    address : the client's, or that of the last proxy that is believed
    method, path : of the request, without its query; job_ids : the jobs and batches it was about
    """

    request_id: str
    agent: str
    verified: bool
    operation: str
    outcome: str
    status: int
    address: str
    method: str
    path: str
    job_ids: tuple[str, ...]
    credential: str = ""


@dataclass(frozen=True)
class _First:
    """The first of requests that were refused alike, and when it came."""

    since: datetime
    entry: AuditEntry

    def values(self, count: int) -> dict[str, object]:
        """Return the line for so many that followed: by whom they claim to be from, their outcome and their address."""
        shown = ("agent", "verified", "outcome", "status", "address")
        alike = {name: getattr(self.entry, name) for name in shown}
        return {"since": _text(self.since), "count": count, **alike}


class AuditLog:
    """A file that grows by one line per entry, from any number of threads and processes.

    Past max_bytes it is renamed to NAME.1, older ones to NAME.2 …, and the oldest is dropped, so that a flood of
    requests cannot fill the disk.
    """

    def __init__(
        self,
        path: Path,
        clock: Callable[[], datetime],
        *,
        max_bytes: int = MAX_BYTES,
        kept_files: int = KEPT_FILES,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep where to write; monotonic : seconds since any moment."""
        self._path = path
        self._clock = clock
        self._max_bytes = max_bytes
        self._kept_files = kept_files
        self._sums: Sums[_First] = Sums(SUM_SECONDS, _MOST_SUMS, monotonic)

    def write(self, entry: AuditEntry) -> None:
        """Add an entry. A log that cannot be written is an error in the service's own log, not one of the request's.

        Of the entries of one agent and address whose outcome is RATE_LIMITED the first is added, and those of the
        SUM_SECONDS after it as one line with their count.
        """
        self.write_sums()
        if entry.outcome != _SUMMED or self._begins_sum(entry):
            self._write({**dataclasses.asdict(entry), "path": entry.path[:_MAX_PATH]})

    def write_sums(self, *, all_of_them: bool = False) -> None:
        """Add the sums whose time is over; to be called now and then, and with all_of_them at the end."""
        for first, count in self._sums.take(all_of_them=all_of_them):
            self._write(first.values(count))

    def _begins_sum(self, entry: AuditEntry) -> bool:
        """Count an entry; return whether it is the first of its kind."""
        now, other = self._clock(), dataclasses.replace(entry, agent="", verified=False, address=MANY)
        kind = (entry.agent, entry.verified, entry.address)
        return self._sums.is_first(kind, _First(now, entry), _First(now, other))

    def _write(self, values: dict[str, object]) -> None:
        line = json.dumps({"time": _text(self._clock()), **values}, ensure_ascii=True) + "\n"
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


def _text(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds")
