"""Running out of memory has one name, whoever says it; kept errors hold nothing else."""

from __future__ import annotations

import weakref

import pytest
import torch

from backend.errors import OutOfMemory, ServiceError
from backend.hunyuan3d.memory_errors import named_memory_errors, without_frames


@pytest.mark.parametrize(
    "said",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"),
        MemoryError(),
    ],
    ids=lambda said: str(said)[:20],
)
def test_every_way_of_saying_it_has_one_name(said: Exception) -> None:
    with pytest.raises(OutOfMemory) as raised, named_memory_errors():
        raise said
    assert raised.value.__cause__ is said


def test_the_cpus_own_allocator_has_the_name_too() -> None:
    with pytest.raises(OutOfMemory), named_memory_errors():
        torch.empty(2**55)


def test_other_failures_keep_theirs() -> None:
    with pytest.raises(RuntimeError, match="shapes"), named_memory_errors():
        raise RuntimeError("the shapes do not match")


def test_a_kept_error_keeps_no_tensor() -> None:
    watched: list[weakref.ref[torch.Tensor]] = []

    def fails() -> None:
        big = torch.zeros(8)
        watched.append(weakref.ref(big))
        raise ValueError("broken")

    def named() -> ServiceError:
        try:
            try:
                fails()
            except ValueError as e:
                raise ServiceError("cannot be used") from e
        except ServiceError as kept:
            return without_frames(kept)
        raise AssertionError

    error = named()
    assert watched[0]() is None
    assert str(error.__cause__) == "broken"
