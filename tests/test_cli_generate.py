"""The command line, with a stand-in for the model where its answers must be known, and once with a real one."""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trimesh
from PIL import Image
from rich.console import Console

from backend.batch_inference_extension import BatchProgress, add_batch_inference_to_processor
from backend.cli.arguments import CommandLine
from backend.cli.console import Terminal
from backend.cli.generate import Draw, load_and_draw, main
from backend.cli.output_names import plan_names
from backend.errors import (
    CheckpointError,
    CheckpointKeyError,
    CheckpointNotFound,
    InvalidSteps,
    NoForeground,
    OutOfMemory,
    PreviewUnavailable,
    ServiceError,
)
from backend.hunyuan3d.device.memory import HostMemory
from backend.hunyuan3d.facts import Remark
from backend.hunyuan3d.results import ShapeMetadata, ShapeResult
from backend.hunyuan_integration import Hunyuan3DProcessor
from backend.rendering import outputs
from tests.support.golden import load_golden
from tests.support.hostile_pictures import good_png
from tests.support.tiny_painter import save_tiny_painter

GOLDEN = Path(__file__).parent / "golden" / "tiny-2.1"
NO_COLORS = "note: The picture's cut-out is not at hand; the mesh has no colours."


class StandIn:
    """In the GPU's place: a ball for every picture, except where it was told otherwise."""

    def __init__(self, problems: dict[str, ServiceError] | None = None) -> None:
        self.problems = problems or {}
        self.calls: list[tuple[list[str], dict[str, Any]]] = []

    def __call__(self, images: Sequence[Path], **options: Any) -> list[ShapeResult]:
        self.calls.append(([path.name for path in images], options))
        for stage in ("preprocess", "encode", "sample", "decode", "mesh"):
            options["on_progress"](BatchProgress(stage, 1, 2, tuple(range(len(images)))))
        return [self._one(path, options["seeds"], len(images)) for path in images]

    def _one(self, path: Path, seed: int | None, batch: int) -> ShapeResult:
        metadata = ShapeMetadata("stand-in", batch, seed=4711 if seed is None else seed)
        if path.name in self.problems:
            return ShapeResult(None, self.problems[path.name], metadata)
        return ShapeResult(trimesh.creation.icosphere(subdivisions=2), None, metadata)


class Shell:
    """Runs the command line in a folder of its own and keeps what it says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ: dict[str, str] = {}
        self.drawn: list[tuple[str | None, str, int]] = []
        self.undrawable: Exception | None = None
        self.out, self.err = io.StringIO(), io.StringIO()

    def __call__(self, *arguments: object, processor: object = None, draw: Draw | None = None) -> int:
        """Run it. processor : a processor's `generate_shape_batch`, or what loading one raises; draw : default ours."""
        terminal = Terminal(Console(file=self.out, width=600), Console(file=self.err, width=600))
        stand_in = processor or StandIn()

        def load(_: CommandLine) -> Any:
            if isinstance(stand_in, BaseException):
                raise stand_in
            return SimpleNamespace(generate_shape_batch=stand_in)

        return main([str(argument) for argument in arguments], load, terminal, draw or self.draw, self.environ)

    def draw(self, command: CommandLine, seed: int) -> bytes:
        """Draw a small picture, or raise what was told to."""
        self.drawn.append((command.prompt, command.text_to_image_model, seed))
        if self.undrawable is not None:
            raise self.undrawable
        return good_png()

    def image(self, name: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 24), (200, 30, 30)).save(path)
        return path

    @property
    def output(self) -> Path:
        return self.folder / "out"

    def made(self) -> list[str]:
        return sorted(path.name for path in self.output.iterdir())


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_every_image_gets_a_mesh_and_a_preview(shell: Shell) -> None:
    paths = [shell.image("mug.png"), shell.image("chair.jpg")]
    assert shell(*paths, "-o", shell.output) == 0
    assert shell.made() == ["chair.glb", "chair.preview.png", "mug.glb", "mug.preview.png"]
    assert len(trimesh.load(shell.output / "mug.glb", force="mesh").faces) == 320
    with Image.open(shell.output / "mug.preview.png") as preview:
        assert preview.width > 1000
    # The stand-in's shapes come without a cut-out.
    assert shell.err.getvalue().splitlines()[2:] == [NO_COLORS]


def test_each_mesh_is_told_of_as_soon_as_it_is_done(shell: Shell) -> None:
    said: list[str] = []

    class Watching(StandIn):
        def __call__(self, images: Sequence[Path], **options: Any) -> list[ShapeResult]:
            said.append(shell.err.getvalue())
            return super().__call__(images, **options)

    paths = [shell.image(f"p{k}.png") for k in range(3)]
    stand_in = Watching({"p1.png": NoForeground()})
    shell(*paths, "-o", shell.output, "--batch-size", 1, "--no-preview", processor=stand_in)
    first, second, third = shell.err.getvalue().splitlines()[:3]
    assert re.fullmatch(rf"1/3 {paths[0]}: {shell.output}/p0\.glb \(320 faces, \d+\.\d s\)", first)
    assert second.startswith(f"2/3 {paths[1]}: No object was found")
    assert third.startswith(f"3/3 {paths[2]}: ")
    assert said == ["", f"{first}\n", f"{first}\n{second}\n"]


def test_what_is_doubtful_is_said_below_its_mesh(shell: Shell) -> None:
    class Doubting(StandIn):
        def __call__(self, images: Sequence[Path], **options: Any) -> list[ShapeResult]:
            made = super().__call__(images, **options)
            remark = Remark("LOW_CONTRAST", "The object is hardly seen.")
            return [replace(made[0], metadata=replace(made[0].metadata, remarks=(remark,))), *made[1:]]

    paths = [shell.image("a.png"), shell.image("b.png")]
    assert shell(*paths, "-o", shell.output, "--no-preview", processor=Doubting()) == 0
    first, remark, second = shell.err.getvalue().splitlines()[:3]
    assert (first[:4], remark, second[:4]) == ("1/2 ", "    LOW_CONTRAST: The object is hardly seen.", "2/2 ")


def test_table_says_what_was_made(shell: Shell) -> None:
    shell(shell.image("mug.png"), "-o", shell.output, "--seed", 12)
    row = next(line for line in shell.out.getvalue().splitlines() if "mug.glb" in line)
    assert "320" in row
    assert "yes" in row
    assert row.rstrip().endswith("12")


def test_formats_may_repeat_and_come_in_lists(shell: Shell) -> None:
    code = shell(shell.image("a.png"), "-o", shell.output, "--format", "glb,STL", "-f", "obj", "-f", "ply,glb")
    assert code == 0
    assert shell.made() == ["a.glb", "a.obj", "a.ply", "a.preview.png", "a.stl"]


def test_no_preview_and_contact_sheet(shell: Shell) -> None:
    paths = [shell.image(f"p{k}.png") for k in range(2)]
    assert shell(*paths, "-o", shell.output, "--no-preview", "--contact-sheet") == 0
    assert shell.made() == ["contact-sheet.png", "p0.glb", "p1.glb"]
    assert "contact-sheet.png" in shell.out.getvalue()


def test_scale_reaches_the_files(shell: Shell) -> None:
    assert shell(shell.image("a.png"), "-o", shell.output, "--scale-mm", 25, "-f", "stl", "--no-preview") == 0
    assert trimesh.load(shell.output / "a.stl").extents.max() == pytest.approx(25.0, rel=1e-5)


def test_options_reach_the_model_and_images_come_in_batches(shell: Shell) -> None:
    stand_in = StandIn()
    paths = [shell.image(f"p{k}.png") for k in range(5)]
    options = [
        "--steps",
        7,
        "--guidance-scale",
        2.5,
        "--octree-resolution",
        96,
        "--target-faces",
        500,
        "--seed",
        3,
    ]
    more = ["--remove-background", "never", "--batch-size", 2, "--no-preview", "--acceleration", "fast"]
    assert shell(*paths, "-o", shell.output, *options, *more, processor=stand_in) == 0
    assert [names for names, _ in stand_in.calls] == [["p0.png", "p1.png"], ["p2.png", "p3.png"], ["p4.png"]]
    given = {key: value for key, value in stand_in.calls[0][1].items() if key != "on_progress"}
    assert given == {
        "num_inference_steps": 7,
        "guidance_scale": 2.5,
        "seeds": 3,
        "octree_resolution": 96,
        "target_faces": 500,
        "remove_background": "never",
        "acceleration": "fast",
        "objects": "all",
        "outline": "auto",
    }


def test_what_is_not_asked_is_left_to_the_checkpoint(shell: Shell) -> None:
    stand_in = StandIn()
    shell(shell.image("a.png"), "-o", shell.output, "--no-preview", processor=stand_in)
    options = stand_in.calls[0][1]
    assert options["remove_background"] == "auto"
    assert options["acceleration"] == "none"
    assert options["target_faces"] == 100_000
    for name in ("num_inference_steps", "guidance_scale", "octree_resolution", "seeds"):
        assert options[name] is None


def test_one_bad_image_spoils_only_itself(shell: Shell) -> None:
    (shell.folder / "text.png").write_text("not a picture")
    paths = [shell.image("good.png"), shell.image("blank.png"), shell.folder / "text.png"]
    stand_in = StandIn({"blank.png": NoForeground()})
    assert shell(*paths, "-o", shell.output, "--contact-sheet", processor=stand_in) == 1
    assert shell.made() == ["contact-sheet.png", "good.glb", "good.preview.png"]
    said = shell.out.getvalue()
    assert "No object was found" in said
    assert "text.png: its content is not that of a picture" in said
    assert "Traceback" not in said + shell.err.getvalue()
    # What its file says by itself was said before the others were made.
    assert "text.png" in shell.err.getvalue().splitlines()[0]
    assert [names for names, _ in stand_in.calls] == [["good.png", "blank.png"]]


def test_nothing_is_loaded_for_pictures_of_which_none_can_be_read(shell: Shell) -> None:
    path = shell.folder / "text.png"
    path.write_text("not a picture")
    assert shell(path, "-o", shell.output, processor=AssertionError("it was loaded")) == 1
    assert "text.png: its content is not that of a picture" in shell.out.getvalue()


def test_all_that_is_wrong_is_named_at_once_before_anything_is_loaded(shell: Shell) -> None:
    arguments = [shell.folder / "absent.png", shell.image("a.png"), shell.folder]
    wrong = ["--steps", "many", "--seed", "-2", "--color", "red", "--format", "glb,fbx", "--dtype", "fp7"]
    more = ["--device", "abacus", "--compress", "zip", "--target-faces", "5", "--batch-size", "0"]
    code = shell(*arguments, *wrong, *more, "-o", shell.output, processor=AssertionError("it was loaded"))
    assert code == 2
    said = shell.err.getvalue().splitlines()
    assert all(line.startswith("error: ") for line in said)
    named = ("--steps", "--seed", "--color", "--format", "--dtype", "--device", "--compress", "--target-faces")
    for what in (*named, "--batch-size", "absent.png is not there", f"{shell.folder} is a folder"):
        assert sum(what in line for line in said) == 1, what
    assert len(said) == len(named) + 3
    assert not shell.output.exists()


def test_batch_too_large_for_the_device_is_halved(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = load_golden("tiny-2.1").pipeline()
    sample_shapes, sizes = pipeline.sample_shapes, []

    def only_one(prepared: Sequence[Any], *options: Any) -> list[Any]:
        sizes.append(len(prepared))
        if len(prepared) > 1:
            raise OutOfMemory
        return sample_shapes(prepared, *options)

    monkeypatch.setattr(pipeline, "sample_shapes", only_one)
    processor = add_batch_inference_to_processor(Hunyuan3DProcessor(pipeline, HostMemory(), 4))
    paths = [GOLDEN / f"image{k}.png" for k in range(3)]
    options = ["--steps", 2, "--octree-resolution", 16, "--no-preview"]
    assert shell(*paths, "-o", shell.output, *options, processor=processor.generate_shape_batch) == 0
    assert sizes == [3, 1, 1, 1]
    assert shell.made() == ["image0.glb", "image1.glb", "image2.glb"]
    assert "note: memory was short: batch 3→1" in shell.err.getvalue()


def test_image_too_large_for_the_device_is_reported(shell: Shell) -> None:
    stand_in = StandIn({"p.png": OutOfMemory()})
    assert shell(shell.image("p.png"), "-o", shell.output, processor=stand_in) == 1
    assert "out of memory" in shell.out.getvalue()


def test_unnamed_failure_is_one_sentence(shell: Shell) -> None:
    def breaks(*_: object, **__: object) -> list[ShapeResult]:
        raise RuntimeError("the device fell asleep\nsecond line")

    assert shell(shell.image("p.png"), "-o", shell.output, processor=breaks) == 1
    assert "RuntimeError: the device fell asleep" in shell.out.getvalue()
    assert "second line" not in shell.out.getvalue()


def test_unwritable_mesh_is_that_images_problem(shell: Shell) -> None:
    (shell.output / "a.glb").mkdir(parents=True)
    paths = [shell.image("a.png"), shell.image("b.png")]
    assert shell(*paths, "-o", shell.output, "--no-preview") == 1
    assert "could not be written" in shell.out.getvalue()
    assert (shell.output / "b.glb").is_file()


def test_preview_that_cannot_be_drawn_is_a_note(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(*_: object, **__: object) -> None:
        raise PreviewUnavailable

    monkeypatch.setattr(outputs, "views_to_draw", unavailable)
    assert shell(shell.image("a.png"), "-o", shell.output, "--contact-sheet") == 0
    assert shell.made() == ["a.glb", "contact-sheet.png"]
    assert "No preview can be drawn" in shell.err.getvalue()


@pytest.mark.parametrize(
    "wrong",
    [
        ["--steps", "0"],
        ["--octree-resolution", "0"],
        ["--octree-resolution", "5000"],
        ["--guidance-scale", "-1"],
        ["--guidance-scale", "nan"],
        ["--seed", "-2"],
        ["--seed", str(2**32)],
        ["--target-faces", "5"],
        ["--scale-mm", "0"],
        ["--format", "fbx"],
        ["--format", "glb,,stl"],
        ["--batch-size", "0"],
    ],
    ids=" ".join,
)
def test_bad_parameter_is_refused_before_anything_is_loaded(shell: Shell, wrong: list[str]) -> None:
    stand_in = StandIn()
    assert shell(shell.image("a.png"), "-o", shell.output, *wrong, processor=stand_in) == 2
    assert stand_in.calls == []
    assert not shell.output.exists()
    assert shell.err.getvalue().startswith("error: ")
    assert len(shell.err.getvalue().splitlines()) == 1


@pytest.mark.parametrize("wrong", [["a.png", "--steps"], ["a.png", "--no-such-option"]])
def test_senseless_usage_exits_with_two(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(wrong)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_parameter_the_model_refuses_exits_with_two(shell: Shell) -> None:
    def refuses(*_: object, **__: object) -> list[ShapeResult]:
        raise InvalidSteps

    assert shell(shell.image("a.png"), "-o", shell.output, processor=refuses) == 2


def test_output_that_is_a_file_exits_with_two(shell: Shell) -> None:
    shell.output.write_text("in the way")
    assert shell(shell.image("a.png"), "-o", shell.output) == 2
    assert "cannot be made" in shell.err.getvalue()


@pytest.mark.parametrize(
    "failure", [CheckpointNotFound(), CheckpointKeyError("weights: key x is missing."), OSError("no network")]
)
def test_model_that_cannot_be_loaded_exits_with_three(shell: Shell, failure: Exception) -> None:
    assert shell(shell.image("a.png"), "-o", shell.output, processor=failure) == 3
    assert str(failure) in shell.err.getvalue()
    assert "Traceback" not in shell.err.getvalue()


def test_interruption_keeps_what_is_done(shell: Shell) -> None:
    class Interrupted(StandIn):
        def __call__(self, images: Sequence[Path], **options: Any) -> list[ShapeResult]:
            if self.calls:
                raise KeyboardInterrupt
            return super().__call__(images, **options)

    paths = [shell.image(f"p{k}.png") for k in range(3)]
    assert shell(*paths, "-o", shell.output, "--batch-size", 1, "--no-preview", processor=Interrupted()) == 130
    assert shell.made() == ["p0.glb"]
    assert "p0.glb" in shell.out.getvalue()
    assert "Interrupted" in shell.err.getvalue()


def test_termination_keeps_what_is_done_and_shows_it(shell: Shell) -> None:
    class Ended(StandIn):
        def __call__(self, images: Sequence[Path], **options: Any) -> list[ShapeResult]:
            if self.calls:
                signal.raise_signal(signal.SIGTERM)
            return super().__call__(images, **options)

    before = signal.getsignal(signal.SIGTERM)
    paths = [shell.image(f"p{k}.png") for k in range(3)]
    assert shell(*paths, "-o", shell.output, "--batch-size", 1, "--no-preview", processor=Ended()) == 143
    assert shell.made() == ["p0.glb"]
    assert "p0.glb" in shell.out.getvalue()
    assert "Terminated" in shell.err.getvalue()
    assert signal.getsignal(signal.SIGTERM) is before


def test_views_are_one_object_called_as_the_first_is(shell: Shell) -> None:
    given: list[Any] = []

    class Viewing(StandIn):
        def __call__(self, images: Sequence[Any], **options: Any) -> list[ShapeResult]:
            given.extend(images)
            return super().__call__([views["front"] for views in images], **options)

    front, back = shell.image("cat.png"), shell.image("behind.png")
    options = ["--checkpoint", str(GOLDEN.parent / "tiny-2mv"), "-o", str(shell.output), "--no-preview"]
    assert shell("--back", back, "--front", front, *options, processor=Viewing()) == 0
    assert given == [{"front": front, "back": back}]
    assert shell.made() == ["cat.glb"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--front", "a.png", "b.png", "--checkpoint", "hunyuan3d-2mv"],
            "Give pictures, one for each object, or views",
        ),
        ([], "Give pictures, one for each object, or views"),
        (["--front", "a.png", "--left", "b.png"], "demo takes one picture of an object, not several views"),
        (["--front", "a.png", "--left", "b.png", "--checkpoint", "hunyuan3d-2.1"], "hunyuan3d-2.1 takes one picture"),
        (["--front", "a.png", "--left", "c.png", "--checkpoint", "someone/model"], "c.png is not there"),
    ],
)
def test_views_are_checked_before_anything_is_loaded(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(shell.folder)
    for name in ("a.png", "b.png"):
        shell.image(name)
    assert shell(*arguments, processor=AssertionError("it was loaded")) == 2
    assert shell.err.getvalue().count("error: ") == 1
    assert said in shell.err.getvalue()


@pytest.mark.slow
def test_real_views_from_end_to_end(shell: Shell) -> None:
    folder = GOLDEN.parent / "tiny-2mv"
    views = [f"--{name}={folder / f'view0_{name}.png'}" for name in ("front", "back")]
    options = ["--steps", "2", "--octree-resolution", "16", "--no-preview", "--color", "none", "--device", "cpu"]
    terminal = Terminal(Console(file=shell.out, width=400), Console(file=shell.err, width=400))
    arguments = [*views, *options, "--checkpoint", str(folder), "-o", str(shell.output), "--upright", "off"]
    assert main(arguments, terminal=terminal) == 0, shell.out.getvalue() + shell.err.getvalue()
    assert shell.made() == ["view0_front.glb"]


def test_images_of_one_name_keep_apart(shell: Shell) -> None:
    paths = [shell.image(name) for name in ("a/mug.png", "b/mug.png", "c/Mug.jpg", "mug-2.png")]
    assert shell(*paths, "-o", shell.output, "--no-preview") == 0
    assert shell.made() == ["Mug-3.glb", "mug-2-2.glb", "mug-2.glb", "mug.glb"]


def test_nothing_given_is_overwritten(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("cup.png", "cup.preview.png", "contact-sheet.png")]
    plan = plan_names(paths, tmp_path, ["glb"])
    written = [path for names in plan.names for path in (*names.meshes, names.preview)] + [plan.contact_sheet]
    assert not set(written) & set(paths)
    assert len(set(written)) == len(written)


def test_file_names_are_not_taken_for_markup(shell: Shell) -> None:
    assert shell(shell.image("[red]x[/bold].png"), "-o", shell.output, "--no-preview") == 0
    assert "[red]x[/bold].png" in shell.out.getvalue()


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own, at the repository's root."""
    root = Path(__file__).parents[1]
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=root)  # noqa: S603


def test_help_needs_no_torch() -> None:
    lines = ["import sys", "from backend.cli import generate"]
    lines += ["try: generate.main(['--help'])", "finally: print('torch loaded:', 'torch' in sys.modules)"]
    ended = run_python("-c", "\n".join(lines))
    assert ended.returncode == 0
    assert "--octree-resolution" in ended.stdout
    assert "torch loaded: False" in ended.stdout


def test_words_are_drawn_first_and_their_picture_is_kept_beside_the_mesh(shell: Shell) -> None:
    shell.environ = {"TEXT_TO_IMAGE_MODEL": " painter "}
    stand_in = StandIn()
    options = ["--prompt", "A red mug!", "--image-seed", 5, "-o", shell.output, "--no-preview"]
    assert shell(*options, processor=stand_in) == 0
    assert shell.drawn == [("A red mug!", "painter", 5)]
    assert [names for names, _ in stand_in.calls] == [["a-red-mug.png"]]
    assert shell.made() == ["a-red-mug.glb", "a-red-mug.png"]
    assert (shell.output / "a-red-mug.png").read_bytes() == good_png()
    assert shell.err.getvalue().splitlines()[0] == f"{shell.output}/a-red-mug.png was drawn, by --image-seed 5."


@pytest.mark.parametrize("asked", [[], ["--image-seed", "-1"]], ids=["left out", "-1"])
def test_a_seed_for_the_picture_is_drawn_and_said(shell: Shell, asked: list[str]) -> None:
    shell.environ = {"TEXT_TO_IMAGE_MODEL": "painter"}
    assert shell("--prompt", "a mug", *asked, "-o", shell.output, "--no-preview", "--seed", 5) == 0
    ((_, _, seed),) = shell.drawn
    assert f"by --image-seed {seed}." in shell.err.getvalue()
    assert 0 <= seed < 2**32


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("\u2603", "prompt"),
        ("../etc/passwd", "etc-passwd"),
        ("Äpfel 2", "äpfel-2"),
        ("mug " * 99, "-".join(["mug"] * 12)),
    ],
)
def test_the_picture_of_words_is_called_by_the_first_of_them(shell: Shell, prompt: str, name: str) -> None:
    shell.environ = {"TEXT_TO_IMAGE_MODEL": "painter"}
    assert shell("--prompt", prompt, "-o", shell.output, "--no-preview") == 0
    assert shell.made() == [f"{name}.glb", f"{name}.png"]


@pytest.mark.parametrize(
    ("arguments", "model", "said"),
    [
        (["--prompt", "a mug"], "", "--prompt needs a model that draws pictures: name one in TEXT_TO_IMAGE_MODEL"),
        (["--prompt", ""], "painter", "--prompt must be a text of 1 to 1000 characters"),
        (["--prompt", "m" * 1001], "painter", "--prompt must be a text of 1 to 1000 characters"),
        (["--prompt", "a\nmug"], "painter", "--prompt must be a text of 1 to 1000 characters"),
        (["--prompt", "a mug", "a.png"], "painter", "Give pictures, one for each object, or views"),
        (["--prompt", "a mug", "--front", "a.png"], "painter", "or a --prompt."),
        (["--prompt", "a mug", "--image-seed", "-2"], "painter", "--image-seed -2: "),
        (["a.png", "--image-seed", "1"], "painter", "--image-seed goes with a --prompt"),
    ],
)
def test_words_that_cannot_be_drawn_are_refused_before_anything_is_loaded(
    shell: Shell, arguments: list[str], model: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.image("a.png")
    monkeypatch.chdir(shell.folder)
    shell.environ = {"TEXT_TO_IMAGE_MODEL": model}
    assert shell(*arguments, "-o", shell.output, processor=AssertionError("it was loaded")) == 2
    (line,) = shell.err.getvalue().splitlines()
    assert said in line
    assert shell.drawn == []
    assert not shell.output.exists()


@pytest.mark.parametrize(
    ("failure", "code", "said"),
    [
        (
            CheckpointError("TEXT_TO_IMAGE_MODEL=painter cannot be loaded: no such folder"),
            3,
            "painter cannot be loaded",
        ),
        (OutOfMemory(), 1, "out of memory"),
        (RuntimeError("the brush broke\nsecond line"), 1, "Unexpected RuntimeError: the brush broke"),
    ],
    ids=["model", "memory", "unnamed"],
)
def test_a_picture_that_is_not_drawn_loads_no_model_and_is_said(
    shell: Shell, failure: Exception, code: int, said: str
) -> None:
    shell.environ, shell.undrawable = {"TEXT_TO_IMAGE_MODEL": "painter"}, failure
    arguments = ["--prompt", "a mug", "-o", shell.output]
    assert shell(*arguments, processor=AssertionError("it was loaded")) == code
    assert said in shell.out.getvalue() + shell.err.getvalue()
    assert "second line" not in shell.out.getvalue() + shell.err.getvalue()
    assert shell.made() == []


def test_a_model_of_diffusers_draws_for_the_command(shell: Shell) -> None:
    save_tiny_painter(shell.folder / "painter")
    shell.environ = {"TEXT_TO_IMAGE_MODEL": str(shell.folder / "painter")}
    given = ["--prompt", "a mug", "--image-seed", 1, "-o", shell.output, "--no-preview", "--device", "cpu"]
    with warnings.catch_warnings():
        # What diffusers and transformers warn of among themselves.
        warnings.simplefilter("ignore")
        assert shell(*given, draw=load_and_draw) == 0
        first = (shell.output / "a-mug.png").read_bytes()
        assert shell(*given, draw=load_and_draw) == 0
    assert (shell.output / "a-mug.png").read_bytes() == first
    with Image.open(shell.output / "a-mug.png") as picture:
        assert (picture.format, picture.mode) == ("PNG", "RGB")


@pytest.mark.slow
def test_real_checkpoint_from_end_to_end(shell: Shell) -> None:
    paths = [str(GOLDEN / "image0.png"), str(GOLDEN / "image1.png")]
    options = [
        "--checkpoint",
        str(GOLDEN),
        "--steps",
        "2",
        "--octree-resolution",
        "24",
        "--target-faces",
        "2000",
    ]
    more = ["-o", str(shell.output), "-f", "glb,stl,obj,ply", "--seed", "5", "--contact-sheet", "--device", "cpu"]
    ended = run_python("-m", "backend.hunyuan3d", *paths, *options, *more)
    assert ended.returncode == 0, ended.stderr
    suffixes = ("glb", "obj", "ply", "preview.png", "stl")
    expected = ["contact-sheet.png", *(f"image{k}.{suffix}" for k in range(2) for suffix in suffixes)]
    assert shell.made() == expected
    for format in ("glb", "stl", "obj", "ply"):
        mesh = trimesh.load(shell.output / f"image0.{format}", force="mesh")
        mesh.merge_vertices(merge_norm=True, merge_tex=True)
        assert mesh.is_watertight
        # Random weights make a sponge, which does not stay the same thing at 2000 faces.
        assert 0 < len(mesh.faces) <= 32 * 2000


def test_missing_checkpoint_folder_from_end_to_end(shell: Shell) -> None:
    image = shell.image("a.png")
    terminal = Terminal(Console(file=shell.out), Console(file=shell.err, width=400))
    arguments = [str(image), "-o", str(shell.output), "--checkpoint", str(shell.folder / "nowhere")]
    assert main(arguments, terminal=terminal) == 3
    assert "nowhere" in shell.err.getvalue()
