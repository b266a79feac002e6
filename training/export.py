"""The trained networks as a checkpoint in the released file layout, to be loaded like any other.

Knows the runs' saved states and the recipe. The ShapeVAE's encoder is for training alone and stays behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from backend.hunyuan3d.checkpoint.config import CheckpointConfig, PipelineDefaults
from backend.hunyuan3d.checkpoint.load import Checkpoint, save_checkpoint
from backend.hunyuan3d.image.image_processor import ImageProcessor
from backend.hunyuan3d.networks.conditioner import SingleImageEncoder
from backend.hunyuan3d.networks.denoiser_v2_1 import HunYuanDiTPlain
from backend.hunyuan3d.networks.schedulers import FlowMatchEulerDiscreteScheduler
from backend.hunyuan3d.networks.shape_vae import ShapeVAE
from training.recipe import BORDER_RATIO, DEFAULTS, IMAGE_SIZE, conditioner_config, denoiser_config, vae_config


def export_checkpoint(vae_state: Path, denoiser_state: Path, scale_factor: float, folder: Path) -> None:
    """Write config.yaml and model.fp16.safetensors.

    vae_state, denoiser_state : the state.pt files of the two runs. scale_factor : what the VAE's latents are multiplied
    by for the denoiser.
    """
    sizes = denoiser_config()
    config = CheckpointConfig(
        denoiser=sizes,
        vae=vae_config(scale_factor),
        conditioner=conditioner_config(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        # Four times the network's size, so that a large picture is brought down by the conditioner's smooth filter.
        image_processor=ImageProcessor(size=4 * IMAGE_SIZE, border_ratio=BORDER_RATIO),
        defaults=PipelineDefaults(
            DEFAULTS.num_inference_steps, DEFAULTS.guidance_scale, DEFAULTS.octree_resolution, view_aligned=True
        ),
    )
    trained = read_modules(denoiser_state)
    vae, denoiser = ShapeVAE(config.vae), HunYuanDiTPlain(sizes)
    conditioner = SingleImageEncoder(config.conditioner)
    fill(vae, read_modules(vae_state), "vae.")
    fill(denoiser, trained, "denoiser.")
    fill(conditioner, trained, "conditioner.")
    save_checkpoint(folder, Checkpoint("demo", config, denoiser, vae, conditioner))


def read_modules(path: Path) -> dict[str, Tensor]:
    """Read the weights of a run's saved state."""
    modules: dict[str, Tensor] = torch.load(path, weights_only=True, map_location="cpu")["modules"]
    return modules


def fill(module: nn.Module, weights: Mapping[str, Tensor], prefix: str) -> None:
    """Give a network its part of the weights; every one of its own must be there."""
    module.load_state_dict({key: weights[prefix + key] for key in module.state_dict()})
