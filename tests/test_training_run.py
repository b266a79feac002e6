"""The training run: a budget of seconds, resuming, the optimiser, and what a run leaves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from backend.hunyuan3d import Hunyuan3DShapePipeline
from backend.hunyuan3d.checkpoint.files import read_weights
from backend.hunyuan3d.networks.shape_vae import ShapeVAE
from training.augment import colour_jitter
from training.dataset import write_shard
from training.export import export_checkpoint
from training.latents import Latents
from training.loop import Average, LoopOptions, Step, rate_factor, resume, train
from training.muon import Optimiser, is_inner, orthogonalised
from training.recipe import DEMO, GRID, IMAGE_HALF_WIDTH, Optimisation, vae_config
from training.store import Store
from training.train_demo import smoke, train_demo
from training.train_vae import anchors, field_errors, truncate


class LineTask:
    """A matrix and a bias learn a fixed map."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net = nn.Linear(4, 4)
        self.modules = nn.ModuleDict({"net": self.net})
        self.evaluations = self.refreshed = 0

    def loss(self) -> tuple[Tensor, dict[str, Tensor]]:
        x = torch.randn(16, 4)
        loss = (self.net(x) - 2 * x).square().mean()
        return loss, {"loss": loss.detach()}

    def refresh(self) -> None:
        self.refreshed += 1

    def evaluate(self) -> dict[str, float]:
        self.evaluations += 1
        return {"figure": 1.0}


class BrokenTask(LineTask):
    """The same, without figures, and with one step whose loss is not a number."""

    def loss(self) -> tuple[Tensor, dict[str, Tensor]]:
        loss, figures = super().loss()
        return (loss * float("nan") if self.refreshed == 3 else loss), figures

    def evaluate(self) -> dict[str, float]:
        raise ValueError("no figures today")


SETTINGS = Optimisation(batch=16, muon_lr=0.02, adam_lr=0.01, warmup=2)


def test_a_run_goes_on_with_what_was_left_of_its_seconds(tmp_path: Path) -> None:
    train(LineTask(), SETTINGS, LoopOptions(tmp_path, 0.4))
    first = torch.load(tmp_path / "state.pt", weights_only=True)
    again = LineTask()
    train(again, SETTINGS, LoopOptions(tmp_path, 0.8))
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert 0.4 <= first["seconds"] <= state["seconds"]
    assert state["step"] > first["step"] > 0
    assert state["seconds"] >= 0.8
    assert not torch.equal(state["modules"]["net.weight"], first["modules"]["net.weight"])


def test_a_finished_run_is_left_alone_and_gives_its_average(tmp_path: Path) -> None:
    task = LineTask()
    train(task, SETTINGS, LoopOptions(tmp_path, 0.2))
    again = LineTask()
    train(again, SETTINGS, LoopOptions(tmp_path, 0.2))
    assert again.evaluations == again.refreshed == 0
    torch.testing.assert_close(again.modules.state_dict(), task.modules.state_dict(), rtol=0, atol=0)
    fresh = LineTask()
    average, optimiser = Average(fresh.modules), Optimiser(fresh.modules.named_parameters(), SETTINGS)
    assert resume(fresh, optimiser, average, tmp_path / "none.pt") == (0, 0.0)


def test_training_lowers_the_loss_and_saves_by_the_way(tmp_path: Path) -> None:
    task, saved = LineTask(), []
    before = float(task.loss()[0].detach())
    train(task, SETTINGS, LoopOptions(tmp_path, 1.5, save_every=0.3, on_save=lambda: saved.append(1)))
    assert float(task.loss()[0].detach()) < before / 4
    assert saved


def test_a_step_that_is_not_finite_leaves_finite_weights_and_missing_figures_end_nothing(tmp_path: Path) -> None:
    task = BrokenTask()
    train(task, SETTINGS, LoopOptions(tmp_path, 0.3))
    assert all(torch.isfinite(p).all() for p in task.modules.parameters())
    assert task.refreshed > 4


def test_the_rate_warms_up_and_falls_to_nothing() -> None:
    assert rate_factor(0.0, 0, SETTINGS) == pytest.approx(0.5)
    assert rate_factor(0.25, 10, SETTINGS) == pytest.approx(0.75)
    assert rate_factor(1.0, 10, SETTINGS) == 0


def test_muon_makes_singular_values_alike_whatever_stands_in_the_stack() -> None:
    stack = torch.randn(3, 8, 20, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalised(stack).float())
    assert values.min() > 0.5
    assert values.max() < 1.3
    alone = torch.cat([orthogonalised(matrix[None]) for matrix in stack])
    torch.testing.assert_close(orthogonalised(stack), alone, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(orthogonalised(stack.mT), orthogonalised(stack).mT, rtol=1e-4, atol=1e-4)


def test_a_step_is_that_of_torch_s_own_optimisers() -> None:
    torch.manual_seed(3)
    ours, theirs = nn.Linear(6, 4), nn.Linear(6, 4)
    theirs.load_state_dict(ours.state_dict())
    optimiser = Optimiser(ours.named_parameters(), replace(SETTINGS, clip=1e9))
    muon = torch.optim.Muon([theirs.weight], lr=SETTINGS.muon_lr, weight_decay=SETTINGS.weight_decay)
    adam = torch.optim.AdamW([theirs.bias], lr=SETTINGS.adam_lr, betas=(0.9, 0.98), weight_decay=0.0)
    optimiser.set_rates(1.0)
    for _ in range(4):
        x = torch.randn(16, 6)
        for module in (ours, theirs):
            module.zero_grad()
            torch.autograd.backward(module(x).square().mean())
        optimiser.step()
        muon.step()  # type: ignore[no-untyped-call]
        adam.step()
    # Torch multiplies in half precision.
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=0, atol=2e-3)
    torch.testing.assert_close(ours.bias, theirs.bias, rtol=0, atol=1e-5)


def test_kernels_turn_by_a_share_of_their_size_and_keep_it() -> None:
    torch.manual_seed(4)
    kernels = nn.Conv2d(3, 8, 3, bias=False).to(memory_format=torch.channels_last), nn.Conv2d(3, 8, 3, bias=False)  # type: ignore[call-overload]
    kernels[1].load_state_dict(kernels[0].state_dict())
    x = torch.randn(2, 3, 6, 6)
    for conv in kernels:
        optimiser = Optimiser(conv.named_parameters(), SETTINGS, lambda _, value: value.dim() == 4, relative=True)
        before = conv.weight.detach().clone()
        torch.autograd.backward(conv(x).square().mean())
        optimiser.set_rates(1.0)
        optimiser.step()
        moved = conv.weight.detach() - before
        assert float(conv.weight.detach().norm()) == pytest.approx(float(before.norm()), rel=1e-5)
        # What would change the size alone is taken back.
        assert 0.5 < float(moved.norm()) / (SETTINGS.muon_lr * float(before.norm())) < 1.01
        assert conv.weight.grad is not None
        assert float((moved * conv.weight.grad).sum()) < 0
    torch.testing.assert_close(kernels[0].weight, kernels[1].weight, rtol=0, atol=1e-6)


@pytest.mark.parametrize("relative", [False, True])
def test_a_step_that_is_not_finite_changes_no_weight(*, relative: bool) -> None:
    torch.manual_seed(5)
    net = nn.Linear(6, 4)
    optimiser = Optimiser(net.named_parameters(), SETTINGS, relative=relative)
    optimiser.set_rates(1.0)
    for x in (torch.randn(16, 6), torch.full((16, 6), torch.nan)):
        before = {name: value.clone() for name, value in net.state_dict().items()}
        net.zero_grad()
        torch.autograd.backward(net(x).square().mean())
        optimiser.step()
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)
    assert not torch.isfinite(optimiser.norm)


def test_first_and_last_projections_are_not_muons() -> None:
    matrix, bias = torch.zeros(2, 2), torch.zeros(2)
    assert is_inner("denoiser.blocks.0.attn1.to_q.weight", matrix)
    assert is_inner("denoiser.blocks.0.attn1.out_proj.weight", matrix)
    assert not is_inner("denoiser.blocks.0.attn1.out_proj.bias", bias)
    assert not is_inner("denoiser.x_embedder.weight", matrix)
    assert not is_inner("vae.encoder.input_proj.weight", matrix)


def test_an_average_is_of_the_last_twentieth_of_the_steps_and_swaps_back() -> None:
    task = LineTask()
    average = Average(task.modules)
    for step in range(400):
        with torch.no_grad():
            task.net.weight.fill_(step)
        average.set_weight(step)
        average.follow()
    # Weights that fall off with age as a power: half of what is averaged is of the last fourteen steps of 400.
    assert float(average.mean[0].mean()) == pytest.approx(399 * 20 / 21, abs=1)
    average.swap()
    assert float(task.net.weight.detach().mean()) == pytest.approx(399 * 20 / 21, abs=1)
    average.swap()
    assert float(task.net.weight.detach().mean()) == 399


def test_a_recorded_step_is_the_plain_one_where_there_is_no_card() -> None:
    task = LineTask()
    average, optimiser = Average(task.modules), Optimiser(task.modules.named_parameters(), SETTINGS)
    optimiser.set_rates(1.0)
    step = Step(task, optimiser, average)
    for _ in range(5):
        step()
    assert step.graph is None
    assert step.taken == 5
    assert torch.equal(average.mean[0], task.net.weight)


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
    mse, bce = field_errors(torch.tensor([[0.5, -1.0]]), torch.tensor([[0.05, -0.3]]))
    assert mse.tolist() == [[0, 0]]
    assert (bce < 0.2).all()


def test_the_store_takes_shards_as_they_come_and_leaves_out_broken_ones(tmp_path: Path) -> None:
    write_shard(tmp_path, 0, 2)
    store = Store(tmp_path, 5, "cpu")
    assert store.take() == 2
    assert store.take() == 0
    (tmp_path / "shard-0000000002-0001").mkdir()
    write_shard(tmp_path, 3, 2)
    write_shard(tmp_path, 5, 2)
    assert store.take() == 3
    assert store.filled == 5 == int(store.count)
    near = np.load(tmp_path / "shard-0000000003-0002" / "near.npy")
    assert torch.equal(store["near"][2:4], torch.from_numpy(near))
    rows = store.draw(200)
    assert set(rows.tolist()) == set(range(5))


@pytest.mark.slow
def test_the_whole_run_leaves_a_checkpoint_that_the_pipeline_loads(tmp_path: Path) -> None:
    weights, folder = tmp_path / "weights", tmp_path / "checkpoint"
    recipe = smoke(DEMO)
    for _ in range(2):
        # The second finds everything done and does nothing but leave it.
        train_demo(recipe, tmp_path / "work", weights, seconds=10, workers=1, device="cpu")
    export_checkpoint(weights, folder)
    pipeline = Hunyuan3DShapePipeline.from_pretrained(folder)
    held_out = Store(tmp_path / "work" / "held_out", 8, "cpu")
    held_out.take()
    image = held_out["picture"][0, 0].numpy()
    latents = pipeline.sample_latents(pipeline.encode_images(pipeline.preprocess(image).image), seeds=[0])
    assert latents.shape == (1, *pipeline.shape_vae.latent_shape)
    assert torch.isfinite(latents).all()
    weighed = read_weights(folder / "model.fp16.safetensors")
    assert sum(t.numel() * t.element_size() for t in weighed.tensors.values()) < 20_000_000


def test_latents_grow_with_the_store_and_have_a_deviation_of_one(tmp_path: Path) -> None:
    write_shard(tmp_path, 0, 3)
    store = Store(tmp_path, 4, "cpu")
    store.take()
    torch.manual_seed(0)
    latents = Latents(store, ShapeVAE(vae_config(), with_encoder=True).eval())
    latents.grow()
    assert latents.filled == 3 == int(latents.count)
    assert float(latents.values[0, :3].float().std()) == pytest.approx(1, abs=0.01)
    write_shard(tmp_path, 3, 1)
    store.take()
    latents.grow()
    assert latents.filled == 4
    assert not torch.equal(latents.values[0, 3], latents.values[1, 3])
    assert set(latents.draw(100).tolist()) == {0, 1, 2, 3}
