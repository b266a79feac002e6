"""The trained networks as a checkpoint in the released file layout, to be loaded like any other.

`python -m training.export --weights DIR --checkpoint DIR` makes a checkpoint of the files that a run leaves. The
ShapeVAE's encoder is for training alone and stays behind. Knows the recipe and the layout.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from backend.hunyuan3d.checkpoint.config import CheckpointConfig
from backend.hunyuan3d.checkpoint.load import Checkpoint, save_checkpoint
from backend.hunyuan3d.image.image_processor import ImageProcessor
from backend.hunyuan3d.networks.schedulers import FlowMatchEulerDiscreteScheduler
from training.networks import Networks
from training.recipe import BORDER_RATIO, BRIGHTNESS, DEFAULTS, IMAGE_SIZE, conditioner_config


def export_checkpoint(weights: Path, folder: Path) -> None:
    """Write config.yaml and model.fp16.safetensors from the three files that a run leaves in `weights`."""
    trained = Networks.of_run(weights)
    config = CheckpointConfig(
        denoiser=trained.denoiser.config,
        vae=trained.vae.config,
        conditioner=conditioner_config(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        # Four times the network's size, so that a large image is brought down by the conditioner's smooth filter.
        image_processor=ImageProcessor(size=4 * IMAGE_SIZE, border_ratio=BORDER_RATIO, brightness=BRIGHTNESS),
        defaults=DEFAULTS,
    )
    save_checkpoint(folder, Checkpoint("demo", config, trained.denoiser, trained.vae, trained.conditioner))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="folder of the files that a run leaves")
    parser.add_argument("--checkpoint", type=Path, required=True)
    arguments = parser.parse_args()
    export_checkpoint(arguments.weights, arguments.checkpoint)


if __name__ == "__main__":
    main()
