"""Ordinary photographs: each kind that once went wrong is right now, refused with its reason, or spoken of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.errors import NoForeground
from backend.hunyuan3d.image.background import BackgroundResult, remove_background
from backend.hunyuan3d.image.backdrop import Found, smooth_lab
from backend.hunyuan3d.image.candidates import filled
from backend.hunyuan3d.image.frames import peel
from backend.hunyuan3d.image.horizon import find_horizon
from backend.hunyuan3d.image.open_image import open_image
from backend.hunyuan3d.image.shadows import without_baked_shadow
from backend.limits import ObjectChoice
from benchmarks.support.images import DRAWINGS

PHOTOGRAPHS = Path(__file__).parent / "photographs"


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
    Case("14_wide_pencil", ((0.1, 0.5), (0.5, 0.5), (0.93, 0.5)), ((0.5, 0.05), (0.02, 0.95))),
    Case("16c_digit_8", ((0.5, 0.5), (0.35, 0.4)), ((0.5, 0.38), (0.5, 0.63), (0.1, 0.1))),
    Case("23_black_border_line", ((0.4, 0.4), (0.84, 0.5)), ((0.002, 0.5), (0.5, 0.002), (0.998, 0.998), (0.75, 0.5))),
    Case("28_reflection", ((0.45, 0.3), (0.45, 0.55)), ((0.45, 0.75), (0.45, 0.9), (0.1, 0.1))),
    Case("39_mug_from_above_30deg", ((0.4, 0.6),), ((0.02, 0.02),)),
)
SPOKEN_OF = (
    Case("07_cut_by_bottom", ((0.5, 0.2), (0.5, 0.8)), ((0.1, 0.1), (0.9, 0.5)), ("OBJECT_TOUCHES_BORDER",)),
    Case("08_two_objects", ((0.2, 0.5), (0.85, 0.55)), ((0.5, 0.5),), ("SEVERAL_OBJECTS",)),
    Case("08c_turnaround_sheet", ((0.17, 0.6), (0.8, 0.6)), ((0.35, 0.5),), ("SEVERAL_OBJECTS",)),
    Case("25_caption_badge", ((0.5, 0.55), (0.87, 0.1)), ((0.1, 0.1),), ("SEVERAL_OBJECTS",)),
    Case("25_caption_badge", ((0.5, 0.55),), ((0.87, 0.1), (0.47, 0.92)), (), "largest"),
    Case("08_two_objects", ((0.85, 0.55),), ((0.2, 0.5),), (), "largest"),
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


def test_how_many_objects_there_are_is_said() -> None:
    assert [cut(name).objects for name in ("08_two_objects", "08c_turnaround_sheet")] == [2, 3]


@pytest.mark.parametrize(
    ("name", "reason"), [("04_black_on_black", "colours are too much alike"), ("07c_cut_three_sides", "border")]
)
def test_what_is_hopeless_is_refused_for_its_true_reason(name: str, reason: str) -> None:
    with pytest.raises(NoForeground, match=reason):
        cut(name)


def test_a_white_object_on_nearly_white_is_doubted() -> None:
    assert "CUTOUT_DOUBTFUL" in {remark.code for remark in cut("03b_white_on_offwhite").remarks}
