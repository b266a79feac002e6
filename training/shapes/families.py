"""Everyday objects as parts: furniture, vessels, vehicles, buildings, tools.

Each family fills a Scene in its own frame, about two units large, no part thinner than 0.09. Knows no cameras.
"""

from __future__ import annotations

import numpy as np

from training.shapes.scene import Colour, Scene
from training.shapes.sdf import box, ellipsoid, gable, limb, rotation_about, tapered, torus

WOOD: tuple[Colour, ...] = ((0.62, 0.4, 0.2), (0.5, 0.3, 0.15), (0.8, 0.6, 0.35), (0.9, 0.85, 0.75))
BRIGHT: tuple[Colour, ...] = (
    (0.93, 0.2, 0.2),
    (1.0, 0.55, 0.1),
    (1.0, 0.8, 0.15),
    (0.3, 0.75, 0.25),
    (0.15, 0.6, 0.85),
    (0.2, 0.35, 0.85),
    (0.6, 0.3, 0.8),
    (1.0, 0.45, 0.65),
    (0.95, 0.95, 0.95),
    (0.4, 0.8, 0.75),
)
METAL: tuple[Colour, ...] = ((0.6, 0.62, 0.65), (0.45, 0.48, 0.52), (0.8, 0.8, 0.82))
DARK: Colour = (0.12, 0.12, 0.14)
GLASS: Colour = (0.55, 0.8, 0.95)
ABOUT_X = rotation_about(0, 90)
ABOUT_Z = rotation_about(2, 90)


def table(s: Scene) -> None:
    """Build a table with four legs or one foot; square or round."""
    s.pitch = (8, 25)
    top = s.paint(*WOOD, *BRIGHT)
    leg = top if s.chance(0.5) else s.paint(*WOOD, *METAL, fancy=0)
    wide, deep, high = s.between(0.85, 1.0), s.between(0.55, 0.65), s.between(0.55, 0.85)
    thick = s.between(0.06, 0.1)
    if s.chance(0.3):
        s.add(tapered(2 * thick, wide, wide, 0.03), (0, high, 0), top)
        s.add(tapered(2 * high, 0.09, 0.08), (0, 0, 0), leg)
        s.add(tapered(0.12, 0.45, 0.38, 0.03), (0, -high, 0), leg)
        return
    s.add(box(wide, thick, deep, 0.03), (0, high, 0), top)
    r = s.between(0.06, 0.09)
    solid = box(r, high, r, 0.02) if s.chance(0.5) else tapered(2 * high, r * 0.8, r, 0.02)
    for z in (-deep + r + 0.03, deep - r - 0.03):
        s.pair(solid, (wide - r - 0.05, 0, z), leg)


def chair(s: Scene) -> None:
    """Build a chair with a back; sometimes arms or a sofa's fullness."""
    s.pitch = (5, 22)
    main = s.paint(*WOOD, *BRIGHT)
    leg = main if s.chance(0.5) else s.paint(*WOOD, *METAL, fancy=0)
    wide, seat = s.between(0.5, 0.62), s.between(-0.15, 0.0)
    if s.chance(0.3):
        wide = s.between(0.7, 0.95)
        s.add(box(wide, 0.3, 0.5, 0.08), (0, -0.35, 0), main)
        s.add(box(wide, 0.55, 0.15, 0.1), (0, 0.1, -0.42), main)
        s.pair(box(0.15, 0.45, 0.5, 0.1), (wide, -0.2, 0), leg)
        return
    s.add(box(wide, 0.08, wide, 0.03), (0, seat, 0), main)
    back = s.between(0.75, 1.0)
    s.add(box(wide, back / 2, 0.07, 0.03), (0, seat + back / 2, -wide + 0.07), main)
    if s.chance(0.3):
        s.add(box(wide * 0.5, back * 0.2, 0.3, 0.02), (0, seat + back * 0.55, -wide + 0.07), main, mode="cut")
    r = s.between(0.06, 0.085)
    for z in (-wide + r, wide - r):
        s.pair(box(r, (seat + 0.95) / 2, r, 0.02), (wide - r, (seat - 0.95) / 2, z), leg)


def lamp(s: Scene) -> None:
    """Build a table or floor lamp with a shade."""
    base = s.paint(*WOOD, *METAL, *BRIGHT, fancy=0.05)
    shade = s.paint(*BRIGHT)
    wide, top, tall = s.between(0.45, 0.6), s.between(0.2, 0.38), s.between(0.5, 0.75)
    s.add(tapered(tall, wide, top, 0.03), (0, 0.95 - tall / 2, 0), shade)
    s.add(tapered(1.4, 0.06, 0.06), (0, -0.25, 0), base)
    s.add(tapered(0.14, wide * 0.75, wide * 0.65, 0.03), (0, -0.9, 0), base)
    if s.chance(0.5):
        r = s.between(0.2, 0.34)
        s.add(ellipsoid(r, r * 1.2, r), (0, -0.5, 0), base, smooth=0.05)


def mug(s: Scene) -> None:
    """Build a mug, hollow from above, its handle at the side."""
    s.pitch, s.yaw = (8, 25), 30
    main = s.paint(*BRIGHT, fancy=0.3)
    drink = s.paint((0.35, 0.2, 0.1), (0.85, 0.6, 0.3), (0.95, 0.95, 0.9), fancy=0)
    r, high = s.between(0.55, 0.7), s.between(0.6, 0.85)
    side = -1.0 if s.chance(0.3) else 1.0
    ring = s.between(0.55, 0.7) * high
    s.add(torus(ring, s.between(0.075, 0.11)), (side * (r + 0.05), 0, 0), main)
    body = tapered(2 * high, r * s.between(0.8, 1.0), r, 0.05)
    s.add(body, (0, 0, 0), main)
    s.add(tapered(2 * high, r - 0.13, r - 0.11, 0.02), (0, 0.35, 0), drink, mode="cut")


def teapot(s: Scene) -> None:
    """Build a round pot with spout, handle and a lid with a knob."""
    s.pitch, s.yaw = (3, 20), 25
    main = s.paint(*BRIGHT, *METAL)
    extra = main if s.chance(0.5) else s.paint(*BRIGHT, fancy=0)
    r, tall = s.between(0.6, 0.7), s.between(0.48, 0.62)
    side = -1.0 if s.chance(0.5) else 1.0
    s.add(torus(s.between(0.28, 0.36), 0.085), (-side * (r + 0.05), 0.05, 0), extra)
    s.add(ellipsoid(r, tall, r), (0, 0, 0), main)
    s.bone((side * r * 0.7, -0.12, 0), (side * (r + 0.42), s.between(0.3, 0.5), 0), 0.17, 0.08, extra, 0.05)
    s.add(tapered(0.12, r * 0.55, r * 0.4, 0.03), (0, tall, 0), main)
    s.add(ellipsoid(0.12, 0.11, 0.12), (0, tall + 0.14, 0), extra)
    s.add(tapered(0.15, r * 0.6, r * 0.5, 0.03), (0, -tall, 0), main)


def rocket(s: Scene) -> None:
    """Build a rocket with a pointed nose, fins and a porthole."""
    body = s.paint((0.93, 0.93, 0.95), *BRIGHT)
    red = s.paint(*BRIGHT, fancy=0)
    r = s.between(0.27, 0.38)
    s.add(ellipsoid(r, 1.0, r), (0, 0.1, 0), body)
    for k in range(4):
        turn = rotation_about(1, 90 * k + 45)
        at = turn @ np.array([0, -0.62, r + 0.08])
        fin = turn @ rotation_about(0, -21)
        s.add(box(0.06, 0.32, 0.22, 0.04), (float(at[0]), float(at[1]), float(at[2])), red, turn=fin)
    s.add(tapered(0.25, 0.2, 0.16, 0.03), (0, -0.88, 0), s.paint(*METAL, fancy=0))
    s.add(box(1, 0.35, 1), (0, 1.0, 0), red, mode="decal")
    s.eye((0, s.between(0.2, 0.4), r), s.between(0.13, 0.18), s.paint(GLASS, fancy=0))


def plane(s: Scene) -> None:
    """Build an aeroplane from the side or from above."""
    body = s.paint((0.93, 0.93, 0.95), *BRIGHT)
    wing = s.paint(*BRIGHT, fancy=0) if s.chance(0.6) else body
    r, half = s.between(0.15, 0.2), 0.95
    above = s.chance(0.6)
    # Own frame: nose along +x, wings along z, y up; seen from above the nose points up the picture.
    turn = rotation_about(0, 90) @ rotation_about(1, 90) if above else np.eye(3)
    s.yaw = 15 if above else 35
    s.pitch = (0, 15) if above else (5, 25)

    def put(x: float, y: float, z: float) -> tuple[float, float, float]:
        p = turn @ np.array([x, y, z])
        return float(p[0]), float(p[1]), float(p[2])

    span, back = s.between(0.75, 0.95), s.between(0.1, 0.35)
    s.bone(put(-half, 0, 0), put(half, 0, 0), r * 0.6, r * 0.9, body)
    s.add(ellipsoid(half, r, r), put(0, 0, 0), body, turn=turn, smooth=0.05)
    for side in (-1, 1):
        sweep = turn @ rotation_about(1, side * np.degrees(np.arctan2(back, span)))
        s.add(box(0.2, 0.055, span / 2, 0.04), put(0.1 - back / 2, 0, side * span / 2), wing, turn=sweep)
        s.add(box(0.12, 0.055, 0.2, 0.04), put(-half + 0.08, 0.03, side * 0.2), wing, turn=turn)
    s.add(box(0.15, 0.22, 0.055, 0.04), put(-half + 0.1, 0.25, 0), wing, turn=turn @ rotation_about(2, -15))
    if not above:
        glass = s.paint(GLASS, DARK, fancy=0)
        for x in np.arange(-0.4, 0.8, 0.2):
            s.eye(put(float(x), 0.05, r), 0.05, glass)
            s.eye(put(float(x), 0.05, -r), 0.05, glass)


def car(s: Scene) -> None:
    """Build a car, van, bus or lorry from the side."""
    s.pitch = (0, 20)
    main = s.paint(*BRIGHT, fancy=0.05)
    glass, tyre = s.paint(GLASS, DARK, fancy=0), s.paint(DARK, fancy=0)
    wide, kind, side = s.between(0.36, 0.42), int(s.rng.integers(3)), (-1.0 if s.chance(0.5) else 1.0)
    rim = s.paint(*METAL, fancy=0)
    r = s.between(0.19, 0.24)
    if kind == 0:
        s.add(box(0.95, 0.2, wide, 0.1), (0, -0.05, 0), main)
        s.add(box(s.between(0.45, 0.6), 0.24, wide * 0.9, 0.13), (-side * 0.1, 0.25, 0), main, smooth=0.05)
        s.add(box(0.38, 0.12, 1), (-side * 0.1, 0.27, 0), glass, mode="decal")
    elif kind == 1:
        tall = s.between(0.35, 0.45)
        s.add(box(0.95, tall, wide, 0.1), (0, tall - 0.25, 0), main)
        for x in (-0.6, -0.2, 0.2, 0.6):
            s.add(box(0.14, 0.12, 1), (x, tall - 0.05, 0), glass, mode="decal")
    else:
        s.add(box(0.62, s.between(0.3, 0.42), wide, 0.05), (-side * 0.33, 0.2, 0), main)
        s.add(box(0.27, 0.28, wide * 0.95, 0.07), (side * 0.65, 0.05, 0), s.paint(*BRIGHT, fancy=0))
        s.add(box(0.9, 0.1, wide * 0.9, 0.03), (0, -0.2, 0), tyre)
        s.add(box(0.15, 0.1, 1), (side * 0.75, 0.15, 0), glass, mode="decal")
    for x in (-0.55, 0.55):
        for z in (-wide, wide):
            s.add(tapered(0.16, r, r, 0.03), (x, -0.25, z * 0.92), tyre, turn=ABOUT_X)
            s.eye((x, -0.25, z * 1.1), r * 0.55, rim)


def house(s: Scene) -> None:
    """Build a house with a gable or a tent roof, door and windows, sometimes a chimney."""
    s.min_yaw = 8
    wall = s.paint(*BRIGHT, (0.95, 0.88, 0.75), fancy=0.05)
    roof = s.paint((0.8, 0.25, 0.2), (0.5, 0.3, 0.2), *BRIGHT, fancy=0.05)
    glass, door = s.paint(GLASS, (1.0, 0.9, 0.5), fancy=0), s.paint(*WOOD, fancy=0)
    wide, deep, tall = s.between(0.65, 0.75), s.between(0.6, 0.68), s.between(0.4, 0.55)
    s.add(box(wide, tall, deep, 0.01), (0, -0.4, 0), wall)
    top = -0.4 + tall
    if s.chance(0.5):
        rise = s.between(0.5, 0.7)
        if s.chance(0.6):
            s.add(gable(wide + 0.14, rise, deep + 0.08), (0, top + rise / 2 - 0.06, 0), roof)
        else:
            turn = rotation_about(1, 90)
            s.add(gable(deep + 0.14, rise, wide + 0.08), (0, top + rise / 2 - 0.06, 0), roof, turn=turn)
    else:
        rise = s.between(0.55, 0.75)
        s.add(tapered(rise, wide + 0.08, 0.12, 0.02, sides=4), (0, top + rise / 2, 0), roof, turn=rotation_about(1, 45))
    if s.chance(0.5):
        s.add(box(0.1, 0.28, 0.1), (wide * 0.5, top + 0.35, 0), s.paint((0.6, 0.3, 0.25), fancy=0))
    s.add(box(0.13, 0.26, 0.1), (0, -0.4 - tall + 0.2, deep), door, mode="decal")
    for x in (-wide * 0.6, wide * 0.6):
        s.add(box(0.12, 0.13, 0.1), (x, -0.3, deep), glass, mode="decal")
    for z in (-0.25, 0.25):
        s.add(box(0.1, 0.13, 0.1), (wide, -0.3, z), glass, mode="decal")
        s.add(box(0.1, 0.13, 0.1), (-wide, -0.3, z), glass, mode="decal")


def tool(s: Scene) -> None:
    """Build a hammer, screwdriver, wrench-like bar, brush, spoon, axe, bulb or magnifier."""
    s.yaw, s.pitch = 20, (0, 12)
    grip, head = s.paint(*WOOD, *BRIGHT), s.paint(*METAL, *BRIGHT)
    kind = int(s.rng.integers(7))
    r = s.between(0.07, 0.1)
    if kind == 0:
        s.add(limb(1.7, r, r), (0, -0.1, 0), grip)
        s.add(box(s.between(0.38, 0.5), 0.16, 0.16, 0.04), (0, 0.8, 0), head)
    elif kind == 1:
        s.add(limb(0.6, r * 2, r * 1.7), (0, -0.65, 0), grip)
        s.add(tapered(1.2, 0.06, 0.06), (0, 0.3, 0), head)
        s.add(box(0.1, 0.12, 0.05, 0.02), (0, 0.9, 0), head)
    elif kind == 2:
        s.add(box(r * 1.3, 0.75, 0.07, 0.03), (0, 0, 0), head)
        for y in (-0.8, 0.8):
            s.add(tapered(0.16, 0.28, 0.28, 0.03), (0, y, 0), head, turn=ABOUT_X)
            s.add(box(0.1, 0.2, 0.3), (0, y * 1.28, 0), head, mode="cut")
    elif kind == 3:
        s.add(limb(1.5, r, r * 0.8), (0, -0.25, 0), grip)
        s.add(ellipsoid(s.between(0.24, 0.34), 0.4, 0.13), (0, 0.6, 0), head, smooth=0.08)
    elif kind == 4:
        s.add(limb(1.7, r, r), (0, -0.1, 0), grip)
        s.add(box(0.3, 0.3, 0.07, 0.05), (0.25, 0.55, 0), head)
    elif kind == 5:
        s.add(torus(s.between(0.4, 0.5), 0.09), (0, 0.45, 0), head)
        s.add(tapered(0.08, 0.45, 0.45, 0.01), (0, 0.45, 0), s.paint(GLASS, fancy=0), turn=ABOUT_X)
        s.add(limb(0.8, 0.1, 0.085), (0, -0.5, 0), grip)
    else:
        s.add(ellipsoid(0.55, 0.55, 0.55), (0, 0.4, 0), s.paint((1.0, 0.9, 0.4), (0.9, 0.95, 1.0), fancy=0.1))
        s.add(tapered(0.5, 0.24, 0.36, 0.04), (0, -0.2, 0), grip, smooth=0.1)
        s.add(tapered(0.35, 0.22, 0.25, 0.05), (0, -0.5, 0), head)
    if s.chance(0.5) and kind != 6:
        turn = rotation_about(2, s.between(-50, 50))
        s.parts[:] = [type(p)(p.solid, turn @ p.centre, turn @ p.rotation, p.paint, p.mode, p.smooth) for p in s.parts]
