"""The picture of a prompt, drawn here before a mesh is made of it.

This module does not know where the picture is kept, or what becomes of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from backend.hunyuan3d.device.choice import resolve_device, resolve_dtype
from backend.hunyuan3d.device.memory import memory_of
from backend.text_to_image import TextToImage

if TYPE_CHECKING:
    from backend.cli.arguments import CommandLine


def draw_prompt(command: CommandLine, seed: int) -> bytes:
    """Return the picture of the command's prompt as PNG, the same for the same seed.

    The model that draws is let go of again, so that it takes no memory from the one that makes meshes.
    Raises CheckpointError, OutOfMemory, InvalidParameter.
    """
    device = resolve_device(command.device)
    memory = memory_of(device)
    dtype = resolve_dtype(command.dtype, device)
    try:
        return TextToImage(command.text_to_image_model, device, dtype, memory).draw(command.prompt or "", seed)
    finally:
        memory.release()
