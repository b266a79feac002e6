"""The training of the network that cuts objects out: pictures, composites, a run that goes on, its weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import Tensor
from torch.nn import functional as F

from backend.hunyuan3d.image.cutout_network import WEIGHTS, CutoutNetwork, look
from training.cutout import train_cutout
from training.cutout.bank import Bank
from training.cutout.camera import blur, jpeg
from training.cutout.colour import greyed, mixed, permutation
from training.cutout.composites import Composites, draw_composites
from training.cutout.dice import Dice
from training.cutout.echo import Echo, Pool, centres_of, moved
from training.cutout.frames import framed
from training.cutout.network import CutoutNetwork as TrainedNetwork
from training.cutout.network import folded, unfolded
from training.cutout.pictures import OBJECT_SIDE, Wanted, draw_shards, main, start_workers
from training.cutout.shadows import shadowed, stand_of
from training.cutout.train_cutout import (
    Recipe,
    Trainer,
    draw_held_out,
    export_weights,
    mask_loss,
    overlaps,
    wait_for_pictures,
)
from training.shapes.generator import HELD_OUT_FIRST_SEED

CPU = torch.device("cpu")
FEW = Wanted(shapes=2, figures=10, surfaces=8, writing=4)
TINY = Recipe(stages=((0.5, (64,)), (1.0, (128,))), batch=1, minutes=1e-9, held_out=4, held_out_side=64)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw a few of every kind of picture."""
    folder = tmp_path_factory.mktemp("pictures")
    list(draw_shards(folder, FEW))
    return folder


@pytest.fixture(scope="module")
def bank(pictures: Path) -> Bank:
    """Read them."""
    return Bank(pictures, CPU, most_objects=20, most_surfaces=8)


def test_finished_pictures_are_not_drawn_again(pictures: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in pictures.iterdir()}
    main(["--out", str(pictures), "--shapes=2", "--figures=10", "--surfaces=8", "--writing=4"])
    assert {path: path.stat().st_mtime_ns for path in pictures.iterdir()} == before


def test_workers_share_what_is_wanted_and_draw_the_same_as_one_does(pictures: Path, tmp_path: Path) -> None:
    shared = [list(draw_shards(tmp_path / "shared", FEW, worker, 2)) for worker in range(2)]
    names = [path.name for paths in shared for path in paths]
    assert sorted(names) == sorted(path.name for path in pictures.iterdir())
    for path in pictures.iterdir():
        np.testing.assert_array_equal(np.load(path), np.load(tmp_path / "shared" / path.name))


def test_workers_end_by_themselves(tmp_path: Path) -> None:
    workers = start_workers(tmp_path, Wanted(shapes=0, figures=0, surfaces=0, writing=4), 1)
    assert [worker.wait(60) for worker in workers] == [0]
    with pytest.raises(RuntimeError, match="no pictures of objects"):
        wait_for_pictures(Bank(tmp_path, CPU, 4, 4), workers)
    assert [path.name for path in tmp_path.iterdir()] == ["writing-0000000000.npy"]


def test_objects_fill_their_pictures_and_are_not_square(bank: Bank) -> None:
    assert (bank.count("objects"), bank.count("surfaces"), bank.count("writing")) == (2 * 3 + 10, 8, 4)
    objects, reach = bank.objects(torch.arange(bank.count("objects")))
    assert objects.shape[1:] == (4, OBJECT_SIDE, OBJECT_SIDE)
    # Thin ends count less than half.
    assert bool((reach.amax(1) > 0.85).all())
    assert float(objects[:, 3, [0, -1]].max()) == 0
    # Colours go on a little beyond the edge: white, which shapes are rendered on, would be a rim about every object.
    edge = (objects[:, 3] > 0.3) & (objects[:, 3] < 0.7)
    assert float((objects[:, :3].amin(1)[edge] > 0.97).float().mean()) < 0.2


def test_the_oldest_pictures_give_way(pictures: Path) -> None:
    small = Bank(pictures, CPU, most_objects=7, most_surfaces=3)
    assert (small.count("objects"), small.count("surfaces")) == (7, 3)
    assert float(small.objects(torch.arange(7))[0][:, 3].amax((1, 2)).min()) > 0.9


def test_a_shard_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "surfaces-0000000000.npy").write_bytes(b"cut off")
    assert Bank(tmp_path, CPU, 1, 1).count("surfaces") == 0


def test_composites_are_functions_of_their_seeds(bank: Bank) -> None:
    drawn = draw_composites(7, bank, 40, 64)
    again = draw_composites(7, bank, 40, 64)
    assert torch.equal(again.image, drawn.image)
    assert torch.equal(again.mask, drawn.mask)
    assert len({image.numpy().tobytes() for image in drawn.image}) == 40
    assert drawn.image.shape == (40, 3, 64, 64)
    assert drawn.mask.shape == (40, 1, 64, 64)
    assert torch.equal(torch.round(drawn.image * 255) / 255, drawn.image)
    assert 0 <= float(drawn.image.min()) <= float(drawn.image.max()) <= 1
    assert 0 <= float(drawn.mask.min()) <= float(drawn.mask.max()) <= 1
    # An object that the border cuts may hardly be seen; the others are.
    assert int((drawn.mask.amax((1, 2, 3)) > 0.5).sum()) >= 36
    assert 0.05 < float(drawn.mask.mean()) < 0.5


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_batches_of_hardly_any_pictures_are_drawn(bank: Bank, batch: int) -> None:
    for seed in range(10):
        drawn = draw_composites(seed, bank, batch, 64)
        assert torch.isfinite(drawn.image).all()
        assert len(drawn.mask) == batch


def test_a_blur_is_as_wide_as_each_picture_asks() -> None:
    dots = torch.zeros(2, 1, 65, 65)
    dots[:, :, 32, 32] = 1
    found = blur(dots, torch.tensor([1.0, 4.0]).reshape(2, 1, 1, 1))
    place = torch.arange(65.0) - 32
    spreads = (found.sum((1, 2)) * place**2).sum(1).sqrt()
    np.testing.assert_allclose(spreads, [1, 4], rtol=0.02)
    np.testing.assert_allclose(found.sum((1, 2, 3)), [1, 1], rtol=1e-3)


def test_a_jpeg_loses_detail_and_keeps_the_picture() -> None:
    image = F.interpolate(torch.rand(4, 3, 8, 8), (64, 64), mode="bicubic").clamp(0, 1)
    coded = jpeg(Dice(0, 4, CPU), image)
    assert 0.001 < float((coded - image).abs().mean()) < 0.1
    even = torch.full((4, 3, 64, 64), 0.4)
    np.testing.assert_allclose(jpeg(Dice(0, 4, CPU), even), even, atol=0.03)


def test_shadows_darken_the_ground_near_the_foot_alone() -> None:
    alpha = torch.zeros(60, 1, 64, 64)
    alpha[:, :, 20:40, 24:40] = 1
    stands = stand_of(alpha)
    np.testing.assert_allclose(stands.foot.flatten(), (2 * 39.5 + 0) / 64 - 1, atol=0.02)
    np.testing.assert_allclose(stands.half.flatten(), 0.25, atol=0.02)
    white = torch.ones(60, 3, 64, 64)
    found = shadowed(Dice(1, 60, CPU), white, alpha, stands, torch.ones(60, 1, 1, 1, dtype=torch.bool))
    assert float(found.max()) <= 1.02
    assert float(found.min()) >= 0
    dark = (1 - found).mean((0, 1))
    assert float(dark[40:46, 24:40].mean()) > 4 * float(dark[:8].mean())


def test_frames_are_never_part_of_the_mask() -> None:
    image, mask = torch.rand(50, 3, 64, 64), torch.ones(50, 1, 64, 64)
    laid, left = framed(Dice(2, 50, CPU), image, mask)
    assert ((left < 0.5).flatten(1).any(1)).all()
    whole = (left == 1).expand_as(laid)
    assert float(left.mean()) > 0.3
    assert bool(whole.any())


def test_training_sees_no_held_out_composite(bank: Bank, tmp_path: Path) -> None:
    held_out = draw_held_out(tmp_path, TINY, CPU, Wanted(1, 3, 3, 3, HELD_OUT_FIRST_SEED))
    assert sum(len(held.mask) for held in held_out) == TINY.held_out
    assert {path.stem.partition("-")[2] for path in tmp_path.iterdir()} == {str(HELD_OUT_FIRST_SEED)}
    assert not torch.equal(held_out[0].image, draw_composites(0, bank, 4, 64).image)


@pytest.mark.parametrize("seed", [-1, HELD_OUT_FIRST_SEED - 1, HELD_OUT_FIRST_SEED + 3])
def test_training_does_not_begin_at_a_held_out_seed(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        train_cutout.main([f"--work={tmp_path / 'work'}", f"--first-seed={seed}"])
    assert f"must be 0 to {HELD_OUT_FIRST_SEED - 2}" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


def test_the_loss_is_least_where_the_mask_is_right_and_learnt(bank: Bank) -> None:
    torch.manual_seed(0)
    drawn = draw_composites(3, bank, 4, 64)
    mask = (drawn.mask > 0.5).float()
    assert mask_loss(40 * (mask - 0.5), mask) < 0.01 < mask_loss(torch.zeros_like(mask), mask)
    np.testing.assert_allclose(overlaps(mask - 0.5, mask), 1)
    network = TrainedNetwork()
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        loss = mask_loss(network(drawn.image)[0], mask)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        losses.append(float(loss.detach()))
    assert min(losses[-3:]) < 0.8 * losses[0]


def test_a_step_whose_gradients_are_not_finite_changes_nothing(bank: Bank, tmp_path: Path) -> None:
    trainer = Trainer(bank, [], tmp_path, TINY)
    before = {name: value.clone() for name, value in trainer.network.named_parameters()}
    trainer._learn(torch.full((2, 3, 64, 64), float("nan")), torch.zeros(2, 1, 64, 64))
    assert (trainer.step, float(trainer.skipped)) == (1, 1)
    assert all(torch.equal(value, before[name]) for name, value in trainer.network.named_parameters())


def test_a_device_skips_a_step_by_itself(bank: Bank, tmp_path: Path) -> None:
    trainer = Trainer(bank, [], tmp_path, TINY)
    good = torch.rand(2, 3, 64, 64), torch.zeros(2, 1, 64, 64)
    for image, changed in ((good[0], True), (torch.full_like(good[0], float("nan")), False)):
        before = trainer.network.head.weight.detach().clone()
        trainer._learn(image, good[1])
        assert torch.equal(trainer.network.head.weight, before) is not changed
    assert (trainer.step, float(trainer.skipped)) == (2, 1)


def test_a_step_that_cannot_be_compiled_is_taken_without(
    bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def compiled(_function: object, **_options: object) -> Callable[..., Tensor]:
        def fails(*_arguments: object) -> Tensor:
            raise RuntimeError("no compiler")

        return fails

    monkeypatch.setattr(torch, "compile", compiled)
    trainer = Trainer(bank, [], tmp_path, replace(TINY, compiled=True))
    for _ in range(2):
        trainer._learn(*trainer._next())
    assert (trainer.step, float(trainer.skipped)) == (2, 0)
    assert capsys.readouterr().out.count("no compiler") == 1


def test_without_echo_every_step_learns_from_composites_of_its_own(bank: Bank, tmp_path: Path) -> None:
    image, mask = Trainer(bank, [], tmp_path, TINY)._next()
    drawn = draw_composites(0, bank, 16, 64)
    assert torch.equal(image, drawn.image)
    assert torch.equal(mask, drawn.mask)


def test_a_run_that_goes_on_from_anothers_weights_learns_from_other_composites(bank: Bank, tmp_path: Path) -> None:
    for echo in (1, 2):
        first, other = (
            Trainer(bank, [], tmp_path / f"{echo}-{seed}", replace(TINY, echo=echo, first_seed=seed))._next()
            for seed in (0, 7)
        )
        assert not torch.equal(first[0], other[0])


def test_composites_are_drawn_as_often_as_they_are_owed_and_the_oldest_give_way(bank: Bank, tmp_path: Path) -> None:
    drawn: list[tuple[int, int, int]] = []

    def draw(seed: int, batch: int, side: int) -> Composites:
        drawn.append((seed, batch, side))
        return draw_composites(seed, bank, batch, side)

    # Of 64 pixels there are 16 times as many as of 256.
    echo = Echo(draw, times=4, drawn=1, room=2)
    for seed in range(20):
        found = echo.next(seed, 8, 64, CPU)
        assert found.image.shape == (8, 3, 64, 64)
        assert found.mask.shape == (8, 1, 64, 64)
    assert abs(sum(batch for _, batch, _ in drawn) - 20 * 8 / 4) <= 16
    assert len({seed for seed, _, _ in drawn}) == len(drawn)
    assert echo._pools[64].count == 32
    trainer = Trainer(bank, [], tmp_path, replace(TINY, echo=3, pool=4))
    assert torch.isfinite(trainer._learn(*trainer._next()))


def test_masks_follow_their_pictures() -> None:
    mask = torch.zeros(40, 1, 64, 64)
    mask[:, :, 8:24, 30:60] = 1
    pool = Pool(24, 64, CPU)
    pool.add(Composites(mask.expand(-1, 3, -1, -1), mask))
    assert pool.count == 24
    values = torch.cat([mask.expand(-1, 3, -1, -1), mask], 1)
    found = moved(Dice(3, 40, CPU), values, centres_of(mask))
    np.testing.assert_allclose(found[:, :3], found[:, 3:].expand(-1, 3, -1, -1), atol=1e-6)
    assert len({picture.numpy().tobytes() for picture in found}) > 30
    # What is cropped has the object, or half of it, in it still.
    assert float((found[:, 3] > 0.5).flatten(1).sum(1).min()) > 16 * 30 / 3
    again = pool.draw(5, 40)
    inside = (again.image * (again.mask > 0.9)).sum((1, 2, 3)) / (again.mask > 0.9).sum((1, 2, 3))
    outside = (again.image * (again.mask < 0.1)).sum((1, 2, 3)) / (again.mask < 0.1).sum((1, 2, 3))
    assert bool((inside > 2 * outside).all())
    assert len({picture.numpy().tobytes() for picture in again.image}) == 40


def test_a_turned_picture_shows_nothing_from_beyond_its_border() -> None:
    # Ramps stay ramps. Where they were mirrored at the border they would bend, and a cut object get a mirror image.
    side, count = 64, 200
    along = (torch.arange(side) + 0.5) / side
    ramps = torch.stack([along.expand(side, side), along[:, None].expand(side, side)]).expand(count, 2, side, side)
    found = moved(Dice(4, count, CPU), ramps, torch.zeros(count, 2))
    turned = (found[:, 0, 8] - found[:, 0, -9]).abs().amax(-1) > 0.02
    assert 20 < int(turned.sum()) < 180
    step = found[:, :, side // 2, side // 2 + 1] - found[:, :, side // 2, side // 2]
    across = step[..., None, None] * (torch.arange(side) - side // 2)
    bent = found - found[..., side // 2 : side // 2 + 1] - across
    assert float(bent.abs().max()) < 1 / side


def test_colours_are_mixed_about_their_mean() -> None:
    image, dice = torch.rand(20, 3, 16, 16), Dice(0, 20, CPU)
    grey = mixed(image, greyed(permutation(dice, 0.5), torch.zeros(20, 1, 1, 1)))
    np.testing.assert_allclose(grey, image.mean(1, keepdim=True).expand_as(image), atol=1e-5)
    order = permutation(dice, 1.0)
    swapped = mixed(image, order)
    np.testing.assert_allclose(swapped.sort(1).values, image.sort(1).values, atol=1e-6)
    assert len({tuple(row.flatten().tolist()) for row in order}) > 2
    half = mixed(image, order, torch.full((20, 1, 1, 1), 0.5), torch.full((20, 3, 1, 1), 2.0))
    mean = swapped.mean((2, 3), keepdim=True)
    np.testing.assert_allclose(half, 2 * (mean + (swapped - mean) / 2), atol=1e-5)


def test_a_run_goes_on_from_its_state_and_its_weights_are_read(bank: Bank, tmp_path: Path) -> None:
    held_out: list[Composites] = [draw_composites(1, bank, 2, 64)]
    Trainer(bank, held_out, tmp_path, TINY).run()
    # Subnormal numbers are there again: whoever works in this thread next may need them.
    assert (np.array([1e-40], np.float32) * np.float32(1))[0] > 0
    stopped = torch.load(tmp_path / "state.pt", weights_only=True)
    longer = Recipe(**{**vars(TINY), "minutes": 2.2 * stopped["minutes"]})
    trainer = Trainer(bank, held_out, tmp_path, longer)
    assert (trainer.step, trainer.minutes) == (1, stopped["minutes"])
    assert torch.equal(trainer.network.state_dict()["head.weight"], stopped["network"]["head.weight"])
    trainer.run()
    assert trainer.step >= 2
    export_weights(tmp_path / "average.pt", tmp_path / "out" / "weights.safetensors")
    weights = load_file(tmp_path / "out" / "weights.safetensors")
    assert {value.dtype for value in weights.values()} == {np.dtype(np.float16)}
    sight = look(np.zeros((50, 70, 3), np.uint8), CutoutNetwork(weights))
    assert sight is not None
    assert sight.odds.shape == (50, 70)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "iou" in line] == [1, trainer.step]


def test_the_weights_of_the_service_can_go_on_learning(bank: Bank, tmp_path: Path) -> None:
    seen = draw_composites(5, bank, 12, 64).image
    weights = load_file(WEIGHTS)
    network = unfolded(weights, seen)
    assert network.training
    again = folded(network)
    assert again.keys() == weights.keys()
    for name, value in weights.items():
        np.testing.assert_allclose(again[name].astype(np.float32), value, rtol=3e-3, atol=3e-3, err_msg=name)
    # With the statistics of what they were measured on, training and use see the same.
    with torch.no_grad():
        learning = network(seen)[0]
        used = network.eval()(seen)[0]
    np.testing.assert_allclose(learning, used, atol=0.05)
    trainer = Trainer(bank, [], tmp_path, TINY, WEIGHTS)
    assert torch.equal(trainer.network.head.weight[:, :, 0, 0].T, torch.from_numpy(weights["head.kernel"]).float())
