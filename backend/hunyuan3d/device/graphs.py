"""CUDA graphs of a denoiser's velocity: one launch in place of hundreds, where the host would be the limit.

A graph is recorded for each shape of a batch and replayed with new values in the same memory, so its results are those
of the calls it recorded. Knows nothing of what a denoiser computes.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from backend.hunyuan3d.checkpoint.load import Denoiser
from backend.hunyuan3d.memory_errors import is_out_of_memory

logger = logging.getLogger(__name__)

Key = tuple[Any, ...]
# Rows x latent tokens up to which the host, not the device, would be the limit.
GRAPHED_TOKENS = 8192
_WARM_UP_CALLS = 2


class GraphedDenoiser:
    """A denoiser whose velocity is replayed from a graph for batches that are small enough."""

    def __init__(self, denoiser: Denoiser, most_tokens: int, most_graphs: int = 4) -> None:
        """most_tokens : rows x latent tokens up to which a graph is used; most_graphs : how many are kept."""
        self._denoiser = denoiser
        self._most_tokens = most_tokens
        self._most_graphs = most_graphs
        self._graphs: OrderedDict[Key, _Graph] = OrderedDict()
        self._failed = False

    @property
    def guidance_embed(self) -> bool:
        """Whether the guidance scale is an input of the network."""
        return self._denoiser.guidance_embed

    def prepare(self, cond: Tensor, *, classifier_free: bool) -> Any:
        """Return the denoiser's context."""
        return self._denoiser.prepare(cond, classifier_free=classifier_free)

    def velocity(self, x: Tensor, t: Tensor, context: Any, guidance: Tensor | None = None) -> Tensor:
        """Return the denoiser's velocity, from a graph where there may be one."""
        if self._failed or x.device.type != "cuda" or x.shape[0] * x.shape[1] > self._most_tokens:
            return self._denoiser.velocity(x, t, context, guidance)
        try:
            return self._graph_of(x, t, context, guidance).replay(x, t, context, guidance)
        except Exception as failure:
            if is_out_of_memory(failure):
                self.forget()
            else:
                self._failed = True
                logger.warning("CUDA graphs do not work here; going on without them (%s: %s)",
                               type(failure).__name__, str(failure).partition("\n")[0])  # fmt: skip
                logger.debug("why they do not", exc_info=failure)
        return self._denoiser.velocity(x, t, context, guidance)

    def forget(self) -> None:
        """Let go of the graphs and of the memory that they hold."""
        self._graphs.clear()

    def _graph_of(self, x: Tensor, t: Tensor, context: Any, guidance: Tensor | None) -> _Graph:
        key = _shapes_of((x, t, context, guidance))
        graph = self._graphs.get(key)
        if graph is None:
            while len(self._graphs) >= self._most_graphs:
                self._graphs.popitem(last=False)
            graph = self._graphs[key] = _Graph(self._denoiser, x, t, context, guidance)
        self._graphs.move_to_end(key)
        return graph


class _Graph:
    """One recorded call, its inputs and its output."""

    def __init__(self, denoiser: Denoiser, x: Tensor, t: Tensor, context: Any, guidance: Tensor | None) -> None:
        self._x, self._t, self._guidance = x.clone(), t.clone(), None if guidance is None else guidance.clone()
        self._context = _copy(context)
        self._held: Any = None
        stream = torch.cuda.Stream(x.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(x.device))
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP_CALLS):
                denoiser.velocity(self._x, self._t, self._context, self._guidance)
        torch.cuda.current_stream(x.device).wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._out = denoiser.velocity(self._x, self._t, self._context, self._guidance)

    def replay(self, x: Tensor, t: Tensor, context: Any, guidance: Tensor | None) -> Tensor:
        """Return the velocity of these values, a tensor of the caller's own."""
        self._x.copy_(x)
        self._t.copy_(t)
        if self._guidance is not None and guidance is not None:
            self._guidance.copy_(guidance)
        # One context serves all steps of a batch, so it is copied once.
        if self._held is not context:
            for own, given in zip(_tensors_of(self._context), _tensors_of(context), strict=True):
                own.copy_(given)
            self._held = context
        self._graph.replay()
        return self._out.clone()


def _tensors_of(value: Any) -> list[Tensor]:
    """Return all tensors of nested dataclasses and tuples, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, tuple | list):
        return [tensor for item in value for tensor in _tensors_of(item)]
    if is_dataclass(value):
        return [tensor for field in fields(value) for tensor in _tensors_of(getattr(value, field.name))]
    return []


def _shapes_of(value: Any) -> Key:
    return tuple((tuple(tensor.shape), tensor.dtype) for tensor in _tensors_of(value))


def _copy(value: Any) -> Any:
    """Return nested dataclasses and tuples with copies of their tensors."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, tuple | list):
        return tuple(_copy(item) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _copy(getattr(value, field.name)) for field in fields(value)})
    return value
