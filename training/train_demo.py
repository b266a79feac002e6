"""Make the demo checkpoint from nothing: data, ShapeVAE, image encoder and denoiser, all of them together, export.

`make train-demo` runs this and then the evaluation. The minutes set the decay of the rates; a run that was stopped goes
on where it was. Knows the order of the stages; what they do is in their own modules.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from backend.hunyuan3d.networks.shape_vae import ShapeVAE
from training.drawing import Drawing
from training.export import export_checkpoint
from training.latents import Latents
from training.loop import LoopOptions, train
from training.networks import Networks, fill, read_part, save_part
from training.recipe import DEMO, Budget, DemoRecipe, vae_config
from training.shapes.generator import HELD_OUT_FIRST_SEED
from training.store import Store
from training.train_denoiser import DenoiserTask
from training.train_fields import train_fields
from training.train_vae import VAETask

SEPARATE = "separate"
"""Where the stages before the last leave their networks, in a run's folder."""


def train_demo(recipe: DemoRecipe, work: Path, weights: Path, *, seconds: float, workers: int, device: str) -> None:
    """Run every stage and leave the three networks' weights.

    work : folder of data and states, and of what the stages before the last leave, the ShapeVAE's encoder among it.
    weights : folder that receives the networks, from the last stage on. seconds : of the whole run. workers : processes
    that draw shapes.
    """
    started = time.monotonic()

    def left() -> float:
        return seconds - recipe.budget.reserve - (time.monotonic() - started)

    budget = recipe.budget
    store = Store(work / "train", budget.most_shapes, device)
    held_out = Store(work / "held_out", budget.held_out, device)
    drawing = Drawing(workers)
    try:
        drawing.ask(held_out.folder, HELD_OUT_FIRST_SEED, budget.held_out, budget.shard // 4)
        drawing.ask(store.folder, 0, budget.most_shapes, budget.shard)
        warm_up(device)
        wait_for(store, held_out, budget.first_shapes, drawing)
        vae = train_vae(store, held_out, recipe, work, left() * budget.vae_share)
        train_denoiser(store, held_out, vae, recipe, work, lambda: left() * (1 - budget.fields_share))
        train_together(store, held_out, recipe, work, weights, left())
    finally:
        drawing.stop()
    for failure in drawing.failures()[:5]:
        print(f"a shard failed: {failure}", flush=True)
    print(f"{store.filled} shapes, {time.monotonic() - started:.0f} s in all", flush=True)


def smoke(recipe: DemoRecipe) -> DemoRecipe:
    """Return the same stages at a size that takes a quarter of a minute."""
    vae = replace(recipe.vae, optimisation=replace(recipe.vae.optimisation, batch=2, warmup=2))
    denoiser = replace(recipe.denoiser, optimisation=replace(recipe.denoiser.optimisation, batch=2, warmup=2))
    together = replace(recipe.fields, optimisation=replace(recipe.fields.optimisation, batch=2, warmup=2))
    budget = Budget(first_shapes=16, reserve=1.0, most_shapes=32, held_out=8, shard=8)
    return DemoRecipe(vae, denoiser, together, budget)


def warm_up(device: str) -> None:
    """Start the device while the first shapes are being drawn."""
    if device == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.ones(8, 8, device=device).sum().item()


def wait_for(store: Store, held_out: Store, first_shapes: int, drawing: Drawing) -> None:
    """Wait until there is enough to begin with."""
    told = time.monotonic()
    while not drawing.over:
        held_out.take()
        store.take()
        if store.filled >= first_shapes and held_out.filled >= held_out.capacity:
            break
        if time.monotonic() - told > 5:
            print(f"{store.filled} shapes are drawn", flush=True)
            told = time.monotonic()
        time.sleep(0.2)
    held_out.take()
    store.take()
    if not store.filled or not held_out.filled:
        raise RuntimeError(f"no shapes were drawn: {drawing.failures()[:3]}")


def train_vae(store: Store, held_out: Store, recipe: DemoRecipe, work: Path, seconds: float) -> tuple[ShapeVAE, float]:
    """Train the ShapeVAE, or take the one that is done; return it and its latents' scale factor, 0 if not known yet."""
    kept = work / "vae.done"
    if kept.exists():
        vae = ShapeVAE(vae_config(), with_encoder=True).to(store.device)
        state, scale = read_part(work / SEPARATE, "vae")
        fill(vae, state)
        return vae, scale
    task = VAETask(store, held_out, recipe.vae)
    train(task, recipe.vae.optimisation, LoopOptions(work / "vae", seconds, evaluate_every=30))
    return task.vae, 0.0


def train_denoiser(
    store: Store,
    held_out: Store,
    trained: tuple[ShapeVAE, float],
    recipe: DemoRecipe,
    work: Path,
    left: Callable[[], float],
) -> None:
    """Encode what is drawn, then train image encoder and denoiser with the seconds that are left, unless it is done."""
    kept = work / "denoiser.done"
    if kept.exists():
        return
    vae, scale = trained
    weights = work / SEPARATE
    latents = Latents(store, vae.eval(), scale_factor=scale)
    save_part(weights, "vae", vae, latents.scale_factor)
    (work / "vae.done").touch()
    latents.grow()
    print(f"{latents.filled} shapes have latents, scale factor {latents.scale_factor:.4f}", flush=True)
    scaled = ShapeVAE(vae_config(latents.scale_factor), with_encoder=True).to(store.device)
    scaled.load_state_dict(vae.state_dict())
    task = DenoiserTask(store, latents, held_out, scaled, recipe.denoiser)

    def save() -> None:
        save_part(weights, "conditioner", task.conditioner)
        save_part(weights, "denoiser", task.denoiser)

    train(task, recipe.denoiser.optimisation, LoopOptions(work / "denoiser", max(left(), 0.0), on_save=save))
    save()
    kept.touch()


def train_together(
    store: Store, held_out: Store, recipe: DemoRecipe, work: Path, weights: Path, seconds: float
) -> None:
    """Train all three networks on, from what the stages before have left."""
    networks = Networks.of_run(work / SEPARATE)
    train_fields(store, held_out, networks, recipe.fields, work / "fields", weights, max(seconds, 0.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of data and states, outside the checkout")
    parser.add_argument("--weights", type=Path, help="folder of the trained weights; WORK/weights unless given")
    parser.add_argument(
        "--checkpoint", type=Path, help="folder of a checkpoint to write, e.g. backend/checkpoints/demo"
    )
    parser.add_argument("--minutes", type=float, default=120.0, help="of the whole run; they set the rates' decay")
    parser.add_argument("--workers", type=int, default=max((os.cpu_count() or 2) - 1, 1), help="that draw shapes")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--smoke", action="store_true", help="a size that only shows that every stage works")
    arguments = parser.parse_args()
    weights = arguments.weights or arguments.work / "weights"
    recipe = smoke(DEMO) if arguments.smoke else DEMO
    seconds = 60 * arguments.minutes
    train_demo(recipe, arguments.work, weights, seconds=seconds, workers=arguments.workers, device=arguments.device)
    if arguments.checkpoint:
        export_checkpoint(weights, arguments.checkpoint)


if __name__ == "__main__":
    main()
