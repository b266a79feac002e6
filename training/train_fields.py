"""Train the demo's networks end to end: image to field, through a step of the denoiser and the ShapeVAE's decoder.

`python -m training.train_fields --work DIR --checkpoint demo --minutes N --out DIR` goes on from a checkpoint, on what
training.make_data has drawn into WORK/train and WORK/held_out, and writes the new checkpoint to OUT. What flow matching
leaves undone: it judges latents, not shapes, and the decoder has only seen latents of true shapes. Here the denoiser's
step to the end, from where its own sampling has come to, is decoded and compared with the shape. Nothing asks what its
latents should be, so that no encoder is needed.
"""

from __future__ import annotations

import argparse
import copy
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.batches import Encoding, draw_mirrored, held_out_images, images_of, points_of
from training.export import export_checkpoint
from training.loop import LoopOptions, train
from training.networks import Networks
from training.precision import halved
from training.recipe import DEFAULTS, DEMO, FieldsRecipe
from training.sampling import sample, seeded
from training.store import Store
from training.train_vae import field_errors, held_out_overlap


class FieldsTask:
    """The fields of images, in one step of the denoiser from noise or from a place on the way to latents."""

    def __init__(self, store: Store, held_out: Store, networks: Networks, recipe: FieldsRecipe) -> None:
        self.store, self.held_out, self.recipe, self.device = store, held_out, recipe, store.device
        torch.manual_seed(2)
        self.modules = nn.ModuleDict(networks.parts()).to(self.device)
        self.denoiser, self.vae = networks.denoiser, networks.vae
        self.before = copy.deepcopy(self.denoiser).requires_grad_(False)
        self.encode = Encoding(networks.conditioner, self.device)

    def refresh(self) -> None:
        """Take in shapes that have been drawn since."""
        self.store.take(1)

    def loss(self) -> tuple[Tensor, dict[str, Tensor]]:
        recipe = self.recipe
        rows = self.store.draw(recipe.optimisation.batch)
        mirrored = draw_mirrored(rows)
        image = images_of(self.store, rows, mirrored)
        points = points_of(self.store, rows, mirrored, near=recipe.near_queries, uniform=recipe.uniform_queries)
        noise = self.draw_noise(len(rows))
        with halved(self.device):
            cond = self.encode(image)
            x, t = self.on_the_way(noise, cond)
            ends = x + (1 - t[:, None, None]) * self.denoiser(x, t, cond).float()
            logits = self.vae.query(self.vae.decode(ends), points[..., :3]).float()
        mse, bce = (error.mean() for error in field_errors(logits, points[..., 3]))
        free = self.free_error(noise, cond)
        total = mse + recipe.bce_weight * bce + recipe.free_weight * free
        return total, {name: value.detach() for name, value in {"mse": mse, "bce": bce, "free": free}.items()}

    def draw_noise(self, count: int) -> Tensor:
        """Draw noise (B, N, E), each image's of a strength of its own."""
        full = torch.randn(count, *self.vae.latent_shape, device=self.device)
        own = torch.rand(count, 1, 1, device=self.device) < self.recipe.own_scale
        return full * torch.where(own, DEFAULTS.noise_scale, torch.rand(count, 1, 1, device=self.device))

    def on_the_way(self, noise: Tensor, cond: Tensor) -> tuple[Tensor, Tensor]:
        """Return places (B, N, E) and times (B,): the first ones are the noise, others where one step takes it."""
        first = round(self.recipe.at_start * len(noise))
        t = torch.rand(len(noise), device=self.device)
        t[:first] = 0
        x = noise.clone()
        with torch.no_grad():
            x[first:] += t[first:, None, None] * self.denoiser(noise[first:], 0 * t[first:], cond[first:]).float()
        return x, t

    def free_error(self, noise: Tensor, cond: Tensor) -> Tensor:
        """Return how far the unconditional velocity has gone from what it was, a mean square."""
        count = max(1, round(self.recipe.free * len(noise)))
        t, nothing = torch.rand(count, device=self.device), torch.zeros_like(cond[:count])
        with halved(self.device):
            now = self.denoiser(noise[:count], t, nothing).float()
            with torch.no_grad():
                then = self.before(noise[:count], t, nothing).float()
        # A copy: torch takes nothing that was made in inference mode into a gradient.
        return F.mse_loss(now, then.clone())

    def evaluate(self) -> dict[str, float]:
        """Return the IoU of sampled shapes on held-out images, over uniform query points, by guidance."""
        noise = DEFAULTS.noise_scale * seeded(self.held_out.filled, self.vae.latent_shape, self.device)
        figures = {}
        with torch.no_grad(), halved(self.device):
            cond = self.encode(held_out_images(self.held_out))
            for guidance in (1.0, 1.5):
                latents = sample(self.denoiser, noise, cond, guidance, DEFAULTS.num_inference_steps)
                figures[f"iou_{guidance:g}"] = held_out_overlap(self.vae, self.vae.decode(latents), self.held_out)
        return figures


def train_fields(
    store: Store, held_out: Store, networks: Networks, recipe: FieldsRecipe, folder: Path, weights: Path, seconds: float
) -> None:
    """Train until the seconds are used; leave the three networks in `weights`, at each save, too.

    folder : receives the state, from which a run that was stopped goes on.
    """
    task = FieldsTask(store, held_out, networks, recipe)
    sixth = max(20.0, seconds / 6)
    options = LoopOptions(
        folder,
        seconds,
        save_every=min(120.0, sixth),
        evaluate_every=min(600.0, sixth),
        on_save=lambda: networks.save(weights),
    )
    train(task, recipe.optimisation, options)
    networks.save(weights)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of shapes and states, outside the checkout")
    parser.add_argument("--checkpoint", default="demo", help="the one to go on from")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new checkpoint")
    parser.add_argument("--minutes", type=float, default=60.0, help="they set the rates' decay")
    parser.add_argument("--most-shapes", type=int, default=60_000, help="that are kept in memory")
    parser.add_argument("--batch", type=int, default=DEMO.fields.optimisation.batch)
    parser.add_argument("--muon-rate", type=float, default=DEMO.fields.optimisation.muon_lr, help="of inner matrices")
    parser.add_argument("--adam-rate", type=float, default=DEMO.fields.optimisation.adam_lr, help="of all else")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    store = Store(given.work / "train", given.most_shapes, given.device)
    held_out = Store(given.work / "held_out", DEMO.budget.held_out, given.device)
    if not store.take() or not held_out.take():
        parser.error(f"no shapes in {store.folder} or in {held_out.folder}: draw them with training.make_data")
    weights = given.work / "fields" / "weights"
    networks = Networks.of_checkpoint(given.checkpoint)
    chosen = replace(DEMO.fields.optimisation, batch=given.batch, muon_lr=given.muon_rate, adam_lr=given.adam_rate)
    recipe = replace(DEMO.fields, optimisation=chosen)
    train_fields(store, held_out, networks, recipe, given.work / "fields", weights, 60 * given.minutes)
    export_checkpoint(weights, given.out)


if __name__ == "__main__":
    main()
