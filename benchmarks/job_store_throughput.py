"""How many submissions, leases, looks at a status and nonces a second one database bears, on SQLite and PostgreSQL.

    python -m benchmarks.job_store_throughput

It prints tables and writes them to benchmarks/results/. Servers are its own, with default durability: an answer that
was given survives a power cut. As many processes as a column says do the same thing again and again for some seconds;
each has connections of its own, as web processes and workers have. It does not know what the jobs are.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import multiprocessing
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing.pool import Pool
from pathlib import Path

from limits import RateLimitItemPerMinute
from limits.storage import RedisStorage
from limits.strategies import MovingWindowRateLimiter
from sqlalchemy import null, update

from backend.auth.agents_file import add_agent
from backend.auth.hmac_signing import sign_request
from backend.auth.nonces import NonceStore
from backend.auth.nonces_redis import RedisNonceStore
from backend.auth.nonces_sql import SqlNonceStore
from backend.config import Settings
from backend.jobs.models import Job, NewJob, Report, Status
from backend.jobs.schema import jobs, metadata
from backend.jobs.store import JobStore
from backend.main import create_app
from backend.storage.database import Database
from backend.storage.migrations import migrate
from benchmarks.support.postgres import PostgresCluster
from benchmarks.support.redis import RedisServer
from orfeas_client.signing import EMPTY_DIGEST

RESULT = Path(__file__).parent / "results" / "job_store_throughput.md"
PROCESSES = (1, 4, 8)
DEPTHS = (100, 1000, 10_000)
AGENTS = 20
BATCH = 4
_NO_LIMIT = 1_000_000_000

Action = Callable[[], object]


@dataclass(frozen=True)
class Work:
    """What one process does: an action's name, where, from when (time.time()) and for how long."""

    action: str
    url: str
    number: int
    begins: float
    seconds: float


def now() -> datetime:
    """Return the present."""
    return datetime.now(UTC)


@functools.cache
def database_at(url: str) -> Database:
    """Return this process's connections to a database."""
    return Database.open(url)


@functools.cache
def nonces_at(url: str) -> NonceStore:
    """Return this process's nonce store at an address."""
    return RedisNonceStore(url) if url.startswith("redis") else SqlNonceStore(database_at(url))


def new_job(number: int) -> NewJob:
    """Return a job of usual size."""
    request = (
        '{"format":"glb","quality":7,"octree_resolution":384,"steps":null,"guidance_scale":null,"seed":1234567,'
        '"target_faces":null,"remove_background":"auto","scale_mm":null}'
    )
    return NewJob(request, "demo 384 q7 None", f"{number:032x}.png")


def submitting(url: str, number: int) -> Action:
    """Submit a job and withdraw it, so that the queue stays as deep as it is: two transactions."""
    store = JobStore(database_at(url), now)
    agent = f"submitter-{number}"

    def act() -> None:
        (job_id,) = store.submit(agent, [new_job(number)], queue_limit=_NO_LIMIT, agent_limit=_NO_LIMIT).job_ids
        store.cancel(job_id, agent)

    return act


def leasing(url: str, number: int) -> Action:
    """Lease a batch and put it back, so that the queue stays as deep as it is: two transactions."""
    database = database_at(url)
    store = JobStore(database, now)
    waiting = {"status": Status.QUEUED, "lease_owner": null(), "lease_expires_at": null()}

    def act() -> None:
        leased: list[Job] = store.lease(f"worker-{number}", BATCH, 600)
        with database.write() as connection:
            connection.execute(update(jobs).where(jobs.c.id.in_([job.id for job in leased])).values(waiting))

    return act


def beating(url: str, number: int) -> Action:
    """Report the progress of a leased batch, which a worker does most often: one transaction."""
    store = JobStore(database_at(url), now)
    owner = f"worker-{number}"
    held = store.lease(owner, BATCH, 600)
    reports = [Report(job, 50, "sample 2/4", 1.0) for job in held]
    return lambda: store.report(owner, reports, 600)


def looking(url: str, number: int) -> Action:
    """Read jobs by their ids."""
    store = JobStore(database_at(url), now)
    agent = f"agent-{number % AGENTS}"
    ids = itertools.cycle([job.id for job in store.list_jobs(agent, None, 50).jobs])
    return lambda: store.get(next(ids), agent)


def placing(url: str, number: int) -> Action:
    """Ask for the queue position of a waiting job, as a call for its status does besides."""
    store = JobStore(database_at(url), now)
    found = itertools.cycle(store.list_jobs(f"agent-{number % AGENTS}", None, 50).jobs)
    return lambda: store.queue_position(next(found))


def noting(url: str, number: int) -> Action:
    """Note nonces."""
    store, names = nonces_at(url), itertools.count()
    stem = f"{number}-{time.time_ns()}"
    return lambda: store.remember("agent", f"{stem}-{next(names)}", now(), timedelta(seconds=600))


def counting(url: str, number: int) -> Action:
    """Count a request of one of many agents against its limit, as Flask-Limiter does."""
    limiter = MovingWindowRateLimiter(RedisStorage(url))
    limit, names = RateLimitItemPerMinute(100), itertools.cycle(f"agent-{number}-{k}" for k in range(50))
    return lambda: limiter.hit(limit, next(names))


ACTIONS = {action.__name__: action for action in (submitting, leasing, beating, looking, placing, noting, counting)}


def repeat(work: Work) -> int:
    """Do a process's work; return how often it was done."""
    act = ACTIONS[work.action](work.url, work.number)
    act()
    time.sleep(max(0.0, work.begins - time.time()))
    ends, done = time.perf_counter() + work.seconds, 0
    while time.perf_counter() < ends:
        act()
        done += 1
    return done


def rate(pool: Pool, action: str, url: str, processes: int, seconds: float) -> float:
    """Return how many times a second so many processes do something together."""
    begins = time.time() + 1.0
    work = [Work(action, url, number, begins, seconds) for number in range(processes)]
    return sum(pool.map(repeat, work, chunksize=1)) / seconds


def fill(url: str, depth: int) -> None:
    """Empty the tables and put so many jobs of AGENTS agents into the queue."""
    database = database_at(url)
    with database.write() as connection:
        for table in metadata.tables.values():
            connection.execute(table.delete())
    store = JobStore(database, now)
    each = depth // AGENTS
    for number in range(AGENTS):
        for start in range(0, each, 500):
            new = [new_job(k) for k in range(start, min(each, start + 500))]
            store.submit(f"agent-{number}", new, queue_limit=_NO_LIMIT, agent_limit=_NO_LIMIT)
    if not database.is_sqlite:
        with database.write() as connection:
            connection.exec_driver_sql("ANALYZE")


def signed_reads(folder: Path, seconds: float) -> float:
    """Count signed calls for a status a second in one thread of one web process, on SQLite, all else in memory."""
    settings = Settings(data_dir=folder, worker_enabled=False, nonce_store="memory", agents_file=folder / "agents.json")
    key = add_agent(settings.agents_file, "agent-0", rate_limit=1_000_000)
    app = create_app(settings)
    store = JobStore(database_at(settings.database_url), now)
    (job_id,) = store.submit("agent-0", [new_job(0)], queue_limit=9, agent_limit=9).job_ids
    store.cancel(job_id, "agent-0")
    client, path, names = app.test_client(), f"/api/agent/status/{job_id}", itertools.count()

    def act() -> None:
        nonce, moment = f"nonce-{next(names):09d}", int(time.time())
        headers = {
            "X-Agent-ID": "agent-0",
            "X-Agent-Timestamp": str(moment),
            "X-Agent-Nonce": nonce,
            "X-Agent-Content-SHA256": EMPTY_DIGEST,
            "X-Agent-Signature": sign_request(key, "GET", path, "", "agent-0", moment, nonce, EMPTY_DIGEST),
        }
        answer = client.get(path, headers=headers, environ_overrides={"RAW_URI": path})
        assert answer.status_code == 200, answer.text

    act()
    ends, done = time.perf_counter() + seconds, 0
    while time.perf_counter() < ends:
        act()
        done += 1
    return done / seconds


@contextmanager
def servers(folder: Path) -> Iterator[tuple[dict[str, str], str]]:
    """Give the databases by name, with empty tables, and a Redis."""
    cluster, redis = PostgresCluster(durable=True), RedisServer()
    try:
        cluster.start()
        redis.start()
        urls = {"SQLite": f"sqlite:///{folder / 'jobs.sqlite3'}", "PostgreSQL": cluster.url}
        for url in urls.values():
            migrate(url)
        yield urls, redis.url
    finally:
        cluster.destroy()
        redis.destroy()


def table(title: str, head: str, rows: list[tuple[str, list[float]]]) -> list[str]:
    """Return one table as markdown lines: a row's name, and a figure for each number of processes."""
    columns = " | ".join(f"{count} process{'es' if count > 1 else ''}" for count in PROCESSES)
    lines = ["", f"## {title}", "", f"| {head} | {columns} |", "|---|" + "---|" * len(PROCESSES)]
    return lines + [
        f"| {name} | " + " | ".join(f"{figure:,.0f}" for figure in figures) + " |" for name, figures in rows
    ]


def by_depth(pool: Pool, urls: dict[str, str], action: str, seconds: float) -> list[tuple[str, list[float]]]:
    """Measure rates of something that depends on how many jobs wait."""
    rows = []
    for (name, url), depth in itertools.product(urls.items(), DEPTHS):
        fill(url, depth)
        rows.append((f"{name}, {depth:,} waiting", [rate(pool, action, url, count, seconds) for count in PROCESSES]))
    return rows


def report(seconds: float, folder: Path) -> str:
    """Return all tables, as markdown."""
    load = os.getloadavg()[0]
    lines = [
        "# What the job table bears",
        "",
        f"{platform.machine()}, {os.cpu_count()} cores shared by the processes that ask, the servers and other work "
        f"(load {load:.1f} at the start), {datetime.now(UTC):%Y-%m-%d}; {seconds:g} s a figure, all in things done a "
        f"second. Databases wait for the disk at each commit; {AGENTS} agents.",
    ]
    with servers(folder) as (urls, redis_url), multiprocessing.get_context("spawn").Pool(max(PROCESSES)) as pool:
        titles = {
            "submitting": "Submissions a second (a job put into the queue and withdrawn: two transactions)",
            "leasing": f"Leases a second ({BATCH} jobs each, then put back: two transactions)",
            "placing": "Places in the queue told a second",
        }
        for action, title in titles.items():
            lines += table(title, "queue", by_depth(pool, urls, action, seconds))
        for action, title in (
            ("looking", "Jobs read a second, by id"),
            ("beating", f"Heartbeats a second ({BATCH} leases each)"),
        ):
            rows = []
            for name, url in urls.items():
                fill(url, 1000)
                rows.append((name, [rate(pool, action, url, count, seconds) for count in PROCESSES]))
            lines += table(title, "database", rows)
        stores = {**urls, "Redis": redis_url}
        rows = [
            (name, [rate(pool, "noting", url, count, seconds) for count in PROCESSES]) for name, url in stores.items()
        ]
        lines += table("Nonces noted a second", "store", rows)
        limits = [("Redis", [rate(pool, "counting", redis_url, count, seconds) for count in PROCESSES])]
        lines += table("Requests counted against a limit a second", "store", limits)
    lines += [
        "",
        f"Signed looks at a status in one thread, without the network: {signed_reads(folder, seconds):,.0f} a second.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each figure")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = report(arguments.seconds, Path(folder))
    print(text)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
