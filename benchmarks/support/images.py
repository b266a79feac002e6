"""Synthetic photographs with known masks: shaded objects, backdrops, soft shadows and what a camera does to them.

Everything is drawn at twice the size and averaged down, so masks have true anti-aliased edges. This module does not
know how backgrounds are removed; it knows only what was drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Photograph:
    """One drawn picture: image (H, W, 3) uint8 sRGB, mask (H, W) float in [0, 1], and the IoU a cutter must reach."""

    name: str
    image: npt.NDArray[np.uint8]
    mask: Array
    least_iou: float


class Scene:
    """A picture under construction; x runs right and y down, the picture's half height is 1, colours are 0..1 sRGB."""

    def __init__(self, backdrop: Colour, seed: int, width: int = 640, height: int = 480) -> None:
        self.random = np.random.default_rng(seed)
        self.width, self.height = width, height
        rows, columns = np.mgrid[0 : 2 * height, 0 : 2 * width].astype(np.float32)
        self.x: Array = (columns + 0.5 - width) / height
        self.y: Array = (rows + 0.5 - height) / height
        self.image: Array = np.tile(_values(backdrop), (2 * height, 2 * width, 1))
        self.mask: Array = np.zeros((2 * height, 2 * width), np.float32)

    def light(self, factor: Array) -> None:
        """Multiply what is drawn so far by a light field (2H, 2W)."""
        self.image *= factor[..., None]

    def shadow(self, centre: tuple[float, float], radii: tuple[float, float], strength: float, softness: float) -> None:
        """Darken an ellipse with a blurred edge; softness is the blur's sigma in half heights."""
        inside = ellipse(self, centre, radii)
        blurred = cv2.GaussianBlur(inside, (0, 0), softness * self.height)
        self.light(1 - strength * blurred.astype(np.float32))

    def paint(self, cover: Array, colour: Array | Colour, shade: Array | float = 1.0) -> None:
        """Lay an object over the picture: cover (2H, 2W) in [0, 1], colour times shade."""
        values = np.clip(_values(colour) * _values(shade)[..., None], 0, 1)
        self.image = self.image * (1 - cover[..., None]) + values * cover[..., None]
        self.mask = np.maximum(self.mask, cover)

    def wear(self, cover: Array, colour: Array | Colour) -> None:
        """Paint a decoration that changes no mask: a stain on the backdrop or a print on the object."""
        self.image = self.image * (1 - cover[..., None]) + _values(colour) * cover[..., None]

    def shoot(
        self, name: str, least_iou: float, *, blur: float = 0.0, noise: float = 1.5, jpeg: int | None = None
    ) -> Photograph:
        """Average down, defocus (sigma in pixels), add sensor noise (sigma in grey levels) and JPEG loss."""
        size = (self.width, self.height)
        image = cv2.resize(self.image, size, interpolation=cv2.INTER_AREA) * 255
        mask = cv2.resize(self.mask, size, interpolation=cv2.INTER_AREA)
        if blur:
            image, mask = cv2.GaussianBlur(image, (0, 0), blur), cv2.GaussianBlur(mask, (0, 0), blur)
        image = image + self.random.normal(0, noise, image.shape)
        pixels = np.clip(np.rint(image), 0, 255).astype(np.uint8)
        if jpeg is not None:
            coded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, jpeg])[1]
            pixels = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), dtype=np.uint8)[..., ::-1]
        return Photograph(name, np.ascontiguousarray(pixels), mask.astype(np.float32), least_iou)


def _values(values: npt.ArrayLike) -> Array:
    return np.asarray(values, dtype=np.float32)


def ellipse(scene: Scene, centre: tuple[float, float], radii: tuple[float, float]) -> Array:
    """Return the cover of an axis-aligned ellipse."""
    across = (scene.x - centre[0]) / radii[0]
    down = (scene.y - centre[1]) / radii[1]
    return _values(across**2 + down**2 < 1)


def box(scene: Scene, left: float, top: float, right: float, bottom: float) -> Array:
    """Return the cover of an axis-aligned rectangle."""
    inside = (scene.x > left) & (scene.x < right) & (scene.y > top) & (scene.y < bottom)
    return _values(inside)


def polygon(scene: Scene, corners: list[tuple[float, float]]) -> Array:
    """Return the cover of a polygon given by its corners."""
    cover = np.zeros(scene.x.shape, np.uint8)
    points = np.array([[x * scene.height + scene.width, y * scene.height + scene.height] for x, y in corners])
    cv2.fillPoly(cover, [np.rint(points).astype(np.int32)], 1)
    return _values(cover)


def ball_shade(scene: Scene, centre: tuple[float, float], radius: float, ambient: float = 0.35) -> Array:
    """Return the Lambert shading of a ball lit from the upper left."""
    x, y = (scene.x - centre[0]) / radius, (scene.y - centre[1]) / radius
    z = np.sqrt(np.clip(1 - x**2 - y**2, 0, 1))
    shade = ambient + (1 - ambient) * np.clip((-0.5 * x - 0.6 * y + 0.62 * z), 0, 1)
    return _values(shade)


def cylinder_shade(scene: Scene, centre: float, radius: float, ambient: float = 0.5) -> Array:
    """Return the Lambert shading of an upright cylinder lit from the left front."""
    x = np.clip((scene.x - centre) / radius, -1, 1)
    shade = ambient + (1 - ambient) * np.clip(-0.5 * x + 0.87 * np.sqrt(1 - x**2), 0, 1)
    return _values(shade)


def texture(scene: Scene, grain: float) -> Array:
    """Return a smooth random field in [-1, 1]; grain is its feature size in half heights."""
    field = _values(cv2.GaussianBlur(scene.random.normal(0, 1, scene.x.shape), (0, 0), grain * scene.height))
    return _values(np.clip(field / (2.5 * field.std()), -1, 1))


def _vignette(scene: Scene, strength: float) -> Array:
    return (1 - strength * (scene.x**2 + scene.y**2) / 2.8).astype(np.float32)


def _mug(scene: Scene, colour: Colour) -> None:
    scene.shadow((0.15, 0.62), (0.62, 0.1), 0.45, 0.06)
    handle = ellipse(scene, (0.47, 0.05), (0.34, 0.36)) - ellipse(scene, (0.47, 0.05), (0.22, 0.24))
    scene.paint(np.maximum(handle, 0) * (scene.x > 0.3), colour, 0.75)
    shade = cylinder_shade(scene, 0, 0.45)
    scene.paint(np.maximum(box(scene, -0.45, -0.5, 0.45, 0.55), ellipse(scene, (0, 0.55), (0.45, 0.1))), colour, shade)
    scene.paint(ellipse(scene, (0, -0.5), (0.45, 0.1)), colour, 0.9)
    scene.wear(ellipse(scene, (0, -0.49), (0.41, 0.075)), (0.2, 0.13, 0.1))


def mug() -> Photograph:
    """Draw a blue mug on light grey; the hole of its handle shows the backdrop."""
    scene = Scene((0.82, 0.82, 0.81), 1)
    _mug(scene, (0.25, 0.42, 0.7))
    return scene.shoot("mug", 0.96)


def white_mug() -> Photograph:
    """Draw a white mug, its lit side about as light as the backdrop."""
    scene = Scene((0.8, 0.79, 0.77), 2)
    scene.light(1 + 0.08 * scene.x)
    _mug(scene, (0.97, 0.96, 0.93))
    return scene.shoot("white_mug", 0.95)


def chair() -> Photograph:
    """Draw a wooden chair with four thin legs and a slatted back on white."""
    scene = Scene((0.95, 0.95, 0.95), 3)
    scene.shadow((0.0, 0.83), (0.5, 0.05), 0.25, 0.05)
    wood = (0.5, 0.32, 0.18)
    for x, bottom, shade in ((-0.4, 0.85, 1.0), (0.38, 0.85, 0.9), (-0.28, 0.72, 0.65), (0.28, 0.72, 0.6)):
        scene.paint(box(scene, x - 0.017, 0.1, x + 0.017, bottom), wood, shade)
    for x in (-0.38, 0.36):
        scene.paint(box(scene, x, -0.8, x + 0.035, 0.1), wood, 0.9)
    for y in (-0.78, -0.55, -0.32):
        scene.paint(box(scene, -0.38, y, 0.38, y + 0.1), wood, 1.05 + 0.1 * texture(scene, 0.02))
    scene.paint(polygon(scene, [(-0.34, 0.0), (0.34, 0.0), (0.43, 0.14), (-0.43, 0.14)]), wood, 1.1)
    return scene.shoot("chair", 0.93)


def white_ball() -> Photograph:
    """Draw a white ball on white paper with a soft shadow; its lit edge is faint."""
    scene = Scene((0.93, 0.93, 0.92), 4)
    scene.shadow((0.2, 0.5), (0.55, 0.14), 0.35, 0.1)
    scene.paint(ellipse(scene, (0, 0), (0.55, 0.55)), (0.97, 0.97, 0.97), ball_shade(scene, (0, 0), 0.55, 0.72))
    return scene.shoot("white_ball", 0.95)


def dark_on_dark() -> Photograph:
    """Draw a black camera-like box on dark grey."""
    scene = Scene((0.27, 0.27, 0.28), 5)
    scene.light(_vignette(scene, 0.2))
    scene.shadow((0.05, 0.5), (0.7, 0.08), 0.5, 0.06)
    scene.paint(box(scene, -0.6, -0.3, 0.6, 0.48), (0.12, 0.12, 0.125), 1 - 0.35 * scene.y)
    scene.paint(box(scene, -0.2, -0.45, 0.2, -0.29), (0.14, 0.14, 0.14), 1.0)
    scene.wear(ellipse(scene, (0, 0.1), (0.27, 0.27)), (0.06, 0.06, 0.07))
    scene.wear(ellipse(scene, (-0.07, 0.02), (0.06, 0.06)), (0.5, 0.5, 0.6))
    return scene.shoot("dark_on_dark", 0.95)


def red_on_green() -> Photograph:
    """Draw a red apple-like ball on a green backdrop."""
    scene = Scene((0.35, 0.62, 0.38), 6)
    scene.shadow((0.1, 0.55), (0.5, 0.12), 0.5, 0.06)
    scene.paint(box(scene, -0.02, -0.7, 0.03, -0.4), (0.3, 0.2, 0.1), 1.0)
    scene.paint(ellipse(scene, (0, 0.05), (0.52, 0.52)), (0.85, 0.16, 0.14), ball_shade(scene, (0, 0.05), 0.52))
    return scene.shoot("red_on_green", 0.96)


def gradient_vignette() -> Photograph:
    """Draw an orange cone on a grey backdrop that runs from light to dark, with a strong vignette."""
    scene = Scene((0.8, 0.8, 0.82), 7)
    scene.light(_values((1 - 0.28 * scene.y - 0.12 * scene.x) * 0.85))
    scene.light(_vignette(scene, 0.35))
    scene.shadow((0.1, 0.6), (0.55, 0.1), 0.4, 0.07)
    cover = np.maximum(polygon(scene, [(0, -0.75), (0.45, 0.6), (-0.45, 0.6)]), ellipse(scene, (0, 0.6), (0.45, 0.09)))
    scene.paint(cover, (0.95, 0.5, 0.12), cylinder_shade(scene, 0, 0.45))
    return scene.shoot("gradient_vignette", 0.96)


def jpeg_noise() -> Photograph:
    """Draw a teal house of flat faces, saved as a poor JPEG."""
    scene = Scene((0.86, 0.85, 0.82), 8)
    scene.shadow((0.0, 0.6), (0.7, 0.08), 0.35, 0.05)
    scene.paint(box(scene, -0.5, -0.1, 0.5, 0.6), (0.2, 0.55, 0.55), 1.0)
    scene.paint(polygon(scene, [(-0.6, -0.1), (0, -0.7), (0.6, -0.1)]), (0.7, 0.25, 0.2), 1.0)
    scene.wear(box(scene, -0.1, 0.2, 0.12, 0.6), (0.45, 0.3, 0.2))
    scene.wear(box(scene, 0.22, 0.05, 0.4, 0.25), (0.9, 0.9, 0.75))
    return scene.shoot("jpeg_noise", 0.96, noise=4, jpeg=25)


def sensor_noise() -> Photograph:
    """Draw a violet ball in poor light: heavy sensor noise."""
    scene = Scene((0.6, 0.6, 0.58), 9)
    scene.shadow((0.1, 0.5), (0.5, 0.12), 0.4, 0.08)
    scene.paint(ellipse(scene, (0, 0), (0.5, 0.5)), (0.55, 0.3, 0.65), ball_shade(scene, (0, 0), 0.5, 0.45))
    return scene.shoot("sensor_noise", 0.95, noise=16)


def defocused() -> Photograph:
    """Draw a yellow duck of two balls, out of focus."""
    scene = Scene((0.55, 0.68, 0.8), 10)
    scene.shadow((0.0, 0.6), (0.6, 0.08), 0.4, 0.06)
    scene.paint(ellipse(scene, (-0.05, 0.25), (0.6, 0.36)), (0.95, 0.8, 0.2), ball_shade(scene, (-0.05, 0.25), 0.6))
    scene.paint(ellipse(scene, (0.35, -0.25), (0.28, 0.28)), (0.95, 0.8, 0.2), ball_shade(scene, (0.35, -0.25), 0.28))
    scene.paint(polygon(scene, [(0.6, -0.3), (0.82, -0.2), (0.58, -0.12)]), (0.9, 0.4, 0.1), 1.0)
    return scene.shoot("defocused", 0.94, blur=3.5)


def contact_shadow() -> Photograph:
    """Draw a grey stone with a deep contact shadow: object and shadow share their hue."""
    scene = Scene((0.78, 0.77, 0.75), 11)
    scene.shadow((0.15, 0.42), (0.75, 0.2), 0.55, 0.09)
    scene.shadow((0.05, 0.46), (0.55, 0.06), 0.5, 0.03)
    stone = 1 + 0.25 * texture(scene, 0.02)
    scene.paint(ellipse(scene, (0, 0.1), (0.6, 0.4)), (0.5, 0.49, 0.47), ball_shade(scene, (0, 0.1), 0.6, 0.5) * stone)
    return scene.shoot("contact_shadow", 0.93)


def reflective_floor() -> Photograph:
    """Draw a red vase on a glossy table: a fading mirror image under it is not the object."""
    scene = Scene((0.88, 0.88, 0.9), 12)
    red = (0.75, 0.12, 0.15)
    fade = np.clip(0.3 * (1 - (scene.y - 0.45) / 0.35), 0, 1) * (scene.y > 0.45)
    mirror = np.maximum(ellipse(scene, (0, 0.75), (0.36, 0.38)), box(scene, -0.2, 0.45, 0.2, 0.6))
    scene.wear((cv2.GaussianBlur(mirror, (0, 0), 6) * fade).astype(np.float32), red)
    body = np.maximum(ellipse(scene, (0, 0.15), (0.36, 0.38)), box(scene, -0.2, 0.3, 0.2, 0.46))
    body = np.maximum(body, box(scene, -0.12, -0.7, 0.12, 0.0)) * (scene.y < 0.45)
    scene.paint(body, red, cylinder_shade(scene, 0, 0.38))
    return scene.shoot("reflective_floor", 0.93)


def touching_border() -> Photograph:
    """Draw a bust that is cut by the lower edge of the picture."""
    scene = Scene((0.75, 0.8, 0.84), 13)
    shirt = np.maximum(ellipse(scene, (0, 1.05), (0.7, 0.55)), box(scene, -0.7, 1.0, 0.7, 1.2))
    scene.paint(shirt, (0.2, 0.25, 0.4), 1 + 0.15 * texture(scene, 0.05))
    scene.paint(box(scene, -0.15, 0.2, 0.15, 0.6), (0.8, 0.6, 0.5), 0.8)
    scene.paint(ellipse(scene, (0, -0.15), (0.36, 0.46)), (0.86, 0.65, 0.54), ball_shade(scene, (0, -0.15), 0.5, 0.6))
    scene.paint(ellipse(scene, (0, -0.48), (0.4, 0.28)), (0.22, 0.14, 0.1), 1 + 0.2 * texture(scene, 0.01))
    return scene.shoot("touching_border", 0.96)


def two_objects() -> Photograph:
    """Draw a cube and a ball apart from each other."""
    scene = Scene((0.9, 0.88, 0.84), 14)
    for x in (-0.6, 0.6):
        scene.shadow((x + 0.08, 0.42), (0.42, 0.07), 0.4, 0.05)
    scene.paint(box(scene, -0.95, -0.3, -0.3, 0.4), (0.25, 0.5, 0.3), 1.0)
    scene.paint(polygon(scene, [(-0.95, -0.3), (-0.8, -0.45), (-0.15, -0.45), (-0.3, -0.3)]), (0.25, 0.5, 0.3), 1.25)
    scene.paint(polygon(scene, [(-0.3, -0.3), (-0.15, -0.45), (-0.15, 0.25), (-0.3, 0.4)]), (0.25, 0.5, 0.3), 0.65)
    scene.paint(ellipse(scene, (0.6, 0.05), (0.36, 0.36)), (0.85, 0.5, 0.15), ball_shade(scene, (0.6, 0.05), 0.36))
    return scene.shoot("two_objects", 0.96)


def tiny_object() -> Photograph:
    """Draw a screw of some thirty pixels in a large empty picture."""
    scene = Scene((0.85, 0.85, 0.86), 15)
    scene.shadow((0.32, 0.33), (0.08, 0.02), 0.4, 0.02)
    scene.paint(box(scene, 0.28, 0.22, 0.33, 0.33), (0.35, 0.33, 0.3), 1.0)
    scene.paint(box(scene, 0.25, 0.17, 0.36, 0.22), (0.45, 0.42, 0.38), 1.0)
    return scene.shoot("tiny_object", 0.9)


def translucent_edges() -> Photograph:
    """Draw a plush ball whose fluff fades out over many pixels."""
    scene = Scene((0.7, 0.78, 0.72), 16)
    radius = np.hypot(scene.x, scene.y) + 0.02 * texture(scene, 0.012)
    cover = np.clip((0.58 - radius) / 0.07, 0, 1).astype(np.float32)
    scene.paint(cover, (0.45, 0.28, 0.2), ball_shade(scene, (0, 0), 0.62, 0.5) * (1 + 0.2 * texture(scene, 0.01)))
    return scene.shoot("translucent_edges", 0.93)


def checkered() -> Photograph:
    """Draw a vase checked in black and a white close to the backdrop's: some checks cannot be told from it."""
    scene = Scene((0.92, 0.92, 0.92), 17)
    scene.shadow((0.05, 0.68), (0.5, 0.07), 0.35, 0.05)
    cover = np.maximum(ellipse(scene, (0, 0.2), (0.5, 0.5)), box(scene, -0.18, -0.6, 0.18, 0.0))
    checks = (np.floor(scene.x * 6) + np.floor(scene.y * 6)) % 2
    scene.paint(cover, np.where(checks[..., None] > 0, 0.93, 0.1), ball_shade(scene, (0, 0.2), 0.62, 0.65))
    return scene.shoot("checkered", 0.9)


def glossy() -> Photograph:
    """Draw a glossy black ball on white with a hard and a soft white highlight."""
    scene = Scene((0.94, 0.94, 0.94), 18)
    scene.shadow((0.08, 0.52), (0.5, 0.1), 0.4, 0.06)
    scene.paint(ellipse(scene, (0, 0), (0.55, 0.55)), (0.22, 0.22, 0.24), ball_shade(scene, (0, 0), 0.55))
    window = polygon(scene, [(-0.3, -0.32), (-0.1, -0.38), (-0.08, -0.18), (-0.28, -0.12)])
    scene.wear(cv2.GaussianBlur(window, (0, 0), 3).astype(np.float32), (1.0, 1.0, 1.0))
    rim = ellipse(scene, (0.18, 0.3), (0.12, 0.06))
    scene.wear(cv2.GaussianBlur(0.9 * rim, (0, 0), 14).astype(np.float32), (1.0, 1.0, 1.0))
    return scene.shoot("glossy", 0.95)


def notify() -> Photograph:
    """Draw a golden ring standing up, seen through, on a cream backdrop of similar hue."""
    scene = Scene((0.9, 0.85, 0.75), 19)
    scene.shadow((0.0, 0.66), (0.3, 0.04), 0.4, 0.04)
    angle = np.arctan2(scene.y, scene.x)
    cover = ellipse(scene, (0, 0), (0.62, 0.65)) - ellipse(scene, (0, 0), (0.48, 0.5))
    shade = (0.8 + 0.3 * np.cos(3 * angle + 1)).astype(np.float32)
    scene.paint(cover, (0.78, 0.58, 0.2), shade)
    return scene.shoot("ring", 0.95)


def dusty_backdrop() -> Photograph:
    """Draw a green bottle on a backdrop with specks of dust and a fine crease."""
    scene = Scene((0.8, 0.8, 0.8), 20)
    for _ in range(40):
        x, y = scene.random.uniform(-1.3, 1.3), scene.random.uniform(-1, 1)
        scene.wear(ellipse(scene, (x, y), (0.008, 0.006)), (0.45, 0.42, 0.4))
    scene.wear(0.3 * box(scene, -1.2, -0.81, -0.4, -0.805), (0.5, 0.5, 0.5))
    scene.shadow((0.05, 0.75), (0.3, 0.05), 0.4, 0.04)
    cover = np.maximum(box(scene, -0.22, -0.1, 0.22, 0.75), box(scene, -0.08, -0.75, 0.08, 0.0))
    cover = np.maximum(cover, ellipse(scene, (0, -0.1), (0.22, 0.2)))
    scene.paint(cover, (0.15, 0.4, 0.22), cylinder_shade(scene, 0, 0.24))
    return scene.shoot("dusty_backdrop", 0.95)


def floor_and_wall() -> Photograph:
    """Draw a blue teapot before a wall and a floor of another tone that meet in a soft horizon."""
    scene = Scene((0.86, 0.86, 0.86), 21)
    floor = 1 / (1 + np.exp(-(scene.y - 0.3) / 0.05))
    scene.light(_values(1 - 0.16 * floor))
    scene.shadow((0.1, 0.6), (0.6, 0.08), 0.4, 0.05)
    blue = (0.15, 0.3, 0.6)
    scene.paint(polygon(scene, [(-0.4, 0.3), (-0.85, -0.15), (-0.72, -0.2), (-0.35, 0.0)]), blue, 0.9)
    handle = ellipse(scene, (0.5, 0.1), (0.3, 0.3)) - ellipse(scene, (0.5, 0.1), (0.2, 0.2))
    scene.paint(np.maximum(handle, 0), blue, 0.7)
    scene.paint(ellipse(scene, (0, 0.15), (0.5, 0.45)), blue, ball_shade(scene, (0, 0.15), 0.5, 0.45))
    scene.paint(ellipse(scene, (0, -0.33), (0.08, 0.08)), blue, 1.1)
    return scene.shoot("floor_and_wall", 0.95)


def spiky() -> Photograph:
    """Draw a magenta star of twenty thin spikes that fills the picture."""
    scene = Scene((0.2, 0.35, 0.45), 22)
    corners = []
    for k in range(40):
        radius = 0.88 if k % 2 == 0 else 0.45
        corners.append((radius * np.cos(k * np.pi / 20), radius * np.sin(k * np.pi / 20)))
    scene.paint(polygon(scene, corners), (0.85, 0.25, 0.6), ball_shade(scene, (0, 0), 0.95, 0.6))
    return scene.shoot("spiky", 0.95)


def garden() -> Photograph:
    """Draw a red ball before a busy backdrop of leaves: no border colour to go by."""
    scene = Scene((0.35, 0.45, 0.25), 23)
    leaves = np.stack([texture(scene, 0.03) * k for k in (0.16, 0.24, 0.12)], axis=-1)
    scene.image = np.clip(scene.image + leaves + 0.12 * texture(scene, 0.1)[..., None], 0, 1)
    scene.paint(ellipse(scene, (0.05, 0.05), (0.55, 0.55)), (0.85, 0.15, 0.12), ball_shade(scene, (0.05, 0.05), 0.55))
    return scene.shoot("garden", 0.9)


DRAWINGS: dict[str, Callable[[], Photograph]] = {
    draw.__name__: draw
    for draw in (
        mug, white_mug, chair, white_ball, dark_on_dark, red_on_green, gradient_vignette, jpeg_noise, sensor_noise,
        defocused, contact_shadow, reflective_floor, touching_border, two_objects, tiny_object, translucent_edges,
        checkered, glossy, notify, dusty_backdrop, floor_and_wall, spiky, garden,
    )
}  # fmt: skip


def enlarged(photograph: Photograph, width: int) -> Photograph:
    """Return the same photograph at another width, as a camera with more pixels would give it."""
    height = round(photograph.image.shape[0] * width / photograph.image.shape[1])
    image = cv2.resize(photograph.image, (width, height), interpolation=cv2.INTER_CUBIC)
    mask = cv2.resize(photograph.mask, (width, height), interpolation=cv2.INTER_LINEAR)
    return replace(photograph, image=image, mask=mask)


def blank_wall(seed: int = 30) -> npt.NDArray[np.uint8]:
    """Draw a wall with a vignette, noise and one soft shadow on it, and nothing else: (H, W, 3) uint8."""
    scene = Scene((0.8, 0.79, 0.76), seed)
    scene.light(_vignette(scene, 0.3))
    scene.shadow((0.2, 0.1), (0.5, 0.3), 0.25, 0.15)
    return scene.shoot("blank_wall", 0.0, noise=3).image


def leaves_only(seed: int = 31) -> npt.NDArray[np.uint8]:
    """Draw leaves from border to border, with no object among them: (H, W, 3) uint8."""
    scene = Scene((0.35, 0.45, 0.25), seed)
    leaves = np.stack([texture(scene, 0.05) * k for k in (0.16, 0.24, 0.12)], axis=-1)
    scene.image = np.clip(scene.image + leaves, 0, 1)
    return scene.shoot("leaves_only", 0.0).image


def mask_iou(alpha: npt.NDArray[np.uint8], mask: Array) -> float:
    """Return the intersection over union of two soft masks, each cut at one half."""
    ours, theirs = alpha >= 128, mask >= 0.5
    return float((ours & theirs).sum() / max((ours | theirs).sum(), 1))
