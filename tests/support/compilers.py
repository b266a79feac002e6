"""A compiler for tests: gives back what it was given, counts, waits and fails where a test says so."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class FakeCompiler:
    """In torch.compile's place.

    when : at which call of a compiled function `failure` is raised, 0 for compiling itself. may_go_on : what compiling
    waits for; set unless a test clears it.
    """

    def __init__(self, failure: Exception | None = None, when: int = 0) -> None:
        self.failure = failure
        self.when = when
        self.calls = 0
        self.compiled = 0
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, counted."""
        assert self.may_go_on.wait(60)
        self.fail_at(0)
        self.compiled += 1

        def compiled(*args: Any) -> Any:
            self.calls += 1
            self.fail_at(self.calls)
            return function(*args)

        return compiled

    def fail_at(self, moment: int) -> None:
        """Raise the failure when its moment has come."""
        if self.failure is not None and moment == self.when:
            raise self.failure
