"""The three networks that a run trains: as files between its stages, and as they come out of a checkpoint.

Knows the recipe's sizes and files; nothing of how anything is trained.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from backend.hunyuan3d.checkpoint.config import parse_config
from backend.hunyuan3d.checkpoint.files import locate, read_config, read_weights
from backend.hunyuan3d.networks.conditioner import SingleImageEncoder
from backend.hunyuan3d.networks.denoiser_v2_1 import HunYuanDiTPlain
from backend.hunyuan3d.networks.shape_vae import ShapeVAE
from training.recipe import conditioner_config, denoiser_config, vae_config


@dataclass(frozen=True)
class Networks:
    """Image encoder, denoiser and the ShapeVAE without its encoder, in float32, on the CPU."""

    conditioner: SingleImageEncoder
    denoiser: HunYuanDiTPlain
    vae: ShapeVAE

    @classmethod
    def of_run(cls, folder: Path) -> Networks:
        """Read the three files that a run leaves."""
        states = {part: read_part(folder, part) for part in ("conditioner", "denoiser", "vae")}
        return cls.filled({part: state for part, (state, _) in states.items()}, states["vae"][1])

    @classmethod
    def of_checkpoint(cls, name: str | Path) -> Networks:
        """Read a checkpoint of the recipe's sizes, or of fewer layers: those that it lacks change nothing yet."""
        files = locate(name)
        weights, config = read_weights(files.weights), parse_config(read_config(files.config), str(files.config))
        sections = {"conditioner": "conditioner", "denoiser": "model", "vae": "vae"}
        states = {part: weights.section(section).tensors for part, section in sections.items()}
        return cls.filled(states, config.vae.scale_factor, growing=True)

    @classmethod
    def filled(
        cls, states: Mapping[str, Mapping[str, Tensor]], scale_factor: float, *, growing: bool = False
    ) -> Networks:
        """Build the three networks and give them their weights. growing : they may have been of fewer layers."""
        built = cls(
            SingleImageEncoder(conditioner_config()),
            HunYuanDiTPlain(denoiser_config()),
            ShapeVAE(vae_config(scale_factor)),
        )
        for part, module in built.parts().items():
            fill(module, with_new_layers(module, states[part]) if growing else states[part])
        return built

    def parts(self) -> dict[str, nn.Module]:
        """Return the networks by name."""
        return {"conditioner": self.conditioner, "denoiser": self.denoiser, "vae": self.vae}

    def save(self, folder: Path) -> None:
        """Write the three files of a run."""
        for part, module in self.parts().items():
            save_part(folder, part, module, self.vae.config.scale_factor)


def save_part(folder: Path, part: str, module: nn.Module, scale_factor: float = 1.0) -> None:
    """Write one network's weights in half precision, so that a kill leaves either the old file or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        key: tensor.detach().to("cpu", torch.float16).contiguous() for key, tensor in module.state_dict().items()
    }
    partial = folder / f".{part}.partial"
    save_file(tensors, partial, metadata={"facts": json.dumps({"scale_factor": scale_factor})})
    partial.replace(folder / f"{part}.safetensors")


def read_part(folder: Path, part: str) -> tuple[dict[str, Tensor], float]:
    """Return one network's weights in float32 and the latents' scale factor that was kept with them."""
    with safe_open(folder / f"{part}.safetensors", "pt") as file:
        facts = json.loads(file.metadata()["facts"])
        return {key: file.get_tensor(key).float() for key in file.keys()}, float(facts["scale_factor"])  # noqa: SIM118


def fill(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a network its weights; every one of its own must be there."""
    module.load_state_dict({key: weights[key] for key in module.state_dict()})


_LAYER = re.compile(r"(layer|resblocks)\.(\d+)\.")
_LAST = ("layer_scale1.lambda1", "layer_scale2.lambda1", "c_proj.weight", "c_proj.bias")


def with_new_layers(module: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights with those of the layers that the network has more: what such a layer adds begins as nothing."""
    known = {found[0] for key in weights if (found := _LAYER.search(key))}
    own = {key: value.detach() for key, value in module.state_dict().items()}
    new = {key: value for key, value in own.items() if (found := _LAYER.search(key)) and found[0] not in known}
    started = {key: torch.zeros_like(value) if key.endswith(_LAST) else value for key, value in new.items()}
    return {**weights, **started}
