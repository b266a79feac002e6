"""config.yaml in, validated settings out, and back: the only reader of a checkpoint's configuration.

A file's `target` strings are looked up, by their last part, in the literal tables below; nothing that a file names is
ever imported. Knows nothing of weights or of where files lie.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from functools import partial
from typing import Any, get_args, get_type_hints

from backend.errors import CheckpointConfigError
from backend.hunyuan3d.image.image_processor import ImageProcessor, MultiViewImageProcessor
from backend.hunyuan3d.networks.conditioner import ConditionerConfig
from backend.hunyuan3d.networks.denoiser_v2_0 import DenoiserV20Config
from backend.hunyuan3d.networks.denoiser_v2_1 import DenoiserV21Config
from backend.hunyuan3d.networks.dinov2 import DinoConfig
from backend.hunyuan3d.networks.schedulers import (
    ConsistencyFlowMatchEulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    Scheduler,
)
from backend.hunyuan3d.networks.shape_vae import ShapeVAEConfig
from backend.limits import CHECKPOINT_RESOLUTION, MAX_RESOLUTION, MIN_RESOLUTION

logger = logging.getLogger(__name__)

DINOV2_LARGE = DinoConfig(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16)
DINOV2_GIANT = DinoConfig(hidden_size=1536, num_hidden_layers=40, num_attention_heads=24, use_swiglu_ffn=True)
DINOV2_VERSIONS = {"facebook/dinov2-large": DINOV2_LARGE, "facebook/dinov2-giant": DINOV2_GIANT}


@dataclass(frozen=True)
class PipelineDefaults:
    """What is used where the caller says nothing, and how the shapes lie.

    view_aligned : the shapes are turned as the camera saw them, orthographic along -z, not as they stand. noise_scale :
    what the noise that a seed gives is multiplied with, 0 to 1: with less of it shapes are nearer to the likeliest one,
    and differ less from seed to seed.
    """

    num_inference_steps: int = 50
    guidance_scale: float = 5.0
    octree_resolution: int = CHECKPOINT_RESOLUTION
    view_aligned: bool = False
    noise_scale: float = 1.0

    def __post_init__(self) -> None:
        resolution_offered = MIN_RESOLUTION <= self.octree_resolution <= MAX_RESOLUTION
        if self.num_inference_steps < 1 or not self.guidance_scale >= 0 or not resolution_offered:
            raise ValueError("pipeline: num_inference_steps, guidance_scale or octree_resolution out of range")
        if not 0 <= self.noise_scale <= 1:
            raise ValueError(f"pipeline: noise_scale must be from 0 to 1, not {self.noise_scale}")


@dataclass(frozen=True)
class CheckpointConfig:
    """Everything a config.yaml says."""

    denoiser: DenoiserV20Config | DenoiserV21Config
    vae: ShapeVAEConfig
    conditioner: ConditionerConfig
    scheduler: Scheduler
    image_processor: ImageProcessor
    defaults: PipelineDefaults

    def __post_init__(self) -> None:
        channels, context = self.denoiser.in_channels, self.conditioner.dino.hidden_size
        denoiser = self.denoiser
        wanted = denoiser.context_dim if isinstance(denoiser, DenoiserV21Config) else denoiser.context_in_dim
        if channels != self.vae.embed_dim:
            raise ValueError(f"the denoiser's in_channels is {channels}, but the vae's embed_dim {self.vae.embed_dim}")
        if context != wanted:
            raise ValueError(f"the denoiser's context width is {wanted}, but the conditioner's hidden_size {context}")
        if isinstance(self.image_processor, MultiViewImageProcessor) != (self.conditioner.view_num is not None):
            raise ValueError("image processor and conditioner must both take one picture, or both several views")


@dataclass(frozen=True)
class Target:
    """One offered class: its settings, options without effect here, and options offered at some values only."""

    settings: type[Any]
    inert: frozenset[str] = frozenset()
    only: Mapping[str, tuple[object, ...]] = field(default_factory=dict)


_TRAINING = frozenset({"ckpt_path", "drop_path_rate", "freeze"})

MODELS = {
    "HunYuanDiTPlain": Target(
        DenoiserV21Config,
        _TRAINING | {"text_len", "decoupled_ca_dim", "decoupled_ca_weight", "additional_cond_hidden_state"},
        {
            "qk_norm_type": ("rms",),
            "norm_type": ("layer",),
            "mlp_ratio": (4, 4.0),
            "with_decoupled_ca": (False,),
            "use_attention_pooling": (False,),
            "guidance_cond_proj_dim": (None,),
        },
    ),
    "Hunyuan3DDiT": Target(
        DenoiserV20Config,
        _TRAINING | {"axes_dim", "theta"},
        {"time_factor": (1000, 1000.0), "use_pe": (False,)},
    ),
}
VAES = {
    "ShapeVAE": Target(
        ShapeVAEConfig,
        _TRAINING
        | {"pc_size", "pc_sharpedge_size", "downsample_ratio", "label_type", "supervision_type", "use_downsample"},
        {"use_ln_post": (True,)},
    )
}
SCHEDULERS = {
    "FlowMatchEulerDiscreteScheduler": Target(FlowMatchEulerDiscreteScheduler, only={"use_dynamic_shifting": (False,)}),
    "ConsistencyFlowMatchEulerDiscreteScheduler": Target(ConsistencyFlowMatchEulerDiscreteScheduler),
}
IMAGE_PROCESSORS = {"ImageProcessorV2": Target(ImageProcessor), "MVImageProcessorV2": Target(MultiViewImageProcessor)}
CONDITIONERS = {"SingleImageEncoder": Target(ConditionerConfig, _TRAINING | {"drop_ratio"})}
PIPELINES = {
    "Hunyuan3DDiTFlowMatchingPipeline": Target(PipelineDefaults),
    "Hunyuan3DDiTPipeline": Target(PipelineDefaults),
}
ENCODERS = ("DinoImageEncoder", "DinoImageEncoderMV")
DINO = Target(
    DinoConfig,
    frozenset(
        {
            "architectures",
            "attention_probs_dropout_prob",
            "drop_path_rate",
            "hidden_dropout_prob",
            "initializer_range",
            "torch_dtype",
            "transformers_version",
            "apply_layernorm",
            "reshape_hidden_states",
        }
    ),
    {"model_type": ("dinov2",), "hidden_act": ("gelu",)},
)
SECTIONS = {
    "model": MODELS,
    "vae": VAES,
    "conditioner": CONDITIONERS,
    "scheduler": SCHEDULERS,
    "image_processor": IMAGE_PROCESSORS,
    "pipeline": PIPELINES,
}


def parse_config(document: object, source: str) -> CheckpointConfig:
    """Read the settings of a whole checkpoint.

    document : the config.yaml as plain mappings; source : its path, for messages. Raises CheckpointConfigError.
    """
    sections = _mapping(document, source)
    for name, section in sections.items():
        if name not in SECTIONS:
            _refuse_target(section, f"{source}: section {name}")
            logger.warning("%s: section %s is not known and was ignored", source, name)
    scheduler = _section(sections, "scheduler", source)
    values = {
        "denoiser": _section(sections, "model", source),
        "vae": _section(sections, "vae", source),
        "conditioner": _conditioner(sections, source),
        "scheduler": scheduler,
        "image_processor": _section(sections, "image_processor", source),
        "defaults": _defaults(sections, scheduler, source),
    }
    config: CheckpointConfig = _build(partial(CheckpointConfig, **values), source)
    return config


def parse_vae_config(document: object, source: str) -> ShapeVAEConfig:
    """Read the settings of a separate VAE folder: a `vae` section, or its contents alone.

    Raises CheckpointConfigError.
    """
    sections = _mapping(document, source)
    vae: ShapeVAEConfig = _section({"vae": sections} if "target" in sections else sections, "vae", source)
    return vae


def config_document(config: CheckpointConfig) -> dict[str, object]:
    """Return the config.yaml, in the released layout, that `parse_config` reads back as `config`."""
    dino = config.conditioner
    kwargs = {"config": {**asdict(dino.dino), "model_type": "dinov2"}, "image_size": dino.image_size}
    kwargs["use_cls_token"] = dino.use_cls_token
    if dino.view_num is not None:
        kwargs["view_num"] = dino.view_num
    encoder = {"type": ENCODERS[dino.view_num is not None], "kwargs": kwargs}
    parts: dict[str, Any] = {
        "model": config.denoiser,
        "vae": config.vae,
        "scheduler": config.scheduler,
        "image_processor": config.image_processor,
        "pipeline": config.defaults,
    }
    document: dict[str, object] = {"conditioner": _entry("SingleImageEncoder", {"main_image_encoder": encoder})}
    for section, settings in parts.items():
        name = next(name for name, target in SECTIONS[section].items() if target.settings is type(settings))
        document[section] = _entry(name, asdict(settings))
    return document


def _entry(name: str, params: Mapping[str, object]) -> dict[str, object]:
    return {"target": f"backend.hunyuan3d.{name}", "params": dict(params)}


def _section(sections: Mapping[str, object], name: str, source: str) -> Any:
    where = f"{source}: section {name}"
    target, params = _target(sections, name, where)
    return settings_from(target, params, where)


def _target(sections: Mapping[str, object], name: str, where: str) -> tuple[Target, Mapping[str, object]]:
    if name not in sections:
        raise CheckpointConfigError(f"{where} is missing.", details={"section": name})
    section = _mapping(sections[name], where)
    dotted = section.get("target")
    table: Mapping[str, Target] = SECTIONS[name]
    if not isinstance(dotted, str) or dotted.rpartition(".")[2] not in table:
        raise CheckpointConfigError(
            f"{where} names {dotted!r}; known are {', '.join(table)}.",
            details={"section": name, "target": repr(dotted)},
        )
    params = section.get("params")
    return table[dotted.rpartition(".")[2]], _mapping({} if params is None else params, f"{where}: params")


def _conditioner(sections: Mapping[str, object], source: str) -> ConditionerConfig:
    """Read main_image_encoder: {type, kwargs: {config or version, image_size, use_cls_token, view_num}}."""
    where = f"{source}: section conditioner"
    _, params = _target(sections, "conditioner", where)
    encoder = _mapping(params.get("main_image_encoder"), f"{where}: main_image_encoder")
    kind = encoder.get("type")
    if kind not in ENCODERS:
        raise CheckpointConfigError(f"{where} names the encoder {kind!r}; known are {', '.join(ENCODERS)}.")
    kwargs = dict(_mapping(encoder.get("kwargs"), f"{where}: kwargs"))
    sizes, version = kwargs.pop("config", None), kwargs.pop("version", None)
    if sizes is None and version not in DINOV2_VERSIONS:
        raise CheckpointConfigError(f"{where} has no config, and its version {version!r} is not known.")
    dino = DINOV2_VERSIONS[str(version)] if sizes is None else settings_from(DINO, _mapping(sizes, where), where)
    kwargs.setdefault("image_size", dino.image_size)
    if kind == "DinoImageEncoderMV":
        kwargs.setdefault("view_num", 4)
    conditioner: ConditionerConfig = settings_from(CONDITIONERS["SingleImageEncoder"], kwargs, where, dino=dino)
    return conditioner


def _defaults(sections: Mapping[str, object], scheduler: Scheduler, source: str) -> PipelineDefaults:
    where = f"{source}: section pipeline"
    params: Mapping[str, object] = _target(sections, "pipeline", where)[1] if "pipeline" in sections else {}
    distilled = isinstance(scheduler, ConsistencyFlowMatchEulerDiscreteScheduler)
    few = {"num_inference_steps": 5} if distilled else {}
    defaults: PipelineDefaults = settings_from(Target(PipelineDefaults), {**few, **params}, where)
    return defaults


def settings_from(target: Target, params: Mapping[str, object], where: str, **given: object) -> Any:
    """Make strictly typed settings of a file's params; name options that are not known in one warning.

    given : fields that are known already. Raises CheckpointConfigError.
    """
    hints = get_type_hints(target.settings)
    values: dict[str, object] = dict(given)
    unknown = []
    for key, value in params.items():
        if key in target.only and value not in target.only[key]:
            raise CheckpointConfigError(
                f"{where}: {key} is {value!r}, which is not offered.", details={"option": key, "value": repr(value)}
            )
        if key in hints and key not in given:
            values[key] = _typed(value, hints[key], f"{where}: {key}")
        elif key not in target.only and key not in target.inert:
            unknown.append(str(key))
    if unknown:
        logger.warning("%s: these options are not known and were ignored: %s", where, ", ".join(unknown))
    required = [f.name for f in fields(target.settings) if f.default is MISSING and f.default_factory is MISSING]
    absent = [name for name in required if name not in values]
    if absent:
        raise CheckpointConfigError(f"{where} lacks {', '.join(absent)}.", details={"missing": absent})
    build: Callable[..., Any] = target.settings
    return _build(partial(build, **values), where)


def _typed(value: object, hint: Any, where: str) -> object:
    kinds: Sequence[Any] = get_args(hint) or (hint,)
    if value is None and type(None) in kinds:
        return None
    if bool in kinds and isinstance(value, bool):
        return value
    if int in kinds and isinstance(value, int) and not isinstance(value, bool):
        return value
    if str in kinds and isinstance(value, str):
        return value
    if float in kinds and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        # YAML 1.1 reads 1e-6, without a point, as text.
        number = _number(value)
        if math.isfinite(number):
            return number
    expected = " or ".join(getattr(kind, "__name__", str(kind)) for kind in kinds)
    raise CheckpointConfigError(f"{where} must be {expected}, not {value!r}.", details={"value": repr(value)})


def _number(value: float | str) -> float:
    try:
        return float(value)
    except ValueError:
        return math.nan


def _build(build: Callable[[], Any], where: str) -> Any:
    try:
        return build()
    except ValueError as e:
        raise CheckpointConfigError(f"{where}: {e}.") from e


def _mapping(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise CheckpointConfigError(f"{where} must be a mapping, not {type(value).__name__}.")
    return value


def _refuse_target(section: object, where: str) -> None:
    if isinstance(section, Mapping) and "target" in section:
        raise CheckpointConfigError(
            f"{where} names {section['target']!r}, which is not offered.", details={"target": repr(section["target"])}
        )
