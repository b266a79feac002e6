"""The image without a Docker engine: the Dockerfile read, .dockerignore applied, and what COPY would put in place."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile with its continuation lines joined."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text)

    @property
    def exec_form(self) -> list[str]:
        """The words of a JSON array; raises ValueError for the shell form."""
        words = json.loads(self.text[self.text.index("[") :])
        if not (isinstance(words, list) and words and all(isinstance(word, str) for word in words)):
            raise ValueError(self.text)
        return words


@cache
def instructions() -> tuple[Instruction, ...]:
    """Return the repository's Dockerfile."""
    lines = [line for line in (REPOSITORY / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return tuple(Instruction(*line.split(maxsplit=1)) for line in joined.splitlines() if line.strip())


def of(name: str) -> list[Instruction]:
    """Return the Dockerfile's instructions of one name."""
    return [instruction for instruction in instructions() if instruction.name == name]


def image_environment() -> dict[str, str]:
    """Return the variables that ENV sets."""
    return dict(word.split("=", 1) for instruction in of("ENV") for word in instruction.words)


def is_sent(path: str) -> bool:
    """Whether .dockerignore lets a path of the repository into the build: its last matching line decides."""
    sent = True
    for line in (REPOSITORY / ".dockerignore").read_text().splitlines():
        pattern = line.strip()
        if pattern and not pattern.startswith("#") and re.fullmatch(_expression(pattern.removeprefix("!")), path):
            sent = pattern.startswith("!")
    return sent


def _expression(pattern: str) -> str:
    # A pattern that names a folder holds for all that is in it.
    parts = {"**/": "(?:.*/)?", "*": "[^/]*"}
    return "".join(parts.get(part, re.escape(part)) for part in re.split(r"(\*\*/|\*)", pattern)) + "(?:/.*)?"


def build(target: Path) -> Path:
    """Copy into `target` what COPY puts into the WORKDIR of any stage from the checkout; the folder itself."""
    for instruction in of("COPY"):
        if instruction.words[0].startswith("--from="):
            continue
        *sources, place = [word for word in instruction.words if not word.startswith("--")]
        for source in sources:
            found = REPOSITORY / source
            files = [path for path in found.rglob("*") if path.is_file()] if found.is_dir() else [found]
            for file in files:
                if is_sent(file.relative_to(REPOSITORY).as_posix()):
                    inside = file.relative_to(found) if found.is_dir() else Path(file.name)
                    copy = target / place / inside
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(file, copy)
    return target
