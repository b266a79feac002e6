"""Our DINOv2 against transformers' Dinov2Model: the same weights, the same pictures, the same bits on the CPU."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
import torch
from torch import Tensor
from transformers import Dinov2Config, Dinov2Model

from backend.hunyuan3d.networks.dinov2 import DinoConfig, DinoV2

SMALL = DinoConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=56, layerscale_value=0.7)
DEMO = DinoConfig(hidden_size=192, num_hidden_layers=8, num_attention_heads=6, image_size=112, mlp_ratio=3)

THEIR_NAMES = (
    (".attention.attention.query.", ".attention.q_proj."),
    (".attention.attention.key.", ".attention.k_proj."),
    (".attention.attention.value.", ".attention.v_proj."),
    (".attention.output.dense.", ".attention.o_proj."),
    (".mlp.weights_out.", ".mlp.down_proj."),
)
"""The released checkpoints' names, which are ours, and what transformers 5 calls the same."""


def network(config: DinoConfig) -> DinoV2:
    """Return one with weights that differ everywhere, biases and norms too."""
    torch.manual_seed(7)
    ours = DinoV2(config).eval().requires_grad_(False)
    for parameter in ours.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.05)
    return ours


def theirs_with(ours: DinoV2, config: DinoConfig) -> Dinov2Model:
    """Return transformers' network with the same weights, every one of them taken."""
    state: dict[str, Tensor] = {}
    for name, tensor in ours.state_dict().items():
        for released, theirs in THEIR_NAMES:
            name = name.replace(released, theirs)  # noqa: PLW2901
        if ".mlp.weights_in." in name:
            for part, half in zip(("gate_proj", "up_proj"), tensor.chunk(2), strict=True):
                state[name.replace("weights_in", part)] = half
        else:
            state[name] = tensor
    model = Dinov2Model(Dinov2Config(**asdict(config))).eval().requires_grad_(False)
    model.load_state_dict(state)
    return model


def both(config: DinoConfig, image: Tensor) -> tuple[Tensor, Tensor]:
    ours = network(config).to(image.dtype)
    theirs = theirs_with(ours, config).to(image.dtype)
    return ours(image), theirs(pixel_values=image).last_hidden_state


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        DEMO,
        replace(SMALL, use_swiglu_ffn=True),
        replace(SMALL, use_swiglu_ffn=True, mlp_ratio=3, hidden_size=48),
        replace(SMALL, qkv_bias=False),
        replace(SMALL, hidden_size=64, num_attention_heads=1, patch_size=7, layer_norm_eps=1e-5),
        replace(SMALL, num_channels=1),
    ],
    ids=["small", "demo", "swiglu", "swiglu of an odd width", "no qkv bias", "one head, small patches", "grey"],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_the_same_bits_as_transformers(config: DinoConfig, batch: int) -> None:
    ours, theirs = both(config, torch.randn(batch, config.num_channels, config.image_size, config.image_size))
    assert ours.shape == (batch, 1 + (config.image_size // config.patch_size) ** 2, config.hidden_size)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    "size",
    [(70, 70), (42, 42), (14, 14), (518, 518), (28, 112), (112, 28), (42, 84), (60, 60), (57, 56), (69, 83)],
    ids=lambda size: f"{size[0]}x{size[1]}",
)
def test_positions_are_resampled_as_transformers_does(size: tuple[int, int]) -> None:
    ours, theirs = both(SMALL, torch.randn(2, 3, *size))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [56, 70])
@pytest.mark.parametrize("gated", [False, True])
def test_half_precision_stays_as_near_to_single_as_transformers(dtype: torch.dtype, size: int, gated: bool) -> None:
    config, image = replace(SMALL, use_swiglu_ffn=gated), torch.randn(2, 3, size, size)
    ours, theirs = both(config, image.to(dtype))
    exact = network(config)(image)
    assert ours.dtype == dtype
    error, their_error = ((out.float() - exact).abs().max() for out in (ours, theirs))
    assert error < 1.5 * their_error + 1e-3
    assert (ours.float() - theirs.float()).abs().max() < 16 * torch.finfo(dtype).eps


def test_gradients_are_those_of_transformers() -> None:
    ours = network(SMALL)
    theirs = theirs_with(ours, SMALL)
    image, weight = torch.randn(2, 3, 70, 70), torch.randn(2, 26, 32)
    ours.requires_grad_(True)
    theirs.requires_grad_(True)
    (ours(image) * weight).sum().backward()
    (theirs(pixel_values=image).last_hidden_state * weight).sum().backward()
    for name, other in (
        ("embeddings.position_embeddings", "embeddings.position_embeddings"),
        ("embeddings.cls_token", "embeddings.cls_token"),
        ("encoder.layer.0.attention.attention.key.weight", "encoder.layer.0.attention.k_proj.weight"),
        ("encoder.layer.1.layer_scale2.lambda1", "encoder.layer.1.layer_scale2.lambda1"),
    ):
        torch.testing.assert_close(
            ours.get_parameter(name).grad, theirs.get_parameter(other).grad, rtol=1e-3, atol=1e-4, msg=name
        )


@pytest.mark.parametrize("gated", [False, True])
def test_training_starts_from_what_transformers_draws(gated: bool) -> None:
    config = replace(SMALL, hidden_size=128, use_swiglu_ffn=gated)
    torch.manual_seed(0)
    ours = DinoV2(config)
    theirs = theirs_with(ours, config).state_dict()
    drawn = Dinov2Model(Dinov2Config(**asdict(config))).state_dict()
    assert theirs.keys() == drawn.keys()
    for name, tensor in drawn.items():
        assert abs(float(tensor.std() - theirs[name].std())) < 0.005, name
        assert abs(float(tensor.mean() - theirs[name].mean())) < 0.005, name
