"""A real gunicorn without a worker, with the agent ann, who signs what she sends."""

from __future__ import annotations

import itertools
import json
import time
from copy import copy
from pathlib import Path

import psutil

from backend.auth.agents_file import add_agent
from backend.auth.hmac_signing import sign_request
from backend.config import Settings
from backend.jobs.models import Job, NewFile
from backend.jobs.store import JobStore
from backend.jobs.worker_registry import WorkerRegistry, WorkerState, WorkerStatus
from backend.periodic import utc_now
from backend.storage.database import Database
from orfeas_client.signing import digest_body
from tests.support.server_process import GUNICORN, RawAnswer, ServerProcess, raw_request
from tests.support.store_backends import submit
from tests.support.workshop import eventually

_numbers = itertools.count()


class Served:
    """A gunicorn without a worker, in whose registry one says that it is ready."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.settings = Settings(data_dir=folder)
        self.key = add_agent(self.settings.agents_file, "ann", rate_limit=10_000)
        given = {"UNAUTHENTICATED_RATE_LIMIT": "10000", **environment}
        self.server = ServerProcess(GUNICORN, folder, **given)
        self.say_ready()

    def say_ready(self) -> None:
        eventually(lambda: self.server.ask(raw_request("GET", "/api/agent/health", {})).status == 503)
        database = Database.open(self.settings.database_url)
        WorkerRegistry(database, utc_now).beat(WorkerState("w", WorkerStatus.READY), 600)
        database.close()
        eventually(lambda: self.server.ask(raw_request("GET", "/api/agent/health", {})).status == 200)

    def headers(self, method: str, target: str, body: bytes = b"") -> dict[str, str]:
        path, _, query = target.partition("?")
        timestamp, nonce, digest = int(time.time()), f"nonce-{next(_numbers):06d}", digest_body(body)
        signature = sign_request(self.key, method, path, query, "ann", timestamp, nonce, digest)
        return {
            "X-Agent-ID": "ann",
            "X-Agent-Timestamp": str(timestamp),
            "X-Agent-Nonce": nonce,
            "X-Agent-Content-SHA256": digest,
            "X-Agent-Signature": signature,
        }

    def get(self, signed: str, sent: str | None = None) -> RawAnswer:
        """Return the answer to a target that is sent as it was signed, or otherwise."""
        return self.server.ask(raw_request("GET", sent or signed, self.headers("GET", signed)))


class ServedJobs(Served):
    """A gunicorn and, beside it, a store of its job table as another process has it."""

    def __init__(self, folder: Path, **environment: str) -> None:
        super().__init__(folder, **{"AGENT_WAITS": "3", **environment})
        self.database = Database.open(self.settings.database_url)
        self.store = JobStore(self.database, utc_now)

    @property
    def agent_id(self) -> str:
        entry = json.loads(self.settings.agents_file.read_text())["agents"]["ann"]
        return str(entry["internal_id"])

    def job(self) -> str:
        return submit(self.store, self.agent_id)[0]

    def run(self, job_id: str) -> Job:
        """Lease the one job that waits."""
        (leased,) = self.store.lease("w", 1, 600)
        assert leased.id == job_id
        return leased

    def again(self, port: int = 0) -> ServedJobs:
        """Return the same service, started anew; port : 0 for any."""
        other = copy(self)
        other.server = ServerProcess(GUNICORN, self.settings.data_dir, PORT=str(port))
        return other

    def threads(self) -> int:
        """Return how many threads answer."""
        (worker,) = psutil.Process(self.server.process.pid).children()
        found: int = worker.num_threads()
        return found

    def complete(self, job: Job) -> None:
        """End a run with a mesh, of which there is nothing but its name."""
        self.store.complete(job, [NewFile("mesh", "glb", f"{job.id}.glb", 100)], "")
