"""Where a Triton kernel may run, and what happens when it fails: its torch twin takes over, for good, and says so once.

This module does not know what any kernel computes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Generic, ParamSpec, TypeVar

import torch
from torch import Tensor

logger = logging.getLogger(__name__)
P = ParamSpec("P")
R = TypeVar("R")
TRITON_PRESENT = find_spec("triton") is not None


def kernels_run_on(x: Tensor) -> bool:
    """Say whether Triton is installed and runs where this tensor lies: on a GPU, or anywhere under its interpreter."""
    if not TRITON_PRESENT:
        return False
    if x.is_cuda:
        return True
    # Importing Triton takes half a second of processor time.
    if not os.environ.get("TRITON_INTERPRET"):
        return False
    from triton import knobs  # type: ignore[import-untyped, import-not-found, unused-ignore]

    return bool(knobs.runtime.interpret)


class WithTwin(Generic[P, R]):
    """A kernel with its torch twin: the twin runs where the kernel cannot, and from the kernel's first failure on."""

    def __init__(self, name: str, kernel: Callable[P, R], twin: Callable[P, R]) -> None:
        self.name = name
        self.kernel = kernel
        self.twin = twin
        self.failed = False

    def __call__(self, runs: bool, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the kernel if it `runs` here and has not failed yet, else the twin. Raises torch.OutOfMemoryError."""
        if runs and not self.failed:
            try:
                return self.kernel(*args, **kwargs)
            except torch.OutOfMemoryError:
                raise
            # Compilers fail in ways of their own; whatever it was, the twin computes the same.
            except Exception:
                self.failed = True
                logger.warning("The kernel %s failed; torch computes it from now on.", self.name, exc_info=True)
        return self.twin(*args, **kwargs)
