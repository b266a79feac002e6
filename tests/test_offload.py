"""Networks that wait in main memory: there for their stage, gone after it, and the same results."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from backend.hunyuan3d.device.offload import Offloading, wants_offload
from backend.hunyuan3d.pipeline import Hunyuan3DShapePipeline

CPU = torch.device("cpu")
GIB = 1 << 30


class WithBuffer(nn.Module):
    """A network with a parameter and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(3.0))
        self.register_buffer("shift", torch.ones(3))


def places(network: nn.Module) -> list[int]:
    return [tensor.data_ptr() for tensor in (*network.parameters(), *network.buffers())]


@pytest.mark.parametrize(
    ("mode", "weights", "wanted"),
    [("auto", 7 * GIB, True), ("auto", 5 * GIB, False), ("on", 1, True), ("off", 9 * GIB, False)],
)
def test_networks_wait_where_the_weights_take_more_than_half(mode: str, weights: int, wanted: bool) -> None:
    assert wants_offload(mode, weights, 12 * GIB) is wanted


def test_a_network_is_on_the_device_only_while_it_is_used() -> None:
    network = WithBuffer()
    offloading = Offloading([network], CPU)
    waiting = places(network)
    with torch.inference_mode(), offloading.using(network):
        inside = places(network)
        with offloading.using(network):
            assert places(network) == inside
        assert places(network) == inside
        assert not network.weight.is_inference()
    assert not set(waiting) & set(inside)
    assert places(network) == waiting
    assert network.weight.tolist() == [0, 1, 2]
    assert len(offloading) == 1


def test_a_network_leaves_when_the_last_thread_is_done_with_it_whatever_it_raised() -> None:
    network = WithBuffer()
    offloading = Offloading([network], CPU)
    waiting, entered, go_on = places(network), threading.Event(), threading.Event()

    def use() -> None:
        with offloading.using(network):
            entered.set()
            go_on.wait(10)

    other = threading.Thread(target=use)
    other.start()
    assert entered.wait(10)
    with pytest.raises(RuntimeError, match="cancelled"), offloading.using(network):
        raise RuntimeError("cancelled")
    assert places(network) != waiting
    go_on.set()
    other.join()
    assert places(network) == waiting


def test_a_network_that_does_not_fit_waits_as_before_and_comes_when_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    network = WithBuffer()
    offloading = Offloading([network], CPU)
    waiting = places(network)

    def full(*_args: object, **_options: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "to", full)
        with pytest.raises(torch.OutOfMemoryError), offloading.using(network):
            pytest.fail("must not be entered")
    assert places(network) == waiting
    with offloading.using(network):
        assert places(network) != waiting


def test_networks_that_do_not_wait_are_left_alone() -> None:
    network = WithBuffer()
    before = places(network)
    with Offloading([], CPU).using(network):
        assert places(network) == before
    assert len(Offloading([], CPU)) == 0


def test_a_checkpoint_that_is_offloaded_makes_the_same_latents_and_fields() -> None:
    told: list[int] = []
    usual = Hunyuan3DShapePipeline.from_pretrained("demo", device="cpu")

    def offload(weights: int) -> bool:
        told.append(weights)
        return True

    waiting = Hunyuan3DShapePipeline.from_pretrained("demo", device="cpu", offload=offload)
    parameters = [p for network in (waiting.denoiser, waiting.shape_vae, waiting.conditioner) for p in _all(network)]
    assert told == [sum(p.numel() * 4 for p in parameters)]
    assert len(waiting.offloading) == 2
    assert len(usual.offloading) == 0
    assert waiting.conditioner is not None
    before = places(waiting.shape_vae), places(waiting.conditioner)
    image = torch.linspace(-1, 1, 3 * 112 * 112).view(1, 3, 112, 112)
    found = []
    for pipeline in (usual, waiting):
        latents = pipeline.sample_latents(pipeline.encode_images(image), 2, seeds=1)
        (volume,) = pipeline.decode_volumes(latents, 32)
        found.append((latents, volume.values))  # type: ignore[union-attr]
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert (places(waiting.shape_vae), places(waiting.conditioner)) == before


def _all(network: object) -> list[nn.Parameter]:
    assert isinstance(network, nn.Module)
    return list(network.parameters())
