"""`python -m orfeas_client`."""

from __future__ import annotations

import sys

from orfeas_client import main

if __name__ == "__main__":
    sys.exit(main())
