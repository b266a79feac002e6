"""What the demo checkpoint is looked at with: the samples, and emoji that no training run has seen.

This module does not know what is made of them.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from training.held_out_images import HeldOutImage, held_out_images

SAMPLES = Path(__file__).parents[2] / "samples"
EMOJI = 40


def sample_images() -> list[tuple[str, Image.Image]]:
    """Return the samples, each with its name."""
    return [(path.stem, Image.open(path)) for path in sorted(SAMPLES.glob("*.png"))]


def held_out_emoji(fonts: Path) -> list[HeldOutImage]:
    """Return EMOJI emoji kept aside. fonts : keeps a fetched font."""
    return [each for each in held_out_images(fonts) if each.kind != "glyph"][::2][:EMOJI]
