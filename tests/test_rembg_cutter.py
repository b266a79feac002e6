"""When rembg cuts: with which of its models, and never by fetching one."""

from __future__ import annotations

import importlib.machinery
import sys
import time
import types
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.hunyuan3d.image import rembg_cutter
from backend.hunyuan3d.image.background import remove_background
from backend.hunyuan3d.image.rembg_cutter import MODELS, installed_cutter

DISC = np.zeros((96, 128, 4), np.uint8)
DISC[20:70, 30:90] = (200, 60, 40, 255)


class Rembg:
    """What is asked of rembg, with models in a folder as rembg keeps them."""

    def __init__(self, folder: Path) -> None:
        self.opened: list[str] = []
        self.broken = False
        self.cuts = 0
        package, sessions = types.ModuleType("rembg"), types.ModuleType("rembg.sessions")
        for module in (package, sessions):
            module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None)
        sessions.__dict__["sessions"] = {name: _Session(folder / "models" / name) for name in (*MODELS, "bria-rmbg")}
        package.__dict__.update(new_session=self.new_session, remove=self.remove)
        self.modules = {"rembg": package, "rembg.sessions": sessions}

    def new_session(self, model: str = "bria-rmbg") -> str:
        time.sleep(0.05)  # time enough for another thread to ask for it, too
        self.opened.append(model)
        if self.broken:
            raise ValueError("the model's file ends too soon")
        return model

    def remove(self, image: Image.Image, session: str, *, only_mask: bool = False) -> Image.Image:
        assert (image.mode, [session]) == ("RGB", self.opened)
        self.cuts += 1
        mask = Image.fromarray(DISC[..., 3])
        # As rembg does: the soft edge of its cut-out is laid on black.
        return mask if only_mask else Image.composite(image.convert("RGBA"), Image.new("RGBA", image.size), mask)


class _Session:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def resolve_existing(self, name: str) -> str | None:
        return str(self.folder / name) if (self.folder / name).exists() else None


@pytest.fixture
def rembg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rembg]:
    installed = Rembg(tmp_path)
    for name, module in installed.modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    rembg_cutter._loaded.cache_clear()
    yield installed
    rembg_cutter._loaded.cache_clear()


def put_model(home: Path, name: str) -> None:
    folder = home / "models" / name
    folder.mkdir(parents=True)
    (folder / f"{name}.onnx").write_bytes(b"weights")


def test_rembg_leads_with_the_best_model_that_is_there(rembg: Rembg, tmp_path: Path) -> None:
    put_model(tmp_path, "u2netp")
    put_model(tmp_path, "isnet-general-use")
    opaque = Image.fromarray(np.full((96, 128, 3), 250, np.uint8))
    for _ in range(2):
        result = remove_background(opaque)
        assert (result.method, result.fallback) == ("rembg", None)
        np.testing.assert_array_equal(np.asarray(result.image)[..., 3], DISC[..., 3])
    assert (rembg.opened, rembg.cuts) == (["isnet-general-use"], 2)


def test_many_pictures_at_a_time_read_the_model_once(rembg: Rembg, tmp_path: Path) -> None:
    put_model(tmp_path, "u2net")
    with ThreadPoolExecutor(4) as pool:
        cutters = list(pool.map(lambda _: installed_cutter(), range(4)))
    assert rembg.opened == ["u2net"]
    assert cutters == [cutters[0]] * 4


def test_a_model_that_cannot_be_read_is_said_and_left(
    rembg: Rembg, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put_model(tmp_path, "u2net")
    rembg.broken = True
    picture = np.full((96, 128, 3), 250, np.uint8)
    picture[20:70, 30:90] = (200, 60, 40)
    for _ in range(2):
        result = remove_background(Image.fromarray(picture))
        assert (result.method, result.mask.foreground > 0.2) == ("flood", True)
        assert result.fallback == "rembg failed (ValueError), the service's own way was used"
    assert rembg.opened == ["u2net"]
    assert "the model's file ends too soon" in caplog.text


@pytest.mark.parametrize("there", [None, "bria-rmbg"])
def test_without_a_free_model_on_the_machine_none_is_fetched(rembg: Rembg, tmp_path: Path, there: str | None) -> None:
    if there:
        put_model(tmp_path, there)
    assert installed_cutter() is None
    assert rembg.opened == []


def test_rembg_without_its_runtime_counts_as_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Exits:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "rembg":
                raise SystemExit(1)

    monkeypatch.delitem(sys.modules, "rembg", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Exits(), *sys.meta_path])
    monkeypatch.setattr(rembg_cutter, "find_spec", lambda _: object())
    rembg_cutter._loaded.cache_clear()
    assert installed_cutter() is None
    rembg_cutter._loaded.cache_clear()
