"""The octree resolution that a checkpoint on this machine is for, read from its config.yaml without loading anything.

A web process asks it before a worker has registered. It does not judge a checkpoint: what is not here, or cannot be
read, is taken for a released one.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from backend.limits import CHECKPOINT_RESOLUTION, MAX_RESOLUTION, MIN_RESOLUTION

CONFIG_NAME = "config.yaml"
DEMO_FOLDER = Path(__file__).parents[2] / "checkpoints" / "demo"


def configured_resolution(model_path: str, subfolder: str = "") -> int:
    """Return the cells a side, for MODEL_PATH and MODEL_SUBFOLDER."""
    folder = (DEMO_FOLDER if model_path == "demo" else Path(model_path).expanduser()) / subfolder
    configs = [folder / CONFIG_NAME, *sorted(folder.glob(f"*/{CONFIG_NAME}"))]
    try:
        text = next(config for config in configs if config.is_file()).read_text(encoding="utf-8")
        found = yaml.safe_load(text)["pipeline"]["params"]["octree_resolution"]
    except (StopIteration, OSError, ValueError, yaml.YAMLError, LookupError, TypeError):
        return CHECKPOINT_RESOLUTION
    offered = isinstance(found, int) and MIN_RESOLUTION <= found <= MAX_RESOLUTION
    return found if offered else CHECKPOINT_RESOLUTION
