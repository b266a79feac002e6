"""The settings as they stand in the environment: every one that cannot be used, and names that are near misses.

This module does not know what a setting is for.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backend.config import Settings, secret_variables, settings_table
from backend.errors import ConfigurationError
from backend.secret_files import SUFFIX

_OTHERS = frozenset({"ORFEAS_URL", "ORFEAS_AGENT_ID", "ORFEAS_API_KEY"})
"""What the client reads."""

_LIKENESS = 0.86
_LEAST_LETTERS = 7


@dataclass(frozen=True)
class ReadSettings:
    """Settings that can be used, and a sentence for each that cannot; those stand at their defaults."""

    settings: Settings
    problems: tuple[str, ...]


def read_settings(environ: Mapping[str, str]) -> ReadSettings:
    """Read the settings one by one as far as they go, and look for names that nothing reads."""
    given = dict(environ)
    problems: list[str] = []
    while True:
        try:
            settings = Settings.from_environment(given)
        except ConfigurationError as error:
            problems.append(error.message)
            if not _forget(given, error.message):
                return ReadSettings(Settings(), tuple(problems))
        else:
            return ReadSettings(settings, (*problems, *near_misses(list(environ))))


def near_misses(names: Sequence[str]) -> list[str]:
    """Return a sentence for each variable that looks like a setting of ours and is none."""
    known = setting_names()
    found = []
    for name in sorted(set(names) - known - _OTHERS):
        likely = difflib.get_close_matches(name, known, 1, _LIKENESS) if len(name) >= _LEAST_LETTERS else []
        if likely or name.startswith("ORFEAS_"):
            meant = f": did you mean {likely[0]}?" if likely else "; README.md lists every setting."
            found.append(f"Nothing reads the variable {name}{meant}")
    return found


def setting_names() -> frozenset[str]:
    """Return the variables that settings are read from."""
    names = re.findall(r"^\| `([A-Z0-9_]+)`", settings_table(), re.MULTILINE)
    return frozenset([*names, *(name + SUFFIX for name in secret_variables())])


def _forget(given: dict[str, str], message: str) -> bool:
    """Take away the variable that a sentence is about; whether there was one."""
    name = next((word for word in re.findall(r"[A-Z][A-Z0-9_]+", message) if word in given), None)
    return name is not None and given.pop(name) is not None
