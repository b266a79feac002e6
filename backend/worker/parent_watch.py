"""The signal to a child process that it is to end: a pipe whose writing end only its parent holds.

The child reads the pipe's end as 'stop', also when the parent died without a word, and can tell itself the same. This
module does not know what either process does.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable

_MOMENT_SECONDS = 0.5


class ParentWatch:
    """Let a parent end its children, and each child notice its parent's death; made before the fork."""

    def __init__(self) -> None:
        self._parent = os.getpid()
        self._reading, self._writing = os.pipe()
        self._asked, self._asking = -1, -1
        self.is_cut = False
        """Whether the parent cut the pipe or died, once that was noticed."""

    def cut(self) -> None:
        """Ask the child to stop; for the parent. Safe in a signal handler; a second time does nothing."""
        writing, self._writing = self._writing, -1
        if writing >= 0:
            os.close(writing)

    def ask(self) -> None:
        """Have the same called from within the child; for its signal handlers. Does nothing before watch()."""
        if self._asking >= 0:
            os.write(self._asking, b".")

    def watch(self, then: Callable[[bool], None]) -> None:
        """Call `then` on a thread of its own when the parent cuts the pipe or dies, or ask() was called; for the child.

        then : called with whether the parent has died: once, or for ask() and again for a parent that dies after it
        """
        # The child's copy of the writing end would keep the pipe open after the parent's is gone.
        self.cut()
        self._asked, self._asking = os.pipe()

        def wait() -> None:
            ready, _, _ = select.select([self._reading, self._asked], [], [])
            asked = self._reading not in ready
            if asked:
                then(False)
            os.read(self._reading, 1)
            self.is_cut = True
            orphaned = self._is_orphaned()
            if orphaned or not asked:
                then(orphaned)

        threading.Thread(target=wait, name="parent watch", daemon=True).start()

    def _is_orphaned(self) -> bool:
        # The kernel closes a dying process's files a moment before its children get another parent.
        until = time.monotonic() + _MOMENT_SECONDS
        while os.getppid() == self._parent and time.monotonic() < until:
            time.sleep(0.01)
        return os.getppid() != self._parent
