"""Whether a process of this machine is still there."""

from __future__ import annotations

import os
import subprocess
import sys

from backend.jobs.process_marks import has_ended, mark_of_this_process
from tests.support.workshop import eventually

_SHOW = "from backend.jobs.process_marks import mark_of_this_process as m; print(m(), flush=True); input()"


def test_a_process_that_was_killed_has_ended_at_once_even_before_its_parent_asks() -> None:
    with subprocess.Popen([sys.executable, "-c", _SHOW], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:  # noqa: S603
        assert child.stdout is not None
        mark = child.stdout.readline().decode().strip()
        assert mark.split()[-2] == str(child.pid)
        assert not has_ended(mark)
        child.kill()
        eventually(lambda: has_ended(mark))
    assert has_ended(mark)


def test_this_process_is_there_and_one_that_had_its_number_before_is_not() -> None:
    mark = mark_of_this_process()
    assert mark is not None
    assert not has_ended(mark)
    where, pid, started = mark.rsplit(" ", 2)
    assert pid == str(os.getpid())
    assert has_ended(f"{where} {pid} {int(started) - 1}")


def test_of_other_machines_and_of_none_nothing_is_known() -> None:
    mark = mark_of_this_process() or ""
    elsewhere = "another-boot" + mark[12:]
    assert not has_ended(elsewhere.rsplit(" ", 2)[0] + " 999999999 1")
    for unreadable in (None, "", "a b", "a b c d", mark.rsplit(" ", 2)[0] + " -1 5"):
        assert not has_ended(unreadable)
