"""The files of one result: stored all or none, removed when nobody wants them, and the turntable that comes later.

This module does not know how files are made or when a run ends.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from backend.errors import ArtifactNotFound, FilesExpired, ServiceError
from backend.jobs.models import Job, NewFile
from backend.jobs.store import JobStore
from backend.limits import PREVIEW_FORMAT
from backend.storage.artifacts import ArtifactStore
from backend.storage.files import FileStore, discard

if TYPE_CHECKING:
    from backend.rendering.outputs import Output
    from backend.rendering.shape_file import FinishedShape

_log = logging.getLogger(__name__)
Out = TypeVar("Out")


class OutputFiles:
    """Where the outputs of this worker's runs go; any thread may use it."""

    def __init__(self, store: JobStore, images: FileStore, artifacts: ArtifactStore) -> None:
        self._store = store
        self._images = images
        self._artifacts = artifacts

    def write(
        self,
        job: Job,
        outputs: Sequence[Output],
        retry: Callable[[Callable[[], str | int]], str | int],
        given_up: Callable[[], bool],
    ) -> list[NewFile]:
        """Store all that was made for a job, and name its image with it; what is stored is removed when one fails.

        retry : runs an action that storage may refuse; given_up : whether nobody wants the files any more; then the
        list ends early. Raises StorageFull, ArtifactStoreUnavailable.
        """
        stored: list[NewFile] = []
        try:
            for output in outputs:
                if given_up():
                    break
                name = retry(lambda output=output: self._artifacts.write(output.data, output.format))  # type: ignore[misc]
                stored.append(NewFile(output.kind, output.format, str(name), len(output.data), output.candidate))
            stored += self._image_of(job, retry)
        except BaseException:
            self.discard(stored)
            raise
        return stored

    def discard(self, files: Sequence[NewFile]) -> None:
        """Remove files that belong to no job; the image, which the job keeps until it ends, stays."""
        discard(self._artifacts, *(file.name for file in files if file.kind != "image"))

    def add_turntable(self, job: Job, shape: FinishedShape) -> None:
        """Draw a completed job's turntable and give it to the job; when that cannot be, the job goes without."""
        from backend.rendering.previews import turntable_bytes

        try:
            data = turntable_bytes(shape)
            name = self._artifacts.write(data, PREVIEW_FORMAT)
        except ServiceError as error:
            _log.warning("job %s gets no turntable: %s", job.id, error)
            return
        try:
            added = self._store.files.add(job, NewFile("turntable", PREVIEW_FORMAT, name, len(data)))
        except FilesExpired:
            added = False
        except ServiceError as error:
            # It may have been entered all the same; if not, it is an orphan by and by.
            _log.warning("the turntable of job %s could not be entered: %s", job.id, error)
            return
        if not added:
            discard(self._artifacts, name)

    def _image_of(self, job: Job, retry: Callable[[Callable[[], str | int]], str | int]) -> list[NewFile]:
        try:
            size = int(retry(lambda: self._images.size(job.image_name)))
        except ArtifactNotFound:
            _log.warning("the image of job %s is gone", job.id)
            return []
        return [NewFile("image", job.image_name.rpartition(".")[2], job.image_name, size)]
