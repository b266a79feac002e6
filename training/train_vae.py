"""Train the demo ShapeVAE: surface points of procedural shapes to latents and back to a truncated distance field.

Knows the store of samples and the ShapeVAE; nothing of images or denoising.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backend.hunyuan3d.networks.shape_vae import ShapeVAE
from training.batches import pick
from training.precision import halved
from training.recipe import GRID, IMAGE_HALF_WIDTH, TRUNCATION, VAERecipe, vae_config
from training.store import Store


def anchors(device: torch.device | str = "cpu") -> Tensor:
    """Return the tokens' query points (N, 3): a grid over the image, row by row from the top, at z = 0."""
    centre = ((torch.arange(GRID, device=device) + 0.5) / GRID * 2 - 1) * IMAGE_HALF_WIDTH
    y, x = torch.meshgrid(-centre, centre, indexing="ij")
    return torch.stack([x, y, torch.zeros_like(x)], dim=-1).view(-1, 3)


def encode_surface(vae: ShapeVAE, surface: Tensor) -> tuple[Tensor, Tensor]:
    """Encode a surface (B, P, 6), points and outward normals, as mean and logvar, each (B, N, E)."""
    points = anchors(surface.device).expand(surface.shape[0], -1, -1)
    return vae.encode(points, torch.zeros_like(points), surface[..., :3], surface[..., 3:])


def truncate(distance: Tensor) -> Tensor:
    """Return the signed distance to the field the VAE learns: in units of the truncation, within [-1, 1]."""
    return (distance / TRUNCATION).clamp(-1, 1)


def field_errors(logits: Tensor, distance: Tensor) -> tuple[Tensor, Tensor]:
    """Return the errors of the field (tsdf, mean square) and of the occupancy (cross entropy), each (B, Q)."""
    target = truncate(distance)
    occupancy = F.binary_cross_entropy_with_logits(4 * logits, (target > 0).float(), reduction="none")
    return (logits - target).square(), occupancy


class VAETask:
    """Reconstruction of truncated distances, with mirrored copies of every shape."""

    def __init__(self, store: Store, held_out: Store, recipe: VAERecipe) -> None:
        self.store, self.held_out, self.recipe, self.device = store, held_out, recipe, store.device
        torch.manual_seed(0)
        self.vae = ShapeVAE(vae_config(), with_encoder=True).to(self.device)
        nn.init.normal_(self.vae.latent_pos_emb, std=0.02)
        self.modules = nn.ModuleDict({"vae": self.vae})

    def refresh(self) -> None:
        """Take in shapes that have been drawn since."""
        self.store.take(1)

    def loss(self) -> tuple[Tensor, dict[str, Tensor]]:
        surface, queries = self.draw()
        with halved(self.device):
            mean, logvar = encode_surface(self.vae, surface)
            mean, logvar = mean.float(), logvar.float().clamp(-12, 4)
            z = mean + torch.randn_like(mean) * torch.exp(0.5 * logvar)
            logits = self.vae.query(self.vae.decode_tokens(z), queries[..., :3])
        mse, bce = (error.mean() for error in field_errors(logits, queries[..., 3]))
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        total = mse + self.recipe.bce_weight * bce + self.recipe.kl_weight * kl
        return total, {"mse": mse.detach(), "bce": bce.detach(), "kl": kl.detach()}

    def draw(self) -> tuple[Tensor, Tensor]:
        """Draw one batch: surface (B, P, 6) and queries (B, Q, 4), each shape mirrored at random in x and in z."""
        recipe = self.recipe
        rows = self.store.draw(recipe.optimisation.batch)
        surface = pick(self.store["surface"], rows, recipe.surface_points)
        near = pick(self.store["near"], rows, recipe.near_queries)
        uniform = pick(self.store["uniform"], rows, recipe.uniform_queries)
        queries = torch.cat([near, uniform], dim=1)
        signs = torch.randint(0, 2, (len(rows), 1, 2), device=self.device) * 2.0 - 1
        x, z = signs[..., :1], signs[..., 1:]
        one = torch.ones_like(x)
        surface = surface * torch.cat([x, one, z, x, one, z], dim=-1)
        return surface, queries * torch.cat([x, one, z, one], dim=-1)

    def evaluate(self) -> dict[str, float]:
        """Return the IoU of reconstructions of held-out shapes, over uniform query points."""
        with torch.inference_mode(), halved(self.device):
            mean, logvar = encode_surface(self.vae, self.held_out["surface"][: self.held_out.filled].float())
            iou = held_out_overlap(self.vae, self.vae.decode_tokens(mean), self.held_out)
        return {
            "iou": iou,
            "std": mean.float().std().item(),
            "noise": logvar.float().mul(0.5).exp().mean().item(),
        }


def held_out_overlap(vae: ShapeVAE, tokens: Tensor, held_out: Store) -> float:
    """Return the mean IoU of tokens' fields with the held-out shapes that are there, over uniform points."""
    uniform = held_out["uniform"][: held_out.filled].float()
    return overlap(vae.query(tokens, uniform[..., :3]), uniform[..., 3])


def overlap(logits: Tensor, distance: Tensor) -> float:
    """Return the mean IoU of fields (B, Q) with the truth, both positive inside."""
    inside, truth = logits > 0, distance > 0
    return ((inside & truth).sum(1) / (inside | truth).sum(1).clamp_min(1)).mean().item()
