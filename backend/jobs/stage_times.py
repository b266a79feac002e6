"""How long each stage of a run takes on one worker: learned from the warm-up and from every run, asked for any job.

What a stage costs grows with one number of a job each: images that run together, cells a side, faces. Each is a curve
through what was measured, so that a job of a kind that nobody has sent yet is known from its neighbours. Workers put
theirs into the registry as JSON text, so that every web process can ask it. This module does not know who runs a
stage, or how many jobs wait.
"""

from __future__ import annotations

import json
import math
import threading
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from backend.jobs.progress import StagePlan

MESHES_BEHIND = 2
"""Batches whose meshes may be unfinished before the device waits for them."""

_NEWEST = 0.3
_FACES_OF_SURFACE = 2.5
"""Triangles that a surface has for each cell of one face of the lattice's box: a sphere's, about."""


@dataclass(frozen=True)
class Workload:
    """What decides how long a job takes.

    steps : denoising steps; octree_resolution : cells a side; target_faces : None keeps all
    acceleration : none, balanced or fast; is_bare : whether neither colours nor a preview are made
    candidates : meshes that are made to choose from; finished : of which so many get files
    """

    steps: int
    octree_resolution: int
    target_faces: int | None = None
    acceleration: str = "none"
    is_bare: bool = False
    candidates: int = 1
    finished: int = 1

    @property
    def faces(self) -> int:
        """About how many faces the mesh will have."""
        whole = int(_FACES_OF_SURFACE * self.octree_resolution**2)
        return whole if self.target_faces is None else min(whole, self.target_faces)


@dataclass(frozen=True)
class Measured:
    """What one run took, or a part of one.

    seconds : by stage, of those that were measured; the whole batch's, except mesh, finish and export. `total` is from
    its lease to its end, `wait` what it waited between decode and mesh. batch_size : images that ran together
    evaluations : of the denoiser; None for as many as steps
    rehearsed : by the warm-up, whose word counts until a run of the same size has ended
    """

    workload: Workload
    seconds: Mapping[str, float]
    batch_size: int = 1
    evaluations: int | None = None
    rehearsed: bool = False


class Curve:
    """Seconds by size, between sizes that were measured and beyond them; sizes and seconds above 0.

    grows : the power of the size by which seconds grow where only one size is known
    """

    def __init__(self, grows: float, points: Iterable[tuple[float, float, int]] = ()) -> None:
        self._grows = grows
        self._points = {size: (seconds, runs) for size, seconds, runs in points}

    def note(self, size: float, seconds: float, *, rehearsed: bool = False) -> None:
        """Take in a measurement: a moving average, in which the first runs count as much as each other."""
        average, runs = self._points.get(size, (seconds, 0))
        if rehearsed and runs:
            return
        newest = max(_NEWEST, 1 / (runs + 1))
        self._points[size] = (average + newest * (max(seconds, 1e-6) - average), 0 if rehearsed else runs + 1)

    def at(self, size: float) -> float | None:
        """Return the seconds for a size; None when nothing was measured."""
        sizes = sorted(self._points)
        if not sizes:
            return None
        if size in self._points:
            return self._points[size][0]
        right = bisect_left(sizes, size)
        nearest = sizes[min(right, len(sizes) - 1)] if right == 0 else sizes[right - 1]
        pairs = list(pairwise(sizes))
        power = self._power(*pairs[min(max(right - 1, 0), len(pairs) - 1)]) if pairs else self._grows
        return self._points[nearest][0] * math.pow(size / nearest, power)

    def points(self) -> list[tuple[float, float, int]]:
        """Return what is known, for another Curve."""
        return [(size, round(seconds, 6), runs) for size, (seconds, runs) in sorted(self._points.items())]

    def _power(self, smaller: float, larger: float) -> float:
        """Return by which power of the size seconds grow from one to the next; noise may not turn it round."""
        ratio = max(self._points[larger][0], 1e-6) / max(self._points[smaller][0], 1e-6)
        return min(max(math.log(ratio) / math.log(larger / smaller), 0.0), 1.5 * self._grows)


_GROWS = {
    "preprocess": 1.0,  # by images together
    "encode": 1.0,
    "sample": 1.0,  # of one evaluation
    "decode": 2.0,  # of one image, by cells a side
    "mesh": 2.0,
    "decimated mesh": 2.0,
    "finish": 1.0,  # by faces
    "bare finish": 1.0,
    "export": 1.0,
    "rest": 0.0,
}
_EVALUATED = {"none": 1.0, "balanced": 0.5, "fast": 0.35}
"""Evaluations for each step, until a run has shown how many they are on this checkpoint."""


class StageTimes:
    """The curves of one worker; any thread may use it.

    default_steps : the checkpoint's; batch_size : how many images run together at most; threads : that make meshes
    """

    def __init__(self, default_steps: int = 0, batch_size: int = 1, threads: int = 1) -> None:
        self.default_steps = default_steps
        self.batch_size = batch_size
        self.threads = threads
        self._lock = threading.Lock()
        self._curves = {name: Curve(grows) for name, grows in _GROWS.items()}
        self._evaluated = dict(_EVALUATED)

    def note(self, measured: Measured) -> None:
        """Take in what a run took."""
        seconds, work, together = measured.seconds, measured.workload, max(1, measured.batch_size)
        evaluations = work.steps if measured.evaluations is None else measured.evaluations
        meshed = "mesh" if work.target_faces is None else "decimated mesh"
        finished = "bare finish" if work.is_bare else "finish"
        sizes: dict[str, tuple[str, float, float]] = {
            "preprocess": ("preprocess", together, 1),
            "encode": ("encode", together, 1),
            "sample": ("sample", together, max(1, evaluations)),
            "decode": ("decode", work.octree_resolution, together),
            "mesh": (meshed, work.octree_resolution, 1),
            "finish": (finished, _rounded(work.faces), 1),
            "export": ("export", _rounded(work.faces), 1),
        }
        with self._lock:
            for stage, (name, size, share) in sizes.items():
                if stage in seconds:
                    self._curves[name].note(size, seconds[stage] / share, rehearsed=measured.rehearsed)
            if not measured.rehearsed and work.steps > 0:
                self._evaluated[work.acceleration] = evaluations / work.steps
            if "total" in seconds and sizes.keys() <= seconds.keys():
                rest = seconds["total"] - seconds.get("wait", 0.0) - sum(seconds[stage] for stage in sizes)
                # The first run of a process brings in what later ones find there: it counts until there is another.
                is_first = not self._curves["rest"].points()
                self._curves["rest"].note(1, max(rest, 0.0), rehearsed=is_first)

    def plan(self, work: Workload, together: int = 1, index: int = 0) -> StagePlan:
        """Return how long a run of `together` (≥ 1) images takes for the image of this index among them.

        The later ones wait for a thread to make their mesh.
        """
        with self._lock:
            seconds = tuple(self._seconds(work, together))
        mesh, finish, export = seconds[4:7]
        wait = (index // max(1, self.threads)) * (mesh + finish + export)
        planned = (*seconds[:4], mesh + wait, finish, export)
        return StagePlan(planned, measured=True) if sum(planned) > 0 else StagePlan.unmeasured()

    def to_json(self) -> str:
        """Return all of it as text, for from_json."""
        with self._lock:
            curves = {name: curve.points() for name, curve in self._curves.items()}
            known = {name: points for name, points in curves.items() if points}
            evaluated = {name: round(share, 4) for name, share in self._evaluated.items()}
        return json.dumps(
            {
                "steps": self.default_steps,
                "batch": self.batch_size,
                "threads": self.threads,
                "curves": known,
                "evaluated": evaluated,
            }
        )

    @classmethod
    def from_json(cls, text: str | None) -> StageTimes | None:
        """Return what to_json wrote, not to be written to; None for what it did not write."""
        return None if not text else _parsed(text)

    def _seconds(self, work: Workload, together: int) -> Iterable[float]:
        def at(name: str, size: float) -> float:
            return self._curves[name].at(size) or 0.0

        evaluations = work.steps * self._evaluated.get(work.acceleration, 1.0)
        meshes = ("mesh", "decimated mesh") if work.target_faces is None else ("decimated mesh", "mesh")
        finishes = ("bare finish", "finish") if work.is_bare else ("finish", "bare finish")
        # What no stage accounts for passes mostly before them: a lease, the reading of images.
        yield at("preprocess", together) + at("rest", 1)
        yield at("encode", together)
        yield at("sample", together) * evaluations
        yield at("decode", work.octree_resolution) * together
        yield (at(meshes[0], work.octree_resolution) or at(meshes[1], work.octree_resolution)) * work.candidates
        yield (at(finishes[0], _rounded(work.faces)) or at(finishes[1], _rounded(work.faces))) * work.finished
        yield at("export", _rounded(work.faces)) * work.finished


@lru_cache(maxsize=256)
def _parsed(text: str) -> StageTimes | None:
    try:
        known = json.loads(text)
        times = StageTimes(int(known["steps"]), int(known["batch"]), int(known["threads"]))
        for name, points in known["curves"].items():
            if name in _GROWS:
                read = [(float(size), float(seconds), int(runs)) for size, seconds, runs in points]
                times._curves[name] = Curve(_GROWS[name], read)
        times._evaluated.update({name: float(share) for name, share in known["evaluated"].items()})
    except (ValueError, KeyError, TypeError, AttributeError):
        # Of a worker of another version.
        return None
    return times


def _rounded(faces: float) -> float:
    """Return about as many faces, as one of few numbers: curves have no use for every count there is."""
    return float(2 ** (round(2 * math.log2(max(faces, 1))) / 2))
