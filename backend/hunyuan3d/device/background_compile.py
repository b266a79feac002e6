"""Compiling while the eager model already serves: on a thread, then in its place at once, between two batches.

Knows that a model samples and decodes; knows nothing of jobs.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import torch

from backend.errors import OutOfMemory
from backend.hunyuan3d.device.compile import CompiledPieces
from backend.hunyuan3d.pipeline import Hunyuan3DShapePipeline

logger = logging.getLogger(__name__)

_STEPS = 2
_RESOLUTION = 32


class BackgroundCompile:
    """One compilation of a pipeline's pieces; `is_used` once batches run compiled."""

    def __init__(
        self,
        pipeline: Hunyuan3DShapePipeline,
        pieces: CompiledPieces,
        device_lock: threading.Lock,
        on_used: Callable[[], None] = lambda: None,
    ) -> None:
        """device_lock : held while a batch runs. on_used : called, holding the lock, when compiled code takes over."""
        self._pipeline = pipeline
        self._pieces = pieces
        self._device_lock = device_lock
        self._on_used = on_used
        self._thread = threading.Thread(target=self._run, name="compile", daemon=True)

    @property
    def is_used(self) -> bool:
        """Whether batches run compiled."""
        return self._pieces.active

    def start(self) -> None:
        """Begin, once."""
        self._thread.start()

    def join(self, seconds: float | None = None) -> None:
        """Wait for its end."""
        self._thread.join(seconds)

    def _run(self) -> None:
        started = time.monotonic()
        try:
            self._compile_all()
        except Exception as failure:  # noqa: BLE001 (a compiler may raise anything)
            self._pieces.give_up(failure)
        with self._device_lock:
            self._pieces.use()
            if self._pieces.active:
                self._on_used()
        if self._pieces.active:
            logger.info("The model runs compiled now (%.1f s).", time.monotonic() - started)

    def _compile_all(self) -> None:
        """Run one image through what batches run, with and without guidance; the first to want a piece compiles it."""
        for guidance_scale in dict.fromkeys((self._pipeline.config.defaults.guidance_scale, 1.0)):
            try:
                self._run_compiled(guidance_scale)
            except OutOfMemory:
                # A batch has the memory; when it is done there is enough for one image.
                with self._device_lock:
                    self._run_compiled(guidance_scale)

    def _run_compiled(self, guidance_scale: float) -> None:
        pipeline = self._pipeline
        width = pipeline.config.conditioner.dino.hidden_size
        config = pipeline.config.conditioner
        tokens = (config.image_size // config.dino.patch_size) ** 2 + int(config.use_cls_token)
        cond = torch.zeros(1, tokens, width, dtype=pipeline.dtype, device=pipeline.device)
        with self._pieces.compiled():
            latents = pipeline.sample_latents(cond, _STEPS, guidance_scale, seeds=0)
            pipeline.decode_volumes(latents, _RESOLUTION)
