"""A device's meter for tests: memory that only grows where a test says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from backend.hunyuan3d.device.memory import DeviceState


@dataclass
class FakeMemory:
    """backend.hunyuan3d.device.memory.DeviceMemory with numbers of a test's own.

    free : bytes left. used_bytes : held now. peak_bytes : the most that was held. released : how often `release` came.
    on_release : called then.
    """

    free: int = 1000
    total: int = 10_000
    used_bytes: int = 0
    peak_bytes: int = 0
    released: int = 0
    on_release: list[Callable[[], None]] = field(default_factory=list)

    def state(self) -> DeviceState:
        return DeviceState("cuda", "Fake", self.total, self.free)

    def release(self) -> None:
        self.released += 1
        for call in self.on_release:
            call()

    def restart_peak(self) -> None:
        self.peak_bytes = self.used_bytes

    def used(self) -> int:
        return self.used_bytes

    def peak(self) -> int:
        return self.peak_bytes

    def take(self, count: int) -> None:
        """Hold so many bytes more for a moment."""
        self.peak_bytes = max(self.peak_bytes, self.used_bytes + count)
