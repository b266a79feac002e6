"""What pyproject.toml cannot say: the sample pictures travel inside the package, where `orfeas demo` looks for them."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithSamples(build_py):
    """Build the packages, and copy samples/*.png into backend/demo/samples; an editable install needs no copy."""

    def run(self) -> None:
        """Build into the build folder."""
        super().run()
        if self.editable_mode:
            return
        folder = Path(self.build_lib, "backend", "demo", "samples")
        folder.mkdir(parents=True, exist_ok=True)
        for image in sorted(Path("samples").glob("*.png")):
            shutil.copy(image, folder / image.name)


setup(cmdclass={"build_py": BuildWithSamples})
