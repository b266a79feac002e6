"""The folded geometry decoder on a CPU, where many points are evaluated part by part."""

from __future__ import annotations

import pytest
import torch

from backend.hunyuan3d.networks import field_decoder
from backend.hunyuan3d.networks.shape_vae import ShapeField, ShapeVAE, ShapeVAEConfig

CONFIG = ShapeVAEConfig(num_latents=16, embed_dim=4, width=64, heads=2, num_decoder_layers=1, num_freqs=4)
HIDDEN_BYTES = 64 * 4 * 4


@pytest.fixture(scope="module")
def field() -> ShapeField:
    torch.manual_seed(5)
    vae = ShapeVAE(CONFIG).eval()
    return vae.field(vae.decode(torch.randn(1, 16, 4)))


@pytest.mark.parametrize("count", [1, 1023, 1024, 1025, 3001, 4096])
def test_points_evaluated_in_parts_have_the_same_logits_to_the_bit(
    field: ShapeField, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = torch.rand((count, 3)) * 2 - 1
    whole = field(points, 0)
    monkeypatch.setattr(field_decoder, "_CACHED", 512 * HIDDEN_BYTES)
    assert torch.equal(field(points, 0), whole)


def test_parts_are_of_the_size_that_fits_the_cache(field: ShapeField, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    evaluate = field_decoder.FieldDecoder._logits

    def count(decoder: field_decoder.FieldDecoder, points: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        sizes.append(len(points))
        return evaluate(decoder, points, *rest)

    monkeypatch.setattr(field_decoder.FieldDecoder, "_logits", count)
    monkeypatch.setattr(field_decoder, "_CACHED", 550 * HIDDEN_BYTES)
    for points in (1, 1023, 1024, 2001):
        field(torch.zeros((points, 3)), 0)
    assert sizes == [1, 1023, 512, 512, 512, 512, 977]
