"""'Another process has written': PostgreSQL's NOTIFY, heard by one connection of each process.

It only makes sooner what is found by looking anyway; while the server is away nothing is heard and nothing lost. SQLite
has no such thing, and is looked at twice a second. This module does not know what was written.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from sqlalchemy import make_url

CHANNEL = "orfeas_jobs"

_LISTEN_SECONDS = 1.0
_AWAY_SECONDS = 2.0
_log = logging.getLogger(__name__)


class Wakeups:
    """Calls a function whenever another process, or this one, has written; only of PostgreSQL, and never raises."""

    def __init__(self, database_url: str, then: Callable[[], None]) -> None:
        """Begin nothing yet. then : must return at once, and not raise; it is called on a thread of its own."""
        self._url = make_url(database_url)
        self._then = then
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to listen, where there is something to listen to."""
        if self._thread is None and self._url.get_backend_name() in ("postgresql", "postgres"):
            self._thread = threading.Thread(target=self._run, name="wakeups", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End within a moment."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join(2 * _LISTEN_SECONDS)

    def _run(self) -> None:
        import psycopg

        while not self._ending.is_set():
            try:
                self._listen()
            except psycopg.Error as error:
                _log.debug("The database tells of no changes now: %s", error)
                self._ending.wait(_AWAY_SECONDS)

    def _listen(self) -> None:
        import psycopg

        address = self._url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(address, autocommit=True, connect_timeout=5, application_name="orfeas") as connection:
            connection.execute(f"LISTEN {CHANNEL}")
            # What was written before it listened is not told of.
            self._then()
            while not self._ending.is_set():
                for _ in connection.notifies(timeout=_LISTEN_SECONDS, stop_after=1):
                    self._then()
