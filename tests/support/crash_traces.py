"""What is done about a test process that crashes: its test runs once more, and the end of the run says where it was.

A plugin of pytest. A process of pytest-xdist that ends by a signal takes its output with it, or leaves it somewhere
among a thousand lines; so each writes to a file of its own, which the process that started them all prints.
Twice in some twenty thousand tests a process ended inside scipy's cKDTree or beside it, never again by the same test,
and not with each block of memory fenced in (docs/decisions.md). A test that crashes twice has failed.
"""

from __future__ import annotations

import faulthandler
import os
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import IO, Any

import pytest

_FOLDER = "ORFEAS_TESTS_CRASH_TRACES"
_CALLS = 6
_opened = pytest.StashKey[IO[str]]()
_made = pytest.StashKey[tempfile.TemporaryDirectory[str]]()
_crashed = pytest.StashKey[list[str]]()


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


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem: str, report: pytest.TestReport, sched: Any) -> None:
    """Run a test once more, in another process, whose process ended under it. sched : pytest-xdist's scheduler."""
    crashed = sched.config.stash.setdefault(_crashed, [])
    if crashitem not in crashed:
        crashed.append(crashitem)
        sched.mark_test_pending(crashitem)
        report.outcome = "rerun"  # type: ignore[assignment]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what the processes that crashed have left."""
    made = config.stash.get(_made, None)
    for file in sorted(Path(made.name).iterdir()) if made else ():
        if trace := file.read_text(encoding="utf-8").strip():
            terminalreporter.section(f"{file.stem} crashed")
            terminalreporter.write_line(_innermost(trace))
    for test in config.stash.get(_crashed, []):
        terminalreporter.section(f"the process of {test} crashed; it ran once more")


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
