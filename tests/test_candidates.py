"""Ordinary photographs: each kind that once went wrong is right now, refused with its reason, or spoken of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from backend.errors import NoForeground
from backend.hunyuan3d.image import candidates, cutout_network
from backend.hunyuan3d.image.backdrop import Found, flood_lab, smooth_lab
from backend.hunyuan3d.image.background import BackgroundResult, remove_background
from backend.hunyuan3d.image.candidates import Candidate, _leaves_some_out, best_cut, filled
from backend.hunyuan3d.image.cutout_network import Sight
from backend.hunyuan3d.image.doubts import DOUBTFUL
from backend.hunyuan3d.image.frames import peel
from backend.hunyuan3d.image.horizon import find_horizon, flatten
from backend.hunyuan3d.image.judgement import Scene, Signs, measure
from backend.hunyuan3d.image.open_image import open_image
from backend.hunyuan3d.image.regions import Mask
from backend.hunyuan3d.image.shadows import without_baked_shadow
from backend.limits import ObjectChoice
from benchmarks.support.images import DRAWINGS, mask_iou

PHOTOGRAPHS = Path(__file__).parent / "photographs"
SAMPLES = Path(__file__).parents[1] / "samples"


@dataclass(frozen=True)
class Case:
    """A photograph: points (x, y), shares of its sides, on the object and beside it, and what is said of it."""

    name: str
    on: tuple[tuple[float, float], ...]
    beside: tuple[tuple[float, float], ...]
    warnings: tuple[str, ...] = ()
    objects: ObjectChoice = "all"


MUG = ((0.5, 0.4), (0.5, 0.55), (0.45, 0.72))
RIGHT = (
    Case("05c_hard_shadow", MUG, ((0.5, 0.93), (0.75, 0.86), (0.1, 0.1), (0.68, 0.46))),
    Case("06_table_wall_brown", MUG, ((0.1, 0.9), (0.9, 0.9), (0.1, 0.1), (0.7, 0.85))),
    Case("12b_alpha_with_baked_shadow", MUG, ((0.5, 0.88), (0.8, 0.85), (0.1, 0.1))),
    Case("14_wide_pencil", ((0.1, 0.5), (0.5, 0.5), (0.9, 0.5)), ((0.5, 0.05), (0.02, 0.95))),
    Case("16c_digit_8", ((0.5, 0.5), (0.35, 0.4)), ((0.5, 0.38), (0.5, 0.63), (0.1, 0.1))),
    Case("23_black_border_line", ((0.4, 0.4), (0.84, 0.5)), ((0.002, 0.5), (0.5, 0.002), (0.998, 0.998), (0.75, 0.5))),
    Case("28_reflection", ((0.45, 0.3), (0.45, 0.55)), ((0.45, 0.75), (0.45, 0.9), (0.1, 0.1))),
    Case("39_mug_from_above_30deg", ((0.4, 0.6),), ((0.02, 0.02),)),
)
SPOKEN_OF = (
    Case("07_cut_by_bottom", ((0.5, 0.2), (0.5, 0.8)), ((0.1, 0.1), (0.9, 0.5)), ("OBJECT_TOUCHES_BORDER",)),
    Case("08_two_objects", ((0.2, 0.5), (0.85, 0.55)), ((0.5, 0.5),), ("SEVERAL_OBJECTS",)),
    Case("08c_turnaround_sheet", ((0.17, 0.6), (0.8, 0.6)), ((0.35, 0.5),), ("SEVERAL_OBJECTS",)),
    Case("25_caption_badge", ((0.5, 0.55),), ((0.87, 0.1), (0.1, 0.1))),
    Case("25_caption_badge", ((0.5, 0.55),), ((0.87, 0.1), (0.47, 0.92)), (), "largest"),
    Case("08_two_objects", ((0.2, 0.5),), ((0.85, 0.55),), (), "largest"),
)


def cut(name: str, objects: ObjectChoice = "all") -> BackgroundResult:
    return remove_background(open_image(PHOTOGRAPHS / f"{name}.webp"), objects=objects, cutter=None)


@pytest.mark.parametrize("case", [*RIGHT, *SPOKEN_OF], ids=lambda case: f"{case.name}-{case.objects}")
def test_a_photograph_is_cut_out_right_and_spoken_of(case: Case) -> None:
    result = cut(case.name, case.objects)
    alpha = np.asarray(result.image)[..., 3]
    h, w = alpha.shape
    assert [int(alpha[int(y * h), int(x * w)]) for x, y in case.on] == [255] * len(case.on)
    assert [int(alpha[int(y * h), int(x * w)]) for x, y in case.beside] == [0] * len(case.beside)
    assert set(case.warnings) <= {remark.code for remark in result.remarks}
    if case in RIGHT:
        assert result.remarks == ()


def test_a_dark_part_between_an_objects_feet_is_no_shadow() -> None:
    """From afar the network takes the nozzle of samples/rocket.png for one."""
    alpha = np.asarray(remove_background(open_image(SAMPLES / "rocket.png"), cutter=None).image)[..., 3]
    assert (alpha[426:440, 232:276] > 200).all()
    # Its true shadow, to the left and right.
    assert alpha[448:458, 170:205].max() == 0
    assert alpha[428:436, 390:440].max() == 0


def test_how_many_objects_there_are_is_said() -> None:
    assert [cut(name).objects for name in ("08_two_objects", "08c_turnaround_sheet")] == [2, 3]


@pytest.mark.parametrize(
    ("count", "cut_by_border"),
    [(4, 0), (11, 2), (12, 1), (8, 3), (15, 3)],
    ids=["four", "eleven, two cut", "twelve, one cut", "eight, three cut", "fifteen, three cut"],
)
def test_many_things_before_a_plain_backdrop_are_cut_out_and_spoken_of(count: int, cut_by_border: int) -> None:
    """The network, which knows one object or two, takes the white between them for it."""
    image = many(count, cut_by_border)
    found = remove_background(Image.fromarray(image), cutter=None)
    shown, drawn = np.asarray(found.image)[..., 3] > 127, (image < 200).any(2)
    assert (shown & drawn).sum() > 0.97 * (shown | drawn).sum()
    codes = {remark.code for remark in found.remarks}
    assert codes == {"CUTOUT_DOUBTFUL", "SEVERAL_OBJECTS"} | ({"OBJECT_TOUCHES_BORDER"} if cut_by_border else set())
    assert found.facts.objects == count


def many(count: int, cut_by_border: int) -> npt.NDArray[np.uint8]:
    """Draw discs of four colours on white, (340, 460, 3), some of them at the left side."""
    image = np.full((340, 460, 3), 255, np.uint8)
    colors = ((220, 30, 30), (40, 60, 210), (30, 170, 60), (60, 30, 20))
    free = [(100 + 90 * (k % 4), 60 + 100 * (k // 4)) for k in range(count - cut_by_border)]
    for k, at in enumerate([*((4, 60 + 100 * k) for k in range(cut_by_border)), *free]):
        cv2.circle(image, at, 26, colors[k % 4], -1, cv2.LINE_AA)
    return image


def test_of_things_alike_before_a_plain_backdrop_none_is_left_out() -> None:
    """The network, which knows one object or two, has three of these and is rather sure."""
    image = np.full((300, 440, 3), 222, np.uint8)
    cv2.circle(image, (70, 80), 34, (184, 74, 124), -1, cv2.LINE_AA)
    cv2.circle(image, (215, 80), 34, (68, 142, 10), -1, cv2.LINE_AA)
    cv2.rectangle(image, (326, 56), (394, 104), (206, 18, 118), -1)
    cv2.fillPoly(image, [np.array([(70, 180), (108, 260), (32, 260)])], (246, 62, 78), cv2.LINE_AA)
    found = remove_background(Image.fromarray(image), cutter=None)
    drawn = (np.abs(image.astype(int) - 222) > 20).any(2)
    assert mask_iou(np.asarray(found.image)[..., 3], drawn.astype(np.float32)) > 0.97
    assert found.objects == 4
    assert "SEVERAL_OBJECTS" in {remark.code for remark in found.remarks}


def test_a_sure_cut_out_before_blurred_lights_is_not_given_up_for_them() -> None:
    sure, lights = (
        Candidate("flood", Found(mask, ~mask), signs_of(mask), score)
        for mask, score in ((discs((40, 40)), 0.8), (discs((40, 40), (100, 40), (160, 40)), 0.01))
    )
    assert not _leaves_some_out(sure, lights)
    assert _leaves_some_out(replace(sure, score=0.3), lights)
    assert _leaves_some_out(sure, replace(lights, score=0.2))
    assert not _leaves_some_out(replace(lights, score=0.3), sure)


def discs(*centres: tuple[int, int]) -> Mask:
    """Return a mask (80, 200) of discs."""
    drawn = np.zeros((80, 200), np.uint8)
    for centre in centres:
        cv2.circle(drawn, centre, 20, 1, -1)
    return drawn > 0


def signs_of(mask: Mask) -> Signs:
    """Return the signs of a mask in white on black."""
    return measure(Scene.of(np.repeat((255 * mask.astype(np.uint8))[..., None], 3, 2)), Found(mask, ~mask))


def test_what_is_hopeless_is_refused_for_its_true_reason() -> None:
    with pytest.raises(NoForeground, match="colours are too much alike"):
        cut("04_black_on_black")
    with pytest.raises(NoForeground, match="clear of the picture's border"):
        cut("07c_cut_three_sides")


def test_a_white_object_on_nearly_white_is_doubted() -> None:
    assert "CUTOUT_DOUBTFUL" in {remark.code for remark in cut("03b_white_on_offwhite").remarks}


def framed(top: int, right: int, bottom: int, left: int, value: int) -> np.ndarray:
    """Return a drawn photograph in margins of one grey."""
    return np.pad(DRAWINGS["mug"]().image, ((top, bottom), (left, right), (0, 0)), constant_values=value)


@pytest.mark.parametrize(
    ("margins", "value"), [((4, 4, 4, 4), 0), ((30, 30, 90, 30), 250), ((0, 120, 0, 120), 0), ((80, 0, 80, 0), 20)]
)
def test_margins_of_one_colour_are_peeled(margins: tuple[int, int, int, int], value: int) -> None:
    top, _, _, left = margins
    window = peel(framed(*margins, value))
    assert window is not None
    found = (window.top, window.left, 480 + top - window.bottom, 640 + left - window.right)
    assert all(0 <= more - less <= 2 for more, less in zip(found, (top, left, 0, 0), strict=True))


@pytest.mark.parametrize("name", ["mug", "white_mug", "chair", "spiky", "touching_border", "garden"])
def test_a_photograph_without_a_frame_is_left_whole(name: str) -> None:
    assert peel(DRAWINGS[name]().image) is None


def test_a_table_is_brought_to_its_walls_colour() -> None:
    rgb = np.full((240, 320, 3), (200, 190, 180), np.uint8)
    rgb[150:] = (120, 80, 50)
    rgb[90:200, 120:200] = (20, 60, 160)
    lab = smooth_lab(rgb)
    horizon = find_horizon(lab)
    assert horizon is not None
    assert (horizon.left, horizon.right) == pytest.approx((149.5, 149.5), abs=1.5)
    found = flood_lab(flatten(lab, horizon))
    assert found is not None
    object_ = np.zeros(found.foreground.shape, np.bool_)
    object_[90:200, 120:200] = True
    assert (found.foreground & object_).sum() / (found.foreground | object_).sum() > 0.85
    plain = flood_lab(lab)
    assert plain is None or (plain.foreground & object_).sum() / (plain.foreground | object_).sum() < 0.6


def test_a_plain_backdrop_has_no_horizon() -> None:
    assert find_horizon(smooth_lab(DRAWINGS["mug"]().image)) is None


def test_an_outline_is_filled_and_a_ring_is_not() -> None:
    rows, columns = np.mgrid[0:200, 0:200]
    away = np.hypot(rows - 100, columns - 100)
    ring = Found((away > 60) & (away < 66), (away >= 70))
    backdrop = np.full((200, 200, 3), (90, 0, 0), np.float32)
    assert filled(backdrop, ring) is ring
    body = np.where((away < 60)[..., None], (96, 0, 0), backdrop).astype(np.float32)
    assert filled(body, ring).foreground[100, 100]


def test_a_clean_cutouts_alpha_stays_as_it_is() -> None:
    rgba = np.zeros((64, 64, 4), np.uint8)
    rgba[10:50, 10:50] = (90, 40, 30, 255)
    rgba[50, 10:50] = (90, 40, 30, 100)
    np.testing.assert_array_equal(without_baked_shadow(rgba), rgba[..., 3])
    glass = rgba.copy()
    glass[20:40, 50:62] = (150, 200, 220, 90)
    np.testing.assert_array_equal(without_baked_shadow(glass), glass[..., 3])


def disc(
    *, ground: int = 235, shape: str = "disc", shadow: bool = False, border: bool = False
) -> npt.NDArray[np.uint8]:
    """Draw a red thing on a plain ground, (240, 320, 3)."""
    image = np.full((240, 320, 3), ground, np.uint8)
    left = 0 if border else 110
    if shadow:
        cv2.ellipse(image, (185, 190), (90, 22), 0, 0, 360, (150, 150, 150), -1)
    if shape == "card":
        cv2.rectangle(image, (left, 60), (left + 100, 190), (190, 40, 40), -1)
    else:
        cv2.circle(image, (left + 50, 125), 60, (190, 40, 40), -1, cv2.LINE_AA)
    if shape == "pair":
        cv2.circle(image, (270, 60), 22, (190, 40, 40), -1, cv2.LINE_AA)
    return image


@pytest.mark.parametrize(
    ("image", "asked"),
    [
        (disc(), False),
        (disc(ground=40), False),
        (disc(border=True), True),
        (disc(shape="card"), True),
        (disc(shape="pair"), True),
        (disc(shadow=True), True),
        (disc(ground=140) // 3 + 60, True),
    ],
    ids=["on white", "on black", "cut by the border", "a card", "two pieces", "with a shadow", "faint"],
)
def test_where_a_flood_leaves_no_question_nobody_else_is_asked(
    monkeypatch: pytest.MonkeyPatch, image: npt.NDArray[np.uint8], asked: bool
) -> None:
    looks: list[int] = []

    def counted(rgb: npt.NDArray[np.uint8]) -> Sight | None:
        looks.append(1)
        return cutout_network.look(rgb)

    monkeypatch.setattr(candidates, "look", counted)
    found = best_cut(image)
    assert found is not None
    assert bool(looks) == asked
    if not asked:
        assert (found.method, found.signs.odds) == ("flood", None)
        assert found.score >= DOUBTFUL


def test_a_mirror_image_that_the_network_takes_for_the_objects_is_taken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.full((320, 320, 3), 235, np.float32)
    image[60:180, 110:210] = np.linspace((190, 40, 30), (40, 60, 160), 120)[:, None]
    image[60:90, 150:170] = (240, 200, 40)
    pale = 235 + (image[60:180, 110:210][::-1] - 235) * 0.4
    image[180:300, 110:210] = pale
    both = np.zeros((320, 320), np.float32)
    both[60:300, 110:210] = 1

    monkeypatch.setattr(candidates, "look", lambda _: Sight(both, 0.9))
    monkeypatch.setattr(candidates, "_floods", lambda *_: [])
    found = [tried.found.foreground for tried in candidates.judged(image.astype(np.uint8))]
    assert found[0][200:280, 130:190].all()
    assert not found[-1][184:].any()
    assert found[-1][70:176, 115:205].all()
