"""Who comes first where answers and meshes are made by one process, on the same cores: whoever answers.

A status answer takes some milliseconds of a core. Beside a mesh in the making it waits for that core, again and again,
unless its thread counts for more (benchmarks/results/concurrent_clients.md). This module does not know what is made.
"""

from __future__ import annotations

import os
import sys
import threading

NICE = 10
"""Of the threads that make meshes: beside threads that answer they get a tenth of a core, without any all of it."""


def run_after_others() -> None:
    """Have this thread, and all that it starts from now on, run after the process's other ones.

    Only Linux tells threads of one process apart so; elsewhere nothing happens.
    """
    if sys.platform == "linux":
        here = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, here, max(os.getpriority(os.PRIO_PROCESS, here), NICE))
