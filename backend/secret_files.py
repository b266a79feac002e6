"""Secrets in files, as Docker, Kubernetes and systemd hand them over: `NAME_FILE` names a file that holds NAME's value.

This module does not know which settings are secrets, or what they are for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from backend.errors import ConfigurationError

SUFFIX = "_FILE"
_LONGEST = 1 << 16


def with_secrets(environ: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Return an environment in which each of these names has the value that its file holds, where one is named.

    White space around a value is left out: editors end a file with a line's end. Raises ConfigurationError for a file
    that cannot be read or is empty, and where both the value and a file are given.
    """
    found = dict(environ)
    for name in names:
        path = environ.get(name + SUFFIX, "").strip()
        if not path:
            continue
        if environ.get(name, "").strip():
            raise ConfigurationError(f"{name + SUFFIX} and {name} are both set: remove one of them.")
        found[name] = _read(name + SUFFIX, Path(path).expanduser())
    return found


def _read(variable: str, path: Path) -> str:
    try:
        with path.open("rb") as stream:
            text = stream.read(_LONGEST + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigurationError(
            f"{variable} names {path}, which cannot be read ({reason}): see that it is there and that the service's "
            "user may read it."
        ) from error
    if len(text) > _LONGEST or not text.strip():
        raise ConfigurationError(f"{variable} names {path}, which {'is empty' if not text.strip() else 'is too long'}.")
    return text.strip()
