"""Where a checkpoint's files are, and what is in them: config.yaml as plain data, weights as tensors on the CPU.

Nothing in a file is ever executed: YAML is read by safe_load, torch files with weights_only. Knows nothing of networks.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from backend.errors import CheckpointConfigError, CheckpointNotFound, CheckpointUnreadable
from backend.hunyuan3d.checkpoint.defaults import CONFIG_NAME, DEMO_FOLDER

WEIGHT_NAMES = ("model.fp16.safetensors", "model.safetensors", "model.fp16.ckpt", "model.ckpt")
SECTIONS = ("model", "vae", "conditioner")

_REPO_2_0, _REPO_MINI, _REPO_MV = "tencent/Hunyuan3D-2", "tencent/Hunyuan3D-2mini", "tencent/Hunyuan3D-2mv"
SHORT_NAMES = {
    "hunyuan3d-2.1": "tencent/Hunyuan3D-2.1/hunyuan3d-dit-v2-1",
    **{f"hunyuan3d-2.0{kind}": f"{_REPO_2_0}/hunyuan3d-dit-v2-0{kind}" for kind in ("", "-fast", "-turbo")},
    **{f"hunyuan3d-2mini{kind}": f"{_REPO_MINI}/hunyuan3d-dit-v2-mini{kind}" for kind in ("", "-fast", "-turbo")},
    **{f"hunyuan3d-2mv{kind}": f"{_REPO_MV}/hunyuan3d-dit-v2-mv{kind}" for kind in ("", "-fast", "-turbo")},
}
# owner/name of a hub repository, with an optional folder inside it.
_REPO = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(?:/(?P<subfolder>\w[\w.-]*(?:/\w[\w.-]*)*))?")


@dataclass(frozen=True)
class CheckpointFiles:
    """One checkpoint's two files."""

    config: Path
    weights: Path


@dataclass(frozen=True)
class Weights:
    """Tensors by key, and the file they came from."""

    source: Path
    tensors: Mapping[str, Tensor]

    def section(self, name: str) -> Weights:
        """Return the keys under `name.`, without that prefix."""
        prefix = f"{name}."
        inside = {key.removeprefix(prefix): t for key, t in self.tensors.items() if key.startswith(prefix)}
        return Weights(self.source, inside)

    @property
    def has_sections(self) -> bool:
        """Whether keys carry a section's name in front, unlike those of a separate VAE folder."""
        return any(key.partition(".")[0] in SECTIONS for key in self.tensors)


def locate(name: str | Path, subfolder: str | None = None) -> CheckpointFiles:
    """Find a checkpoint by local folder, short name (SHORT_NAMES, 'demo') or hub repository 'owner/name[/folder]'.

    Raises CheckpointNotFound.
    """
    text = str(name)
    path = DEMO_FOLDER if text == "demo" else Path(name).expanduser()
    if path.exists() or text == "demo":
        return _in_folder(path, subfolder)
    match = None if isinstance(name, Path) else _REPO.fullmatch(SHORT_NAMES.get(text, text))
    if match is None:
        raise CheckpointNotFound(
            f"No checkpoint {text!r}: it is no folder here, no hub repository 'owner/name' and none of the short names "
            f"demo, {', '.join(SHORT_NAMES)}."
        )
    return _from_hub(match["repo"], subfolder or match["subfolder"])


def read_config(path: Path) -> object:
    """Read a config.yaml as plain data. Raises CheckpointConfigError."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise CheckpointConfigError(f"{path} is not plain YAML: {e}") from e


def read_weights(path: Path) -> Weights:
    """Return all tensors of a .safetensors or .ckpt file, flat, sections as the first part of the key.

    Raises CheckpointUnreadable for anything that is not a file of plain tensors; no code in the file is run.
    """
    try:
        if path.suffix == ".safetensors":
            return Weights(path, load_file(path))
        with warnings.catch_warnings():
            # A pickle that is no torch file is announced by a warning before it is refused.
            warnings.simplefilter("ignore")
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as e:
        raise CheckpointUnreadable(f"{path} holds more than plain tensors and was not opened: {e}") from e
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, LookupError) as e:
        raise CheckpointUnreadable(f"{path} cannot be read: {e}") from e
    tensors = dict(_flat(loaded, ""))
    if not tensors:
        raise CheckpointUnreadable(f"{path} holds no tensors.")
    return Weights(path, tensors)


def _flat(value: object, key: str) -> list[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        return [(key, value)]
    if not isinstance(value, Mapping):
        return []
    return [pair for name, item in value.items() for pair in _flat(item, f"{key}.{name}" if key else str(name))]


def _in_folder(root: Path, subfolder: str | None) -> CheckpointFiles:
    folder = root / subfolder if subfolder else root
    if not subfolder and not (folder / CONFIG_NAME).is_file():
        folder = _only_checkpoint_in(folder)
    config = folder / CONFIG_NAME
    if not config.is_file():
        raise CheckpointNotFound(f"There is no {CONFIG_NAME} in {folder}.", details={"folder": str(folder)})
    for name in WEIGHT_NAMES:
        if (folder / name).is_file():
            return CheckpointFiles(config, folder / name)
    raise CheckpointNotFound(
        f"There are no weights in {folder}; looked for {', '.join(WEIGHT_NAMES)}.", details={"folder": str(folder)}
    )


def _only_checkpoint_in(folder: Path) -> Path:
    inside = sorted(path.parent for path in folder.glob(f"*/{CONFIG_NAME}"))
    if len(inside) > 1:
        names = ", ".join(path.name for path in inside)
        raise CheckpointNotFound(f"{folder} holds several checkpoints ({names}); name one as the subfolder.")
    return inside[0] if inside else folder


def _from_hub(repo: str, subfolder: str | None) -> CheckpointFiles:
    config = _fetch(repo, subfolder, (CONFIG_NAME,))
    return CheckpointFiles(config, _fetch(repo, subfolder, WEIGHT_NAMES))


def _fetch(repo: str, subfolder: str | None, names: tuple[str, ...]) -> Path:
    """Fetch the first of the files that is here already, else the first that the repository has."""
    # A checkpoint that lies in a folder needs neither this nor the HTTP client behind it.
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    reason: Exception | None = None
    # The cache is asked first: without a network, every question to the hub costs half a minute of retries.
    for only_cached, name in product((True, False), names):
        try:
            return Path(hf_hub_download(repo, name, subfolder=subfolder, local_files_only=only_cached))
        except EntryNotFoundError as e:
            reason = e
            if isinstance(e, LocalEntryNotFoundError) and not only_cached:
                break
        except (HfHubHTTPError, HFValidationError, OSError) as e:
            reason = e
            break
    source = f"{repo}/{subfolder}" if subfolder else repo
    raise CheckpointNotFound(
        f"{source} could not be fetched from the Hugging Face hub ({type(reason).__name__}; looked for "
        f"{', '.join(names)}). Connect to the internet and check the name, or fetch it elsewhere and give the folder.",
        details={"repo": repo, "subfolder": subfolder},
    ) from reason
