"""`python -m backend.demo`."""

from __future__ import annotations

import sys

from backend.demo import main

if __name__ == "__main__":
    sys.exit(main())
