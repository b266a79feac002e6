"""A mesh in the colours of its image: the front as in the image, and nowhere a colour that the object has not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import trimesh
from PIL import Image, ImageDraw

from backend.errors import InvalidMesh
from backend.hunyuan3d.mesh.appearance import Appearance
from backend.rendering.camera import find_camera
from backend.rendering.camera_model import Camera
from backend.rendering.color_sources import shadow_left
from backend.rendering.colors import color_mesh
from backend.rendering.raster import rasterize
from backend.rendering.render import BACK, FRONT, SIDE, RenderOptions, View, render_views

UNLIT = RenderOptions(size=128, samples=1, margin=0.15, lit=False)
Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def ball() -> trimesh.Trimesh:
    return trimesh.creation.icosphere(subdivisions=5, radius=0.9)


def beach_ball(side: int = 256, background: tuple[int, int, int, int] = (0, 255, 0, 0)) -> Image.Image:
    """Draw the cut-out of a ball: left half red, right half blue, a white band across; a bright green shows nowhere."""
    image = Image.new("RGBA", (side, side), background)
    draw = ImageDraw.Draw(image)
    edge = 0.075 * side
    draw.pieslice((edge, edge, side - edge, side - edge), 90, 270, fill=(200, 30, 30, 255))
    draw.pieslice((edge, edge, side - edge, side - edge), -90, 90, fill=(30, 30, 200, 255))
    pixels = np.array(image)
    band = np.zeros(pixels.shape[:2], np.bool_)
    band[int(0.42 * side) : int(0.58 * side)] = True
    pixels[band & (pixels[..., 3] > 0)] = (240, 240, 240, 255)
    return Image.fromarray(pixels)


def colored(mesh: trimesh.Trimesh, cutout: Image.Image, *, texture: bool = True) -> Appearance:
    camera = find_camera(mesh, np.asarray(cutout)[..., 3], view_aligned=True)
    return color_mesh(mesh, cutout, camera, texture=texture)


def seen(mesh: trimesh.Trimesh, appearance: Appearance, view: View) -> tuple[Pixels, Pixels]:
    """Return what is drawn without light, and the same in one odd colour, which says where the mesh is."""
    (image,) = render_views(mesh, (view,), UNLIT, appearance=appearance)
    odd = Appearance(np.full((len(mesh.vertices), 3), (255, 0, 255), np.uint8))
    (mask,) = render_views(mesh, (view,), UNLIT, appearance=odd)
    return np.asarray(image), np.asarray((np.asarray(mask) == (255, 0, 255)).all(axis=2))


@pytest.mark.parametrize("texture", [True, False])
def test_the_front_is_the_image(texture: bool) -> None:
    mesh, cutout = ball(), beach_ball()
    pixels, covered = seen(mesh, colored(mesh, cutout, texture=texture), FRONT)
    expected = np.asarray(cutout.convert("RGBa").resize((128, 128), Image.Resampling.BOX).convert("RGB"))
    inner = cv2.erode(covered.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    difference = np.abs(pixels.astype(np.int16) - expected).max(axis=2)[inner]
    assert np.median(difference) <= 3
    assert (difference > 40).mean() < 0.06


@pytest.mark.parametrize("view", [FRONT, SIDE, BACK, View("below", 20.0, -60.0), View("above", -30.0, 80.0)])
def test_no_background_is_seen_from_anywhere(view: View) -> None:
    mesh = ball()
    pixels, covered = seen(mesh, colored(mesh, beach_ball()), view)
    red, green, blue = pixels[covered].astype(np.int16).T
    assert covered.sum() > 5000
    assert (green <= np.maximum(red, blue) + 6).all()


def test_the_soft_edge_of_a_cutout_gives_no_color() -> None:
    cutout = np.array(beach_ball())
    soft = cv2.GaussianBlur(cutout[..., 3].astype(np.float32), (0, 0), 3.0)
    cutout[(soft < 250) & (soft > 2)] = (0, 255, 0, 120)
    mesh = ball()
    pixels, covered = seen(mesh, colored(mesh, Image.fromarray(cutout)), SIDE)
    red, green, blue = pixels[covered].astype(np.int16).T
    assert (green <= np.maximum(red, blue) + 6).all()


def test_a_band_goes_round_to_the_back() -> None:
    mesh = ball()
    appearance = colored(mesh, beach_ball())
    for view in (SIDE, BACK):
        pixels, _ = seen(mesh, appearance, view)
        assert pixels[64, 50:78].min() > 200
        assert pixels[30, 64].min() < 120


def test_a_small_image_that_is_enlarged_has_no_brighter_colors() -> None:
    texture = colored(ball(), beach_ball(96)).texture
    assert texture is not None
    assert len(np.asarray(texture.image)) > 96
    assert np.asarray(texture.image).max() <= 240


def test_the_texture_lies_on_the_same_mesh() -> None:
    mesh = ball()
    texture = colored(mesh, beach_ball()).texture
    assert texture is not None
    np.testing.assert_array_equal(texture.vertex[texture.faces], mesh.faces)
    assert len(texture.vertex) == len(texture.uv) == texture.faces.max() + 1
    assert texture.uv.min() >= 0
    assert texture.uv.max() <= 1
    assert texture.image.mode == "RGB"
    assert len(texture.vertex) < 1.2 * len(mesh.vertices)


def test_vertices_have_the_texture_s_colors() -> None:
    mesh = ball()
    appearance = colored(mesh, beach_ball())
    texture = appearance.texture
    assert texture is not None
    pixels = np.asarray(texture.image).astype(np.int16)
    column, row = (texture.uv * texture.image.size).astype(int).T
    shown = pixels[row.clip(0, len(pixels) - 1), column.clip(0, pixels.shape[1] - 1)]
    difference = np.abs(shown - appearance.vertex_colors[texture.vertex]).max(axis=1)
    assert np.median(difference) <= 2
    assert (difference > 60).mean() < 0.05


def cup() -> trimesh.Trimesh:
    """Return an open cup that leans towards the viewer, so that its inside is seen over the rim."""
    ring = trimesh.creation.annulus(0.565, 0.6, 1.2, sections=96)
    floor = trimesh.creation.cylinder(0.55, 0.1, sections=96).apply_translation((0, 0, -0.55))
    cup = trimesh.util.concatenate([ring, floor])
    cup.apply_transform(trimesh.transformations.rotation_matrix(np.radians(-90 + 28), (1, 0, 0)))
    return cup.subdivide().subdivide().subdivide()


def test_the_wall_behind_an_opening_has_the_outside_s_color() -> None:
    mesh = cup()
    camera = Camera(scale=0.9)
    side = 256
    pixels, nearness = camera.project(np.asarray(mesh.vertices), side)
    front = rasterize(pixels, nearness, np.asarray(mesh.faces), side)
    normal = np.asarray(mesh.face_normals)[np.maximum(front.face, 0)]
    centre = np.asarray(mesh.triangles_center)[np.maximum(front.face, 0)]
    axis = np.array([0.0, np.cos(np.radians(28)), np.sin(np.radians(28))])
    outwards = centre - (centre @ axis)[..., None] * axis
    inner = (normal * outwards).sum(axis=2) < 0.1
    image = np.where(inner[..., None], (240, 240, 240), (30, 60, 160)).astype(np.uint8)
    cutout = Image.fromarray(np.dstack([image, front.covered.astype(np.uint8) * 255]))
    appearance = color_mesh(mesh, cutout, camera, texture=True)
    back, covered = seen(mesh, appearance, BACK)
    assert (back[covered].min(axis=1) > 150).mean() < 0.06
    shown, covered = seen(mesh, appearance, FRONT)
    assert (shown[covered].min(axis=1) > 200).mean() > 0.1


def test_a_shadow_left_at_the_foot_is_no_color_of_the_object() -> None:
    cutout = np.array(beach_ball())
    grey = np.zeros(cutout.shape[:2], np.float32)
    cv2.ellipse(grey, (128, 232), (70, 12), 0, 0, 360, 1.0, -1)
    grey = cv2.GaussianBlur(grey, (0, 0), 4.0)
    free = cutout[..., 3] == 0
    cutout[free & (grey > 0.02)] = (150, 150, 152, 0)
    cutout[..., 3][free] = (np.minimum(grey * 1.6, 1.0) * 255).astype(np.uint8)[free]
    found = shadow_left(cutout)
    assert found[240, 90:166].all()
    assert not found[:200].any()
    sole = np.array(beach_ball())
    sole[200:236][sole[200:236, :, 3] > 0] = (150, 150, 152, 255)
    assert not shadow_left(sole).any()


def test_an_empty_cutout_colors_without_failing() -> None:
    mesh = ball()
    appearance = color_mesh(mesh, Image.new("RGBA", (64, 64)), Camera(), texture=True)
    assert appearance.vertex_colors.shape == mesh.vertices.shape


def test_a_mesh_without_faces_is_refused() -> None:
    with pytest.raises(InvalidMesh):
        color_mesh(trimesh.Trimesh(), beach_ball(), Camera(), texture=False)


def van() -> trimesh.Trimesh:
    """Return a thing that is the same left and right: a body and a cabin on its front."""
    body = trimesh.creation.box((0.7, 0.6, 1.6))
    cabin = trimesh.creation.box((0.6, 0.3, 0.6)).apply_translation((0, 0.4, 0.3))
    van = trimesh.util.concatenate([body, cabin])
    for _ in range(5):
        van = van.subdivide()
    return van


def painted_van(camera: Camera, side: int = 256) -> Image.Image:
    """Take a picture of it: flanks red with a white lower half, the front blue."""
    mesh = van()
    pixels, near = camera.project(np.asarray(mesh.vertices), side)
    front = rasterize(pixels, near, np.asarray(mesh.faces), side)
    face = np.maximum(front.face, 0)
    normal, middle = np.asarray(mesh.face_normals)[face], np.asarray(mesh.triangles_center)[face]
    flank = np.abs(normal[..., 0]) > 0.9
    image = np.where(flank[..., None], (200, 30, 30), (30, 30, 200))
    image[flank & (middle[..., 1] < -0.1)] = (240, 240, 240)
    return Image.fromarray(np.dstack([image.astype(np.uint8), front.covered.astype(np.uint8) * 255]))


def test_seen_aslant_the_other_side_is_the_object_s_mirror_image() -> None:
    mesh, camera = van(), Camera(azimuth=40.0, elevation=15.0, scale=0.8)
    appearance = color_mesh(mesh, painted_van(camera), camera, texture=True)
    pixels, covered = seen(mesh, appearance, View("other side", -90.0, 0.0))
    rows = np.flatnonzero(covered.any(axis=1))
    low = pixels[rows[-1] - 10, 40:88]
    high = pixels[rows[-1] - 38, 40:88]
    assert np.median(low, axis=0) == pytest.approx([240, 240, 240], abs=8)
    assert np.median(high, axis=0) == pytest.approx([200, 30, 30], abs=8)
    assert appearance.texture is not None
    np.testing.assert_array_equal(appearance.texture.vertex[appearance.texture.faces], mesh.faces)
