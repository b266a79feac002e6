"""The evaluation: measures with known answers, held-out pictures, tasks, and a whole run on the golden checkpoint."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image, ImageFont
from scipy import ndimage

from backend.errors import InvalidParameter, NoSurface
from backend.hunyuan3d.pipeline import Hunyuan3DShapePipeline
from backend.hunyuan3d.results import ShapeMetadata, ShapeResult
from training import held_out_images, metrics, report
from training.contact_sheet import TILE, Exhibit, draw_sheet, sheet_row, write_sheet
from training.dataset import ShapeDataset, write_shard
from training.evaluate import Choices, evaluate
from training.evaluate import main as evaluate_main
from training.held_out_images import EMOJI, EMOJI_FONT, GLYPHS, ROUND, FontNotFoundError, glyph_images
from training.scoring import Score, score, summarise
from training.tasks import (
    Solid,
    StaleDataError,
    Task,
    evenly,
    image_tasks,
    one_of_each,
    shape_tasks,
    span_if_round,
    true_shadow,
    true_surface,
)

HELD_OUT = 1_000_000_000
GOLDEN = Path(__file__).parent / "golden" / "tiny-2.1"


def box(low: tuple[float, float, float], high: tuple[float, float, float]) -> trimesh.Trimesh:
    return trimesh.creation.box(bounds=[low, high])


def ball(radius: float, subdivisions: int = 4) -> trimesh.Trimesh:
    return trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)


def inside_of(mesh: trimesh.Trimesh, cells: int = 64) -> metrics.Mask:
    return metrics.occupancy(mesh.vertices, mesh.faces, cells)


def result_of(mesh: trimesh.Trimesh) -> ShapeResult:
    return ShapeResult(mesh, None, ShapeMetadata("test", 1))


def task_of(shadow: metrics.Mask, span: float, solid: Solid | None = None) -> Task:
    return Task("ball", "balls", Image.new("RGBA", (8, 8)), shadow, span, solid)


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> ShapeDataset:
    folder = tmp_path_factory.mktemp("held-out")
    write_shard(folder, HELD_OUT, 3, occupancy=True)
    return ShapeDataset(folder)


def test_box_fills_exactly_the_cells_whose_centres_it_holds() -> None:
    found = inside_of(box((-0.5, -0.25, 0.1), (0.5, 0.75, 0.4)))
    axis = metrics.cell_centres(64)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    wanted = (abs(x) < 0.5) & (y > -0.25) & (y < 0.75) & (z > 0.1) & (z < 0.4)
    assert np.array_equal(found, wanted)


def test_edges_that_run_through_cell_centres_are_counted_once() -> None:
    axis = metrics.cell_centres(64)
    low, high = axis[10], axis[20]
    found = inside_of(box((low, low, -0.5), (high, high, 0.5)))
    columns = np.asarray(found.any(axis=2))
    assert columns[11:20, 11:20].all()
    assert columns.sum() == 100
    assert (found.sum(axis=2)[columns] == (abs(axis) < 0.5).sum()).all()


def test_ball_and_ring_have_the_volumes_of_their_formulas() -> None:
    cell = (2.02 / 64) ** 3
    assert inside_of(ball(0.9, 5)).sum() * cell == pytest.approx(4 / 3 * math.pi * 0.9**3, rel=0.005)
    notify = trimesh.creation.torus(0.6, 0.25, major_sections=96, minor_sections=64)
    filled = inside_of(notify)
    assert filled.sum() * cell == pytest.approx(2 * math.pi**2 * 0.6 * 0.25**2, rel=0.01)
    assert not filled[32, 32].any()


def test_a_hollow_inside_is_empty_and_overlapping_pieces_are_one_body() -> None:
    cavity = ball(0.4)
    cavity.invert()
    hollow = inside_of(trimesh.util.concatenate([ball(0.8), cavity]))
    assert not hollow[32, 32, 32]
    assert hollow[32, 32, 50]
    left, right = box((-0.8, -0.5, -0.5), (0.2, 0.5, 0.5)), box((-0.2, -0.5, -0.5), (0.8, 0.5, 0.5))
    whole = box((-0.8, -0.5, -0.5), (0.8, 0.5, 0.5))
    assert np.array_equal(inside_of(trimesh.util.concatenate([left, right])), inside_of(whole))


def test_meshes_outside_the_box_fill_nothing() -> None:
    assert not inside_of(box((2, 2, 2), (3, 3, 3))).any()
    assert not inside_of(box((-0.5, -0.5, 2), (0.5, 0.5, 3))).any()
    assert inside_of(box((-3, -3, -3), (3, 3, 3))).all()


def test_shadow_is_laid_out_as_the_image() -> None:
    mesh = box((0.1, 0.5, -0.2), (0.9, 0.9, 0.2))
    shadow = metrics.cast_shadow(mesh.vertices, mesh.faces, 100, 1.0)
    wanted = np.zeros((100, 100), np.bool_)
    wanted[5:25, 55:95] = True
    assert np.array_equal(shadow.mask, wanted)
    assert shadow.span == pytest.approx(0.4)


def test_span_ignores_tilt_and_hollows() -> None:
    solid = ball(0.8, 5)
    assert metrics.cast_shadow(solid.vertices, solid.faces, 112).span == pytest.approx(1.6 * 2 / 3, rel=0.01)
    assert metrics.mean_span(inside_of(solid)) == pytest.approx(1.6 * 2 / 3, rel=0.04)
    cavity = ball(0.7, 4)
    cavity.invert()
    hollow = trimesh.util.concatenate([solid, cavity])
    assert metrics.cast_shadow(hollow.vertices, hollow.faces, 112).span == pytest.approx(1.6 * 2 / 3, rel=0.01)
    plate = box((-0.8, -0.8, -0.05), (0.8, 0.8, 0.05))
    plate.apply_transform(trimesh.transformations.rotation_matrix(math.radians(25), [1, 0, 0]))
    assert metrics.extent(plate.vertices)[2] > 0.7
    assert metrics.cast_shadow(plate.vertices, plate.faces, 112).span < 0.12


def test_span_of_what_is_round_follows_from_its_silhouette() -> None:
    tall = ball(0.8, 5)
    tall.apply_scale([0.5, 1, 0.5])
    shadow = metrics.cast_shadow(tall.vertices, tall.faces, 224)
    assert metrics.round_span(shadow.mask, metrics.IMAGE_HALF_WIDTH) == pytest.approx(shadow.span, rel=0.01)
    assert metrics.round_span(shadow.mask.T, metrics.IMAGE_HALF_WIDTH) == pytest.approx(shadow.span, rel=0.01)
    assert span_if_round(inside_of(tall)) == pytest.approx(0.8 * 2 / 3, rel=0.06)
    assert span_if_round(inside_of(box((-0.8, -0.8, -0.2), (0.8, 0.8, 0.2)))) is None


def test_iou_counts_cells() -> None:
    left, right = np.zeros((4, 4), np.bool_), np.zeros((4, 4), np.bool_)
    left[:, :3], right[:, 1:] = True, True
    assert metrics.iou(left, right) == 0.5
    assert metrics.iou(left, ~left) == 0.0
    assert metrics.iou(np.zeros((2, 2), np.bool_), np.zeros((2, 2), np.bool_)) == 1.0
    with pytest.raises(ValueError, match="different shapes"):
        metrics.iou(left, right[:2])


def test_chamfer_is_the_mean_of_both_directions_unsquared() -> None:
    found = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    assert metrics.chamfer(found, found) == 0.0
    assert metrics.chamfer(found, found + np.array([0, 0.3, 0])) == pytest.approx(0.3)
    # There: 0 and 1, mean 0.5. Back: 0.
    assert metrics.chamfer(found, found[:1]) == pytest.approx(0.25)


def test_surface_points_lie_on_the_surface_in_proportion_to_area() -> None:
    mesh = box((0, 0, 0), (1, 1, 3))
    points = metrics.surface_points(mesh.vertices, mesh.faces, 20_000, np.random.default_rng(0))
    low, high = np.abs(points) < 1e-9, np.abs(points - [1, 1, 3]) < 1e-9
    assert (low | high).any(axis=1).all()
    assert (low | high)[:, 2].mean() == pytest.approx(2 / 14, abs=0.01)
    assert points[:, 0].mean() == pytest.approx(0.5, abs=0.01)


def test_depth_ratio_compares_depth_with_the_larger_side() -> None:
    assert metrics.depth_ratio(metrics.extent(np.array([[0, 0, 0], [1, 2, 0.5]]))) == 0.25


def test_the_true_mesh_scores_full_marks() -> None:
    mesh = ball(0.9, 5)
    surface = metrics.surface_points(mesh.vertices, mesh.faces, 10_000, np.random.default_rng(1))
    shadow = metrics.cast_shadow(mesh.vertices, mesh.faces, 112)
    task = Task(
        "ball",
        "balls",
        Image.new("RGBA", (8, 8)),
        shadow.mask,
        shadow.span,
        Solid(inside_of(mesh), surface, (1.8, 1.8, 1.8), metrics.steep_share(surface / 0.9)),
    )
    found = score(task, result_of(mesh))
    assert (found.iou, found.silhouette, found.fullness) == (1.0, 1.0, 1.0)
    assert found.side == 1.0
    assert found.true_steep == pytest.approx(math.sin(math.radians(3)), abs=0.01)
    assert found.steep == pytest.approx(found.true_steep, abs=0.01)
    assert (found.watertight, found.pieces, found.faces) == (True, 1, len(mesh.faces))
    assert found.true_depth == 1.0
    assert found.chamfer == pytest.approx(0.017, abs=0.003)


def test_flat_and_broken_meshes_are_distinguished_from_the_truth() -> None:
    whole = ball(0.9, 4)
    shadow = metrics.cast_shadow(whole.vertices, whole.faces, 112)
    task = task_of(shadow.mask, shadow.span)
    flat = whole.copy()
    flat.apply_scale([1, 1, 0.2])
    slab = score(task, result_of(flat))
    assert slab.silhouette == 1.0
    assert slab.fullness == pytest.approx(0.2)
    assert slab.iou is None
    assert slab.chamfer is None
    pieces = score(task, result_of(trimesh.util.concatenate([ball(0.3, 2), box((0.5, 0.5, 0.5), (0.9, 0.9, 0.9))])))
    assert pieces.pieces == 2
    assert pieces.watertight
    torn = score(task, result_of(trimesh.Trimesh(whole.vertices, whole.faces[1:], process=False)))
    assert not torn.watertight
    tower = score(task, result_of(box((-0.2, -0.2, -0.9), (0.2, 0.2, 0.9))))
    assert tower.steep == pytest.approx(0.9)
    summary = summarise([slab, pieces, torn])
    assert (summary.round_count, summary.slabs) == (3, 2)
    assert summary.one_piece == pytest.approx(2 / 3)
    assert summary.watertight == pytest.approx(2 / 3)
    assert math.isnan(summary.iou)


def test_a_image_without_a_mesh_scores_nothing() -> None:
    inside = inside_of(ball(0.9, 3))
    task = Task(
        "ball", "balls", Image.new("RGBA", (8, 8)), np.ones((8, 8), np.bool_), 1.2, Solid(inside, None, (1.8, 1.8, 1.8))
    )
    failed = score(task, ShapeResult(None, NoSurface(), ShapeMetadata("test", 1)))
    assert (failed.iou, failed.silhouette, failed.watertight, failed.pieces) == (0.0, 0.0, False, 0)
    assert failed.error == "NO_SURFACE"
    summary = summarise([failed, score(task, result_of(ball(0.9, 3)))])
    assert (summary.count, summary.failed, summary.iou, summary.one_piece) == (2, 1, 0.5, 0.5)
    assert summary.depth == pytest.approx(1.0, abs=0.01)


def test_shape_tasks_carry_what_was_stored(held_out: ShapeDataset) -> None:
    tasks = list(shape_tasks(held_out, range(len(held_out))))
    assert [task.name.split()[-1] for task in tasks] == [str(HELD_OUT + k) for k in range(3)]
    for row, task in enumerate(tasks):
        assert task.solid is not None
        assert task.solid.surface is not None
        assert np.array_equal(task.solid.inside, held_out.occupancy(np.array([row]))[0])
        low, high = task.solid.surface.min(axis=0), task.solid.surface.max(axis=0)
        assert max(high[0] - low[0], high[1] - low[1]) == pytest.approx(1.8, abs=0.03)
        # The picture's silhouette and the grid's are the same thing seen twice, at 112 and at 64 cells.
        grid = np.asarray(task.solid.inside.any(axis=2)).T[::-1]
        seen = np.asarray(Image.fromarray(task.shadow).resize((68, 68)))[2:66, 2:66]
        assert metrics.iou(np.ascontiguousarray(grid), seen) > 0.85
    sparse = next(shape_tasks(held_out, [0], dense=False))
    assert sparse.solid is not None
    assert sparse.solid.surface is None


def test_true_surfaces_differ_by_drawing_and_stale_data_are_refused(held_out: ShapeDataset) -> None:
    stored = np.asarray(held_out.column("surface", np.array([0]))[0, :, :3], np.float64)
    first, again, other = (true_surface(HELD_OUT, stored, draw) for draw in (0, 0, 1))
    assert np.array_equal(first, again)
    assert 0 < metrics.chamfer(first, other) < 0.02
    with pytest.raises(StaleDataError, match="make_data"):
        true_surface(HELD_OUT + 1, stored)


def test_held_out_images_are_many_and_named_once() -> None:
    names = [name for group in EMOJI.values() for name in group]
    texts = [text for group in EMOJI.values() for text in group.values()]
    assert 60 <= len(names) <= 85
    assert len(set(names)) == len(set(texts)) == len(names)
    assert set(names) >= ROUND
    assert len(set(GLYPHS)) == len(GLYPHS) == 20


def test_glyphs_are_single_pieces_in_the_middle_of_a_transparent_square() -> None:
    images = glyph_images()
    assert [image.name for image in images][:17] == list(GLYPHS[:17])
    assert images[-1].name == "black spade suit"
    for image in images:
        alpha = np.asarray(image.image)[..., 3]
        assert image.image.size == (160, 160)
        assert ndimage.label(alpha > 0, np.ones((3, 3)))[1] == 1
        rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
        assert 60 <= max(np.ptp(rows), np.ptp(columns)) <= 150
        assert rows[0] > 4
        assert rows[-1] < 155
    assert len({np.asarray(image.image).tobytes() for image in images}) == 20


def test_what_hangs_loose_from_a_glyph_is_left_out() -> None:
    font = ImageFont.truetype(held_out_images.glyph_font(), 100)
    stem = np.asarray(held_out_images.draw_glyph(font, "i", 140))[..., 3]
    plain = np.asarray(held_out_images.draw_glyph(font, "ı", 140))[..., 3]
    assert ndimage.label(stem > 0)[1] == 1
    assert (stem > 0).sum() == pytest.approx((plain > 0).sum(), rel=0.02)
    with pytest.raises(FontNotFoundError, match="no picture"):
        held_out_images.draw_glyph(font, " ", 140)


def test_image_silhouettes_lie_where_their_meshes_should() -> None:
    for task in image_tasks(glyph_images()[:4]):
        rows, columns = np.flatnonzero(task.shadow.any(1)), np.flatnonzero(task.shadow.any(0))
        assert task.shadow.shape == (160, 160)
        assert max(np.ptp(rows), np.ptp(columns)) + 1 == pytest.approx(136, abs=1)
        for lit in (rows, columns):
            assert lit[0] + lit[-1] == pytest.approx(159, abs=1)
        assert task.span is None


def test_the_silhouette_of_a_picture_that_is_not_square_lies_about_the_origin() -> None:
    alpha = np.zeros((50, 120), np.uint8)
    # 60 wide and 30 high: 1.8 and 0.9 in world units, of which 120 pixels are 2.12.
    alpha[5:35, 7:67] = 255
    shadow = true_shadow(alpha)
    assert shadow.shape == (120, 120)
    expected = np.zeros((120, 120), bool)
    expected[34:85, 9:111] = True
    assert np.logical_xor(shadow, expected).sum() <= 51 + 102


def test_a_missing_emoji_font_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(FontNotFoundError, match="fonts-noto-color-emoji"):
        held_out_images.emoji_font(tmp_path / "cache", root=tmp_path)
    kept = tmp_path / "cache" / EMOJI_FONT
    kept.parent.mkdir(parents=True)
    kept.write_bytes(held_out_images.glyph_font().read_bytes())
    assert held_out_images.emoji_font(tmp_path / "cache", root=tmp_path) == kept


def test_a_failing_download_of_the_emoji_font_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = tmp_path / "apt-get"
    refusing.write_text("#!/bin/sh\necho 'no such package here' >&2\nexit 100\n")
    refusing.chmod(0o755)
    monkeypatch.setattr("shutil.which", lambda _: str(refusing))
    with pytest.raises(FontNotFoundError, match="no such package here"):
        held_out_images.emoji_font(tmp_path / "cache", root=tmp_path)


def test_choices_are_spread_and_every_kind_is_shown() -> None:
    assert evenly(101, 3) == [0, 50, 100]
    assert evenly(3, 24) == [0, 1, 2]
    assert one_of_each([5, 5, 5, 2, 5, 9], 4) == [0, 1, 3, 5]
    assert one_of_each([1, 2, 3], 2) == [0, 1]


@pytest.mark.parametrize(("batch", "seed"), [(0, 0), (4, -1)])
def test_impossible_choices_are_refused(batch: int, seed: int) -> None:
    with pytest.raises(ValueError, match="at least"):
        Choices(batch_size=batch, seed=seed)


def test_shares_are_never_rounded_up_to_all() -> None:
    assert report.share(1.0) == "100 %"
    assert report.share(0.9999) == "99.9 %"
    assert report.share(math.nan) == "—"
    assert report.number(None) == "—"
    assert report.number(0.12345) == "0.123"


def test_groups_are_summarised_apart_and_together() -> None:
    scores = [Score("a", "x", 0.5, True, 1), Score("b", "y", 1.0, True, 1), Score("c", "x", 0.7, False, 2)]
    found = {name: (summary.count, round(summary.silhouette, 6)) for name, summary in report.grouped(scores)}
    assert found == {"x": (2, 0.6), "y": (1, 1.0), "**all**": (3, round(2.2 / 3, 6))}


def test_contact_sheet_shows_images_beside_meshes(tmp_path: Path) -> None:
    image = Image.new("RGBA", (112, 112), (255, 0, 0, 255))
    made, failed = Exhibit("ball", image, ball(0.9, 2)), Exhibit("nothing", image, None)
    views = sheet_row(made).views
    assert [view.size for view in views] == [(TILE, TILE)] * 3
    assert np.asarray(views[0])[TILE // 2, TILE // 2].max() < 235
    assert (len(sheet_row(failed).views), sheet_row(failed).problem) == (0, "no mesh")
    one, four = draw_sheet([made]), draw_sheet([made, failed] * 2)
    assert four.width > 3 * one.width
    assert four.height > one.height + TILE
    write_sheet([made, failed], tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as written:
        assert (written.mode, written.height) == ("RGB", one.height)
    with pytest.raises(InvalidParameter, match="at least one row"):
        draw_sheet([])


@pytest.mark.slow
def test_a_whole_evaluation_writes_its_page(held_out: ShapeDataset, tmp_path: Path) -> None:
    pipeline = Hunyuan3DShapePipeline.from_pretrained(GOLDEN, device="cpu")
    choices = Choices(num_inference_steps=2, guidance_scale=1.0, octree_resolution=16, batch_size=2)
    results = evaluate(pipeline, held_out, glyph_images()[:3], choices, vae_iou=0.91)
    assert [len(run.scores) for run in (results.shapes, results.images)] == [3, 3]
    assert [len(run.exhibits) for run in (results.shapes, results.images)] == [3, 3]
    assert len(results.shapes.stages) == 2
    assert results.shapes.seconds_per_image > 0
    assert 0 < results.chamfer_floor < 0.02
    alone = evaluate(
        pipeline,
        held_out,
        glyph_images()[:3],
        Choices(num_inference_steps=2, guidance_scale=1.0, octree_resolution=16, batch_size=1),
    )
    for one, many in zip(alone.shapes.scores, results.shapes.scores, strict=True):
        assert one.iou == pytest.approx(many.iou, abs=0.01)
    assert results.plain is None, "the golden checkpoint's shapes follow no outline"
    report.write_results(results, tmp_path)
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert "| IoU, held-out shapes | ≥ 0.85 |" in page
    assert "| IoU of the VAE alone, given the true surface | — | 0.910 |" in page
    assert "Steps 2, guidance 1, resolution 16" in page
    assert (tmp_path / "contact_sheet.png").stat().st_size < 3_000_000


def test_the_outline_is_compared_with_none() -> None:
    scores = (Score("a", "x", 0.9, True, 1, iou=0.7, side=0.8, steep=0.04, true_steep=0.03),)
    runs = report.Run(scores, ()), report.Run((replace(scores[0], silhouette=0.5),), ())
    plain = report.Plain((replace(scores[0], silhouette=0.6),), (replace(scores[0], silhouette=0.4),))
    results = report.Results(
        "demo",
        date(2026, 1, 1),
        "here",
        10,
        2.0,
        96,
        1,
        0,
        *runs,
        sweep=(),
        chamfer_floor=0.01,
        vae_iou=None,
        plain=plain,
    )
    section = report.outline_section(results, plain)
    assert "| 1 shapes | auto | 0.700 | 0.900 | 0.900 | 0.800 | 4.0 % |" in section
    assert "| 1 pictures | off | 0.700 | 0.400 |" in section
    assert "3.0 % of the true shapes'" in section


def test_a_sweep_reports_every_pair_of_steps_and_guidance(
    held_out: ShapeDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.evaluate.SWEEP_STEPS", (1, 2))
    monkeypatch.setattr("training.evaluate.SWEEP_GUIDANCE", (1.0, 2.0))
    pipeline = Hunyuan3DShapePipeline.from_pretrained(GOLDEN, device="cpu")
    results = evaluate(pipeline, held_out, glyph_images()[:2], Choices(octree_resolution=16), limit=1, with_sweep=True)
    assert [(row.num_inference_steps, row.guidance_scale) for row in results.sweep] == [
        (1, 1.0),
        (1, 2.0),
        (2, 1.0),
        (2, 2.0),
    ]
    assert "## Steps and guidance\n\nOn 1 of the shapes and 1 of the pictures." in report.page(results)


def test_no_held_out_shapes_is_an_error(tmp_path: Path) -> None:
    pipeline = Hunyuan3DShapePipeline.from_pretrained(GOLDEN, device="cpu")
    with pytest.raises(FileNotFoundError, match=r"training\.make_data"):
        evaluate(pipeline, ShapeDataset(tmp_path), glyph_images()[:1], Choices())


def test_the_command_line_needs_a_checkpoint_and_data(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        evaluate_main([])
    assert stopped.value.code == 2
    assert "--checkpoint" in capsys.readouterr().err
