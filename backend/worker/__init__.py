"""`python -m backend.worker`: a process that owns one device and runs the jobs that web processes notify it of.

Celery's own process keeps the connection with the broker; its one child does the work. This module does not know how
a job is run, or what HTTP is.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

from billiard.util import get_logger
from celery import Celery, signals
from celery.exceptions import CPendingDeprecationWarning

from backend.config import Settings
from backend.errors import ServiceError
from backend.hunyuan3d.device.thread_waiting import wait_asleep
from backend.jobs.notifier import NullNotifier
from backend.resources import Resources, model_opener
from backend.runner.processor_protocol import ShapeProcessor
from backend.telemetry.logs import configure_logging
from backend.worker.celery_app import TASK, make_celery
from backend.worker.child import WorkerChild
from backend.worker.parent_watch import ParentWatch

CANNOT_START = 2


def make_worker(settings: Settings, open_processor: Callable[[], ShapeProcessor] | None = None) -> Celery:
    """Make a Celery application whose one task runs jobs in the worker's child; one in a process.

    open_processor : gives the loaded model, in place of the one that the settings name. Raises ConfigurationError.
    """
    app = make_celery(settings)
    parent_watch = ParentWatch()
    child = WorkerChild(settings, parent_watch, open_processor or model_opener(settings))
    receivers: dict[signals.Signal, Callable[[], None]] = {
        signals.worker_process_init: child.begin,
        signals.worker_process_shutdown: child.end,
        signals.worker_shutting_down: parent_watch.cut,
        # Celery sets up no log of its own when this has a receiver.
        signals.setup_logging: lambda: _configure_logging(settings),
        signals.celeryd_after_setup: _silence_advice,
    }
    for signal, receiver in receivers.items():
        signal.connect(_ignoring_arguments(receiver), weak=False)
    app.task(name=TASK)(child.work)
    return app


def serve(settings: Settings, open_processor: Callable[[], ShapeProcessor] | None = None) -> int:
    """Run jobs until SIGTERM; the exit code. Raises ServiceError when it cannot start."""
    app = make_worker(settings, open_processor)
    # Whatever is wrong with the job table is said before Celery starts to try again and again.
    Resources.open(settings, NullNotifier()).stop()
    _configure_logging(settings)
    name = f"orfeas-{os.getpid()}@%h"
    options = ["--pool", "prefork", "--hostname", name, "--without-gossip", "--without-mingle", "--loglevel", "WARNING"]
    app.worker_main(["--quiet", "worker", *options])
    return 0


def main() -> int:
    """Serve with the settings of the environment; 2 when that cannot be."""
    wait_asleep()
    try:
        return serve(Settings.from_environment(os.environ))
    except ServiceError as error:
        sys.stderr.write(f"{error.message}\n")
        return CANNOT_START


def _configure_logging(settings: Settings) -> None:
    """Log what Celery, its process pool and Python's warnings say in the same way as our own lines."""
    configure_logging(settings.log_level, settings.log_format)
    logging.captureWarnings(True)
    get_logger().propagate = True


def _silence_advice() -> None:
    # At each loss of the broker Celery advises to kill what runs; celery_app has answered that.
    warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)


def _ignoring_arguments(receiver: Callable[[], None]) -> Callable[..., None]:
    def receive(**_: Any) -> None:
        receiver()

    return receive


if __name__ == "__main__":
    sys.exit(main())
