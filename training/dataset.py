"""Samples of procedural shapes: drawing them, storing them in shards of memory-mapped arrays, reading them back.

Distances handed out are POSITIVE INSIDE, in world units, clipped to ±TRUNCATION. Knows nothing of networks.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.render import render_images
from training.shapes.field import BOUNDS
from training.shapes.generator import ProceduralShape, make_shape
from training.shapes.sdf import Array

SHARD = 1000
SURFACE, NEAR, UNIFORM, IMAGES = 2048, 2048, 1024, 2
NEAR_SIGMAS = (0.02, 0.08)


@dataclass(frozen=True)
class Sample:
    """What is kept of one shape, or of K shapes when every array has a leading axis K.

    picture : (P,112,112,4) uint8 RGBA, colour composited on white
    surface : (2048,6) float16 points and outward unit normals, uniform by area
    near    : (2048,4) float16 points around the surface (sigma 0.02, then 0.08) and distance, positive inside
    uniform : (1024,4) float16 points of the box ±1.01 and distance, positive inside
    kind    : () uint8 index into KINDS;  seed : () int64
    occupancy : (32768,) uint8, np.packbits of the (64,64,64) [x,y,z] cell centres inside, or None
    """

    picture: NDArray[np.uint8]
    surface: NDArray[np.float16]
    near: NDArray[np.float16]
    uniform: NDArray[np.float16]
    kind: NDArray[np.uint8]
    seed: NDArray[np.int64]
    occupancy: NDArray[np.uint8] | None = None


def draw_sample(shape: ProceduralShape, occupancy: bool = False) -> Sample:
    """Sample a shape for the store, as a function of its seed."""
    rng = np.random.default_rng([shape.seed, 999])
    points, normals = shape.field.surface(SURFACE, rng)
    extra, _ = shape.field.surface(NEAR, rng)
    sigma = np.repeat(np.array(NEAR_SIGMAS, np.float32), NEAR // 2)[:, None]
    near = np.clip(extra + sigma * rng.standard_normal(extra.shape, np.float32), -BOUNDS, BOUNDS)
    uniform = (rng.random((UNIFORM, 3), np.float32) * 2 - 1) * np.float32(BOUNDS)
    return Sample(
        picture=render_images(shape, IMAGES),
        surface=np.concatenate([points, normals], 1).astype(np.float16),
        near=_queries(shape, near),
        uniform=_queries(shape, uniform),
        kind=np.asarray(shape.kind, np.uint8),
        seed=np.asarray(shape.seed, np.int64),
        occupancy=np.packbits(shape.field.occupancy() < 0) if occupancy else None,
    )


def _queries(shape: ProceduralShape, points: Array) -> NDArray[np.float16]:
    rounded = points.astype(np.float16)
    distance = -shape.field.lookup(rounded.astype(np.float32))[:, :1]
    return np.concatenate([rounded, distance.astype(np.float16)], 1)


def write_shard(directory: Path, first_seed: int, count: int, occupancy: bool = False) -> Path:
    """Generate one shard of `count` consecutive seeds; it appears whole or not at all. An existing one is kept."""
    target = directory / f"shard-{first_seed:010d}-{count:04d}"
    if target.is_dir():
        return target
    work = directory / f".{target.name}.{os.getpid()}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    arrays: dict[str, NDArray[np.generic]] = {}
    for row in range(count):
        sample = draw_sample(make_shape(first_seed + row), occupancy)
        for item in fields(sample):
            value = getattr(sample, item.name)
            if value is None:
                continue
            if row == 0:
                arrays[item.name] = np.empty((count, *value.shape), value.dtype)
            arrays[item.name][row] = value
    for name, array in arrays.items():
        np.save(work / f"{name}.npy", array)
    try:
        work.rename(target)
    except OSError:
        # Another worker finished the same shard first; the contents are equal by construction.
        shutil.rmtree(work)
    return target


class ShapeDataset:
    """All finished shards of a directory, memory-mapped; indexable by shape number in seed order."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._shards: list[dict[str, NDArray[np.generic]]] = []
        self._starts = np.zeros(1, np.int64)
        self.refresh()

    def refresh(self) -> int:
        """Look for newly finished shards; return the number of shapes."""
        found = sorted(self.directory.glob("shard-*"))
        self._shards = [
            {path.stem: np.load(path, mmap_mode="r") for path in sorted(shard.glob("*.npy"))} for shard in found
        ]
        self._starts = np.concatenate([[0], np.cumsum([len(s["seed"]) for s in self._shards])]).astype(np.int64)
        return len(self)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def column(self, name: str, indices: NDArray[np.int64]) -> NDArray[np.generic]:
        """Gather one stored array for shapes (K,) as (K, ...); see Sample for names and shapes.

        Raises KeyError for an array that was not stored and IndexError for a number outside the data set.
        """
        indices = np.asarray(indices, np.int64)
        if indices.size and (indices.min() < 0 or indices.max() >= len(self)):
            raise IndexError(f"shape numbers must be from 0 to {len(self) - 1}")
        shard = np.searchsorted(self._starts, indices, side="right") - 1
        template = self._shards[0][name]
        out = np.empty((len(indices), *template.shape[1:]), template.dtype)
        for number in np.unique(shard):
            mine = np.flatnonzero(shard == number)
            out[mine] = self._shards[int(number)][name][indices[mine] - self._starts[number]]
        return out

    def occupancy(self, indices: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return the unpacked occupancy (K,64,64,64) [x,y,z] at the cell centres of the box ±1.01."""
        packed = self.column("occupancy", indices).astype(np.uint8)
        return np.unpackbits(packed, axis=1).reshape(-1, 64, 64, 64).astype(bool)
