"""`python -m backend.serve`."""

from __future__ import annotations

import os
import sys

from backend.serve import run

if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], os.environ, sys.stdout))
