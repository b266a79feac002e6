"""A service of api.md's shape behind the real guard, and a wire to it that breaks when told to.

Its jobs make nothing: a mesh is its picture's bytes, and a job is done once it was looked at a few times.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flask import Flask, Response, jsonify, request, send_file, url_for

from backend.agent_auth import AgentGuard, require_agent_token
from backend.api.statuses import status_of
from backend.auth.agents_file import add_agent
from backend.auth.nonces import MemoryNonceStore
from backend.config import Settings
from backend.errors import ArtifactNotFound, JobNotFound, ServiceError
from tests.support.listening import listening

AGENT_ID = "a1"


@dataclass
class TinyJob:
    """A job, and how often it will be looked at before it is done."""

    id: str
    image: bytes
    fields: dict[str, str]
    looks_left: int
    status: str = "queued"
    outcome: str = "completed"

    def look(self) -> None:
        if self.status in ("queued", "processing"):
            self.status = "processing" if self.looks_left else self.outcome
            self.looks_left -= 1


@dataclass
class TinyService:
    """The app and what it was asked."""

    folder: Path
    looks: int = 2
    outcome: str = "completed"
    warnings: list[dict[str, str]] = field(default_factory=list)
    job: dict[str, TinyJob] = field(default_factory=dict)
    batches: dict[str, list[str]] = field(default_factory=dict)
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    hours_ahead: float = 0.0
    retry_after: str = "1"
    download_folder: str = ""
    public: str = ""
    healthy: bool = True
    strong_etags: bool = True

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)
        settings = Settings(data_dir=self.folder)
        self.api_key = add_agent(settings.agents_file, AGENT_ID, rate_limit=10_000, batch_rate_limit=10_000)
        self.app = Flask("tiny")
        AgentGuard.from_settings(settings, MemoryNonceStore(), self._clock).init_app(self.app)
        add = self.app.add_url_rule
        add("/api/agent/generate-3d", view_func=require_agent_token("generate")(self.generate), methods=["POST"])
        add("/api/agent/batch", view_func=require_agent_token("batch")(self.batch), methods=["POST"])
        add("/api/agent/cutout", view_func=require_agent_token("generate")(self.cutout), methods=["POST"])
        add("/api/agent/status/<name>", view_func=require_agent_token("status")(self.status))
        add("/api/agent/download/<name>", view_func=require_agent_token("download")(self.download))
        add("/api/agent/jobs/<name>", view_func=require_agent_token("generate")(self.cancel), methods=["DELETE"])
        add("/api/agent/jobs/<name>/again", view_func=require_agent_token("generate")(self.again), methods=["POST"])
        add("/api/agent/jobs", view_func=require_agent_token("status")(self.jobs))
        add("/api/agent/health", view_func=self.health)
        self.app.register_error_handler(ServiceError, self.refuse)

    def _clock(self) -> datetime:
        return datetime.fromtimestamp(datetime.now(UTC).timestamp() + 3600 * self.hours_ahead, UTC)

    def generate(self) -> tuple[Response, int]:
        def submit() -> dict[str, Any]:
            # A job of several views is told from others by all of them.
            views = sorted(request.files.items())
            job = self._submit(b"".join(file.read() for _, file in views))
            job.fields.update({name: file.filename or "" for name, file in views if name != "image"})
            return {"job_id": job.id, "status": job.status, "status_url": url_for("status", name=job.id)}

        answer = self._once(submit)
        if request.form.get("async") == "true":
            return jsonify(success=True, **answer), 202
        job = self.job[answer["job_id"]]
        job.status = job.outcome
        return jsonify(success=True, **self._described(job)), 200

    def batch(self) -> tuple[Response, int]:
        def submit() -> dict[str, Any]:
            ids = [self._submit(file.read()).id for file in request.files.getlist("images")]
            batch_id = f"{next(self._numbers):032x}"
            self.batches[batch_id] = ids
            return {"batch_id": batch_id, "job_ids": ids, "total_images": len(ids), "status_url": "/"}

        return jsonify(success=True, **self._once(submit)), 202

    def cutout(self) -> Response:
        job = self._submit(request.files["image"].read())
        job.status = "completed"
        background = {"method": "flood", "score": 0.9, "border": 0.25, "objects": 2}
        url = f"/api/agent/download/{job.id}.png"
        return jsonify(
            success=True, cutout_url=url, metadata={"background": background}, warnings=self.warnings, expires_at="x"
        )

    def status(self, name: str) -> Response:
        if name in self.batches:
            items = [self._looked_at(job_id) for job_id in self.batches[name]]
            done = all(item["status"] == self.outcome for item in items)
            status = self.outcome if done else "processing"
            answer = jsonify(success=True, batch_id=name, status=status, progress=50, items=items)
        else:
            item = self._looked_at(name)
            done = item["status"] in ("completed", "failed", "cancelled")
            answer = jsonify(success=True, **item)
        if not done and self.retry_after:
            answer.headers["Retry-After"] = self.retry_after
        return answer

    def download(self, name: str) -> Response:
        job = self.job.get(name.partition(".")[0])
        if job is None or job.status != "completed":
            raise ArtifactNotFound
        etag = hashlib.sha256(job.image).hexdigest()
        answer = send_file(io.BytesIO(job.image), "model/gltf-binary", conditional=True, etag=etag)
        if not self.strong_etags:
            answer.set_etag(etag, weak=True)
        return answer

    def cancel(self, name: str) -> Response:
        job = self._find(name)
        job.status = "cancelled"
        return jsonify(success=True, **self._described(job))

    def again(self, name: str) -> tuple[Response, int]:
        def submit() -> dict[str, Any]:
            job = self._submit(self._find(name).image)
            job.fields = {**self._find(name).fields, **job.fields}
            return {"job_id": job.id, "status": job.status, "status_url": self.public + url_for("status", name=job.id)}

        return jsonify(success=True, **self._once(submit)), 202

    def jobs(self) -> Response:
        newest, limit = sorted(self.job, reverse=True), int(request.args.get("limit", 20))
        start = newest.index(request.args["cursor"]) + 1 if "cursor" in request.args else 0
        page = newest[start : start + limit]
        more = page[-1] if start + limit < len(newest) else None
        return jsonify(success=True, jobs=[self._described(self.job[name]) for name in page], next_cursor=more)

    def health(self) -> tuple[Response, int]:
        device = {"type": "cpu", "name": "a processor", "memory_total": 2**33, "memory_free": 2**32}
        facts = {"version": "0.1.0", "model": {"name": "demo", "loaded": self.healthy}, "device": device}
        if self.healthy:
            return jsonify(success=True, status="ok", queue_size=3, active_jobs=1, **facts), 200
        refused = {"success": False, "error": "No worker.", "code": "GPU_BUSY", "request_id": "r", "details": {}}
        return jsonify(status="unavailable", queue_size=0, active_jobs=0, **facts, **refused), 503

    def refuse(self, error: ServiceError) -> tuple[Response, int]:
        answer = jsonify(
            success=False, error=error.message, code=error.code, request_id="request-7", details=error.details
        )
        retry_after = getattr(error, "retry_after", None)
        if retry_after is not None:
            answer.headers["Retry-After"] = str(retry_after)
        return answer, status_of(error)

    def _submit(self, image: bytes) -> TinyJob:
        job = TinyJob(f"{next(self._numbers):032x}", image, dict(request.form), self.looks, outcome=self.outcome)
        self.job[job.id] = job
        return job

    def _once(self, submit: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        key = request.headers["Idempotency-Key"]
        if key not in self.answers:
            self.answers[key] = submit()
        return self.answers[key]

    def _find(self, name: str) -> TinyJob:
        if name not in self.job:
            raise JobNotFound
        return self.job[name]

    def _looked_at(self, name: str) -> dict[str, Any]:
        self._find(name).look()
        return self._described(self.job[name])

    def _described(self, job: TinyJob) -> dict[str, Any]:
        done = job.status == "completed"
        fmt = job.fields.get("format", "glb")
        url = f"{self.public}{self.download_folder or '/api/agent/download/'}{job.id}.{fmt}" if done else None
        link = f"{url}?expires=1760000000&signature={'0' * 64}" if done else None
        return {
            "job_id": job.id,
            "status_url": f"{self.public}/api/agent/status/{job.id}",
            "batch_id": None,
            "status": job.status,
            "progress": 100 if done else 40,
            "current_step": "denoising" if job.status == "processing" else "",
            "eta_seconds": None if done else 7.5,
            "queue_position": 3 if job.status == "queued" else None,
            "download_url": url,
            "signed_url": link,
            "files": [{"format": fmt, "url": url, "signed_url": link, "bytes": len(job.image)}] if done else [],
            "processing_time": 1.25 if done else None,
            "metadata": {"format": fmt, "faces": 1234, "watertight": True, "seed": 7, "file_size": len(job.image)}
            | ({"warnings": self.warnings} if self.warnings else {})
            if done
            else None,
            "error": {"code": "NO_FOREGROUND", "message": "No object was found."} if job.status == "failed" else None,
        }

    @contextlib.contextmanager
    def serving(self) -> Iterator[int]:
        """Give the port of a real server while the block runs."""
        with listening(self.app) as port:
            yield port


@dataclass(frozen=True)
class Head:
    """A request line and its headers, as they came over the wire; names in lower case."""

    method: str
    target: str
    headers: dict[str, str]


Fault = Callable[["Wire", socket.socket, bytes, int], None]
"""Handles one connection: the wire, the client's socket, the request's head, and how long its body is."""


class Wire:
    """A port that leads to another; each connection carries one request and meets the next fault, if one is left."""

    def __init__(self, port: int, listen_on: int = 0) -> None:
        """Lead to a port. listen_on : where to be reached, 0 for any port that is free."""
        self.seen: list[Head] = []
        self.faults: deque[Fault] = deque()
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", listen_on))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client:
                client.settimeout(30)
                head = _read_head(client)
                if not head:
                    continue
                self.seen.append(_parse(head))
                length = int(self.seen[-1].headers.get("content-length", 0))
                fault = self.faults.popleft() if self.faults else passed_on
                fault(self, client, head, length)

    def ask(self, client: socket.socket, head: bytes, length: int) -> bytes:
        """Return the whole answer to the request whose head this is; its body is still to be read from the client."""
        lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
        lines.insert(1, b"Connection: close")
        with socket.create_connection(("127.0.0.1", self._target), timeout=30) as service:
            service.sendall(b"\r\n".join(lines))
            while length:
                chunk = client.recv(min(length, 1 << 16))
                service.sendall(chunk)
                length -= len(chunk)
            service.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: service.recv(1 << 16), b""))


def passed_on(wire: Wire, client: socket.socket, head: bytes, length: int) -> None:
    client.sendall(wire.ask(client, head, length))


def reset_after(size: int) -> Fault:
    """Reset the connection when so many bytes of the body have come; the service hears nothing."""

    def fault(_wire: Wire, client: socket.socket, _head: bytes, _length: int) -> None:
        taken = 0
        while taken < size:
            taken += len(client.recv(min(1 << 16, size - taken)))
        _reset(client)

    return fault


def answer_lost(wire: Wire, client: socket.socket, head: bytes, length: int) -> None:
    """Let the service do what was asked, and let nobody hear of it."""
    assert b" 20" in wire.ask(client, head, length)[:20]
    _reset(client)


def answer_cut(size: int) -> Fault:
    """End the connection when so many bytes of the answer's body were sent."""

    def fault(wire: Wire, client: socket.socket, head: bytes, length: int) -> None:
        top, _, body = wire.ask(client, head, length).partition(b"\r\n\r\n")
        client.sendall(top + b"\r\n\r\n" + body[:size])

    return fault


def answer_changed(old: bytes, new: bytes) -> Fault:
    """Something else stands in the answer."""

    def fault(wire: Wire, client: socket.socket, head: bytes, length: int) -> None:
        answer = wire.ask(client, head, length)
        assert old in answer
        client.sendall(answer.replace(old, new))

    return fault


def answered(status: str, *headers: str, body: str = "") -> Fault:
    """Another answer than the service's, which hears nothing."""

    def fault(_wire: Wire, client: socket.socket, _head: bytes, length: int) -> None:
        while length:
            length -= len(client.recv(min(1 << 16, length)))
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
        client.sendall("\r\n".join([*lines, "", body]).encode())

    return fault


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def _read_head(client: socket.socket) -> bytes:
    head = b""
    # One byte at a time leaves the body on the socket.
    while not head.endswith(b"\r\n\r\n"):
        byte = client.recv(1)
        if not byte:
            return b""
        head += byte
    return head


def _parse(head: bytes) -> Head:
    first, *rest = head.decode("latin-1").strip().split("\r\n")
    method, target, _ = first.split(" ")
    pairs = (line.partition(":") for line in rest)
    return Head(method, target, {name.lower(): value.strip() for name, _, value in pairs})
