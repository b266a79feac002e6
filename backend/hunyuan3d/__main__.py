"""`python -m backend.hunyuan3d image.png -o out/`: what `orfeas generate` does, kept for those who call it so."""

from __future__ import annotations

import runpy
import sys

if __name__ == "__main__":
    # By name: the model imports nothing of the programs that stand on it.
    sys.argv.insert(1, "generate")
    runpy.run_module("backend.cli", run_name="__main__", alter_sys=True)
