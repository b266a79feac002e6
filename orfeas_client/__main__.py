"""`python -m orfeas_client`: the same as `orfeas-client`."""

from __future__ import annotations

import sys

from orfeas_client.command import main

if __name__ == "__main__":
    sys.exit(main())
