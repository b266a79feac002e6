"""What was done for a job, put together as its run goes on: what was asked, what the model did, what the files are.

This module does not know when a run ends.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from backend.jobs.metadata import (
    AccelerationOut,
    BackgroundOut,
    CameraOut,
    CandidateOut,
    JobMetadata,
    OutlineOut,
    PlacementOut,
    PrintOut,
    StageSecondsOut,
    WarningOut,
)
from backend.jobs.models import Job
from backend.validation import GenerationRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backend.hunyuan3d.results import ShapeMetadata
    from backend.rendering.camera_model import Camera
    from backend.rendering.candidates import Candidate
    from backend.rendering.outputs import Outputs

_MODEL_STAGES = ("preprocess", "encode", "sample", "decode", "mesh")


def known_metadata(job: Job, request: GenerationRequest) -> JobMetadata:
    """Return what is known of a run when it begins."""
    queued = None if job.started_at is None else max(0.0, (job.started_at - job.created_at).total_seconds())
    return JobMetadata(
        format=request.format,
        target_faces=request.target_faces,
        seed=request.seed,
        steps=request.steps,
        guidance_scale=request.guidance_scale,
        octree_resolution=request.octree_resolution,
        quality=request.quality,
        seconds=StageSecondsOut(queued=queued),
    )


def with_shape(metadata: JobMetadata, shape: ShapeMetadata) -> JobMetadata:
    """Return the metadata with what the pipeline says that it did."""
    found: dict[str, object] = {
        "vertices": shape.vertices,
        "faces": shape.faces,
        "faces_found": shape.faces_found,
        "parts": shape.parts,
        "watertight": shape.watertight,
        "steps": shape.num_inference_steps,
        "guidance_scale": shape.guidance_scale,
        "octree_resolution": shape.octree_resolution,
        "model": shape.model,
        "batch_size": shape.batch_size,
        "background": None if shape.background is None else BackgroundOut(**asdict(shape.background)),
        "outline": None if shape.outline is None else OutlineOut(**asdict(shape.outline)),
        "warnings": tuple(WarningOut(**asdict(remark)) for remark in shape.remarks),
        "fallbacks": shape.fallbacks,
    }
    if shape.acceleration is not None:
        found["acceleration"] = AccelerationOut(
            mode=shape.acceleration, evaluations=shape.evaluations, without=shape.evaluations_needed
        )
    stages = {stage: getattr(shape.seconds, stage) for stage in _MODEL_STAGES}
    given = {name: value for name, value in found.items() if value is not None}
    return metadata.model_copy(update={**given, "seconds": metadata.seconds.model_copy(update=stages)})


def with_candidates(metadata: JobMetadata, candidates: Sequence[Candidate]) -> JobMetadata:
    """Return the metadata with what the pipeline did for the best candidate, and how all were judged."""
    best = candidates[0].result.metadata
    described = with_shape(metadata, best)
    if len(candidates) == 1:
        return described
    seconds = described.seconds.model_copy(
        update={"mesh": sum(candidate.result.metadata.seconds.mesh for candidate in candidates)}
    )
    judged = tuple(_candidate_of(candidate) for candidate in candidates)
    seed = metadata.seed if best.seed is None else best.seed
    return described.model_copy(update={"seed": seed, "candidates": judged, "seconds": seconds})


def _candidate_of(candidate: Candidate) -> CandidateOut:
    facts, error = candidate.result.metadata, candidate.result.error
    return CandidateOut(
        seed=facts.seed or 0,
        silhouette_iou=candidate.silhouette_iou,
        parts=facts.parts,
        watertight=facts.watertight,
        thinnest_wall_mm=candidate.thinnest_wall_mm,
        error=None if error is None else error.code,
    )


def with_outputs(metadata: JobMetadata, outputs: Outputs) -> JobMetadata:
    """Return the metadata with what is true of the files."""
    return metadata.model_copy(
        update={
            "camera": None if outputs.camera is None else _camera_of(outputs.camera),
            "bounds": outputs.bounds,
            "unit": outputs.unit,
            "placed": PlacementOut(**asdict(outputs.placement)),
            "print": PrintOut(**asdict(outputs.facts)),
            "warnings": metadata.warnings + tuple(WarningOut(**asdict(remark)) for remark in outputs.remarks),
            "notes": outputs.notes,
            "file_size": len(outputs.files[0].data),
        }
    )


def _camera_of(camera: Camera) -> CameraOut:
    return CameraOut(
        azimuth=round(camera.azimuth, 2),
        elevation=round(camera.elevation, 2),
        field_of_view=round(camera.field_of_view, 2),
        silhouette_iou=round(camera.score, 4),
    )


def with_seconds(metadata: JobMetadata, total: float | None, **stages: float) -> JobMetadata:
    """Return the metadata with what the last stages took, and all together."""
    return metadata.model_copy(update={"seconds": metadata.seconds.model_copy(update={**stages, "total": total})})
