"""Our distributions built as wheels, and environments that have nothing but what was put into them.

Nothing here needs the network: wheels are built without isolation and installed without their dependencies, which are
lent from this environment. This module does not know what is tested with it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
_LENT = Path(sysconfig.get_path("purelib"))


def tracked_files(*under: str) -> list[Path]:
    """List the repository's files below some folders, as git knows them, by their paths in it."""
    listed = subprocess.run(  # noqa: S603
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *under],  # noqa: S607
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [Path(name) for name in listed.split("\0") if name and (REPOSITORY / name).is_file()]


def copy_source(source: str, target: Path) -> Path:
    """Copy what git knows of a folder of the repository, for builds leave things where they run; the target."""
    for name in tracked_files(source):
        file = target / name.relative_to(source)
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, file)
    return target


def build_wheel(source: str, folder: Path) -> Path:
    """Build the wheel of a distribution of this repository from a copy of its tracked files.

    source : its folder, "." for the service
    """
    copy = copy_source(source, folder / "source")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder / "dist"), str(copy)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)  # noqa: S603
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


class Environment:
    """A virtual environment of its own, without pip."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder, symlinks=True)
        self.bin = folder / "bin"
        self._packages = Path(
            sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}),
        )

    def install(self, *wheels: Path) -> None:
        """Install wheels, and nothing that they depend on."""
        options = ["--no-deps", "--no-index", "--quiet", "--disable-pip-version-check", "--no-compile"]
        command = [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "install", *options]
        subprocess.run([*command, *map(str, wheels)], check=True, timeout=120)  # noqa: S603

    def lend(self, packages: Sequence[str]) -> None:
        """Let it import these packages of the environment that runs the tests."""
        for name in packages:
            (self._packages / name).symlink_to(_LENT / name)

    def lend_all(self) -> None:
        """Let it import every package of the environment that runs the tests, unless it has its own.

        A path file that lies in the other folder is not followed: an editable install there stays out of sight.
        """
        (self._packages / "lent.pth").write_text(f"{_LENT}\n")
