"""Compiled pieces of a network in place of eager ones, swapped in together, given up together when one fails.

A piece is a method that its module names in `pieces`; the rows it works on may be of any number, so one compiled piece
serves every batch size with the same kernels. Knows nothing of what the networks compute.
"""

from __future__ import annotations

import inspect
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from backend.hunyuan3d.memory_errors import is_out_of_memory

logger = logging.getLogger(__name__)

Function = Callable[..., Any]
Compiler = Callable[[Function], Function]
# Pieces of one kind with and without a skip, experts or fp8 are versions of one function, of which torch keeps few.
_VERSIONS_OF_A_PIECE = 64


class CompiledPieces:
    """The pieces of some networks, each of which runs compiled or eager, all of them alike.

    `active` says which. A compiler that fails, at whatever call, is done without from then on, and that is said once.
    """

    def __init__(self, networks: Iterable[nn.Module], compiler: Compiler | None = None) -> None:
        """Replace each piece by one that asks `active`; nothing is compiled yet. compiler : torch's when None."""
        self._compiler = compiler or compile_rows
        self._lock = threading.Lock()
        self.active = False
        self.failed = False
        self._places = [(module, name) for network in networks for module, name in pieces_of(network)]
        for module, name in self._places:
            setattr(module, name, Piece(self, getattr(module, name), _rows_of(module, name), self._compiler))

    def __len__(self) -> int:
        return len(self._places)

    @contextmanager
    def compiled(self) -> Iterator[None]:
        """Run this thread's calls compiled, whatever the others' are: to compile before anyone depends on it."""
        _THREAD.compiling = True
        try:
            yield
        finally:
            _THREAD.compiling = False

    def use(self) -> None:
        """Run compiled from now on, in every thread, unless it has failed. Call between batches."""
        with self._lock:
            self.active = not self.failed

    def give_up(self, failure: BaseException) -> None:
        """Run eager from now on; said once."""
        with self._lock:
            first, self.failed, self.active = not self.failed, True, False
        if first:
            logger.warning("TORCH_COMPILE does not work here; going on without it (%s)", type(failure).__name__)
            logger.debug("why it does not", exc_info=failure)


class Piece:
    """One function, eager or compiled."""

    def __init__(self, owner: CompiledPieces, eager: Function, rows: tuple[str, ...], compiler: Compiler) -> None:
        """rows : names of the arguments whose first dimension may have any size."""
        self._owner = owner
        self._eager = eager
        names = list(inspect.signature(eager).parameters)
        self._rows = tuple(names.index(name) for name in rows)
        self._compiler = compiler
        self._compiled: Function | None = None

    def __call__(self, *args: Any) -> Any:
        """Whatever the eager function returns. Compiling happens at the first call, and can fail at any."""
        if self._owner.failed or not (self._owner.active or getattr(_THREAD, "compiling", False)):
            return self._eager(*args)
        try:
            if self._compiled is None:
                self._compiled = self._compiler(self._eager)
            for index in self._rows:
                if args[index] is not None:
                    # Any size from the first call on; said of the tensor, for a weight's sizes are to be constants.
                    torch._dynamo.maybe_mark_dynamic(args[index], 0)
            return self._compiled(*args)
        except Exception as failure:
            # A compiler may raise anything; what is not its fault comes again without it.
            if is_out_of_memory(failure):
                raise
            self._owner.give_up(failure)
        return self._eager(*args)


def pieces_of(network: nn.Module) -> list[tuple[nn.Module, str]]:
    """Return every (module, method name) of a network that may be compiled by itself."""
    return [(module, name) for module in network.modules() for name in getattr(type(module), "pieces", {})]


def _rows_of(module: nn.Module, name: str) -> tuple[str, ...]:
    pieces: Mapping[str, tuple[str, ...]] = type(module).pieces  # type: ignore[attr-defined]
    return pieces[name]


def compile_rows(function: Function) -> Function:
    """Compile a piece for any number of rows; the first call does the work."""
    import torch._dynamo
    import torch.fx.experimental._config

    # Two sizes that are equal by chance, rows and width say, are not to be equal for ever.
    torch.fx.experimental._config.use_duck_shape = False
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _VERSIONS_OF_A_PIECE)
    # One graph or none: a piece that torch would cut up is not what was measured.
    compiled: Function = torch.compile(function, fullgraph=True)
    return compiled


def compiler_missing(device: torch.device) -> str | None:
    """Return what compiling for this device lacks on this machine, None where it lacks nothing."""
    if device.type not in ("cuda", "cpu"):
        return f"torch does not compile for {device.type}"
    if device.type == "cuda" and find_spec("triton") is None:
        return "Triton is not installed"
    names = [os.environ.get("CC"), "cc", "gcc", "clang"] if device.type == "cuda" else [os.environ.get("CXX"), "g++"]
    if not any(shutil.which(name) for name in names if name):
        return "there is no C compiler" if device.type == "cuda" else "there is no C++ compiler"
    return None


def keep_compiled_in(folder: Path) -> None:
    """Keep what the compilers make in this folder, from where a later start takes it; call before anything compiles.

    The folders' contents are keyed by torch itself: by code, versions and device. The environment's own choice stands.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "inductor"))
    os.environ.setdefault("TRITON_CACHE_DIR", str(folder / "triton"))


_THREAD = threading.local()
