"""A running service whose every answer and log line is looked at: for ids, for what may not be told, for harm.

This module does not know what is asked.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from tests.support.running import API, REPOSITORY, Answer, RunningService

WIDE: dict[str, Any] = {
    # Tests show other addresses by X-Forwarded-For.
    "TRUSTED_PROXIES": "127.0.0.1",
    "UNAUTHENTICATED_RATE_LIMIT": 1_000_000,
    "MAX_ACTIVE_JOBS": 1_000_000,
    "MAX_IMAGE_BYTES": 12_000_000,
    "QUEUE_LIMIT": 10_000,
    "SWEEP_SECONDS": 1,
}
_OWN_TEXT = re.compile(rb'"canonical_text":"(?:[^"\\]|\\.)*"')
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TELLTALES = (b"Traceback", b'File "', str(REPOSITORY).encode(), b"sqlite", b"SELECT ", b"root:")


class WatchedService(RunningService):
    """What it sends is remembered, and what it answers is held against the rules that hold for every answer."""

    def __init__(self, folder: Path, *, processes: int = 1, **settings: object) -> None:
        self._signatures: set[str] = set()
        super().__init__(folder, processes=processes, **settings)

    def send(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes = b"", *, ends: bool = False
    ) -> Answer:
        """As RunningService.send."""
        self._signatures.add(headers.get("X-Agent-Signature", ""))
        answer = super().send(method, target, headers, body, ends=ends)
        self._look(answer, status_asked=method == "GET" and target.startswith(f"{API}/status/"))
        return answer

    def check_logs(self) -> None:
        """Nothing went wrong unforeseen, and neither log nor audit tells a key or a signature."""
        audit = (self.data / "audit.jsonl").read_text("ascii") if (self.data / "audit.jsonl").exists() else ""
        for text in (self.log, audit):
            assert [agent.agent_id for agent in self.agents if agent.api_key in text] == []
            assert [signature for signature in self._signatures - {""} if signature in text] == []
        lines = [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]
        assert [line for line in lines if line["level"] in ("ERROR", "CRITICAL")] == []
        assert all({"request_id", "count"} & set(json.loads(line)) for line in audit.splitlines())

    def _look(self, answer: Answer, *, status_asked: bool) -> None:
        assert _REQUEST_ID.fullmatch(answer.headers.get("X-Request-ID", ""))
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.status != 500
        body = answer.body if answer.headers.get_content_maintype() != "model" else b""
        # Whoever put a key into a header that is signed gets his own text back, and nobody else does.
        whole = answer.headers.as_bytes() + _OWN_TEXT.sub(b"", body)
        secrets_ = [agent.api_key.encode() for agent in self.agents] + [str(self.data).encode()]
        assert [told for told in (*_TELLTALES, *secrets_) if told in whole] == []
        unfinished = False
        if answer.headers.get_content_type() == "application/json" and answer.body:
            said = answer.json()
            unfinished = status_asked and answer.status == 200 and said["status"] in ("queued", "processing")
            if answer.status >= 400:
                assert said["success"] is False
                assert {"error", "code", "request_id", "details"} <= set(said)
                assert said["request_id"] == answer.headers["X-Request-ID"]
            elif "openapi" not in said:
                assert said["success"] is True
            if answer.status in (429, 503) or unfinished:
                assert int(answer.headers["Retry-After"]) >= 1
        if "Retry-After" in answer.headers:
            assert answer.status in (202, 429, 503) or unfinished


@cache
def sample(name: str = "mug", side: int = 128) -> bytes:
    """Return a sample picture, small, as a PNG."""
    with Image.open(REPOSITORY / "samples" / f"{name}.png") as image:
        return png(image.convert("RGBA").resize((side, side)))


def png(image: Image.Image) -> bytes:
    """Return a picture as a file's bytes."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
