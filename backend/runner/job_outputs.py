"""All that a job's request wants made of its shapes: of the best one everything, of the others what they are kept for.

This module does not know where files go, or when a run ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING

from backend.errors import PreviewUnavailable
from backend.jobs.metadata import JobMetadata
from backend.jobs.models import Job
from backend.limits import PREVIEW_FORMAT
from backend.validation import GenerationRequest

if TYPE_CHECKING:
    from backend.rendering.candidates import Candidate
    from backend.rendering.outputs import Output, OutputOptions, Outputs

_TOLD_IN_FILES = {"seed", "model", "steps", "guidance_scale", "octree_resolution", "quality", "target_faces"}


def make_job_outputs(
    job: Job,
    request: GenerationRequest,
    candidates: Sequence[Candidate],
    metadata: JobMetadata,
    on_step: Callable[[int, int], None],
) -> Outputs:
    """Make the files of a job.

    candidates : the best one, which has a mesh, first; metadata : the best one's; on_step : as make_outputs'
    Raises what make_outputs raises.
    """
    from backend.rendering.outputs import make_outputs

    best, *others = candidates
    outputs = make_outputs(best.result, _options(job, request, metadata), on_step)
    if not others:
        return outputs
    more: list[Output] = []
    if request.keep == "all":
        more += _of_others(job, request, others, metadata, on_step)
    sheet = _sheet(candidates) if request.preview else None
    return replace(outputs, files=(*outputs.files, *more, *([] if sheet is None else [sheet])))


def _of_others(
    job: Job,
    request: GenerationRequest,
    others: Sequence[Candidate],
    metadata: JobMetadata,
    on_step: Callable[[int, int], None],
) -> Iterator[Output]:
    """Make the meshes of the candidates behind the best one, of those that have one."""
    from backend.rendering.outputs import make_outputs

    for place, candidate in enumerate(others, start=1):
        if candidate.result.ok:
            told = metadata.model_copy(update={"seed": candidate.result.metadata.seed})
            options = replace(_options(job, request, told), preview=False, keep=False)
            made = make_outputs(candidate.result, options, on_step)
            yield from (replace(output, candidate=place) for output in made.files)


def _sheet(candidates: Sequence[Candidate]) -> Output | None:
    """Draw the candidates; return None where nothing can be drawn here, which the preview's note says."""
    from backend.rendering.candidates import candidate_sheet
    from backend.rendering.outputs import Output
    from backend.rendering.previews import webp_bytes

    try:
        return Output("contact_sheet", PREVIEW_FORMAT, webp_bytes(candidate_sheet(candidates)))
    except PreviewUnavailable:
        return None


def _options(job: Job, request: GenerationRequest, metadata: JobMetadata) -> OutputOptions:
    """Return what is wanted of one shape; the files say what they are by the image's name and the seed."""
    from backend.rendering.outputs import OutputOptions

    return OutputOptions.chosen(
        request,
        name=PurePath(job.filename or "mesh").stem,
        extras=metadata.model_dump(include=_TOLD_IN_FILES, exclude_none=True),
        preview=request.preview,
        keep=True,
    )
