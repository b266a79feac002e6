"""The way of one `POST /api/agent/generate-3d` through the service, counted: calls, modules, and what the image costs.

    python benchmarks/walk.py [ROOT] [--job] [--list]

ROOT is the checkout that is walked, this one when absent, so that two versions can be compared. The request is signed,
asks for its answer at once, and goes through Flask's test client into the whole service, whose worker never starts:
what is counted is the thread that answers, with an image of 3 KB and, in brackets, with one of 4 MB. Another request
of the same kind goes first, so that nothing is counted that happens once.

With `--job` one whole job of the demo model is counted: the request, and then the worker, from the lease until the
file is recorded, on all threads, those that keep leases alive among them. The image is the small one, at quality 1 in
ten steps, and what a picture takes of memory is not measured first. `--list` prints every call, each under the one that
made it.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import io
import itertools
import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from PIL import Image

OWN_ROOT = Path(__file__).resolve().parent.parent
TARGET = "/api/agent/generate-3d"
KEY = "walk-key-0123456789abcdef0123456789"
BOUNDARY = "walk-7d83"
SMALL_SIDE, LARGE_SIDE = 32, 1200
REPEATS = 8
STREAMED = 8
"""A digest that took bytes this often took an image in pieces."""


@dataclass
class Walk:
    """What one request did.

    calls : functions of the product, in order, as (depth, module, function); a generator counts each time it goes on
    pairs : the functions that such calls go from and to, each pair once
    switches : calls whose caller, the nearest function of the product on the stack, is in another module
    opened : files opened for writing, by name or by the folder that a nameless one lies in
    read : files opened for reading, alike
    decoded : how often an image's pixels were decoded
    updates : by digest, how often it took bytes
    """

    root: str
    calls: list[tuple[int, str, str]] = field(default_factory=list)
    switches: int = 0
    pairs: set[tuple[str, str]] = field(default_factory=set)
    opened: list[str] = field(default_factory=list)
    read: list[str] = field(default_factory=list)
    decoded: int = 0
    updates: Counter[int] = field(default_factory=Counter)
    _stacks: defaultdict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    _last_opened: str = ""

    def profile(self, frame: FrameType, event: str, argument: Any) -> None:
        """Take one event of sys.setprofile."""
        if event == "c_call":
            if argument.__name__ == "update" and type(argument.__self__).__name__ == "HASH":
                self.updates[id(argument.__self__)] += 1
            return
        code = frame.f_code
        if event not in ("call", "return") or (code.co_name.startswith("<") and code.co_name != "<lambda>"):
            return
        if not code.co_filename.startswith((f"{self.root}/backend/", f"{self.root}/orfeas_client/")):
            if event == "call" and code.co_qualname == "ImageFile.load" and frame.f_locals["self"].tile:
                self.decoded += 1
            return
        stack = self._stacks[threading.get_ident()]
        if event == "return":
            # What a thread was in when the counting began also returns.
            if stack:
                stack.pop()
            return
        module = code.co_filename.removeprefix(f"{self.root}/").removesuffix(".py").replace("/", ".")
        name = f"{module} {code.co_qualname}"
        if stack and stack[-1].split()[0] != module:
            self.switches += 1
            self.pairs.add((stack[-1], name))
        self.calls.append((len(stack), module, code.co_qualname))
        stack.append(name)

    def times(self, *names: str) -> int:
        """Return how often functions of these names were called, whatever class they are of."""
        return sum(function.rsplit(".", 1)[-1] in names for _, _, function in self.calls)

    def audit(self, event: str, arguments: tuple[Any, ...], folder: str) -> None:
        """Take one event of sys.addaudithook."""
        if event != "open" or not str(arguments[0]).startswith(folder):
            return
        path, mode, flags = arguments
        writes = bool(flags & (os.O_WRONLY | os.O_RDWR)) if mode is None else any(letter in mode for letter in "wax+")
        # A file is audited twice where whoever opens it calls os.open below that.
        if not (mode is None and self._last_opened == path):
            (self.opened if writes else self.read).append(str(path).removeprefix(f"{folder}/"))
        self._last_opened = path if mode is not None else ""


def noisy_png(side: int) -> bytes:
    """Return an image that no encoder makes small, so that each time it is written shows in the bytes written."""
    pixels = np.random.default_rng(7).integers(0, 256, (side, side, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def form(image: bytes, **more: str) -> bytes:
    """Return the body: an image, and a few fields."""
    edge = f"--{BOUNDARY}\r\n".encode()
    fields = {"async": "true", "quality": "7", "seed": "7", "format": "glb"} | more
    texts = [f'Content-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n' for name, text in fields.items()]
    head = b'Content-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    return b"".join(edge + text.encode() for text in texts) + edge + head + image + f"\r\n--{BOUNDARY}--\r\n".encode()


def signed_headers(body: bytes, number: int) -> dict[str, str]:
    """Return the signing headers of the request, made as the contract says and with nothing of the service."""
    digest, timestamp, nonce = hashlib.sha256(body).hexdigest(), str(int(time.time())), f"nonce-{number:06d}"
    text = "\n".join(("v1", "POST", TARGET, "", "ann", timestamp, nonce, digest))
    return {
        "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
        "X-Agent-ID": "ann",
        "X-Agent-Timestamp": timestamp,
        "X-Agent-Nonce": nonce,
        "X-Agent-Content-SHA256": digest,
        "X-Agent-Signature": hmac.new(KEY.encode(), text.encode(), hashlib.sha256).hexdigest(),
    }


@contextmanager
def service(folder: Path) -> Iterator[tuple[Any, Any]]:
    """Give the app of the checkout that comes first on sys.path, with one agent, and its worker, not started yet."""
    from backend.config import Settings
    from backend.main import create_app
    from backend.services import AgentServices

    agents = folder / "agents.json"
    agents.touch(mode=0o600)
    agents.write_text(json.dumps({"format": 1, "agents": {"ann": {"name": "", "api_keys": [KEY]}}}))
    settings = Settings(data_dir=folder)
    services = AgentServices.from_settings(settings)
    try:
        yield create_app(settings, services), services.worker
    finally:
        services.stop()


class Walker:
    """An app that requests are sent to, and counted in.

    Threads that begin after it are counted too.
    """

    def __init__(self, root: Path, folder: str, app: Any) -> None:
        self._root = root
        self._folder = folder
        self._client = app.test_client()
        self._numbers = itertools.count()
        self._walk: Walk | None = None
        sys.addaudithook(self._audit)
        threading.setprofile(self._profile)

    def send(self, body: bytes) -> None:
        """Send one request; it must be accepted."""
        headers = signed_headers(body, next(self._numbers))
        answer = self._client.post(TARGET, data=body, headers=headers, buffered=True)
        if answer.status_code != 202:
            raise SystemExit(f"The request was refused: {answer.get_data(as_text=True)}")
        answer.close()

    def count(self, body: bytes) -> Walk:
        """Count one request."""
        return self.count_call(lambda: self.send(body))

    def count_call(self, call: Callable[[], object]) -> Walk:
        """Count what a call does."""
        walk = self._walk = Walk(str(self._root))
        sys.setprofile(walk.profile)
        try:
            call()
        finally:
            sys.setprofile(None)
            self._walk = None
        return walk

    def _profile(self, frame: FrameType, event: str, argument: Any) -> None:
        walk = self._walk
        if walk is not None:
            walk.profile(frame, event, argument)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._walk is not None:
            self._walk.audit(event, arguments, self._folder)


def walk(root: Path) -> tuple[Walk, dict[str, str]]:
    """Count requests of the checkout at root: the one with a small image call by call, and the numbers by name."""
    sys.path.insert(0, str(root))
    small, image = form(noisy_png(SMALL_SIDE)), noisy_png(LARGE_SIDE)
    large = form(image)
    with tempfile.TemporaryDirectory(prefix="walk-") as folder, service(Path(folder)) as (app, _):
        walker = Walker(root, folder, app)
        walker.send(small)
        counted, streamed = walker.count(small), walker.count(large)
        written, began = _written(), time.perf_counter()
        for _ in range(REPEATS):
            walker.send(large)
        seconds, written = (time.perf_counter() - began) / REPEATS, _written() - written
        began = time.perf_counter()
        for _ in range(REPEATS):
            walker.send(small)
        quick = (time.perf_counter() - began) / REPEATS
    modules = {module for _, module, _ in counted.calls}
    return counted, {
        "calls": f"{len(counted.calls)} ({len(streamed.calls)})",
        "switches between modules": f"{counted.switches} ({streamed.switches})",
        "different functions": str(len({call[1:] for call in counted.calls})),
        "modules": str(len(modules)),
        "files opened to write, audit log included": str(len(counted.opened)),
        "times the image is written": f"{written / REPEATS / len(image):.1f}",
        "times the image is hashed": str(sum(count >= STREAMED for count in streamed.updates.values())),
        "times the image is decoded": str(streamed.decoded),
        "milliseconds, image of 32×32": f"{1000 * quick:.1f}",
        f"milliseconds, image of {LARGE_SIDE}×{LARGE_SIDE}": f"{1000 * seconds:.0f}",
    }


def walk_job(root: Path) -> tuple[Walk, dict[str, str]]:
    """Count one whole job of the checkout at root: the worker's part call by call, and the numbers by name."""
    sys.path.insert(0, str(root))
    from backend import hunyuan_integration

    setattr(hunyuan_integration, "measure_costs", _unmeasured)  # noqa: B010  its type is not a stand-in's
    body = form(noisy_png(SMALL_SIDE), quality="1", steps="10", remove_background="never")
    with tempfile.TemporaryDirectory(prefix="walk-") as folder, service(Path(folder)) as (app, worker):
        walker = Walker(root, folder, app)
        worker.load()
        walker.send(body)
        worker.run_once()
        request, run = walker.count(body), walker.count_call(worker.run_once)
    if not run.times("complete"):
        raise SystemExit("The job was not completed.")
    parts = {"request": request, "worker": run}
    rows = {
        "calls": [len(part.calls) for part in parts.values()],
        "switches between modules": [part.switches for part in parts.values()],
        "pairs of functions that switch": [len(part.pairs) for part in parts.values()],
        "files opened to write, audit log included": [len(part.opened) for part in parts.values()],
        "files opened to read": [len(part.read) for part in parts.values()],
        "times the image is decoded": [part.decoded for part in parts.values()],
        "times the model checks steps": [
            part.times("check_steps", "check_num_inference_steps") for part in parts.values()
        ],
        "times the model checks guidance": [
            part.times("check_guidance", "check_guidance_scale") for part in parts.values()
        ],
        "times the capacity is asked": [part.times("batch_capacity") for part in parts.values()],
    }
    numbers = {name: f"{sum(each)} ({' + '.join(map(str, each))})" for name, each in rows.items()}
    functions = [{call[1:] for call in part.calls} for part in parts.values()]
    modules = [{module for module, _ in each} for each in functions]
    for name, sets in (("different functions", functions), ("modules", modules)):
        numbers[name] = f"{len(set[object]().union(*sets))} ({', '.join(str(len(each)) for each in sets)})"
    return run, numbers


def _unmeasured(*_: object) -> None:
    """Stand in for what takes minutes, and leaves the capacity to experience."""


def _written() -> int:
    """Return the bytes that this process has given to write calls."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("wchar")).split()[1])


def main() -> None:
    """Print what the walk counted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", nargs="?", type=Path, default=OWN_ROOT)
    parser.add_argument("--job", action="store_true", help="one whole job, not just its request")
    parser.add_argument("--list", action="store_true", help="every call")
    options = parser.parse_args()
    walked, numbers = (walk_job if options.job else walk)(options.root.resolve())
    if options.list:
        for depth, module, function in walked.calls:
            print(f"{'  ' * depth}{module} {function}")
        print(*walked.opened, *walked.read, "", sep="\n")
    for name, value in numbers.items():
        print(f"{name:42} {value:>20}")


if __name__ == "__main__":
    main()
