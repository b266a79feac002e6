"""The parent watch: a child learns that it is to stop, and whether it has lost its parent."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.own_process import printed

CHILD = """
import os, signal, sys, threading, time
from backend.worker.parent_watch import ParentWatch
line = ParentWatch()
if os.fork() == 0:
    heard = threading.Event()
    told = []
    line.watch(lambda orphaned: (told.append(orphaned), heard.set()))
    print("watching", flush=True)
    assert heard.wait(30)
    print(told, flush=True)
    os._exit(0)
time.sleep(0.5)
"""


@pytest.mark.parametrize(
    ("then", "told"),
    [("line.cut(); line.cut(); os.wait()", "[False]"), ("os.kill(os.getpid(), signal.SIGKILL)", "[True]")],
)
def test_a_child_hears_the_cut_and_the_death_of_its_parent(then: str, told: str) -> None:
    with subprocess.Popen([sys.executable, "-c", CHILD + then], stdout=subprocess.PIPE, text=True) as parent:  # noqa: S603
        assert parent.stdout is not None
        # To the end of the stream: the child may outlive its parent.
        assert parent.stdout.read().split("\n") == ["watching", told, ""]


def test_every_child_in_turn_hears_the_cut() -> None:
    second = """
line.cut()
os.wait()
if os.fork() == 0:
    heard = threading.Event()
    line.watch(lambda orphaned: heard.set())
    print(heard.wait(30), flush=True)
    os._exit(0)
os.wait()
"""
    assert printed(CHILD + second).split("\n") == ["watching", "[False]", "True", ""]


def test_a_child_tells_itself_and_hears_of_its_parent_after_that() -> None:
    asking = """
line = ParentWatch()
if os.fork() == 0:
    told = []
    heard = threading.Semaphore(0)
    line.ask()
    line.watch(lambda orphaned: (told.append((orphaned, line.is_cut)), heard.release()))
    line.ask()
    assert heard.acquire(timeout=30)
    os.kill(os.getppid(), signal.SIGKILL)
    assert heard.acquire(timeout=30)
    print(told, flush=True)
    os._exit(0)
os.wait()
"""
    program = CHILD.split("line = ", maxsplit=1)[0] + asking
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:  # noqa: S603
        assert parent.stdout is not None
        assert parent.stdout.read() == "[(False, False), (True, True)]\n"
