"""The training of the network that cuts objects out: composites, a run that goes on, weights that the service reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from backend.hunyuan3d.image.cutout_network import CutoutNetwork, object_probability
from training.cutout import objects
from training.cutout.composites import draw_composite
from training.cutout.network import CutoutNetwork as TrainedNetwork
from training.cutout.objects import ObjectPictures, render_figures, render_objects
from training.cutout.train_cutout import HELD_OUT_FIRST_SEED, Composites, Recipe, Trainer, export_weights, mask_loss

TINY = Recipe(stages=((0.5, 64), (1.0, 128)), batch=2, minutes=1e-9, evaluate_every=1000, held_out=2, held_out_side=64)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw a few objects: two shapes and eight figures."""
    folder = tmp_path_factory.mktemp("objects")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objects, "SHARD", 2)
        render_objects(folder, 2)
        render_figures(folder, 8)
    return folder


def test_finished_objects_are_not_drawn_again(pictures: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in pictures.iterdir()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objects, "SHARD", 2)
        render_objects(pictures, 2)
        render_figures(pictures, 8)
    assert {path: path.stat().st_mtime_ns for path in pictures.iterdir()} == before
    assert ObjectPictures(pictures).refresh() == 2 * 2 + 8


def test_a_folder_without_objects_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no pictures of objects"):
        ObjectPictures(tmp_path)


def test_composites_are_functions_of_their_seeds(pictures: Path) -> None:
    known = ObjectPictures(pictures)
    drawn = [draw_composite(seed, known, 64) for seed in range(40)]
    again = draw_composite(7, known, 64)
    np.testing.assert_array_equal(again.image, drawn[7].image)
    np.testing.assert_array_equal(again.mask, drawn[7].mask)
    assert len({composite.image.tobytes() for composite in drawn}) == 40
    for composite in drawn:
        assert composite.image.shape == (64, 64, 3)
        assert composite.image.dtype == np.uint8
        assert 0 <= composite.mask.min() <= composite.mask.max() <= 1
    # An object that the border cuts may hardly be seen; the others are.
    assert sum(composite.mask.max() > 0.5 for composite in drawn) >= 36
    assert np.mean([composite.mask.mean() for composite in drawn]) < 0.5


def test_training_sees_no_held_out_composite(pictures: Path) -> None:
    first = next(iter(Composites(pictures, 64, 0)))
    held_out = next(iter(Composites(pictures, 64, HELD_OUT_FIRST_SEED)))
    assert not torch.equal(first[0], held_out[0])


def test_the_loss_is_least_where_the_mask_is_right_and_learnt(pictures: Path) -> None:
    torch.manual_seed(0)
    pairs = [next(iter(Composites(pictures, 64, seed))) for seed in range(4)]
    image = torch.stack([pair[0] for pair in pairs]).float() / 255
    mask = (torch.stack([pair[1] for pair in pairs])[:, None] > 127).float()
    assert mask_loss(40 * (mask - 0.5), mask) < 0.01 < mask_loss(torch.zeros_like(mask), mask)

    network = TrainedNetwork()
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        loss = mask_loss(network(image), mask)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        losses.append(float(loss.detach()))
    assert min(losses[-3:]) < 0.8 * losses[0]


def test_a_run_goes_on_from_its_state_and_its_weights_are_read(pictures: Path, tmp_path: Path) -> None:
    Trainer(pictures, tmp_path, TINY).run()
    # Subnormal numbers are there again: whoever works in this thread next may need them.
    assert (np.array([1e-40], np.float32) * np.float32(1))[0] > 0
    stopped = torch.load(tmp_path / "state.pt", weights_only=True)
    longer = Recipe(**{**vars(TINY), "minutes": 2.2 * stopped["minutes"]})
    trainer = Trainer(pictures, tmp_path, longer)
    assert (trainer.step, trainer.minutes) == (1, stopped["minutes"])
    assert torch.equal(trainer.network.state_dict()["head.weight"], stopped["network"]["head.weight"])
    trainer.run()
    assert trainer.step >= 2

    export_weights(tmp_path / "state.pt", tmp_path / "out" / "weights.safetensors")
    weights = load_file(tmp_path / "out" / "weights.safetensors")
    assert {value.dtype for value in weights.values()} == {np.dtype(np.float16)}
    odds = object_probability(np.zeros((50, 70, 3), np.uint8), CutoutNetwork(weights))
    assert odds is not None
    assert odds.shape == (50, 70)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "iou" in line] == [1, trainer.step]
