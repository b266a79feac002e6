"""`python -m backend.demo`: the same as `orfeas demo`."""

from __future__ import annotations

import os
import sys

from backend.demo import run_program

if __name__ == "__main__":
    sys.exit(run_program(sys.argv[1:], os.environ))
