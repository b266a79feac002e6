"""`python -m backend.hunyuan3d picture.png -o out/`: see `cli`."""

from __future__ import annotations

import sys

from backend.hunyuan3d.cli import main
from backend.hunyuan3d.heap import prepare_heap

if __name__ == "__main__":
    prepare_heap()
    sys.exit(main())
