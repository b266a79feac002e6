"""Ports for servers of tests: two processes that ask side by side never get the same."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from benchmarks.support.ports import free_port

ROOT = Path(__file__).parents[1]
_FIFTY = "from benchmarks.support.ports import free_port\nprint(*(free_port() for _ in range(50)), flush=True)\ninput()"


def test_processes_side_by_side_get_other_ports() -> None:
    others = [
        subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", _FIFTY], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    try:
        assert all(other.stdout for other in others)
        lists = [other.stdout.readline().split() for other in others if other.stdout]
    finally:
        for other in others:
            other.communicate("\n")
    given = [int(port) for ports in lists for port in ports] + [free_port() for _ in range(50)]
    assert len(given) == len(set(given)) == 150


def test_a_port_that_is_taken_is_passed_over() -> None:
    first = free_port()
    following = first + 1 if first % 100 < 99 else first - 99
    with socket.create_server(("127.0.0.1", following)):
        assert free_port() not in {first, following}
