"""Edge contraction by fast_simplification, which holds the interpreter: large meshes are handed to a child process.

While the library works no other thread of its process runs, nobody is answered and no lease is renewed; a mesh of
600,000 faces takes half a second. Question and answer lie in files without a name, in memory where the system offers
that, so that each crosses in one step and a child that says nothing, or too much, holds up nobody.

It does not know of meshes as such, nor of what the faces are wanted for.
"""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import fast_simplification
import numpy as np

from backend.errors import DecimationFailed, InvalidParameter
from backend.hunyuan3d.mesh import decimation_child as child
from backend.hunyuan3d.mesh.topology import Faces, Vertices

_log = logging.getLogger(__name__)
_ROOT = Path(__file__).resolve().parents[3]
# What the system's loader and the interpreter need to be found again; nothing else of the environment is handed on.
_HANDED_ON = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME")
# The library keeps the mesh it works on in globals between its calls.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class ChildRules:
    """Which meshes a child process contracts, and how long it may take: `seconds` and `seconds_per_face` together.

    min_faces : fewer are contracted here. At 50,000 the library holds the interpreter for some 20 ms on a machine that
    starts a child in 100 ms (benchmarks/results/decimation.md).
    """

    min_faces: int = 50_000
    seconds: float = 30.0
    seconds_per_face: float = 1e-4

    def __post_init__(self) -> None:
        if self.min_faces < 0:
            raise InvalidParameter(f"min_faces must not be negative, as {self.min_faces} is.")
        if not (0 < self.seconds < math.inf and 0 <= self.seconds_per_face < math.inf):
            raise InvalidParameter("The seconds that a child process may take must be finite and above zero.")

    def limit(self, faces: int) -> float:
        """Return the seconds for a mesh of so many faces."""
        return self.seconds + self.seconds_per_face * faces


def contract(
    vertices: Vertices, faces: Faces, target_faces: int, aggressiveness: float, rules: ChildRules | None = None
) -> tuple[Vertices, Faces]:
    """Contract edges until about `target_faces` are left; return vertices (V', 3) and faces (F', 3). Any thread may.

    The result is the same, bit for bit, here and in a child. Where no child can be started, the mesh is contracted
    here. Raises DecimationFailed when a child that had started did not answer, or not with a mesh: to try the same here
    could end this process as well. Raises MemoryError.
    """
    with Contractor(rules) as own:
        return own(vertices, faces, target_faces, aggressiveness)


class Contractor:
    """Does what `contract` does, and can have a child come up while the mesh for it is still being made."""

    def __init__(self, rules: ChildRules | None = None) -> None:
        self._rules = rules or ChildRules()
        self._waiting: _Child | None = None

    def __enter__(self) -> Contractor:
        return self

    def __exit__(self, *_: object) -> None:
        """End a child that was not asked."""
        if self._waiting is not None:
            self._waiting.close()
            self._waiting = None

    def expect(self, faces: int) -> None:
        """Have a child come up, for a mesh of about so many faces. A failure shows when it is asked."""
        if faces >= self._rules.min_faces and self._waiting is None:
            with suppress(OSError, _NotStartedError):
                self._waiting = _Child()

    def __call__(
        self, vertices: Vertices, faces: Faces, target_faces: int, aggressiveness: float
    ) -> tuple[Vertices, Faces]:
        """Contract a mesh."""
        if len(faces) >= self._rules.min_faces:
            try:
                asked, self._waiting = self._waiting or _Child(), None
                with asked:
                    limit = self._rules.limit(len(faces))
                    return asked.contract(vertices, faces, target_faces, aggressiveness, limit)
            except (_NotStartedError, OSError) as failure:
                _log.warning(
                    "A mesh of %d faces holds up this process: no child could be started: %s", len(faces), failure
                )
        with _ONE_AT_A_TIME:
            points, corners = fast_simplification.simplify(
                np.ascontiguousarray(vertices),
                np.ascontiguousarray(faces),
                target_count=target_faces,
                agg=aggressiveness,
            )
        return np.asarray(points, dtype=np.float64), np.asarray(corners, dtype=np.int64)


class _NotStartedError(Exception):
    """No child came so far as to read its question."""


class _Child:
    """A process that answers one question, which it may be given once it is up. Raises OSError when it cannot start."""

    def __init__(self) -> None:
        with ExitStack() as opened:
            self._question = opened.enter_context(_unnamed_file())
            self._out = opened.enter_context(_unnamed_file())
            held, go = os.pipe()
            self._go = opened.enter_context(os.fdopen(go, "wb", buffering=0))
            try:
                self._process = subprocess.Popen(  # noqa: S603
                    [sys.executable or "", "-P", "-m", child.__name__, str(held)],
                    stdin=self._question,
                    stdout=self._out,
                    stderr=subprocess.PIPE,
                    env=_environment(),
                    cwd="/",
                    pass_fds=[held],
                    # An interrupt typed at a terminal is for the one who asked, who may want to finish.
                    start_new_session=True,
                )
            finally:
                os.close(held)
            self._opened = opened.pop_all()

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process, whatever it does, and leave nothing of it."""
        with self._opened, self._process:
            self._process.kill()

    def contract(
        self, vertices: Vertices, faces: Faces, target_faces: int, aggressiveness: float, limit: float
    ) -> tuple[Vertices, Faces]:
        """Ask the question and return the answer. Raises _NotStartedError, DecimationFailed, MemoryError, OSError."""
        # A second more: who waits here is to say what went wrong.
        own_limit = math.ceil(limit) + 1
        header = child.QUESTION.pack(len(vertices), len(faces), target_faces, aggressiveness, own_limit)
        # Both share the place in the file where it is read and written on.
        self._question.write(header)
        child.write_arrays(self._question, vertices, faces)
        self._question.seek(0)
        ending = self._ending(limit)
        self._out.seek(0)
        if self._out.read(len(child.READY)) != child.READY:
            raise _NotStartedError(ending or "it said nothing")
        if ending:
            raise _failed(ending, len(faces), target_faces)
        return _answer(self._out, len(vertices), len(faces), target_faces)

    def _ending(self, limit: float) -> str:
        """Let the process go on to its end; what it came to, nothing when all went well. Raises MemoryError."""
        with suppress(BrokenPipeError):
            self._go.write(b"1")
        try:
            _, stderr = self._process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            return f"it took longer than {limit:.0f} s"
        if self._process.returncode == child.OUT_OF_MEMORY:
            raise MemoryError("the child that contracts edges ran out of memory")
        said = stderr.decode("utf-8", "replace").strip()[-1000:]
        return f"exit code {self._process.returncode}: {said}" if self._process.returncode else ""


def _environment() -> dict[str, str]:
    """Let modules be found where this process finds them, and numpy start without threads."""
    paths = [entry for entry in sys.path if Path(entry).is_absolute()]
    if str(_ROOT) not in paths:
        paths.append(str(_ROOT))
    kept = {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
    return kept | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _answer(out: BinaryIO, max_vertices: int, max_faces: int, target_faces: int) -> tuple[Vertices, Faces]:
    """Read the mesh behind READY in a child's answer.

    Raises DecimationFailed unless it is one, and no larger than asked.
    """
    header = out.read(child.ANSWER.size)
    vertices, faces = child.ANSWER.unpack(header) if len(header) == child.ANSWER.size else (-1, -1)
    if not (0 <= vertices <= max_vertices and 0 <= faces <= max_faces):
        raise _failed("its answer has no header", max_faces, target_faces)
    try:
        points, corners = child.read_arrays(out, vertices, faces)
    except EOFError as failure:
        raise _failed(str(failure), max_faces, target_faces) from failure
    named = corners.size == 0 or (corners.min() >= 0 and corners.max() < vertices)
    if not named or not np.isfinite(points).all():
        raise _failed("its answer is not a mesh", max_faces, target_faces)
    return np.asarray(points, dtype=np.float64), np.asarray(corners, dtype=np.int64)


def _failed(why: str, faces: int, target_faces: int) -> DecimationFailed:
    _log.error("The process that was to reduce a mesh from %d to %d faces failed: %s", faces, target_faces, why)
    return DecimationFailed(
        "The process that reduces meshes failed on this one; try again, or ask for more faces.",
        details={"asked": target_faces, "faces": faces},
    )


def _unnamed_file() -> BinaryIO:
    return os.fdopen(os.memfd_create("mesh"), "w+b") if sys.platform == "linux" else tempfile.TemporaryFile()
