"""The meters, against stand-ins for torch.cuda and torch.mps and against files such as Linux has."""

from __future__ import annotations

import gc
import os
import weakref
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from backend.hunyuan3d.device.memory import CudaMemory, DeviceState, HostMemory, MpsMemory, memory_of

GIB = 1 << 30


@dataclass
class FakeCuda:
    """torch.cuda of a device of 80 GiB, of which others hold 10."""

    allocated: int = 8 * GIB
    reserved: int = 12 * GIB
    highest: int = 20 * GIB
    total: int = 80 * GIB
    others: int = 10 * GIB
    devices: list[torch.device] = field(default_factory=list)
    fractions: list[float] = field(default_factory=list)
    emptied: int = 0

    def current_device(self) -> int:
        return 3

    def set_per_process_memory_fraction(self, fraction: float, device: torch.device) -> None:
        if not isinstance(fraction, float) or device.index is None:
            raise TypeError("torch takes neither")
        self.fractions.append(fraction)
        self.devices.append(device)

    def get_device_name(self, device: torch.device) -> str:
        return f"Fake {device.index}"

    def mem_get_info(self, device: torch.device) -> tuple[int, int]:
        self.devices.append(device)
        return self.total - self.others - self.reserved, self.total

    def memory_allocated(self, device: torch.device) -> int:
        self.devices.append(device)
        return self.allocated

    def memory_reserved(self, device: torch.device) -> int:
        self.devices.append(device)
        return self.reserved

    def max_memory_allocated(self, device: torch.device) -> int:
        self.devices.append(device)
        return self.highest

    def reset_peak_memory_stats(self, device: torch.device) -> None:
        self.devices.append(device)
        self.highest = self.allocated

    def empty_cache(self) -> None:
        self.emptied += 1
        self.reserved = self.allocated


@dataclass
class FakeMps:
    """torch.mps of a machine that recommends 16 GiB."""

    driver: int = 6 * GIB
    fractions: list[float] = field(default_factory=list)

    def driver_allocated_memory(self) -> int:
        return self.driver

    def recommended_max_memory(self) -> int:
        return 16 * GIB

    def set_per_process_memory_fraction(self, fraction: float) -> None:
        self.fractions.append(fraction)

    def empty_cache(self) -> None:
        self.driver = GIB


def write(root: Path, **files: str) -> Path:
    """Files under root, their names with two underscores for a slash."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = "MemTotal:       16777216 kB\nMemAvailable:    8388608 kB\nHugePages_Total:       0\n"
STATUS = "Name:\tpython\nVmHWM:\t    3072 kB\nVmRSS:\t    2048 kB\nThreads:\t4\n"


# CUDA.


def test_the_limit_is_set_on_the_device_that_is_meant() -> None:
    cuda = FakeCuda()
    CudaMemory(torch.device("cuda:1"), 0.8, cuda)
    CudaMemory(torch.device("cuda"), 1, cuda)
    assert cuda.fractions == [0.8, 1.0]
    assert cuda.devices == [torch.device("cuda:1"), torch.device("cuda:3")]


def test_free_is_what_the_device_and_the_cache_have_left() -> None:
    state = CudaMemory(torch.device("cuda:0"), 1.0, FakeCuda()).state()
    assert state == DeviceState("cuda", "Fake 0", 80 * GIB, (80 - 10 - 8) * GIB)


def test_free_is_never_more_than_this_process_may_take() -> None:
    assert CudaMemory(torch.device("cuda:0"), 0.25, FakeCuda()).state().memory_free == (20 - 8) * GIB
    assert CudaMemory(torch.device("cuda:0"), 0.05, FakeCuda()).state().memory_free == 0


def test_the_peak_starts_again_and_the_cache_is_emptied() -> None:
    cuda = FakeCuda()
    memory = CudaMemory(torch.device("cuda:0"), 1.0, cuda)
    assert (memory.used(), memory.peak()) == (8 * GIB, 20 * GIB)
    memory.restart_peak()
    assert memory.peak() == 8 * GIB
    memory.release()
    assert cuda.emptied == 1
    assert set(cuda.devices) == {torch.device("cuda:0")}


# MPS.


def test_apples_gpu_counts_what_its_driver_holds() -> None:
    mps = FakeMps()
    memory = MpsMemory(0.5, mps)
    assert mps.fractions == [0.5]
    state = memory.state()
    assert (state.type, state.memory_total, state.memory_free) == ("mps", 16 * GIB, 2 * GIB)
    assert memory.used() == memory.peak() == 6 * GIB
    memory.restart_peak()
    assert memory.peak() == GIB
    mps.driver = 9 * GIB
    memory.release()
    assert memory.state().memory_free == 7 * GIB


# Main memory.


def test_main_memory_is_what_the_kernel_says_is_available(tmp_path: Path) -> None:
    cpuinfo = "processor\t: 0\nmodel name\t: Testing 9000\n"
    memory = HostMemory(write(tmp_path, proc__meminfo=MEMINFO, proc__cpuinfo=cpuinfo))
    assert memory.state() == DeviceState("cpu", "Testing 9000", 16 * GIB, 8 * GIB)


@pytest.mark.parametrize(("most", "free"), [("max", 8 * GIB), (str(4 * GIB), 2 * GIB), (str(10 * GIB), 8 * GIB)])
def test_a_containers_bound_counts(tmp_path: Path, most: str, free: int) -> None:
    write(tmp_path, proc__meminfo=MEMINFO)
    folder = tmp_path / "sys/fs/cgroup"
    folder.mkdir(parents=True)
    (folder / "memory.max").write_text(f"{most}\n")
    (folder / "memory.current").write_text(f"{3 * GIB}\n")
    (folder / "memory.stat").write_text(f"anon {2 * GIB}\ninactive_file {GIB}\n")
    state = HostMemory(tmp_path).state()
    assert state.memory_free == free
    assert state.memory_total == (16 * GIB if most == "max" else int(most))


def test_what_the_process_uses_is_read_in_bytes(tmp_path: Path) -> None:
    memory = HostMemory(write(tmp_path, proc__self__status=STATUS, proc__self__clear_refs=""))
    assert (memory.used(), memory.peak()) == (2 << 20, 3 << 20)
    memory.restart_peak()
    assert (tmp_path / "proc/self/clear_refs").read_text() == "5"


def test_without_proc_all_memory_counts_as_free(tmp_path: Path) -> None:
    memory = HostMemory(tmp_path)
    memory.restart_peak()
    state = memory.state()
    assert state.memory_total == state.memory_free == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert (memory.used(), memory.peak()) == (0, 0)
    assert state.name


def test_this_machines_memory_makes_sense() -> None:
    memory = memory_of(torch.device("cpu"))
    state = memory.state()
    assert state.type == "cpu"
    assert 0 < state.memory_free <= state.memory_total
    block = torch.ones(64 << 20, dtype=torch.uint8)
    assert memory.used() > len(block)
    assert memory.peak() >= memory.used() - (1 << 20)


def test_releasing_frees_what_only_a_cycle_holds() -> None:
    class Knot:
        def __init__(self) -> None:
            self.tensor = torch.zeros(4)
            self.me = self

    gc.disable()
    try:
        held = weakref.ref(Knot().tensor)
        assert held() is not None
        HostMemory().release()
        assert held() is None
    finally:
        gc.enable()


def test_each_kind_of_device_has_its_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, mps = FakeCuda(), FakeMps()
    monkeypatch.setattr(torch, "cuda", cuda)
    monkeypatch.setattr(torch, "mps", mps)
    assert isinstance(memory_of(torch.device("cuda:2"), 0.5), CudaMemory)
    assert isinstance(memory_of(torch.device("mps"), 0.5), MpsMemory)
    assert (cuda.fractions, mps.fractions) == ([0.5], [0.5])
    assert cuda.devices == [torch.device("cuda:2")]


def test_the_stand_ins_have_only_what_torch_has() -> None:
    for fake, real in ((FakeCuda, torch.cuda), (FakeMps, torch.mps)):
        names = [name for name, value in vars(fake).items() if callable(value) and not name.startswith("_")]
        assert names
        assert all(callable(getattr(real, name)) for name in names)
