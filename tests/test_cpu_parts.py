"""Parts of a computation on a CPU: on threads of their own, one of torch's each, and the same to the bit."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from backend.hunyuan3d.device.cpu_parts import side_by_side
from tests.support.own_process import printed


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Give torch two threads for a call, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_parts_come_back_in_order_and_as_one_thread_makes_them() -> None:
    weight = torch.randn(96, 96, generator=torch.Generator().manual_seed(1))
    parts = torch.randn(7, 64, 96, generator=torch.Generator().manual_seed(2)).unbind()
    expected = [part @ weight for part in parts]
    for made, own in zip(side_by_side(lambda part: part @ weight, parts), expected, strict=True):
        assert torch.equal(made, own)


@pytest.mark.usefixtures("two_threads")
def test_two_parts_are_worked_on_at_once_each_by_one_of_torch_s_threads() -> None:
    both = threading.Barrier(2, timeout=60)
    threads = []

    def work(part: Tensor) -> Tensor:
        both.wait()
        threads.append(torch.get_num_threads())
        return part

    side_by_side(work, torch.zeros(4, 1).unbind())
    assert threads == [1, 1, 1, 1]
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_a_failure_comes_out_and_leaves_torch_its_threads() -> None:
    def work(_part: Tensor) -> Tensor:
        raise MemoryError

    with pytest.raises(MemoryError):
        side_by_side(work, torch.zeros(4, 1).unbind())
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("inference", [True, False])
def test_threads_work_in_the_mode_of_whoever_asks(inference: bool) -> None:
    with torch.inference_mode(inference):
        modes = side_by_side(lambda _part: torch.tensor(torch.is_inference_mode_enabled()), torch.zeros(3, 1).unbind())
    assert [bool(mode) for mode in modes] == [inference] * 3


_FORKED = """
import os, torch
from backend.hunyuan3d.device.cpu_parts import side_by_side
torch.set_num_threads(2)
parts = torch.zeros(4, 1).unbind()
side_by_side(torch.clone, parts)
child = os.fork()
if child == 0:
    os._exit(len(side_by_side(torch.clone, parts)))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_process_has_threads_of_its_own() -> None:
    assert printed(_FORKED).strip() == "4"


@pytest.mark.parametrize("module", ["backend.cli.main", "backend.worker"])
def test_programs_have_threads_wait_asleep_before_torch_is_there(module: str) -> None:
    program = (
        "import os, sys\n"
        f"import {module} as program\n"
        "for name in ('OMP_WAIT_POLICY', 'OPENBLAS_NUM_THREADS'):\n"
        "    os.environ.pop(name, None)\n"
        "imported = 'torch' in sys.modules\n"
        "sys.argv[1:] = ['--version']\n"
        "os.environ['PORT'] = 'none'\n"
        "try:\n"
        "    program.main()\n"
        "except SystemExit:\n"
        "    pass\n"
        "print(imported, os.environ.get('OMP_WAIT_POLICY'), os.environ.get('OPENBLAS_NUM_THREADS'))\n"
    )
    assert printed(program).splitlines()[-1] == "False passive 1"
