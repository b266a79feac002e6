"""From a seed to a shape: picks a family, turns it as the camera sees it, scales it and fills the distance grid.

World frame: picture right +X, up +Y, towards the viewer +Z; the silhouette's larger side is 1.8 and centred, depth is
centred at z = 0. Knows nothing of shading or of samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from training.shapes import basic, creatures, families, more
from training.shapes.field import BOUNDS, CELLS, DistanceField, axis_of, build_field, extents
from training.shapes.scene import Scene
from training.shapes.sdf import Array, Matrix, Part, Placement, evaluate_grid, rotation_about

HELD_OUT_FIRST_SEED = 1_000_000_000
ATTEMPTS = 50
MOST_DEPTH = 1.9

FAMILIES: tuple[tuple[str, float, Callable[[Scene], None]], ...] = (
    ("primitive", 0.08, basic.primitive),
    ("union", 0.10, basic.union),
    ("lathe", 0.14, basic.lathe),
    ("extrusion", 0.14, basic.extrusion),
    ("inflated", 0.16, basic.inflated),
    *(
        (name, 0.38 / 17, build)
        for name, build in (
            ("table", families.table),
            ("chair", families.chair),
            ("lamp", families.lamp),
            ("mug", families.mug),
            ("teapot", families.teapot),
            ("mushroom", creatures.mushroom),
            ("snowman", creatures.snowman),
            ("animal", creatures.animal),
            ("fish", creatures.fish),
            ("plane", families.plane),
            ("rocket", families.rocket),
            ("car", families.car),
            ("house", families.house),
            ("tree", creatures.tree),
            ("person", creatures.person),
            ("teddy", creatures.teddy),
            ("tool", families.tool),
        )
    ),
)
# Drawn for training alone, beside the others: the shapes that figures are taken on stay what they were.
MORE: tuple[tuple[str, float, Callable[[Scene], None]], ...] = tuple(
    (build.__name__, 0.5 / len(more.FAMILIES), build) for build in more.FAMILIES
)
KINDS: tuple[str, ...] = tuple(name for name, _, _ in (*FAMILIES, *MORE))
_CUMULATIVE = np.cumsum([share for _, share, _ in FAMILIES])
_CUMULATIVE_ALL = np.cumsum([share for _, share, _ in (*FAMILIES, *MORE)])


class UnusableShapeError(ValueError):
    """A drawn object broke a rule (too deep, in pieces, vanished) and is drawn again."""


@dataclass(frozen=True)
class ProceduralShape:
    """A shape in the world frame: its field, and the placed parts for whoever colours it."""

    seed: int
    kind: int
    field: DistanceField
    scene: Scene
    placement: Placement

    @property
    def name(self) -> str:
        """The family's name."""
        return KINDS[self.kind]


def is_held_out(seed: int) -> bool:
    """Return whether a seed is reserved for evaluation."""
    return seed >= HELD_OUT_FIRST_SEED


def kind_of(seed: int) -> int:
    """Return which of KINDS a seed draws, without building the shape."""
    shares = _CUMULATIVE if is_held_out(seed) else _CUMULATIVE_ALL
    return int(np.searchsorted(shares, np.random.default_rng([seed, 0]).random() * shares[-1]))


def make_shape(seed: int) -> ProceduralShape:
    """Return the shape of a seed; the same on every machine and in any order.

    Raises RuntimeError if fifty draws in a row break a rule.
    """
    kind = kind_of(seed)
    for attempt in range(ATTEMPTS):
        rng = np.random.default_rng([seed, 1 + attempt])
        try:
            return _draw(seed, kind, rng)
        except ValueError:
            continue
    raise RuntimeError(f"seed {seed} ({KINDS[kind]}) gave no usable shape in {ATTEMPTS} draws")


def _draw(seed: int, kind: int, rng: np.random.Generator) -> ProceduralShape:
    scene = Scene(rng)
    (*FAMILIES, *MORE)[kind][2](scene)
    yaw = rng.uniform(scene.min_yaw, max(scene.yaw, scene.min_yaw)) * rng.choice([-1.0, 1.0])
    rotation = rotation_about(0, rng.uniform(*scene.pitch)) @ rotation_about(1, yaw)
    placement = _fit(scene.parts, rotation)
    axis = axis_of(CELLS)
    values = evaluate_grid(scene.parts, placement, axis)
    low, high = extents(values, axis)
    if np.abs(high[:2]).max() > 0.94 or np.abs(low[:2]).max() > 0.94 or (high - low)[:2].max() < 1.72:
        placement = _refit(placement, low, high)
        values = evaluate_grid(scene.parts, placement, axis)
    if KINDS[kind] not in {"lathe", "extrusion", "inflated", "primitive"}:
        _require_one_piece(values)
    field = build_field(values, axis)
    low, high = extents(field.values, axis)
    if (high - low)[2] * field.scale > MOST_DEPTH:
        raise UnusableShapeError("too deep")
    if np.any(np.abs((low + high) / 2) > 0.05) or not 0.94 < field.scale < 1.06:
        raise UnusableShapeError("the first estimate of the size was poor")
    return ProceduralShape(seed, kind, field, scene, placement)


def _fit(parts: list[Part], rotation: Matrix) -> Placement:
    """Return a placement that nearly centres the solid and gives its silhouette the side 1.8, from a coarse grid."""
    boxes = [Placement(rotation).box(p) for p in parts if p.mode == "union"]
    low, high = np.min([b[0] for b in boxes], axis=0), np.max([b[1] for b in boxes], axis=0)
    first = Placement(rotation, 1.8 / float((high - low).max()), (low + high) / 2)
    axis = axis_of(CELLS // 2)
    low, high = extents(evaluate_grid(parts, first, axis), axis)
    return _refit(first, low, high)


def _refit(placement: Placement, low: Matrix, high: Matrix) -> Placement:
    """Return the placement that centres what was measured between two world corners under an earlier placement."""
    low, high = (c / placement.scale + placement.offset for c in (low, high))
    return Placement(placement.rotation, 1.8 / float((high - low)[:2].max()), (low + high) / 2)


def _require_one_piece(values: Array) -> None:
    """Set all pieces but the largest outside; raise UnusableShapeError if they are over 0.5 % of the solid."""
    labels, count = ndimage.label(values < 0)
    if count <= 1:
        return
    sizes = np.bincount(labels.ravel())[1:]
    if sizes.sum() - sizes.max() > 0.005 * sizes.sum():
        raise UnusableShapeError("in pieces")
    stray = (labels > 0) & (labels != 1 + int(np.argmax(sizes)))
    values[stray] = np.maximum(np.abs(values[stray]), BOUNDS / CELLS)
