"""A private Redis server for tests, on a free loopback port that it keeps through restarts.

Nothing of it outlives it. This module does not know what is tested with it.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import redis

from benchmarks.support.ports import free_port
from benchmarks.support.programs import require

_INSTALL = Path(__file__).with_name("install.sh")


class RedisServer:
    """One server; `start`, `stop` and `kill` may be called again and again, `destroy` ends it with its folder."""

    def __init__(self, *options: str, wait_seconds: float = 30) -> None:
        """Keep how it is to start. options : redis-server's, as "--appendonly", "yes"; wait_seconds : to come up."""
        require(_INSTALL)
        self._options = options
        self._wait_seconds = wait_seconds
        self._folder = Path(tempfile.mkdtemp(prefix="orfeas-redis-"))
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address of its database 0."""
        return f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        """Start the server, unless it runs, and wait until it answers."""
        if self._process is not None:
            return
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command(), stdout=log, stderr=log)  # noqa: S603
        deadline = time.monotonic() + self._wait_seconds
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Redis did not start: {(self._folder / 'log').read_text()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End the server as an operator would; what it holds is kept only where `options` say so."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server as a crash would."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Let the server hang: connections are taken, nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a hanging server go on."""
        self._signal(signal.SIGCONT)

    def client(self) -> redis.Redis:
        """Return a connection to its database 0; the caller closes it."""
        return redis.Redis.from_url(self.url, socket_timeout=5, decode_responses=True)

    def flush(self) -> None:
        """Make the server forget everything, its scripts, too."""
        with self.client() as client:
            client.flushall()
            client.script_flush()

    def destroy(self) -> None:
        """End the server and remove its folder."""
        self.kill()
        shutil.rmtree(self._folder)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.send_signal(signal.SIGCONT)  # a paused one would not see a SIGTERM
            self._process.wait(self._wait_seconds)
            self._process = None

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def _command(self) -> list[str]:
        # The server must not outlive a test run that is killed.
        return [
            *("setpriv", "--pdeathsig=KILL", "redis-server", "--port", str(self._port), "--bind", "127.0.0.1"),
            *("--dir", str(self._folder), "--save", "", "--appendonly", "no", *self._options),
        ]
