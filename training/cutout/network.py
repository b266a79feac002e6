"""The network that says, pixel by pixel, how likely a photograph shows the object there.

A small U-Net (Ronneberger et al. 2015) of full convolutions. It works on blocks of 2 x 2 pixels, so that its first
layers cost a quarter. This module does not know where a photograph comes from or what is done with the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

WIDTHS = (24, 40, 64, 96, 128, 144)
STRIDE = 2 ** len(WIDTHS)
"""Sides of an input are multiples of this: the first level sees blocks of two pixels, each further one half as many."""

JUDGED_LEVEL = 2
"""The level of the way up, an eighth of the picture's sides, whose features tell how well the mask will do."""

_MEAN, _SPREAD = 0.5, 0.25
_JUDGE_WIDTH = 48


class ConvBlock(nn.Module):
    """Two 3 x 3 convolutions, each normalised over the batch and followed by a ReLU."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, H, W) to (B, width, H, W)."""
        x = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(x)))


class CutoutNetwork(nn.Module):
    """The U-Net. widths : channels of each level, from half the input's resolution downwards."""

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        before = (12, *widths[:-1])
        self.down = nn.ModuleList(ConvBlock(c, w) for c, w in zip(before, widths, strict=True))
        upper = list(widths[:-1])
        below = list(widths[1:])
        self.up = nn.ModuleList(ConvBlock(b + u, u) for u, b in zip(upper, below, strict=True))
        self.head = nn.Conv2d(widths[0], 4, 1)
        self.judge1 = nn.Linear(widths[-1] + 2 * widths[JUDGED_LEVEL], _JUDGE_WIDTH)
        self.judge2 = nn.Linear(_JUDGE_WIDTH, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits of the mask (B, 1, H, W), and of the IoU (B) that it is expected to have.

        image : (B, 3, H, W) in 0..1; H and W are multiples of STRIDE.
        """
        x = F.pixel_unshuffle((image - _MEAN) / _SPREAD, 2)
        levels: list[Tensor] = []
        for number, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if number else x)
            levels.append(x)
        seen = [x.mean((2, 3))]
        for number in reversed(range(len(self.up))):
            x = self.up[number](torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), levels[number]], 1))
            if number == JUDGED_LEVEL:
                seen += [x.mean((2, 3)), x.amax((2, 3))]
        expected = self.judge2(F.relu(self.judge1(torch.cat(seen, 1))))[:, 0]
        return F.pixel_shuffle(self.head(x), 2), expected


def folded(network: CutoutNetwork) -> dict[str, NDArray[np.float16]]:
    """Return the weights as backend.hunyuan3d.image.cutout_network names and lays them, normalisations folded in."""
    weights: dict[str, Tensor] = {}
    for name, conv, norm in _convolutions(network):
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        kernel = conv.weight * scale[:, None, None, None]
        weights[f"{name}.kernel"] = kernel.permute(2, 3, 1, 0)
        weights[f"{name}.bias"] = norm.bias - norm.running_mean * scale
    weights["head.kernel"] = network.head.weight[:, :, 0, 0].T
    weights["head.bias"] = torch.as_tensor(network.head.bias)
    for number, layer in ((1, network.judge1), (2, network.judge2)):
        weights[f"judge.{number}.kernel"], weights[f"judge.{number}.bias"] = layer.weight.T, layer.bias
    return {name: value.detach().to(torch.float16).contiguous().numpy() for name, value in weights.items()}


def unfolded(weights: Mapping[str, NDArray[np.generic]], image: Tensor) -> CutoutNetwork:
    """Return a network that computes what folded weights do, with normalisations again, so that it can go on learning.

    A folded kernel does not tell what its normalisation saw: that is measured on images (B, 3, H, W) in 0..1, and each
    normalisation is given the scale and shift that undo it. Raises KeyError where a weight is missing.
    """
    network = CutoutNetwork().eval()
    values = {name: torch.from_numpy(np.asarray(value, np.float32)) for name, value in weights.items()}
    hooks = []
    with torch.no_grad():
        for name, conv, norm in _convolutions(network):
            conv.weight.copy_(values[f"{name}.kernel"].permute(3, 2, 0, 1))
            norm.bias.copy_(values[f"{name}.bias"])
            hooks.append(norm.register_forward_pre_hook(_undo))
        network.head.weight.copy_(values["head.kernel"].T[:, :, None, None])
        network.head.bias.copy_(values["head.bias"])  # type: ignore[union-attr]
        for number, layer in ((1, network.judge1), (2, network.judge2)):
            layer.weight.copy_(values[f"judge.{number}.kernel"].T)
            layer.bias.copy_(values[f"judge.{number}.bias"])
        network(image)
    for hook in hooks:
        hook.remove()
    return network.train()


def _convolutions(network: CutoutNetwork) -> Iterator[tuple[str, Any, Any]]:
    """Yield each convolution and its normalisation, under the name that its folded weights have."""
    for way, blocks in (("down", network.down), ("up", network.up)):
        for level, block in enumerate(blocks):
            for number in (1, 2):
                yield f"{way}.{level}.{number}", getattr(block, f"conv{number}"), getattr(block, f"norm{number}")


def _undo(norm: nn.BatchNorm2d, arguments: tuple[Tensor, ...]) -> None:
    """Let a normalisation take what it sees first for its statistics, and give it back with its bias added."""
    spread, mean = torch.var_mean(arguments[0], (0, 2, 3), correction=0)
    norm.running_mean, norm.running_var = mean, spread
    norm.weight.copy_(torch.sqrt(spread + norm.eps))
    norm.bias.add_(mean)
