"""What the faults of the web side share: how long they go on, callers that do not give up, a worker beside the test.

This module does not know which fault is made. It imports nothing heavy: callers run in processes of their own.
"""

from __future__ import annotations

import http.client
import os
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import select

from backend.auth.hmac_signing import sign_request
from backend.config import Settings
from backend.jobs.janitor import Janitor
from backend.jobs.schema import idempotency_keys, jobs
from backend.jobs.store import JobStore
from backend.periodic import utc_now
from backend.storage.artifacts import ArtifactStore
from backend.storage.database import Database
from backend.storage.files import LocalFiles, is_temporary
from orfeas_client.signing import EMPTY_DIGEST
from tests.support.hostile import FORM, Part, encode_form
from tests.support.running import API, Agent, Answer, RunningService, running_service

if TYPE_CHECKING:
    from tests.support.fake_gpu import FakeProcessor

LONG = os.environ.get("FAULTS", "short") == "long"
TIMEOUT_SECONDS = 120.0
_Value = TypeVar("_Value")


def sized(short: _Value, long: _Value) -> _Value:
    """How much of a fault is made: some in every run of the tests, the full figure with FAULTS=long."""
    return long if LONG else short


def until(condition: Callable[[], bool], what: str = "", seconds: float = TIMEOUT_SECONDS) -> None:
    """Wait until something holds; fail when it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it never came to be: {what}"
        time.sleep(0.05)


# Forms

MESH_ALONE: Mapping[str, object] = {"preview": "false", "color": "none"}
"""A preview and colours take a hundred times as long as a mesh of the fake's."""


def one_image(image: bytes, **fields: object) -> bytes:
    """Return a request for one mesh, as its body."""
    return _form("image", (image,), {"async": "true", **MESH_ALONE, **fields})


def images(*contents: bytes, **fields: object) -> bytes:
    """Return a request for several meshes, as its body."""
    return _form("images", contents, {**MESH_ALONE, **fields})


def _form(part: str, contents: Sequence[bytes], fields: Mapping[str, object]) -> bytes:
    texts = [Part(name.rstrip("_"), str(value).encode()) for name, value in fields.items()]
    return encode_form(*texts, *(Part(part, content, f"{k}.png", "image/png") for k, content in enumerate(contents)))


# Callers


def tried(send: Callable[[], Answer]) -> Answer | None:
    """Return the answer; None when the connection broke or was refused, as it is where a process has just died."""
    try:
        return send()
    except (OSError, http.client.HTTPException):
        return None


@dataclass(eq=False)
class Callers:
    """Threads that each do one thing again and again until they are told to stop; what goes wrong in one is raised."""

    answers: list[Answer] = field(default_factory=list)
    broken: int = 0
    failures: list[BaseException] = field(default_factory=list)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def add(self, call: Callable[[], Answer], pause: float = 0.0) -> None:
        """One more thread; call : sends one request; pause : seconds between two."""

        def run() -> None:
            while not self._stopping.is_set() and not self.failures:
                answer = tried(call)
                if answer is None:
                    self.broken += 1
                else:
                    self.answers.append(answer)
                self._stopping.wait(pause)

        self.add_loop(run)

    def add_loop(self, run: Callable[[], None]) -> None:
        """One more thread, which ends by itself; see `stopping`."""

        def guarded() -> None:
            try:
                run()
            except BaseException as error:  # noqa: BLE001 - told to the test's own thread
                self.failures.append(error)

        thread = threading.Thread(target=guarded, daemon=True)
        self._threads.append(thread)
        thread.start()

    @property
    def stopping(self) -> bool:
        """Whether the threads are to end."""
        return self._stopping.is_set() or bool(self.failures)

    @property
    def refusals(self) -> Counter[tuple[int, str]]:
        """How often each status and code was answered."""
        return Counter(answer.refusal for answer in self.answers)

    def stop(self) -> None:
        """End all threads and wait for them."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(TIMEOUT_SECONDS)
            assert not thread.is_alive(), "a caller hangs"
        if self.failures:
            raise self.failures[0]

    def __enter__(self) -> Callers:
        return self

    def __exit__(self, *failed: object) -> None:
        if failed[0] is None:
            self.stop()
        else:
            self._stopping.set()


@dataclass(eq=False)
class Insistent:
    """A caller that sends each request under a key of its own until it is answered, and knows what it was promised.

    promised : the jobs that each key was answered with; tries : how often each key was sent
    """

    service: RunningService
    agent: Agent
    slowly: float = 0.0
    promised: dict[str, tuple[str, ...]] = field(default_factory=dict)
    tries: Counter[str] = field(default_factory=Counter)

    def submit(self, body: bytes, path: str = "/generate-3d") -> tuple[str, ...]:
        """Send a form until it is answered; return the ids of its jobs."""
        key = secrets.token_hex(8)
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while True:
            assert time.monotonic() < deadline, f"never answered; {self.service.log_tail}"
            self.tries[key] += 1
            answer = tried(lambda: self._send(path, body, key))
            if answer is not None and answer.status in (200, 202):
                found = answer.json()
                ids = tuple(found["job_ids"]) if "job_ids" in found else (str(found["job_id"]),)
                self.promised[key] = ids
                return ids
            # A service that starts again is away, or has no worker yet; anything else is wrong.
            assert answer is None or answer.status in (429, 503), answer.body
            time.sleep(0.05)

    def _send(self, path: str, body: bytes, key: str) -> Answer:
        target = API + path
        headers = {
            **self.service.sign("POST", target, body, agent=self.agent),
            "Content-Type": FORM,
            "Idempotency-Key": key,
        }
        if not self.slowly:
            return self.service.send("POST", target, headers, body)
        return send_slowly(self.service, target, headers, body, self.slowly)


def send_slowly(
    service: RunningService, target: str, headers: Mapping[str, str], body: bytes, seconds: float, pieces: int = 8
) -> Answer:
    """Send a POST whose body takes its time."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=TIMEOUT_SECONDS)
    try:
        connection.putrequest("POST", target, skip_accept_encoding=True)
        for name, value in {**headers, "Content-Length": str(len(body)), "Connection": "close"}.items():
            connection.putheader(name, value)
        connection.endheaders()
        size = len(body) // pieces + 1
        for start in range(0, len(body), size):
            # Whoever refuses an upload says so before its end.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.send(body[start : start + size])
            time.sleep(seconds / pieces)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


# What a service has stored


@dataclass(eq=False)
class ServiceRecords:
    """The job table and the files of a service, looked at from beside it."""

    database: Database
    store: JobStore
    images: LocalFiles
    artifacts: ArtifactStore
    folder: Path

    def rows(self) -> dict[str, tuple[str, str, str | None]]:
        """Status, picture and mesh of every job."""
        with self.database.read() as connection:
            found = connection.execute(select(jobs.c.id, jobs.c.status, jobs.c.image_name, jobs.c.artifact)).all()
        return {row.id: (row.status.value, row.image_name, row.artifact) for row in found}

    def keys(self) -> dict[str, tuple[str, ...]]:
        """Return the jobs of every idempotency key."""
        with self.database.read() as connection:
            found = connection.execute(select(idempotency_keys.c.key, idempotency_keys.c.job_ids)).all()
        return {row.key: tuple(row.job_ids.split()) for row in found}

    def files(self, part: str) -> set[str]:
        """Names of all that lies in a folder of the service's."""
        folder = self.folder / part
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}

    def counts(self) -> Counter[str]:
        """How many jobs are in each state."""
        return Counter(status for status, _, _ in self.rows().values())

    def wait_until_done(self) -> None:
        """Wait until no job waits or runs."""
        until(lambda: not {"queued", "processing"} & self.counts().keys(), "all jobs done", 5 * TIMEOUT_SECONDS)

    def expect_whole(self, promised: Mapping[str, tuple[str, ...]]) -> None:
        """Every promised job is completed with its mesh, no other was made, and nothing is half-written.

        A worker that dies while it records leaves a mesh, and a web process that dies a picture, to the janitor.

        promised : the jobs that each idempotency key was answered with; all requests had one
        """
        rows, keys = self.rows(), self.keys()
        # A key that nobody got an answer to must stand for whole jobs all the same.
        assert {key: keys.get(key) for key in promised} == dict(promised)
        assert sorted(job_id for ids in keys.values() for job_id in ids) == sorted(rows)
        assert {status for status, _, _ in rows.values()} <= {"completed"}
        assert self.files("spool") == set()
        assert self.files("artifacts") >= {artifact for _, _, artifact in rows.values()}

    def sweep_later(self) -> None:
        """Sweep as a janitor does when everything is old enough."""
        ttl = timedelta(hours=24)
        janitor = Janitor(self.store, self.artifacts, self.images, lambda: utc_now() + 3 * ttl, ttl, limit=5000)
        swept = janitor.sweep()
        assert swept.failures == ()
        # Orphans are looked for every ten minutes; another janitor has not looked yet.
        Janitor(self.store, self.artifacts, self.images, lambda: utc_now() + 3 * ttl, ttl, limit=5000).sweep()

    def orphans(self) -> set[str]:
        """Pictures that no row names and that are no temporary files either."""
        named = {image for _, image, _ in self.rows().values()}
        return {name for name in self.files("inputs") - named if not is_temporary(name)}


@contextmanager
def records_of(service: RunningService) -> Iterator[ServiceRecords]:
    """Give what a service has stored, until the block ends."""
    with service.database() as database:
        yield ServiceRecords(
            database,
            JobStore(database, utc_now),
            LocalFiles(service.data / "inputs"),
            ArtifactStore(LocalFiles(service.data / "artifacts")),
            service.data,
        )


@contextmanager
def fake_worker(service: RunningService, model: FakeProcessor | None = None, **settings: object) -> Iterator[None]:
    """Run a worker of this process beside a service that has none: all of it is real but the model."""
    from backend.batch_processor import BatchProcessor
    from backend.jobs.notifier import LocalNotifier
    from backend.jobs.worker_registry import WorkerRegistry
    from tests.support.fake_gpu import FakeProcessor

    with records_of(service) as resources:
        processor = model or FakeProcessor()
        worker = BatchProcessor(
            resources.store,
            lambda: processor,
            resources.images,
            resources.artifacts,
            Settings(data_dir=service.data, batch_wait_seconds=0.0, max_batch_size=8, **settings),  # type: ignore[arg-type]
            utc_now,
            notifier=LocalNotifier(),
            registry=WorkerRegistry(resources.database, utc_now),
        )
        worker.start()
        try:
            yield
        finally:
            worker.stop(20)


# Services and faults


@contextmanager
def web_service(folder: Path, **settings: Any) -> Iterator[RunningService]:
    """Run a service with the block; settings : of running_service, empty ones left out."""
    given = {name: value for name, value in settings.items() if value != ""}
    with running_service(folder, RunningService, **given) as service:
        if settings.get("processes", 1) > 1:
            # What a process knows of the workers is looked up anew when it is asked a second later; all are asked.
            time.sleep(1.1)
            with ThreadPoolExecutor(32) as pool:
                list(pool.map(lambda _: service.send("GET", f"{API}/health", {}), range(100)))
        yield service


def fill_disk(folder: Path, left: int) -> Path:
    """Fill a disk with a file but for so many bytes; remove the file to have room again."""
    ballast = folder / "ballast"
    ballast.unlink(missing_ok=True)
    state = os.statvfs(folder)
    size = max(0, state.f_bavail * state.f_frsize - left)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size) if size else None
    return ballast


def send_nonces(port: int, agent: Agent, nonces: Sequence[str]) -> list[tuple[str, int]]:
    """In a process of its own: a signed request with each nonce; gives nonces with the status they got."""
    return [(nonce, _ask(port, agent, nonce)) for nonce in nonces]


def _ask(port: int, agent: Agent, nonce: str) -> int:
    target, time_ = f"{API}/jobs", int(time.time())
    headers = {
        "X-Agent-ID": agent.agent_id,
        "X-Agent-Timestamp": str(time_),
        "X-Agent-Nonce": nonce,
        "X-Agent-Content-SHA256": EMPTY_DIGEST,
        "X-Agent-Signature": sign_request(agent.api_key, "GET", target, "", agent.agent_id, time_, nonce, EMPTY_DIGEST),
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", target, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()
