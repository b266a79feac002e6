"""Programs that people open meshes with: Blender, PrusaSlicer, three.js in Chromium, and what each makes of a file.

`install-viewers.sh` installs them. This module does not know how the files were made.
"""

from __future__ import annotations

import base64
import http.server
import json
import re
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import Any
from urllib.parse import urlencode, urlsplit

from benchmarks.support.readers import run

INSTALL = Path(__file__).with_name("install-viewers.sh")
_BUILD = Path(__file__).parents[2] / "build"
_SECONDS = 90
CHROMIUM_ARGUMENTS = (
    "--no-sandbox", "--disable-dev-shm-usage", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
)  # fmt: skip
"""For a machine without a screen or a graphics card."""

_CHROMIUM = ("chromium", "--headless=new", *CHROMIUM_ARGUMENTS, "--disable-extensions")
_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".html": "text/html", ".wasm": "application/wasm"}


@dataclass(frozen=True)
class Sliced:
    """What PrusaSlicer finds: size as width, depth, height; repaired : whether it had to mend the mesh."""

    size: tuple[float, float, float]
    faces: int
    parts: int
    manifold: bool
    repaired: bool


def blender_views(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Return what Blender makes of each file, as blender_reader.py says it."""
    said = run(_BUILD / "blender" / "bin" / "python", Path(__file__).with_name("blender_reader.py"), *files)
    found: list[dict[str, Any]] = json.loads(said[said.index("JSON") + 4 :].splitlines()[0])
    return found


def sliced(file: Path) -> Sliced:
    """Return what PrusaSlicer says of a file."""
    said = run("prusa-slicer", "--info", file)
    values = dict(re.findall(r"^(\w+) = +(\S+)$", said, re.MULTILINE))
    width, depth, height = (float(values[f"size_{axis}"]) for axis in "xyz")
    return Sliced(
        (width, depth, height),
        int(values["number_of_facets"]),
        int(values["number_of_parts"]),
        values["manifold"] == "yes",
        any(name in values for name in ("needed_repair", "edges_fixed", "degenerate_facets", "facets_removed")),
    )


def first_layer(file: Path) -> tuple[float, float]:
    """Return the width and depth, mm, of the first layer that PrusaSlicer lays down, without skirt and brim."""
    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder) / "mesh.gcode"
        run(
            "prusa-slicer", "--export-gcode", "--output", code, "--layer-height", "0.2", "--first-layer-height", "0.2",
            "--skirts", "0", "--fill-density", "0%", "--top-solid-layers", "0", "--bottom-solid-layers", "1", file,
        )  # fmt: skip
        text = code.read_text(errors="replace")
    first = text.split(";LAYER_CHANGE")[1]
    moves = re.findall(r"^G1 X(\S+) Y(\S+) E(?!-)", first, re.MULTILINE)
    xs, ys = [float(x) for x, _ in moves], [float(y) for _, y in moves]
    return max(xs) - min(xs), max(ys) - min(ys)


class ThreeViewer:
    """Shows files in three.js, in a Chromium without a screen; use it as a context."""

    def __init__(self, folder: Path) -> None:
        """folder : where the files lie."""
        self._answers: Queue[dict[str, Any]] = Queue()
        roots = {"modules": _BUILD / "readers" / "node_modules", "files": folder, "viewer.html": Path(__file__).parent}
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(roots, self._answers))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> ThreeViewer:
        """Begin to serve."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._server.shutdown()
        self._server.server_close()

    def show(self, file: Path, *, z_up: bool) -> dict[str, Any]:
        """Return the average sRGB without light, the share of the frame that is covered, the size, and a picture.

        Raises RuntimeError when the page fails or does not answer.
        """
        query = urlencode({"file": f"/files/{file.name}", "up": "z" if z_up else "y"})
        address = f"http://127.0.0.1:{self._server.server_port}/viewer.html?{query}"
        # Its helpers may still write there when the browser has ended.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            browser = subprocess.Popen(  # noqa: S603
                [*_CHROMIUM, f"--user-data-dir={profile}", address],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                answer = self._answers.get(timeout=_SECONDS)
            except Empty as nothing:
                raise RuntimeError(f"three.js did not show {file.name} within {_SECONDS} s") from nothing
            finally:
                browser.terminate()
                browser.wait(timeout=30)
        if "error" in answer:
            raise RuntimeError(f"three.js cannot show {file.name}: {answer['error']}")
        answer["picture"] = base64.b64decode(answer["picture"].partition(",")[2])
        return answer


def _handler(roots: dict[str, Path], answers: Queue[dict[str, Any]]) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            head, _, rest = urlsplit(self.path).path.lstrip("/").partition("/")
            path = roots[head] / (rest or head) if head in roots else None
            if path is None or not path.is_file():
                self.send_error(404)
                return
            data = path.read_bytes()
            self.send_response(200)
            self.send_header("Content-Type", _TYPES.get(path.suffix, "application/octet-stream"))
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_POST(self) -> None:
            answers.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    return Handler
