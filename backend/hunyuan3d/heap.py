"""How memory is had from the system while large tensors come and go: in large pieces, and kept between two uses.

Each block of a tensor is otherwise had anew, page by page, which costs a fifth to two fifths of all time on a CPU
(benchmarks/results/heap.md). What is kept is given back by malloc_trim, when whoever owns the process thinks it is
time. This module does not know what a tensor is.
"""

from __future__ import annotations

import ctypes
import os

_MOST = (1 << 31) - 1
_PARAMETERS = {
    # M_ARENA_MAX: one heap for all threads, for what one leaves in its own is rarely what it needs next.
    -8: 1,
    # M_MMAP_THRESHOLD: the largest that glibc takes. Larger blocks lie outside the heap.
    -3: 32 << 20,
    # M_TRIM_THRESHOLD: the end of the heap stays until malloc_trim.
    -1: _MOST,
    # M_TOP_PAD: it grows by so much.
    -2: 64 << 20,
}


def prepare_heap() -> None:
    """From now on; before torch has its first tensor, and before there are many threads. Does nothing twice.

    Sets THP_MEM_ALLOC_ENABLE, by which torch asks for huge pages (unless the environment says otherwise), and glibc's
    parameters; another C library is left as it is.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for parameter, value in _PARAMETERS.items():
        mallopt(parameter, value)
