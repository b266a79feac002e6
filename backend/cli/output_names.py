"""Which files a picture's mesh and preview are written to, so that nothing made or given is overwritten by another.

Knows paths only: it opens nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path


@dataclass(frozen=True)
class OutputNames:
    """The files of one picture: one mesh per format, in the formats' order, and the preview."""

    meshes: tuple[Path, ...]
    preview: Path


@dataclass(frozen=True)
class OutputPlan:
    """The files of every picture, in the pictures' order, and the contact sheet."""

    names: tuple[OutputNames, ...]
    contact_sheet: Path


def plan_names(images: Sequence[Path], output: Path, formats: Sequence[str]) -> OutputPlan:
    """Names after the pictures' own; the second of a name gets '-2', and so on.

    No file's name is used twice, also where upper and lower case count as the same, and none is that of a picture that
    was given. Files of an earlier run are not spared: running again writes the same names.
    """
    taken = {_identity(image) for image in images}

    def free(stem: str) -> OutputNames:
        for number in chain([""], (f"-{n}" for n in count(2))):
            base = f"{stem}{number}"
            found = OutputNames(tuple(output / f"{base}.{fmt}" for fmt in formats), output / f"{base}.preview.png")
            identities = {_identity(path) for path in (*found.meshes, found.preview, output / base)}
            if taken.isdisjoint(identities):
                taken.update(identities)
                return found
        raise AssertionError("there is always another number")

    names = tuple(free(image.stem or "picture") for image in images)
    sheet = next(
        path
        for path in (output / f"contact-sheet{number}.png" for number in chain([""], (f"-{n}" for n in count(2))))
        if _identity(path) not in taken
    )
    return OutputPlan(names, sheet)


def _identity(path: Path) -> str:
    return str(path.resolve()).casefold()
