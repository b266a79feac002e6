"""The latents of a data set, computed once with the trained ShapeVAE and kept beside it.

Knows the VAE's checkpoint and the data set's surfaces. Every shape is encoded twice: as it is and mirrored in x.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from backend.hunyuan3d.networks.shape_vae import ShapeVAE
from training.dataset import ShapeDataset
from training.export import fill, read_modules
from training.recipe import VAERecipe, vae_config
from training.train_vae import encode_surface, read


@dataclass(frozen=True)
class LatentTable:
    """Scaled latents of n shapes, both ways round.

    values : (2, n, N, E) float16, of unit standard deviation over all; [1] holds the mirrored shapes. scale_factor :
    what the VAE's own latents were multiplied by.
    """

    values: npt.NDArray[np.float16]
    scale_factor: float

    @property
    def shape(self) -> tuple[int, int]:
        """(N, E) of one image."""
        return self.values.shape[2], self.values.shape[3]

    def read(self, rows: npt.NDArray[np.int64], mirrored: npt.NDArray[np.bool_]) -> Tensor:
        """Return the latents (B, N, E) float32 of the given shapes."""
        return torch.from_numpy(self.values[mirrored.astype(np.int64), rows]).float()


def latent_table(data: ShapeDataset, count: int, vae_folder: Path, device: str) -> LatentTable:
    """Read the table kept in the VAE's folder, or encode the first `count` shapes and keep it there."""
    path = vae_folder / f"latents-{count}.npz"
    if path.exists():
        with np.load(path) as kept:
            return LatentTable(kept["values"], float(kept["scale_factor"]))
    vae = ShapeVAE(vae_config(), with_encoder=True).to(device)
    fill(vae, read_modules(vae_folder / "state.pt"), "vae.")
    raw = np.concatenate([encode_all(vae, data, count, sign, device) for sign in (1.0, -1.0)]).reshape(
        2, count, vae.config.num_latents, vae.config.embed_dim
    )
    scale = 1.0 / float(raw.std())
    table = LatentTable((raw * scale).astype(np.float16), scale)
    np.savez(path, values=table.values, scale_factor=table.scale_factor)
    return table


def encode_all(vae: ShapeVAE, data: ShapeDataset, count: int, sign: float, device: str) -> npt.NDArray[np.float32]:
    """Return the mean latents (n, N, E) of the first `count` shapes, mirrored in x when sign is -1."""
    out = []
    for start in tqdm(range(0, count, 128), desc="latents"):
        # As many points as in training; the stored order is random.
        surface = read(data, "surface", torch.arange(start, min(start + 128, count)))[:, : VAERecipe().surface_points]
        surface[..., 0] *= sign
        surface[..., 3] *= sign
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16):
            mean, _ = encode_surface(vae, surface.to(device))
        out.append(mean.float().cpu().numpy())
    return np.concatenate(out)
