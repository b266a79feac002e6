"""The service as operators run it, in one process or as a cluster, for a load test: started, measured, ended.

One process: gunicorn with SQLite. A cluster: four web processes, PostgreSQL that waits for the disk, Redis, and two
workers. This module does not know what is asked of them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from backend.auth.agents_file import add_agent
from benchmarks.support.ports import free_port
from benchmarks.support.postgres import PostgresCluster
from benchmarks.support.redis import RedisServer

REPOSITORY = Path(__file__).parents[2]
_GUNICORN = ("-m", "gunicorn", "--config", "python:backend.serve.gunicorn_conf")
_WEB = {"sleeping": "benchmarks.load.sleeping_processes:make_app()", "demo": "backend.main:create_app()"}
_WORKER = {"sleeping": "benchmarks.load.sleeping_processes", "demo": "backend.worker"}
_START_SECONDS = 240.0


@dataclass(eq=False)
class Stack:
    """A running service. parts : its processes by what they are; workers : where workers show their metrics."""

    url: str
    agents: Path
    parts: dict[str, list[psutil.Process]] = field(default_factory=dict)
    workers: list[str] = field(default_factory=list)

    def seconds(self) -> dict[str, float]:
        """Return the processor seconds that each part has taken so far."""
        return {
            name: sum(map(_seconds, _family(those))) + sum(map(_ended_seconds, those))
            for name, those in self.parts.items()
        }

    def memory(self) -> dict[str, int]:
        """Return the bytes that each part holds now, shared ones shared out (PSS)."""
        return {name: sum(map(_memory, _family(those))) for name, those in self.parts.items()}

    def pages(self) -> list[bytes]:
        """Return the metrics of the web and of each worker."""
        return [_page(f"{self.url}/metrics"), *(_page(f"http://{address}/metrics") for address in self.workers)]


@contextmanager
def running(folder: Path, model: str, agents: int, *, is_cluster: bool, gpu: Path | None = None) -> Iterator[Stack]:
    """Run a service while the block does. model : sleeping or demo; gpu : what a fake GPU says, None for none."""
    with ExitStack() as stack:
        data, port = folder / "data", free_port()
        data.mkdir(parents=True)
        keys = {f"agent-{k}": _agent(data, f"agent-{k}") for k in range(agents)}
        (folder / "agents.json").write_text(json.dumps(keys))
        made = Stack(f"http://127.0.0.1:{port}", folder / "agents.json")
        settings = {
            "ORFEAS_DATA_DIR": data, "HOST": "127.0.0.1", "PORT": port, "DEVICE": "cpu", "DRAIN_SECONDS": 1,
            "QUEUE_LIMIT": 5000, "OMP_NUM_THREADS": 1,
        }  # fmt: skip
        if gpu is not None:
            fake = REPOSITORY / "benchmarks" / "support" / "fake_nvml"
            settings |= {"FAKE_GPU": gpu, "PYTHONPATH": f"{fake}:{REPOSITORY}"}
        if is_cluster:
            settings |= _stores(stack, made, folder)
            for k in range(2):
                address = free_port()
                own = settings | {"METRICS_PORT": address, "ORFEAS_DATA_DIR": data}
                made.workers.append(f"127.0.0.1:{address}")
                _start(stack, made, "workers", ("-m", _WORKER[model]), own, folder / f"worker-{k}.log")
            settings |= {"WORKER_ENABLED": "false", "WEB_PROCESSES": 4, "GUNICORN_CMD_ARGS": "--workers 4"}
        _start(stack, made, "web", (*_GUNICORN, _WEB[model]), settings, folder / "web.log")
        _await_ready(made.url, folder)
        yield made


def _agent(data: Path, name: str) -> str:
    return add_agent(data / "agents.json", name, rate_limit=1_000_000, batch_rate_limit=1_000_000, max_active_jobs=1000)


def _stores(stack: ExitStack, made: Stack, folder: Path) -> dict[str, object]:
    postgres, redis = PostgresCluster(durable=True), RedisServer()
    stack.callback(postgres.destroy)
    stack.callback(redis.destroy)
    own = psutil.Process()
    for name, server in (("PostgreSQL", postgres), ("Redis", redis)):
        before = set(own.children())
        server.start()
        made.parts[name] = [child for child in own.children() if child not in before]
    return {
        "DATABASE_URL": postgres.url, "CELERY_BROKER_URL": redis.url, "RATE_LIMIT_STORAGE_URL": redis.url,
        "NONCE_STORE": redis.url, "FILES_URL": folder / "data",
    }  # fmt: skip


def _start(
    stack: ExitStack, made: Stack, part: str, arguments: Sequence[str], settings: Mapping[str, object], log: Path
) -> None:
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603
            ["/usr/bin/setpriv", "--pdeathsig", "KILL", sys.executable, *arguments],
            cwd=REPOSITORY,
            env={**os.environ, **{name: str(value) for name, value in settings.items()}},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )

    def end() -> None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    stack.callback(end)
    made.parts.setdefault(part, []).append(psutil.Process(process.pid))


def _await_ready(url: str, folder: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"{url}/api/agent/health/ready", timeout=10):  # noqa: S310
                return
        except OSError:
            if time.monotonic() > deadline:
                raise RuntimeError(f"It was never ready: {(folder / 'web.log').read_text()[-3000:]}") from None
            time.sleep(0.5)


def _page(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as response:  # noqa: S310
        page: bytes = response.read()
    return page


def _family(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    found: dict[int, psutil.Process] = {}
    for process in processes:
        try:
            found |= {each.pid: each for each in (process, *process.children(recursive=True))}
        except psutil.NoSuchProcess:
            continue
    return list(found.values())


def _seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def _ended_seconds(process: psutil.Process) -> float:
    """Return what the children took that a process has outlived: PostgreSQL has one for each connection."""
    times = process.cpu_times()
    return float(times.children_user + times.children_system)


def _memory(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0
