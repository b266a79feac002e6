"""A private PostgreSQL server for tests: a cluster in a temporary folder, reached by its unix socket.

Its data are thrown away when it stops. This module does not know what is tested with it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

from benchmarks.support.programs import require

_INSTALL = Path(__file__).with_name("install.sh")
_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_connections": "100",
}
_DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "shared_buffers": "256MB"}


def _programs() -> Path:
    """Find the folder of the newest server's programs, and install it when there is none."""
    require(_INSTALL)
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(folders, key=lambda folder: int(folder.parent.name))


class PostgresCluster:
    """One server; `start` and `stop` may be called again and again, `destroy` ends it with its data."""

    def __init__(self, wait_seconds: float = 60, *, durable: bool = False) -> None:
        """Keep how it is to start. wait_seconds : to come up; durable : whether it waits for the disk, as in use."""
        self._programs = _programs()
        self._wait_seconds = wait_seconds
        self._settings = {**_SETTINGS, **(_DURABLE if durable else {})}
        self._folder = Path(tempfile.mkdtemp(prefix="orfeas-pg-"))
        self._server: subprocess.Popen[bytes] | None = None
        self._become: list[str] = []
        if os.getuid() == 0:  # PostgreSQL refuses to run as root
            owner = pwd.getpwnam("postgres")
            shutil.chown(self._folder, owner.pw_uid, owner.pw_gid)
            self._become = [f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
        self._run("initdb", "--no-sync", "--auth=trust", "--username=orfeas", "--encoding=UTF8", "--no-locale")

    @property
    def url(self) -> str:
        """The database's address as DATABASE_URL takes it."""
        return f"postgresql://orfeas@/postgres?host={self._folder}"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._server = subprocess.Popen(  # noqa: S603
                self._command("postgres", "-k", str(self._folder), *options), stdout=log, stderr=log
            )
        deadline = time.monotonic() + self._wait_seconds
        while not self._answers():
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: {(self._folder / 'log').read_text()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End the server at once; what was committed stays."""
        if self._server is not None:
            self._server.send_signal(2)  # SIGINT: fast shutdown
            self._server.wait(self._wait_seconds)
            self._server = None

    def destroy(self) -> None:
        """Stop the server and remove its data."""
        self.stop()
        shutil.rmtree(self._folder)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(self._command(program, *arguments), check=True, capture_output=True)  # noqa: S603

    def _command(self, program: str, *arguments: str) -> list[str]:
        # The server must not outlive a test run that is killed.
        return [
            "setpriv",
            *self._become,
            "--pdeathsig=INT",
            str(self._programs / program),
            "-D",
            str(self._folder / "data"),
            *arguments,
        ]
