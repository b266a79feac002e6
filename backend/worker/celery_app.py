"""The Celery application: one queue of notifications, and the settings that keep it from losing them.

The job table is the truth; a task carries nothing. This module does not know jobs or workers.
"""

from __future__ import annotations

import socket
from typing import Any

from celery import Celery

from backend.config import Settings
from backend.errors import ConfigurationError

TASK = "orfeas.work"
QUEUE = "orfeas"

GRACE_SECONDS = 15
"""Beyond DRAIN_SECONDS: to record what the batch gave and to close."""

_BROKER_SECONDS = 1
"""How long a web process may wait for the broker."""

_MARGIN_SECONDS = 60

_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""A broker whose machine is gone without a word is noticed after 25 s; by default a worker would wait for two hours."""


def make_celery(settings: Settings) -> Celery:
    """Make an application for the settings' broker, connected to nothing yet.

    Raises ConfigurationError without a broker.
    """
    if not settings.broker_url:
        raise ConfigurationError("A worker apart needs CELERY_BROKER_URL, such as redis://HOST:6379/1.")
    app = Celery("orfeas", broker=settings.broker_url, set_as_current=False)
    app.conf.update(_config(settings))
    return app


def _config(settings: Settings) -> dict[str, Any]:
    return {
        "task_default_queue": QUEUE,
        "task_ignore_result": True,
        # A notification is done when its batch is; one whose worker died is delivered again.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # A batch that hangs ends with its process after BATCH_SECONDS, by the child's own watchdog; this is for a child
        # that forgot to set it. The next process finds the jobs when their leases have ended.
        "task_time_limit": settings.batch_seconds + _MARGIN_SECONDS,
        # One process a device, and no notification kept waiting behind a running batch.
        "worker_concurrency": 1,
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": True,
        # A released checkpoint takes minutes to load.
        "worker_proc_alive_timeout": 3600,
        # SIGQUIT; SIGTERM is answered by the child itself, which knows when the batch is done.
        "worker_soft_shutdown_timeout": settings.drain_seconds + GRACE_SECONDS,
        # The child is made by what stands in this process.
        "worker_pool_start_method": "fork",
        "worker_hijack_root_logger": False,
        "worker_send_task_events": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_connection_timeout": _BROKER_SECONDS,
        "broker_transport_options": {
            "visibility_timeout": settings.batch_seconds + 2 * _MARGIN_SECONDS,
            # By default a killed worker's task came back after 102 s, with these after 10 s.
            "unacked_restore_interval": 2,
            "unacked_restore_throttle": 1,
            "socket_connect_timeout": _BROKER_SECONDS,
            "socket_keepalive": True,
            "socket_keepalive_options": {
                getattr(socket, name): value for name, value in _KEEPALIVE.items() if hasattr(socket, name)
            },
            "health_check_interval": 10,
        },
    }
