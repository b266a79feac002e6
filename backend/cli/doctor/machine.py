"""The machine: Python, torch, the device, memory, disks and the checkpoint.

Nothing is loaded or written. This module does not know what the service does with them.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from backend.cli.doctor.checks import WrongError
from backend.config import Settings

if TYPE_CHECKING:
    import torch

GIB = 2**30
LEAST_PYTHON = (3, 11)
LEAST_MEMORY = 1.5 * GIB
"""What a worker with the demo checkpoint needs at its peak, with room for the web side."""
LEAST_DEVICE_MEMORY = 2 * GIB
LEAST_DISK = 1 * GIB

_CGROUP = Path("/sys/fs/cgroup")
_NVIDIA = Path("/proc/driver/nvidia/version")


def look_at_python(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> str:
    """Tell Python's version. Raises WrongError for one that is too old."""
    text = ".".join(map(str, version))
    if version[:2] < LEAST_PYTHON:
        least = ".".join(map(str, LEAST_PYTHON))
        raise WrongError(f"This is Python {text}: make the environment with Python {least} or newer.")
    return f"Python {text} on {platform.system()} {platform.machine()}."


def look_at_torch(settings: Settings, load: Callable[[], object] | None = None, driver: Path = _NVIDIA) -> str:
    """Tell torch's version and build. load : imports it; driver : there where NVIDIA's driver is. Raises WrongError."""
    try:
        (load or _torch)()
        import torch
    except (ImportError, OSError) as error:
        if not settings.worker_enabled:
            return "torch is not there, and with WORKER_ENABLED=false it is not needed."
        raise WrongError(f"torch cannot be imported ({error}): pip install -r requirements.txt") from error
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU alone"
    wants_gpu = settings.worker_enabled and settings.device.startswith(("auto", "cuda"))
    if torch.version.cuda is None and wants_gpu and driver.exists():
        raise WrongError(
            f"torch {torch.__version__} is built for {build}, but this machine has an NVIDIA driver: install the CUDA "
            "build (PyPI's own for Linux), or set DEVICE=cpu."
        )
    return f"torch {torch.__version__}, built for {build}."


def look_at_device(settings: Settings) -> str:
    """Tell the device that a worker here would take, and its memory. Raises WrongError."""
    if not settings.worker_enabled:
        return "None is needed: WORKER_ENABLED=false leaves the jobs to workers elsewhere."
    import torch

    device = torch.device(_chosen(settings.device, torch.cuda.is_available(), torch.backends.mps.is_available()))
    if device.type == "cuda":
        return _cuda(device)
    if device.type == "mps":
        if not torch.backends.mps.is_available():
            raise WrongError("DEVICE=mps, but torch sees no Apple GPU: set DEVICE=auto.")
        return "Apple's GPU (mps)."
    return f"CPU with {os.cpu_count()} cores: fit for the demo checkpoint; the released ones want a GPU."


def look_at_previews(find: Callable[[str], object] = find_spec) -> str:
    """Say whether previews can be drawn; a service without them makes meshes all the same."""
    if find("embreex") is None:
        return "Meshes are made without previews: embreex is not installed (pip install 'orfeas[rendering]')."
    return "Previews and turntables can be drawn."


def look_at_memory(free: int | None = None) -> str:
    """Tell how much main memory is free, in bytes where given. Raises WrongError when a worker would lack it."""
    free = free_memory() if free is None else free
    if free is None:
        return "How much main memory is free cannot be told on this system."
    if free < LEAST_MEMORY:
        raise WrongError(
            f"Only {free / GIB:.1f} GiB of main memory are free: a worker with the demo checkpoint takes up to "
            f"{LEAST_MEMORY / GIB:g}. End something else, or give the container more."
        )
    return f"{free / GIB:.1f} GiB of main memory are free."


def look_at_disk(settings: Settings) -> str:
    """Tell how much room the disks have that are written to. Raises WrongError when one is nearly full."""
    folders = {"data": settings.data_dir}
    if "://" not in settings.files_url:
        folders["files"] = Path(settings.files_url)
    rooms = {f"{name} ({folder})": shutil.disk_usage(existing(folder)).free for name, folder in folders.items()}
    for name, room in rooms.items():
        if room < LEAST_DISK:
            raise WrongError(
                f"Only {room / GIB:.1f} GiB are free on the disk of {name}: make room, lower ARTIFACT_TTL_HOURS, or "
                "name another folder."
            )
    return "; ".join(f"{name}: {room / GIB:.0f} GiB free" for name, room in rooms.items()) + "."


def look_at_checkpoint(settings: Settings) -> str:
    """Tell where the model's files are. Raises WrongError, CheckpointNotFound."""
    if not settings.worker_enabled:
        return "None is needed: WORKER_ENABLED=false leaves the jobs to workers elsewhere."
    from backend.hunyuan3d.checkpoint.files import SHORT_NAMES, locate

    name = settings.model_path
    if name != "demo" and not Path(name).expanduser().exists():
        return _in_hub_cache(SHORT_NAMES.get(name, name), settings.model_subfolder)
    files = locate(name, settings.model_subfolder or None)
    if files.weights.stat().st_size < 1_000_000 and files.weights.read_bytes()[:12] == b"version http":
        raise WrongError(f"{files.weights} is a Git LFS pointer and not the weights: fetch them with `git lfs pull`.")
    return f"{name}: {files.weights} ({files.weights.stat().st_size / 1e6:.0f} MB)."


def free_memory(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = _CGROUP) -> int | None:
    """Return the bytes of main memory that this process may still take, its container's bound counted in."""
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    try:
        bound = int((cgroup / "memory.max").read_text()) - int((cgroup / "memory.current").read_text())
    except (OSError, ValueError):  # no container, no cgroup of this kind, or no bound
        return free
    return max(0, min(free, bound))


def existing(folder: Path) -> Path:
    """Return the nearest folder above that is there, or the folder itself."""
    folder = folder.expanduser().absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


def _torch() -> None:
    import torch  # noqa: F401


def _chosen(asked: str, cuda: bool, mps: bool) -> str:
    if asked != "auto":
        return asked
    return "cuda" if cuda else "mps" if mps else "cpu"


def _cuda(device: torch.device) -> str:
    from torch import cuda

    if not cuda.is_available():
        raise WrongError(
            f"DEVICE={device}, but torch sees no CUDA device: see that `nvidia-smi` lists one and that the driver can "
            "run the CUDA that torch is built for, or set DEVICE=auto."
        )
    if (device.index or 0) >= cuda.device_count():
        raise WrongError(f"DEVICE={device}, but there are only {cuda.device_count()} CUDA devices, counted from 0.")
    name = cuda.get_device_name(device)
    free, total = cuda.mem_get_info(device)
    if free < LEAST_DEVICE_MEMORY:
        raise WrongError(
            f"Only {free / GIB:.1f} of {total / GIB:.0f} GiB of {name} are free: end what else runs on it "
            "(`nvidia-smi` lists it), or name another device with DEVICE=cuda:N."
        )
    return f"{name}, {free / GIB:.1f} of {total / GIB:.0f} GiB free."


def _in_hub_cache(name: str, subfolder: str) -> str:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    repository, folder = "/".join(name.split("/")[:2]), subfolder or "/".join(name.split("/")[2:])
    try:
        found = try_to_load_from_cache(repository, f"{folder}/config.yaml" if folder else "config.yaml")
    except HFValidationError:
        repository = ""
    if "/" not in repository:
        raise WrongError(
            f"MODEL_PATH={name!r} is no folder here and no repository 'owner/name': name one of these, or demo."
        )
    if isinstance(found, str):
        return f"{name}: {Path(found).parent}."
    return f"{name} is not on this machine yet: the first start fetches it, which may be many gigabytes."
