"""The options of `orfeas generate`: read, and checked all at once, before anything is loaded or made.

A person who gave three wrong ones is told of three. Whether a picture shows anything is found out later, and is that
picture's own problem. This module does not know what is done with the options.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from backend.errors import InvalidCandidates, InvalidParameter, InvalidPrompt, ServiceError
from backend.field_types import Prompt
from backend.hunyuan3d.checkpoint.defaults import known_views
from backend.limits import (
    ACCELERATIONS,
    BACKGROUND_MODES,
    COLOR_MODES,
    COMPRESSIONS,
    DEFAULT_ACCELERATION,
    DEFAULT_BACKGROUND_MODE,
    DEFAULT_COLOR,
    DEFAULT_COMPRESSION,
    DEFAULT_FORMAT,
    DEFAULT_KEPT_CANDIDATES,
    DEFAULT_OBJECTS,
    DEFAULT_OUTLINE,
    DEFAULT_PLACE,
    DEFAULT_QUALITY,
    DEFAULT_SCALE_MM,
    DEFAULT_UPRIGHT,
    FORMATS,
    KEPT_CANDIDATES,
    MAX_CANDIDATES,
    MAX_RESOLUTION,
    MAX_TARGET_FACES,
    MIN_RESOLUTION,
    MIN_TARGET_FACES,
    OBJECT_CHOICES,
    OUTLINE_MODES,
    PLACES,
    UPRIGHTS,
    VIEWS,
    default_target_faces,
)

if TYPE_CHECKING:
    from backend.limits import (
        Acceleration,
        BackgroundMode,
        ColorMode,
        Compression,
        KeptCandidates,
        MeshFormat,
        ObjectChoice,
        OutlineMode,
        Place,
        Upright,
        ViewName,
    )

EPILOG = (
    "Exit codes: 0 all made; 1 some pictures failed, the others are written; 2 wrong options or missing files, all "
    "named at once, nothing made; 3 the checkpoint cannot be loaded; 130 interrupted, 143 terminated: what was done "
    "before is written."
)
MODEL_VARIABLE = "TEXT_TO_IMAGE_MODEL"
"""The variable of the environment that names what draws pictures, for the service as well."""

_MOST_NAME_CHARACTERS = 48
Value = TypeVar("Value")


@dataclass(frozen=True)
class CommandLine:
    """What was asked for, as read_arguments has checked it.

    images : a picture for each object, or of several views of one object the first; views : those, by name
    prompt : words in place of pictures; images then has where the picture of them is to lie, once it is drawn
    text_to_image_model : what draws it, a folder or a hub repository
    None stands for what is left to the checkpoint.
    """

    images: tuple[Path, ...]
    views: Mapping[ViewName, Path]
    output: Path
    formats: tuple[MeshFormat, ...]
    num_inference_steps: int | None
    octree_resolution: int | None
    guidance_scale: float | None
    seed: int | None
    candidates: int
    keep: KeptCandidates
    target_faces: int | None
    scale_mm: float
    remove_background: BackgroundMode
    acceleration: Acceleration
    objects: ObjectChoice
    outline: OutlineMode
    color: ColorMode
    place: Place
    upright: Upright
    compress: Compression
    checkpoint: str
    subfolder: str | None
    device: str | None
    dtype: str | None
    preview: bool
    turntable: bool
    contact_sheet: bool
    batch_size: int
    prompt: str | None = None
    image_seed: int | None = None
    text_to_image_model: str = ""


class WrongArgumentsError(Exception):
    """Several things are wrong; problems : a sentence for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(" ".join(problems))
        self.problems = tuple(problems)


def parser() -> argparse.ArgumentParser:
    """Return what takes a command line apart; values stay texts, so that read_arguments can name all bad ones."""
    parser = argparse.ArgumentParser(
        prog="orfeas generate", description="Make a 3D mesh of each picture.", epilog=EPILOG
    )
    add = parser.add_argument
    cells = f"{MIN_RESOLUTION} to {MAX_RESOLUTION}"
    faces = f"{MIN_TARGET_FACES} to {MAX_TARGET_FACES:,}".replace(",", " ")
    add("images", nargs="*", type=Path, metavar="PICTURE", help="picture file with one object on it")
    for view in VIEWS:
        add(f"--{view}", type=Path, metavar="PICTURE", help=f"the {view} of one object, for a multi-view checkpoint")
    add("--prompt", metavar="TEXT", help=f"words in their place, for the model that {MODEL_VARIABLE} names to draw")
    add("--image-seed", metavar="S", help="draws the same picture of the same prompt (default, and -1: drawn)")
    add("-o", "--output", type=Path, default=Path("outputs"), metavar="FOLDER", help="default: %(default)s")
    add("-f", "--format", action="append", metavar="FORMATS", help=f"{', '.join(FORMATS)}; comma lists, repeats")
    add("--steps", metavar="N", help="denoising steps (default: the checkpoint's)")
    add("--octree-resolution", metavar="R", help=f"cells a side, {cells} (default: the checkpoint's)")
    add("--guidance-scale", metavar="G", help="0 and up (default: the checkpoint's)")
    add("--seed", metavar="S", help="0 to 2^32 - 1, the same for each picture (default, and -1: drawn)")
    seeds = f"meshes to choose the best from, of this seed and those after it, 1 to {MAX_CANDIDATES}"
    add("--candidates", default="1", metavar="N", help=f"{seeds} (default: %(default)s)")
    most = default_target_faces(DEFAULT_QUALITY)
    add("--target-faces", default=str(most), metavar="N", help=f"at most, {faces}, or none (default: %(default)s)")
    add("--scale-mm", default=f"{DEFAULT_SCALE_MM:g}", metavar="MM", help="longest side (default: %(default)s)")
    for name, (choices, default) in _CHOICES.items():
        add(f"--{name.replace('_', '-')}", default=default, metavar="|".join(choices), help="default: %(default)s")
    add("--checkpoint", default="demo", metavar="NAME", help="folder, hub repository or short name (default: demo)")
    add("--subfolder", metavar="NAME", help="the checkpoint's folder inside the repository")
    add("--device", metavar="NAME", help="cuda, mps or cpu (default: the best that is there)")
    add("--dtype", metavar="NAME", help="fp32, bf16 or fp16 (default: the device's usual one)")
    add("--batch-size", default="4", metavar="N", help="pictures that run together (default: %(default)s)")
    add("--no-preview", dest="preview", action="store_false", help="no preview PNG beside each mesh")
    add("--turntable", action="store_true", help="also write an animation of each mesh turning")
    add("--contact-sheet", action="store_true", help="also write one PNG with every picture and mesh")
    return parser


_CHOICES: Mapping[str, tuple[Sequence[str], str]] = {
    "remove_background": (BACKGROUND_MODES, DEFAULT_BACKGROUND_MODE),
    "acceleration": (ACCELERATIONS, DEFAULT_ACCELERATION),
    "objects": (OBJECT_CHOICES, DEFAULT_OBJECTS),
    "outline": (OUTLINE_MODES, DEFAULT_OUTLINE),
    "color": (COLOR_MODES, DEFAULT_COLOR),
    "place": (PLACES, DEFAULT_PLACE),
    "upright": (UPRIGHTS, DEFAULT_UPRIGHT),
    "compress": (COMPRESSIONS, DEFAULT_COMPRESSION),
    "keep": (KEPT_CANDIDATES, DEFAULT_KEPT_CANDIDATES),
}


@dataclass
class _Problems:
    """What was found to be wrong so far."""

    found: list[str] = field(default_factory=list)

    def check(self, option: str, text: Any, read: Callable[[Any], Value]) -> Value | None:
        """Return the value that a text stands for; None when there is no text, or it is noted as wrong."""
        if text is None:
            return None
        try:
            return read(text)
        except ValueError:
            self.found.append(f"{option} must be a number, not {text!r}.")
        except ServiceError as refusal:
            self.found.append(f"{option} {text}: {refusal.message}")
        return None


def read_arguments(parsed: argparse.Namespace, environ: Mapping[str, str]) -> CommandLine:
    """Check what was parsed, and make the output folder when all is well. Raises WrongArgumentsError."""
    from backend.hunyuan3d.mesh.offered import require_compression
    from backend.hunyuan3d.mesh.ops import check_scale_mm
    from backend.hunyuan3d.options import check_guidance_scale, check_num_inference_steps, check_octree_resolution

    problems = _Problems()
    check = problems.check
    values: dict[str, Any] = {
        "num_inference_steps": check("--steps", parsed.steps, lambda text: check_num_inference_steps(int(text))),
        "octree_resolution": check(
            "--octree-resolution", parsed.octree_resolution, lambda text: check_octree_resolution(int(text))
        ),
        "guidance_scale": check(
            "--guidance-scale", parsed.guidance_scale, lambda text: check_guidance_scale(float(text))
        ),
        "seed": check("--seed", parsed.seed, _seed),
        "image_seed": check("--image-seed", parsed.image_seed, _seed),
        "candidates": check("--candidates", parsed.candidates, _candidates),
        "target_faces": check("--target-faces", parsed.target_faces, _target_faces),
        "scale_mm": check("--scale-mm", parsed.scale_mm, lambda text: check_scale_mm(float(text))),
        "batch_size": check("--batch-size", parsed.batch_size, _batch_size),
        "formats": check("--format", ",".join(parsed.format or [DEFAULT_FORMAT]), _formats),
    }
    for name in _CHOICES:
        values[name] = check(f"--{name.replace('_', '-')}", getattr(parsed, name), _chosen(name))
    check("--compress", values["compress"], require_compression)
    values |= {name: getattr(parsed, name) for name in ("output", "checkpoint", "subfolder", "device", "dtype")}
    values |= {name: getattr(parsed, name) for name in ("preview", "turntable", "contact_sheet")}
    _check_device(parsed, problems)
    values |= _words(parsed, environ, problems)
    values |= _inputs(parsed, problems)
    if not problems.found:
        check("--output", parsed.output, _make_folder)
    if problems.found:
        raise WrongArgumentsError(problems.found)
    return CommandLine(**values)


def number_or_none(text: str) -> int | None:
    """Return a whole number, or None for none. Raises ValueError."""
    return None if text == "none" else int(text)


def _seed(text: str) -> int | None:
    from backend.hunyuan3d.options import check_seeds

    return None if text == "-1" else check_seeds(int(text), 1)[0]


def _target_faces(text: str) -> int | None:
    from backend.hunyuan3d.options import GenerationOptions, ImageOptions

    return ImageOptions(GenerationOptions(1, 0.0, MIN_RESOLUTION), 0, number_or_none(text)).target_faces


def _batch_size(text: str) -> int:
    if int(text) < 1:
        raise InvalidParameter("The batch size must be at least 1.")
    return int(text)


def _candidates(text: str) -> int:
    if not 1 <= int(text) <= MAX_CANDIDATES:
        raise InvalidCandidates
    return int(text)


def _formats(text: str) -> tuple[MeshFormat, ...]:
    from backend.hunyuan3d.mesh.export import check_format

    return tuple(dict.fromkeys(check_format(name) for name in text.split(",")))


def _chosen(name: str) -> Callable[[str], str]:
    choices = _CHOICES[name][0]

    def read(text: str) -> str:
        if text not in choices:
            raise InvalidParameter(f"It must be one of {', '.join(choices)}.")
        return text

    return read


def _check_device(parsed: argparse.Namespace, problems: _Problems) -> None:
    if parsed.device is None and parsed.dtype is None:
        return
    from backend.hunyuan3d.device.choice import resolve_device, resolve_dtype

    problems.check("--device", parsed.device, resolve_device)
    problems.check("--dtype", parsed.dtype, lambda text: resolve_dtype(text, resolve_device("cpu")))


def _words(parsed: argparse.Namespace, environ: Mapping[str, str], problems: _Problems) -> dict[str, Any]:
    """Return the prompt, if there is one, and what draws it; note what is wrong with either."""
    if parsed.prompt is None:
        if parsed.image_seed is not None:
            problems.found.append("--image-seed goes with a --prompt; --seed is the mesh's.")
        return {}
    try:
        TypeAdapter(Prompt).validate_python(parsed.prompt)
    except ValidationError:
        problems.found.append(f"--{InvalidPrompt().message}")
    model = environ.get(MODEL_VARIABLE, "").strip()
    if not model:
        problems.found.append(
            f"--prompt needs a model that draws pictures: name one in {MODEL_VARIABLE}, a folder or a repository of "
            "the Hugging Face hub (docs/pictures.md)."
        )
    return {"prompt": parsed.prompt, "text_to_image_model": model}


def _picture_of(prompt: str, folder: Path) -> Path:
    """Return where the picture of a prompt lies: it is called by the prompt's first words."""
    words = "-".join(re.findall(r"\w+", prompt.lower()))[:_MOST_NAME_CHARACTERS]
    return folder / f"{words.strip('-_') or 'prompt'}.png"


def _inputs(parsed: argparse.Namespace, problems: _Problems) -> dict[str, Any]:
    """Return the pictures, or the views of one object; note each that is not a file. Of a prompt: where it will be."""
    views = {view: getattr(parsed, view) for view in VIEWS if getattr(parsed, view) is not None}
    if sum((bool(views), bool(parsed.images), parsed.prompt is not None)) != 1:
        problems.found.append(
            "Give pictures, one for each object, or views of one object (--front, --back, …), or a --prompt."
        )
    if parsed.prompt is not None:
        return {"images": (_picture_of(parsed.prompt, parsed.output),), "views": {}}
    if views and known_views(parsed.checkpoint, parsed.subfolder or "") is False:
        problems.found.append(
            f"{parsed.checkpoint} takes one picture of an object, not several views; hunyuan3d-2mv takes them."
        )
    for path in (*parsed.images, *views.values()):
        if not path.is_file():
            what = "a folder, not a picture" if path.is_dir() else "not a file" if path.exists() else "not there"
            problems.found.append(f"{path} is {what}.")
    images = tuple(parsed.images) or tuple(views.values())[:1]
    return {"images": images, "views": views}


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise InvalidParameter(f"The folder cannot be made: {failure.strerror or failure}.") from failure
