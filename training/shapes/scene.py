"""The description of one object before it is turned and scaled: parts, paints and how it likes to be seen.

Knows nothing of grids. Object frame: Y up, front +Z, X to the picture's right.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from training.shapes.sdf import Matrix, Part, Solid, ellipsoid, limb, rotation_about, rotation_to

Colour = tuple[float, float, float]
Point = tuple[float, float, float]


@dataclass(frozen=True)
class Paint:
    """Colour of a part: plain, or two colours in bands along y, stripes along x, dots or a vertical gradient."""

    colour: Colour
    second: Colour = (1.0, 1.0, 1.0)
    pattern: Literal["plain", "bands", "stripes", "dots", "gradient"] = "plain"
    period: float = 0.3
    phase: float = 0.0


@dataclass
class Scene:
    """Parts being collected by a family, in the order in which they are joined."""

    rng: np.random.Generator
    parts: list[Part] = field(default_factory=list)
    paints: list[Paint] = field(default_factory=list)
    yaw: float = 35.0
    pitch: tuple[float, float] = (0.0, 25.0)
    min_yaw: float = 0.0
    flat_sides: bool = False

    def between(self, low: float, high: float) -> float:
        """Return a uniform random number."""
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return bool(self.rng.random() < probability)

    def paint(self, *colours: Colour, fancy: float = 0.12) -> int:
        """Register a paint: one of the colours slightly varied, sometimes with a pattern; return its number."""
        base = np.asarray(colours[int(self.rng.integers(len(colours)))])
        base = np.clip(base + self.rng.normal(0, 0.05, 3), 0, 1)
        r, g, b = (float(v) for v in base)
        if self.chance(fancy):
            s, t, u = (float(v) for v in self.rng.random(3))
            pattern: Literal["bands", "stripes", "dots", "gradient"]
            pattern = ("bands", "stripes", "dots", "gradient")[int(self.rng.integers(4))]
            made = Paint((r, g, b), (s, t, u), pattern, self.between(0.18, 0.45), self.between(0, 1))
        else:
            made = Paint((r, g, b))
        self.paints.append(made)
        return len(self.paints) - 1

    def add(
        self,
        solid: Solid,
        at: Point = (0, 0, 0),
        paint: int = 0,
        *,
        turn: Matrix | None = None,
        mode: Literal["union", "cut", "decal"] = "union",
        smooth: float = 0.0,
    ) -> None:
        """Add a solid centred at a point."""
        rotation = np.eye(3) if turn is None else turn
        self.parts.append(Part(solid, np.asarray(at, np.float64), rotation, paint, mode, smooth))

    def pair(self, solid: Solid, at: Point, paint: int = 0, *, lean: float = 0.0, smooth: float = 0.0) -> None:
        """Add a solid and its mirror image in x; `lean` degrees tilt both outwards about z. The solid is symmetric."""
        x, y, z = at
        self.add(solid, (x, y, z), paint, turn=rotation_about(2, -lean), smooth=smooth)
        self.add(solid, (-x, y, z), paint, turn=rotation_about(2, lean), smooth=smooth)

    def bone(
        self, start: Point, end: Point, radius: float, end_radius: float = 0.0, paint: int = 0, smooth: float = 0.0
    ) -> None:
        """Add a capsule from start to end; the end's radius is the same unless given."""
        a, b = np.asarray(start, np.float64), np.asarray(end, np.float64)
        length = max(float(np.linalg.norm(b - a)), 1e-3)
        middle = (a + b) / 2
        at = (float(middle[0]), float(middle[1]), float(middle[2]))
        self.add(limb(length, radius, end_radius or radius), at, paint, turn=rotation_to(b - a), smooth=smooth)

    def bones(
        self, start: Point, end: Point, radius: float, end_radius: float = 0.0, paint: int = 0, smooth: float = 0.0
    ) -> None:
        """Return a bone and its mirror image in x."""
        self.bone(start, end, radius, end_radius, paint, smooth)
        self.bone((-start[0], start[1], start[2]), (-end[0], end[1], end[2]), radius, end_radius, paint, smooth)

    def eye(self, at: Point, radius: float, paint: int) -> None:
        """Paint a ball-shaped region without changing the solid."""
        self.add(ellipsoid(radius, radius, radius), at, paint, mode="decal")

    def eyes(self, at: Point, radius: float, paint: int) -> None:
        """Make two painted regions, mirrored in x."""
        self.eye(at, radius, paint)
        self.eye((-at[0], at[1], at[2]), radius, paint)
