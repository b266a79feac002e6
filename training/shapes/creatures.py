"""Living things as parts: plants, animals, people, toys.

Each family fills a Scene in its own frame, about two units large, no part thinner than 0.09. Knows no cameras.
"""

from __future__ import annotations

from training.shapes.families import ABOUT_X, BRIGHT, DARK, WOOD
from training.shapes.scene import Colour, Scene
from training.shapes.sdf import box, ellipsoid, rotation_about, tapered, torus

FUR: tuple[Colour, ...] = (
    (0.6, 0.4, 0.22),
    (0.85, 0.6, 0.35),
    (0.55, 0.55, 0.58),
    (0.93, 0.9, 0.85),
    (0.95, 0.6, 0.25),
    (0.3, 0.25, 0.22),
    (1.0, 0.7, 0.75),
)
SKIN: tuple[Colour, ...] = ((1.0, 0.8, 0.65), (0.85, 0.6, 0.45), (0.5, 0.33, 0.22), (1.0, 0.82, 0.25))
GREEN: tuple[Colour, ...] = ((0.2, 0.55, 0.2), (0.3, 0.7, 0.25), (0.5, 0.75, 0.2), (0.15, 0.45, 0.3))


def mushroom(s: Scene) -> None:
    """Build a toadstool: half an ellipsoid on a stem, sometimes dotted."""
    cap = s.paint((0.85, 0.15, 0.12), *BRIGHT, WOOD[0], fancy=0.2)
    stem = s.paint((0.95, 0.9, 0.8), WOOD[2], fancy=0)
    wide, tall = s.between(0.7, 0.95), s.between(0.55, 0.8)
    s.add(ellipsoid(wide, tall, wide), (0, 0.1, 0), cap)
    s.add(box(2, 1, 2), (0, -0.95, 0), cap, mode="cut")
    s.add(tapered(1.0, s.between(0.25, 0.36), s.between(0.2, 0.26), 0.06), (0, -0.42, 0), stem, smooth=0.06)
    if s.chance(0.5):
        white = s.paint((1, 1, 1), fancy=0)
        for x, y in ((0.0, 0.5), (0.45, 0.3), (-0.45, 0.3), (0.2, 0.15), (-0.25, 0.2)):
            depth = max(1 - (x / wide) ** 2 - ((y - 0.1) / tall) ** 2, 0.0) ** 0.5 * wide
            s.eye((x, y, depth), s.between(0.09, 0.15), white)


def snowman(s: Scene) -> None:
    """Build two or three balls with a nose, eyes and sometimes a hat and arms."""
    snow = s.paint((0.95, 0.97, 1.0), (0.95, 0.97, 1.0), *BRIGHT, fancy=0.03)
    dark = s.paint(DARK, fancy=0)
    low, mid, top = s.between(0.46, 0.54), s.between(0.34, 0.4), s.between(0.25, 0.3)
    y = -1 + low
    s.add(ellipsoid(low, low, low), (0, y, 0), snow)
    if s.chance(0.75):
        y += (low + mid) * 0.8
        s.add(ellipsoid(mid, mid, mid), (0, y, 0), snow)
        for k in (-0.15, 0.05):
            s.eye((0, y + k, mid), 0.05, dark)
    else:
        mid = low
    y += (mid + top) * 0.8
    s.add(ellipsoid(top, top, top), (0, y, 0), snow)
    s.bone((0, y, top * 0.8), (0, y - 0.02, top + 0.22), 0.08, 0.05, s.paint((1.0, 0.5, 0.1), fancy=0))
    s.eyes((top * 0.4, y + top * 0.3, top * 0.88), 0.045, dark)
    if s.chance(0.6):
        hat = s.paint(DARK, *BRIGHT, fancy=0)
        s.add(tapered(0.09, top * 1.25, top * 1.25, 0.02), (0, y + top * 0.75, 0), hat)
        s.add(tapered(0.36, top * 0.8, top * 0.8, 0.02), (0, y + top * 0.75 + 0.18, 0), hat)
    if s.chance(0.5):
        s.bones((mid * 0.7, y - top - mid * 0.6, 0), (mid + 0.4, y - top - mid * 0.2, 0), 0.055, 0.05, s.paint(WOOD[1]))


def tree(s: Scene) -> None:
    """Build a fir of cones, a round tree, a palm-like or a bushy one, or a cactus."""
    green, trunk = s.paint(*GREEN, fancy=0.05), s.paint(WOOD[0], WOOD[1], fancy=0)
    kind = int(s.rng.integers(4))
    if kind == 3:
        r = s.between(0.2, 0.26)
        s.bone((0, -0.85, 0), (0, 0.75, 0), r, r, green)
        for side, y in ((1.0, s.between(-0.2, 0.1)), (-1.0, s.between(-0.3, 0.2))):
            s.bone((0, y, 0), (side * 0.5, y, 0), 0.13, 0.13, green, 0.04)
            s.bone((side * 0.5, y, 0), (side * 0.5, y + s.between(0.3, 0.5), 0), 0.13, 0.13, green, 0.04)
        return
    s.add(tapered(1.0, 0.15, 0.11, 0.03), (0, -0.5, 0), trunk)
    if kind == 0:
        n = int(s.rng.integers(2, 4))
        wide = s.between(0.5, 0.68)
        for k in range(n):
            f = 1 - 0.24 * k
            cone = tapered(1.5 / n + 0.12, wide * f, 0.08 + 0.1 * (k < n - 1), 0.03)
            s.add(cone, (0, -0.3 + 1.25 / n * (k + 0.35), 0), green)
    elif kind == 1:
        r = s.between(0.55, 0.7)
        s.add(ellipsoid(r, r * s.between(0.9, 1.2), r), (0, 0.3, 0), green)
    else:
        r = s.between(0.36, 0.45)
        s.add(ellipsoid(r, r, r), (0, 0.55, 0), green)
        for x, z in ((-0.38, 0.0), (0.38, 0.0), (0.0, 0.33), (0.0, -0.33)):
            s.add(ellipsoid(r, r, r), (x, 0.2, z), green, smooth=0.06)
    if s.chance(0.2):
        red = s.paint((0.9, 0.15, 0.15), (1.0, 0.8, 0.1), fancy=0)
        for x, y in ((0.2, 0.3), (-0.25, 0.15), (0.0, 0.6)):
            s.eye((x, y, 0.45), 0.14, red)


def person(s: Scene) -> None:
    """Build a standing figure, arms down, out or up; sometimes in a skirt or hat."""
    skin, shirt = s.paint(*SKIN, fancy=0), s.paint(*BRIGHT)
    legs, hair = s.paint(*BRIGHT, DARK, fancy=0.05), s.paint(DARK, WOOD[1], (0.9, 0.7, 0.3), fancy=0)
    r = s.between(0.2, 0.27)
    s.add(ellipsoid(r, r * 1.1, r), (0, 1.0 - r, 0), skin)
    hip, shoulder, wide = -0.15, 0.95 - 2 * r - 0.1, s.between(0.24, 0.3)
    s.add(box(wide, (shoulder - hip) / 2 + 0.1, 0.17, 0.12), (0, (shoulder + hip) / 2, 0), shirt)
    s.bone((0, shoulder, 0), (0, 1 - 1.6 * r, 0), 0.1, 0.1, skin)
    if s.chance(0.3):
        s.add(tapered(0.55, 0.48, 0.2, 0.04), (0, hip - 0.12, 0), shirt)
    spread = s.between(0.0, 0.15)
    s.bones((0.13, hip, 0), (0.15 + spread, -0.92, 0), 0.13, 0.1, legs)
    s.bones((0.15 + spread, -0.93, 0), (0.15 + spread, -0.93, 0.12), 0.09, 0.08, s.paint(DARK, *WOOD, fancy=0))
    pose = s.between(-60, 55) if s.chance(0.5) else s.between(-70, -50)
    turn = rotation_about(2, pose)
    reach = turn[:, 0] * s.between(0.5, 0.62)
    start = (wide - 0.02, shoulder, 0.0)
    middle = (start[0] + float(reach[0]) * 0.6, start[1] + float(reach[1]) * 0.6, 0.0)
    end = (start[0] + float(reach[0]), start[1] + float(reach[1]), 0.0)
    s.bones(start, middle, 0.09, 0.08, shirt)
    s.bones(middle, end, 0.075, 0.085, skin)
    dark = s.paint(DARK, fancy=0)
    s.eyes((r * 0.38, 1 - r * 0.9, r * 0.9), 0.035, dark)
    if s.chance(0.7):
        s.add(ellipsoid(r * 1.1, r * 1.1, r * 1.1), (0, 1.0 - r * 0.75, -r * 0.3), hair)
    else:
        s.add(tapered(0.1, r * 1.4, r * 0.9, 0.02), (0, 1.0 - r * 0.3, 0), s.paint(*BRIGHT, fancy=0))
        s.add(tapered(0.2, r * 0.8, r * 0.7, 0.03), (0, 1.0, 0), s.paint(*BRIGHT, fancy=0))


def teddy(s: Scene) -> None:
    """Build a sitting or standing toy animal seen from the front: ears, muzzle, belly."""
    s.yaw, s.pitch = 30, (0, 18)
    fur = s.paint(*FUR, *BRIGHT, fancy=0.05)
    light = s.paint((0.95, 0.85, 0.7), (1, 1, 1), fancy=0)
    dark = s.paint(DARK, fancy=0)
    head, body = s.between(0.38, 0.46), s.between(0.42, 0.5)
    y = s.between(0.42, 0.5)
    s.add(ellipsoid(body, body * 1.15, body * 0.85), (0, -0.3, 0), fur)
    s.add(ellipsoid(head, head * 0.92, head * 0.9), (0, y, 0.03), fur, smooth=0.06)
    kind = int(s.rng.integers(3))
    if kind == 0:
        s.pair(ellipsoid(0.17, 0.17, 0.1), (head * 0.75, y + head * 0.75, 0), fur)
    elif kind == 1:
        s.pair(ellipsoid(0.11, s.between(0.3, 0.42), 0.1), (head * 0.45, y + head * 1.25, 0), fur, lean=10)
    else:
        s.bones((head * 0.6, y + head * 0.55, 0), (head * 0.75, y + head * 1.1, 0), 0.17, 0.06, fur)
    s.add(ellipsoid(head * 0.42, head * 0.33, 0.16), (0, y - 0.1, head * 0.85), light)
    s.eye((0, y - 0.04, head * 0.85 + 0.16), 0.06, dark)
    s.eyes((head * 0.42, y + 0.1, head * 0.8), 0.06, dark)
    s.bones((body * 0.75, 0.0, 0.05), (body + 0.25, s.between(-0.3, 0.2), 0.12), 0.15, 0.14, fur, 0.04)
    out = s.between(0.15, 0.35)
    s.bones((0.25, -0.65, 0.05), (0.27, -0.85, 0.05 + out), 0.19, 0.17, fur, 0.04)
    if s.chance(0.5):
        s.eye((0, -0.3, body), 0.27, light)


def animal(s: Scene) -> None:
    """Build a four-legged animal from the side: dog, horse, pig, elephant and their like."""
    s.pitch = (0, 18)
    fur = s.paint(*FUR, fancy=0.12)
    dark = s.paint(DARK, fancy=0)
    other = fur if s.chance(0.6) else s.paint(*FUR, fancy=0)
    side = -1.0 if s.chance(0.5) else 1.0
    long, fat, leg = s.between(0.42, 0.55), s.between(0.25, 0.36), s.between(0.35, 0.6)
    s.bone((-side * long, 0, 0), (side * long, 0, 0), fat, fat * s.between(0.9, 1.05), fur)
    thick = s.between(0.09, 0.14)
    for x in (-long - fat * 0.4, long + fat * 0.3):
        for z in (-fat * 0.55, fat * 0.55):
            s.bone((side * x, -0.1, z), (side * x, -fat - leg + 0.1, z), thick * 1.2, thick, other, 0.05)
    hx, hy, r = long + s.between(0.3, 0.42), s.between(0.3, 0.6), s.between(0.22, 0.29)
    s.bone((side * long, 0.08, 0), (side * hx, hy, 0), fat * 0.65, r * 0.75, fur, 0.05)
    s.add(ellipsoid(r, r * 0.9, r * 0.85), (side * hx, hy, 0), fur, smooth=0.05)
    nose = (side * (hx + r + s.between(0.05, 0.2)), hy - 0.1, 0.0)
    s.bone((side * hx, hy - 0.04, 0), nose, r * 0.6, r * 0.45, fur, 0.04)
    ear = s.between(0.12, 0.32)
    for z in (-1, 1):
        s.bone(
            (side * (hx - 0.06), hy + r * 0.6, z * r * 0.55),
            (side * (hx - 0.1), hy + r * 0.8 + ear, z * r * 0.75),
            0.085,
            0.06,
            other,
        )
        s.eye((side * (hx + r * 0.5), hy + r * 0.3, z * r * 0.75), 0.05, dark)
    up = s.between(-0.3, 0.35)
    s.bone((-side * (long + fat * 0.7), 0.1, 0), (-side * (long + fat + 0.25), 0.1 + up, 0), 0.085, 0.06, other)


def fish(s: Scene) -> None:
    """Build a fish from the side: full body, flat tail and fins."""
    s.yaw, s.pitch = 30, (0, 15)
    main, fin = s.paint(*BRIGHT, fancy=0.3), s.paint(*BRIGHT, fancy=0)
    side = -1.0 if s.chance(0.5) else 1.0
    tall = s.between(0.32, 0.5)
    thick = tall * s.between(0.65, 0.72)
    s.add(ellipsoid(0.72, tall, thick), (side * 0.22, 0, 0), main)
    reach = s.between(0.3, 0.42)
    for up in (-1, 1):
        s.bone((-side * 0.4, 0, 0), (-side * 0.85, up * reach, 0), 0.1, 0.11, fin)
    s.bone((-side * 0.5, 0, 0), (-side * 0.8, 0, 0), 0.1, 0.12, fin, 0.08)
    s.bone((side * 0.3, tall * 0.8, 0), (-side * 0.1, tall + 0.14, 0), 0.12, 0.06, fin, 0.04)
    dark, white = s.paint(DARK, fancy=0), s.paint((1, 1, 1), fancy=0)
    for z in (-1, 1):
        at = (side * 0.62, tall * 0.22, z * thick * 0.78)
        s.eye(at, 0.12, white)
        s.eye((at[0], at[1], at[2] + z * 0.04), 0.07, dark)
        s.bone((side * 0.15, -0.1, z * thick * 0.9), (-side * 0.1, -0.25, z * (thick + 0.12)), 0.06, 0.06, fin)


def ring_toy(s: Scene) -> None:
    """Build a ring stood up: used by the primitives."""
    s.add(
        torus(s.between(0.55, 0.72), s.between(0.16, 0.28)),
        (0, 0, 0),
        s.paint(*BRIGHT, fancy=0.25),
        turn=None if s.chance(0.6) else ABOUT_X,
    )
