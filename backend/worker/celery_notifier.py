"""The notifier between machines: a Celery task that says 'there is work' and nothing else.

Notifying never makes a request wait for the broker. This module does not know who runs the task, or how.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from celery import Celery

from backend.periodic import endless_retries
from backend.worker.celery_app import QUEUE, TASK

_ENOUGH = 256
"""Notifications that may wait in the queue: more of them would wake nobody sooner."""

_RETRIES = endless_retries(1.0, 1.0)

logger = logging.getLogger(__name__)


class CeleryNotifier:
    """Notify through a broker, on a thread of its own; while the broker is away it tries again, and logs that once."""

    def __init__(self, celery: Celery, *, send: Callable[[], None] | None = None) -> None:
        """Start no thread yet.

        send : notifies once, in place of the broker's own way
        """
        self._send = send or _sender(celery)
        self._changed = threading.Condition()
        self._notifications = 0
        self._thread: threading.Thread | None = None
        self._away = False

    def notify(self) -> None:
        """Say that there may be work; returns at once and never raises."""
        with self._changed:
            self._notifications = min(self._notifications + 1, _ENOUGH)
            if self._thread is None:
                # Not at birth: a process that forks has no threads yet.
                self._thread = threading.Thread(target=self._deliver, name="notifier", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, seconds: float) -> bool:
        """Wait up to so long until every notification is delivered; return whether that came to be."""
        with self._changed:
            return self._changed.wait_for(lambda: self._notifications == 0, seconds)

    def _deliver(self) -> None:
        pauses = _RETRIES.pauses()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._notifications > 0)
            delivered = self._try()
            with self._changed:
                # While the broker is away one notification says as much as many.
                self._notifications = self._notifications - 1 if delivered else 1
                self._changed.notify_all()
                if not delivered:
                    self._changed.wait_for(lambda: False, next(pauses))

    def _try(self) -> bool:
        try:
            self._send()
        except Exception as error:  # noqa: BLE001 - the thread's edge: a broker's client raises much, some of it its own
            if not self._away:
                logger.warning("The broker cannot be reached (%s); workers hear of jobs later.", type(error).__name__)
            self._away = True
            return False
        if self._away:
            logger.info("The broker is back.")
        self._away = False
        return True


def _sender(celery: Celery) -> Callable[[], None]:
    def send() -> None:
        # A connection for each notification declares the queue anew: a broker that was emptied has forgotten it.
        with celery.connection_for_write() as connection:
            waiting = connection.default_channel.queue_declare(QUEUE, passive=False, auto_delete=False).message_count
            if waiting < _ENOUGH:
                celery.send_task(TASK, connection=connection, retry=False)

    return send
