"""All files of a finished batch as one zip, named as its images were, with a list of what became of each image.

The zip of a batch is the same whenever it is fetched, so that it has an ETag and can be fetched in parts. This module
does not know how a zip is laid out, or how a file is sent.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, BinaryIO, cast

from backend.api.job_files import open_file
from backend.errors import BatchUnfinished
from backend.jobs.models import Batch, Job, JobFile
from backend.services import AgentServices
from backend.storage.artifacts import Artifact
from backend.storage.zip_stream import ZipMember, ZipStream
from orfeas_client.file_names import first_free

MANIFEST = "batch.json"
_NAME = re.compile(r"([0-9a-f]{32})\.zip")
_LONGEST_STEM = 80
_BUFFER_BYTES = 1 << 18
# What a file can't be called somewhere: on Windows, in a shell without quotes, or hidden.
_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f<>:"/\\|?*]')
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)


@dataclass(frozen=True)
class _File:
    """A file of the zip: what it is called there, and which it is of the files of which job."""

    name: str
    file: JobFile
    size: int
    job: Job


def batch_id_of(filename: str) -> str | None:
    """Return the batch whose zip has this name; None when it is no such name."""
    match = _NAME.fullmatch(filename)
    return match[1] if match else None


def open_batch_zip(services: AgentServices, batch: Batch) -> Artifact:
    """Return the zip of a batch, to be read and closed by whoever sends it; files are opened as it is read.

    Raises BatchUnfinished, ArtifactNotFound, ArtifactStoreUnavailable.
    """
    if not batch.status.finished:
        raise BatchUnfinished(details={"batch_id": batch.id, "counts": batch.counts})
    files = list(_files(services, batch))
    manifest = _manifest(batch, files)
    times = [job.finished_at for job in batch.jobs if job.finished_at is not None]
    members = [ZipMember(MANIFEST, len(manifest), partial(io.BytesIO, manifest), _moment(max(times)))]
    for file in files:
        opened = partial(_opened, services, file.file)
        members.append(ZipMember(file.name, file.size, opened, _moment(file.job.finished_at or max(times))))
    digest = hashlib.sha256(manifest + json.dumps([(file.file.name, file.size) for file in files]).encode()).hexdigest()
    stream = ZipStream(members)
    # Werkzeug reads small pieces; a buffer makes one call of several.
    buffered = cast(BinaryIO, io.BufferedReader(stream, _BUFFER_BYTES))
    return Artifact(f"{batch.id}.zip", buffered, stream.size, "application/zip", digest[:32])


def safe_stem(filename: str | None, index: int) -> str:
    """Return what the files of an image are called, without a suffix, fit for every file system.

    filename : what its sender called it; index : which of the batch's images it is, from 0
    """
    stem = _UNSAFE.sub("_", (filename or "").rpartition(".")[0] or filename or "")
    stem = stem[:_LONGEST_STEM].strip(" .")
    if not stem or not stem.strip("_"):
        return f"image-{index + 1}"
    return f"_{stem}" if _RESERVED.fullmatch(stem) else stem


def _files(services: AgentServices, batch: Batch) -> Iterator[_File]:
    taken = {MANIFEST.casefold()}

    def is_free(names: Sequence[str]) -> bool:
        # Some file systems hold upper and lower case for the same.
        folded = [name.casefold() for name in names]
        if any(name in taken for name in folded):
            return False
        taken.update(folded)
        return True

    kept = services.store.files.of_all(batch.jobs)
    for position, job in enumerate(batch.jobs):
        stored = [file for file in kept[job.id] if file.kind != "shape"]
        endings = [_ending(file) for file in stored]
        index = position if job.batch_index is None else job.batch_index

        def take(stem: str, endings: Sequence[str] = tuple(endings)) -> bool:
            return is_free([stem + ending for ending in endings])

        stem = first_free(safe_stem(job.filename, index), take)
        for file, ending in zip(stored, endings, strict=True):
            # As it is now: a file that is gone is found out here, not in the middle of an answer.
            store = services.images if file.kind == "image" else services.artifacts
            yield _File(stem + ending, file, store.size(file.name), job)


def _ending(file: JobFile) -> str:
    """Return what follows an image's name in the name of one of its files."""
    number = f"-{file.candidate + 1}" if file.candidate else ""
    kind = "" if file.kind == "mesh" else f"-{file.kind}"
    return f"{number}{kind}.{file.format}"


def _manifest(batch: Batch, files: Sequence[_File]) -> bytes:
    """Return what became of each image, as JSON."""
    images = [_described(job, [file.name for file in files if file.job is job]) for job in batch.jobs]
    return json.dumps({"batch_id": batch.id, "images": images}, ensure_ascii=False, indent=1).encode() + b"\n"


def _described(job: Job, names: Sequence[str]) -> dict[str, Any]:
    failed = job.error_code is not None
    return {
        "index": job.batch_index,
        "filename": job.filename,
        "label": job.label,
        "job_id": job.id,
        "status": job.status.value,
        "files": list(names),
        "error": {"code": job.error_code, "error": job.error_message} if failed else None,
    }


def _opened(services: AgentServices, file: JobFile) -> BinaryIO:
    return open_file(services, file).stream


def _moment(time: datetime) -> datetime:
    return time.astimezone(UTC)
