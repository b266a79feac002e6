"""The golden checkpoints: tiny models with the numbers that the reference made with them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from backend.hunyuan3d import Hunyuan3DShapePipeline

GOLDEN = Path(__file__).parents[1] / "golden"
GOLDEN_NAMES = ("tiny-2.1", "tiny-2.0", "tiny-2mini-turbo", "tiny-2mv")
VIEW_NAMES = ("front", "left", "back")


@dataclass(frozen=True, eq=False)
class Golden:
    """One golden folder: its pictures, its checkpoint, and the reference's numbers."""

    name: str
    folder: Path
    arrays: dict[str, Tensor]
    steps: int
    guidance_scale: float
    resolution: int

    @property
    def images(self) -> list[Path] | list[dict[str, Path]]:
        """The pictures in order, or the views of each object."""
        if self.name == "tiny-2mv":
            return [{view: self.folder / f"view{k}_{view}.png" for view in VIEW_NAMES} for k in range(2)]
        return [self.folder / f"image{k}.png" for k in range(3)]

    def pipeline(self) -> Hunyuan3DShapePipeline:
        """Return a freshly loaded pipeline, for tests that change it."""
        return Hunyuan3DShapePipeline.from_pretrained(self.folder, device="cpu", dtype="fp32")


@cache
def load_golden(name: str) -> Golden:
    """Return the golden folder of that name, read once in a process."""
    folder = GOLDEN / name
    meta = json.loads((folder / "meta.json").read_text())
    with np.load(folder / "golden.npz") as arrays:
        tensors = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    return Golden(name, folder, tensors, meta["num_inference_steps"], meta["guidance_scale"], meta["octree_resolution"])


@cache
def load_pipeline(name: str) -> Hunyuan3DShapePipeline:
    """Return that folder's pipeline, loaded once in a process: not to be changed."""
    return load_golden(name).pipeline()
