"""A program in a Python of its own, and functions in several processes at once."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.context import ForkServerContext

# What the functions need that tests run so; each process would take a second to import it anew.
_IMPORTED_ONCE = (
    "pytest",
    "tests.support.faults.web_harness",
    "tests.support.guarded_service",
    "tests.support.redis_backend",
    "tests.support.store_backends",
)


def printed(program: str, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """Return what a program prints. environment : in place of this process's. Raises CalledProcessError."""
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout  # noqa: S603


def own_processes() -> ForkServerContext:
    """Return what makes processes and pools that share nothing with this one, forked from one that has imported all."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_IMPORTED_ONCE))
    return context
