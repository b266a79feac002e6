"""Words to a picture, by a model of diffusers that the operator names, on the device where meshes are made.

It is loaded with the first prompt, from safetensors alone and without code of a repository's own. Between two calls it
leaves the device where it would stand in the way of the shape model. This module does not know jobs, or what becomes of
a picture.
"""

from __future__ import annotations

import io
from typing import Any, Protocol

import torch

from backend.errors import CheckpointError
from backend.hunyuan3d.device.memory import DeviceState
from backend.hunyuan3d.memory_errors import named_memory_errors


class Memory(Protocol):
    """The memory of the device."""

    def state(self) -> DeviceState: ...
    def release(self) -> None: ...


class TextToImage:
    """A text-to-image model of this process; whoever calls it holds the device."""

    def __init__(self, path_or_repo: str, device: torch.device, dtype: torch.dtype, memory: Memory) -> None:
        """Name the model; nothing is loaded yet. path_or_repo : a folder, or a repository of the Hugging Face hub."""
        self._path_or_repo = path_or_repo
        self._device = device
        self._dtype = dtype
        self._memory = memory
        self._pipeline: Any = None

    def draw(self, prompt: str, seed: int) -> bytes:
        """Return a picture of a prompt as PNG, the same for the same seed. Raises CheckpointError, OutOfMemory."""
        with named_memory_errors():
            if self._pipeline is None:
                self._pipeline = self._load()
            try:
                self._pipeline.to(self._device)
                # On the CPU, so that the noise depends on no device.
                generator = torch.Generator().manual_seed(seed)
                (image,) = self._pipeline(prompt, generator=generator).images
            finally:
                self._leave_device()
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()

    def _load(self) -> Any:
        # Here, because it takes seconds to import, which a service without prompts need not wait for.
        from diffusers import AutoPipelineForText2Image

        try:
            pipeline = AutoPipelineForText2Image.from_pretrained(
                self._path_or_repo,
                dtype=self._dtype,
                use_safetensors=True,
                trust_remote_code=False,
                low_cpu_mem_usage=False,
            )
        except (OSError, ValueError, KeyError, ImportError, RuntimeError) as failure:
            raise CheckpointError(f"TEXT_TO_IMAGE_MODEL={self._path_or_repo} cannot be loaded: {failure}") from failure
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _leave_device(self) -> None:
        """Go back to main memory, unless as much is free on the device as the model itself takes."""
        if self._device.type == "cpu" or self._memory.state().memory_free >= self._bytes():
            return
        self._pipeline.to("cpu")
        self._memory.release()

    def _bytes(self) -> int:
        parts = [part for part in self._pipeline.components.values() if isinstance(part, torch.nn.Module)]
        return sum(tensor.numel() * tensor.element_size() for part in parts for tensor in part.parameters())
