"""Which process wrote something, and whether it is still there: known at once on its own machine, and nowhere else.

This module does not know what was written.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

_PROC = Path("/proc")
_STATE, _STARTED = 0, 19
"""Where proc_pid_stat(5) has a process's state and start, counted from behind its name."""
_ENDED = ("Z", "X", "x")


def mark_of_this_process() -> str | None:
    """Return a text that is this process's alone, while it lives; None on a system that does not show processes."""
    where, stat = _where(), _stat(os.getpid())
    return None if where is None or stat is None else f"{where} {os.getpid()} {stat[_STARTED]}"


def has_ended(mark: str | None) -> bool:
    """Return whether a process of this machine has ended; false where that cannot be known from here."""
    where, _, process = (mark or "").rpartition(" ")
    where, _, pid = where.rpartition(" ")
    if not where or where != _where() or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        # It is another user's.
        return False
    stat = _stat(int(pid))
    return stat is not None and (stat[_STATE] in _ENDED or stat[_STARTED] != process)


@functools.cache
def _where() -> str | None:
    """Return this boot of this machine, and the namespace in which its processes are numbered."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot} {(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return None


def _stat(pid: int) -> list[str] | None:
    try:
        # A process's name may have spaces and parentheses in it.
        return (_PROC / str(pid) / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return None
