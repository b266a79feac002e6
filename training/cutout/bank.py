"""The pictures that composites are made of, on the device: objects, surfaces and writing.

They come from the files that `training.cutout.pictures` writes, some of them while the training runs. Knows nothing of
how they are put together.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.cutout.pictures import OBJECT_SIDE, SURFACE_SIDE, WRITING_SIDE, Kind, shards

Pixels = NDArray[np.uint8]


class Bank:
    """Pictures by kind, (N, H, W, C) uint8 on a device; where there are more than room for, the oldest give way."""

    def __init__(self, folder: Path, device: torch.device, most_objects: int, most_surfaces: int) -> None:
        """Read what is in a folder. most_objects, most_surfaces : how many are kept at a time."""
        self._folder, self.device = folder, device
        self._known: set[str] = set()
        self._rings: dict[Kind, _Ring] = {
            "objects": _Ring((most_objects, OBJECT_SIDE, OBJECT_SIDE, 4), device),
            "surfaces": _Ring((most_surfaces, SURFACE_SIDE, SURFACE_SIDE, 3), device),
            "writing": _Ring((600, WRITING_SIDE, 2 * WRITING_SIDE, 1), device),
        }
        self._reach = torch.zeros((most_objects, 2), device=device)
        self.refresh()

    def refresh(self) -> None:
        """Take in the shards that were finished since the last call; one that cannot be read is left out."""
        for path in sorted(self._folder.glob("*-*.npy")):
            if path.name in self._known:
                continue
            self._known.add(path.name)
            kind = shards(path)
            if kind is None:
                continue
            try:
                pictures = np.load(path)
            except (ValueError, OSError):
                continue
            at = self._rings[kind].add(pictures)
            if kind == "objects":
                self._reach[at] = torch.from_numpy(_reach(pictures)).to(self.device)

    def count(self, kind: Kind) -> int:
        """Return how many pictures of a kind there are."""
        return self._rings[kind].count

    def objects(self, which: Tensor) -> tuple[Tensor, Tensor]:
        """Return objects (B, 4, S, S) in 0..1, and the shares (B, 2) of their width and height that they cover."""
        return self._rings["objects"].take(which), self._reach[which]

    def surfaces(self, which: Tensor) -> Tensor:
        """Return surfaces (B, 3, S, S) in 0..1."""
        return self._rings["surfaces"].take(which)

    def writing(self, which: Tensor) -> Tensor:
        """Return lines of writing and badges, (B, 1, S, 2 S) in 0..1."""
        return self._rings["writing"].take(which)


class _Ring:
    """Room for so many pictures of one shape."""

    def __init__(self, shape: tuple[int, int, int, int], device: torch.device) -> None:
        self._values = torch.zeros(shape, dtype=torch.uint8, device=device)
        self.count, self._next = 0, 0

    def add(self, pictures: Pixels) -> Tensor:
        """Put pictures where there is room, else in the oldest ones' places; return the places."""
        at = (self._next + torch.arange(len(pictures))) % len(self._values)
        at = at.to(self._values.device)
        self._values[at] = torch.from_numpy(np.ascontiguousarray(pictures)).to(self._values.device)
        self._next = (self._next + len(pictures)) % len(self._values)
        self.count = min(self.count + len(pictures), len(self._values))
        return at

    def take(self, which: Tensor) -> Tensor:
        """Return pictures as (B, C, H, W) in 0..1."""
        return self._values[which].permute(0, 3, 1, 2).float() / 255


def _reach(pictures: Pixels) -> NDArray[np.float32]:
    """Return the shares (N, 2) of width and height that the objects cover."""
    shown = pictures[..., 3] > 127
    return np.stack([shown.any(1).mean(-1), shown.any(2).mean(-1)], 1).astype(np.float32)
