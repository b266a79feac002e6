"""The service's log: one JSON object a line on standard error, with the request and the jobs it is about.

Configured by whoever runs the service, never by importing. This module does not know what is logged.
"""

from __future__ import annotations

import json
import logging
import logging.config
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

_request_id: ContextVar[str] = ContextVar("request_id", default="")
_job_ids: ContextVar[tuple[str, ...]] = ContextVar("job_ids", default=())

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "request_id", "job_ids"}


class JsonFormatter(logging.Formatter):
    """Write a log record as one line of JSON: time, level, logger, message, ids, what `extra` gave, the exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; characters outside ASCII and line ends are escaped, so that no message can fake a line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        values: dict[str, Any] = {
            "time": time,
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := _request_id.get():
            values["request_id"] = request_id
        if job_ids := _job_ids.get():
            values["job_ids"] = job_ids
        values.update({name: value for name, value in vars(record).items() if name not in _PLAIN})
        if record.exc_info:
            values["exception"] = self.formatException(record.exc_info)
        return json.dumps(values, default=str)


def logging_config(level: str) -> dict[str, Any]:
    """Return what logging.config.dictConfig takes, also as gunicorn's logconfig_dict.

    level : DEBUG, INFO, WARNING or ERROR, of this service; libraries speak up from WARNING
    """
    loud = {"level": level, "propagate": True, "handlers": []}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonFormatter}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stderr"}},
        "root": {"level": "WARNING", "handlers": ["stderr"]},
        # gunicorn's own line for each request would be a second one beside backend.requests'.
        "loggers": {"backend": loud, "gunicorn.error": loud, "gunicorn.access": {**loud, "level": "CRITICAL"}},
    }


def configure_logging(level: str) -> None:
    """Set up this process's log."""
    logging.config.dictConfig(logging_config(level))


def log_request(request_id: str) -> None:
    """Have this thread's lines name a request from here on; "" ends that."""
    _request_id.set(request_id)
    _job_ids.set(())


def log_jobs(*job_ids: str) -> None:
    """Have this thread's lines name these jobs, too, from here on until its request ends."""
    _job_ids.set(job_ids)


def logged_jobs() -> tuple[str, ...]:
    """Return the jobs that this thread's lines name."""
    return _job_ids.get()


@contextmanager
def log_context(*job_ids: str) -> Iterator[None]:
    """Have every line that is logged inside name these jobs, whoever logs it.

    The ids are a context variable's: `contextvars.copy_context().run` takes them to another thread.
    """
    token = _job_ids.set(job_ids)
    try:
        yield
    finally:
        _job_ids.reset(token)
