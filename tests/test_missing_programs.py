"""Programs that are missing and may not be installed: their tests are left out and named, and fail where CI is set."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.support.programs import ProgramsMissing, require

ROOT = Path(__file__).parents[1]
SCRIPTS = [
    ROOT / "benchmarks" / "support" / "install.sh",
    ROOT / "benchmarks" / "support" / "install-readers.sh",
    ROOT / "tests" / "support" / "install-recipe-tools.sh",
    ROOT / "tests" / "support" / "install-proxies.sh",
    ROOT / "tests" / "support" / "install-deploy-tools.sh",
    ROOT / "tests" / "support" / "install-browser.sh",
]
TEST = """
import pytest
from pathlib import Path
from benchmarks.support.programs import require

@pytest.fixture(scope="session")
def server(): require(Path(__file__).with_name("install.sh"))

def test_first(server): ...
def test_second(server): ...
def test_that_asks_itself(): require(Path(__file__).with_name("install.sh"))
def test_that_needs_nothing(): ...
"""


@pytest.fixture
def poor_machine(tmp_path: Path) -> dict[str, str]:
    """Return an environment without servers, for somebody who is not root."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "dirname", "env", "ls"):
        path = next(Path(folder, name) for folder in ("/usr/bin", "/bin") if Path(folder, name).exists())
        (tools / name).symlink_to(path)
    (tools / "id").write_text("#!/bin/bash\necho 1000\n")
    (tools / "id").chmod(0o755)
    return {"PATH": str(tools)}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_who_is_not_root_is_told_what_to_install(script: Path, poor_machine: dict[str, str]) -> None:
    done = subprocess.run([script], env=poor_machine, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 3
    assert done.stderr.startswith("Missing on this machine: ")
    assert ". As root: apt-get install --no-install-recommends " in done.stderr


@pytest.mark.parametrize(("ci", "status"), [("", 0), ("true", 1)])
def test_a_run_of_all_tests_says_so_at_once(poor_machine: dict[str, str], ci: str, status: int) -> None:
    command = [ROOT / "tests" / "support" / "install-programs.sh"]
    done = subprocess.run(command, env={**poor_machine, "CI": ci}, capture_output=True, text=True, check=False)  # noqa: S603
    lines = done.stderr.splitlines()
    assert done.returncode == status
    assert [line.partition(":")[0] for line in lines[:-1]] == ["Missing on this machine"] * len(SCRIPTS)
    left_out, fails = "The tests that need them are left out", "CI is set, so nothing may be left out."
    assert lines[-1].startswith(fails if ci else left_out)


@pytest.mark.parametrize(("ci", "outcome"), [("", "1 passed, 3 skipped"), ("true", "1 failed, 1 passed, 2 errors")])
def test_tests_are_left_out_and_named_unless_ci_is_set(tmp_path: Path, ci: str, outcome: str) -> None:
    (tmp_path / "test_it.py").write_text(TEST)
    install = tmp_path / "install.sh"
    install.write_text("#!/bin/sh\necho 'Missing on this machine: abacus.' >&2\nexit 3\n")
    install.chmod(0o755)
    command = [sys.executable, "-m", "pytest", "-rs", "-p", "tests.support.missing_programs", "-p", "no:cacheprovider"]
    environ = {**os.environ, "CI": ci, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(  # noqa: S603
        [*command, str(tmp_path)], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert outcome in done.stdout.splitlines()[-1]
    assert ("SKIPPED" in done.stdout) == (not ci)
    assert "Missing on this machine: abacus." in done.stdout
    assert done.returncode == bool(ci)


def test_a_script_that_fails_is_no_reason_to_leave_a_test_out(tmp_path: Path) -> None:
    script = tmp_path / "install.sh"
    script.write_text("#!/bin/sh\necho 'No network.' >&2\nexit 100\n")
    script.chmod(0o755)
    with pytest.raises(RuntimeError, match=r"^install\.sh ended with 100: No network\.$") as caught:
        require(script)
    assert not isinstance(caught.value, ProgramsMissing)
