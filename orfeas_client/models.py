"""What the service says, as values: jobs, batches, pages of jobs, its health.

What an answer has beyond these values is left out; what they need and it lacks is an UnexpectedAnswer. Nothing but the
standard library. This module does not know how an answer travels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypedDict, TypeVar

from orfeas_client.errors import UnexpectedAnswer

Json = Mapping[str, object]
_Kind = TypeVar("_Kind")
_URLS = ("preview", "thumbnail", "turntable", "image", "cutout", "signed", "contact_sheet")
_FINISHED = ("completed", "failed", "cancelled")


class Fields(TypedDict, total=False):
    """What may be asked of a mesh; the service checks ranges and fills in defaults."""

    format: str
    quality: int
    steps: int
    guidance_scale: float
    acceleration: str
    seed: int
    candidates: int
    keep: str
    target_faces: int | str
    remove_background: str
    scale_mm: float
    octree_resolution: int
    objects: str
    outline: str
    color: str
    place: str
    upright: str
    compress: str
    preview: bool
    turntable: bool
    label: str
    prompt: str
    image_seed: int


@dataclass(frozen=True)
class MeshFile:
    """A mesh in one format.

    bytes : its size, None where the service does not know; signed_url : as Job's
    candidate : which of the job's candidates it is of, from 0, the best one
    """

    format: str
    url: str
    bytes: int | None = None
    signed_url: str | None = None
    candidate: int = 0


@dataclass(frozen=True)
class Job:
    """A job as the service last reported it.

    status : queued, processing, completed, failed or cancelled; progress : 0–100
    download_url : set when completed; signed_url : the same for whoever has the address, for a while
    metadata : what was really done; processing_time : seconds its run took
    error_code, error, error_details : why it failed
    index : which of its batch's pictures it is for, from 0, None outside a batch; filename : what that was called
    label : what its agent calls it; request : the fields as the service understood them
    expires_at : when it and its files are removed, as ISO 8601 says; None until it has finished
    files : its mesh in each format, the one of download_url first
    preview_url, thumbnail_url, turntable_url, image_url, cutout_url, contact_sheet_url : None where there is none
    """

    id: str
    status: str
    progress: int = 0
    current_step: str = ""
    eta_seconds: float | None = None
    queue_position: int | None = None
    download_url: str | None = None
    metadata: Json = field(default_factory=lambda: MappingProxyType({}))
    processing_time: float | None = None
    error_code: str = ""
    error: str = ""
    error_details: Json = field(default_factory=lambda: MappingProxyType({}))
    index: int | None = None
    filename: str | None = None
    label: str | None = None
    request: Json = field(default_factory=lambda: MappingProxyType({}))
    expires_at: str | None = None
    files: tuple[MeshFile, ...] = ()
    preview_url: str | None = None
    thumbnail_url: str | None = None
    turntable_url: str | None = None
    image_url: str | None = None
    cutout_url: str | None = None
    signed_url: str | None = None
    contact_sheet_url: str | None = None

    @property
    def finished(self) -> bool:
        """Whether it stays as it is."""
        return self.status in _FINISHED

    @property
    def candidates(self) -> tuple[Scored, ...]:
        """The meshes that were made to choose from, the best one first; () where it was one."""
        return read_candidates(self.metadata)

    @property
    def succeeded(self) -> bool:
        """Whether there is a mesh to download."""
        return self.status == "completed"

    @property
    def warnings(self) -> tuple[Warned, ...]:
        """What is to be said of its picture and its mesh."""
        return read_warnings(self.metadata)


@dataclass(frozen=True)
class Warned:
    """Something that the service says of a result all the same: a name for programs, and a sentence."""

    code: str
    message: str


@dataclass(frozen=True)
class Scored:
    """One of a job's candidates, and what it was judged by; None where nobody could.

    silhouette_iou : how far the model's own shape agrees with the picture, 0–1; thinnest_wall_mm : at the mesh's size
    error : the code of why there is no mesh, "" where there is one
    """

    seed: int
    silhouette_iou: float | None = None
    parts: int | None = None
    watertight: bool | None = None
    thinnest_wall_mm: float | None = None
    error: str = ""


@dataclass(frozen=True)
class Cutout:
    """A cut-out alone.

    url : where it is, PNG; method : how it was made; score : how sure it is, 0–1, None where nobody judged it
    border : share of the picture's border that the object covers; objects : pieces of it that do not touch
    warnings : what is to be said of it; expires_at : when it is removed, as ISO 8601 says
    """

    url: str
    method: str
    score: float | None
    border: float | None
    objects: int | None
    warnings: tuple[Warned, ...] = ()
    expires_at: str | None = None


@dataclass(frozen=True)
class Batch:
    """Jobs that were sent together, in the pictures' order.

    counts : how many of them are in each state; download_url : a zip of all their files, set when none waits or runs
    signed_url : as Job's
    expires_at : when the first of them is removed, as ISO 8601 says; None until all have finished
    """

    id: str
    status: str
    jobs: tuple[Job, ...]
    progress: int = 0
    current_step: str = ""
    eta_seconds: float | None = None
    counts: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    download_url: str | None = None
    expires_at: str | None = None
    signed_url: str | None = None

    @property
    def finished(self) -> bool:
        """Whether none of its jobs is waiting or running."""
        return self.status in _FINISHED

    @property
    def succeeded(self) -> bool:
        """Whether every job has a mesh."""
        return all(job.succeeded for job in self.jobs)


@dataclass(frozen=True)
class JobPage:
    """Some of the agent's jobs, newest first; next_cursor asks for older ones, None when there are none."""

    jobs: tuple[Job, ...]
    next_cursor: str | None


@dataclass(frozen=True)
class Health:
    """How the service is. ok : whether it can serve; memory in bytes, None when unknown."""

    ok: bool
    status: str
    version: str
    model: str
    model_loaded: bool
    device: str
    device_name: str
    memory_total: int | None
    memory_free: int | None
    queue_size: int | None
    active_jobs: int | None


def read_submitted_job(answer: Json) -> Job:
    """Read the answer to /generate-3d, done or not. Raises UnexpectedAnswer."""
    return read_job({"progress": 100 if answer.get("status") == "completed" else 0, **answer})


def read_submitted_batch(answer: Json) -> Batch:
    """Read the answer to /batch: every job is queued, but for those whose picture was bad. Raises UnexpectedAnswer."""
    refused = {bad.index: bad for bad in map(_read_refused, _optional(answer, "refused", list) or [])}
    ids = [_of(str, job_id, "job_ids") for job_id in _need(answer, "job_ids", list)]
    jobs = (replace(refused[k], id=job_id) if k in refused else Job(job_id, "queued") for k, job_id in enumerate(ids))
    return Batch(_need(answer, "batch_id", str), "queued", tuple(jobs))


def read_status(answer: Json) -> Job | Batch:
    """Read the answer to /status/<id>. Raises UnexpectedAnswer."""
    if "items" not in answer:
        return read_job(answer)
    return Batch(
        _need(answer, "batch_id", str),
        _need(answer, "status", str),
        tuple(read_job(_of(dict, item, "items")) for item in _need(answer, "items", list)),
        int(_number(answer, "progress") or 0),
        _optional(answer, "current_step", str) or "",
        _number(answer, "eta_seconds"),
        MappingProxyType(dict(_optional(answer, "counts", dict) or {})),
        _optional(answer, "download_url", str),
        _optional(answer, "expires_at", str),
        _optional(answer, "signed_url", str),
    )


def read_page(answer: Json) -> JobPage:
    """Read the answer to /jobs. Raises UnexpectedAnswer."""
    jobs = tuple(read_job(_of(dict, item, "jobs")) for item in _need(answer, "jobs", list))
    return JobPage(jobs, _optional(answer, "next_cursor", str))


def read_job(answer: Json) -> Job:
    """Read one job, wherever in an answer it stands. Raises UnexpectedAnswer."""
    failure = _optional(answer, "error", dict) or {}
    return Job(
        _need(answer, "job_id", str),
        _need(answer, "status", str),
        int(_number(answer, "progress") or 0),
        _optional(answer, "current_step", str) or "",
        _number(answer, "eta_seconds"),
        _optional(answer, "queue_position", int),
        _optional(answer, "download_url", str),
        MappingProxyType(dict(_optional(answer, "metadata", dict) or {})),
        _number(answer, "processing_time"),
        _optional(failure, "code", str) or "",
        # The first services called it otherwise.
        _optional(failure, "error", str) or _optional(failure, "message", str) or "",
        MappingProxyType(dict(_optional(failure, "details", dict) or {})),
        _optional(answer, "index", int),
        _optional(answer, "filename", str),
        _optional(answer, "label", str),
        MappingProxyType(dict(_optional(answer, "request", dict) or {})),
        _optional(answer, "expires_at", str),
        read_files(answer),
        *(_optional(answer, f"{kind}_url", str) for kind in _URLS),
    )


def read_files(answer: Json) -> tuple[MeshFile, ...]:
    """Read the mesh files that an answer lists; a service that knows no lists has one file. Raises UnexpectedAnswer."""
    listed = [_of(dict, item, "files") for item in _optional(answer, "files", list) or []]
    return tuple(
        MeshFile(
            _need(item, "format", str),
            _need(item, "url", str),
            _optional(item, "bytes", int),
            _optional(item, "signed_url", str),
            _optional(item, "candidate", int) or 0,
        )
        for item in listed
    )


def _read_refused(value: object) -> Job:
    """Read a bad picture of a batch as the job that failed for it; its id is elsewhere in the answer."""
    bad = _of(dict, value, "refused")
    return Job(
        "",
        "failed",
        100,
        error_code=_need(bad, "code", str),
        error=_need(bad, "error", str),
        index=_need(bad, "index", int),
        filename=_optional(bad, "filename", str),
    )


def read_cutout(answer: Json) -> Cutout:
    """Read the answer to /cutout. Raises UnexpectedAnswer."""
    background = _need(_need(answer, "metadata", dict), "background", dict)
    return Cutout(
        _need(answer, "cutout_url", str),
        _need(background, "method", str),
        _number(background, "score"),
        _number(background, "border"),
        _optional(background, "objects", int),
        read_warnings(answer),
        _optional(answer, "expires_at", str),
    )


def read_warnings(answer: Json) -> tuple[Warned, ...]:
    """Read the warnings of a job's metadata or of a cut-out. Raises UnexpectedAnswer."""
    listed = [_of(dict, item, "warnings") for item in _optional(answer, "warnings", list) or []]
    return tuple(Warned(_need(item, "code", str), _need(item, "message", str)) for item in listed)


def read_candidates(metadata: Json) -> tuple[Scored, ...]:
    """Read the candidates of a job's metadata. Raises UnexpectedAnswer."""
    listed = [_of(dict, item, "candidates") for item in _optional(metadata, "candidates", list) or []]
    return tuple(
        Scored(
            _need(item, "seed", int),
            _number(item, "silhouette_iou"),
            _optional(item, "parts", int),
            _optional(item, "watertight", bool),
            _number(item, "thinnest_wall_mm"),
            _optional(item, "error", str) or "",
        )
        for item in listed
    )


def read_health(answer: Json, ok: bool) -> Health:
    """Read the answer to /health; what it leaves out is empty."""
    model = _optional(answer, "model", dict) or {}
    device = _optional(answer, "device", dict) or {}
    return Health(
        ok,
        _optional(answer, "status", str) or "",
        _optional(answer, "version", str) or "",
        _optional(model, "name", str) or "",
        bool(model.get("loaded")),
        _optional(device, "type", str) or "",
        _optional(device, "name", str) or "",
        _optional(device, "memory_total", int),
        _optional(device, "memory_free", int),
        _optional(answer, "queue_size", int),
        _optional(answer, "active_jobs", int),
    )


def _need(answer: Json, name: str, kind: type[_Kind]) -> _Kind:
    return _of(kind, answer.get(name), name)


def _optional(answer: Json, name: str, kind: type[_Kind]) -> _Kind | None:
    value = answer.get(name)
    return None if value is None else _of(kind, value, name)


def _number(answer: Json, name: str) -> float | None:
    value = answer.get(name)
    return float(value) if isinstance(value, int | float) else None


def _of(kind: type[_Kind], value: object, name: str) -> _Kind:
    if not isinstance(value, kind):
        raise UnexpectedAnswer(f"The service's answer has no usable {name!r}: is this an ORFEAS service?")
    return value
