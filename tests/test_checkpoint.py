"""Loading: what is found, what is refused and why, and that nothing in a file is ever run."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from torch import Tensor

from backend.errors import (
    CheckpointConfigError,
    CheckpointError,
    CheckpointKeyError,
    CheckpointNotFound,
    CheckpointUnreadable,
    CheckpointValueError,
    InvalidParameter,
)
from backend.hunyuan3d import Hunyuan3DShapePipeline
from backend.hunyuan3d.checkpoint import files as checkpoint_files
from backend.hunyuan3d.checkpoint.load import Checkpoint, load_checkpoint, save_checkpoint
from tests.support.golden import GOLDEN, load_golden

CPU = torch.device("cpu")
CopyCheckpoint = Callable[[str], Path]


def load(folder: str | Path, **options: Any) -> Checkpoint:
    return load_checkpoint(folder, device=CPU, dtype=torch.float32, **options)


def edit_config(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "config.yaml"
    document = yaml.safe_load(path.read_text())
    edit(document)
    path.write_text(yaml.safe_dump(document))


def edit_weights(folder: Path, edit: Callable[[dict[str, Tensor]], object]) -> Path:
    """Change a safetensors checkpoint's tensors."""
    path = folder / "model.fp16.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file({key: tensor.clone() for key, tensor in tensors.items()}, path)
    return path


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, backend.hunyuan3d; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])  # noqa: S603


def test_the_package_has_no_other_names() -> None:
    import backend.hunyuan3d as package

    assert "Hunyuan3DShapePipeline" in dir(package)
    with pytest.raises(AttributeError, match="nothing_of_the_sort"):
        _ = package.nothing_of_the_sort


@pytest.mark.parametrize("name", ["tiny-2.1", "tiny-2.0"])
def test_every_tensor_is_real_float32_and_frozen(name: str) -> None:
    checkpoint = load(GOLDEN / name)
    assert checkpoint.conditioner is not None
    for module in (checkpoint.denoiser, checkpoint.vae, checkpoint.conditioner):
        assert not module.training
        for tensor in [*module.parameters(), *module.buffers()]:
            assert not tensor.is_meta
            assert not tensor.requires_grad
            assert tensor.dtype == torch.float32


def test_half_precision_is_loaded_and_runs() -> None:
    pipeline = Hunyuan3DShapePipeline.from_pretrained(GOLDEN / "tiny-2.1", device="cpu", dtype="bf16")
    golden = load_golden("tiny-2.1")
    latents = pipeline.sample_latents(golden.arrays["cond"], golden.steps, noise=golden.arrays["noise"])
    assert pipeline.denoiser.x_embedder.weight.dtype == torch.bfloat16  # type: ignore[attr-defined]
    assert latents.dtype == torch.float32
    assert float((latents - golden.arrays["latents"]).abs().mean()) < 0.05


def test_a_loaded_network_does_not_depend_on_its_file(copy_checkpoint: CopyCheckpoint) -> None:
    folder = copy_checkpoint("tiny-2.0")
    edit_weights(folder, lambda t: t.update({key: tensor.float() for key, tensor in t.items()}))
    weight = load(folder).denoiser.get_parameter("cond_in.weight")
    before = weight.clone()
    path = folder / "model.fp16.safetensors"
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\0" * (path.stat().st_size // 2))
    assert torch.equal(weight, before)


# Where a checkpoint is.


def test_the_only_subfolder_is_taken() -> None:
    assert load(GOLDEN / "tiny-2.0").config == load(GOLDEN / "tiny-2.0", subfolder="hunyuan3d-dit-v2-0").config


def test_several_subfolders_are_named(copy_checkpoint: CopyCheckpoint) -> None:
    root = copy_checkpoint("tiny-2.0").parent
    copy_checkpoint("tiny-2.1")
    with pytest.raises(CheckpointNotFound, match=r"tiny-2\.0, tiny-2\.1"):
        load(root)


def test_safetensors_is_preferred_and_then_half_precision(copy_checkpoint: CopyCheckpoint) -> None:
    folder = copy_checkpoint("tiny-2.0")
    half, full = folder / "model.fp16.safetensors", folder / "model.safetensors"
    for name in ("model.ckpt", "model.fp16.ckpt"):
        (folder / name).write_bytes(b"never opened")
    assert checkpoint_files.locate(folder).weights == half
    half.rename(full)
    assert checkpoint_files.locate(folder).weights == full
    full.unlink()
    assert checkpoint_files.locate(folder).weights == folder / "model.fp16.ckpt"


@pytest.mark.parametrize("gone", ["config.yaml", "model.fp16.safetensors"])
def test_a_missing_file_is_named(copy_checkpoint: CopyCheckpoint, gone: str) -> None:
    folder = copy_checkpoint("tiny-2.0")
    (folder / gone).unlink()
    with pytest.raises(CheckpointNotFound, match=gone):
        load(folder)


@pytest.mark.parametrize("name", ["no-such-thing", "/nowhere/at/all", "a/b/../../c", ""])
def test_a_name_that_is_nothing_is_not_found(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointNotFound):
        load(name)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Return a hub without a network: the files it 'has', by 'repo/subfolder/name'; nothing is cached."""
    files: dict[str, Path] = {}

    def download(repo: str, name: str, *, subfolder: str | None, local_files_only: bool) -> str:
        place = f"{repo}/{subfolder}/{name}" if subfolder else f"{repo}/{name}"
        if local_files_only:
            raise LocalEntryNotFoundError(place)
        if place not in files:
            raise EntryNotFoundError(place)
        return str(files[place])

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    return files


@pytest.mark.parametrize(
    ("name", "subfolder"),
    [
        ("hunyuan3d-2.1", None),
        ("tencent/Hunyuan3D-2.1/hunyuan3d-dit-v2-1", None),
        ("tencent/Hunyuan3D-2.1", "hunyuan3d-dit-v2-1"),
    ],
)
def test_hub_names(hub: dict[str, Path], name: str, subfolder: str | None) -> None:
    folder = GOLDEN / "tiny-2.1" / "hunyuan3d-dit-v2-1"
    for file in ("config.yaml", "model.fp16.ckpt"):
        hub[f"tencent/Hunyuan3D-2.1/hunyuan3d-dit-v2-1/{file}"] = folder / file
    assert load(name, subfolder=subfolder).config.denoiser.in_channels == 8


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("name", checkpoint_files.SHORT_NAMES)
def test_what_the_hub_lacks_is_not_found(name: str) -> None:
    with pytest.raises(CheckpointNotFound, match=r"tencent/Hunyuan3D-2.*config\.yaml"):
        load(name)


def test_without_a_network_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def offline(*_: object, local_files_only: bool, **__: object) -> str:
        asked.append(local_files_only)
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    with pytest.raises(CheckpointNotFound, match="internet"):
        load("hunyuan3d-2.0-turbo")
    assert asked == [True, False]


def test_cached_files_are_used_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = GOLDEN / "tiny-2.1" / "hunyuan3d-dit-v2-1"

    def cached(_: str, name: str, *, subfolder: str | None, local_files_only: bool) -> str:
        assert local_files_only
        if not (folder / name).is_file():
            raise LocalEntryNotFoundError(f"{subfolder}/{name}")
        return str(folder / name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", cached)
    assert checkpoint_files.locate("hunyuan3d-2.1").weights == folder / "model.fp16.ckpt"


def test_a_separate_vae_takes_the_place_of_the_checkpoints_own(copy_checkpoint: CopyCheckpoint, tmp_path: Path) -> None:
    folder = copy_checkpoint("tiny-2mini-turbo")
    vae = tmp_path / "vae"
    vae.mkdir()
    document = yaml.safe_load((folder / "config.yaml").read_text())
    (vae / "config.yaml").write_text(yaml.safe_dump(document["vae"]))
    tensors = load_file(folder / "model.fp16.safetensors")
    own = {key.removeprefix("vae."): tensor for key, tensor in tensors.items() if key.startswith("vae.")}
    save_file(own, vae / "model.fp16.safetensors")
    loaded = load(GOLDEN / "tiny-2.0", vae=vae)
    assert loaded.config.vae.geo_decoder_downsample_ratio == 2
    assert loaded.vae.get_parameter("geo_decoder.latents_proj.weight").shape == (32, 64)
    torch.testing.assert_close(loaded.vae.state_dict(), load(folder).vae.state_dict())


def test_a_separate_vae_may_be_another_checkpoints_section() -> None:
    loaded = load(GOLDEN / "tiny-2.0", vae=GOLDEN / "tiny-2mini-turbo")
    assert loaded.config.vae.geo_decoder_downsample_ratio == 2


def test_a_vae_of_another_latent_width_is_refused(copy_checkpoint: CopyCheckpoint) -> None:
    folder = copy_checkpoint("tiny-2.0")
    edit_config(folder, lambda d: d["vae"]["params"].update(embed_dim=4))
    with pytest.raises(CheckpointConfigError, match="embed_dim"):
        load(GOLDEN / "tiny-2.1", vae=folder)


# Keys, shapes, values.


@pytest.mark.parametrize(
    "key",
    [
        "model.double_blocks.1.img_attn.qkv.weight",
        "vae.post_kl.bias",
        "conditioner.main_image_encoder.model.encoder.layer.0.mlp.weights_in.weight",
        "conditioner.main_image_encoder.model.encoder.layer.1.attention.attention.query.bias",
    ],
)
def test_a_missing_key_is_named(copy_checkpoint: CopyCheckpoint, key: str) -> None:
    folder = copy_checkpoint("tiny-2.0")
    path = edit_weights(folder, lambda tensors: tensors.pop(key))
    with pytest.raises(CheckpointKeyError) as caught:
        load(folder)
    assert str(path) in caught.value.message
    assert caught.value.details["key"] == key
    assert caught.value.details["found"] is None


@pytest.mark.parametrize(
    ("key", "shape"), [("model.cond_in.weight", (64, 32)), ("vae.geo_decoder.output_proj.bias", (1,))]
)
def test_a_misshapen_key_is_named_with_both_shapes(
    copy_checkpoint: CopyCheckpoint, key: str, shape: tuple[int, ...]
) -> None:
    folder = copy_checkpoint("tiny-2.0")
    path = edit_weights(folder, lambda tensors: tensors.update({key: torch.zeros(3, 3)}))
    with pytest.raises(CheckpointKeyError) as caught:
        load(folder)
    for part in (str(path), key, str(shape), "(3, 3)"):
        assert part in caught.value.message


def test_an_odd_width_of_the_gated_layer_is_misshapen(copy_checkpoint: CopyCheckpoint) -> None:
    folder = copy_checkpoint("tiny-2.0")
    key = "conditioner.main_image_encoder.model.encoder.layer.0.mlp.weights_in.bias"
    edit_weights(folder, lambda tensors: tensors.update({key: torch.zeros(175)}))
    with pytest.raises(CheckpointKeyError, match="weights_in"):
        load(folder)


@pytest.mark.parametrize("section", ["model", "conditioner"])
def test_a_key_that_nothing_takes_is_an_error(copy_checkpoint: CopyCheckpoint, section: str) -> None:
    folder = copy_checkpoint("tiny-2.0")
    edit_weights(folder, lambda tensors: tensors.update({f"{section}.stray.weight": torch.zeros(2)}))
    with pytest.raises(CheckpointKeyError, match=rf"{section}\.stray\.weight"):
        load(folder)


def test_unknown_vae_keys_are_normal(copy_checkpoint: CopyCheckpoint, caplog: pytest.LogCaptureFixture) -> None:
    folder = copy_checkpoint("tiny-2.0")
    edit_weights(folder, lambda tensors: tensors.update({"vae.stray.weight": torch.zeros(2)}))
    load(folder)
    assert "vae.stray.weight" in caplog.text


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("key", ["model.latent_in.bias", "vae.post_kl.weight"])
def test_weights_that_are_not_finite_are_named(copy_checkpoint: CopyCheckpoint, key: str, value: float) -> None:
    folder = copy_checkpoint("tiny-2.0")
    edit_weights(folder, lambda tensors: tensors[key].view(-1)[:1].fill_(value))
    with pytest.raises(CheckpointValueError, match=key):
        load(folder)


def test_weights_too_large_for_half_precision_are_named(copy_checkpoint: CopyCheckpoint) -> None:
    folder = copy_checkpoint("tiny-2.0")
    edit_weights(folder, lambda tensors: tensors.update({"model.latent_in.bias": torch.full((64,), 1e30)}))
    load(folder)
    with pytest.raises(CheckpointValueError, match=r"model\.latent_in\.bias.*float16"):
        load_checkpoint(folder, device=CPU, dtype=torch.float16)


@pytest.mark.parametrize("key", ["encoder.ln_post.bias", "pre_kl.weight", "encoder.self_attn.resblocks.0.ln_1.weight"])
def test_an_encoder_that_does_not_fit_is_left_out(copy_checkpoint: CopyCheckpoint, key: str) -> None:
    folder = copy_checkpoint("tiny-2.1")
    path = folder / "model.fp16.ckpt"
    sections = torch.load(path, weights_only=True)
    assert hasattr(load(folder).vae, "encoder")
    sections["vae"][key] = torch.zeros(3)
    torch.save(sections, path)
    assert not hasattr(load(folder).vae, "encoder")
    del sections["vae"][key]
    torch.save(sections, path)
    assert not hasattr(load(folder).vae, "encoder")


def test_whole_number_weights_are_refused(copy_checkpoint: CopyCheckpoint) -> None:
    folder = copy_checkpoint("tiny-2.0")
    edit_weights(folder, lambda tensors: tensors.update({"model.latent_in.bias": torch.zeros(64, dtype=torch.int8)}))
    with pytest.raises(CheckpointKeyError, match="int8"):
        load(folder)


def test_a_checkpoint_without_conditioner_samples_but_does_not_encode(copy_checkpoint: CopyCheckpoint) -> None:
    folder, golden = copy_checkpoint("tiny-2.0"), load_golden("tiny-2.0")

    def drop(tensors: dict[str, Tensor]) -> None:
        for key in [key for key in tensors if key.startswith("conditioner.")]:
            del tensors[key]

    edit_weights(folder, drop)
    pipeline = Hunyuan3DShapePipeline.from_pretrained(folder, device="cpu")
    latents = pipeline.sample_latents(golden.arrays["cond"], golden.steps, noise=golden.arrays["noise"])
    assert float((latents - golden.arrays["latents"]).abs().max()) < 1e-4
    with pytest.raises(CheckpointKeyError, match="conditioner"):
        pipeline.encode_images(golden.arrays["image"])


@pytest.mark.parametrize("name", ["tiny-2.1", "tiny-2.0", "tiny-2mini-turbo", "tiny-2mv"])
def test_a_saved_checkpoint_loads_as_the_same(name: str, tmp_path: Path) -> None:
    checkpoint = load(GOLDEN / name)
    save_checkpoint(tmp_path, checkpoint)
    again = load(tmp_path)
    assert again.config == checkpoint.config
    for first, second in ((again.denoiser, checkpoint.denoiser), (again.vae, checkpoint.vae)):
        torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)
    assert again.conditioner is not None
    assert checkpoint.conditioner is not None
    torch.testing.assert_close(again.conditioner.state_dict(), checkpoint.conditioner.state_dict(), rtol=0, atol=0)
    original = next((GOLDEN / name).glob("*/model.fp16.*"))
    assert set(checkpoint_files.read_weights(tmp_path / "model.fp16.safetensors").tensors) == set(
        checkpoint_files.read_weights(original).tensors
    )


# Files that mean harm, or are broken.


class Evil:
    """Unpickles by calling os.system."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("as_torch_file", [True, False])
def test_a_pickle_that_runs_code_is_refused_unrun(
    copy_checkpoint: CopyCheckpoint, tmp_path: Path, as_torch_file: bool
) -> None:
    folder, witness = copy_checkpoint("tiny-2.1"), tmp_path / "witness"
    path = folder / "model.fp16.ckpt"
    harm = {"model": Evil(f"touch {witness}")}
    if as_torch_file:
        torch.save(harm, path)
    else:
        path.write_bytes(pickle.dumps(harm))
    with pytest.raises(CheckpointError, match="more than plain tensors"):
        load(folder)
    assert not witness.exists()


@pytest.mark.parametrize("name", ["model.fp16.ckpt", "model.fp16.safetensors"])
@pytest.mark.parametrize("content", [b"", b"rubbish", b"PK\x03\x04 cut off", b"\xff" * 100])
def test_a_damaged_weight_file_is_unreadable(copy_checkpoint: CopyCheckpoint, name: str, content: bytes) -> None:
    folder = copy_checkpoint("tiny-2.1")
    (folder / "model.fp16.ckpt").unlink()
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointUnreadable, match=name):
        load(folder)


@pytest.mark.parametrize("name", ["tiny-2.1", "tiny-2.0"])
def test_a_truncated_weight_file_is_unreadable(copy_checkpoint: CopyCheckpoint, name: str) -> None:
    folder = copy_checkpoint(name)
    (path,) = folder.glob("model.fp16.*")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointUnreadable):
        load(folder)


def test_a_weight_file_without_tensors_is_unreadable(copy_checkpoint: CopyCheckpoint) -> None:
    folder = copy_checkpoint("tiny-2.1")
    torch.save({"model": {"epoch": 3}}, folder / "model.fp16.ckpt")
    with pytest.raises(CheckpointUnreadable, match="no tensors"):
        load(folder)


@pytest.mark.parametrize(("device", "dtype"), [("gpu9", None), ("meta", None), ("cpu", "int8"), ("cpu", torch.int8)])
def test_devices_and_precisions_that_are_not_offered_are_refused(device: str, dtype: str | torch.dtype | None) -> None:
    with pytest.raises(InvalidParameter):
        Hunyuan3DShapePipeline.from_pretrained(GOLDEN / "tiny-2.1", device=device, dtype=dtype)
