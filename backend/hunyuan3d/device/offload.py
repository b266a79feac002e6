"""Networks that wait in main memory and come to the device for their own stage only, where the device is small.

What is kept in main memory is pinned on CUDA, so that bringing it in is one copy at the bus's speed. Weights are
never changed, so nothing is copied back. This module does not know what the networks compute.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

CROWDED = 0.5
"""Above this part of the memory that the process may take, weights leave too little for the work itself."""


def wants_offload(mode: str, weights: int, memory: int) -> bool:
    """Return whether networks wait in main memory.

    mode : on, off, or auto. weights : bytes of all networks. memory : bytes that they and the work have.
    """
    return mode == "on" or (mode == "auto" and weights > memory * CROWDED)


class Offloading:
    """The networks of a model that are on the device only while they are used; any others are always there."""

    def __init__(self, networks: Iterable[nn.Module], device: torch.device) -> None:
        """Move the networks' weights to main memory, wherever they are now."""
        self._waiting = {id(network): _Waiting(network, device) for network in networks}

    def using(self, network: nn.Module) -> AbstractContextManager[None]:
        """Have the network on the device meanwhile, in any thread. Raises torch's own error when it does not fit."""
        waiting = self._waiting.get(id(network))
        return nullcontext() if waiting is None else waiting.on_device()

    def __len__(self) -> int:
        return len(self._waiting)


class _Waiting:
    """One network; `_users` counts the threads that use it now."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._network = network
        self._device = device
        self._lock = threading.Lock()
        self._users = 0
        self._kept = {name: _kept(tensor, device) for name, tensor in _tensors(network)}
        self._put(self._kept)

    @contextmanager
    def on_device(self) -> Iterator[None]:
        with self._lock:
            if self._users == 0:
                # All are copied before one is put in place: when memory runs out, the network waits as it did.
                # Weights outlive this call, which may be one in inference mode.
                with torch.inference_mode(False):
                    there = {n: t.to(self._device, non_blocking=True, copy=True) for n, t in self._kept.items()}
                self._put(there)
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    self._put(self._kept)

    def _put(self, tensors: dict[str, Tensor]) -> None:
        for name, tensor in _tensors(self._network):
            tensor.data = tensors[name]


def _tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from network.named_parameters()
    yield from network.named_buffers()


def _kept(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a copy in main memory, in pages that the device can read by itself."""
    kept = tensor.data.to("cpu", copy=True)
    return kept.pin_memory() if device.type == "cuda" else kept
