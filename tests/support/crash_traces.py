"""Where each thread of a test process was when it crashed, printed at the end of the run.

A plugin of pytest. A process of pytest-xdist that ends by a signal takes its output with it, or leaves it somewhere
among a thousand lines; so each writes to a file of its own, which the process that started them all prints.
"""

from __future__ import annotations

import faulthandler
import os
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import IO

import pytest

_FOLDER = "ORFEAS_TESTS_CRASH_TRACES"
_CALLS = 6
_opened = pytest.StashKey[IO[str]]()
_made = pytest.StashKey[tempfile.TemporaryDirectory[str]]()


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Write traces to this process's own file; make the folder for it in the first process."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None:
        config.stash[_made] = tempfile.TemporaryDirectory(prefix="crash-traces-")
        os.environ[_FOLDER] = config.stash[_made].name
    elif folder := os.environ.get(_FOLDER):
        config.stash[_opened] = (Path(folder) / f"{worker}.txt").open("w", encoding="utf-8")
        faulthandler.enable(config.stash[_opened])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what the processes that crashed have left."""
    made = config.stash.get(_made, None)
    for file in sorted(Path(made.name).iterdir()) if made else ():
        if trace := file.read_text(encoding="utf-8").strip():
            terminalreporter.section(f"{file.stem} crashed")
            terminalreporter.write_line(_innermost(trace))


def _innermost(trace: str) -> str:
    """Return the last calls of each thread: whoever prints the end of a run alone shows what matters."""
    kept, calls = [], 0
    for line in trace.splitlines():
        calls = calls + 1 if line.startswith("  File ") else 0
        if line.strip() and calls <= _CALLS and not line.startswith("Extension modules"):
            kept.append(line)
    return "\n".join(kept)


@pytest.hookimpl(wrapper=True)
def pytest_unconfigure(config: pytest.Config) -> Generator[None, object, object]:
    """Close the file, which faulthandler is to let go of first; remove the folder."""
    opened, made = config.stash.get(_opened, None), config.stash.get(_made, None)
    if opened is not None:
        faulthandler.disable()
        opened.close()
    if made is not None:
        os.environ.pop(_FOLDER, None)
        made.cleanup()
    return (yield)
