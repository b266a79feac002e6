"""Memory that meshes leave behind, given back to the system.

A mesh and what is known of it refer to one another, so that only the cycle collector finds them; and the heap keeps
what is freed (backend/hunyuan3d/device/malloc.py). Without this a process grows for hours, to several times the memory
(benchmarks/results/soak.md). This module does not know what a mesh is.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable

from backend.hunyuan3d.device.malloc import trim_malloc

_SECONDS_BETWEEN = 5.0


class MemoryReturn:
    """Gives memory back now and then; any thread may call it."""

    def __init__(
        self, monotonic: Callable[[], float] = time.monotonic, trim: Callable[[], object] = trim_malloc
    ) -> None:
        """monotonic : seconds since any moment; trim : has the C library return what it holds."""
        self._monotonic = monotonic
        self._trim = trim
        self._lock = threading.Lock()
        self._last = float("-inf")

    def keep_what_is(self) -> None:
        """What lives now, such as a loaded model, will live on: the collector need not look at it again; once."""
        if not gc.get_freeze_count():
            gc.collect()
            gc.freeze()

    def after_work(self) -> None:
        """Some work has ended: collect and return what it left, unless that was done a moment ago."""
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
