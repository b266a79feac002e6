"""How torch's threads on a CPU wait for one another: asleep.

GNU OpenMP has them turn in a loop after every call instead, for milliseconds: a little faster where nothing else runs,
and many times slower where anything does, for the one that is waited for has no core (benchmarks/results/cpu_parts.md).
This module does not know torch, which must not have been imported yet.
"""

from __future__ import annotations

import os


def wait_asleep() -> None:
    """From now on; before torch is imported, whose OpenMP reads the environment then. The environment's own stands."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
