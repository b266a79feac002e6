"""A worker with everything around it that is real: job table, files, registry; only the processor is a test's own."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from backend.batch_processor import BatchProcessor
from backend.config import Settings
from backend.hunyuan3d.octree_resolutions import Resolutions
from backend.jobs.models import Job, NewJob
from backend.jobs.notifier import LocalNotifier
from backend.jobs.store import JobStore
from backend.jobs.worker_registry import WorkerRegistry
from backend.storage.artifacts import ArtifactStore
from backend.storage.database import Database
from backend.storage.files import LocalFiles, new_name
from backend.validation import GenerateFields, GenerationFields, new_job, resolve
from tests.support.fake_gpu import FakeProcessor
from tests.support.store_backends import ManualClock

MODEL = "demo"
TIMEOUT_SECONDS = 20.0


class Counts:
    """Metrics that remember."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.stages: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.device: list[tuple[float, float]] = []

    def observe_batch(self, size: int, capacity: int) -> None:
        assert size <= capacity
        self.batches.append(size)

    def observe_device(self, busy: float, wanted: float) -> None:
        assert 0 <= busy <= wanted
        self.device.append((busy, wanted))

    def observe_stage(self, stage: str, seconds: float) -> None:
        assert seconds >= 0
        self.stages[stage] += 1

    def job_finished(self, outcome_code: str) -> None:
        self.outcomes[outcome_code] += 1


@dataclass(eq=False)
class Workshop:
    """The parts of a worker, and jobs for it."""

    folder: Path
    settings: Settings
    clock: ManualClock
    database: Database
    store: JobStore
    images: LocalFiles
    registry: WorkerRegistry
    fake: FakeProcessor
    notifier: LocalNotifier = field(default_factory=LocalNotifier)
    counts: Counts = field(default_factory=Counts)
    workers: list[BatchProcessor] = field(default_factory=list)

    @property
    def artifacts(self) -> ArtifactStore:
        return ArtifactStore(LocalFiles(self.folder / "artifacts"))

    def worker(self, **changes: Any) -> BatchProcessor:
        """Return a worker, stopped at the test's end; changes : other arguments for it."""
        parts: dict[str, Any] = {
            "store": self.store,
            "open_processor": lambda: self.fake,
            "images": self.images,
            "artifacts": self.artifacts,
            "settings": self.settings,
            "clock": self.clock,
            "notifier": self.notifier,
            "registry": self.registry,
            "metrics": self.counts,
        }
        worker = BatchProcessor(**{**parts, **changes})
        self.workers.append(worker)
        return worker

    def work_off(self) -> int:
        """One worker runs group after group until no jobs wait, and records them; how many there were."""
        worker, taken = self.worker(), 0
        while count := worker.run_batch():
            taken += count
        return taken + worker.run_once()

    def submit(self, image: bytes = b"picture", agent_id: str = "ann", **fields: Any) -> str:
        """Store a picture and submit a job for it, without a preview unless that is asked for; return its id."""
        request = resolve(GenerationFields(**{"preview": False, **fields}), lambda: 7)
        name = f"{secrets.token_hex(16)}.png"
        self.images.put(name, image)
        new = NewJob(request.to_json(), request.batch_key(MODEL), name)
        return self.store.submit(agent_id, [new], queue_limit=100, agent_limit=100).job_ids[0]

    def submit_prompt(self, prompt: str, **fields: Any) -> str:
        """Submit a job whose picture is to be drawn; return its id."""
        given = GenerateFields(**{"preview": False, "prompt": prompt, **fields})
        new = new_job(given, new_name("png"), MODEL, lambda _: 7, Resolutions())
        return self.store.submit("ann", [new], queue_limit=100, agent_limit=100).job_ids[0]

    def job(self, job_id: str) -> Job:
        return self.store.get(job_id, "ann")

    def kept(self, *job_ids: str) -> list[str]:
        """Names of what was made for jobs, as the table of files has them."""
        found = self.store.files.of_all([self.job(job_id) for job_id in job_ids])
        return sorted(file.name for files in found.values() for file in files if file.kind != "image")

    def files(self, part: str) -> list[str]:
        """Names of what lies in a part's folder."""
        folder = self.folder / part
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@contextmanager
def workshop(folder: Path, database: Database, **settings: Any) -> Iterator[Workshop]:
    """Give a workshop whose workers are stopped at the end."""
    clock = ManualClock()
    given = {"data_dir": folder, "batch_wait_seconds": 0.0, **settings}
    made = Workshop(
        folder,
        Settings(**given),
        clock,
        database,
        JobStore(database, clock),
        LocalFiles(folder / "inputs"),
        WorkerRegistry(database, clock),
        FakeProcessor(),
    )
    try:
        yield made
        assert made.fake.failed_checks == []
    finally:
        for worker in made.workers:
            worker.stop(0)


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until something holds; fail when it never does."""
    until = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < until, "it never came to be"
        time.sleep(0.01)


class FailingFiles(LocalFiles):
    """A folder whose writes raise what they are told, then work."""

    def __init__(self, folder: Path, errors: list[Exception]) -> None:
        super().__init__(folder)
        self.errors = errors

    def put(self, name: str, data: bytes | BinaryIO) -> None:
        if self.errors:
            raise self.errors.pop(0)
        super().put(name, data)
