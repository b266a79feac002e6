"""A service of one's own, for as long as one needs it: on a free port of this machine, in a folder that is thrown away.

It is the real one, `python -m backend.serve` in a process of its own; only what the model and the device need is taken
over from the environment, so that nobody's database or files are touched. This module does not know what it is for.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from backend.auth.agents_file import add_agent
from backend.config import Settings
from backend.setting_values import Meaning
from orfeas_client import AgentClient, ClientError

AGENT_ID = "demo"

_REPOSITORY = Path(__file__).parents[2]
_TAKEN_OVER = frozenset(
    {"MODEL_PATH", "MODEL_SUBFOLDER", "DEVICE", "DTYPE", "GPU_MEMORY_LIMIT", "TORCH_COMPILE", "MAX_BATCH_SIZE"}
)
_LISTENING = re.compile(r"Listening at: (http://[0-9.]+:[0-9]+)")
_POLL_SECONDS = 0.1
# A worker that is about to begin says so at once.
_HOPELESS_SECONDS = 5.0
_LOG_LINES = 15
_DRAIN_SECONDS = 10
# gunicorn_conf gives what runs a little longer than DRAIN_SECONDS.
_STOP_SECONDS = 60


class ServiceFailed(Exception):
    """The service did not start, or ended by itself; the message has the end of its log."""


class DemoService:
    """A running service and its agent."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, api_key: str) -> None:
        self.url = ""
        self._process = process
        self._log = log
        self.api_key = api_key
        self._stopped = False

    def client(self, on_retry: Callable[[str, float], None] | None = None) -> AgentClient:
        """Return a client of it, once it is ready."""
        return AgentClient(self.url, AGENT_ID, self.api_key, on_retry=on_retry)

    def wait_until_ready(self, seconds: float) -> None:
        """Wait until it has loaded its model. Raises ServiceFailed."""
        now = began = hopeful = time.monotonic()
        while (status := self._status()) != "ok":
            now = time.monotonic()
            hopeful = hopeful if status == "unavailable" else now
            if now - hopeful > _HOPELESS_SECONDS:
                raise ServiceFailed(f"The service runs, but its worker cannot.\n{self.log_tail()}")
            if now - began > seconds:
                raise ServiceFailed(f"The service was not ready after {seconds:g} seconds.\n{self.log_tail()}")
            time.sleep(_POLL_SECONDS)

    def require_alive(self) -> None:
        """See that it still runs. Raises ServiceFailed."""
        status = self._process.poll()
        if status is not None:
            raise ServiceFailed(f"The service ended by itself, with {status}.\n{self.log_tail()}")

    def stop(self) -> None:
        """End it as an operator would, or else by force, once. Raises ServiceFailed when it does not end well."""
        if self._stopped:
            return
        self._stopped = True
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            status: int | None = self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            status = None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if status is None:
            raise ServiceFailed(f"The service did not stop within {_STOP_SECONDS} seconds.\n{self.log_tail()}")
        if status != 0:
            raise ServiceFailed(f"The service ended with {status}.\n{self.log_tail()}")

    def log_tail(self) -> str:
        """Return the end of its log, for people."""
        lines = filter(None, map(_plain, self._log.read_text("utf-8", "replace").splitlines()))
        return "\n".join(["The end of its log:", *(f"  {line}" for line in list(lines)[-_LOG_LINES:])])

    def _status(self) -> str:
        """Ask for its health; return nothing until it can be asked."""
        self.require_alive()
        if not self.url:
            found = _LISTENING.search(self._log.read_text("utf-8", "replace"))
            if found is None:
                return ""
            self.url = found[1]
        try:
            with self.client() as client:
                return client.health().status
        except ClientError:
            return ""


@contextmanager
def demo_service(environ: Mapping[str, str], **settings: object) -> Iterator[DemoService]:
    """Run a service while the block does, and remove all that it wrote afterwards; its model may still be loading.

    environ : where the model's and device's settings come from; settings : variables of the environment besides
    Raises ServiceFailed when it does not end well.
    """
    with tempfile.TemporaryDirectory(prefix="orfeas-demo-") as folder:
        data, log = Path(folder) / "data", Path(folder) / "log"
        api_key = add_agent(data / "agents.json", AGENT_ID, rate_limit=10_000, max_active_jobs=1000)
        own = {"ORFEAS_DATA_DIR": data, "HOST": "127.0.0.1", "PORT": 0, "DRAIN_SECONDS": _DRAIN_SECONDS, **settings}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "backend.serve"],
                cwd=_REPOSITORY,
                env=_environment(environ) | {name: str(value) for name, value in own.items()},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # A Ctrl-C is for the one who started it; that one ends it in order.
                start_new_session=True,
            )
        service = DemoService(process, log, api_key)
        try:
            yield service
        except BaseException:
            # What happened inside matters more than how it ends.
            with contextlib.suppress(ServiceFailed):
                service.stop()
            raise
        service.stop()


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    hints = typing.get_type_hints(Settings, include_extras=True).values()
    meanings = (part for hint in hints for part in typing.get_args(hint) if isinstance(part, Meaning))
    others = {meaning.variable for meaning in meanings} - _TAKEN_OVER | {"GUNICORN_CMD_ARGS"}
    return {name: value for name, value in environ.items() if name not in others}


def _plain(line: str) -> str:
    """Return a line of the log without what only programs read; nothing of one about a request."""
    try:
        record = json.loads(line)
        if record["logger"] == "backend.requests":
            return ""
        exception = f" – {str(record['exception']).splitlines()[-1]}" if record.get("exception") else ""
        return f"{record['level']} {record['message']}{exception}"
    except (ValueError, KeyError, TypeError):
        return line
