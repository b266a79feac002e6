"""How gunicorn serves the service: `gunicorn --config python:backend.serve.gunicorn_conf`.

gunicorn reads the names of this module, so unlike any other it reads the environment when it is imported. One process
owns the device and many threads answer; without a worker (WORKER_ENABLED=false) there may be more processes (`-w`).
This module does not know what is served.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

from backend.auth.agents import load_agents
from backend.config import Settings
from backend.errors import ConfigurationError, ServiceError
from backend.hunyuan3d.device.thread_waiting import wait_asleep
from backend.serve import SAY_READY
from backend.serve.refusals import MOST_HEADER_BYTES, MOST_HEADERS, MOST_LINE_BYTES
from backend.telemetry.logs import logging_config
from backend.telemetry.shared_memory import SharedCounts, SharedTable

_STOP_SECONDS = 15
"""Beyond DRAIN_SECONDS: to record what the batch gave and to close."""
_SPARE_SLOTS = 16
"""Of processes that count together beyond twice their number: while they are exchanged, old and new ones live."""


def _settings() -> Settings:
    try:
        return Settings.from_environment(os.environ)
    except ServiceError as error:
        sys.exit(error.message)


wait_asleep()
_service = _settings()

wsgi_app = "backend.main:create_app()"
proc_name = "orfeas"
bind = f"[{_service.host}]:{_service.port}" if ":" in _service.host else f"{_service.host}:{_service.port}"
worker_class = "backend.serve.gunicorn_worker.AgentWorker"
threads = _service.web_threads
if _service.worker_enabled:
    workers = 1
# Of the loop that accepts; a request may take as long as it likes.
timeout = 60
graceful_timeout = int(_service.drain_seconds) + _STOP_SECONDS
# An idle connection costs a few hundred bytes; a proxy in front keeps its own for a minute.
keepalive = 75
worker_connections = 8192

http_parser = "python"
limit_request_line = MOST_LINE_BYTES
limit_request_fields = MOST_HEADERS
limit_request_field_size = MOST_HEADER_BYTES
# Who called is worked out from TRUSTED_PROXIES, and no header may say where the service is mounted.
forwarded_allow_ips = ""
forwarder_headers = ""

sendfile = False
control_socket_disable = True
# The sign of life is a file that is touched all the time: a busy disk must not stop it.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108
logconfig_dict = logging_config(_service.log_level, _service.log_format)


def on_starting(server: Any) -> None:
    """See that the service can start, before anything is started: one sentence says what is in the way."""
    try:
        _check(server.cfg.workers)
    except ServiceError as error:
        server.log.error(error.message)
        sys.exit(2)
    _end_at_second_signal(server)
    processes = server.cfg.workers
    server.shared_table = SharedTable(2 * processes + _SPARE_SLOTS) if processes > 1 else None


def when_ready(server: Any) -> None:
    """Import what is served before there are processes: they share its memory, and a new one is ready at once.

    Nothing is made yet; a connection that comes already waits as it does for the first process.
    """
    import_module(server.app.app_uri.partition(":")[0])


def _end_at_second_signal(server: Any) -> None:
    """Have the first SIGTERM or SIGINT let the service drain, and a second one end it at once.

    gunicorn itself would end at once at the first SIGINT, and overlook a second SIGTERM.
    """
    take, told = server.signal, []

    def receive(number: int, frame: FrameType | None) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            told.append(number)
            number = signal.SIGTERM if len(told) == 1 else signal.SIGINT
        take(number, frame)

    server.signal = receive


def pre_fork(server: Any, worker: Any) -> None:
    """Give a new process its slot to count in; one that a dead process had, if there is one."""
    worker.most_waiting = _service.web_waiting
    worker.shared_counts = None
    if server.shared_table is not None:
        taken = [other.shared_counts.slot for other in server.WORKERS.values()]
        worker.shared_counts = SharedCounts(server.shared_table, server.shared_table.free_slot(taken))


def post_worker_init(worker: Any) -> None:
    """Start what runs beside the requests; from SIGTERM on they go on until no job runs here any more."""
    services = _services(worker)
    if worker.shared_counts is not None:
        services.metrics.share(worker.shared_counts)

    def drain(_number: int, _frame: FrameType | None) -> None:
        services.begin_drain()

    def end_now(number: int, frame: FrameType | None) -> None:
        # What runs is handed back by the thread that keeps its leases, before gunicorn kills this process.
        services.begin_drain(0)
        worker.handle_quit(number, frame)

    signal.signal(signal.SIGTERM, drain)
    # As gunicorn has it: a request's system calls go on.
    signal.siginterrupt(signal.SIGTERM, False)
    signal.signal(signal.SIGQUIT, end_now)
    # From a terminal it reaches every process: the master decides what it means, and says so.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    services.call_when_drained(lambda: worker.handle_exit(signal.SIGTERM, None))
    services.start(alone=True, on_ready=lambda: _say_ready(worker))


def worker_exit(_server: Any, worker: Any) -> None:
    """Let the running batch finish, or hand it back."""
    if getattr(worker, "wsgi", None) is not None:
        _services(worker).stop()


def _say_ready(worker: Any) -> None:
    """Say where the service answers, once for all of its processes; where nobody asked for it, the log alone does."""
    if worker.cfg.workers > 1 and worker.age > 1:
        return
    host, port = worker.sockets[0].getsockname()[:2]
    ready = f"Ready: http://{f'[{host}]' if ':' in host else host}:{port}"
    worker.log.info(ready)
    if os.environ.get(SAY_READY):
        sys.stdout.write(f"{ready}\n")
        sys.stdout.flush()


def _services(worker: Any) -> Any:
    from backend.agent_api import services_of

    return services_of(worker.wsgi)


def _check(processes: int) -> None:
    if _service.auth_enabled:
        load_agents(_service.agents_file)
    if processes == 1:
        return
    if _service.worker_enabled:
        raise ConfigurationError(
            f"{processes} processes would each load the model: start one, or set WORKER_ENABLED=false and run workers."
        )
    if _service.rate_limit_storage.startswith("memory") or _service.nonce_store == "memory":
        raise ConfigurationError(
            f"{processes} processes must share limits and nonces: set RATE_LIMIT_STORAGE_URL=redis://HOST:PORT/DB "
            "and NONCE_STORE=database or redis://HOST:PORT/DB."
        )
