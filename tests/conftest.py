"""What tests share: the golden checkpoints with their numbers and copies of them to damage, and empty databases."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from backend.hunyuan3d import Hunyuan3DShapePipeline
from backend.jobs.store import JobStore
from backend.storage.database import Database
from tests.support.store_backends import BACKENDS, ManualClock, empty_database, open_database

GOLDEN = Path(__file__).parent / "golden"
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
        """A freshly loaded pipeline, for tests that change it."""
        return Hunyuan3DShapePipeline.from_pretrained(self.folder, device="cpu", dtype="fp32")


@cache
def load_golden(name: str) -> Golden:
    folder = GOLDEN / name
    meta = json.loads((folder / "meta.json").read_text())
    with np.load(folder / "golden.npz") as arrays:
        tensors = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    return Golden(name, folder, tensors, meta["num_inference_steps"], meta["guidance_scale"], meta["octree_resolution"])


@cache
def load_pipeline(name: str) -> Hunyuan3DShapePipeline:
    return load_golden(name).pipeline()


@pytest.fixture(params=GOLDEN_NAMES)
def golden(request: pytest.FixtureRequest) -> Golden:
    """Each golden folder in turn."""
    return load_golden(request.param)


@pytest.fixture
def pipeline(golden: Golden) -> Hunyuan3DShapePipeline:
    """The golden folder's pipeline, shared: not to be changed."""
    return load_pipeline(golden.name)


@pytest.fixture
def tiny() -> Hunyuan3DShapePipeline:
    """The tiny v2.1 pipeline, shared: not to be changed."""
    return load_pipeline("tiny-2.1")


@pytest.fixture
def copy_checkpoint(tmp_path: Path) -> Callable[[str], Path]:
    """Copies a golden checkpoint's two files into a folder of the test's own."""

    def copy(name: str) -> Path:
        (source,) = (path.parent for path in (GOLDEN / name).glob("*/config.yaml"))
        return shutil.copytree(source, tmp_path / name)

    return copy


@pytest.fixture
def clock() -> ManualClock:
    """Stands still until it is moved."""
    return ManualClock()


@pytest.fixture(params=BACKENDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database, of each kind in turn."""
    return empty_database(request.param, tmp_path)


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """That database, open."""
    with open_database(url) as opened:
        yield opened


@pytest.fixture
def store(database: Database, clock: ManualClock) -> JobStore:
    """Its job store."""
    return JobStore(database, clock)
