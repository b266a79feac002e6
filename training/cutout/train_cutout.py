"""Train the network that cuts objects out of photographs, and export its weights.

`make train-cutout` runs this: processes that draw objects and surfaces, the training on what there is so far, the
export. The budget of minutes sets the decay of the learning rate; a run that is killed goes on from its last state,
with the minutes that it had used, and the weights of its last report are there at any time. Knows nothing of GrabCut
or of what else decides over a cut-out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from backend.hunyuan3d.image.cutout_network import WEIGHTS
from training.cutout.bank import Bank
from training.cutout.composites import Composites, draw_composites
from training.cutout.echo import Echo
from training.cutout.network import CutoutNetwork, folded, unfolded
from training.cutout.pictures import Wanted, draw_shards, start_workers
from training.loop import rate_factor
from training.muon import Optimiser
from training.precision import halved
from training.recipe import Optimisation
from training.shapes.generator import HELD_OUT_FIRST_SEED

HELD_OUT = Wanted(shapes=16, figures=40, surfaces=40, writing=40, first_seed=HELD_OUT_FIRST_SEED)
_LOOK_EVERY = 5.0
_ENOUGH = (120, 80)


@dataclass(frozen=True)
class Recipe:
    """How the network is trained.

    rate : of Adam, at its highest, for biases and normalisations. turn : of Muon, at its highest: by which share of its
    size each kernel moves in a step.

    stages : until which share of the minutes composites have which sides, in pixels, by turns: most of what is to be
    learnt is learnt as well from small ones, for a fraction of the time. batch : composites of 256 pixels in a step, of
    smaller ones more. minutes : of training and reports. average : what the running average of the weights keeps a
    step. report_every : seconds. held_out : composites that tell how it goes.

    echo : how often a composite is learnt from, about; from 2 on they wait on the device, and are changed each time.
    drawn : how many, of 256 pixels, are then drawn at a time, 0 as many as a step's. pool : how many of 256 pixels each
    side's pool has room for. compiled : whether the step is compiled for the device. first_seed : of the first step's
    composites; a run that goes on from another's weights begins after its steps, not to see the same ones again.
    """

    stages: tuple[tuple[float, tuple[int, ...]], ...] = (
        (0.4, (128, 192, 256)),
        (0.8, (192, 256, 320)),
        (1.0, (256, 320, 384)),
    )
    batch: int = 8
    minutes: float = 120.0
    rate: float = 2e-3
    turn: float = 0.01
    warmup: int = 200
    average: float = 0.996
    report_every: float = 120.0
    held_out: int = 96
    held_out_side: int = 256
    echo: float = 1
    drawn: int = 0
    pool: int = 20_000
    compiled: bool = False
    first_seed: int = 0


def mask_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of the cross-entropy, weighted towards edges, and of one minus the soft IoU.

    logits, mask : (B, 1, H, W), the mask in 0..1.
    """
    # The mean over 15 x 15 pixels, by columns and then by rows: 30 additions a pixel in place of 225.
    local = F.avg_pool2d(F.avg_pool2d(mask, (15, 1), 1, (7, 0)), (1, 15), 1, (0, 7))
    weight = 1 + 3 * (1 - (2 * local - 1).abs())
    entropy = (F.binary_cross_entropy_with_logits(logits, mask, reduction="none") * weight).sum() / weight.sum()
    found = logits.sigmoid()
    both = (found * mask).sum((1, 2, 3))
    either = (found + mask - found * mask).sum((1, 2, 3))
    return entropy + 0.5 * (1 - (both + 1) / (either + 1)).mean()


def overlaps(logits: Tensor, mask: Tensor) -> Tensor:
    """Return the IoU (B) of logits and masks (B, 1, H, W), each cut at one half."""
    found, wanted = logits > 0, mask > 0.5
    both, either = (found & wanted).sum((1, 2, 3)), (found | wanted).sum((1, 2, 3))
    return (both + 1) / (either + 1)


def step_loss(network: CutoutNetwork, image: Tensor, mask: Tensor) -> Tensor:
    """Return what a step makes smaller: the mask's loss, and a little for how wrong its expected IoU is."""
    with halved(image.device.type):
        logits, expected = network(image)
    logits, expected = logits.float(), expected.float()
    judged = F.binary_cross_entropy_with_logits(expected, overlaps(logits.detach(), mask))
    return mask_loss(logits, mask) + 0.1 * judged


def is_kernel(name: str, parameter: Tensor) -> bool:
    """Return whether a parameter is the kernel of a convolution that a normalisation follows."""
    return parameter.dim() == 4 and not name.startswith("head")


class Trainer:
    """A run: network, its running average, optimiser and clock, all of which a state on disk holds."""

    def __init__(
        self, bank: Bank, held_out: Sequence[Composites], state: Path, recipe: Recipe, start: Path | None = None
    ) -> None:
        """Go on from the state when there is one.

        state : a folder that receives the state, the averaged weights of each report and the log. start : without a
        state, weights to begin with: an average.pt, or a .safetensors as the service reads it.
        """
        self.recipe, self._bank, self._folder, self._held_out = recipe, bank, state, held_out
        self.device = bank.device
        state.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        self.network = CutoutNetwork().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if start is not None:
            self._begin_with(start)
        self.average = {name: value.clone() for name, value in self.network.state_dict().items()}
        self._now = self.network.state_dict()
        self._settings = Optimisation(recipe.batch, recipe.turn, recipe.rate, recipe.warmup)
        named = self.network.named_parameters()
        self.optimiser = Optimiser(named, self._settings, is_kernel, relative=True)
        self._loss: Callable[[CutoutNetwork, Tensor, Tensor], Tensor] = step_loss
        if recipe.compiled:
            self._loss = torch.compile(step_loss, dynamic=False)
        self._echo = Echo(self._composites, recipe.echo, recipe.drawn or recipe.batch, recipe.pool)
        self.step, self.minutes, self.skipped = 0, 0.0, torch.zeros((), device=self.device)
        if (state / "state.pt").exists():
            self._resume(state / "state.pt")

    def run(self) -> None:
        """Train until the minutes are used."""
        # Values too small to matter make a processor's arithmetic many times slower. Whoever goes on in this thread
        # needs them: without, scipy's cKDTree never comes to an end where many coordinates are 0, and crashes.
        torch.set_flush_denormal(True)
        try:
            self._train()
            self._report()
        finally:
            torch.set_flush_denormal(False)

    def _train(self) -> None:
        """Train, with a look for new pictures, a line and a report now and then."""
        began = looked = lined = reported = time.monotonic()
        first, loss = self.step, torch.zeros(())
        before = self.minutes
        while self.minutes < self.recipe.minutes or self.step == first:
            loss = self._learn(*self._next())
            now = time.monotonic()
            self.minutes = before + (now - began) / 60
            if now - looked > _LOOK_EVERY:
                self._bank.refresh()
                looked = now
            if now - lined > min(10.0, self.recipe.report_every):
                self._log(
                    {"step": self.step, "minutes": self.minutes, "loss": float(loss), **self._speed(first, began)}
                )
                lined = now
            if now - reported > self.recipe.report_every:
                self._report()
                reported = now
        self._log({"step": self.step, "minutes": self.minutes, "loss": float(loss), **self._speed(first, began)})

    def _speed(self, first: int, began: float) -> dict[str, float]:
        seconds = max(time.monotonic() - began, 1e-6)
        figures = {"steps_a_second": (self.step - first) / seconds, "skipped": float(self.skipped)}
        return figures | {"objects": self._bank.count("objects"), "surfaces": self._bank.count("surfaces")}

    def _next(self) -> tuple[Tensor, Tensor]:
        """Draw the next step's composites."""
        share = min(self.minutes / self.recipe.minutes, 1.0)
        sides = next((sides for until, sides in self.recipe.stages if share < until), self.recipe.stages[-1][1])
        side = sides[self.step % len(sides)]
        batch = max(2, round(self.recipe.batch * (256 / side) ** 2))
        seed = self.recipe.first_seed + self.step
        if self.recipe.echo > 1:
            drawn = self._echo.next(seed, batch, side, self.device)
        else:
            drawn = self._composites(seed, batch, side)
        return drawn.image.to(memory_format=torch.channels_last), drawn.mask

    def _composites(self, seed: int, batch: int, side: int) -> Composites:
        return draw_composites(seed, self._bank, batch, side)

    def _learn(self, image: Tensor, mask: Tensor) -> Tensor:
        """Take a step; one whose gradients are not finite changes no weight, and nobody waits to be told so."""
        self.optimiser.set_rates(rate_factor(self.minutes / self.recipe.minutes, self.step, self._settings))
        loss = self._gradients(image, mask)
        self.optimiser.step()
        self.step += 1
        self.skipped += (~torch.isfinite(self.optimiser.norm)).float()
        self._follow()
        return loss

    def _gradients(self, image: Tensor, mask: Tensor) -> Tensor:
        """Give each weight its gradient and return the loss; go on without what cannot be compiled."""
        self.network.zero_grad(set_to_none=True)
        try:
            loss = self._loss(self.network, image, mask)
            torch.autograd.backward(loss)
        except (RuntimeError, ImportError, OSError, subprocess.SubprocessError) as error:
            if self._loss is step_loss:
                raise
            print(f"not compiled: {type(error).__name__}: {str(error)[:300]!r}", flush=True)
            self._loss = step_loss
            return self._gradients(image, mask)
        return loss.detach()

    def _follow(self) -> None:
        """Move the running average towards the network."""
        keep = min(self.recipe.average, (1 + self.step) / (10 + self.step))
        now, average = self._now, self.average
        names = [name for name, value in now.items() if value.is_floating_point()]
        torch._foreach_lerp_([average[name] for name in names], [now[name] for name in names], 1 - keep)
        counts = [name for name, value in now.items() if not value.is_floating_point()]
        torch._foreach_copy_([average[name] for name in counts], [now[name] for name in counts])

    def _report(self) -> None:
        """Save the state and the weights, and log how the network does."""
        self._save()
        export_weights(self._folder / "average.pt", self._folder / "weights.safetensors")
        self._log({"step": self.step, "minutes": self.minutes, **self.evaluate()})

    def evaluate(self) -> dict[str, float]:
        """Return the averaged network's mean IoU on held-out composites, and the share of them below 0.9.

        judged : how far the IoU that the network expects of its mask is from the true one, on average.
        """
        network = CutoutNetwork().to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        network.load_state_dict(self.average)
        ious, misses = [], []
        with torch.inference_mode():
            for held in self._held_out:
                logits, expected = network(held.image.to(self.device, memory_format=torch.channels_last))
                ious.append(overlaps(logits, held.mask.to(self.device)).cpu())
                misses.append((expected.sigmoid().cpu() - ious[-1]).abs())
        iou = torch.cat(ious)
        below = float((iou < 0.9).float().mean())
        return {"iou": float(iou.mean()), "below": below, "judged": float(torch.cat(misses).mean())}

    def _begin_with(self, start: Path) -> None:
        """Take over averaged weights, or weights as the service reads them."""
        if start.suffix == ".safetensors":
            seen = draw_composites(HELD_OUT_FIRST_SEED - 1, self._bank, 4 * self.recipe.batch, 256).image
            values = unfolded(load_file(start), seen.cpu()).state_dict()
        else:
            values = torch.load(start, weights_only=True, map_location=self.device)
        self.network.load_state_dict(values)

    def _resume(self, path: Path) -> None:
        state = torch.load(path, weights_only=True, map_location=self.device)
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
        torch.save(self.average, partial)
        partial.replace(self._folder / "average.pt")

    def _log(self, figures: dict[str, float]) -> None:
        line = json.dumps({name: round(value, 5) for name, value in figures.items()})
        print(line, flush=True)
        with (self._folder / "log.jsonl").open("a") as file:
            file.write(line + "\n")


def export_weights(average: Path, weights: Path) -> None:
    """Write averaged weights as the service reads them: float16 safetensors."""
    network = CutoutNetwork()
    network.load_state_dict(torch.load(average, weights_only=True, map_location="cpu"))
    weights.parent.mkdir(parents=True, exist_ok=True)
    partial = weights.with_suffix(".partial")
    save_file(folded(network), partial)
    partial.replace(weights)


def draw_held_out(folder: Path, recipe: Recipe, device: torch.device, wanted: Wanted = HELD_OUT) -> list[Composites]:
    """Draw composites of objects, surfaces and seeds that training does not see."""
    for _ in draw_shards(folder, wanted):
        pass
    bank = Bank(folder, device, 3 * wanted.shapes + wanted.figures, wanted.surfaces)
    each = 16
    return [
        draw_composites(HELD_OUT_FIRST_SEED + number, bank, min(each, recipe.held_out - number), recipe.held_out_side)
        for number in range(0, recipe.held_out, each)
    ]


def wait_for_pictures(bank: Bank, workers: Sequence[subprocess.Popen[bytes]], seconds: float = 600.0) -> None:
    """Wait until there are enough pictures to begin with. Raises RuntimeError where none come."""
    until = time.monotonic() + seconds
    while bank.count("objects") < _ENOUGH[0] or bank.count("surfaces") < _ENOUGH[1]:
        bank.refresh()
        ended = all(worker.poll() is not None for worker in workers)
        if (ended or time.monotonic() > until) and not (bank.count("objects") and bank.count("surfaces")):
            raise RuntimeError("no pictures of objects or surfaces are drawn; see what training.cutout.pictures says")
        if ended:
            return
        time.sleep(0.2)


def _seed(said: str) -> int:
    """Return a seed from the command line; from HELD_OUT_FIRST_SEED - 1 on they are the held-out composites'."""
    seed = int(said)
    if not 0 <= seed < HELD_OUT_FIRST_SEED - 1:
        raise argparse.ArgumentTypeError(f"must be 0 to {HELD_OUT_FIRST_SEED - 2}: what is held out begins after it")
    return seed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of pictures, state and log")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="file that receives the weights")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw")
    parser.add_argument("--shapes", type=int, default=4000, help="shapes, of three pictures each")
    parser.add_argument("--figures", type=int, default=8000, help="flat figures beside them")
    parser.add_argument("--surfaces", type=int, default=8000)
    parser.add_argument(
        "--room", type=int, default=20_000, help="objects, and half as many surfaces, in memory at a time"
    )
    parser.add_argument("--start", type=Path, help="an average.pt or the service's weights, to begin with")
    parser.add_argument("--minutes", type=float, default=Recipe.minutes)
    parser.add_argument("--batch", type=int, default=Recipe.batch)
    parser.add_argument("--rate", type=float, default=Recipe.rate, help="of Adam, for biases and normalisations")
    parser.add_argument("--turn", type=float, default=Recipe.turn, help="of Muon: by which share a kernel moves a step")
    parser.add_argument("--report-every", type=float, default=Recipe.report_every, help="seconds")
    parser.add_argument("--held-out", type=int, default=Recipe.held_out)
    parser.add_argument("--sides", help="composites' sides by turns, such as 192,256,320, in place of the stages")
    parser.add_argument("--echo", type=float, default=Recipe.echo, help="how often a composite is learnt from")
    parser.add_argument("--drawn", type=int, default=Recipe.drawn, help="composites drawn at a time, with --echo")
    parser.add_argument("--pool", type=int, default=Recipe.pool, help="composites in memory for each side, with --echo")
    parser.add_argument("--first-seed", type=_seed, default=Recipe.first_seed, help="of the first step's composites")
    parser.add_argument("--compile", action="store_true", help="compile the step, where the device has what it takes")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, draw, train and export."""
    chosen = _parser().parse_args(arguments)
    sides = chosen.sides and tuple(int(side) for side in chosen.sides.split(","))
    recipe = Recipe(
        stages=((1.0, sides),) if sides else Recipe.stages,
        batch=chosen.batch,
        minutes=chosen.minutes,
        rate=chosen.rate,
        turn=chosen.turn,
        report_every=chosen.report_every,
        held_out=chosen.held_out,
        echo=chosen.echo,
        drawn=chosen.drawn,
        pool=chosen.pool,
        compiled=chosen.compile,
        first_seed=chosen.first_seed,
    )
    wanted = Wanted(chosen.shapes, chosen.figures, chosen.surfaces)
    run, device = chosen.work / "run", torch.device(chosen.device)
    workers = start_workers(chosen.work / "pictures", wanted, chosen.workers)
    try:
        held_out = draw_held_out(chosen.work / "held-out", recipe, device)
        bank = Bank(chosen.work / "pictures", device, chosen.room, chosen.room // 2)
        wait_for_pictures(bank, workers)
        Trainer(bank, held_out, run, recipe, chosen.start).run()
    finally:
        for worker in workers:
            worker.terminate()
            worker.wait()
    export_weights(run / "average.pt", chosen.weights)


if __name__ == "__main__":
    main()
