"""Tensors to a device and back while it works: copies of their own stream on CUDA, plain tensors elsewhere.

This module does not know what the tensors are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Upload:
    """A tensor on its way to the device; done : recorded behind the copy, None where there is nothing to wait for."""

    tensor: Tensor
    done: torch.cuda.Event | None = None

    def arrived(self) -> Tensor:
        """Return the tensor for work on the current stream, which waits for the copy; this thread does not."""
        if self.done is not None:
            stream = torch.cuda.current_stream(self.tensor.device)
            stream.wait_event(self.done)
            # Its memory belongs to the copy's stream, which must not use it again before this one is done with it.
            self.tensor.record_stream(stream)
        return self.tensor


def upload(tensor: Tensor, device: torch.device) -> Upload:
    """Begin to copy a tensor to a CUDA device, on any thread; for other devices it stays where it is."""
    if device.type != "cuda":
        return Upload(tensor)
    stream = _stream(device, "up")
    with torch.cuda.stream(stream):
        copied = tensor.pin_memory().to(device, non_blocking=True)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record(stream)
    return Upload(copied, done)


class Download:
    """Copies into main memory that begin when the current stream's work so far is done, and that it need not await."""

    def __init__(self, device: torch.device) -> None:
        """Copy nothing yet; call when what is to be copied has been computed or enqueued."""
        self._device = device
        self._done: torch.cuda.Event | None = None
        if device.type == "cuda":
            _stream(device, "down").wait_stream(torch.cuda.current_stream(device))

    def copy(self, tensor: Tensor) -> Tensor:
        """Return the tensor's copy, whose values are there after wait()."""
        if self._device.type != "cuda":
            return tensor.cpu()
        stream = _stream(self._device, "down")
        copied = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        with torch.cuda.stream(stream):
            copied.copy_(tensor, non_blocking=True)
            tensor.record_stream(stream)
            # A thread that waits is to leave its core to others.
            self._done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            self._done.record(stream)
        return copied

    def wait(self) -> None:
        """Return when all copies are there; any thread may call it, often."""
        if self._done is not None:
            self._done.synchronize()


def joined(uploads: Sequence[Upload]) -> Tensor:
    """Return uploaded batches of one as one batch, (1, ...) each -> (B, ...)."""
    return torch.cat([each.arrived() for each in uploads])


@cache
def _stream(device: torch.device, direction: str) -> torch.cuda.Stream:  # noqa: ARG001 - one for each direction
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
