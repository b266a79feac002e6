"""Who sends webhooks: a task that enters what has ended, and a few threads that send what is due.

Any number of web processes may do so side by side: the table says whose turn it is. This module does not know what a
webhook says.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from werkzeug.routing import MapAdapter

from backend.api.webhooks import deliveries_of, policy_of, signing_headers
from backend.errors import ServiceError
from backend.jobs.webhooks import Delivery
from backend.outgoing import OutgoingFailed, OutgoingRefused
from backend.periodic import PeriodicTask
from backend.services import AgentServices

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0
_CALL_SECONDS = 15.0
_SENDERS = 8
_MOST_OF_AGENT = 2
"""Of the senders, for one agent: a receiver that hangs keeps no other's."""

_GONE = 410


class WebhookSender:
    """Sends the webhooks of an app."""

    def __init__(self, services: AgentServices, urls: MapAdapter) -> None:
        """Begin nothing yet. urls : the app's routes, for the addresses in what is sent."""
        self._services = services
        self._urls = urls
        self._policy = policy_of(services.settings)
        self._lock = threading.Lock()
        self._in_flight: Counter[str] = Counter()
        self._senders: ThreadPoolExecutor | None = None
        self._task = PeriodicTask("webhooks", _LOOK_SECONDS, self.run_once)

    def start(self) -> None:
        """Begin to look and to send."""
        self._senders = ThreadPoolExecutor(_SENDERS, "webhook")
        self._task.start()

    def stop(self) -> None:
        """End; what is under way is left to its time, and comes up again if nobody notes what came of it."""
        self._task.stop(_LOOK_SECONDS)
        if self._senders is not None:
            self._senders.shutdown(wait=False, cancel_futures=True)

    def run_once(self) -> bool:
        """Enter what has ended and begin to send what is due; return whether there is more of the former."""
        entered = self.enter_ended()
        while (delivery := self._take()) is not None:
            self._begin(delivery)
        return entered > 0

    def enter_ended(self) -> int:
        """Enter what is to be sent of some jobs that have ended; return how many they were. Raises StoreUnavailable."""
        ended = self._services.webhooks.ended()
        for job in ended:
            agent = self._services.guard.agent_of(job.agent_id)
            new = [] if agent is None else deliveries_of(self._services, job, agent, self._urls)
            self._services.webhooks.enter(job, new)
        return len(ended)

    def _take(self) -> Delivery | None:
        with self._lock:
            if self._in_flight.total() >= _SENDERS:
                return None
            busy = [agent for agent, count in self._in_flight.items() if count >= _MOST_OF_AGENT]
        # A look that writes nothing, first: most of the time nothing is due.
        return self._services.webhooks.take(busy) if self._services.webhooks.has_due() else None

    def _begin(self, delivery: Delivery) -> None:
        with self._lock:
            self._in_flight[delivery.agent_id] += 1
        assert self._senders is not None  # noqa: S101  the task runs between start and stop
        self._senders.submit(self._send, delivery)

    def _send(self, delivery: Delivery) -> None:
        try:
            self.send(delivery)
        except ServiceError as error:
            _log.warning("What came of a webhook cannot be noted: %s", error.message)
        except Exception:  # noqa: BLE001 - the thread's edge: it comes up again
            _log.exception("A webhook could not be sent.")
        finally:
            with self._lock:
                self._in_flight[delivery.agent_id] -= 1
                if not self._in_flight[delivery.agent_id]:
                    del self._in_flight[delivery.agent_id]
            self._task.wake()

    def send(self, delivery: Delivery) -> None:
        """Make one try, and note what came of it. Raises StoreUnavailable, StorageFull."""
        table, agent = self._services.webhooks, self._services.guard.agent_of(delivery.agent_id)
        if agent is None or not agent.enabled or not agent.webhook_secret:
            table.failed(delivery, "The agent is removed or disabled, or has no secret.", None, is_final=True)
            return
        body = delivery.body.encode()
        headers = signing_headers(agent.webhook_secret, delivery.id, body, self._services.clock())
        try:
            reply = self._services.outgoing.send(
                "POST", delivery.url, self._policy, seconds=_CALL_SECONDS, headers=headers, body=body
            )
        except (OutgoingRefused, OutgoingFailed) as failure:
            table.failed(delivery, str(failure), None)
            return
        if 200 <= reply.status < 300:
            table.delivered(delivery, reply.status)
        else:
            text = f"The receiver answered {reply.status}."
            table.failed(delivery, text, reply.status, is_final=reply.status == _GONE)
