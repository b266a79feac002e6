"""Train the demo ShapeVAE: surface points of procedural shapes to latents and back to a truncated distance field.

Knows shards of samples (training.dataset) and the ShapeVAE; nothing of pictures or denoising.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backend.hunyuan3d.networks.shape_vae import ShapeVAE
from training.dataset import ShapeDataset
from training.loop import LoopOptions, train
from training.recipe import GRID, IMAGE_HALF_WIDTH, TRUNCATION, VAERecipe, vae_config


def anchors() -> Tensor:
    """Return the tokens' query points (N, 3): centres of the picture's patches, row by row from the top, at z = 0."""
    centre = ((torch.arange(GRID) + 0.5) / GRID * 2 - 1) * IMAGE_HALF_WIDTH
    y, x = torch.meshgrid(-centre, centre, indexing="ij")
    return torch.stack([x, y, torch.zeros_like(x)], dim=-1).view(-1, 3)


def encode_surface(vae: ShapeVAE, surface: Tensor) -> tuple[Tensor, Tensor]:
    """Encode a surface (B, P, 6), points and outward normals, as mean and logvar, each (B, N, E)."""
    points = anchors().to(surface.device).expand(surface.shape[0], -1, -1)
    return vae.encode(points, torch.zeros_like(points), surface[..., :3], surface[..., 3:])


def truncate(distance: Tensor) -> Tensor:
    """Return the signed distance to the field the VAE learns: in units of the truncation, within [-1, 1]."""
    return (distance / TRUNCATION).clamp(-1, 1)


class VAETask:
    """Reconstruction of truncated distances, with mirrored copies of every shape."""

    def __init__(
        self, data: ShapeDataset, held_out: ShapeDataset, recipe: VAERecipe, device: str, compiled: bool
    ) -> None:
        self.data, self.held_out, self.recipe, self.device = data, held_out, recipe, device
        torch.manual_seed(0)
        self.vae = ShapeVAE(vae_config(), with_encoder=True).to(device)
        nn.init.normal_(self.vae.latent_pos_emb, std=0.02)
        self.modules = nn.ModuleDict({"vae": self.vae})
        self.losses = torch.compile(self.reconstruction) if compiled else self.reconstruction

    def reconstruction(self, surface: Tensor, queries: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the three terms of the loss: tsdf error, occupancy error, divergence."""
        mean, logvar = encode_surface(self.vae, surface)
        mean, logvar = mean.float(), logvar.float().clamp(-12, 4)
        z = mean + noise * torch.exp(0.5 * logvar)
        logits = self.vae.query(self.vae.decode_tokens(z), queries[..., :3])
        target = truncate(queries[..., 3])
        bce = F.binary_cross_entropy_with_logits(4 * logits, (target > 0).float())
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        return F.mse_loss(logits, target), bce, kl

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        generator = torch.Generator().manual_seed(step)
        surface, queries = self.draw(generator)
        noise = torch.randn(len(surface), GRID * GRID, self.vae.config.embed_dim, generator=generator)
        with torch.autocast(self.device, torch.bfloat16):
            mse, bce, kl = self.losses(surface, queries, noise.to(self.device))
        total = mse + self.recipe.bce_weight * bce + self.recipe.kl_weight * kl
        return total, {"mse": mse.item(), "bce": bce.item(), "kl": kl.item()}

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw one batch: surface (B, P, 6) and queries (B, Q, 4), each shape mirrored at random in x and in z."""
        recipe = self.recipe
        rows = torch.randint(min(recipe.shapes, len(self.data)), (recipe.optimisation.batch,), generator=generator)
        surface = pick(self.data, "surface", rows, recipe.surface_points, generator)
        near = pick(self.data, "near", rows, recipe.near_queries, generator)
        uniform = pick(self.data, "uniform", rows, recipe.uniform_queries, generator)
        queries = torch.cat([near, uniform], dim=1)
        signs = torch.randint(0, 2, (len(rows), 1, 2), generator=generator) * 2.0 - 1
        surface[..., [0, 2]] *= signs
        surface[..., [3, 5]] *= signs
        queries[..., [0, 2]] *= signs
        return surface.to(self.device), queries.to(self.device)

    def evaluate(self) -> dict[str, float]:
        """Return the IoU of reconstructions of held-out shapes, over uniform query points."""
        rows = torch.arange(min(128, len(self.held_out)))
        with torch.inference_mode(), torch.autocast(self.device, torch.bfloat16):
            mean, logvar = encode_surface(self.vae, read(self.held_out, "surface", rows).to(self.device))
            queries = read(self.held_out, "uniform", rows).to(self.device)
            logits = self.vae.query(self.vae.decode_tokens(mean), queries[..., :3])
        inside, truth = logits > 0, queries[..., 3] > 0
        iou = (inside & truth).sum(1) / (inside | truth).sum(1).clamp_min(1)
        return {
            "iou": iou.mean().item(),
            "std": mean.float().std().item(),
            "noise": logvar.float().mul(0.5).exp().mean().item(),
        }


def read(data: ShapeDataset, name: str, rows: Tensor) -> Tensor:
    """Return one of the data set's arrays for the given shapes (B, ...), as float32."""
    return torch.from_numpy(data.column(name, rows.numpy())).float()


def pick(data: ShapeDataset, name: str, rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return a random `count` of each shape's samples (B, n, k), the same rows of all shapes, as float32."""
    samples = read(data, name, rows)
    return samples[:, torch.randperm(samples.shape[1], generator=generator)[:count]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    recipe = VAERecipe()
    task = VAETask(
        ShapeDataset(arguments.data), ShapeDataset(arguments.held_out), recipe, arguments.device, arguments.compile
    )
    train(task, recipe.optimisation, LoopOptions(arguments.out))


if __name__ == "__main__":
    main()
