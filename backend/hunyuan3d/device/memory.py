"""The memory of the device that a model runs on: how much there is, what a run takes at its peak, and letting go of it.

One meter for each kind of device, all with the same few methods. This module does not know what runs on the device.
Torch is only touched by the meters that measure through it, so importing this module does not import it.
"""

from __future__ import annotations

import gc
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from backend.hunyuan3d.device.malloc import trim_malloc

if TYPE_CHECKING:
    import torch

_KIB = 1024


@dataclass(frozen=True)
class DeviceState:
    """A device as health reports it.

    type : cpu, cuda or mps. name : what it is called. memory_total : bytes it has. memory_free : bytes that this
    process may still take, its own limit counted in. On the CPU both are main memory's.
    """

    type: str
    name: str
    memory_total: int
    memory_free: int


class DeviceMemory(Protocol):
    """What sizing and recovery need of a device."""

    def state(self) -> DeviceState:
        """Return the device and its memory now."""
        ...

    def release(self) -> None:
        """Give back to the device what no tensor uses any more."""
        ...

    def restart_peak(self) -> None:
        """Let `peak` count from what is used now."""
        ...

    def used(self) -> int:
        """Bytes that this process uses on the device."""
        ...

    def peak(self) -> int:
        """Return the most bytes that `used` has been since `restart_peak`."""
        ...


class CudaApi(Protocol):
    """The part of torch.cuda that a meter uses."""

    def mem_get_info(self, device: torch.device) -> tuple[int, int]: ...
    def memory_allocated(self, device: torch.device) -> int: ...
    def memory_reserved(self, device: torch.device) -> int: ...
    def max_memory_allocated(self, device: torch.device) -> int: ...
    def reset_peak_memory_stats(self, device: torch.device) -> None: ...
    def set_per_process_memory_fraction(self, fraction: float, device: torch.device) -> None: ...
    def get_device_name(self, device: torch.device) -> str: ...
    def current_device(self) -> int: ...
    def empty_cache(self) -> None: ...


class MpsApi(Protocol):
    """The part of torch.mps that a meter uses."""

    def driver_allocated_memory(self) -> int: ...
    def recommended_max_memory(self) -> int: ...
    def set_per_process_memory_fraction(self, fraction: float) -> None: ...
    def empty_cache(self) -> None: ...


class CudaMemory:
    """A CUDA device. What torch keeps in its cache counts as free for this process: it is used before more is taken."""

    def __init__(self, device: torch.device, limit: float, cuda: CudaApi) -> None:
        """limit : the part of the device's memory this process may take; torch refuses more from here on."""
        index = cuda.current_device() if device.index is None else device.index
        self._device = type(device)(device.type, index)
        self._limit = float(limit)
        self._cuda = cuda
        # Torch takes no device without a number and no whole number for the part.
        cuda.set_per_process_memory_fraction(self._limit, self._device)

    def state(self) -> DeviceState:
        free, total = self._cuda.mem_get_info(self._device)
        allocated = self._cuda.memory_allocated(self._device)
        cached = self._cuda.memory_reserved(self._device) - allocated
        still = min(free + cached, int(total * self._limit) - allocated)
        return DeviceState("cuda", self._cuda.get_device_name(self._device), total, max(still, 0))

    def release(self) -> None:
        gc.collect()
        self._cuda.empty_cache()

    def restart_peak(self) -> None:
        self._cuda.reset_peak_memory_stats(self._device)

    def used(self) -> int:
        return self._cuda.memory_allocated(self._device)

    def peak(self) -> int:
        return self._cuda.max_memory_allocated(self._device)


class MpsMemory:
    """Apple's GPU. Its driver keeps what it once took until the cache is emptied, so that is the peak as well."""

    def __init__(self, limit: float, mps: MpsApi) -> None:
        self._limit = float(limit)
        self._mps = mps
        mps.set_per_process_memory_fraction(self._limit)

    def state(self) -> DeviceState:
        total = self._mps.recommended_max_memory()
        still = int(total * self._limit) - self._mps.driver_allocated_memory()
        return DeviceState("mps", platform.processor() or platform.machine(), total, max(still, 0))

    def release(self) -> None:
        gc.collect()
        self._mps.empty_cache()

    def restart_peak(self) -> None:
        self._mps.empty_cache()

    def used(self) -> int:
        return self._mps.driver_allocated_memory()

    def peak(self) -> int:
        return self._mps.driver_allocated_memory()


class HostMemory:
    """Main memory, as Linux tells it; a container's own bound counts where there is one.

    root : the folder that /proc and /sys are in. Where there is no /proc, all memory counts as free and a run as
    taking nothing: the batch size then stays what was asked for.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def state(self) -> DeviceState:
        meminfo = self._table("proc/meminfo")
        total = meminfo.get("MemTotal", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        free = meminfo.get("MemAvailable", total)
        bound = self._number("sys/fs/cgroup/memory.max")
        if bound is not None and bound < total:
            # Files that were only read count as used here too; the kernel drops those when memory is wanted.
            dropped = self._statistics("sys/fs/cgroup/memory.stat").get("inactive_file", 0)
            used = (self._number("sys/fs/cgroup/memory.current") or 0) - dropped
            total, free = bound, min(free, bound - used)
        return DeviceState("cpu", self._processor(), total, max(free, 0))

    def release(self) -> None:
        gc.collect()
        # What the heap keeps would hide what the next run takes.
        trim_malloc()

    def restart_peak(self) -> None:
        # Writing 5 sets VmHWM to what is resident now (man 5 proc).
        self._write("proc/self/clear_refs", "5")

    def used(self) -> int:
        return self._table("proc/self/status").get("VmRSS", 0)

    def peak(self) -> int:
        return self._table("proc/self/status").get("VmHWM", 0)

    def _processor(self) -> str:
        for line in self._lines("proc/cpuinfo"):
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
        return platform.processor() or platform.machine() or "CPU"

    def _table(self, path: str) -> dict[str, int]:
        """Lines such as `VmRSS:  1234 kB`, in bytes."""
        parts = (line.split() for line in self._lines(path))
        return {p[0].removesuffix(":"): int(p[1]) * _KIB for p in parts if len(p) == 3 and p[2] == "kB"}

    def _statistics(self, path: str) -> dict[str, int]:
        """Lines such as `inactive_file 4096`, in bytes."""
        parts = (line.split() for line in self._lines(path))
        return {p[0]: int(p[1]) for p in parts if len(p) == 2}

    def _number(self, path: str) -> int | None:
        """Return a file's one number; None where there is no file or it says `max`."""
        text = "".join(self._lines(path)).strip()
        return int(text) if text.isdigit() else None

    def _lines(self, path: str) -> list[str]:
        try:
            return (self._root / path).read_text().splitlines()
        except OSError:
            return []

    def _write(self, path: str, text: str) -> None:
        try:
            (self._root / path).write_text(text)
        except OSError:
            # A kernel without it: the peak then is that of the process's whole life, which errs on the safe side.
            return


def memory_of(device: torch.device, limit: float = 1.0) -> DeviceMemory:
    """Return the device's meter. limit : the part of its memory this process may take (CUDA, MPS)."""
    import torch

    meters: dict[str, Callable[[], DeviceMemory]] = {
        "cuda": lambda: CudaMemory(device, limit, torch.cuda),
        "mps": lambda: MpsMemory(limit, torch.mps),
    }
    return meters.get(device.type, HostMemory)()
