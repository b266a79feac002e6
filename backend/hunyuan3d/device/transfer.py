"""Tensors to a device while it works: copies on a stream of their own on CUDA, plain tensors elsewhere.

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
    stream = _stream(device)
    with torch.cuda.stream(stream):
        copied = tensor.pin_memory().to(device, non_blocking=True)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record(stream)
    return Upload(copied, done)


def joined(uploads: Sequence[Upload]) -> Tensor:
    """Return uploaded batches of one as one batch, (1, ...) each -> (B, ...)."""
    return torch.cat([each.arrived() for each in uploads])


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
