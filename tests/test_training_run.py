"""The training run: stages in order, resuming, and what it leaves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from backend.hunyuan3d import Hunyuan3DShapePipeline
from backend.hunyuan3d.checkpoint.files import read_weights
from training.augment import colour_jitter
from training.latents import latent_table
from training.loop import LoopOptions, rate_factor, resume, train
from training.recipe import DEMO, GRID, IMAGE_HALF_WIDTH, Optimisation
from training.train_demo import smoke, train_demo
from training.train_vae import anchors, truncate


class LineTask:
    """A matrix and a bias learn a fixed map; every step draws from its own seed."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.modules = nn.ModuleDict({"net": nn.Linear(4, 4)})
        self.evaluations = 0

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        loss = (self.modules["net"](x) - 2 * x).square().mean()
        return loss, {"loss": loss.item()}

    def evaluate(self) -> dict[str, float]:
        self.evaluations += 1
        return {"figure": 1.0}


class StoppedError(Exception):
    """The machine was taken away."""


class StoppingTask(LineTask):
    """The same, killed at step 6."""

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        if step == 6:
            raise StoppedError
        return super().loss(step)


SETTINGS = Optimisation(steps=10, batch=16, muon_lr=0.02, adam_lr=0.01, warmup=2)


def options(folder: Path) -> LoopOptions:
    return LoopOptions(folder, log_every=5, save_every=2, evaluate_every=5, progress=False)


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path) -> None:
    whole, stopped, resumed = LineTask(), StoppingTask(), LineTask()
    train(whole, SETTINGS, options(tmp_path / "whole"))
    with pytest.raises(StoppedError):
        train(stopped, SETTINGS, options(tmp_path / "parts"))
    train(resumed, SETTINGS, options(tmp_path / "parts"))
    for name, value in whole.modules.state_dict().items():
        torch.testing.assert_close(resumed.modules.state_dict()[name], value, rtol=0, atol=1e-6)


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    task = LineTask()
    before = float(task.loss(100)[0].detach())
    train(task, replace(SETTINGS, steps=200), options(tmp_path))
    assert float(task.loss(100)[0].detach()) < before / 4


def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    train(LineTask(), SETTINGS, options(tmp_path))
    again = LineTask()
    train(again, SETTINGS, options(tmp_path))
    assert again.evaluations == 0
    assert resume(again.modules, [], tmp_path / "none.pt") == 0


def test_the_rate_warms_up_and_falls_to_nothing() -> None:
    factors = [rate_factor(step, SETTINGS) for step in range(SETTINGS.steps + 1)]
    assert factors[0] == pytest.approx(0.5)
    assert max(factors) == factors[1] == pytest.approx(0.9)
    assert factors[-1] == 0


def test_jitter_keeps_a_white_background_white() -> None:
    image = torch.rand(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    image[:, 3, :, :4] = 0
    image[:, 3, :, 4:] = 1
    out = colour_jitter(image, torch.Generator().manual_seed(2))
    assert out.shape == (3, 3, 8, 8)
    assert (out[..., :4] == 1).all()
    assert not torch.equal(out[..., 4:], image[:, :3, :, 4:])


def test_anchors_run_along_the_rows_of_the_image_from_the_top() -> None:
    points = anchors()
    step = 2 * IMAGE_HALF_WIDTH / GRID
    assert points.shape == (GRID * GRID, 3)
    assert points[0].tolist() == pytest.approx([-IMAGE_HALF_WIDTH + step / 2, IMAGE_HALF_WIDTH - step / 2, 0])
    assert (points[1] - points[0]).tolist() == pytest.approx([step, 0, 0], abs=1e-6)
    assert (points[GRID] - points[0]).tolist() == pytest.approx([0, -step, 0], abs=1e-6)


def test_distances_are_cut_at_the_truncation() -> None:
    assert truncate(torch.tensor([0.05, 0.3, -0.3])).tolist() == pytest.approx([0.5, 1, -1])


@pytest.mark.slow
# Under autocast torch notes that its RMS norm mixes precisions on the CPU; it computes right all the same.
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight:UserWarning")
def test_the_whole_run_leaves_a_checkpoint_that_the_pipeline_loads(tmp_path: Path) -> None:
    recipe = smoke(DEMO)
    folder = tmp_path / "checkpoint"
    held_out = train_demo(recipe, tmp_path / "work", folder, workers=1, device="cpu")
    assert len(held_out) == recipe.held_out
    pipeline = Hunyuan3DShapePipeline.from_pretrained(folder)
    image = Image.fromarray(held_out.column("picture", torch.arange(1).numpy())[0, 0])
    latents = pipeline.sample_latents(pipeline.encode_images(pipeline.preprocess(image).image), seeds=[0])
    assert latents.shape == (1, *pipeline.shape_vae.latent_shape)
    assert torch.isfinite(latents).all()
    weights = read_weights(folder / "model.fp16.safetensors")
    assert sum(t.numel() * t.element_size() for t in weights.tensors.values()) < 16_000_000
    data_folder = tmp_path / "work" / "vae"
    table = latent_table(held_out, recipe.denoiser.shapes, data_folder, "cpu")
    assert table.values.astype("float32").std() == pytest.approx(1, abs=0.01)
