"""`python -m backend.hunyuan3d picture.png -o out/`: see `cli`."""

from __future__ import annotations

import sys

from backend.cli.generate import main
from backend.hunyuan3d.device.malloc import prepare_malloc

if __name__ == "__main__":
    prepare_malloc()
    sys.exit(main())
