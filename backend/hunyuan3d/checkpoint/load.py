"""A checkpoint in, networks out: strict about every key, every shape and every value.

Networks are built without memory and given the file's own tensors, so nothing is ever left at a random start. Knows
nothing of sampling or pictures.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn

from backend.errors import CheckpointConfigError, CheckpointKeyError, CheckpointValueError
from backend.hunyuan3d.checkpoint.config import CheckpointConfig, config_document, parse_config, parse_vae_config
from backend.hunyuan3d.checkpoint.defaults import CONFIG_NAME
from backend.hunyuan3d.checkpoint.files import WEIGHT_NAMES, Weights, locate, read_config, read_weights
from backend.hunyuan3d.networks.conditioner import SingleImageEncoder
from backend.hunyuan3d.networks.denoiser_v2_0 import DenoiserV20Config, Hunyuan3DDiT
from backend.hunyuan3d.networks.denoiser_v2_1 import HunYuanDiTPlain
from backend.hunyuan3d.networks.shape_vae import ShapeVAE, ShapeVAEConfig

logger = logging.getLogger(__name__)

Module = TypeVar("Module", bound=nn.Module)


class Denoiser(Protocol):
    """What sampling needs of a denoiser of either design."""

    @property
    def guidance_embed(self) -> bool: ...

    def prepare(self, cond: Tensor, *, classifier_free: bool) -> Any: ...

    def velocity(self, x: Tensor, t: Tensor, context: Any, guidance: Tensor | None = None) -> Tensor: ...


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's networks, loaded, and its settings.

    conditioner : None where the file carries none. offloaded : whether it and the VAE are in main memory, not on the
    device.
    """

    name: str
    config: CheckpointConfig
    denoiser: Hunyuan3DDiT | HunYuanDiTPlain
    vae: ShapeVAE
    conditioner: SingleImageEncoder | None
    offloaded: bool = False


def load_checkpoint(
    name: str | Path,
    subfolder: str | None = None,
    *,
    vae: str | Path | None = None,
    device: torch.device,
    dtype: torch.dtype,
    offload: Callable[[int], bool] = lambda _: False,
) -> Checkpoint:
    """Load a local folder, a short name or a hub repository.

    vae : a separate VAE folder or repository, used in place of the checkpoint's own. offload : given the bytes of all
    weights, says whether conditioner and VAE stay in main memory, off the device. Raises CheckpointNotFound,
    CheckpointUnreadable, CheckpointConfigError, CheckpointKeyError, CheckpointValueError.
    """
    files = locate(name, subfolder)
    config = parse_config(read_config(files.config), str(files.config))
    weights = read_weights(files.weights)
    vae_weights = weights.section("vae")
    if vae is not None:
        vae_config, vae_weights = read_separate_vae(vae)
        config = _with_vae(config, vae_config)
    placement = _Placement(device, dtype)
    used = (weights.section("model"), weights.section("conditioner"), vae_weights)
    offloaded = offload(sum(t.numel() for part in used for t in part.tensors.values()) * dtype.itemsize)
    waiting = _Placement(torch.device("cpu"), dtype) if offloaded else placement
    denoiser = load_module(lambda: build_denoiser(config), weights.section("model"), "model", placement)
    conditioner = None
    if weights.section("conditioner").tensors:
        section = weights.section("conditioner")
        conditioner = load_module(lambda: SingleImageEncoder(config.conditioner), section, "conditioner", waiting)
    if isinstance(denoiser, HunYuanDiTPlain):
        denoiser.fuse()
    return Checkpoint(str(name), config, denoiser, load_vae(config.vae, vae_weights, waiting), conditioner, offloaded)


def read_separate_vae(name: str | Path) -> tuple[ShapeVAEConfig, Weights]:
    """Read settings and weights of a VAE folder (or of another checkpoint's `vae` section)."""
    files = locate(name)
    weights = read_weights(files.weights)
    config = parse_vae_config(read_config(files.config), str(files.config))
    return config, weights.section("vae") if weights.has_sections else weights


def build_denoiser(config: CheckpointConfig) -> Hunyuan3DDiT | HunYuanDiTPlain:
    """Build the denoiser of either design, with no weights of its own yet."""
    settings = config.denoiser
    return Hunyuan3DDiT(settings) if isinstance(settings, DenoiserV20Config) else HunYuanDiTPlain(settings)


@dataclass(frozen=True)
class _Placement:
    device: torch.device
    dtype: torch.dtype


def load_vae(config: ShapeVAEConfig, weights: Weights, placement: _Placement) -> ShapeVAE:
    """Load a ShapeVAE, with its encoder where the file has a fitting one; extra keys are normal there."""
    with torch.device("meta"):
        encoder = {key: t for key, t in ShapeVAE(config, with_encoder=True).state_dict().items() if _of_encoder(key)}
    # Making shapes does not use the encoder, so that a file without one, or with another, is no error.
    with_encoder = all(key in weights.tensors and weights.tensors[key].shape == t.shape for key, t in encoder.items())
    return load_module(
        lambda: ShapeVAE(config, with_encoder=with_encoder), weights, "vae", placement, extra_is_error=False
    )


def _of_encoder(key: str) -> bool:
    return key.startswith(("encoder.", "pre_kl."))


def load_module(
    build: Callable[[], Module], weights: Weights, section: str, placement: _Placement, *, extra_is_error: bool = True
) -> Module:
    """Build a network without memory and give it the file's tensors, frozen and in evaluation mode.

    Raises CheckpointKeyError naming file, key, expected and found shape; CheckpointValueError naming the key.
    """
    with torch.device("meta"):
        module = build()
    wanted = module.state_dict()
    _check_keys(wanted, weights, section, extra_is_error)
    for key in wanted:
        _check_shape(weights.source, f"{section}.{key}", wanted[key], weights.tensors[key])
    loaded = {key: _placed(weights.tensors[key], placement, weights.source, f"{section}.{key}") for key in wanted}
    module.load_state_dict(loaded, assign=True)
    unset = [name for name, buffer in module.named_buffers() if buffer.is_meta]
    if unset:
        raise CheckpointKeyError(f"{weights.source}: {section} has buffers that no file sets: {', '.join(unset)}.")
    return module.requires_grad_(False).eval()


def save_checkpoint(folder: Path, checkpoint: Checkpoint, dtype: torch.dtype = torch.float16) -> None:
    """Write config.yaml and model.fp16.safetensors (model.safetensors in float32) in the released layout."""
    folder.mkdir(parents=True, exist_ok=True)
    document = yaml.safe_dump(config_document(checkpoint.config), sort_keys=False)
    (folder / CONFIG_NAME).write_text(document, encoding="utf-8")
    parts = {"model": checkpoint.denoiser, "vae": checkpoint.vae, "conditioner": checkpoint.conditioner}
    tensors = {
        f"{section}.{key}": tensor.detach().to("cpu", dtype).contiguous().clone()
        for section, module in parts.items()
        if module is not None
        for key, tensor in module.state_dict().items()
    }
    save_file(tensors, folder / WEIGHT_NAMES[dtype == torch.float32])


def _check_keys(wanted: Mapping[str, Tensor], weights: Weights, section: str, extra_is_error: bool) -> None:
    missing = [key for key in wanted if key not in weights.tensors]
    if missing:
        expected, key = tuple(wanted[missing[0]].shape), f"{section}.{missing[0]}"
        raise CheckpointKeyError(
            f"{weights.source} lacks {key}: expected shape {expected}, found nothing ({len(missing)} keys missing).",
            details={"file": str(weights.source), "key": key, "expected": expected, "found": None},
        )
    extra = sorted(set(weights.tensors) - set(wanted))
    if not extra:
        return
    named = ", ".join(f"{section}.{key}" for key in extra[:8]) + (" …" if len(extra) > 8 else "")
    if extra_is_error:
        raise CheckpointKeyError(
            f"{weights.source} has {len(extra)} keys that its config.yaml has no place for: {named}.",
            details={"file": str(weights.source), "key": f"{section}.{extra[0]}", "expected": None},
        )
    logger.warning("%s: %d keys are not used: %s", weights.source, len(extra), named)


def _check_shape(source: Path, key: str, wanted: Tensor, found: Tensor) -> None:
    if found.shape != wanted.shape or not found.is_floating_point():
        raise CheckpointKeyError(
            f"{source}: {key} should be floating point of shape {tuple(wanted.shape)}, "
            f"found {found.dtype} of shape {tuple(found.shape)}.",
            details={"file": str(source), "key": key, "expected": tuple(wanted.shape), "found": tuple(found.shape)},
        )


def _placed(tensor: Tensor, placement: _Placement, source: Path, key: str) -> Tensor:
    """Copy the tensor to the device: the file may change or go away while the network lives."""
    placed = tensor.to(placement.device, placement.dtype, copy=True)
    if not torch.isfinite(placed).all():
        raise CheckpointValueError(
            f"{source}: {key} holds values that are not finite in {placement.dtype}.",
            details={"file": str(source), "key": key},
        )
    return placed


def _with_vae(config: CheckpointConfig, vae: ShapeVAEConfig) -> CheckpointConfig:
    try:
        return replace(config, vae=vae)
    except ValueError as e:
        raise CheckpointConfigError(f"The separate VAE does not fit the denoiser: {e}.") from e
