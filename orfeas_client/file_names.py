"""Names for the files that are made of images, so that none is taken twice. Nothing but the standard library."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, count


def first_free(stem: str, take: Callable[[str], bool]) -> str:
    """Return `stem`, or else 'stem-2', 'stem-3' and so on: the first name for which `take` says that it is free.

    take : called with one name after the other; it may note the one that it says yes to
    """
    return next(name for name in chain([stem], (f"{stem}-{number}" for number in count(2))) if take(name))
