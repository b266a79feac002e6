"""The demo checkpoint's sizes and training settings, in one place.

Knows numbers only. The networks are the released v2.1 design at a size that ships inside the product (under 20 MB in
half precision) and trains on two CPU cores.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from backend.hunyuan3d.checkpoint.config import PipelineDefaults
from backend.hunyuan3d.networks.conditioner import ConditionerConfig
from backend.hunyuan3d.networks.denoiser_v2_1 import DenoiserV21Config
from backend.hunyuan3d.networks.dinov2 import DinoConfig
from backend.hunyuan3d.networks.shape_vae import ShapeVAEConfig

IMAGE_SIZE = 112
PATCH = 14
BORDER_RATIO = 0.15
BRIGHTNESS = 0.85
"""Of objects as the network is shown them: what is white on them must not look like the white around them."""
GRID = 8
IMAGE_HALF_WIDTH = 0.9 / (1 - BORDER_RATIO)
TRUNCATION = 0.1


def vae_config(scale_factor: float = 1.0) -> ShapeVAEConfig:
    """Return the sizes: 64 tokens of 16 channels, one for each 14-pixel square of the image."""
    return ShapeVAEConfig(
        num_latents=GRID * GRID,
        embed_dim=16,
        width=128,
        heads=4,
        num_encoder_layers=2,
        num_decoder_layers=6,
        num_freqs=6,
        scale_factor=scale_factor,
        use_latent_pos_emb=True,
    )


def denoiser_config() -> DenoiserV21Config:
    return DenoiserV21Config(
        input_size=GRID * GRID,
        in_channels=16,
        hidden_size=192,
        context_dim=192,
        depth=7,
        num_heads=6,
        use_pos_emb=True,
        num_moe_layers=0,
    )


def conditioner_config() -> ConditionerConfig:
    """Return the sizes: as many patches as the ShapeVAE has tokens."""
    dino = DinoConfig(
        hidden_size=192,
        num_hidden_layers=8,
        num_attention_heads=6,
        image_size=IMAGE_SIZE,
        patch_size=PATCH,
        mlp_ratio=3,
    )
    return ConditionerConfig(dino=dino, image_size=IMAGE_SIZE)


@dataclass(frozen=True)
class Optimisation:
    """One training run: Muon on hidden matrices, Adam on the rest, warm-up, then linear decay to zero.

    batch : shapes a step. muon_lr, adam_lr : peak rates. warmup : steps.
    """

    batch: int
    muon_lr: float
    adam_lr: float
    warmup: int = 100
    weight_decay: float = 0.01
    clip: float = 1.0


@dataclass(frozen=True)
class VAERecipe:
    """How the ShapeVAE is trained. Loss: mse(tsdf) + bce_weight * BCE + kl_weight * KL, each a mean."""

    optimisation: Optimisation = field(default_factory=lambda: Optimisation(128, 0.01, 2e-3))
    surface_points: int = 2048
    near_queries: int = 768
    uniform_queries: int = 256
    bce_weight: float = 0.1
    kl_weight: float = 1e-3


@dataclass(frozen=True)
class DenoiserRecipe:
    """How the image encoder and the denoiser are trained together, on latents that are computed once.

    field_weight : of the fields' errors beside those of the latents.
    """

    optimisation: Optimisation = field(default_factory=lambda: Optimisation(256, 0.012, 1e-3))
    noise_draws: int = 2
    drop_condition: float = 0.1
    uniform_t: float = 0.1
    zero_t: float = 0.1
    logit_mean: float = -0.6
    auxiliary_weight: float = 0.5
    field_weight: float = 1.0
    bce_weight: float = 0.1
    near_queries: int = 128
    uniform_queries: int = 64


@dataclass(frozen=True)
class FieldsRecipe:
    """How image encoder, denoiser and the ShapeVAE's decoder go on together, judged by the fields that come out.

    at_start : the share of images whose shape is told from the noise itself, not from a place on the way. own_scale :
    the share whose noise is as strong as the checkpoint's default, others anything up to a seed's own.
    free_weight : of what keeps the unconditional velocity where it was, on a share `free` of the images.
    """

    optimisation: Optimisation = field(default_factory=lambda: Optimisation(64, 0.003, 3e-4, warmup=50))
    at_start: float = 0.5
    own_scale: float = 0.6
    free: float = 0.1
    free_weight: float = 1.0
    bce_weight: float = 0.25
    near_queries: int = 192
    uniform_queries: int = 192


@dataclass(frozen=True)
class Budget:
    """How the minutes of a run are shared out.

    first_shapes : shapes that the ShapeVAE begins with; the rest are drawn beside the training. vae_share : of the
    seconds that are left then. fields_share : of those that the ShapeVAE leaves, for all networks together. reserve :
    seconds kept for writing and measuring at the end. most_shapes : that are drawn in all. held_out : shapes that tell
    how it goes. shard : shapes of one file.
    """

    first_shapes: int = 4000
    vae_share: float = 0.2
    fields_share: float = 0.4
    reserve: float = 12.0
    most_shapes: int = 150_000
    held_out: int = 256
    shard: int = 200


@dataclass(frozen=True)
class DemoRecipe:
    """The whole run."""

    vae: VAERecipe = field(default_factory=VAERecipe)
    denoiser: DenoiserRecipe = field(default_factory=DenoiserRecipe)
    fields: FieldsRecipe = field(default_factory=FieldsRecipe)
    budget: Budget = field(default_factory=Budget)


DEFAULTS = PipelineDefaults(
    num_inference_steps=5, guidance_scale=1.0, octree_resolution=128, view_aligned=True, noise_scale=0.3
)
"""What the demo checkpoint does when the caller says nothing."""

DEMO = DemoRecipe()
