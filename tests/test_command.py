"""`orfeas`: every program behind one command, which waits for none of them to show its help."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import backend
from backend.cli.main import COMMANDS, run
from backend.command import EPILOG
from tests.support.own_process import printed

ROOT = Path(__file__).parents[1]


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(["--help"], {})
    assert caught.value.code == 0
    told = capsys.readouterr().out
    assert re.findall(r"^    (\w+) +\w", told, re.MULTILINE) == list(COMMANDS)


def test_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(["--version"], {})
    assert capsys.readouterr().out == f"orfeas {backend.__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["--nonsense"], ["serve", "--nonsense"], ["worker", "now"]])
def test_what_is_no_command_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(arguments, {})
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: orfeas")


@pytest.mark.parametrize(
    "arguments",
    [
        ["agents", "list"],
        ["keys", "rotate"],
        ["webhooks", "list"],
        ["webhooks", "replay", "0"],
        ["studio"],
        ["migrate"],
        ["backup", "copy"],
        ["restore", "copy"],
    ],
    ids=" ".join,
)
def test_what_an_operator_s_command_cannot_do_is_one_sentence_and_1(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments, {"ORFEAS_DATA_DIR": str(tmp_path), "PORT": "nonsense"}) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert re.fullmatch(r"PORT .+\.\n", told.err)
    with pytest.raises(SystemExit):
        run([arguments[0], "--help"], {})
    assert EPILOG in " ".join(capsys.readouterr().out.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_shows_its_own_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run([name, "--help"], {})
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: orfeas {name} ")


def test_the_command_line_itself_loads_nothing_of_the_service() -> None:
    program = (
        "import sys, backend.cli.main\n"
        "names = {name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names - {'__main__'}\n"
        "print(*names)\n"
        "print(*sorted(name for name in sys.modules if name.startswith('backend')))"
    )
    # Path files of the environment may load something before any program begins.
    before = printed("import sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))").split()
    libraries, modules = (line.split() for line in printed(program).splitlines())
    assert set(libraries) - set(before) == {"backend"}
    assert modules == ["backend", "backend.cli", "backend.cli.main"]


def test_help_comes_at_once() -> None:
    took = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "backend.cli.main", "--help"], cwd=ROOT, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    # The processor's time, and the least of it: others work on this machine too.
    assert min(took) < 0.5


def test_a_worker_without_celery_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("backend.worker")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "celery", None)
    monkeypatch.setitem(sys.modules, "billiard.util", None)
    assert run(["worker"], {}) == 2
    assert capsys.readouterr().err.endswith(": run `make cluster` in a checkout, or pip install 'orfeas[cluster]'.\n")


def test_pre_commit_runs_what_make_lint_runs() -> None:
    makefile = (ROOT / "Makefile").read_text()
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert lint is not None
    made = {line.strip().removeprefix("$(BIN)/").removesuffix(" .") for line in lint[1].splitlines()}
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooked = {hook["entry"].removeprefix(".venv/bin/").removesuffix(" --force-exclude") for hook in repository["hooks"]}
    assert hooked == made


def test_continuous_integration_calls_make_test() -> None:
    (job,) = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"].values()
    assert job["steps"][-1]["run"] == "make test"
    oldest = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"].removeprefix(">=")
    assert job["strategy"]["matrix"]["python"][0] == oldest
