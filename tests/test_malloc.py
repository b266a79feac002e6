"""The memory that malloc keeps: one heap for all threads, and kept between two uses."""

from __future__ import annotations

import os

from tests.support.own_process import printed

_MANY_THREADS = """
import sys, threading, psutil
from backend.hunyuan3d.device.malloc import prepare_malloc
if sys.argv[1] == "one":
    prepare_malloc()
together = threading.Barrier(12)
def work():
    together.wait()
    kept = [bytes(50_000) for _ in range(20)]
    together.wait()
threads = [threading.Thread(target=work) for _ in range(12)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
# Each heap of a thread's own takes 64 MiB of addresses, or twice that while it is aligned.
print(psutil.Process().memory_info().vms >> 20)
"""


def test_threads_share_one_heap() -> None:
    sizes = {heaps: int(printed(_MANY_THREADS, heaps)) for heaps in ("one", "many")}
    assert sizes["many"] - sizes["one"] > 100


_AGAIN = """
import resource, sys
from backend.hunyuan3d.device.malloc import prepare_malloc
if sys.argv[1] == "prepared":
    prepare_malloc()
import torch
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(16 << 20, dtype=torch.uint8) for _ in range(8)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(sum(faults() for _ in range(5)))
"""


def test_tensors_find_the_memory_of_those_before() -> None:
    faults = {heap: int(printed(_AGAIN, heap)) for heap in ("prepared", "as it comes")}
    # With huge pages and without them.
    assert faults["prepared"] < 0.9 * faults["as it comes"]


def test_the_environment_has_the_last_word() -> None:
    program = (
        "from backend.hunyuan3d.device.malloc import prepare_malloc; prepare_malloc(); "
        "import os; print(os.environ[NAME])"
    )
    name = "THP_MEM_ALLOC_ENABLE"
    rest = {key: value for key, value in os.environ.items() if key != name}
    for given, kept in (({}, "1"), ({name: "0"}, "0")):
        assert printed(program.replace("NAME", repr(name)), environment={**rest, **given}).strip() == kept
