"""`python -m backend.hunyuan3d picture.png -o out/`: see `cli`."""

from __future__ import annotations

import sys

from backend.hunyuan3d.heap import prepare_heap


def run() -> int:
    """The command line, in a process of its own."""
    # Before torch is imported.
    prepare_heap()
    from backend.hunyuan3d.cli import main

    return main()


if __name__ == "__main__":
    sys.exit(run())
