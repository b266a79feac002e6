"""Meshes get names that nobody can guess, and come back with what a download needs."""

from __future__ import annotations

import errno
from datetime import timedelta
from pathlib import Path

import pytest

from backend.errors import ArtifactNotFound, InvalidFormat, StorageFull
from backend.limits import FORMATS, PREVIEW_FORMAT
from backend.storage.artifacts import ArtifactStore, media_type
from backend.storage.files import LocalFiles
from tests.support.file_places import PLACES, empty_place
from tests.support.store_backends import ManualClock

MEDIA_TYPES = {
    "glb": "model/gltf-binary",
    "stl": "model/stl",
    "obj": "model/obj",
    "ply": "application/octet-stream",
    "3mf": "model/3mf",
    "usdz": "model/vnd.usdz+zip",
    "webp": "image/webp",
    "png": "image/png",
}


def test_every_format_has_a_media_type() -> None:
    assert {format: media_type(format) for format in MEDIA_TYPES} == MEDIA_TYPES
    assert {*FORMATS, PREVIEW_FORMAT} <= set(MEDIA_TYPES)


@pytest.mark.parametrize("kind", PLACES)
def test_a_mesh_comes_back_with_what_a_download_needs(kind: str, tmp_path: Path) -> None:
    meshes = ArtifactStore(empty_place(kind, tmp_path).files)
    for fmt, expected in MEDIA_TYPES.items():
        name = meshes.write(b"mesh as " + fmt.encode(), fmt)
        mesh = meshes.open(name)
        with mesh.stream:
            assert mesh.stream.read() == b"mesh as " + fmt.encode()
        assert (mesh.name, mesh.size, mesh.media_type) == (name, 8 + len(fmt), expected)
        assert name == f"{mesh.etag}.{fmt}"


def test_every_mesh_has_a_name_of_its_own(tmp_path: Path) -> None:
    meshes = ArtifactStore(LocalFiles(tmp_path))
    assert len({meshes.write(b"same", "glb") for _ in range(50)}) == 50


def test_a_mesh_that_was_deleted_is_not_found(tmp_path: Path) -> None:
    meshes = ArtifactStore(LocalFiles(tmp_path))
    name = meshes.write(b"mesh", "stl")
    for _ in range(2):
        meshes.delete(name)
    with pytest.raises(ArtifactNotFound):
        meshes.open(name)


@pytest.mark.parametrize("name", ["", "mesh.glb", "../" + "a" * 32 + ".glb", "a" * 32, "a" * 32 + ".glb\n"])
def test_a_made_up_name_is_not_found(name: str, tmp_path: Path) -> None:
    meshes = ArtifactStore(LocalFiles(tmp_path))
    for ask in (meshes.open, meshes.delete):
        with pytest.raises(ArtifactNotFound):
            ask(name)


@pytest.mark.parametrize("fmt", ["", "GLB", "exe", "../x", "glb/"])
def test_an_unknown_format_is_refused_and_nothing_is_kept(fmt: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidFormat):
        ArtifactStore(LocalFiles(tmp_path)).write(b"mesh", fmt)
    with pytest.raises(InvalidFormat):
        media_type(fmt)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_mesh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageFull):
        ArtifactStore(LocalFiles(tmp_path)).write(b"mesh", "glb")
    assert list(tmp_path.iterdir()) == []


def test_old_meshes_are_told(tmp_path: Path, clock: ManualClock) -> None:
    meshes = ArtifactStore(LocalFiles(tmp_path, clock))
    old = meshes.write(b"old", "glb")
    clock.advance(60)
    meshes.write(b"new", "glb")
    assert list(meshes.older_than(clock() - timedelta(seconds=30))) == [old]
