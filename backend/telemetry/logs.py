"""The service's log: one line for each event on standard error, with the request and the jobs it is about.

Plain text for a person at a terminal, JSON for everything that reads logs. Configured by whoever runs the service,
never by importing. This module does not know what is logged.
"""

from __future__ import annotations

import json
import logging
import logging.config
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

_request_id: ContextVar[str] = ContextVar("request_id", default="")
_job_ids: ContextVar[tuple[str, ...]] = ContextVar("job_ids", default=())

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "request_id", "job_ids"}
# The signature of a link to a file, and a bearer token: whoever has one needs nothing else.
_CREDENTIALS = re.compile(r"(?<=signature=)[0-9a-f]{16,}|(?<=orfeas_)[A-Za-z0-9_-]{43}")
# What a request's line says already, or what only a program that reads it wants to know.
_LEFT_OUT = frozenset({"route", "status", "color_message"})


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
        values.update(_extra(record))
        if record.exc_info:
            values["exception"] = self.formatException(record.exc_info)
        return masked(json.dumps(values, default=str))


class TextFormatter(logging.Formatter):
    """Write a log record for a person: time of day, level, message, and what `extra` gave; an exception below it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; whatever could move a terminal's cursor is escaped, so that no message can fake a line."""
        # In the time of whoever looks on.
        time = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        message = record.getMessage()
        words = [time, f"{record.levelname:<7}", message]
        words += [f"{name}={value}" for name, value in _extra(record).items() if value and name not in _LEFT_OUT]
        # A line of several jobs, or one that does not say which it is about.
        words += [f"job={job_id}" for job_id in _job_ids.get() if job_id not in message]
        line = _printable(" ".join(words))
        if record.exc_info:
            trace = self.formatException(record.exc_info).splitlines()
            line = "\n".join([line, *(f"    {_printable(each)}" for each in trace)])
        return masked(line)


def logging_config(level: str, log_format: str = "auto") -> dict[str, Any]:
    """Return what logging.config.dictConfig takes, also as gunicorn's logconfig_dict.

    level : DEBUG, INFO, WARNING or ERROR, of this service; libraries speak up from WARNING
    log_format : text, json, or auto: text where standard error is a terminal
    """
    as_text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    loud = {"level": level, "propagate": True, "handlers": []}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": TextFormatter if as_text else JsonFormatter}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stderr"}},
        "root": {"level": "WARNING", "handlers": ["stderr"]},
        # gunicorn's own line for each request would be a second one beside backend.requests'.
        "loggers": {"backend": loud, "gunicorn.error": loud, "gunicorn.access": {**loud, "level": "CRITICAL"}},
    }


def configure_logging(level: str, log_format: str = "auto") -> None:
    """Set up this process's log; see `logging_config`."""
    logging.config.dictConfig(logging_config(level, log_format))


def masked(text: str) -> str:
    """Return a text without what in it stands for an agent: signatures of links, and tokens."""
    return _CREDENTIALS.sub("***", text)


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _PLAIN}


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


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
