"""The service as operators run it: `python -m backend.serve` in a process of its own, on a real port, with real stores.

It can be started with any settings and number of processes, stopped, killed, and started again on the same data and
port. Every byte that is sent to it is the caller's choice. This module does not know what is tested with it.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import psutil

from backend.auth.agents_file import add_agent
from backend.auth.hmac_signing import sign_request
from backend.config import Settings
from backend.jobs.worker_registry import WorkerRegistry, WorkerState, WorkerStatus
from backend.setting_values import Meaning
from backend.storage.database import Database
from benchmarks.support.ports import free_port
from orfeas_client.signing import digest_body
from tests.support.hostile import FORM, Part, encode_form

API = "/api/agent"
REPOSITORY = Path(__file__).parents[2]
START_SECONDS = 180.0
STOP_SECONDS = 60.0
ANSWER_SECONDS = 150.0

_LOG_TAIL = 6000
_VARIABLES = {
    meaning.variable
    for hint in typing.get_type_hints(Settings, include_extras=True).values()
    for meaning in typing.get_args(hint)
    if isinstance(meaning, Meaning)
}


@dataclass(frozen=True)
class Agent:
    """Who signs."""

    agent_id: str
    api_key: str


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> dict[str, Any]:
        """Return the body, which must be a JSON object."""
        answer = json.loads(self.body)
        assert isinstance(answer, dict)
        return answer

    @property
    def code(self) -> str:
        """An error's code, "" where there is none."""
        is_json = self.headers.get_content_type() == "application/json" and self.body
        return str(self.json().get("code", "")) if is_json else ""

    @property
    def refusal(self) -> tuple[int, str]:
        """Status and code."""
        return self.status, self.code


class RunningService:
    """One service with its data folder; `start`, `stop` and `kill` may be called again and again.

    agent : the one who signs where no other is named; command : Python's arguments that start it; code : the checkout
    that is run
    """

    command: typing.ClassVar[Sequence[str]] = ("-m", "backend.serve")
    code = REPOSITORY

    def __init__(self, folder: Path, *, processes: int = 1, **settings: object) -> None:
        """Start nothing yet.

        folder : for all that the service writes; processes : gunicorn's `-w`; settings : variables of the environment
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.data = folder / "data"
        self.log_path = folder / "log"
        self.log_path.touch()
        self.settings = {name: str(value) for name, value in settings.items()}
        self.port = free_port()
        self._processes = processes
        self._process: subprocess.Popen[bytes] | None = None
        self._names = (f"agent-{k}" for k in itertools.count())
        self.agents: list[Agent] = []
        self.agent = self.add_agent()

    # Its life

    def start(self, *, health: int = 200) -> None:
        """Start the service, on the same port each time, and waits until /health answers so."""
        assert self._process is None, "it runs"
        with self.log_path.open("ab") as log:
            # A group of its own, so that `kill` gets all its processes; none outlives the test that started it.
            self._process = subprocess.Popen(  # noqa: S603
                ["/usr/bin/setpriv", "--pdeathsig", "KILL", sys.executable, *self.command],
                cwd=self.code,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self.wait_for_health(health)
        except BaseException:
            self.kill()
            raise

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """End the service as an operator would; it must end with 0."""
        process = self._running()
        process.send_signal(signal.SIGTERM)
        try:
            status: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
        self.kill()
        assert status == 0, f"It ended with {status}.\n{self.log_tail}"

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, as an operator would."""
        self._running().send_signal(number)

    def ended(self, seconds: float = STOP_SECONDS) -> int:
        """Return the status that the service ends with by itself, waited for."""
        status = self._running().wait(seconds)
        self.kill()
        return status

    def kill(self) -> None:
        """End every process of the service as a crash would; do nothing when none runs."""
        process, self._process = self._process, None
        if process is None:
            return
        family = _family(process.pid)
        for each in family:
            _signal(each, signal.SIGKILL)
        process.wait()
        # Their port is free only when all their threads are gone; who adopts them may let them lie as zombies.
        while any(map(_is_alive, family)):
            time.sleep(0.01)

    def kill_web_processes(self) -> None:
        """End the processes that answer requests, as a crash would; gunicorn starts new ones."""
        for each in self.web_processes():
            _signal(each, signal.SIGKILL)

    def web_processes(self) -> list[psutil.Process]:
        """Return the processes that answer requests."""
        return list(psutil.Process(self._running().pid).children())

    @property
    def is_running(self) -> bool:
        """Whether the service was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def wait_until(self, is_there: Callable[[], bool]) -> None:
        """Wait until something holds, while the service runs."""
        deadline = time.monotonic() + START_SECONDS
        while not is_there():
            assert self.is_running, f"The service has ended.\n{self.log_tail}"
            assert time.monotonic() < deadline, f"It never came to be.\n{self.log_tail}"
            time.sleep(0.05)

    def wait_for_health(self, status: int = 200) -> None:
        """Wait until /health answers so."""
        self.wait_until(lambda: self._health() == status)

    def pretend_worker(self) -> None:
        """Lets the service believe that a worker lives somewhere, so that it takes jobs, which then wait for ever."""
        state = WorkerState("nobody", WorkerStatus.READY, "demo", "cpu", "none", 1, 1)
        with self.database() as database:
            WorkerRegistry(database, lambda: datetime.now(UTC)).beat(state, 86400)
        self.wait_for_health()

    # What it has

    @property
    def base_url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def agents_file(self) -> Path:
        """Its agents."""
        return self.data / "agents.json"

    @property
    def log(self) -> str:
        """All it has printed and logged, through all its starts."""
        return self.log_path.read_text("utf-8", "replace")

    @property
    def log_tail(self) -> str:
        """The end of its log, for messages."""
        return self.log[-_LOG_TAIL:]

    @contextmanager
    def database(self) -> Iterator[Database]:
        """Its database, opened beside it."""
        url = self.settings.get("DATABASE_URL", f"sqlite:///{self.data / 'orfeas.sqlite3'}")
        database = Database.open(url)
        try:
            yield database
        finally:
            database.close()

    def files(self, part: str = "") -> list[str]:
        """Names of the files below the data folder, or below one of its folders, from there."""
        return sorted(str(path.relative_to(self.data)) for path in (self.data / part).rglob("*") if path.is_file())

    def add_agent(self, agent_id: str | None = None, **config: Any) -> Agent:
        """Add an agent as backend.auth.agents_file.add_agent does, with no narrow limits unless they are given."""
        name = agent_id or next(self._names)
        wide = {"rate_limit": 1_000_000, "batch_rate_limit": 1_000_000, "max_active_jobs": 1_000_000}
        self.data.mkdir(mode=0o700, exist_ok=True)
        self.agents.append(Agent(name, add_agent(self.agents_file, name, **{**wide, **config})))
        return self.agents[-1]

    # What is sent to it

    def sign(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        *,
        agent: Agent | None = None,
        timestamp: int | None = None,
        nonce: str | None = None,
    ) -> dict[str, str]:
        """Return the signing headers of a request; target : as on the request line."""
        who = agent or self.agent
        path, _, query = target.partition("?")
        time_, nonce, digest = timestamp or int(time.time()), nonce or secrets.token_hex(12), digest_body(body)
        return {
            "X-Agent-ID": who.agent_id,
            "X-Agent-Timestamp": str(time_),
            "X-Agent-Nonce": nonce,
            "X-Agent-Content-SHA256": digest,
            "X-Agent-Signature": sign_request(who.api_key, method, path, query, who.agent_id, time_, nonce, digest),
        }

    def send(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes = b"", *, ends: bool = False
    ) -> Answer:
        """One request on a connection of its own, with exactly these headers beside those that frame it.

        ends : whether no more can come after the body
        """
        lines = [f"{method} {target} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        framed = any(name.lower() in ("content-length", "transfer-encoding") for name in headers)
        if not framed and (body or method not in ("GET", "HEAD", "DELETE")):
            lines.append(f"Content-Length: {len(body)}")
        head = "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")
        return self.send_bytes(head + body, method, ends=ends)

    def send_bytes(self, request: bytes, method: str = "GET", *, ends: bool = False) -> Answer:
        """Any bytes on a connection of their own, and the first answer to them."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=ANSWER_SECONDS) as connection:
            # A service that refuses need not read on; what it said is there to be read all the same.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(request)
                if ends:
                    connection.shutdown(socket.SHUT_WR)
            response = http.client.HTTPResponse(connection, method=method)
            try:
                response.begin()
                return Answer(response.status, response.msg, response.read())
            finally:
                response.close()

    def call(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        *,
        agent: Agent | None = None,
        headers: Mapping[str, str | None] | None = None,
    ) -> Answer:
        """Send a signed request; headers : others, also in place of the signing ones; None leaves one out."""
        wanted = {**self.sign(method, target, body, agent=agent), **(headers or {})}
        return self.send(method, target, {name: value for name, value in wanted.items() if value is not None}, body)

    def get(self, path: str, **options: Any) -> Answer:
        """Send a signed GET below the API's path; options : of call."""
        return self.call("GET", API + path, **options)

    def generate(
        self, *images: bytes, agent: Agent | None = None, headers: Mapping[str, str] | None = None, **fields: object
    ) -> Answer:
        """Ask for one mesh; `async_` stands for the field async."""
        return self._submit("/generate-3d", "image", images, agent, headers, fields)

    def batch(
        self, *images: bytes, agent: Agent | None = None, headers: Mapping[str, str] | None = None, **fields: object
    ) -> Answer:
        """Ask for several meshes."""
        return self._submit("/batch", "images", images, agent, headers, fields)

    def status(self, job_id: str, agent: Agent | None = None) -> dict[str, Any]:
        """How a job or batch is."""
        answer = self.get(f"/status/{job_id}", agent=agent)
        assert answer.status == 200, answer.body
        return answer.json()

    def wait(self, job_id: str, agent: Agent | None = None, *, until: Sequence[str] = ()) -> dict[str, Any]:
        """How a job or batch is once it has finished, or is in one of these states."""
        states = until or ("completed", "failed", "cancelled")
        found: dict[str, Any] = {}

        def is_there() -> bool:
            found.update(self.status(job_id, agent))
            return found["status"] in states

        self.wait_until(is_there)
        return found

    def _submit(
        self,
        path: str,
        part: str,
        images: Sequence[bytes],
        agent: Agent | None,
        headers: Mapping[str, str] | None,
        fields: Mapping[str, object],
    ) -> Answer:
        # A preview takes longer than everything else; who wants one asks for it.
        given = {"preview": "false", **fields}
        texts = [Part(name.rstrip("_"), str(value).encode()) for name, value in given.items()]
        files = [Part(part, content, f"{k}.png", "image/png") for k, content in enumerate(images)]
        body = encode_form(*texts, *files)
        return self.call("POST", API + path, body, agent=agent, headers={"Content-Type": FORM, **(headers or {})})

    # Within

    def _environment(self) -> dict[str, str]:
        """Return this process's environment with the service's settings in place of any that it has."""
        inherited = {name: value for name, value in os.environ.items() if name not in _VARIABLES}
        return {
            **inherited,
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",
            "GUNICORN_CMD_ARGS": f"--workers {self._processes}" if self._processes > 1 else "",
            "ORFEAS_DATA_DIR": str(self.data),
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "DEVICE": "cpu",
            **self.settings,
        }

    def _health(self) -> int:
        try:
            return self.send("GET", f"{API}/health", {}).status
        except (OSError, http.client.HTTPException):
            return 0

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it does not run"
        return self._process


Service = TypeVar("Service", bound=RunningService)


@contextmanager
def running_service(
    folder: Path, kind: type[Service], *, processes: int = 1, works: bool = True, **settings: object
) -> Iterator[Service]:
    """Run a service with the block; works : whether it has a worker, else it only believes so and jobs wait."""
    given = settings if works else {"WORKER_ENABLED": "false", **settings}
    service = kind(folder, processes=processes, **given)
    try:
        service.start(health=200 if works else 503)
        if not works:
            service.pretend_worker()
        yield service
        if service.is_running:
            service.stop()
    finally:
        service.kill()


def _family(pid: int) -> list[psutil.Process]:
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1)
    except psutil.NoSuchProcess:
        return False
