"""Tests that need programs which are missing and may not be installed here: left out and named, unless CI is set.

A plugin of pytest; `-rs` names what was left out, and why, at the end.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

from benchmarks.support.programs import ProgramsMissing


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, object, object]:
    """Leave a test out whose fixtures lack a program."""
    return (yield from _left_out())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    """Leave a test out that lacks a program itself."""
    return (yield from _left_out())


def _left_out() -> Generator[None, object, object]:
    try:
        return (yield)
    except ProgramsMissing as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))
