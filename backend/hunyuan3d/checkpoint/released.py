"""The sizes of the released checkpoints' networks.

Sizes are facts of the releases (docs/model.md, section 1); no weights are here. Benchmarks build these networks with
random weights, tests count their parameters. Knows nothing of files on this machine.
"""

from __future__ import annotations

from dataclasses import replace

from backend.hunyuan3d.checkpoint.config import DINOV2_GIANT, DINOV2_LARGE, CheckpointConfig, PipelineDefaults
from backend.hunyuan3d.image.image_processor import ImageProcessor, MultiViewImageProcessor
from backend.hunyuan3d.networks.conditioner import ConditionerConfig
from backend.hunyuan3d.networks.denoiser_v2_0 import DenoiserV20Config
from backend.hunyuan3d.networks.denoiser_v2_1 import DenoiserV21Config
from backend.hunyuan3d.networks.schedulers import (
    ConsistencyFlowMatchEulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from backend.hunyuan3d.networks.shape_vae import ShapeVAEConfig

VAE_2_1 = ShapeVAEConfig(
    num_latents=4096,
    embed_dim=64,
    width=1024,
    heads=16,
    num_decoder_layers=16,
    num_encoder_layers=8,
    scale_factor=1.0039506158752403,
    point_feats=4,
)
VAE_2_0 = replace(VAE_2_1, num_latents=3072, scale_factor=0.9990943042622529)
VAE_2_MINI = replace(VAE_2_1, num_latents=512, scale_factor=1.0188137142395404)

DENOISER_2_1 = DenoiserV21Config(
    input_size=4096, in_channels=64, hidden_size=2048, context_dim=1024, depth=21, num_heads=16
)
DENOISER_2_0 = DenoiserV20Config()
DENOISER_2_MINI = DenoiserV20Config(depth=8, depth_single_blocks=16)

_GIANT = ConditionerConfig(dino=DINOV2_GIANT, image_size=518)

HUNYUAN3D_2_1 = CheckpointConfig(
    denoiser=DENOISER_2_1,
    vae=VAE_2_1,
    conditioner=ConditionerConfig(dino=DINOV2_LARGE, image_size=518),
    scheduler=FlowMatchEulerDiscreteScheduler(),
    image_processor=ImageProcessor(size=512),
    defaults=PipelineDefaults(),
)
HUNYUAN3D_2_0 = replace(HUNYUAN3D_2_1, denoiser=DENOISER_2_0, vae=VAE_2_0, conditioner=_GIANT)
HUNYUAN3D_2_MINI = replace(HUNYUAN3D_2_0, denoiser=DENOISER_2_MINI, vae=VAE_2_MINI)
HUNYUAN3D_2_MV = replace(
    HUNYUAN3D_2_0,
    conditioner=replace(_GIANT, view_num=4),
    image_processor=MultiViewImageProcessor(size=512),
)


def fast(config: CheckpointConfig) -> CheckpointConfig:
    """Return the '-fast' release of a v2.0 design: the guidance scale is an input of the network."""
    if not isinstance(config.denoiser, DenoiserV20Config):
        raise ValueError("only v2.0 designs have -fast and -turbo releases")
    return replace(config, denoiser=replace(config.denoiser, guidance_embed=True))


def turbo(config: CheckpointConfig) -> CheckpointConfig:
    """Return the '-turbo' release of a v2.0 design: guidance embedding and step distillation."""
    return replace(
        fast(config),
        scheduler=ConsistencyFlowMatchEulerDiscreteScheduler(pcm_timesteps=100),
        defaults=PipelineDefaults(num_inference_steps=5),
    )
