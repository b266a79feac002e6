"""Hundreds of listeners at one web process while clients work, across a restart: what is delivered, and what it costs.

    python -m benchmarks.listeners --out benchmarks/results/listeners.md

The service is `python -m backend.serve` with the bundled checkpoint: one process that answers and runs jobs. Some of
the listeners are Server-Sent Events of a job each, others WebSockets that watch all of the jobs; they live in a process
of their own and come back by themselves when the service is stopped and started again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from backend.auth.agents_file import add_agent
from orfeas_client import AgentClient, ClientError
from orfeas_client.retries import RetryPolicy
from orfeas_client.signing import EMPTY_DIGEST
from orfeas_client.transport import Transport

_ROOT = Path(__file__).parents[1]
_AGENT = "listeners"
_API = "/api/agent"
_FINAL = ("completed", "failed", "cancelled")
_QUICK: dict[str, Any] = {"quality": 1, "steps": 10, "preview": False, "color": "none"}


@dataclass
class Service:
    """The service on a port of its own, to be stopped and started again."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, key: str) -> float:
        """Start it, and wait until a model serves; return when, by the monotonic clock, it answered first."""
        answered = 0.0
        own = {"ORFEAS_DATA_DIR": self.folder, "PORT": self.port, "AGENT_WAITS": 2000, "DRAIN_SECONDS": 5}
        environment = {**os.environ, **{name: str(value) for name, value in own.items()}, "RATE_LIMIT": "1000000"}
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "backend.serve"], cwd=_ROOT, env=environment, stdout=log, stderr=log
        )
        while True:
            try:
                with AgentClient(self.url, _AGENT, key, retries=0) as client:
                    is_ready = client.health().ok
                    answered = answered or time.monotonic()
                    if is_ready:
                        return answered
            except ClientError:
                pass
            time.sleep(0.3)

    def stop(self) -> None:
        """Stop it as an operator would."""
        assert self.process is not None
        self.process.terminate()
        self.process.wait(60)

    def memory(self) -> int:
        """Return the bytes that its largest process holds."""
        assert self.process is not None
        family = psutil.Process(self.process.pid).children(recursive=True)
        return max((int(each.memory_info().rss) for each in family), default=0)

    def threads(self) -> int:
        """Return how many threads that has."""
        assert self.process is not None
        return max(int(each.num_threads()) for each in psutil.Process(self.process.pid).children(recursive=True))


@dataclass
class Heard:
    """What one listener heard, in order: job, event id, event's name."""

    events: list[tuple[str, str, str]] = field(default_factory=list)


class Listeners:
    """All listeners, on one loop."""

    def __init__(self, port: int, key: str, ids: Sequence[str], streams: int, sockets: int) -> None:
        self._port, self._ids = port, ids
        self._transport = Transport(
            f"http://127.0.0.1:{port}",
            _AGENT,
            key,
            timeout=(10, 60),
            retry_policy=RetryPolicy(),
            clock=time.time,
            session=None,
        )
        self.streams = [Heard() for _ in range(streams)]
        self.sockets = [Heard() for _ in range(sockets)]
        self.opened = 0

    async def run(self, ready: Event) -> None:
        """Listen until each has heard of the ends of all that it listens to."""
        gate = asyncio.Semaphore(16)
        tasks = [self._stream(heard, self._ids[k % len(self._ids)], gate) for k, heard in enumerate(self.streams)]
        tasks += [self._socket(heard, gate) for heard in self.sockets]
        running = asyncio.gather(*tasks)
        while self.opened < len(tasks):
            await asyncio.sleep(0.1)
        ready.set()
        await running

    async def _stream(self, heard: Heard, job_id: str, gate: asyncio.Semaphore) -> None:
        target, last, first = f"{_API}/status/{job_id}/events", "", True
        while not (heard.events and heard.events[-1][2] in _FINAL):
            try:
                async with gate:
                    reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                    lines = [f"GET {target} HTTP/1.0", "Host: localhost"]
                    headers = {**self._transport.sign("GET", target, EMPTY_DIGEST), "Last-Event-ID": last}
                    lines += [f"{name}: {value}" for name, value in headers.items() if value]
                    writer.write("\r\n".join([*lines, "", ""]).encode())
                    head = await reader.readuntil(b"\r\n\r\n")
                if first and b" 200 " in head:
                    self.opened, first = self.opened + 1, False
                async for event in _events(reader):
                    last = event["id"]
                    heard.events.append((job_id, event["id"], event["event"]))
                writer.close()
            except (OSError, asyncio.IncompleteReadError):
                pass
            await asyncio.sleep(0.5)

    async def _socket(self, heard: Heard, gate: asyncio.Semaphore) -> None:
        target, last, first, ended = f"{_API}/events", dict[str, str](), True, set[str]()
        while len(ended) < len(self._ids):
            try:
                async with gate:
                    signed = dict(self._transport.sign("GET", target, EMPTY_DIGEST))
                    opening = connect(
                        f"ws://127.0.0.1:{self._port}{target}", additional_headers=signed, compression=None
                    )
                    at = await opening
                if first:
                    self.opened, first = self.opened + 1, False
                async with at:
                    await at.send(json.dumps({"watch": list(self._ids), "last": last}))
                    async for text in at:
                        told = json.loads(text)
                        job_id = told["data"]["job_id"]
                        last[job_id] = told["id"]
                        heard.events.append((job_id, told["id"], told["event"]))
                        if told["event"] in _FINAL:
                            ended.add(job_id)
                            if len(ended) == len(self._ids):
                                break
            except (OSError, WebSocketException):
                pass
            await asyncio.sleep(0.5)


async def _events(reader: asyncio.StreamReader) -> Any:
    while text := await reader.readuntil(b"\n\n"):
        fields = dict(line.split(": ", 1) for line in text.decode().splitlines() if line[:1] not in ("", ":"))
        if "event" in fields:
            yield fields


def listen(
    port: int,
    key: str,
    ids: Sequence[str],
    counts: tuple[int, int],
    ready: Event,
    found: multiprocessing.SimpleQueue[Any],
) -> None:
    """Be the process of the listeners."""
    listeners = Listeners(port, key, ids, *counts)
    asyncio.run(listeners.run(ready))
    found.put(([heard.events for heard in listeners.streams], [heard.events for heard in listeners.sockets]))


class Client(threading.Thread):
    """One client: it submits, asks and lists; how long each call took, and when."""

    def __init__(self, url: str, key: str, image: Path, over: threading.Event) -> None:
        super().__init__()
        self._url, self._key, self._image, self._over = url, key, image, over
        self.calls: list[tuple[float, float]] = []

    def run(self) -> None:
        """Work until it is over."""
        with AgentClient(self._url, _AGENT, self._key, retries=100) as client:
            while not self._over.is_set():
                began = time.monotonic()
                job_id = client.generate(self._image, **_QUICK).id
                self.calls.append((began, time.monotonic() - began))
                for _ in range(20):
                    began = time.monotonic()
                    client.status(job_id)
                    self.calls.append((began, time.monotonic() - began))
                    time.sleep(0.2)


def judge(events: Sequence[tuple[str, str, str]]) -> tuple[int, int]:
    """Return how many events came twice running, and how many jobs' ends came other than once and last."""
    last: dict[str, str] = {}
    repeats, ends = 0, Counter[str]()
    for job_id, event_id, name in events:
        repeats += last.get(job_id) == event_id
        last[job_id] = event_id
        ends[job_id] += name in _FINAL
    return repeats, sum(count != 1 for count in ends.values())


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--sockets", type=int, default=200)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=40, help="that the clients work, the restart in their midst")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = measure(Path(folder), options)
    print(text)
    if options.out:
        options.out.write_text(text, "utf-8")


def measure(folder: Path, options: argparse.Namespace) -> str:
    """Run all of it; return the table as markdown."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    key = add_agent(folder / "agents.json", _AGENT, rate_limit=1_000_000, max_active_jobs=1000)
    service, image = Service(folder, port), _ROOT / "samples" / "mug.png"
    service.start(key)
    load = os.getloadavg()[0]
    with AgentClient(service.url, _AGENT, key) as client:
        client.wait(client.generate(image, **_QUICK).id)
        before, threads_before = service.memory(), service.threads()
        ids = [client.generate(image, **_QUICK).id for _ in range(options.jobs)]
    context = multiprocessing.get_context("spawn")
    ready, found = context.Event(), context.SimpleQueue()
    arguments = (port, key, ids, (options.streams, options.sockets), ready, found)
    listeners = context.Process(target=listen, args=arguments)
    listeners.start()
    ready.wait()
    held, threads = service.memory() - before, service.threads()
    over = threading.Event()
    clients = [Client(service.url, key, image, over) for _ in range(options.clients)]
    for each in clients:
        each.start()
    time.sleep(options.seconds / 2)
    stopped = time.monotonic()
    service.stop()
    answered = service.start(key)
    started = time.monotonic()
    time.sleep(options.seconds / 2)
    over.set()
    for each in clients:
        each.join()
    streams, sockets = found.get()
    listeners.join()
    service.stop()
    calls = [took for each in clients for began, took in each.calls if began + took < stopped or began > started + 3]
    return report(
        options, held, (threads_before, threads), calls, streams, sockets, (answered - stopped, started - stopped), load
    )


def report(
    options: argparse.Namespace,
    held: int,
    threads: tuple[int, int],
    calls: Sequence[float],
    streams: Sequence[Any],
    sockets: Sequence[Any],
    away: tuple[float, float],
    load: float,
) -> str:
    """Return the table, as markdown."""
    listeners = options.streams + options.sockets
    events = sum(map(len, streams)) + sum(map(len, sockets))
    repeats = sum(judge(each)[0] for each in (*streams, *sockets))
    wrong = sum(judge(each)[1] for each in (*streams, *sockets))
    ends = sum(1 for each in (*streams, *sockets) for event in each if event[2] in _FINAL)
    due = options.streams + options.sockets * options.jobs
    milliseconds = 1000 * np.asarray(calls)
    rows = {
        "events delivered": f"{events}",
        "ends of jobs delivered, of those due": f"{ends} of {due}",
        "ends delivered other than once": f"{wrong}",
        "states delivered twice running": f"{repeats}",
        "seconds from the stop until it answered again, and until a model served": f"{away[0]:.1f}, {away[1]:.1f}",
        "threads of the process, before and with all listeners": f"{threads[0]}, {threads[1]}",
        "memory for each listener, kB": f"{held / 1000 / listeners:.0f}",
        "calls of the clients meanwhile": f"{len(calls)}",
        "median, 99 %, slowest, ms": f"{np.median(milliseconds):.0f}, {np.percentile(milliseconds, 99):.0f}, "
        f"{milliseconds.max():.0f}",
    }
    lines = [
        "# Listeners",
        "",
        f"{options.streams} listeners by Server-Sent Events and {options.sockets} by WebSocket, of which each watches "
        f"{options.jobs} jobs, at one process that answers and runs jobs, while {options.clients} clients submit and "
        "ask; in the midst the service is stopped and started again. The memory is what the process grew by, that of "
        f"the jobs that ran meanwhile included. {platform.machine()} CPU, {os.cpu_count()} cores, load {load:.1f} "
        f"before, {datetime.now(UTC):%Y-%m-%d}; listeners, clients and service share the machine.",
        "",
        "| figure | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows.items()),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
