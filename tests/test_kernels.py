"""Kernels compute what their twins in torch do, here in Triton's interpreter; and a kernel that fails is replaced."""

from __future__ import annotations

import logging
import os

import pytest
import torch

from backend.hunyuan3d.kernels.launch import TRITON_PRESENT, WithTwin
from tests.support.own_process import printed


@pytest.mark.skipif(not TRITON_PRESENT, reason="Triton is not made for this machine")
def test_kernels_compute_what_their_twins_do() -> None:
    program = "from tests.support.kernel_twins import main; main()"
    checked = printed(program, environment={**os.environ, "TRITON_INTERPRET": "1"})
    assert checked.split() == ["check_embedding", "check_query_heads", "check_norm_dot", "check_ghost_cells"]


def test_a_kernel_that_fails_is_replaced_by_its_twin_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []

    def broken(x: int) -> int:
        calls.append(x)
        raise RuntimeError("no such instruction")

    both = WithTwin("doubled", broken, lambda x: 2 * x)
    with caplog.at_level(logging.WARNING):
        assert [both(True, 1), both(True, 2), both(False, 3)] == [2, 4, 6]
    assert calls == [1]
    assert [record.getMessage() for record in caplog.records] == [
        "The kernel doubled failed; torch computes it from now on."
    ]


def test_a_kernel_out_of_memory_is_not_replaced() -> None:
    def starved(x: int) -> int:
        raise torch.OutOfMemoryError(x)

    both = WithTwin("starved", starved, lambda x: x)
    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            both(True, 1)
