"""Single primitives, unions of primitives, and the three solids made from outlines.

Fills a Scene; knows no cameras. What the front view cannot show follows a rule: depth equals width, or the outline
determines it.
"""

from __future__ import annotations

from training.shapes import drawings
from training.shapes.creatures import ring_toy
from training.shapes.families import ABOUT_X, ABOUT_Z, BRIGHT
from training.shapes.scene import Scene
from training.shapes.sdf import Solid, box, ellipsoid, limb, rotation_about, tapered
from training.shapes.silhouettes import draw, extrude, extrusion_thickness, inflate, revolve


def _solid(s: Scene, size: float) -> Solid:
    """Build a random solid of revolution or a nearly cubic box."""
    kind = int(s.rng.integers(5))
    wide, tall = size * s.between(0.7, 1.0), size * s.between(0.7, 1.1)
    if kind == 0:
        return ellipsoid(wide, tall, wide)
    if kind == 1:
        return box(wide * 0.85, tall * 0.85, wide * 0.8, s.between(0.02, 0.12))
    if kind == 2:
        return tapered(2 * tall, wide, wide, s.between(0.02, 0.1))
    if kind == 3:
        return tapered(2 * tall, wide, 0.06, 0.04)
    return limb(tall, wide * 0.6, wide * 0.6)


def primitive(s: Scene) -> None:
    """Build one primitive, upright or lying."""
    s.min_yaw, s.pitch = 10, (4, 25)
    kind = int(s.rng.integers(10))
    if kind == 9:
        ring_toy(s)
        return
    paint = s.paint(*BRIGHT, fancy=0.25)
    wide, tall = s.between(0.4, 1.0), s.between(0.5, 1.0)
    solids = (
        ellipsoid(0.9, 0.9, 0.9),
        ellipsoid(wide, tall, wide),
        box(wide * 0.8, tall, wide * 0.8, s.between(0.01, 0.15)),
        box(0.7, 0.7, 0.7, s.between(0.01, 0.15)),
        tapered(2 * tall, wide, wide, s.between(0.02, 0.12)),
        tapered(2 * tall, wide, 0.06, 0.03),
        limb(tall, wide * 0.5, wide * 0.5),
        tapered(2 * tall, wide * 0.8, s.between(0.08, wide * 0.6), 0.03, sides=int(s.rng.integers(3, 7))),
        tapered(2 * tall, wide, wide * s.between(0.4, 0.8), 0.03),
    )
    turn = ABOUT_Z if kind in (4, 6) and s.chance(0.35) else None
    s.add(solids[kind], (0, 0, 0), paint, turn=turn)


def union(s: Scene) -> None:
    """Build two to four primitives that touch in the plane z = 0, stacked or mirrored."""
    s.min_yaw = 5
    s.add(_solid(s, s.between(0.4, 0.6)), (0, 0, 0), s.paint(*BRIGHT))
    style = int(s.rng.integers(3))
    smooth = 0.1 if s.chance(0.3) else 0.0
    if style == 0:
        y = 0.5
        for _ in range(int(s.rng.integers(1, 3))):
            size = s.between(0.22, 0.42)
            s.add(_solid(s, size), (0, y + size * 0.45, 0), s.paint(*BRIGHT), smooth=smooth)
            y += size * 1.1
        return
    if style == 1:
        size = s.between(0.2, 0.32)
        at = (s.between(0.45, 0.6), s.between(-0.35, 0.4), 0.0)
        s.pair(ellipsoid(size, size * s.between(0.8, 1.2), size), at, s.paint(*BRIGHT), smooth=smooth)
        if s.chance(0.5):
            s.add(_solid(s, size), (0, 0.6, 0), s.paint(*BRIGHT), smooth=smooth)
        return
    for _ in range(int(s.rng.integers(1, 4))):
        spin = rotation_about(2, s.between(0, 360))
        reach = spin[:, 0] * s.between(0.4, 0.5)
        size = s.between(0.2, 0.36)
        at = (float(reach[0]), float(reach[1]), 0.0)
        s.add(_solid(s, size), at, s.paint(*BRIGHT), turn=spin @ ABOUT_Z, smooth=smooth)


def lathe(s: Scene) -> None:
    """Build a turned solid; sometimes hollow from above when it is wide open and seen from above."""
    outline = draw(s.rng, drawings.profile)
    paint = s.paint(*BRIGHT, (0.7, 0.45, 0.25), (0.85, 0.7, 0.45), fancy=0.4)
    lying = s.chance(0.12)
    s.add(revolve(outline), (0, 0, 0), paint, turn=rotation_about(2, s.between(-90, 90)) if lying else None)


def extrusion(s: Scene) -> None:
    """Build an outline of constant thickness, which its area determines; seen nearly from the front."""
    s.yaw, s.min_yaw, s.pitch, s.flat_sides = 22, 7, (0, 12), True
    outline = draw(s.rng, drawings.DRAWINGS[int(s.rng.integers(len(drawings.DRAWINGS)))])
    thickness = extrusion_thickness(outline)
    s.add(extrude(outline, thickness, min(0.05, thickness / 4)), (0, 0, 0), s.paint(*BRIGHT, fancy=0.2))


def inflated(s: Scene) -> None:
    """Build an outline blown up to round cross-sections, as deep as it is locally wide."""
    s.yaw, s.pitch = (8, (0, 5)) if s.chance(0.5) else (28, (0, 15))
    kind = int(s.rng.integers(len(drawings.DRAWINGS)))
    outline = draw(s.rng, drawings.DRAWINGS[kind])
    s.add(inflate(outline, 0.9), (0, 0, 0), s.paint(*BRIGHT, fancy=0.25))
    if drawings.DRAWINGS[kind] is drawings.head and s.chance(0.8):
        dark = s.paint((0.1, 0.1, 0.1), fancy=0)
        s.add(limb(2.0, 0.08, 0.08), (0.25, -0.05, 0), dark, turn=ABOUT_X, mode="decal")
        s.add(limb(2.0, 0.08, 0.08), (-0.25, -0.05, 0), dark, turn=ABOUT_X, mode="decal")
        s.add(limb(2.0, 0.06, 0.06), (0, -0.25, 0), dark, turn=ABOUT_X, mode="decal")
