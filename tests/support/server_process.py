"""A server in a process of its own, on a port it chooses, and a plain socket to it."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

TIMEOUT_SECONDS = 60.0
REPOSITORY = Path(__file__).parents[2]
GUNICORN = ("-m", "gunicorn", "--config", "python:backend.serve.gunicorn_conf")
DEVELOPMENT = ("-m", "backend.main")
_ADDRESS = re.compile(r"http://127\.0\.0\.1:([0-9]+)")


@dataclass(frozen=True)
class RawAnswer:
    """An answer as it came over the wire; names of headers in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.body)
        return answer

    @property
    def refusal(self) -> tuple[int, str]:
        return self.status, self.json["code"]


class ServerProcess:
    """Python with some arguments, and all that it writes; stopped with the block."""

    def __init__(self, arguments: Sequence[str], folder: Path, **environment: str) -> None:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        given = {"ORFEAS_DATA_DIR": str(folder), "PORT": "0", "WORKER_ENABLED": "false", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(  # noqa: S603
            [sys.executable, *arguments],
            cwd=REPOSITORY,
            env={**kept, **given, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._ports: queue.Queue[int] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.ended()

    @property
    def port(self) -> int:
        """Where it listens, once it does."""
        port = self._ports.get(timeout=TIMEOUT_SECONDS)
        self._ports.put(port)
        return port

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def ended(self) -> int:
        """Its exit status, waited for."""
        try:
            return self.process.wait(TIMEOUT_SECONDS)
        finally:
            self.process.kill()
            self._reader.join()
            assert self.process.stdout is not None
            self.process.stdout.close()

    def ask(self, request: bytes) -> RawAnswer:
        """Send these bytes and no other request on the connection; return the answer."""
        with connected(self.port) as (connection, stream):
            connection.sendall(request)
            return read_answer(stream)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            address = _ADDRESS.search(line)
            if address:
                self._ports.put(int(address[1]))


def raw_request(method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """Return a request's bytes; its target's non-ASCII as UTF-8, a surrogate as the byte that it stands for."""
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", *(f"{name}: {value}" for name, value in headers.items())]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body


def read_answer(stream: BinaryIO) -> RawAnswer:
    """Return the next answer on a connection, which is read through this one stream only."""
    status = int(stream.readline().split(b" ")[1])
    headers: dict[str, str] = {}
    while (line := stream.readline().strip()) != b"":
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    return RawAnswer(status, headers, stream.read(int(headers.get("content-length", "0"))))


@contextmanager
def connected(port: int) -> Iterator[tuple[socket.socket, BinaryIO]]:
    """Give a connection to send on, and the stream of what comes back."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS) as connection,
        connection.makefile("rb") as stream,
    ):
        yield connection, stream
