"""Garbage while tests are collected, and after: what a run has loaded is not looked through again and again.

A plugin of pytest. Six thousand tests and the libraries they use are over a million objects that live to the end: each
full collection would look at all of them, for half a second or more, in the product's own calls of `gc.collect` too.
"""

from __future__ import annotations

import gc
from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for none while all of that is made, and have the collector skip it from then on."""
    gc.disable()
    try:
        return (yield)
    finally:
        freeze()


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Skip, too, what the tests of a file have loaded, once they are done."""
    if nextitem is not None and nextitem.path != item.path:
        freeze()


def freeze() -> None:
    """Have the collector skip from now on what lives now."""
    gc.collect()
    gc.freeze()
    gc.enable()
