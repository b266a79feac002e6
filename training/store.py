"""The shapes that a run trains on, held where it trains, while more are still being drawn.

Knows shards (training.dataset) and tensors; nothing of networks.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

NAMES = ("picture", "surface", "near", "uniform")


class Store:
    """Arrays of up to `capacity` shapes on a device, filled shard by shard; named and shaped as in dataset.Sample.

    count : () float tensor on the device, how many shapes there are, so that a recorded step sees it grow.
    """

    def __init__(self, folder: Path, capacity: int, device: str) -> None:
        self.folder, self.capacity, self.device = folder, capacity, device
        self.filled = 0
        self.count = torch.zeros((), device=device, dtype=torch.float64)
        self.arrays: dict[str, Tensor] = {}
        self._taken: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        return self.arrays[name]

    def take(self, most: int = 1_000_000) -> int:
        """Read shards that have appeared since, at most `most` of them; return how many shapes were added.

        A shard that cannot be read is left out.
        """
        added = 0
        found = sorted(path for path in self.folder.glob("shard-*") if path.name not in self._taken)
        for shard in found[:most]:
            self._taken.add(shard.name)
            try:
                arrays = {name: np.load(shard / f"{name}.npy") for name in NAMES}
            except (OSError, ValueError) as error:
                print(f"{shard.name} is left out: {error}", flush=True)
                continue
            added += self._append(arrays)
        if added:
            self.count.fill_(self.filled)
        return added

    def _append(self, arrays: dict[str, np.ndarray]) -> int:
        number = min(len(arrays["near"]), self.capacity - self.filled)
        for name, values in arrays.items():
            if name not in self.arrays:
                kept = torch.from_numpy(values[:1]).dtype
                self.arrays[name] = torch.zeros((self.capacity, *values.shape[1:]), dtype=kept, device=self.device)
            self.arrays[name][self.filled : self.filled + number] = torch.from_numpy(values[:number]).to(self.device)
        self.filled += number
        return number

    def draw(self, batch: int) -> Tensor:
        """Return the rows (B,) of shapes drawn at random among those that are there."""
        return (torch.rand(batch, device=self.device, dtype=torch.float64) * self.count).long()
