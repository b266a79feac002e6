"""Mixed traffic for a soak, and a watch over the processes that bear it.

Everything that callers do at once: good and bad requests, hostile uploads, cancellations, downloads, looks at status,
health and metrics. This module does not know for how long, or what is asked of the figures.
"""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.support.faults.web_harness import Callers, images, one_image, until
from tests.support.hostile import FORM, HostileUpload, hostile_uploads
from tests.support.running import API, REPOSITORY, Answer, RunningService

MIB = 1 << 20
_LARGEST_HOSTILE = 1 << 20
_UNFINISHED = ("queued", "processing")
_SOON = {"quality": 1, "steps": 10}


class Traffic:
    """What many callers ask of one service, forever; every answer is the one that the question must get."""

    def __init__(self, service: RunningService) -> None:
        self.counts: Counter[str] = Counter()
        self._service = service
        self._open = threading.Event()
        self._open.set()
        self._samples = [path.read_bytes() for path in sorted((REPOSITORY / "samples").glob("*.png"))]
        self._hostile = [each for each in hostile_uploads(2_000_000) if len(each.body) < _LARGEST_HOSTILE]

    def begin(self, callers: Callers) -> None:
        """Add one thread of each kind to callers."""
        kinds = (
            (self._single, 0.2),
            (self._batch, 1.0),
            (self._cancelled, 0.5),
            (self._refused_upload, 0.1),
            (self._unsigned, 0.05),
            (self._looks, 0.05),
        )
        for number, (kind, pause) in enumerate(kinds):
            callers.add_loop(self._loop(callers, kind, pause, random.Random(number)))

    def _loop(
        self, callers: Callers, kind: Callable[[random.Random], None], pause: float, chance: random.Random
    ) -> Callable[[], None]:
        def run() -> None:
            while not callers.stopping:
                if not self._open.wait(0.2):
                    continue
                kind(chance)
                time.sleep(chance.uniform(0, 2 * pause))

        return run

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Lets all callers pause, until the block ends, and begins it when nothing waits or runs any more.

        A lone job comes last: what it leaves is collected with what all others left.
        """
        self._open.clear()
        try:
            until(self._is_idle, "no job waits or runs")
            time.sleep(6)
            self._single(random.Random(0))
            until(self._is_idle, "the lone job is done")
            time.sleep(2)
            yield
        finally:
            self._open.set()

    def _is_idle(self) -> bool:
        found = self._service.send("GET", f"{API}/health", {}).json()
        return bool(found["queue_size"] == 0 and found["active_jobs"] == 0)

    def _single(self, chance: random.Random) -> None:
        """One picture, waited for, and downloaded in the ways there are."""
        fields = {**_SOON, "format": chance.choice(("glb", "stl", "obj", "ply")), "seed": chance.randrange(2**32)}
        if chance.random() < 0.3:
            fields["target_faces"] = 5000
        answer = self._post("/generate-3d", one_image(chance.choice(self._samples), **fields))
        if answer.status != 202:
            self._expect(answer, (429, "RATE_LIMITED"))
            return
        found = self._followed(answer.json()["job_id"])
        if found is None or found["status"] != "completed":
            # The time to live is short enough to be over while a job still waits.
            assert found is None or "EXPIRED" in str(found["error"]), found
            self._note("job expired")
            return
        self._note("job completed")
        path = str(found["download_url"]).removeprefix(API)
        whole = self._get(path)
        if whole.status == 404:  # expired meanwhile
            return
        assert whole.status == 200
        assert len(whole.body) == int(whole.headers["Content-Length"])
        for headers, status in (
            ({"If-None-Match": whole.headers["ETag"]}, 304),
            ({"Range": "bytes=0-99"}, 206),
        ):
            assert self._get(path, headers).status in (status, 404)
        self._note("mesh downloaded")

    def _batch(self, chance: random.Random) -> None:
        body = images(*chance.sample(self._samples, 2), **_SOON)
        answer = self._post("/batch", body)
        if answer.status == 202:
            self._followed(answer.json()["batch_id"])
            self._note("batch followed")

    def _cancelled(self, chance: random.Random) -> None:
        answer = self._post("/generate-3d", one_image(chance.choice(self._samples), **_SOON))
        if answer.status == 202:
            time.sleep(chance.uniform(0, 2))
            target = f"{API}/jobs/{answer.json()['job_id']}"
            self._expect(self._service.call("DELETE", target), (200, ""), (404, "JOB_NOT_FOUND"))
            self._note("job cancelled")

    def _refused_upload(self, chance: random.Random) -> None:
        upload: HostileUpload = chance.choice(self._hostile)
        if upload.status == 202:
            return
        path = "/batch" if upload.operation == "batch" else "/generate-3d"
        answer = self._service.call("POST", API + path, upload.body, headers={"Content-Type": upload.content_type})
        self._expect(answer, (upload.status, upload.code))
        self._note("hostile upload refused")

    def _unsigned(self, chance: random.Random) -> None:
        target = f"{API}/status/{chance.randbytes(16).hex()}?{chance.random()}"
        headers = self._service.sign("GET", target)
        headers["X-Agent-Signature"] = chance.randbytes(32).hex()
        self._expect(self._service.send("GET", target, headers), (401, "AUTH_INVALID"))
        self._expect(self._service.send("GET", f"/{chance.randbytes(8).hex()}", {}), (404, "NOT_FOUND"))
        self._service.send_bytes(chance.randbytes(200) + b"\r\n\r\n")
        self._note("stranger refused")

    def _looks(self, chance: random.Random) -> None:
        self._expect(self._get("/jobs?limit=100"), (200, ""))
        self._expect(self._get(f"/status/{chance.randbytes(16).hex()}"), (404, "JOB_NOT_FOUND"))
        self._expect(self._service.send("GET", f"{API}/health", {}), (200, ""))
        self._expect(self._service.send("GET", "/metrics", {}), (200, ""))
        self._expect(self._service.send("GET", "/openapi.json", {}), (200, ""))
        self._note("look")

    def _followed(self, thing: str) -> dict[str, object] | None:
        """Return a job or batch once it is finished; None when it was removed before anybody looked."""
        while True:
            answer = self._get(f"/status/{thing}")
            if answer.status == 404:
                return None
            found = answer.json()
            if found["status"] not in _UNFINISHED:
                return found
            time.sleep(0.3)

    def _post(self, path: str, body: bytes) -> Answer:
        return self._service.call("POST", API + path, body, headers={"Content-Type": FORM})

    def _get(self, path: str, headers: dict[str, str] | None = None) -> Answer:
        return self._service.get(path, headers=headers or {})

    def _expect(self, answer: Answer, *refusals: tuple[int, str]) -> None:
        assert answer.refusal in refusals, (answer.refusal, refusals, answer.body[:300])

    def _note(self, what: str) -> None:
        self.counts[what] += 1


@dataclass(frozen=True)
class Sample:
    """One process at one moment; own : bytes that no other process shares; rss : bytes, shared ones included."""

    seconds: float
    own: int
    rss: int
    files: int
    threads: int


@dataclass(eq=False)
class Watch:
    """Looks at processes: again and again on a thread of its own, and when it is told that they rest.

    load, rest : what it saw, by the process's part in the service
    """

    processes: dict[str, psutil.Process]
    load: dict[str, list[Sample]] = field(default_factory=lambda: defaultdict(list))
    rest: dict[str, list[Sample]] = field(default_factory=lambda: defaultdict(list))
    _began: float = field(default_factory=time.monotonic)
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Watch:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def note_rest(self) -> None:
        """Now nothing runs."""
        for name, sample in self._look():
            self.rest[name].append(sample)

    def _run(self) -> None:
        while not self._ended.wait(1.0):
            for name, sample in self._look():
                self.load[name].append(sample)

    def _look(self) -> Iterator[tuple[str, Sample]]:
        for name, process in self.processes.items():
            memory = process.memory_full_info()
            seconds = time.monotonic() - self._began
            yield name, Sample(seconds, memory.uss, memory.rss, process.num_fds(), process.num_threads())


def growth(samples: list[Sample], figure: Callable[[Sample], float]) -> tuple[float, float]:
    """Return a figure's mean over the first third of some samples and over the last."""
    size = max(1, len(samples) // 3)
    return statistics.fmean(map(figure, samples[:size])), statistics.fmean(map(figure, samples[-size:]))


def family(service: RunningService) -> dict[str, psutil.Process]:
    """Return the service's processes by what they do."""
    (serving,) = service.web_processes()
    return {"gunicorn's arbiter": serving.parent(), "web and worker": serving}


def write_report(path: Path, text: str) -> None:
    """Keep a report where the benchmarks keep theirs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
