"""What needs a package that is not installed is not offered, and what a format cannot carry is left out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backend.errors import InvalidCompress, InvalidFormat
from backend.hunyuan3d.mesh import offered
from backend.hunyuan3d.mesh.offered import carried_color, offered_compressions, offered_formats
from backend.limits import ColorMode, MeshFormat
from backend.validation import GenerationFields, read_fields, require_offered


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Be an installation without extras."""
    offered.is_offered.cache_clear()
    monkeypatch.setattr(offered, "find_spec", lambda _: None)
    yield
    offered.is_offered.cache_clear()


def test_with_its_packages_everything_is_offered() -> None:
    assert offered_formats() == ("glb", "stl", "obj", "ply", "3mf", "usdz")
    assert offered_compressions() == ("none", "meshopt", "draco")
    require_offered(read_fields(GenerationFields, {"format": ["usdz"], "compress": ["draco"]}))


@pytest.mark.usefixtures("bare")
def test_without_them_the_rest_is() -> None:
    assert offered_formats() == ("glb", "stl", "obj", "ply", "3mf")
    assert offered_compressions() == ("none", "meshopt")
    require_offered(read_fields(GenerationFields, {"format": ["3mf,glb"], "compress": ["meshopt"]}))
    with pytest.raises(InvalidFormat, match=r"usdz is not offered here.*orfeas\[usd\]") as format_refused:
        require_offered(read_fields(GenerationFields, {"format": ["glb,usdz"]}))
    assert format_refused.value.details == {"field": "format", "allowed": "glb, stl, obj, ply, 3mf"}
    with pytest.raises(InvalidCompress, match=r"draco is not offered here.*orfeas\[draco\]") as refused:
        require_offered(read_fields(GenerationFields, {"compress": ["draco"]}))
    assert refused.value.details == {"field": "compress", "allowed": "none, meshopt"}


@pytest.mark.parametrize(
    ("color", "glb", "obj", "stl"),
    [
        ("auto", "texture", "vertex", "none"),
        ("texture", "texture", "none", "none"),
        ("vertex", "vertex", "vertex", "none"),
        ("none", "none", "none", "none"),
    ],
)
def test_a_format_carries_what_it_can(color: ColorMode, glb: str, obj: str, stl: str) -> None:
    textured: tuple[MeshFormat, ...] = ("glb", "usdz")
    colored: tuple[MeshFormat, ...] = ("obj", "ply", "3mf")
    assert {carried_color(format, color) for format in textured} == {glb}
    assert {carried_color(format, color) for format in colored} == {obj}
    assert carried_color("stl", color) == stl
