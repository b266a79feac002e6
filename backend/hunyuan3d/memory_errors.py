"""Running out of memory, whoever says it, under our one name; and errors that keep no memory from being freed.

Knows nothing of what is done about it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from backend.errors import OutOfMemory, ServiceError

# CUDA's runtime, cuBLAS, cuDNN, MPS and the CPU's allocator each say it in words of their own, as a plain RuntimeError.
_SAYINGS = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")


@contextmanager
def named_memory_errors() -> Iterator[None]:
    """Turn a device's or the main memory's exhaustion in the block into OutOfMemory."""
    try:
        yield
    except (RuntimeError, MemoryError) as e:
        if not is_out_of_memory(e):
            raise
        raise OutOfMemory from e


def is_out_of_memory(failure: Exception) -> bool:
    """Return whether the failure says that there is no memory left."""
    if isinstance(failure, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(failure, RuntimeError) and any(saying in str(failure) for saying in _SAYINGS)


def without_frames(error: ServiceError) -> ServiceError:
    """Return the same error, fit to be kept: its tracebacks, and their causes', would keep images and tensors."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error
