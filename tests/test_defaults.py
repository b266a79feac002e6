"""The resolution that a checkpoint is for is read without loading it, and a released one's is taken otherwise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from backend.hunyuan3d.checkpoint.defaults import configured_resolution

CONFIG = "pipeline: {{params: {{octree_resolution: {}}}}}\n"


def test_the_demo_is_for_128_cells_and_a_repository_for_384() -> None:
    assert configured_resolution("demo") == 128
    assert configured_resolution("tencent/Hunyuan3D-2.1", "hunyuan3d-dit-v2-1") == 384


def test_a_folder_says_it_itself_or_in_its_subfolder(tmp_path: Path) -> None:
    inside = tmp_path / "part"
    inside.mkdir()
    (inside / "config.yaml").write_text(CONFIG.format(256))
    assert configured_resolution(str(inside)) == 256
    assert configured_resolution(str(tmp_path), "part") == 256
    assert configured_resolution(str(tmp_path)) == 256


@pytest.mark.parametrize(
    "text",
    ["", "pipeline: 3", "pipeline: {params: {}}", "{", CONFIG.format("fine"), CONFIG.format(7), CONFIG.format(4096)],
)
def test_what_says_nothing_of_use_is_taken_for_a_released_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    assert configured_resolution(str(tmp_path)) == 384


def test_reading_it_does_not_load_torch() -> None:
    code = "import sys; from backend.hunyuan3d.checkpoint.defaults import configured_resolution as read; "
    code += "print(read('demo'), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)  # noqa: S603
    assert done.stdout.split() == ["128", "False"]
