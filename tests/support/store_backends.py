"""The databases that the store's tests run on, each empty; and the parts that those tests share."""

from __future__ import annotations

import atexit
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
from sqlalchemy import make_url

from backend.auth.nonces_sql import SqlNonceStore
from backend.errors import LeaseLost
from backend.jobs.models import Heartbeat, Job, NewFile, NewJob, Report
from backend.jobs.schema import metadata
from backend.jobs.store import JobStore
from backend.storage.database import Database
from backend.storage.migrations import migrate
from benchmarks.support.postgres import PostgresCluster

BACKENDS = ("sqlite", "postgresql")
START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


class ManualClock:
    """A clock that moves when told."""

    def __init__(self, now: datetime = START) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@cache
def postgres_cluster() -> PostgresCluster:
    """Return this process's server, started at the first use and ended with the process.

    Fails, saying what to install, on a machine that neither has the server nor may install it.
    """
    cluster = PostgresCluster()
    atexit.register(cluster.destroy)
    cluster.start()
    return cluster


def empty_database(backend: str, folder: Path) -> str:
    """Return the address of a database with empty tables."""
    path = folder / "jobs.sqlite3"
    if backend == "sqlite" and not path.exists():
        make_file(path)
        return f"sqlite:///{path}"
    url = f"sqlite:///{path}" if backend == "sqlite" else postgres_cluster().url
    migrate(url)
    with open_database(url) as database:
        clear(database)
    return url


def make_file(path: Path) -> None:
    """Make a SQLite file with empty tables, as a start would."""
    path.touch(mode=0o600)
    path.write_bytes(_migrated())


@cache
def _migrated() -> bytes:
    """Return what a SQLite file holds after all migrations, which are run once: a copy takes no time."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "empty.sqlite3"
        migrate(f"sqlite:///{path}")
        return path.read_bytes()


def fresh_database(backend: str, folder: Path) -> str:
    """Return the address of a database without tables."""
    if backend == "sqlite":
        return f"sqlite:///{folder / 'fresh.sqlite3'}"
    whole, name = make_url(postgres_cluster().url), f"fresh_{secrets.token_hex(8)}"
    with psycopg.connect(postgres_cluster().url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return whole.set(database=name).render_as_string(hide_password=False)


@contextmanager
def open_database(url: str) -> Iterator[Database]:
    """Give the database, closed at the end."""
    database = Database.open(url)
    try:
        yield database
    finally:
        database.close()


def clear(database: Database) -> None:
    """Remove every row."""
    with database.write() as connection:
        for table in metadata.tables.values():
            connection.execute(table.delete())


def new_jobs(count: int, batch_key: str = "demo/20/5.0/256") -> list[NewJob]:
    """Jobs to submit, told apart by their input."""
    return [NewJob(f'{{"seed": {k}}}', batch_key, f"inputs/{k}.png") for k in range(count)]


def mesh_file(name: str) -> list[NewFile]:
    """Return what a job has that made one mesh."""
    return [NewFile("mesh", name.rpartition(".")[2], name, 4)]


def submit(store: JobStore, agent_id: str, count: int = 1, batch_key: str = "demo/20/5.0/256") -> tuple[str, ...]:
    """Submit jobs one by one, within wide bounds; return their ids."""
    return tuple(
        store.submit(agent_id, [job], queue_limit=1000, agent_limit=1000).job_ids[0]
        for job in new_jobs(count, batch_key)
    )


def remember_all(url: str, nonces: list[str]) -> list[str]:
    """Show nonces to the store from a process of its own; return those that were new."""
    with open_database(url) as database:
        store = SqlNonceStore(database)
        return [nonce for nonce in nonces if store.remember("ann", nonce, START, timedelta(seconds=600))]


def report_progress(
    store: JobStore, job: Job, progress: int, step: str, eta_seconds: float | None, *, lease_seconds: float = 60
) -> Job:
    """Report how far one run is, as its worker; return the job. Raises LeaseLost when it is no longer held."""
    reports = [Report(job, progress, step, eta_seconds)]
    held = store.report(job.lease_owner or "worker", reports, lease_seconds).held
    if not held:
        raise LeaseLost(details={"job_id": job.id})
    return held[0]


def beat_of(store: JobStore, owner: str, held: Sequence[Job]) -> Heartbeat:
    """Extend the leases of a worker's jobs by a minute, without any progress."""
    return store.report(owner, [Report(job, job.progress, job.current_step, job.eta_seconds) for job in held], 60)
