"""`python -m backend.hunyuan3d picture.png -o out/`: see `cli`."""

from __future__ import annotations

import sys

from backend.hunyuan3d.cli import main

if __name__ == "__main__":
    sys.exit(main())
