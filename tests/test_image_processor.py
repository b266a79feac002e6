"""Pictures in every form and state, good and bad (the numbers themselves are compared in test_golden.py)."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from backend.errors import InvalidImage, MissingImage, NoForeground, ViewsUnsupported
from backend.hunyuan3d.image.image_processor import ImageProcessor, MultiViewImageProcessor, as_list

PROCESSOR = ImageProcessor(size=32)


def disc(size: int = 60, shift: int = 0, colour: tuple[int, int, int] = (200, 40, 40)) -> Image.Image:
    """Return a coloured disc of radius size / 4 on a transparent square."""
    y, x = np.mgrid[:size, :size] - size / 2
    rgba = np.zeros((size, size, 4), np.uint8)
    rgba[(x - shift) ** 2 + y**2 < (size / 4) ** 2] = (*colour, 255)
    return Image.fromarray(rgba)


def one_visible(rows: slice, columns: slice) -> Image.Image:
    rgba = np.zeros((30, 30, 4), np.uint8)
    rgba[rows, columns] = 255
    return Image.fromarray(rgba)


def encoded(image: Image.Image, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def test_every_form_of_the_same_image_gives_the_same_tensor(tmp_path: Path) -> None:
    image = disc()
    path = tmp_path / "disc.png"
    path.write_bytes(encoded(image))
    expected = PROCESSOR(image).image
    for form in (path, str(path), encoded(image), np.asarray(image)):
        assert torch.equal(PROCESSOR(form).image, expected)


def test_shapes_and_range() -> None:
    batch = PROCESSOR(disc())
    assert batch.image.shape == (1, 3, 32, 32)
    assert batch.mask.shape == (1, 1, 32, 32)
    assert batch.image.dtype == batch.mask.dtype == torch.float32
    assert -1 <= float(batch.image.min()) < float(batch.image.max()) == 1
    assert (float(batch.mask.min()), float(batch.mask.max())) == (-1, 1)


def test_the_object_is_centred_wherever_it_stood() -> None:
    assert torch.equal(PROCESSOR(disc(shift=0)).image, PROCESSOR(disc(shift=12)).image)


def test_what_is_transparent_becomes_white() -> None:
    assert PROCESSOR(disc()).image[0, :, 0, 0].tolist() == [1, 1, 1]


def test_an_image_without_alpha_is_taken_whole() -> None:
    batch = PROCESSOR(Image.new("RGB", (20, 20), (0, 0, 0)))
    assert (batch.mask == 1).float().mean() == pytest.approx(0.85**2, abs=0.06)


def test_a_hair_thin_object_survives() -> None:
    rgba = np.zeros((500, 8, 4), np.uint8)
    rgba[:, 3:5] = 255
    assert float(ImageProcessor(size=500)(Image.fromarray(rgba)).mask.max()) == 1


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        encoded(disc())[:200],
        encoded(disc().convert("RGB"), "JPEG")[:300],
        Path(__file__).parent,
        np.zeros((9, 9, 5), np.uint8),
        np.zeros((0, 9, 3), np.uint8),
        np.zeros((2, 9, 9, 3), np.uint8),
        Image.new("RGB", (1, 1)),
        7,
        None,
    ],
)
def test_what_is_no_image_is_an_invalid_image(bad: object) -> None:
    with pytest.raises(InvalidImage):
        PROCESSOR(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "empty",
    [
        Image.new("RGBA", (30, 30)),
        one_visible(slice(3, 4), slice(3, 4)),
        one_visible(slice(3, 20), slice(3, 4)),
        one_visible(slice(3, 4), slice(3, 20)),
    ],
)
def test_an_image_without_area_has_no_foreground(empty: Image.Image) -> None:
    with pytest.raises(NoForeground):
        PROCESSOR(empty)


def test_a_single_view_model_refuses_views() -> None:
    with pytest.raises(ViewsUnsupported, match="one picture"):
        PROCESSOR({"front": disc()})


def test_views_are_stacked_in_the_order_of_their_indices() -> None:
    processor = MultiViewImageProcessor(size=32)
    red, blue = disc(), disc(colour=(0, 0, 255))
    batch = processor({"back": blue, "front": red})
    assert batch.view_indices == (0, 2)
    assert batch.image.shape == (1, 2, 3, 32, 32)
    assert torch.equal(batch.image[0, 1], PROCESSOR(blue).image[0])


def test_one_image_is_the_front_view() -> None:
    assert MultiViewImageProcessor(size=32)(disc()).view_indices == (0,)


def test_views_must_have_known_names_and_be_there() -> None:
    processor = MultiViewImageProcessor(size=32)
    with pytest.raises(InvalidImage, match="top"):
        processor({"top": disc()})
    with pytest.raises(MissingImage):
        processor({})


def test_one_image_or_many() -> None:
    image = disc()
    assert as_list(image) == [image]
    assert as_list("a.png") == ["a.png"]
    assert as_list({"front": image}) == [{"front": image}]
    assert as_list((image, b"x")) == [image, b"x"]
    with pytest.raises(MissingImage):
        as_list([])


@pytest.mark.parametrize(
    "settings", [{"size": 0}, {"border_ratio": 1.0}, {"border_ratio": -0.1}, {"brightness": 0.0}, {"brightness": 1.1}]
)
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="image processor"):
        ImageProcessor(**settings)  # type: ignore[arg-type]


def test_brightness_tells_an_object_s_white_from_the_white_around_it() -> None:
    white = Image.new("RGBA", (60, 60))
    white.paste((255, 255, 255, 255), (10, 10, 50, 50))
    plain, darker = (ImageProcessor(size=48, brightness=value)(white) for value in (1.0, 0.8))
    assert float(plain.image.min()) == 1
    inside, outside = darker.image[0, :, 24, 24], darker.image[0, :, 0, 0]
    torch.testing.assert_close(inside, torch.full((3,), 0.8 * 2 - 1), atol=0.01, rtol=0)
    assert torch.equal(outside, torch.ones(3))
    assert torch.equal(plain.mask, darker.mask)
    # Colours are taken from the cut-out, which is not darkened.
    first, second = (np.asarray(ImageProcessor(size=48, brightness=value).cutout(white)) for value in (1.0, 0.8))
    assert np.array_equal(first, second)


def test_the_cutout_lies_in_the_network_s_frame_at_its_own_sharpness() -> None:
    image = disc(400, shift=60)
    cutout = PROCESSOR.cutout(image)
    # 199 pixels of the disc fill 85 % of a square of 234.
    assert cutout.size == (234, 234)
    alpha = np.asarray(cutout)[..., 3]
    frame = PROCESSOR.recentre(np.asarray(image))[..., 3]
    for axis in (0, 1):
        lit, wanted = np.flatnonzero(alpha.any(axis=axis)), np.flatnonzero(frame.any(axis=axis))
        assert (lit[0] + lit[-1] + 1) / 2 / len(alpha) == pytest.approx(
            (wanted[0] + wanted[-1] + 1) / 2 / 400, abs=5e-3
        )
        assert len(lit) / len(alpha) == pytest.approx(0.85, abs=0.01)


@pytest.mark.parametrize("border_ratio", [0, 0.15, 0.5])
def test_the_cutout_keeps_the_last_row_and_column_that_the_network_s_picture_leaves_out(border_ratio: float) -> None:
    image = Image.new("RGBA", (64, 64))
    image.paste((200, 40, 40, 255), (8, 8, 56, 56))
    image.paste((0, 0, 255, 255), (8, 55, 56, 56))
    image.paste((0, 0, 255, 255), (55, 8, 56, 56))
    processor = ImageProcessor(size=64, border_ratio=border_ratio)
    whole, cut = (np.asarray(each) for each in (processor.cutout(image), processor.recentre(np.asarray(image))))
    assert not (cut[..., 2] > 128).any()
    assert (whole[..., 3] == 255).sum() == 48 * 48
    assert (whole[..., 2] > 128).sum() == 48 + 47


def test_a_large_cutout_comes_down_and_no_hidden_color_comes_in() -> None:
    rgba = np.array(disc(3000))
    rgba[rgba[..., 3] == 0] = (0, 255, 0, 0)
    cutout = np.asarray(PROCESSOR.cutout(Image.fromarray(rgba)))
    assert cutout.shape == (1024, 1024, 4)
    shown = cutout[cutout[..., 3] > 0][:, :3].astype(int)
    np.testing.assert_allclose(shown, np.broadcast_to((200, 40, 40), shown.shape), atol=2)
    assert (cutout[cutout[..., 3] == 0] == 0).all()


def test_a_hair_s_cutout_is_not_empty() -> None:
    cutout = PROCESSOR.cutout(one_visible(slice(3, 27), slice(10, 12)))
    assert np.asarray(cutout)[..., 3].any()
    with pytest.raises(NoForeground):
        PROCESSOR.cutout(Image.new("RGBA", (8, 8)))
