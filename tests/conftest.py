"""What tests share: the golden checkpoints with their numbers and copies of them to damage, and empty databases."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backend.hunyuan3d import Hunyuan3DShapePipeline
from backend.jobs.store import JobStore
from backend.storage.database import Database
from tests.support.golden import GOLDEN, GOLDEN_NAMES, Golden, load_golden, load_pipeline
from tests.support.store_backends import BACKENDS, ManualClock, empty_database, open_database

pytest_plugins = ["tests.support.garbage", "tests.support.crash_traces", "tests.support.missing_programs"]


@pytest.fixture(params=GOLDEN_NAMES)
def golden(request: pytest.FixtureRequest) -> Golden:
    """Each golden folder in turn."""
    return load_golden(request.param)


@pytest.fixture
def pipeline(golden: Golden) -> Hunyuan3DShapePipeline:
    """Provide the golden folder's pipeline, shared: not to be changed."""
    return load_pipeline(golden.name)


@pytest.fixture
def tiny() -> Hunyuan3DShapePipeline:
    """Provide the tiny v2.1 pipeline, shared: not to be changed."""
    return load_pipeline("tiny-2.1")


@pytest.fixture
def copy_checkpoint(tmp_path: Path) -> Callable[[str], Path]:
    """Copy a golden checkpoint's two files into a folder of the test's own."""

    def copy(name: str) -> Path:
        (source,) = (path.parent for path in (GOLDEN / name).glob("*/config.yaml"))
        return shutil.copytree(source, tmp_path / name)

    return copy


@pytest.fixture
def clock() -> ManualClock:
    """Provide a clock that stands still until it is moved."""
    return ManualClock()


@pytest.fixture(params=BACKENDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Provide the address of an empty database, of each kind in turn."""
    return empty_database(request.param, tmp_path)


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """Provide that database, open."""
    with open_database(url) as opened:
        yield opened


@pytest.fixture
def store(database: Database, clock: ManualClock) -> JobStore:
    """Its job store."""
    return JobStore(database, clock)
