"""What a checkpoint on this machine is for, read from its config.yaml without loading anything.

A web process asks it before a worker has registered. It does not judge a checkpoint: what is not here, or cannot be
read, is taken for a released one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from backend.limits import CHECKPOINT_RESOLUTION, MAX_RESOLUTION, MIN_RESOLUTION

CONFIG_NAME = "config.yaml"
DEMO_FOLDER = Path(__file__).parents[2] / "checkpoints" / "demo"


_RELEASED = ("hunyuan3d-2", "tencent/Hunyuan3D-2")
_RELEASED_WITH_VIEWS = ("hunyuan3d-2mv", "tencent/Hunyuan3D-2mv")
_UNREADABLE = (StopIteration, OSError, ValueError, yaml.YAMLError, LookupError, TypeError)


def configured_views(model_path: str, subfolder: str = "") -> bool:
    """Return whether it takes several views of an object, for MODEL_PATH and MODEL_SUBFOLDER."""
    return bool(known_views(model_path, subfolder))


def known_views(model_path: str, subfolder: str = "") -> bool | None:
    """Return the same; None for a checkpoint that is not on this machine, and none of the released ones."""
    try:
        encoder = _config(model_path, subfolder)["conditioner"]["params"]["main_image_encoder"]
        return encoder["type"] == "DinoImageEncoderMV" or "view_num" in encoder["kwargs"]
    except _UNREADABLE:
        return model_path.startswith(_RELEASED_WITH_VIEWS) if model_path.startswith(_RELEASED) else None


def configured_resolution(model_path: str, subfolder: str = "") -> int:
    """Return the cells a side, for MODEL_PATH and MODEL_SUBFOLDER."""
    try:
        found = _config(model_path, subfolder)["pipeline"]["params"]["octree_resolution"]
    except _UNREADABLE:
        return CHECKPOINT_RESOLUTION
    offered = isinstance(found, int) and MIN_RESOLUTION <= found <= MAX_RESOLUTION
    return found if offered else CHECKPOINT_RESOLUTION


def _config(model_path: str, subfolder: str) -> Any:
    """Return what config.yaml has. Raises _UNREADABLE."""
    folder = (DEMO_FOLDER if model_path == "demo" else Path(model_path).expanduser()) / subfolder
    configs = [folder / CONFIG_NAME, *sorted(folder.glob(f"*/{CONFIG_NAME}"))]
    return yaml.safe_load(next(config for config in configs if config.is_file()).read_text(encoding="utf-8"))
