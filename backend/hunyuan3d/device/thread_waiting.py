"""How a CPU's threads wait for one another: asleep.

GNU OpenMP, which torch's threads are of, has them turn in a loop after every call instead, for milliseconds: a little
faster where nothing else runs, and many times slower where anything does, for the one that is waited for has no core
(benchmarks/results/cpu_parts.md). OpenBLAS, which numpy's are of, has no other way of waiting, and its products here
are small: there each thread computes alone. This module does not know torch or numpy, which must not have been imported
yet.
"""

from __future__ import annotations

import os


def wait_asleep() -> None:
    """From now on; before torch and numpy are imported, which read the environment then. The environment's own stands.

    Sets OMP_WAIT_POLICY and OPENBLAS_NUM_THREADS.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
