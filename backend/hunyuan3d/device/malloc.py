"""How memory is had from the system while large tensors come and go: in large pieces, and kept between two uses.

Each block of a tensor is otherwise had anew, page by page, which costs a fifth to two fifths of all time on a CPU
(benchmarks/results/malloc.md). Whoever owns the process gives back what is kept by trim_malloc.
This module does not know what a tensor is.
"""

from __future__ import annotations

import ctypes
import gc
import os
import threading
import time
from collections.abc import Callable
from typing import Any

_MOST = (1 << 31) - 1
_SECONDS_BETWEEN = 5.0
_PARAMETERS = {
    # M_ARENA_MAX: one heap for all threads, for what one leaves in its own is rarely what it needs next.
    -8: 1,
    # M_MMAP_THRESHOLD: the largest that glibc takes. Larger blocks lie outside the heap.
    -3: 32 << 20,
    # M_TRIM_THRESHOLD: the end of the heap stays until trim_malloc.
    -1: _MOST,
    # M_TOP_PAD: it grows by so much.
    -2: 64 << 20,
}


def prepare_malloc() -> None:
    """From now on; before torch has its first tensor, and before there are many threads. Does nothing twice.

    Sets THP_MEM_ALLOC_ENABLE, by which torch asks for huge pages (unless the environment says otherwise), and glibc's
    parameters; another C library is left as it is.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    mallopt = _c_function("mallopt")
    if mallopt is not None:
        for parameter, value in _PARAMETERS.items():
            mallopt(parameter, value)


def trim_malloc() -> None:
    """Give back to the system what was freed and kept, with glibc's malloc_trim, where there is one."""
    malloc_trim = _c_function("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(ctypes.c_size_t(0))


class MemoryReturn:
    """Give memory that finished work leaves behind back to the system, now and then; any thread may call it.

    A mesh and what is known of it refer to one another, so that only the cycle collector finds them, and the C library
    keeps what is freed. Without this a process grows for hours, to several times the memory
    (benchmarks/results/soak.md).
    """

    def __init__(
        self, monotonic: Callable[[], float] = time.monotonic, trim: Callable[[], object] = trim_malloc
    ) -> None:
        """Return nothing yet.

        monotonic : seconds since any moment; trim : has the C library return what it holds
        """
        self._monotonic = monotonic
        self._trim = trim
        self._lock = threading.Lock()
        self._last = float("-inf")

    def freeze(self) -> None:
        """Have the collector skip from now on what lives now, such as a loaded model; once."""
        if not gc.get_freeze_count():
            gc.collect()
            gc.freeze()

    def after_work(self) -> None:
        """Collect and return what some work has left, unless that was done a moment ago."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._monotonic() - self._last < _SECONDS_BETWEEN:
                return
            gc.collect()
            self._trim()
            self._last = self._monotonic()
        finally:
            self._lock.release()


def _c_function(name: str) -> Any:
    """Return a function of the C library that this process runs on; None where it has none of that name."""
    try:
        return getattr(ctypes.CDLL(None), name, None)
    except OSError:
        return None
