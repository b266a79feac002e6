"""Which files an image's mesh and preview are written to, so that nothing made or given is overwritten by another.

This module knows paths only: it opens nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orfeas_client.file_names import first_free


@dataclass(frozen=True)
class OutputNames:
    """The files of one image: one mesh per format, in the formats' order, the preview, the turntable, the candidates.

    others : the meshes of each candidate behind the best one
    """

    meshes: tuple[Path, ...]
    preview: Path
    turntable: Path
    candidates: Path
    others: tuple[tuple[Path, ...], ...] = ()

    def every(self) -> list[Path]:
        """Return all of them."""
        others = [path for meshes in self.others for path in meshes]
        return [*self.meshes, self.preview, self.turntable, self.candidates, *others]


@dataclass(frozen=True)
class OutputPlan:
    """The files of every image, in the images' order, and the contact sheet."""

    names: tuple[OutputNames, ...]
    contact_sheet: Path


def plan_names(images: Sequence[Path], output: Path, formats: Sequence[str], candidates: int = 1) -> OutputPlan:
    """Name files after the images' own; the second of a name gets '-2', and so on.

    candidates : meshes of each image that files are kept of; the second's are called '.2', and so on.

    No file's name is used twice, also where upper and lower case count as the same, and none is that of an image that
    was given. Files of an earlier run are not spared: running again writes the same names.
    """
    taken = {_identity(image) for image in images}

    def files(stem: str) -> OutputNames:
        meshes, *others = (
            tuple(output / f"{stem}{number}.{format}" for format in formats)
            for number in ("", *(f".{k}" for k in range(2, candidates + 1)))
        )
        preview, turntable = output / f"{stem}.preview.png", output / f"{stem}.turntable.webp"
        return OutputNames(meshes, preview, turntable, output / f"{stem}.candidates.png", tuple(others))

    def take_image(stem: str) -> bool:
        names = files(stem)
        return _take(taken, [*names.every(), output / stem])

    plan = tuple(files(first_free(image.stem or "picture", take_image)) for image in images)
    sheet = first_free("contact-sheet", lambda stem: _take(taken, [output / f"{stem}.png"]))
    return OutputPlan(plan, output / f"{sheet}.png")


def _take(taken: set[str], paths: Sequence[Path]) -> bool:
    """Note the paths as taken, if all of them are free."""
    identities = {_identity(path) for path in paths}
    if not taken.isdisjoint(identities):
        return False
    taken.update(identities)
    return True


def _identity(path: Path) -> str:
    return str(path.resolve()).casefold()
