"""Training image encoder, denoiser and decoder together: what a step does, and what a run leaves."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from backend.hunyuan3d import Hunyuan3DShapePipeline
from backend.hunyuan3d.networks.conditioner import SingleImageEncoder
from backend.hunyuan3d.networks.shape_vae import ShapeVAE
from training.batches import Encoding
from training.dataset import write_shard
from training.export import export_checkpoint
from training.networks import Networks, fill, with_new_layers
from training.recipe import DEFAULTS, FieldsRecipe, Optimisation, conditioner_config, vae_config
from training.sampling import sample, seeded
from training.shapes.generator import HELD_OUT_FIRST_SEED
from training.store import Store
from training.train_fields import FieldsTask, main, train_fields

RECIPE = FieldsRecipe(Optimisation(4, 0.003, 3e-4, warmup=1), near_queries=32, uniform_queries=32)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("fields")
    write_shard(work / "train", 0, 4)
    write_shard(work / "held_out", HELD_OUT_FIRST_SEED, 2)
    return work


def stores(work: Path) -> tuple[Store, Store]:
    both = Store(work / "train", 4, "cpu"), Store(work / "held_out", 2, "cpu")
    for store in both:
        store.take()
    return both


def test_a_checkpoint_s_networks_are_read_and_written_as_they_are(tmp_path: Path) -> None:
    read = Networks.of_checkpoint("demo")
    read.save(tmp_path / "weights")
    export_checkpoint(tmp_path / "weights", tmp_path / "again")
    ours, theirs = (Hunyuan3DShapePipeline.from_pretrained(name) for name in (tmp_path / "again", "demo"))
    assert ours.config == theirs.config
    noise, cond = seeded(2, read.vae.latent_shape, "cpu"), torch.randn(2, 65, 192)
    with torch.no_grad():
        wanted = sample(read.denoiser, noise, cond, 1.0, 4)
        assert torch.equal(sample(Networks.of_run(tmp_path / "weights").denoiser, noise, cond, 1.0, 4), wanted)


def test_layers_that_a_network_has_more_change_nothing_yet() -> None:
    config, encoder = vae_config(), conditioner_config()
    small = ShapeVAE(replace(config, num_decoder_layers=2))
    large = ShapeVAE(config)
    latents, points = seeded(2, large.latent_shape, "cpu"), torch.rand(2, 9, 3) - 0.5
    with pytest.raises(KeyError):
        fill(large, small.state_dict())
    fill(large, with_new_layers(large, small.state_dict()))
    seeing = SingleImageEncoder(replace(encoder, dino=replace(encoder.dino, num_hidden_layers=3)))
    further = SingleImageEncoder(encoder)
    fill(further, with_new_layers(further, seeing.state_dict()))
    image = torch.rand(2, 3, encoder.image_size, encoder.image_size)
    with torch.no_grad():
        assert torch.equal(large.query(large.decode(latents), points), small.query(small.decode(latents), points))
        assert torch.equal(Encoding(further, "cpu")(image), Encoding(seeing, "cpu")(image))


def test_sampling_is_the_pipeline_s_own() -> None:
    pipeline, networks = Hunyuan3DShapePipeline.from_pretrained("demo"), Networks.of_checkpoint("demo")
    cond = torch.randn(1, 65, 192, generator=torch.Generator().manual_seed(1))
    noise = seeded(1, networks.vae.latent_shape, "cpu")
    with torch.no_grad():
        ours = sample(networks.denoiser, noise, cond, 1.5, 10)
    theirs = pipeline.sample_latents(cond, noise=noise, num_inference_steps=10, guidance_scale=1.5)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_step_lowers_the_error_of_fields_and_keeps_the_free_velocity_near(
    shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where products are rounded to bfloat16 the two velocities differ by that: attention differs with gradients.
    monkeypatch.setattr("training.train_fields.halved", lambda _: nullcontext())
    store, held_out = stores(shapes)
    task = FieldsTask(store, held_out, Networks.of_checkpoint("demo"), RECIPE)

    def error() -> float:
        torch.manual_seed(0)
        with torch.no_grad():
            return float(torch.stack([task.loss()[1]["mse"] for _ in range(3)]).mean())

    before = error()
    torch.manual_seed(0)
    loss, figures = task.loss()
    assert float(figures["free"]) < 1e-9
    torch.autograd.backward(loss)
    still = [name.rpartition(".")[2] for name, p in task.modules.named_parameters() if p.grad is None]
    assert still == ["mask_token"]
    assert all(p.grad is None for p in task.before.parameters())
    optimiser = torch.optim.SGD(task.modules.parameters(), 1e-2)
    for _ in range(4):
        optimiser.step()
        task.modules.zero_grad()
        torch.autograd.backward(task.loss()[0])
    assert error() < before
    assert float(task.loss()[1]["free"].detach()) > 0


def test_half_of_the_images_begin_at_the_noise_whose_strength_is_mostly_the_default(shapes: Path) -> None:
    store, held_out = stores(shapes)
    task = FieldsTask(store, held_out, Networks.of_checkpoint("demo"), RECIPE)
    strength = task.draw_noise(400).flatten(1).std(1)
    assert 0.5 < float(((strength - DEFAULTS.noise_scale).abs() < 0.03).float().mean()) < 0.8
    assert float(strength.max()) > 0.8
    noise = task.draw_noise(4)
    x, t = task.on_the_way(noise, torch.randn(4, 65, 192))
    assert torch.equal(x[:2], noise[:2])
    assert t[:2].tolist() == [0, 0]
    assert not torch.equal(x[2:], noise[2:])
    assert not x.requires_grad


@pytest.mark.slow
def test_a_run_leaves_networks_that_give_meshes(shapes: Path, tmp_path: Path) -> None:
    store, held_out = stores(shapes)
    networks = Networks.of_checkpoint("demo")
    before = networks.vae.post_kl.weight.detach().clone()
    train_fields(store, held_out, networks, replace(RECIPE, free=0.5), tmp_path / "state", tmp_path / "weights", 2.0)
    assert not torch.equal(Networks.of_run(tmp_path / "weights").vae.post_kl.weight, before)
    assert (tmp_path / "state" / "log.jsonl").read_text().count("iou_1.5") == 1
    export_checkpoint(tmp_path / "weights", tmp_path / "checkpoint")
    result = Hunyuan3DShapePipeline.from_pretrained(tmp_path / "checkpoint")(
        [store["picture"][0, 0].numpy()], seeds=[0], octree_resolution=32, remove_background="never"
    )[0]
    assert result.mesh is not None


def test_without_shapes_the_command_says_how_to_draw_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["train_fields", "--work", str(tmp_path), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit):
        main()
    assert "training.make_data" in capsys.readouterr().err
