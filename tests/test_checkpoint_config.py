"""config.yaml: what is offered, what is ignored, what is refused, and that nothing it names is ever imported."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from backend.errors import CheckpointConfigError
from backend.hunyuan3d import Hunyuan3DShapePipeline
from backend.hunyuan3d.checkpoint.config import parse_config
from tests.support.golden import GOLDEN

Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def load_edited(copy_checkpoint: Callable[[str], Path]) -> Callable[[Edit], object]:
    """Load the tiny v2.0 checkpoint after a change to its config.yaml."""

    def load(edit: Edit) -> object:
        path = copy_checkpoint("tiny-2.0") / "config.yaml"
        document = yaml.safe_load(path.read_text())
        edit(document)
        path.write_text(yaml.safe_dump(document))
        return Hunyuan3DShapePipeline.from_pretrained(path.parent, device="cpu")

    return load


@pytest.mark.parametrize("section", ["model", "vae", "conditioner", "scheduler", "image_processor", "pipeline"])
@pytest.mark.parametrize("target", ["os.system", "subprocess.Popen", "system", "", None, 7])
def test_a_target_outside_the_table_is_refused(
    load_edited: Callable[[Edit], object], section: str, target: object
) -> None:
    with pytest.raises(CheckpointConfigError, match=section):
        load_edited(lambda document: document[section].update(target=target))


def test_a_target_in_an_unknown_section_is_refused(load_edited: Callable[[Edit], object]) -> None:
    with pytest.raises(CheckpointConfigError, match=r"os\.system"):
        load_edited(lambda document: document.update(extra={"target": "os.system"}))


def test_a_known_last_part_of_a_foreign_name_never_imports_it(load_edited: Callable[[Edit], object]) -> None:
    load_edited(lambda document: document["vae"].update(target="antigravity.ShapeVAE"))
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch witness']",
        "model: !!python/name:os.system",
        "model: [unclosed",
        "\x00",
        "- a list",
        "just text",
        "",
    ],
)
def test_a_config_that_is_not_a_plain_mapping_is_refused(
    copy_checkpoint: Callable[[str], Path], text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = copy_checkpoint("tiny-2.0")
    monkeypatch.chdir(tmp_path)
    (folder / "config.yaml").write_text(text)
    with pytest.raises(CheckpointConfigError):
        Hunyuan3DShapePipeline.from_pretrained(folder, device="cpu")
    assert not (tmp_path / "witness").exists()


@pytest.fixture
def document() -> dict[str, Any]:
    """Return the tiny v2.1 config, as plain data."""
    text = (GOLDEN / "tiny-2.1" / "hunyuan3d-dit-v2-1" / "config.yaml").read_text()
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


@pytest.mark.parametrize("section", ["model", "vae", "conditioner", "scheduler", "image_processor"])
def test_a_missing_section_is_named(document: dict[str, Any], section: str) -> None:
    del document[section]
    with pytest.raises(CheckpointConfigError, match=f"{section} is missing"):
        parse_config(document, "c")


def test_the_pipeline_section_gives_defaults_or_may_be_missing(document: dict[str, Any]) -> None:
    document["pipeline"]["params"] = {"num_inference_steps": 10, "guidance_scale": 2}
    defaults = parse_config(document, "c").defaults
    assert (defaults.num_inference_steps, defaults.guidance_scale) == (10, 2.0)
    del document["pipeline"]
    defaults = parse_config(document, "c").defaults
    assert (defaults.num_inference_steps, defaults.guidance_scale) == (50, 5.0)


def test_the_pipeline_section_says_how_strong_noise_is(document: dict[str, Any]) -> None:
    assert parse_config(document, "c").defaults.noise_scale == 1.0
    document["pipeline"]["params"] = {"noise_scale": 0}
    assert parse_config(document, "c").defaults.noise_scale == 0
    for wrong in (-0.1, 1.5):
        document["pipeline"]["params"] = {"noise_scale": wrong}
        with pytest.raises(CheckpointConfigError, match="noise_scale must be from 0 to 1"):
            parse_config(document, "c")


def test_known_inert_options_are_silent_and_unknown_ones_named_once(
    document: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        parse_config(document, "c")
    assert not caplog.records
    document["model"]["params"].update(sparkle=1, glitter=2)
    parse_config(document, "c")
    (record,) = caplog.records
    assert "sparkle, glitter" in record.getMessage()


@pytest.mark.parametrize(
    ("section", "option", "value"),
    [
        ("model", "use_attention_pooling", True),
        ("model", "with_decoupled_ca", True),
        ("model", "guidance_cond_proj_dim", 256),
        ("model", "qk_norm_type", "layer"),
        ("scheduler", "use_dynamic_shifting", True),
    ],
)
def test_an_option_that_is_on_but_not_offered_is_refused(
    document: dict[str, Any], section: str, option: str, value: object
) -> None:
    document[section]["params"][option] = value
    with pytest.raises(CheckpointConfigError, match=option):
        parse_config(document, "c")


@pytest.mark.parametrize(
    ("section", "option", "value"),
    [
        ("model", "depth", "five"),
        ("model", "depth", True),
        ("model", "depth", 2.5),
        ("model", "qkv_bias", 1),
        ("vae", "scale_factor", "nan"),
        ("vae", "scale_factor", [1.0]),
        ("vae", "width", None),
        ("vae", "width", 47),
        ("vae", "scale_factor", 0),
        ("vae", "embed_dim", 9),
        ("image_processor", "size", 0),
        ("model", "context_dim", 33),
    ],
)
def test_a_setting_of_the_wrong_kind_or_size_is_refused(
    document: dict[str, Any], section: str, option: str, value: object
) -> None:
    document[section]["params"][option] = value
    with pytest.raises(CheckpointConfigError):
        parse_config(document, "c")


def test_a_setting_without_default_must_be_there(document: dict[str, Any]) -> None:
    del document["vae"]["params"]["width"]
    with pytest.raises(CheckpointConfigError, match="width"):
        parse_config(document, "c")


def test_numbers_that_yaml_reads_as_text_are_numbers(document: dict[str, Any]) -> None:
    document["conditioner"]["params"]["main_image_encoder"]["kwargs"]["config"]["layer_norm_eps"] = "1e-6"
    assert parse_config(document, "c").conditioner.dino.layer_norm_eps == 1e-6


def test_dinov2_may_be_given_by_its_known_version(document: dict[str, Any]) -> None:
    encoder = document["conditioner"]["params"]["main_image_encoder"]
    encoder["kwargs"] = {"version": "facebook/dinov2-large", "image_size": 518}
    document["model"]["params"]["context_dim"] = 1024
    assert parse_config(document, "c").conditioner.dino.hidden_size == 1024
    encoder["kwargs"]["version"] = "someone/else"
    with pytest.raises(CheckpointConfigError, match="someone/else"):
        parse_config(document, "c")


def test_an_unknown_image_encoder_is_refused(document: dict[str, Any]) -> None:
    document["conditioner"]["params"]["main_image_encoder"]["type"] = "ClipImageEncoder"
    with pytest.raises(CheckpointConfigError, match="ClipImageEncoder"):
        parse_config(document, "c")


def test_views_must_be_meant_by_both_ends(document: dict[str, Any]) -> None:
    document["image_processor"]["target"] = "x.MVImageProcessorV2"
    with pytest.raises(CheckpointConfigError, match="views"):
        parse_config(document, "c")
