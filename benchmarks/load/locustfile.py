"""Agents of six kinds, as locust users; each is an agent of its own, and signs what it sends.

They read from LOAD_AGENTS a file with their ids and keys, from LOAD_IMAGE a picture, from LOAD_FIELDS (JSON) what they
ask for. `benchmarks.load.run` starts the service and this. Calls are named as the API names them, so that the figures
are by call.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import secrets
import socket
import time
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from locust import FastHttpUser, constant, events, task

from orfeas_client.signing import digest_body, sign_request

API = "/api/agent"
_BOUNDARY = "load-0123456789"
_FORM = f"multipart/form-data; boundary={_BOUNDARY}"
_AGENTS = itertools.cycle(json.loads(Path(os.environ["LOAD_AGENTS"]).read_text()).items())
_IMAGE = Path(os.environ["LOAD_IMAGE"]).read_bytes()
_FIELDS: dict[str, str] = json.loads(os.environ["LOAD_FIELDS"])
_WAIT = "30"


def form(part: str, count: int, fields: Mapping[str, str]) -> bytes:
    """Return a form with the picture so many times; a seed of its own makes each a new request."""
    given = {**_FIELDS, "seed": str(random.getrandbits(32)), **fields}
    pieces = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in given.items()
    ]
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{part}"; filename="a.png"\r\n'
    head += "Content-Type: image/png\r\n\r\n"
    pieces += [head.encode() + _IMAGE + b"\r\n"] * count
    return b"".join(pieces) + f"--{_BOUNDARY}--\r\n".encode()


class Agent(FastHttpUser):
    """Whoever signs."""

    abstract = True
    wait_time = constant(0)
    network_timeout = 90.0

    def on_start(self) -> None:
        """Become one of the agents."""
        self.agent_id, self.key = next(_AGENTS)

    def signed(self, method: str, target: str, body: bytes = b"") -> dict[str, str]:
        """Return the signing headers of a request."""
        path, _, query = target.partition("?")
        when, nonce, digest = int(time.time()), secrets.token_hex(12), digest_body(body)
        return {
            "X-Agent-ID": self.agent_id,
            "X-Agent-Timestamp": str(when),
            "X-Agent-Nonce": nonce,
            "X-Agent-Content-SHA256": digest,
            "X-Agent-Signature": sign_request(self.key, method, path, query, self.agent_id, when, nonce, digest),
        }

    def call(self, method: str, path: str, name: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, Any]]:
        """Send a signed request; return its status and, where it is JSON, its body. Limits count as answers."""
        target, sent = API + path, {name.replace("_", "-"): value for name, value in headers.items()}
        with self.client.request(
            method,
            target,
            data=body or None,
            headers={**self.signed(method, target, body), **sent},
            name=name,
            catch_response=True,
        ) as answer:
            status = answer.status_code or 0
            if status in (429, 503):
                answer.failure(f"{status} {self._json(answer).get('code', '')}")
            return status, self._json(answer)

    @staticmethod
    def _json(answer: Any) -> dict[str, Any]:
        try:
            found = json.loads(answer.text or "{}")
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def submit(self, batch: int = 0) -> str:
        """Send a job, or a batch of so many; return its id, "" where it was refused."""
        body = form("images", batch, {}) if batch else form("image", 1, {"async": "true"})
        path, name = ("/batch", "POST /batch") if batch else ("/generate-3d", "POST /generate-3d")
        status, answer = self.call("POST", path, name, body, Content_Type=_FORM)
        if status != 202:
            time.sleep(1)
            return ""
        return str(answer.get("batch_id") or answer["job_id"])

    def look(self, job_id: str) -> dict[str, Any]:
        """Return a job's status."""
        return self.call("GET", f"/status/{job_id}", "GET /status")[1]

    def fetch(self, job: Mapping[str, Any]) -> None:
        """Download a finished job's mesh."""
        url = job.get("download_url")
        if url:
            self.call("GET", urllib.parse.urlsplit(str(url)).path.removeprefix(API), "GET /download")


class Single(Agent):
    """Send a picture, ask for it when Retry-After says, fetch its mesh."""

    weight = 4

    @task
    def make(self) -> None:
        """Make one mesh."""
        job_id = self.submit()
        while job_id:
            job = self.look(job_id)
            if job.get("status") not in ("queued", "processing"):
                self.fetch(job)
                return
            time.sleep(min(5.0, max(1.0, float(job.get("eta_seconds") or 2) / 2)))


class Batches(Agent):
    """Send four pictures and wait for them by ?wait=."""

    weight = 2

    @task
    def make(self) -> None:
        """Make four meshes."""
        batch_id = self.submit(batch=4)
        while batch_id:
            _, found = self.call("GET", f"/status/{batch_id}?wait={_WAIT}", "GET /status?wait=")
            if found.get("status") not in ("queued", "processing"):
                for item in found.get("items", []):
                    self.fetch(item)
                return


class Polling(Agent):
    """Ask again and again, ten times a second."""

    weight = 4
    wait_time = constant(0.1)

    def on_start(self) -> None:
        """Send the one job that is asked for."""
        super().on_start()
        self.job_id = self.submit()

    @task(4)
    def one(self) -> None:
        """Ask for a job."""
        if self.job_id:
            self.look(self.job_id)

    @task(1)
    def all(self) -> None:
        """List the jobs."""
        self.call("GET", "/jobs?limit=20", "GET /jobs")


class Waiting(Agent):
    """Hold a call that is answered when something changes, one after the other."""

    weight = 2

    @task
    def follow(self) -> None:
        """Follow a job step by step."""
        job_id = self.submit()
        while job_id:
            _, job = self.call("GET", f"/status/{job_id}?wait={_WAIT}", "GET /status?wait=")
            if job.get("status") not in ("queued", "processing"):
                return


class Downloads(Agent):
    """Fetch the same mesh again and again, twice a second."""

    weight = 2
    wait_time = constant(0.5)

    def on_start(self) -> None:
        """Have a mesh made."""
        super().on_start()
        self.job: dict[str, Any] = {}
        job_id = self.submit()
        while job_id and self.job.get("status") not in ("completed", "failed", "cancelled"):
            self.job = self.call("GET", f"/status/{job_id}?wait={_WAIT}", "GET /status?wait=")[1]

    @task
    def again(self) -> None:
        """Fetch it."""
        self.fetch(self.job)


class Slow(Agent):
    """Send a request's body in drops, for as long as the service takes it."""

    weight = 1

    @task
    def drip(self) -> None:
        """Send 40 kB a second; the picture is taken in the end, and its job is cancelled."""
        body = form("image", 1, {"async": "true"})
        target = f"{API}/generate-3d"
        lines = [f"POST {target} HTTP/1.1", "Host: localhost", "Connection: close", f"Content-Type: {_FORM}"]
        lines += [f"{name}: {value}" for name, value in self.signed("POST", target, body).items()]
        lines += [f"Content-Length: {len(body)}", "", ""]
        place, begun, error = urllib.parse.urlsplit(self.host or ""), time.perf_counter(), None
        answer = b""
        try:
            with socket.create_connection((place.hostname or "", place.port or 80), timeout=90) as connection:
                connection.sendall("\r\n".join(lines).encode())
                for start in range(0, len(body), 20_000):
                    connection.sendall(body[start : start + 20_000])
                    time.sleep(0.5)
                answer = b"".join(iter(lambda: connection.recv(65536), b""))
        except OSError as failure:
            error = failure
        status = answer[9:12].decode()
        if error is None and status != "202":
            error = OSError(status)
        events.request.fire(
            request_type="",
            name="POST /generate-3d, in drops",
            response_time=1000 * (time.perf_counter() - begun),
            response_length=len(answer),
            exception=error,
        )
        if error is None:
            job_id = json.loads(answer.partition(b"\r\n\r\n")[2])["job_id"]
            self.call("DELETE", f"/jobs/{job_id}", "DELETE /jobs")
