"""What can go wrong between a picture and its mesh, checkpoints included."""

from __future__ import annotations

from backend.errors.base import ServiceError


class GenerationError(ServiceError):
    """The shape could not be generated."""

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

    code = "OUT_OF_MEMORY"


class InvalidMesh(GenerationError):
    """The mesh is empty or has coordinates that are not finite."""

    code = "INVALID_MESH"


class DecimationFailed(GenerationError):
    """The mesh could not be reduced to the face count asked for."""

    code = "DECIMATION_FAILED"


class DeviceLost(GenerationError):
    """The device no longer answers; only a new process can use it again."""

    code = "DEVICE_LOST"


class WorkerDied(GenerationError):
    """The worker died each time it ran this job."""


class Cancelled(ServiceError):
    """The work was cancelled."""

    code = "CANCELLED"


class ExportError(ServiceError):
    """The mesh could not be written."""

    code = "EXPORT_FAILED"


class PreviewUnavailable(ServiceError):
    """No preview can be drawn: embreex, the ray caster, is not installed here (pip install 'orfeas[rendering]')."""

    code = "PREVIEW_UNAVAILABLE"


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
