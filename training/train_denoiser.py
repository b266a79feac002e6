"""Train the demo image encoder and denoiser together on the latents of the trained ShapeVAE.

Knows images, latents, the flow's formulas (docs/model.md, section 6) and, through the trained ShapeVAE, the fields that
latents stand for.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backend.hunyuan3d.networks.conditioner import SingleImageEncoder
from backend.hunyuan3d.networks.denoiser_v2_1 import HunYuanDiTPlain
from backend.hunyuan3d.networks.shape_vae import ShapeVAE
from training.batches import Encoding, draw_mirrored, held_out_images, images_of, points_of
from training.latents import Latents
from training.precision import halved
from training.recipe import GRID, DenoiserRecipe, conditioner_config, denoiser_config
from training.sampling import sample, seeded
from training.store import Store
from training.train_vae import field_errors, held_out_overlap


class DenoiserTask:
    """Flow matching from noise at 0 to latents at 1, with the image's tokens as context."""

    def __init__(self, store: Store, latents: Latents, held_out: Store, vae: ShapeVAE, recipe: DenoiserRecipe) -> None:
        self.store, self.latents, self.held_out = store, latents, held_out
        self.vae = vae.requires_grad_(False).eval()
        self.recipe, self.device = recipe, store.device
        torch.manual_seed(1)
        self.conditioner = SingleImageEncoder(conditioner_config()).to(self.device).eval()
        self.denoiser = HunYuanDiTPlain(denoiser_config()).to(self.device)
        nn.init.zeros_(self.denoiser.final_layer.linear.weight)
        self.head = nn.Linear(conditioner_config().dino.hidden_size, denoiser_config().in_channels).to(self.device)
        self.modules = nn.ModuleDict(
            {"conditioner": self.conditioner, "denoiser": self.denoiser, "auxiliary_head": self.head}
        )
        self.encode = Encoding(self.conditioner, self.device)

    def refresh(self) -> None:
        """Take in and encode shapes that have been drawn since."""
        if self.store.take(1):
            self.latents.grow()

    def guess(self, cond: Tensor) -> Tensor:
        """Return latents (B, N, E) by the auxiliary head, from the context's patches where each token stands."""
        b, tokens, width = cond.shape
        side = round((tokens - 1) ** 0.5)
        patches = cond[:, 1:].reshape(b, side, side, width).permute(0, 3, 1, 2)
        pooled = F.avg_pool2d(patches, side // GRID) if side > GRID else patches
        out: Tensor = self.head(pooled.flatten(2).transpose(1, 2))
        return out

    def loss(self) -> tuple[Tensor, dict[str, Tensor]]:
        recipe = self.recipe
        rows = self.latents.draw(recipe.optimisation.batch)
        mirrored = draw_mirrored(rows)
        image, latents = images_of(self.store, rows, mirrored), self.latents.values[mirrored.long(), rows].float()
        draws = recipe.noise_draws
        noise = torch.randn(draws * len(latents), *latents.shape[1:], device=self.device)
        t = self.draw_times(len(noise))
        target = latents.repeat(draws, 1, 1)
        x = torch.lerp(noise, target, t[:, None, None])
        keep = (torch.rand(len(noise), 1, 1, device=self.device) >= recipe.drop_condition).float()
        with halved(self.device):
            cond = self.encode(image)
            guess = self.guess(cond).float()
            velocity = self.denoiser(x, t, cond.repeat(draws, 1, 1) * keep).float()
        flow = F.mse_loss(velocity, target - noise)
        auxiliary = F.mse_loss(guess, latents)
        # What the denoiser, at its first draw, and the head take the shape to be, judged as fields.
        ends = (x + (1 - t[:, None, None]) * velocity)[: len(rows)]
        given = keep[: len(rows), :, 0]
        field, coarse = self.field_loss(torch.cat([ends, guess]), rows, mirrored, given)
        total = (
            flow + recipe.auxiliary_weight * (auxiliary + recipe.field_weight * coarse) + recipe.field_weight * field
        )
        figures = {"flow": flow, "auxiliary": auxiliary, "field": field, "field_head": coarse}
        return total, {name: value.detach() for name, value in figures.items()}

    def field_loss(self, latents: Tensor, rows: Tensor, mirrored: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        """Return the fields' errors of two guesses (2B, N, E) for shapes (B,); given : (B, 1), which first ones count.

        Points near the surface prevail, so that thin parts and hollows, small as they are, count.
        """
        recipe = self.recipe
        points = points_of(self.store, rows, mirrored, near=recipe.near_queries, uniform=recipe.uniform_queries)
        with halved(self.device):
            logits = self.vae.query(self.vae.decode(latents), points[..., :3].repeat(2, 1, 1))
        mse, bce = field_errors(logits, points[..., 3].repeat(2, 1))
        error = mse + recipe.bce_weight * bce
        first, second = error[: len(rows)], error[len(rows) :]
        return (first * given).mean(), second.mean()

    def draw_times(self, count: int) -> Tensor:
        """Draw t = sigmoid(N(mean, 1)), a share of it uniform and a share exactly zero."""
        t = torch.sigmoid(torch.randn(count, device=self.device) + self.recipe.logit_mean)
        kind = torch.rand(count, device=self.device)
        t = torch.where(kind < self.recipe.uniform_t, torch.rand(count, device=self.device), t)
        return torch.where(kind > 1 - self.recipe.zero_t, torch.zeros_like(t), t)

    def evaluate(self) -> dict[str, float]:
        """Return the IoU of sampled shapes on held-out images, over uniform query points, for several settings."""
        figures = {}
        noise = seeded(self.held_out.filled, self.vae.latent_shape, self.device)
        with torch.no_grad(), halved(self.device):
            cond = self.encode(held_out_images(self.held_out))
            candidates = {"iou_auxiliary": self.guess(cond).float()}
            for steps, guidance in ((10, 1.0), (10, 2.0), (5, 1.5)):
                candidates[f"iou_{steps}_{guidance:g}"] = sample(self.denoiser, noise, cond, guidance, steps)
            for name, latents in candidates.items():
                figures[name] = held_out_overlap(self.vae, self.vae.decode(latents), self.held_out)
        return figures
