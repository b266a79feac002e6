"""What work leaves behind is collected and returned, and not more often than it is worth."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import psutil
import pytest

from backend.hunyuan3d.device.malloc import MemoryReturn
from tests.support.garbage import freeze


@pytest.fixture(autouse=True)
def _only_when_told() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def _nothing_frozen() -> Iterator[None]:
    """All that other tests have loaded is looked at: seconds, for each collection."""
    gc.unfreeze()
    yield
    freeze()


class Watched:
    """A MemoryReturn with a clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 100.0
        self.trims = 0
        self.memory = MemoryReturn(lambda: self.seconds, self._trim)

    def _trim(self) -> None:
        self.trims += 1


class Knot:
    """Something that only the cycle collector finds."""

    def __init__(self) -> None:
        self.itself = self


def knot() -> weakref.ref[Knot]:
    return weakref.ref(Knot())


def test_what_refers_to_itself_is_collected_after_work() -> None:
    left = knot()
    assert left() is not None
    Watched().memory.after_work()
    assert left() is None


def test_memory_is_returned_at_most_every_five_seconds() -> None:
    watched = Watched()
    for seconds in (100.0, 100.0, 104.9, 105.0, 109.9, 110.0):
        watched.seconds = seconds
        watched.memory.after_work()
    assert watched.trims == 3


@pytest.mark.usefixtures("_nothing_frozen")
def test_what_is_kept_is_not_looked_at_again() -> None:
    watched, left = Watched(), knot()
    kept = [[knot()]]
    watched.memory.freeze()
    assert left() is None
    assert gc.get_freeze_count() > 0
    assert not any(thing is kept for thing in gc.get_objects())


def test_the_c_library_gives_freed_memory_back() -> None:
    memory, process = MemoryReturn(), psutil.Process()
    # Small enough for the heap; every other one stays, so that the heap cannot just end earlier.
    blocks: list[bytes | None] = [bytes([k % 251]) * 60_000 for k in range(4000)]
    full = process.memory_info().rss
    blocks[::2] = [None] * 2000
    memory.after_work()
    assert full - process.memory_info().rss > 60_000_000
    assert sum(block is not None for block in blocks) == 2000
