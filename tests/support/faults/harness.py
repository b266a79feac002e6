"""What the faults of the worker side share: a worker that can be killed, and the jobs and files looked at beside it.

This module does not know which fault is made.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
from sqlalchemy import func, select

from backend.config import Settings
from backend.jobs.janitor import Janitor
from backend.jobs.leases import job_of
from backend.jobs.models import Job, NewJob, Status
from backend.jobs.notifier import Notifier, NullNotifier
from backend.jobs.schema import files, jobs
from backend.jobs.worker_registry import WorkerStatus
from backend.resources import Resources
from backend.validation import GenerationFields, resolve
from backend.worker.celery_app import make_celery
from backend.worker.celery_notifier import CeleryNotifier
from benchmarks.support.redis import RedisServer
from tests.support.faults.job_events import JobEvents, job_events
from tests.support.faults.web_harness import sized, until
from tests.support.redis_backend import redis_server
from tests.support.running import REPOSITORY
from tests.support.store_backends import empty_database

__all__ = ["AGENT", "LEASE_SECONDS", "Process", "WorkerHarness", "cluster", "sized", "until"]

AGENT = "ann"
LEASE_SECONDS = 5
FAKE_WORKER = (str(Path(__file__).with_name("fake_worker.py")),)
FAKE_SERVICE = (
    "-m",
    "gunicorn",
    "--config",
    "python:backend.serve.gunicorn_conf",
    "tests.support.faults.fake_service:make_app()",
)
REAL_WORKER = ("-m", "backend.worker")
_STOP_SECONDS = 120.0


class Process:
    """A worker or a service in a process of its own, with its children; may be started again and again."""

    def __init__(self, arguments: Sequence[str], environment: dict[str, str], log: Path) -> None:
        """arguments : of Python."""
        self._arguments = arguments
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self._environment = {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY), **environment}
        self.log_path = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it is not ready yet then."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603
                ["/usr/bin/setpriv", "--pdeathsig", "KILL", sys.executable, *self._arguments],
                cwd=REPOSITORY,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        assert self._process is not None, "it was not started"
        return self._process.pid

    @property
    def log(self) -> str:
        """All that it has written."""
        return self.log_path.read_text("utf-8", "replace")

    def children(self) -> list[psutil.Process]:
        """Its children that live."""
        alive = psutil.Process(self.pid).children()
        return [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]

    def kill_child(self) -> None:
        """End its children as a crash would; it makes new ones."""
        for child in self.children():
            child.send_signal(signal.SIGKILL)

    def kill(self) -> list[psutil.Process]:
        """End the parent as a crash would; gives the children that it leaves behind."""
        left = self.children()
        self.send(signal.SIGKILL)
        self.wait()
        return left

    def kill_all(self) -> None:
        """End all of it as a crash would; nothing happens when nothing runs."""
        if self._process is not None:
            with_children = f"-{self._process.pid}"
            subprocess.run(["/bin/kill", "-KILL", "--", with_children], check=False, capture_output=True)  # noqa: S603
            self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """Send the parent a signal."""
        assert self._process is not None, "it was not started"
        self._process.send_signal(number)

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        assert self._process is not None, "it was not started"
        return self._process.wait(_STOP_SECONDS)

    def stop(self) -> int:
        """End it as an operator would; its exit code."""
        self.send(signal.SIGTERM)
        return self.wait()


@dataclass(eq=False)
class WorkerHarness:
    """A worker with everything around it, and jobs for it.

    kills : when every run was ended by a kill, seconds since 1970
    """

    folder: Path
    resources: Resources
    worker: Process
    events: JobEvents
    notifier: Notifier
    submitted: list[str] = field(default_factory=list)
    kills: list[float] = field(default_factory=list)

    def submit(self, *images: bytes, quality: int = 1) -> list[str]:
        """Store pictures and submit a job for each; their ids. Only the mesh is made, quickly."""
        request = resolve(GenerationFields(quality=quality, color="none", preview=False), lambda: 7)
        names = [f"{secrets.token_hex(16)}.png" for _ in images]
        for name, image in zip(names, images, strict=True):
            self.resources.images.put(name, image)
        new = [NewJob(request.to_json(), request.batch_key("fake"), name) for name in names]
        ids = self.resources.store.submit(AGENT, new, queue_limit=100_000, agent_limit=100_000).job_ids
        self.submitted += ids
        self.notifier.notify()
        return list(ids)

    def job(self, job_id: str) -> Job:
        """One of them, as it is now."""
        return self.resources.store.get(job_id, AGENT)

    def jobs(self) -> list[Job]:
        """All of them, as they are now."""
        with self.resources.database.read() as connection:
            return [job_of(row) for row in connection.execute(select(*jobs.c).order_by(jobs.c.id))]

    def outcomes(self) -> Counter[str]:
        """How many are in each state; of those that failed how many with each code."""
        return Counter(job.error_code or job.status.value for job in self.jobs())

    def files(self, part: str = "artifacts") -> set[str]:
        """Names of all that lies in a folder."""
        folder = self.folder / part
        return {path.name for path in folder.iterdir()} if folder.exists() else set()

    def await_ready(self) -> None:
        """Wait for a worker that takes jobs."""
        until(lambda: any(each.status is WorkerStatus.READY for each in self.resources.registry.alive()), "ready")

    def await_running(self) -> None:
        """Wait until a batch is under way that began after the last kill."""
        until(self._is_running, f"a batch; {self.worker.log[-3000:]}")

    def await_done(self, seconds: float = 240.0) -> None:
        """Wait until no job waits or runs."""
        until(self._is_done, f"all done; {self.worker.log[-3000:]}", seconds)

    def note_kill(self) -> None:
        """Every run that was under way has been ended just now."""
        self.kills.append(time.time())

    def expect_whole(self) -> None:
        """None was lost, none finished twice; after the janitor each completed job has its files, and nobody else."""
        found = self.jobs()
        assert sorted(self.submitted) == [job.id for job in found]
        assert {job.status.finished for job in found} == {True}
        assert self.events.finishes() == Counter(self.submitted)
        assert all(job.fence >= job.attempts for job in found)
        self.sweep_orphans()
        named = [job.artifact for job in found if job.status is Status.COMPLETED]
        assert len(set(named)) == len(named)
        with self.resources.database.read() as connection:
            rows = set(connection.execute(select(files.c.name).where(files.c.kind != "image")).scalars())
        assert set(named) <= rows
        assert self.files() == rows, sorted(self.files() ^ rows)

    def sweep_orphans(self) -> None:
        """Sweep the files that a killed worker left, as the janitor does once they are old."""
        old = time.time() - 30 * 86400
        for path in (self.folder / "artifacts").iterdir():
            os.utime(path, (old, old))
        resources = self.resources
        swept = Janitor(
            resources.store, resources.artifacts, resources.images, resources.clock, timedelta(days=1), limit=5000
        ).sweep()
        assert (swept.failures, swept.expired) == ((), 0)

    def _is_running(self) -> bool:
        since = datetime.fromtimestamp(self.kills[-1] if self.kills else 0, UTC)
        running = select(func.count()).where(jobs.c.status == Status.PROCESSING, jobs.c.started_at > since)
        with self.resources.database.read() as connection:
            return bool(connection.execute(running).scalar_one())

    def _is_done(self) -> bool:
        counts = self.resources.store.counts()
        return not counts.queued + counts.processing


@contextmanager
def cluster(
    folder: Path, arguments: Sequence[str] = FAKE_WORKER, **settings: object
) -> Iterator[tuple[WorkerHarness, RedisServer]]:
    """PostgreSQL, Redis and a worker (not started) while the block runs.

    settings : variables of the worker's environment
    """
    redis = redis_server()
    given = {"CELERY_BROKER_URL": redis.url, "DATABASE_URL": empty_database("postgresql", folder), **settings}
    with worker_harness(folder, arguments, **given) as made:
        yield made, redis


@contextmanager
def worker_harness(folder: Path, arguments: Sequence[str], **settings: object) -> Iterator[WorkerHarness]:
    """Jobs, files and a worker or service (not started) while the block runs; rings where there is a broker."""
    data = folder / "data"
    given = {"ORFEAS_DATA_DIR": data, "LEASE_SECONDS": LEASE_SECONDS, "SWEEP_SECONDS": 2, **settings}
    environment = {name: str(value) for name, value in given.items()}
    read = Settings.from_environment(environment)
    notifier: Notifier = CeleryNotifier(make_celery(read)) if read.broker_url else NullNotifier()
    resources = Resources.open(read, NullNotifier(), clock=lambda: datetime.now(UTC))
    worker = Process(arguments, environment, folder / "log")
    try:
        with job_events(resources.database) as events:
            try:
                yield WorkerHarness(data, resources, worker, events, notifier)
            finally:
                worker.kill_all()
    finally:
        resources.database.close()


def hold(condition: Callable[[], bool], seconds: float) -> None:
    """See that something holds for so long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert condition(), "it did not last"
        time.sleep(0.05)
