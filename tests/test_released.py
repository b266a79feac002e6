"""The released networks at full size, built without memory: their parameter counts and their config files."""

from __future__ import annotations

import logging

import pytest
import torch
import yaml
from torch import nn

from backend.hunyuan3d.checkpoint import released
from backend.hunyuan3d.checkpoint.config import CheckpointConfig, config_document, parse_config
from backend.hunyuan3d.checkpoint.load import build_denoiser
from backend.hunyuan3d.networks.conditioner import SingleImageEncoder
from backend.hunyuan3d.networks.shape_vae import ShapeVAE

RELEASES = {
    "2.1": released.HUNYUAN3D_2_1,
    "2.0": released.HUNYUAN3D_2_0,
    "2.0-fast": released.fast(released.HUNYUAN3D_2_0),
    "2.0-turbo": released.turbo(released.HUNYUAN3D_2_0),
    "2mini": released.HUNYUAN3D_2_MINI,
    "2mini-turbo": released.turbo(released.HUNYUAN3D_2_MINI),
    "2mv": released.HUNYUAN3D_2_MV,
    "2mv-turbo": released.turbo(released.HUNYUAN3D_2_MV),
}


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("name", "count"),
    [("2.1", 3_050_758_720), ("2.0", 1_113_274_432), ("2mini", 559_196_224), ("2mv", 1_113_274_432)],
)
def test_denoisers_have_the_released_size(name: str, count: int) -> None:
    with torch.device("meta"):
        assert parameters(build_denoiser(RELEASES[name])) == count


def test_the_shape_vae_has_the_released_size() -> None:
    with torch.device("meta"):
        assert parameters(ShapeVAE(released.VAE_2_1, with_encoder=True)) == 327_746_177


@pytest.mark.parametrize(("name", "count"), [("2.1", 304_368_640), ("2.0", 1_136_480_768)])
def test_conditioners_have_the_released_size(name: str, count: int) -> None:
    with torch.device("meta"):
        conditioner = SingleImageEncoder(RELEASES[name].conditioner)
    assert parameters(conditioner) == count


def test_the_guidance_embedding_adds_its_two_layers() -> None:
    with torch.device("meta"):
        added = parameters(build_denoiser(RELEASES["2.0-fast"])) - parameters(build_denoiser(RELEASES["2.0"]))
    assert added == 256 * 1024 + 1024 + 1024 * 1024 + 1024


@pytest.mark.parametrize("name", RELEASES)
def test_a_written_config_reads_back_as_itself(name: str, caplog: pytest.LogCaptureFixture) -> None:
    config: CheckpointConfig = RELEASES[name]
    text = yaml.safe_dump(config_document(config))
    with caplog.at_level(logging.WARNING):
        assert parse_config(yaml.safe_load(text), name) == config
    assert not caplog.records


def test_turbo_takes_five_steps_and_the_others_fifty() -> None:
    assert {name: c.defaults.num_inference_steps for name, c in RELEASES.items() if "turbo" in name} == {
        "2.0-turbo": 5,
        "2mini-turbo": 5,
        "2mv-turbo": 5,
    }
    assert RELEASES["2.0-fast"].defaults.num_inference_steps == 50


def test_the_v2_1_design_has_no_fast_release() -> None:
    with pytest.raises(ValueError, match="designs"):
        released.fast(released.HUNYUAN3D_2_1)
