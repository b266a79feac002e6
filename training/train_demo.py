"""Make the demo checkpoint from nothing: data, ShapeVAE, latents, denoiser, export, evaluation.

`make train-demo` runs this. Every stage resumes where it was stopped. `--smoke` runs all of them at a size that only
shows that they work. Knows the order of the stages; what they do is in their own modules.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from backend.hunyuan3d.networks.shape_vae import ShapeVAE
from backend.hunyuan3d.pipeline import Hunyuan3DShapePipeline
from training.dataset import ShapeDataset
from training.evaluate import Choices, evaluate
from training.export import export_checkpoint, fill, read_modules
from training.held_out_images import held_out_images
from training.latents import latent_table
from training.loop import LoopOptions, train
from training.make_data import make_data
from training.recipe import DEMO, DemoRecipe, vae_config
from training.report import write_results
from training.shapes.generator import HELD_OUT_FIRST_SEED
from training.train_denoiser import DenoiserTask
from training.train_vae import VAETask


def smoke(recipe: DemoRecipe) -> DemoRecipe:
    """Return the same stages at a size that takes a quarter of a minute."""
    vae = replace(recipe.vae, shapes=16, optimisation=replace(recipe.vae.optimisation, steps=2, batch=2))
    denoiser = replace(recipe.denoiser, shapes=16, optimisation=replace(recipe.denoiser.optimisation, steps=2, batch=2))
    return replace(recipe, held_out=4, vae=vae, denoiser=denoiser)


def train_demo(
    recipe: DemoRecipe, work: Path, checkpoint: Path, *, workers: int, device: str, compiled: bool = False
) -> ShapeDataset:
    """Run every stage up to the checkpoint and return the held-out shapes.

    work : folder of data and runs. checkpoint : folder that receives config.yaml and weights. workers : processes that
    draw shapes.
    """
    shapes = max(recipe.vae.shapes, recipe.denoiser.shapes)
    make_data(work / "train", shapes, 0, workers, occupancy=False)
    make_data(work / "heldout", recipe.held_out, HELD_OUT_FIRST_SEED, workers, occupancy=True)
    data, held_out = ShapeDataset(work / "train"), ShapeDataset(work / "heldout")
    vae_task = VAETask(data, held_out, recipe.vae, device, compiled)
    train(vae_task, recipe.vae.optimisation, LoopOptions(work / "vae"))
    latents = latent_table(data, recipe.denoiser.shapes, work / "vae", device)
    vae = ShapeVAE(vae_config(latents.scale_factor))
    fill(vae, read_modules(work / "vae" / "state.pt"), "vae.")
    task = DenoiserTask(data, latents, held_out, vae.to(device), recipe.denoiser, device, compiled)
    train(task, recipe.denoiser.optimisation, LoopOptions(work / "denoiser"))
    states = work / "vae" / "state.pt", work / "denoiser" / "state.pt"
    export_checkpoint(*states, latents.scale_factor, checkpoint)
    return held_out


def report(checkpoint: Path, held_out: ShapeDataset, limit: int, fonts: Path, folder: Path, device: str) -> None:
    """Measure the checkpoint on `limit` held-out shapes and the held-out pictures; write RESULTS.md and its picture."""
    pipeline = Hunyuan3DShapePipeline.from_pretrained(checkpoint, device=device)
    write_results(evaluate(pipeline, held_out, held_out_images(fonts), Choices(), limit=limit), folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/demo"), help="folder of data and runs")
    parser.add_argument("--checkpoint", type=Path, default=Path("backend/checkpoints/demo"))
    parser.add_argument("--report", type=Path, default=Path("training"), help="folder of RESULTS.md and its picture")
    parser.add_argument("--workers", type=int, default=2, help="processes that draw shapes")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true", help="compile the training steps")
    parser.add_argument("--smoke", action="store_true", help="a run that only shows that every stage works")
    arguments = parser.parse_args()
    recipe = smoke(DEMO) if arguments.smoke else DEMO
    held_out = train_demo(
        recipe,
        arguments.work,
        arguments.checkpoint,
        workers=arguments.workers,
        device=arguments.device,
        compiled=arguments.compile,
    )
    limit, fonts = recipe.held_out // 2, arguments.work / "fonts"
    report(arguments.checkpoint, held_out, limit, fonts, arguments.report, arguments.device)


if __name__ == "__main__":
    main()
