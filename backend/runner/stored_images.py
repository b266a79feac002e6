"""What a job is made of, as it was stored when it came in: one image, or several views in one file.

This module does not know when it is read, or what is made of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from backend.jobs.models import Job
from backend.storage.files import FileStore
from backend.validation import GenerationRequest

if TYPE_CHECKING:
    from backend.runner.processor_protocol import ImageToPrepare


def read_stored(images: FileStore, job: Job, request: GenerationRequest) -> ImageToPrepare:
    """Return the image of a job, or the views of its object.

    Raises ArtifactNotFound, ArtifactStoreUnavailable, and InvalidImage where the views can no longer be read.
    """
    with images.open(job.image_name) as stream:
        data = stream.read()
    if not request.views:
        return data
    from backend.hunyuan3d.image.view_pages import split_views

    return split_views(data, request.views)
