"""Every failure of the product, as a tree of named errors.

Each class carries the HTTP status and the code it is answered with; its docstring is the default message. This module
does not know who raises an error or how it is rendered.
"""

from __future__ import annotations

from collections.abc import Mapping


class ServiceError(Exception):
    """The service could not do what was asked."""

    status: int = 500
    code: str = "INTERNAL_ERROR"

    def __init__(self, message: str | None = None, *, details: Mapping[str, object] | None = None) -> None:
        self.message = message or (type(self).__doc__ or "").strip()
        self.details: dict[str, object] = dict(details or {})
        super().__init__(self.message)


class InvalidParameter(ServiceError):
    """A parameter is outside its allowed range."""

    status = 400
    code = "INVALID_PARAMETER"


class InvalidResolution(InvalidParameter):
    """The octree resolution must be a whole number from 8 to 1024."""

    code = "INVALID_RESOLUTION"


class InvalidSteps(InvalidParameter):
    """The number of inference steps must be a whole number of at least 1."""

    code = "INVALID_STEPS"


class InvalidGuidance(InvalidParameter):
    """The guidance scale must be a finite number of at least 0."""

    code = "INVALID_GUIDANCE_SCALE"


class InvalidSeed(InvalidParameter):
    """A seed must be a whole number from 0 to 2^32 - 1, one for each image."""

    code = "INVALID_SEED"


class InvalidTargetFaces(InvalidParameter):
    """The target face count must be a whole number from 100 to 2 000 000."""

    code = "INVALID_TARGET_FACES"


class InvalidScale(InvalidParameter):
    """The scale must be a finite number of millimetres above zero."""

    code = "INVALID_SCALE_MM"


class InvalidFormat(InvalidParameter):
    """The format must be one of glb, stl, obj, ply."""

    code = "INVALID_FORMAT"


class MissingImage(InvalidParameter):
    """At least one image is needed."""

    code = "MISSING_IMAGE"


class InvalidImage(InvalidParameter):
    """The file is not a readable picture."""

    code = "INVALID_IMAGE"


class UnsupportedImage(ServiceError):
    """The picture's format is not supported; send PNG, JPEG or WebP."""

    status = 415
    code = "UNSUPPORTED_IMAGE"


class GenerationError(ServiceError):
    """The shape could not be generated."""

    status = 422
    code = "GENERATION_FAILED"


class NoForeground(GenerationError):
    """No object was found in the picture; send one with a clear subject or a transparent background."""

    code = "NO_FOREGROUND"


class NoSurface(GenerationError):
    """The model's field has no surface; try another seed, more steps or a clearer picture."""

    code = "NO_SURFACE"


class NonFiniteValues(GenerationError):
    """The model produced values that are not finite; its weights or precision are unfit."""

    code = "NON_FINITE_VALUES"


class OutOfMemory(GenerationError):
    """The device ran out of memory; lower the octree resolution or the batch size."""

    status = 503
    code = "OUT_OF_MEMORY"


class Cancelled(ServiceError):
    """The work was cancelled."""

    status = 409
    code = "CANCELLED"


class CheckpointError(ServiceError):
    """The checkpoint cannot be used."""

    code = "CHECKPOINT_ERROR"


class CheckpointNotFound(CheckpointError):
    """No checkpoint was found at that path or repository."""

    code = "CHECKPOINT_NOT_FOUND"


class CheckpointUnreadable(CheckpointError):
    """The checkpoint's weight file is damaged or holds more than plain tensors."""

    code = "CHECKPOINT_UNREADABLE"


class CheckpointConfigError(CheckpointError):
    """The checkpoint's config.yaml names something this code does not offer."""

    code = "CHECKPOINT_CONFIG"


class CheckpointKeyError(CheckpointError):
    """A weight is missing from the checkpoint or has the wrong shape."""

    code = "CHECKPOINT_KEYS"


class CheckpointValueError(CheckpointError):
    """A weight of the checkpoint holds values that are not finite."""

    code = "CHECKPOINT_VALUES"


class InvalidMesh(GenerationError):
    """The mesh is empty or has coordinates that are not finite."""

    code = "INVALID_MESH"


class DecimationFailed(GenerationError):
    """The mesh could not be reduced to the face count asked for."""

    code = "DECIMATION_FAILED"


class ExportError(ServiceError):
    """The mesh could not be written."""

    code = "EXPORT_FAILED"


class PreviewUnavailable(ServiceError):
    """No preview can be drawn: embreex, the ray caster, is not installed here."""

    status = 501
    code = "PREVIEW_UNAVAILABLE"
