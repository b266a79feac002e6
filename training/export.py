"""The trained networks as a checkpoint in the released file layout, to be loaded like any other.

Knows the runs' weights and the recipe. `python -m training.export --weights DIR --checkpoint DIR` makes a checkpoint of
the files that a run leaves. The ShapeVAE's encoder is for training alone and stays behind.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from backend.hunyuan3d.checkpoint.config import CheckpointConfig
from backend.hunyuan3d.checkpoint.load import Checkpoint, save_checkpoint
from backend.hunyuan3d.image.image_processor import ImageProcessor
from backend.hunyuan3d.networks.conditioner import SingleImageEncoder
from backend.hunyuan3d.networks.denoiser_v2_1 import HunYuanDiTPlain
from backend.hunyuan3d.networks.schedulers import FlowMatchEulerDiscreteScheduler
from backend.hunyuan3d.networks.shape_vae import ShapeVAE
from training.recipe import BORDER_RATIO, DEFAULTS, IMAGE_SIZE, conditioner_config, denoiser_config, vae_config

PARTS = ("vae", "conditioner", "denoiser")


def save_part(folder: Path, part: str, module: nn.Module, scale_factor: float = 1.0) -> None:
    """Write one network's weights in half precision, so that a kill leaves either the old file or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        key: tensor.detach().to("cpu", torch.float16).contiguous() for key, tensor in module.state_dict().items()
    }
    partial = folder / f".{part}.partial"
    save_file(tensors, partial, metadata={"facts": json.dumps({"scale_factor": scale_factor})})
    partial.replace(folder / f"{part}.safetensors")


def read_part(folder: Path, part: str) -> tuple[dict[str, Tensor], float]:
    """Return one network's weights in float32 and the latents' scale factor that was kept with them."""
    with safe_open(folder / f"{part}.safetensors", "pt") as file:
        facts = json.loads(file.metadata()["facts"])
        return {key: file.get_tensor(key).float() for key in file.keys()}, float(facts["scale_factor"])  # noqa: SIM118


def export_checkpoint(weights: Path, folder: Path) -> None:
    """Write config.yaml and model.fp16.safetensors from the three files that a run leaves in `weights`."""
    states = {part: read_part(weights, part) for part in PARTS}
    sizes = denoiser_config()
    config = CheckpointConfig(
        denoiser=sizes,
        vae=vae_config(states["vae"][1]),
        conditioner=conditioner_config(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        # Four times the network's size, so that a large image is brought down by the conditioner's smooth filter.
        image_processor=ImageProcessor(size=4 * IMAGE_SIZE, border_ratio=BORDER_RATIO),
        defaults=DEFAULTS,
    )
    vae, denoiser = ShapeVAE(config.vae), HunYuanDiTPlain(sizes)
    conditioner = SingleImageEncoder(config.conditioner)
    for part, module in (("vae", vae), ("denoiser", denoiser), ("conditioner", conditioner)):
        fill(module, states[part][0])
    save_checkpoint(folder, Checkpoint("demo", config, denoiser, vae, conditioner))


def fill(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a network its weights; every one of its own must be there."""
    module.load_state_dict({key: weights[key] for key in module.state_dict()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="folder of the files that a run leaves")
    parser.add_argument("--checkpoint", type=Path, required=True)
    arguments = parser.parse_args()
    export_checkpoint(arguments.weights, arguments.checkpoint)


if __name__ == "__main__":
    main()
