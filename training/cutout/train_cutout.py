"""Train the network that cuts objects out of photographs, and export its weights.

`make train-cutout` runs this: the objects' pictures, the training, the export. The budget of minutes sets the decay of
the learning rate; a run that is killed goes on from its last state, with the minutes that it had used. Knows nothing
of GrabCut or of what else decides over a cut-out.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.numpy import save_file
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from backend.hunyuan3d.image.cutout_network import WEIGHTS
from training.cutout.composites import draw_composite
from training.cutout.network import CutoutNetwork, folded
from training.cutout.objects import ObjectPictures, render_figures, render_objects

HELD_OUT_FIRST_SEED = 1_000_000_000


@dataclass(frozen=True)
class Recipe:
    """How the network is trained.

    stages : until which share of the minutes composites have which side, in pixels: most of what is to be learnt is
    learnt as well from small ones, for a fraction of the time. minutes : of training, evaluations not counted.
    average : what the running average of the weights keeps a step. held_out : composites that tell how it goes.
    """

    stages: tuple[tuple[float, int], ...] = ((0.55, 128), (0.85, 192), (1.0, 256))
    batch: int = 16
    minutes: float = 120.0
    rate: float = 2e-3
    warmup: int = 100
    average: float = 0.998
    evaluate_every: int = 250
    held_out: int = 96
    held_out_side: int = 256


class Composites(IterableDataset[tuple[Tensor, Tensor]]):
    """Composites of seeds from `first` on, endlessly: image (3, S, S) uint8 and mask (S, S) uint8."""

    def __init__(self, objects: Path, side: int, first: int) -> None:
        self._objects, self._side, self._first = objects, side, first

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Share the seeds between the loader's workers."""
        cv2.setNumThreads(1)
        worker = torch.utils.data.get_worker_info()
        number, of = (worker.id, worker.num_workers) if worker else (0, 1)
        pictures = ObjectPictures(self._objects)
        seed = self._first + number
        while True:
            if seed % 1000 < of:
                pictures.refresh()
            drawn = draw_composite(seed, pictures, self._side)
            mask = np.rint(drawn.mask * 255).astype(np.uint8)
            yield torch.from_numpy(drawn.image).permute(2, 0, 1).contiguous(), torch.from_numpy(mask)
            seed += of


def mask_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of the cross-entropy, weighted towards edges, and of one minus the soft IoU.

    logits, mask : (B, 1, H, W), the mask in 0..1.
    """
    local = F.avg_pool2d(mask, 15, 1, 7)
    weight = 1 + 3 * (1 - (2 * local - 1).abs())
    entropy = (F.binary_cross_entropy_with_logits(logits, mask, reduction="none") * weight).sum() / weight.sum()
    found = logits.sigmoid()
    both = (found * mask).sum((1, 2, 3))
    either = (found + mask - found * mask).sum((1, 2, 3))
    return entropy + 0.5 * (1 - (both + 1) / (either + 1)).mean()


def learning_rate(step: int, used: float, recipe: Recipe) -> float:
    """Return the rate: a linear warm-up by steps, then a half cosine over the budget of minutes."""
    share = min(used / recipe.minutes, 1.0)
    return recipe.rate * min(1.0, (step + 1) / recipe.warmup) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))


class Trainer:
    """A run: network, its running average, optimiser and clock, all of which a state on disk holds."""

    def __init__(self, objects: Path, state: Path, recipe: Recipe, start: Path | None = None) -> None:
        """Go on from the state when there is one. start : else, weights to begin with."""
        self.recipe, self._objects, self._folder = recipe, objects, state
        state.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        self.network = CutoutNetwork().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if start is not None:
            self.network.load_state_dict(torch.load(start, weights_only=True)["average"])
        self.average = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=recipe.rate, weight_decay=1e-4)
        self.step, self.minutes = 0, 0.0
        if (state / "state.pt").exists():
            self._resume(state / "state.pt")
        self._held_out = self._draw_held_out()

    def run(self) -> None:
        """Train until the minutes are used."""
        # Values too small to matter make a processor's arithmetic many times slower. Whoever goes on in this thread
        # needs them: without, scipy's cKDTree never comes to an end where many coordinates are 0, and crashes.
        torch.set_flush_denormal(True)
        try:
            for until, side in self.recipe.stages:
                if self.minutes < until * self.recipe.minutes:
                    self._train(until * self.recipe.minutes, side)
            self._report()
        finally:
            torch.set_flush_denormal(False)

    def _train(self, until: float, side: int) -> None:
        """Train with composites of one side until so many minutes of the run are used."""
        data = Composites(self._objects, side, first=self.step * self.recipe.batch)
        loader = DataLoader(data, batch_size=self.recipe.batch, num_workers=1, prefetch_factor=4)
        began = time.monotonic()
        for image, mask in loader:
            loss = self._learn(image, mask)
            self.minutes += (time.monotonic() - began) / 60
            if self.step % 50 == 0:
                self._log({"step": self.step, "side": side, "minutes": self.minutes, "loss": loss})
            if self.step % self.recipe.evaluate_every == 0:
                self._report()
            if self.minutes >= until:
                return
            began = time.monotonic()

    def _report(self) -> None:
        """Save the state and log how the network does."""
        self._save()
        self._log({"step": self.step, "minutes": self.minutes, **self.evaluate()})

    def evaluate(self) -> dict[str, float]:
        """Return the averaged network's mean IoU on held-out composites, and the share of them below 0.9."""
        network = CutoutNetwork().to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        network.load_state_dict(self.average)
        ious = []
        with torch.inference_mode():
            for image, mask in self._held_out:
                found = network(image[None].float().div(255).to(memory_format=torch.channels_last))[0, 0] > 0
                wanted = mask > 127
                ious.append(float((found & wanted).sum() / (found | wanted).sum().clamp(min=1)))
        return {"iou": float(np.mean(ious)), "below": float(np.mean(np.array(ious) < 0.9))}

    def _learn(self, image: Tensor, mask: Tensor) -> float:
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, self.minutes, self.recipe)
        image = image.float().div_(255).to(memory_format=torch.channels_last)
        loss = mask_loss(self.network(image), mask[:, None].float() / 255)
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        if torch.isfinite(norm):
            self.optimiser.step()
            keep = min(self.recipe.average, (1 + self.step) / (10 + self.step))
            for name, value in self.network.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, 1 - keep)
                else:
                    self.average[name].copy_(value)
        self.step += 1
        return float(loss.detach())

    def _draw_held_out(self) -> list[tuple[Tensor, Tensor]]:
        data = iter(Composites(self._objects, self.recipe.held_out_side, HELD_OUT_FIRST_SEED))
        return [next(data) for _ in range(self.recipe.held_out)]

    def _resume(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.minutes = int(state["step"]), float(state["minutes"])

    def _save(self) -> None:
        """Write the state so that a kill leaves either the old file or the new one."""
        partial = self._folder / "state.partial"
        state = {
            "step": self.step,
            "minutes": self.minutes,
            "network": self.network.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
        }
        torch.save(state, partial)
        partial.replace(self._folder / "state.pt")

    def _log(self, figures: dict[str, float]) -> None:
        with (self._folder / "log.jsonl").open("a") as file:
            file.write(json.dumps({name: round(value, 5) for name, value in figures.items()}) + "\n")


def export_weights(state: Path, weights: Path) -> None:
    """Write the averaged network of a state as the service reads it: float16 safetensors."""
    network = CutoutNetwork()
    network.load_state_dict(torch.load(state, weights_only=True)["average"])
    weights.parent.mkdir(parents=True, exist_ok=True)
    partial = weights.with_suffix(".partial")
    save_file(folded(network), partial)
    partial.replace(weights)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, make what objects are missing, train and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of objects, state and log")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="file that receives the weights")
    parser.add_argument("--objects", type=int, default=4000, help="shapes, of two pictures each")
    parser.add_argument("--figures", type=int, default=2000, help="flat figures beside them")
    parser.add_argument("--start", type=Path, help="a state whose averaged weights to begin with")
    parser.add_argument("--minutes", type=float, default=Recipe.minutes)
    parser.add_argument("--side", type=int, help="one side for the whole run instead of growing ones")
    parser.add_argument("--batch", type=int, default=Recipe.batch)
    parser.add_argument("--rate", type=float, default=Recipe.rate)
    chosen = parser.parse_args(arguments)
    stages = Recipe.stages if chosen.side is None else ((1.0, chosen.side),)
    recipe = Recipe(stages, batch=chosen.batch, minutes=chosen.minutes, rate=chosen.rate)
    objects, state = chosen.work / "objects", chosen.work / "run"
    render_figures(objects, chosen.figures)
    render_objects(objects, chosen.objects)
    Trainer(objects, state, recipe, chosen.start).run()
    export_weights(state / "state.pt", chosen.weights)


if __name__ == "__main__":
    main()
