"""Things with hollows, thin parts and wheels: cups, crowns, anchors, umbrellas, slatted chairs, planes, figures.

Each family fills a Scene in its own frame, about two units large, no part thinner than 0.08. Knows no cameras.
"""

from __future__ import annotations

import numpy as np

from training.shapes.creatures import FUR, SKIN
from training.shapes.families import ABOUT_X, BRIGHT, DARK, GLASS, METAL, WOOD
from training.shapes.scene import Scene
from training.shapes.sdf import box, ellipsoid, rotation_about, tapered, torus

GOLD = (1.0, 0.78, 0.2)
WHITE = (0.95, 0.95, 0.95)


def cup(s: Scene) -> None:
    """Build an open cup, bowl or bucket with a thin wall, sometimes a handle, a saucer, a drink."""
    s.yaw, s.pitch = 40, (0, 28)
    main = s.paint(*BRIGHT, WHITE, WHITE, fancy=0.25)
    wide, high = s.between(0.45, 0.8), s.between(0.35, 0.75)
    foot = wide * s.between(0.5, 1.0)
    wall = s.between(0.07, 0.11)
    side = -1.0 if s.chance(0.4) else 1.0
    if s.chance(0.75):
        ring = high * s.between(0.5, 0.75)
        reach = (wide + foot) / 2 + s.between(-0.02, 0.08)
        s.add(torus(ring, s.between(0.06, 0.1)), (side * reach, s.between(-0.05, 0.1), 0), main)
    s.add(tapered(2 * high, foot, wide, 0.04), (0, 0, 0), main)
    drink = s.paint((0.35, 0.2, 0.1), (0.85, 0.6, 0.3), (0.95, 0.93, 0.88), (0.6, 0.15, 0.1), fancy=0)
    depth = s.between(0.15, 0.6) if s.chance(0.6) else 1.7
    s.add(
        tapered(2 * high, max(foot - wall, 0.1), wide - wall, 0.02), (0, 2 * high - depth * high, 0), drink, mode="cut"
    )
    if s.chance(0.4):
        plate = main if s.chance(0.7) else s.paint(*BRIGHT, fancy=0.1)
        big = wide * s.between(1.25, 1.6)
        s.add(tapered(0.14, big * 0.6, big, 0.03), (0, -high - 0.03, 0), plate)
        s.add(tapered(0.14, big * 0.5, big * 0.9, 0.02), (0, -high + 0.07, 0), plate, mode="cut")
        s.add(tapered(0.14, foot * 0.95, foot * 0.95, 0.02), (0, -high - 0.02, 0), plate)


def crown(s: Scene) -> None:
    """Build an open crown: a hollow band with points all round, balls and stones on them."""
    s.yaw, s.pitch = 30, (0, 25)
    gold = s.paint(GOLD, GOLD, *METAL, fancy=0.05)
    stone = s.paint(*BRIGHT, fancy=0)
    foot, top = s.between(0.65, 0.8), s.between(0.85, 1.0)
    count, wall = int(s.rng.integers(5, 9)), s.between(0.09, 0.13)
    band = s.between(0.35, 0.55)
    rise = s.between(0.35, 0.6)
    s.add(tapered(2 * band, foot, (foot + top) / 2, 0.02), (0, -0.3, 0), gold)
    s.add(tapered(2 * band + 0.4, foot - wall, (foot + top) / 2 - wall, 0.01), (0, -0.3, 0), gold, mode="cut")
    radius = (foot + top) / 2 - wall / 2
    start = s.between(0, 360) if s.chance(0.5) else 90.0
    for k in range(count):
        angle = np.radians(start + 360 * k / count)
        x, z = float(np.cos(angle)), float(np.sin(angle))
        low, high = radius - 0.02, top + 0.02
        base = (x * low, -0.3 + band - 0.1, z * low)
        tip = (x * high, -0.3 + band + rise, z * high)
        s.bone(base, tip, s.between(0.16, 0.2), 0.05, gold)
        s.add(ellipsoid(0.09, 0.09, 0.09), tip, stone if s.chance(0.5) else gold)
        s.eye((x * (foot + 0.08), -0.35, z * (foot + 0.08)), 0.12, stone)


def anchor(s: Scene) -> None:
    """Build an anchor: ring, stock, shank and two arms with flukes."""
    s.yaw, s.pitch = 25, (0, 12)
    iron = s.paint(*METAL, *BRIGHT, DARK, fancy=0.03)
    r = s.between(0.07, 0.1)
    s.add(torus(s.between(0.14, 0.2), s.between(0.05, 0.07)), (0, 0.82, 0), iron)
    s.bone((0, 0.68, 0), (0, -0.85, 0), r, r * 1.1, iron)
    wide = s.between(0.3, 0.45)
    s.bone((-wide, 0.42, 0), (wide, 0.42, 0), r * 0.85, r * 0.85, iron)
    reach = s.between(0.6, 0.8)
    last = (0.0, -0.85, 0.0)
    for k in range(1, 6):
        angle = np.radians(90 * k / 5 * 0.9)
        point = (float(np.sin(angle)) * reach, -0.85 + float(1 - np.cos(angle)) * reach * 0.8, 0.0)
        s.bones(last, point, r, r, iron)
        last = point
    s.bones((last[0] - 0.12, last[1] - 0.05, 0), (last[0] + 0.06, last[1] + 0.22, 0), 0.12, 0.05, iron)
    s.bones((last[0] + 0.1, last[1] - 0.12, 0), (last[0] + 0.02, last[1] + 0.2, 0), 0.1, 0.05, iron)


def wheel(s: Scene) -> None:
    """Build a wheel stood up: tyre or rim, hub, spokes; sometimes a ship's, with handles, or a cog."""
    s.yaw, s.pitch = 50, (0, 15)
    rim, spoke = s.paint(*WOOD, *BRIGHT, DARK, *METAL, fancy=0.05), s.paint(*WOOD, *METAL, *BRIGHT, fancy=0)
    ring, tube = s.between(0.62, 0.78), s.between(0.09, 0.2)
    count, kind = int(s.rng.integers(4, 9)), int(s.rng.integers(3))
    if kind == 0:
        s.add(torus(ring, tube), (0, 0, 0), rim)
    else:
        thick = s.between(0.16, 0.4)
        s.add(tapered(thick, ring + tube, ring + tube, 0.04), (0, 0, 0), rim, turn=ABOUT_X)
        s.add(
            tapered(thick + 0.4, ring - tube * 0.6, ring - tube * 0.6, 0.02), (0, 0, 0), rim, turn=ABOUT_X, mode="cut"
        )
    s.add(tapered(s.between(0.2, 0.4), 0.2, 0.2, 0.04), (0, 0, 0), spoke, turn=ABOUT_X)
    start = s.between(0, 360)
    for k in range(count):
        angle = np.radians(start + 360 * k / count)
        x, y = float(np.cos(angle)), float(np.sin(angle))
        end = ring + tube + 0.22 if kind == 1 and s.parts and count > 5 else ring
        s.bone((x * 0.1, y * 0.1, 0), (x * end, y * end, 0), 0.065, 0.065, spoke)


def slats(s: Scene) -> None:
    """Build a chair, bench or stool whose back is slats or rungs, sometimes with arms and cross bars."""
    s.yaw, s.pitch = 45, (0, 24)
    main = s.paint(*WOOD, *WOOD, *BRIGHT)
    seat_paint = main if s.chance(0.6) else s.paint(*BRIGHT, *WOOD, fancy=0.05)
    wide = s.between(0.45, 0.6) if s.chance(0.7) else s.between(0.75, 0.95)
    deep, seat = s.between(0.42, 0.55), s.between(-0.2, 0.0)
    r = s.between(0.05, 0.075)
    s.add(box(wide, s.between(0.05, 0.09), deep, 0.03), (0, seat, 0), seat_paint)
    s.pair(box(r, (seat + 0.95) / 2, r, 0.02), (wide - r, (seat - 0.95) / 2, deep - r), main)
    s.pair(box(r, (seat + 0.95) / 2, r, 0.02), (wide - r, (seat - 0.95) / 2, -deep + r), main)
    if s.chance(0.5):
        low = s.between(-0.75, -0.5)
        s.pair(box(0.045, 0.045, deep, 0.01), (wide - r, low, 0), main)
        s.add(box(wide, 0.045, 0.045, 0.01), (0, low, 0), main)
    if s.chance(0.12):
        return
    back = s.between(0.75, 1.0)
    top = seat + back
    s.pair(box(r, back / 2, r, 0.02), (wide - r, seat + back / 2, -deep + r), main)
    s.add(box(wide, s.between(0.06, 0.12), r, 0.02), (0, top - 0.08, -deep + r), main)
    thin = s.between(0.045, 0.065)
    if s.chance(0.55):
        n = int(s.rng.integers(2, 5)) if wide < 0.7 else int(s.rng.integers(4, 7))
        for k in range(n):
            x = (2 * (k + 1) / (n + 1) - 1) * (wide - r)
            s.add(box(thin, back / 2, 0.045, 0.01), (x, seat + back / 2 - 0.05, -deep + r), main)
    else:
        n = int(s.rng.integers(2, 4))
        for k in range(n):
            s.add(box(wide - r, thin, 0.045, 0.01), (0, seat + back * (k + 1) / (n + 1), -deep + r), main)
    if s.chance(0.25):
        s.pair(box(r, 0.045, deep, 0.02), (wide - r, seat + 0.35, 0), main)
        s.pair(box(r, 0.18, r, 0.02), (wide - r, seat + 0.18, deep - r), main)


def umbrella(s: Scene) -> None:
    """Build an umbrella or parasol: a hollow cap with segments, a stick and a crook."""
    s.yaw, s.pitch = 30, (-8, 15)
    cloth, stick = s.paint(*BRIGHT, fancy=0.3), s.paint(*WOOD, *METAL, DARK, fancy=0)
    wide, tall = s.between(0.85, 1.0), s.between(0.5, 0.8)
    s.add(ellipsoid(wide, tall, wide), (0, 0.15, 0), cloth)
    s.add(ellipsoid(wide - 0.09, tall - 0.09, wide - 0.09), (0, 0.12, 0), cloth, mode="cut")
    s.add(box(2, 1, 2), (0, -0.85, 0), cloth, mode="cut")
    r = s.between(0.045, 0.065)
    s.bone((0, 0.15 + tall + 0.06, 0), (0, -0.8, 0), r, r, stick)
    if s.chance(0.75):
        side = -1.0 if s.chance(0.5) else 1.0
        bend = s.between(0.12, 0.18)
        last = (0.0, -0.8, 0.0)
        for k in range(1, 6):
            angle = np.pi * k / 5
            point = (side * bend * float(1 - np.cos(angle)), -0.8 - bend * float(np.sin(angle)), 0.0)
            s.bone(last, point, r, r, stick)
            last = point
    if s.chance(0.3):
        lean = rotation_about(2, s.between(-35, 35))
        s.parts[:] = [type(p)(p.solid, lean @ p.centre, lean @ p.rotation, p.paint, p.mode, p.smooth) for p in s.parts]


def beast(s: Scene) -> None:
    """Build a four-legged animal from any side: body, neck, head, muzzle, legs, ears or horns, tail."""
    s.yaw, s.pitch = 40, (0, 18)
    fur = s.paint(*FUR, *FUR, *BRIGHT, fancy=0.15)
    other = fur if s.chance(0.55) else s.paint(*FUR, fancy=0)
    dark = s.paint(DARK, fancy=0)
    ahead = s.chance(0.3)
    turn = rotation_about(1, s.between(-70, -40) if ahead else 0)
    side = -1.0 if s.chance(0.5) else 1.0

    def put(x: float, y: float, z: float) -> tuple[float, float, float]:
        p = turn @ np.array([side * x, y, z])
        return float(p[0]), float(p[1]), float(p[2])

    long, fat, leg = s.between(0.35, 0.6), s.between(0.2, 0.36), s.between(0.3, 0.75)
    rear = fat * s.between(0.85, 1.1)
    s.bone(put(-long, 0, 0), put(long, s.between(-0.05, 0.1), 0), rear, fat, fur)
    thick = s.between(0.07, 0.13)
    for x, step in ((-long - 0.02, s.between(-0.15, 0.1)), (long + 0.02, s.between(-0.1, 0.15))):
        for z in (-fat * 0.55, fat * 0.55):
            stride = step * (1 if z > 0 else -1) if s.chance(0.4) else 0.0
            s.bone(put(x, -0.08, z), put(x + stride, -fat - leg * 0.9, z), thick * 1.3, thick, other, 0.05)
            s.bone(
                put(x + stride, -fat - leg, z), put(x + stride + 0.06, -fat - leg, z), thick * 0.95, thick * 0.9, other
            )
    neck = s.between(0.1, 0.7)
    hx, hy, r = long + fat * 0.5 + s.between(0.1, 0.3), fat * 0.6 + neck, s.between(0.17, 0.28)
    s.bone(put(long, 0.08, 0), put(hx, hy, 0), fat * 0.7, r * 0.75, fur, 0.06)
    s.bone(put(hx - 0.03, hy, 0), put(hx + 0.06, hy, 0), r, r * 0.9, fur, 0.05)
    nose = s.between(0.08, 0.3)
    s.bone(put(hx, hy - 0.05, 0), put(hx + r + nose, hy - s.between(0.08, 0.2), 0), r * 0.65, r * 0.42, fur, 0.04)
    s.eye(put(hx + r + nose + r * 0.35, hy - 0.1, 0), 0.07, dark)
    ear, horned = s.between(0.1, 0.34), s.chance(0.3)
    for z in (-1, 1):
        start = put(hx - 0.04, hy + r * 0.7, z * r * 0.6)
        s.bone(start, put(hx - 0.1, hy + r * 0.8 + ear, z * r * s.between(0.8, 1.6)), 0.08, 0.055, other)
        if horned:
            s.bone(put(hx, hy + r * 0.8, z * r * 0.35), put(hx + 0.06, hy + r + 0.3, z * r * 0.8), 0.065, 0.045, dark)
        s.eye(put(hx + r * 0.6, hy + r * 0.3, z * r * 0.7), 0.055, dark)
    if s.chance(0.3):
        s.bone(put(long, fat * 0.9, 0), put(hx - r * 0.9, hy + r * 0.5, 0), 0.09, 0.09, s.paint(*FUR, DARK, fancy=0))
    up = s.between(-0.5, 0.5)
    s.bone(put(-long - rear * 0.8, 0.08, 0), put(-long - rear - 0.25, 0.1 + up, 0), 0.075, s.between(0.05, 0.12), other)


def figure(s: Scene) -> None:
    """Build a character: large head, hair in several cuts or a hat, clothes, arms that pose."""
    s.yaw, s.pitch = 35, (0, 14)
    skin, hair = s.paint(*SKIN, fancy=0), s.paint(DARK, WOOD[1], (0.95, 0.8, 0.35), (0.7, 0.3, 0.15), *BRIGHT, fancy=0)
    shirt, legs = s.paint(*BRIGHT, fancy=0.25), s.paint(*BRIGHT, DARK, (0.25, 0.3, 0.55), fancy=0.05)
    dark, shoes = s.paint(DARK, fancy=0), s.paint(DARK, *WOOD, *BRIGHT, fancy=0)
    r = s.between(0.22, 0.42)
    top = 1.0 - r
    s.add(ellipsoid(r, r * s.between(0.95, 1.12), r * 0.95), (0, top, 0), skin)
    shoulder, hip = top - r - 0.05, s.between(-0.4, -0.1)
    wide = s.between(0.2, 0.32)
    s.add(box(wide, (shoulder - hip) / 2 + 0.05, wide * 0.62, 0.1), (0, (shoulder + hip) / 2, 0), shirt, smooth=0.04)
    s.bone((0, shoulder - 0.05, 0), (0, top - r * 0.7, 0), 0.1, 0.1, skin)
    kind = int(s.rng.integers(4))
    if kind == 0:
        low = s.between(-0.85, -0.45)
        s.add(
            tapered(hip - low + 0.25, wide * s.between(1.5, 2.1), wide * 0.9, 0.03),
            (0, (hip + low) / 2 + 0.1, 0),
            shirt,
        )
    foot = s.between(0.12, 0.22)
    s.bones((wide * 0.5, hip, 0), (foot, -0.88, 0), 0.12, 0.1, legs if kind != 0 else skin)
    s.bones((foot, -0.9, 0), (foot + 0.02, -0.92, 0.13), 0.1, 0.09, shoes)
    for side in (-1.0, 1.0):
        turn = rotation_about(2, s.between(-80, 60) if s.chance(0.5) else s.between(-80, -55))
        reach = turn[:, 0] * s.between(0.42, 0.58)
        start = (side * (wide - 0.02), shoulder - 0.05, 0.0)
        elbow = (side * (wide + 0.55 * float(reach[0])), shoulder - 0.05 + 0.55 * float(reach[1]), 0.02)
        bend = s.between(-0.15, 0.25)
        hand = (side * (wide + float(reach[0])), shoulder - 0.05 + float(reach[1]) + bend * 0.6, max(bend, 0.0))
        s.bone(start, elbow, 0.095, 0.085, shirt)
        s.bone(elbow, hand, 0.075, 0.07, shirt if s.chance(0.5) else skin)
        s.add(ellipsoid(0.09, 0.09, 0.09), hand, skin)
    s.eyes((r * 0.38, top + r * 0.05, r * 0.85), r * 0.16, dark)
    _hair(s, r, top, hair)


def _hair(s: Scene, r: float, top: float, hair: int) -> None:
    """Put hair or a hat on a head of radius r about (0, top, 0)."""
    kind = int(s.rng.integers(6))
    if kind < 4:
        s.add(ellipsoid(r * 1.12, r * 1.1, r * 1.1), (0, top + r * 0.2, -r * 0.22), hair)
    if kind == 1:
        s.bones(
            (r * 0.85, top, -r * 0.2), (r * 1.0, top - r * s.between(0.9, 1.8), -r * 0.15), r * 0.35, r * 0.25, hair
        )
        s.add(box(r, r * 0.9, r * 0.3, 0.1), (0, top - r * 0.5, -r * 0.75), hair)
    elif kind == 2:
        s.bone((0, top + r * 0.4, -r), (0, top - r * s.between(0.2, 1.2), -r * 1.5), r * 0.35, r * 0.2, hair)
    elif kind == 3:
        for x in (-0.5, 0.0, 0.5):
            s.bone((x * r, top + r * 0.9, 0), (x * r * 1.7, top + r * 1.45, 0), r * 0.3, 0.05, hair)
    elif kind == 4:
        s.add(tapered(0.09, r * 1.6, r * 1.5, 0.02), (0, top + r * 0.55, 0), hair)
        s.add(tapered(r * 1.0, r * 1.0, r * 0.8, 0.05), (0, top + r * 0.95, 0), hair)
    else:
        s.add(tapered(r * 2.2, r * 1.05, 0.06, 0.03), (0, top + r * 1.5, 0), hair)
        s.add(ellipsoid(r * 0.22, r * 0.22, r * 0.22), (0, top + r * 2.6, 0), s.paint(WHITE, *BRIGHT, fancy=0))


def jet(s: Scene) -> None:
    """Build an aeroplane in the air, from anywhere: swept wings, engines or a propeller, tail."""
    s.yaw, s.pitch = 60, (-15, 45)
    body = s.paint(WHITE, WHITE, *BRIGHT, *METAL, fancy=0.05)
    wing = body if s.chance(0.4) else s.paint(*BRIGHT, *METAL, fancy=0)
    r, high = s.between(0.13, 0.2), s.chance(0.25)
    s.add(ellipsoid(0.98, r, r), (0, 0, 0), body)
    s.bone((-0.6, 0, 0), (0.6, 0, 0), r * 0.85, r * 0.9, body, 0.05)
    span, sweep = s.between(0.65, 0.95), s.between(0.0, 0.5)
    y = r * 0.6 if high else -r * 0.3
    root, tip = s.between(0.16, 0.24), s.between(0.07, 0.13)
    for side in (-1.0, 1.0):
        turn = rotation_about(1, side * float(np.degrees(np.arctan2(sweep, span))))
        s.add(box((root + tip) / 2, 0.05, span / 2, 0.03), (0.12 - sweep / 2, y, side * span / 2), wing, turn=turn)
        s.add(box(0.1, 0.05, 0.18, 0.03), (-0.85, 0.06, side * 0.2), wing)
        if s.chance(0.5):
            s.bone(
                (0.2 - sweep * 0.45, y - 0.12, side * span * 0.45),
                (-0.05 - sweep * 0.45, y - 0.12, side * span * 0.45),
                0.09,
                0.07,
                wing,
            )
    s.add(box(0.13, 0.2, 0.05, 0.03), (-0.85, r + 0.15, 0), wing, turn=rotation_about(2, 18))
    if s.chance(0.3):
        s.add(box(0.05, s.between(0.25, 0.35), 0.06, 0.02), (0.98, 0, 0), s.paint(DARK, *METAL, fancy=0))
    glass = s.paint(GLASS, DARK, fancy=0)
    s.eye((0.75, r * 0.7, 0), 0.14, glass)
    for x in np.arange(-0.5, 0.7, 0.17):
        for side in (-1, 1):
            s.eye((float(x), 0.05, side * r), 0.045, glass)


def cart(s: Scene) -> None:
    """Build a car, pickup, tractor or cart with round wheels that stand off its body."""
    s.yaw, s.pitch = 50, (0, 22)
    main, extra = s.paint(*BRIGHT, fancy=0.05), s.paint(*BRIGHT, DARK, *METAL, fancy=0)
    glass, tyre, rim = s.paint(GLASS, DARK, fancy=0), s.paint(DARK, fancy=0), s.paint(*METAL, *BRIGHT, fancy=0)
    wide, side, kind = s.between(0.3, 0.42), (-1.0 if s.chance(0.5) else 1.0), int(s.rng.integers(4))
    front, rear = s.between(0.18, 0.26), s.between(0.18, 0.26)
    if kind == 0:
        s.add(box(0.92, 0.18, wide, 0.08), (0, 0, 0), main)
        s.add(tapered(0.36, 0.72, 0.46, 0.05, sides=4), (-side * 0.08, 0.3, 0), glass, turn=rotation_about(1, 45))
        s.add(box(2, 2, 1), (0, 0, wide + 0.98), main, mode="cut")
        s.add(box(2, 2, 1), (0, 0, -wide - 0.98), main, mode="cut")
    elif kind == 1:
        s.add(box(0.95, 0.17, wide, 0.06), (0, 0, 0), main)
        s.add(box(0.28, 0.22, wide * 0.95, 0.08), (side * 0.15, 0.32, 0), main)
        s.add(box(0.19, 0.13, 1), (side * 0.15, 0.33, 0), glass, mode="decal")
        s.add(box(0.42, 0.3, wide - 0.08), (-side * 0.52, 0.24, 0), extra, mode="cut")
    elif kind == 2:
        rear = s.between(0.38, 0.48)
        s.add(box(0.5, 0.2, wide * 0.6, 0.08), (side * 0.35, 0.1, 0), main)
        s.add(box(0.3, 0.45, wide * 0.75, 0.06), (-side * 0.35, 0.35, 0), main)
        s.add(box(0.2, 0.18, 1), (-side * 0.35, 0.5, 0), glass, mode="decal")
        s.bone((side * 0.5, 0.2, 0), (side * 0.5, 0.65, 0), 0.06, 0.06, extra)
    else:
        s.add(box(0.8, 0.3, wide, 0.03), (0, 0.15, 0), main)
        s.add(box(0.71, 0.3, wide - 0.09), (0, 0.3, 0), extra, mode="cut")
        s.bone((side * 0.75, 0.0, 0), (side * 1.25, s.between(0.1, 0.5), 0), 0.06, 0.06, extra)
    base = -0.18
    for x, r in ((side * 0.58, front), (-side * 0.55, rear)):
        y = base - 0.05 + (r - front if kind == 2 else 0.0)
        for z in (-1, 1):
            s.add(tapered(0.17, r, r, 0.03), (x, y, z * (wide + 0.02)), tyre, turn=ABOUT_X)
            s.eye((x, y, z * (wide + 0.12)), r * 0.5, rim)
        s.add(tapered(2 * wide, 0.07, 0.07, 0.01), (x, y, 0), tyre, turn=ABOUT_X)


def hollow(s: Scene) -> None:
    """Build a basket, crate, open book box, barrel or vase: thin walls that one looks into."""
    s.yaw, s.pitch = 40, (8, 32)
    main, inner = s.paint(*WOOD, *BRIGHT, fancy=0.2), s.paint(*WOOD, DARK, *BRIGHT, fancy=0)
    wall, kind = s.between(0.07, 0.12), int(s.rng.integers(3))
    wide, high = s.between(0.6, 0.9), s.between(0.35, 0.65)
    if kind == 0:
        deep = s.between(0.45, 0.7)
        s.add(box(wide, high, deep, 0.03), (0, 0, 0), main)
        s.add(box(wide - wall, high, deep - wall, 0.01), (0, wall * 1.5 + s.between(0, high), 0), inner, mode="cut")
    elif kind == 1:
        s.add(ellipsoid(wide, high * 1.5, wide), (0, 0, 0), main)
        s.add(box(2, 1, 2), (0, 1.05 + s.between(-0.1, 0.25), 0), main, mode="cut")
        s.add(ellipsoid(wide - wall, high * 1.5 - wall, wide - wall), (0, 0, 0), inner, mode="cut")
        s.add(tapered(0.2, wide * 0.5, wide * 0.5, 0.03), (0, -high * 1.5 + 0.05, 0), main)
    else:
        s.add(tapered(2 * high, wide * 0.75, wide, 0.03), (0, 0, 0), main)
        s.add(tapered(2 * high, wide * 0.75 - wall, wide - wall, 0.01), (0, wall * 1.5, 0), inner, mode="cut")
    if s.chance(0.4):
        last = (wide * 0.9, high * 0.8, 0.0)
        for k in range(1, 9):
            angle = np.pi * k / 8
            point = (wide * 0.9 * float(np.cos(angle)), high * 0.8 + 0.6 * float(np.sin(angle)), 0.0)
            s.bone(last, point, 0.06, 0.06, main)
            last = point


FAMILIES = (cup, crown, anchor, wheel, slats, umbrella, beast, figure, jet, cart, hollow)
