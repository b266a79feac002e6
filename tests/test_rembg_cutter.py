"""When rembg cuts: with which of its models, and never by fetching one."""

from __future__ import annotations

import importlib.machinery
import sys
import types
from collections.abc import Iterator
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
        self.cuts = 0
        package, sessions = types.ModuleType("rembg"), types.ModuleType("rembg.sessions")
        for module in (package, sessions):
            module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None)
        sessions.__dict__["sessions"] = {name: _Session(folder / "models" / name) for name in (*MODELS, "bria-rmbg")}
        package.__dict__.update(new_session=self.new_session, remove=self.remove)
        self.modules = {"rembg": package, "rembg.sessions": sessions}

    def new_session(self, model: str = "bria-rmbg") -> str:
        self.opened.append(model)
        return model

    def remove(self, image: Image.Image, session: str) -> Image.Image:
        assert (image.mode, [session]) == ("RGB", self.opened)
        self.cuts += 1
        return Image.fromarray(DISC)


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
    installed_cutter.cache_clear()
    yield installed
    installed_cutter.cache_clear()


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
    installed_cutter.cache_clear()
    assert installed_cutter() is None
    installed_cutter.cache_clear()
