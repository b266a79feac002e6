"""Where a mesh stands: levelled, pressed flat under its foot, and moved onto the ground plane.

A checkpoint whose meshes are turned as the object is in its image (view-aligned) makes them lean by the camera's pitch:
about the X axis, which runs to the image's right. That is undone by what lies under the object: of all turns within
35 degrees the one is taken in which the most area is held by what is lowest, if the object then stands and that under
side is flat, or wide; or else the one that sets a long object's axis upright, or near it, where its feet are level.
Where neither is to be had the mesh stays as it is.

A reconstructed foot is never quite flat, and a chair's legs are not of one length: the lowest 5 % at most are pressed
together, evenly, so that what a printer lays down first is the foot and not three points. Pressing is a monotone map of
heights: nothing tears or crosses.

This module does not know colors, units, or what is printed. World frame: Y up, the ground is the plane y = 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import trimesh
from numpy.typing import NDArray

from backend.hunyuan3d.mesh.ops import require_usable
from backend.hunyuan3d.mesh.topology import Vertices, used_bounds
from backend.limits import Place, Upright

Level = Literal["under side", "axis"]
Hull = NDArray[np.float32]

_MOST_DEGREES = 35.0
_COARSE, _FINE = 2.5, 0.5
# Shares of the longest side: how far above the lowest point something still counts as what the object stands on.
_CONTACT = (0.01, 0.02, 0.03)
_FOOT = 0.05
# The middle of the mass may be so far outside of what it stands on: a foot that is pressed flat is wider.
_TOPPLES = -0.09
# How much of what is within the foot's highest contact must lie in the lowest; the more, the more the mesh is turned.
_FLAT, _FLATTER_BY_DEGREE = 0.45, 0.006
# What stands so wide stands, though one of its feet is shorter.
_WIDE_SCORE, _WIDE_FOOT = 1.0, 0.6
_LONG, _UPRIGHT_AXIS = 1.4, 0.8
# How far from an upright axis the feet are looked for, and how much more they must hold than without; how far where
# they hold no more but can be pressed level.
_NEAR_AXIS, _BETTER, _BESIDE = 12.0, 1.1, 3.0
_PRESSED = (0.0, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.045, 0.05)
_ENOUGH_FOOT = 0.65
_PRESSED_TO = 0.0004
_FINE_CELLS, _COARSE_CELLS = 128, 40
# Halfway between two of these turns a point a side away has risen by a twentieth: what is higher than that and the foot
# cannot touch.
_BETWEEN, _MAY_TOUCH = 5.0, 0.1


@dataclass(frozen=True)
class Placement:
    """What was done to a mesh to place it.

    turned_degrees : about X, positive where what is on top came towards the camera. leveled_by : what was levelled by,
    None where nothing was. pressed : height of what was pressed flat, as a share of the longest side. leans : whether
    it should have been levelled and could not.
    """

    place: Place
    turned_degrees: float = 0.0
    leveled_by: Level | None = None
    pressed: float = 0.0
    leans: bool = False


def place_mesh(
    mesh: trimesh.Trimesh, place: Place, upright: Upright, *, view_aligned: bool
) -> tuple[trimesh.Trimesh, Placement]:
    """Return the mesh, levelled with upright "auto" and moved as `place` says, and what was done; faces stay.

    view_aligned : whether it leans by the camera's pitch. With "as_is" and "off" the same object comes back.
    Raises InvalidMesh.
    """
    vertices, faces = require_usable(mesh)
    done = Placement(place)
    if upright == "auto" and view_aligned:
        vertices, done = _leveled(mesh, vertices, place)
    if place != "as_is":
        low, high = used_bounds(vertices, faces)
        middle = (low + high) / 2
        vertices = vertices - [middle[0], low[1] if place == "ground" else middle[1], middle[2]]
    if upright == "auto" and place == "ground":
        vertices, pressed = _pressed(vertices)
        done = Placement(place, done.turned_degrees, done.leveled_by, pressed, done.leans)
    if vertices is mesh.vertices or (place == "as_is" and done.turned_degrees == 0):
        return mesh, done
    return trimesh.Trimesh(vertices, faces, process=False), done


def _leveled(mesh: trimesh.Trimesh, vertices: Vertices, place: Place) -> tuple[Vertices, Placement]:
    outline = _Outline.of(mesh, vertices)
    degrees = _by_under_side(outline)
    level: Level | None = "under side"
    if degrees is None:
        degrees, level = _by_axis(outline), "axis"
    if degrees is None:
        return vertices, Placement(place, leans=True)
    if degrees == 0:
        return vertices, Placement(place, leveled_by=level)
    return _turned(vertices, degrees), Placement(place, degrees, level)


def _by_under_side(outline: _Outline) -> float | None:
    """Return the turn after which the object stands on the most, None where it stands on nothing flat."""
    coarse = np.arange(-_MOST_DEGREES, _MOST_DEGREES + _COARSE / 2, _COARSE)
    best = max(coarse, key=lambda degrees: _Stand.of(outline, degrees).score)
    fine = np.arange(max(best - _COARSE, -_MOST_DEGREES), min(best + _COARSE, _MOST_DEGREES) + _FINE / 2, _FINE)
    found = max((_Stand.of(outline, degrees) for degrees in fine), key=lambda stand: stand.score)
    flat = found.flatness >= _FLAT + _FLATTER_BY_DEGREE * abs(found.degrees)
    wide = found.score >= _WIDE_SCORE and found.foot >= _WIDE_FOOT
    return _pressable(outline, found.degrees) if found.score > 0 and (flat or wide) else None


def _by_axis(outline: _Outline) -> float | None:
    """Return the turn that sets the longest axis upright, or nearly, if more feet are level then.

    None where no axis is much the longest, or it is far from upright.
    """
    spread, axes = np.linalg.eigh(np.cov(outline.points.T))
    axis = axes[:, -1] * (1 if axes[1, -1] >= 0 else -1)
    if spread[-1] < _LONG**2 * spread[-2] or axis[1] < _UPRIGHT_AXIS:
        return None
    degrees = round(-math.degrees(math.atan2(axis[2], axis[1])), 1)
    if abs(degrees) > _MOST_DEGREES:
        return None
    near = np.clip(degrees + np.arange(-_NEAR_AXIS, _NEAR_AXIS + 0.5), -_MOST_DEGREES, _MOST_DEGREES)
    best = max((_Stand.of(outline, turn) for turn in near), key=lambda stand: stand.foot)
    return best.degrees if best.foot > _BETTER * _Stand.of(outline, degrees).foot else _pressable(outline, degrees)


def _pressable(outline: _Outline, degrees: float) -> float:
    """Return a turn a little beside, the nearest, where the feet cannot be pressed level after the given one."""
    steps = sorted(np.arange(-_BESIDE, _BESIDE + 0.5), key=abs)
    turns = [float(degrees + step) for step in steps if abs(degrees + step) <= _MOST_DEGREES]
    standing = (turn for turn in turns if _enough_pressing(_turned(outline.low, turn), outline.longest) is not None)
    return next(standing, degrees)


@dataclass(frozen=True, eq=False)
class _Outline:
    """The points of a mesh that decide how it stands.

    points : (P, 3), coarse, for its extent. low : (Q, 3), those that may be near the ground after a turn. middle :
    (1, 3), of its mass. longest : its longest side.
    """

    points: Vertices
    low: Vertices
    middle: Vertices
    longest: float

    @classmethod
    def of(cls, mesh: trimesh.Trimesh, vertices: Vertices) -> _Outline:
        """Choose them."""
        fine = _thinned(vertices, _FINE_CELLS)
        longest = max(float(np.ptp(vertices, axis=0).max()), 1e-12)
        low = np.zeros(len(fine), np.bool_)
        for degrees in np.arange(-_MOST_DEGREES, _MOST_DEGREES + 1, _BETWEEN):
            height = _turned(fine, degrees)[:, 1]
            low |= height <= height.min() + _MAY_TOUCH * longest
        return cls(_thinned(vertices, _COARSE_CELLS), fine[low], _middle_of_mass(mesh), longest)


@dataclass(frozen=True)
class _Stand:
    """How an object stands after a turn.

    score : what it stands on, as a share of what it covers from above, over several heights; 0 where it would topple.
    foot : the same of the highest of heights. flatness : how much is reached in the lowest height already, 0 to 1.
    """

    degrees: float
    score: float
    foot: float
    flatness: float

    @classmethod
    def of(cls, outline: _Outline, degrees: float) -> _Stand:
        """Measure an outline."""
        points, weight = _turned(outline.low, degrees), _turned(outline.middle, degrees)[0]
        height = points[:, 1] - points[:, 1].min()
        covered = max(cv2.contourArea(_hull(_turned(outline.points, degrees))), 1e-12)
        areas = [cv2.contourArea(_hull(points[height <= share * outline.longest])) / covered for share in _CONTACT]
        foot = _hull(points[height <= _FOOT * outline.longest])
        outside = cv2.pointPolygonTest(foot, (float(weight[0]), float(weight[2])), True)
        flatness = areas[0] / max(areas[-1], 1e-12)
        if outside < _TOPPLES * outline.longest:
            return cls(float(degrees), 0.0, 0.0, flatness)
        return cls(float(degrees), sum(areas), cv2.contourArea(foot) / covered, flatness)


def _pressed(vertices: Vertices) -> tuple[Vertices, float]:
    """Press what is lowest together until it holds most of the foot; return vertices, and that height as a share."""
    height = vertices[:, 1]
    longest = float(np.ptp(vertices, axis=0).max())
    share = _enough_pressing(vertices, longest)
    if share is None or share <= _PRESSED_TO:
        return vertices, 0.0
    limit, kept = share * longest, _PRESSED_TO * longest
    moved = vertices.copy()
    moved[:, 1] = np.where(height < limit, height * (kept / limit), height - limit + kept)
    return moved, share


def _enough_pressing(points: Vertices, longest: float) -> float | None:
    """Return the height, a share of the longest side, up to which points (P, 3) hold most of the foot above it.

    None where that is too high.
    """
    height = points[:, 1] - points[:, 1].min()
    for share in _PRESSED:
        limit = max(share, _PRESSED_TO) * longest
        foot = cv2.contourArea(_hull(points[height <= limit + _FOOT * longest]))
        if cv2.contourArea(_hull(points[height <= limit])) >= _ENOUGH_FOOT * foot:
            return share
    return None


def _hull(points: Vertices) -> Hull:
    """Return the convex hull of points (P, 3) as seen from above."""
    hull: Hull = cv2.convexHull(np.ascontiguousarray(points[:, [0, 2]], np.float32))
    return hull


def _turned(vertices: Vertices, degrees: float) -> Vertices:
    """Turn about X: up comes towards the camera, +Z, for positive degrees."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y, z = vertices.T
    return np.stack([x, c * y - s * z, s * y + c * z], axis=1)


def _thinned(vertices: Vertices, cells: int) -> Vertices:
    """Keep one vertex of each of so many cells along the longest side."""
    low, longest = vertices.min(axis=0), max(float(np.ptp(vertices, axis=0).max()), 1e-12)
    cell = ((vertices - low) * (cells / longest)).astype(np.int64)
    key = (cell[:, 0] * (cells + 1) + cell[:, 1]) * (cells + 1) + cell[:, 2]
    return vertices[np.unique(key, return_index=True)[1]]


def _middle_of_mass(mesh: trimesh.Trimesh) -> Vertices:
    """Return the middle of the volume, or of the vertices where the surface encloses none, as (1, 3)."""
    found = np.asarray(mesh.center_mass, dtype=np.float64)
    inside = np.isfinite(found).all() and (found >= mesh.bounds[0]).all() and (found <= mesh.bounds[1]).all()
    return (found if inside else mesh.vertices.mean(axis=0)).reshape(1, 3)
