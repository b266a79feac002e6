"""Train the demo image encoder and denoiser together on the latents of the trained ShapeVAE.

Knows pictures, latents and the flow's formulas (docs/model.md, section 6); nothing of surfaces or fields except in its
evaluation.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backend.hunyuan3d.networks.conditioner import SingleImageEncoder
from backend.hunyuan3d.networks.denoiser_v2_1 import HunYuanDiTPlain
from backend.hunyuan3d.networks.shape_vae import ShapeVAE
from training.augment import colour_jitter
from training.dataset import ShapeDataset
from training.latents import LatentTable
from training.recipe import DenoiserRecipe, conditioner_config, denoiser_config
from training.train_vae import read


class DenoiserTask:
    """Flow matching from noise at 0 to latents at 1, with the picture's tokens as context."""

    def __init__(
        self,
        data: ShapeDataset,
        latents: LatentTable,
        held_out: ShapeDataset,
        vae: ShapeVAE,
        recipe: DenoiserRecipe,
        device: str,
        compiled: bool,
    ) -> None:
        self.data, self.latents, self.held_out, self.vae = data, latents, held_out, vae
        self.recipe, self.device = recipe, device
        torch.manual_seed(1)
        self.conditioner = SingleImageEncoder(conditioner_config()).to(device)
        # The fused kernel's backward pass takes twice the time of plain products on the CPU.
        self.conditioner.main_image_encoder.model.set_attn_implementation("eager")
        self.denoiser = HunYuanDiTPlain(denoiser_config()).to(device)
        nn.init.zeros_(self.denoiser.final_layer.linear.weight)
        self.head = nn.Linear(conditioner_config().dino.hidden_size, denoiser_config().in_channels).to(device)
        self.modules = nn.ModuleDict(
            {"conditioner": self.conditioner, "denoiser": self.denoiser, "auxiliary_head": self.head}
        )
        self.encode = torch.compile(self.conditioner) if compiled else self.conditioner
        self.denoise = torch.compile(self.denoiser) if compiled else self.denoiser

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        generator = torch.Generator().manual_seed(step)
        image, latents = self.draw(generator)
        draws = self.recipe.noise_draws
        noise = torch.randn(draws * len(latents), *latents.shape[1:], generator=generator).to(self.device)
        t = self.draw_times(len(noise), generator)
        target = latents.repeat(draws, 1, 1)
        x = torch.lerp(noise, target, t[:, None, None])
        keep = (torch.rand(len(noise), 1, 1, generator=generator) >= self.recipe.drop_condition).to(self.device)
        with torch.autocast(self.device, torch.bfloat16):
            cond = self.encode(image)
            guess = self.head(cond[:, 1:])
            velocity = self.denoise(x, t, cond.repeat(draws, 1, 1) * keep)
        flow = F.mse_loss(velocity.float(), target - noise)
        auxiliary = F.mse_loss(guess.float(), latents)
        return flow + self.recipe.auxiliary_weight * auxiliary, {"flow": flow.item(), "auxiliary": auxiliary.item()}

    def draw_times(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw t = sigmoid(N(mean, 1)), a share of it uniform and a share exactly zero."""
        t = torch.sigmoid(torch.randn(count, generator=generator) + self.recipe.logit_mean)
        kind = torch.rand(count, generator=generator)
        t = torch.where(kind < self.recipe.uniform_t, torch.rand(count, generator=generator), t)
        t = torch.where(kind > 1 - self.recipe.zero_t, torch.zeros(()), t)
        return t.to(self.device)

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw one batch: image (B, 3, S, S) in [-1, 1] and latents (B, N, E), half of them mirrored left to right."""
        rows = torch.randint(self.recipe.shapes, (self.recipe.optimisation.batch,), generator=generator)
        mirrored = torch.rand(len(rows), generator=generator) < 0.5
        drawn = read_images(self.data, rows, generator)
        drawn = torch.where(mirrored[:, None, None, None], drawn.flip(3), drawn)
        latents = self.latents.read(rows.numpy(), mirrored.numpy())
        return (colour_jitter(drawn, generator) * 2 - 1).to(self.device), latents.to(self.device)

    def evaluate(self) -> dict[str, float]:
        """Return the IoU of sampled shapes on held-out pictures, over uniform query points, for two guidance scales."""
        rows = torch.arange(min(128, len(self.held_out)))
        images = read_images(self.held_out, rows, torch.Generator().manual_seed(0))
        uniform = read(self.held_out, "uniform", rows).to(self.device)
        figures = {}
        with torch.inference_mode(), torch.autocast(self.device, torch.bfloat16):
            cond = self.conditioner((images[:, :3] * 2 - 1).to(self.device))
            candidates = {"iou_auxiliary": self.head(cond[:, 1:]).float()}
            for guidance in (1.0, 2.0):
                candidates[f"iou_guidance_{guidance:g}"] = self.sample(cond, guidance)
            for name, latents in candidates.items():
                logits = self.vae.query(self.vae.decode(latents), uniform[..., :3])
                inside, truth = logits > 0, uniform[..., 3] > 0
                figures[name] = ((inside & truth).sum(1) / (inside | truth).sum(1).clamp_min(1)).mean().item()
        return figures

    def sample(self, cond: Tensor, guidance: float, steps: int = 10) -> Tensor:
        """Take Euler steps from noise to latents (B, N, E)."""
        shape = (len(cond), *self.latents.shape)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(self.device)
        times = torch.linspace(0, 1, steps)
        context = self.denoiser.prepare(cond, classifier_free=True)
        for t, after in pairwise(times):
            given, free = self.denoiser.velocity(x, t.to(self.device), context).float().chunk(2)
            x = x + (after - t) * (free + guidance * (given - free))
        return x


def read_images(data: ShapeDataset, rows: Tensor, generator: torch.Generator) -> Tensor:
    """Choose one of each shape's stored pictures (B, 4, H, W) in [0, 1]."""
    stored = torch.from_numpy(data.column("picture", rows.numpy()))
    choice = torch.randint(stored.shape[1], (len(rows),), generator=generator)
    return stored[torch.arange(len(rows)), choice].permute(0, 3, 1, 2).float() / 255
